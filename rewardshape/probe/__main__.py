"""``python -m rewardshape.probe``: parse, run, show."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rewardshape.errors import InputError, described, needing, out_of_memory, to_any_output
from rewardshape.probe.command import PROGRAM, parse
from rewardshape.probe.process import Ended, keep_memory, quiet_imports, share_cores, signals_raise
from rewardshape.terminal import read_enough

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO, errno.ENAMETOOLONG}


def main(argv: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """Exit status.

    0 done; 1 a run of a sweep diverged, the others are done; 2 bad input, said in one ``error:`` line; 128 + signal
    when stopped (130 for Ctrl-C).
    """
    folder: list[Path] = []  # once it is known
    return guarded(
        lambda: _main(argv, prog, folder),
        lambda: how_to_go_on(prog, folder[0]) if folder else "stopped before anything was written",
    )


def guarded(act: Callable[[], int], when_stopped: Callable[[], str]) -> int:
    """The exit status of `act`; what ends it before its time is said in one line."""
    to_any_output()
    share_cores()
    keep_memory()
    try:
        with signals_raise():
            return act()
    except InputError as error:
        return fail(str(error))
    except BrokenPipeError:
        return read_enough()
    except OSError as error:
        if error.filename is None and error.errno not in DISK:
            raise  # of no file: a mistake of ours
        return fail(
            f"{described(error) if error.filename else f'disk: {error.strerror}'}; what was written is kept"
        )
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            return fail(
                "out of memory; --dry-run says what fits; give a smaller --micro-batch-size, or "
                "--gradient-checkpointing"
            )
        if speaks():
            raise
        return 2  # another process failed and said why; this one only lost the connection
    except KeyboardInterrupt as stopped:
        say(when_stopped())
        return 128 + (stopped.number if isinstance(stopped, Ended) else signal.SIGINT)


def _main(argv: Sequence[str] | None, prog: str, folder: list[Path]) -> int:
    settings = parse(argv, prog)
    with needing("probe", prog), quiet_imports():
        from rewardshape.probe.run import dry_run, run
        from rewardshape.probe.show import diverged, present
        from rewardshape.probe.stopping import Interrupted

    if settings.output.dry_run:
        plan = dry_run(settings)
        if is_main():
            print(plan, flush=True)
        return 0
    try:
        trace = run(settings, on_folder=folder.append, by_force=lambda number: leave(prog, folder, number))
    except Interrupted as stopped:
        say(how_to_go_on(prog, stopped.folder))
        return 128 + stopped.signal_number
    lost = diverged(trace)
    if is_main():
        present(trace, settings, say)
    if lost:
        fail(f"{len(lost)} of {len(trace.runs)} runs diverged: {'; '.join(lost)}")
    return 1 if lost else 0


def leave(prog: str, folder: list[Path], number: int) -> NoReturn:
    """End this process now, whatever it is in the middle of."""
    say(how_to_go_on(prog, folder[0]))
    os._exit(128 + number)


def how_to_go_on(prog: str, folder: Path) -> str:
    return f"stopped; the trace is whole. Go on with:\n  {prog} --resume --output {shlex.quote(str(folder))}"


def is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """A line on the terminal, if there is one still."""
    if is_main():
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def fail(message: str) -> int:
    if speaks():
        with contextlib.suppress(OSError):
            print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return 2


def speaks() -> bool:
    """Whether it is for this process to say what went wrong: of several only one."""
    if "WORLD_SIZE" not in os.environ:
        return True
    from rewardshape.probe.distributed import fails_first

    return fails_first()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())

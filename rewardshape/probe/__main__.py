"""``python -m rewardshape.probe``: parse, run, show."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from rewardshape.errors import InputError, needing

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO}


def main(argv: Sequence[str] | None = None, prog: str = "python -m rewardshape.probe") -> int:
    """Exit status: 0 done; 2 bad input, said in one ``error:`` line; 128 + signal when stopped (130 for Ctrl-C)."""
    from rewardshape.probe.command import parse
    from rewardshape.probe.process import quiet_imports

    output = None
    is_main = os.environ.get("RANK", "0") == "0"
    try:
        settings = parse(argv, prog)
        output = settings.output.output
        with needing("probe", prog), quiet_imports():
            from rewardshape.probe.run import Interrupted, dry_run, run

        if settings.output.dry_run:
            plan = dry_run(settings)
            if is_main:
                print(plan)
            return 0
        try:
            trace = run(settings)
        except Interrupted as stopped:
            if is_main:
                print(
                    f"stopped; the trace is whole. Go on with:\n  {prog} --resume --output {stopped.folder}",
                    file=sys.stderr,
                )
            return 128 + stopped.signal_number
        if is_main:
            from rewardshape.probe.show import show, write_results

            show(trace, write_results(trace), settings)
    except InputError as error:
        return fail(str(error))
    except OSError as error:
        if error.errno not in DISK:
            raise
        return fail(f"{error.filename or output or 'disk'}: {error.strerror}; what was written is kept")
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which may not be imported here
            return fail(
                "the device is out of memory; --dry-run says what fits; give a smaller --micro-batch-size, or "
                "--gradient-checkpointing"
            )
        if speaks():
            raise
        return 2  # another process failed and said why; this one only lost the connection
    except KeyboardInterrupt:
        if is_main:
            print("stopped before the first step was done; nothing to go on with", file=sys.stderr)
        return 130
    return 0


def fail(message: str) -> int:
    if speaks():
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
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

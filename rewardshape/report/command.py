"""``python -m rewardshape.report DIR``: write the page of a run or a sweep again, also while it goes on."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rewardshape.errors import InputError, printable
from rewardshape.report.page import unfinished, write_report
from rewardshape.terminal import answered, parser_of
from rewardshape.trace import RunFolder, read_trace

EVERY = 5.0  # seconds between two looks at the folder

DESCRIPTION = "Write report.html of a run or a sweep again, from what its trace holds so far."
EPILOG = """\
examples
  %(prog)s runs/my-sweep             write the page
  %(prog)s runs/my-sweep --watch     and again whenever a step is added, until every run has ended;
                                 a page opened meanwhile refreshes itself and keeps your place"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m rewardshape.report") -> int:
    """Exit status 0, 2 with one ``error:`` line, or 130 when interrupted."""
    parser = parser_of(prog, DESCRIPTION, EPILOG)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run folder, or the folder of several")
    parser.add_argument("--watch", action="store_true", help="write it again while a run goes on")
    return answered(parser, argv, _main)


def _main(arguments: argparse.Namespace) -> int:
    try:
        written = watch(arguments.folder) if arguments.watch else iter([write_report(arguments.folder)])
        print(printable(next(written)), flush=True)
        for _ in written:
            pass
    except KeyboardInterrupt:
        return 130
    return 0


def watch(folder: Path, going: Callable[[], bool] = lambda: True) -> Iterator[Path]:
    """Write the page whenever the record has grown or a run has ended, and give it each time.

    It ends once all runs of the command have, or when `going` says no. A command that has recorded nothing yet is
    waited for.

    Raises
    ------
    InputError
        If the folder holds no trace that can be shown, and no command is at work in it.
    """
    seen = None
    while going():
        now = _state(folder)
        if now != seen:
            seen = now
            try:
                trace = read_trace(folder, repair=True)
                more = unfinished(trace)  # when it was read: what ends meanwhile gets another page
                yield write_report(trace, live=more)
                if not more:
                    return
            except InputError:
                if not RunFolder(folder).command.is_file() or not _at_work(folder):
                    raise
        time.sleep(EVERY)


def _state(folder: Path) -> list[tuple[str, int, int, bool]]:
    """Of every record and manifest of the folder and of its runs: name, size, time, and whether its run was left."""
    own = RunFolder(folder)
    names = (own.trace.name, own.manifest.name)
    files = [file for name in names for place in (name, f"*/{name}") for file in folder.glob(place)]
    return sorted(
        (str(file), file.stat().st_size, file.stat().st_mtime_ns, RunFolder(file.parent).is_left())
        for file in files
    )


def _at_work(folder: Path) -> bool:
    """Whether a run of the folder goes on, or none has begun in it and its command has not left."""
    own = RunFolder(folder)
    runs = [RunFolder(file.parent) for place in ("", "*/") for file in folder.glob(place + own.manifest.name)]
    return any(run.status_of(run.read_manifest()) == "running" for run in runs) or (
        not runs and not own.is_left()
    )

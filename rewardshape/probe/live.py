"""The page of a command while it runs (``--live``): a process of its own writes it whenever the record grows."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rewardshape.errors import InputError
from rewardshape.report import write_report
from rewardshape.report.command import watch

PATIENCE = 10.0  # seconds that a page which is being written gets to be ended


@contextlib.contextmanager
def live_page(folder: Path) -> Iterator[None]:
    """Within it ``report.html`` follows the record; after it the page refreshes itself no longer.

    The process that writes it has a lower priority, and ends with this one, however that ends.
    """
    writer = subprocess.Popen(
        [sys.executable, "-m", "rewardshape.probe.live", str(folder), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this process, which then ends the other
    )
    try:
        yield
    finally:
        writer.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            writer.wait(PATIENCE)
        with contextlib.suppress(InputError, OSError):  # nothing recorded yet, or no room
            write_report(folder)


def main(folder: Path, command: int) -> None:
    """Write the page until the process of the command has ended."""
    if hasattr(os, "nice"):
        os.nice(5)
    for _ in watch(folder, going=lambda: os.getppid() == command):
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

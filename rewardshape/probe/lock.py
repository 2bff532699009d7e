"""One process at a time in a folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout

from rewardshape.errors import InputError
from rewardshape.trace.folder import RunFolder, Status

PATIENCE = 0.1  # seconds: whoever only asks whether a run goes on holds its lock for less


def locked(folder: Path) -> FileLock:
    """The folder, for this process alone, until the lock is released or the process ends, however it ends.

    The operating system holds the lock: one that a killed process leaves behind does not exist. On network file systems
    it holds as far as theirs do; where there are none, a warning says so.

    Raises
    ------
    InputError
        If another process has it.
    """
    lock = FileLock(RunFolder(folder).lock)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise InputError(
            f"{folder}: another process is at work in it; wait for it, or stop it, then go on with --resume"
        ) from None
    except NotImplementedError:
        warnings.warn(
            f"{folder}: its file system has no locks; do not start a second process in it", stacklevel=2
        )
    return lock


class Holder(Protocol):
    """Whoever works in a folder and can be told to leave it."""

    def close(self, status: Status) -> None:
        """End the work, let go of the folder."""


_holders: WeakValueDictionary[Path, Holder] = WeakValueDictionary()


def taken_over(folder: Path, holder: Holder) -> FileLock:
    """`locked`, for a holder whose predecessor in this process, of a cell that was interrupted say, leaves first."""
    place = folder.resolve()
    before = _holders.get(place)
    if before is not None and before is not holder:
        before.close("interrupted")
    lock = locked(folder)
    _holders[place] = holder
    return lock

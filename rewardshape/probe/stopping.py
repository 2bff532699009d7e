"""What can end a run before its last step, and what is then said of it: its manifest, and how to go on."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rewardshape.errors import InputError
from rewardshape.probe.distributed import here
from rewardshape.probe.process import ASKING
from rewardshape.trace.folder import RunFolder, Status

STEP_MAY_TAKE = 10.0  # seconds from a signal to the end of the step in hand
SAME = 1.0  # seconds within which a signal that comes again is the same one, passed on by a launcher too
LONG = 3600.0  # seconds; a system call knows no infinity


class Interrupted(Exception):
    """A signal stopped the command; its traces are whole and ``--resume`` goes on with them."""

    def __init__(self, signal_number: int, folder: Path):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; resume it in {folder}")
        self.signal_number = signal_number
        self.folder = folder


class Diverged(InputError):
    """A loss or a gradient was not finite; the run ended before that update."""


class Stop(threading.Event):
    """Set when a signal asked the run to stop; `heard` is set once the step in hand is over and the run obeys."""

    signal_number = int(signal.SIGINT)

    def __init__(self) -> None:
        super().__init__()
        self.heard = threading.Event()


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Within it, a signal that asks for an end asks for one after the step in hand; a second SIGINT stops at once.

    A second SIGTERM is left to `end_by_force`: launchers and schedulers pass one on that the process has had already.
    """
    stop = Stop()

    def ask(number: int, _: object) -> None:
        if stop.is_set():
            if number == stop.signal_number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        stop.signal_number = number
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # Under nohup a closed terminal is ignored, and stays so.
    heard = [number for number in ASKING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def end_by_force(stop: Stop, files: RunFolder, end: Callable[[int], object] | None) -> Iterator[None]:
    """Within it a process that is too busy to hear a signal ends all the same, its status recorded.

    A handler in Python runs between two of its instructions, and a step may be one for minutes. What the system writes
    down of every signal is read by a thread instead. It calls `end` with the number of the signal where the step in
    hand is not over `STEP_MAY_TAKE` seconds later, and shortly after a second signal in any case. Without `end`, for a
    caller whose process is not ours to end, nothing is watched.
    """
    if end is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reader, stop, files, end), daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        watch.join()
        os.close(reader)


def _watch(reader: int, stop: Stop, files: RunFolder, end: Callable[[int], object]) -> None:
    first, again, until, number = 0.0, False, math.inf, 0
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, min(until - time.monotonic(), LONG)))
        now = time.monotonic()
        sent = os.read(reader, 64) if ready else b"\0"
        if not sent:  # closed: the run is over
            return
        for asked in (n for n in sent if n in ASKING):
            number = asked
            if not first:
                first, until = now, now + STEP_MAY_TAKE
            elif now - first > SAME:
                again, until = True, min(until, now + SAME)
        if now >= until:
            if again or not stop.heard.is_set():
                try:
                    record_ending(files, "interrupted")
                finally:  # whatever its manifest has become
                    end(number)
                return
            until = math.inf


@contextlib.contextmanager
def ending_recorded(files: RunFolder, home: Path) -> Iterator[None]:
    """Within it a run trains; if it ends before its time, its manifest says why. `home` is the command's folder."""
    try:
        yield
    except Diverged as error:
        record_ending(files, "diverged", str(error))
        raise
    except KeyboardInterrupt:
        record_ending(files, "interrupted")
        raise Interrupted(signal.SIGINT, home) from None
    except BaseException as error:
        record_ending(files, "failed", (str(error).splitlines() or [type(error).__name__])[0])
        raise


def record_ending(files: RunFolder, status: Status, reason: str = "") -> None:
    """Say in the manifest of a run that has one how it ended, also where the disk has no room for it."""
    if not here().is_main or not files.manifest.is_file():  # the latter: before the run began
        return
    try:
        files.set_status(status, reason)
    except OSError:  # a full disk: what ended the run is said all the same, and this word has room
        with contextlib.suppress(OSError):
            files.set_status_in_place("failed")


def is_settled(files: RunFolder) -> bool:
    """Whether nothing is left to do for a run: it is done, or it diverged, which it would do again."""
    return files.read_manifest().get("status") in ("done", "diverged")

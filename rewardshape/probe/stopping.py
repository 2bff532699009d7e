"""What can end a run before its last step, and what is then said of it: its manifest, and how to go on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from rewardshape.errors import InputError
from rewardshape.probe.distributed import here
from rewardshape.trace.folder import RunFolder, Status


class Interrupted(Exception):
    """A signal stopped the command; its traces are whole and ``--resume`` goes on with them."""

    def __init__(self, signal_number: int, folder: Path):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; resume it in {folder}")
        self.signal_number = signal_number
        self.folder = folder


class Diverged(InputError):
    """A loss or a gradient was not finite; the run ended before that update."""


class Stop(threading.Event):
    """Set when a signal asked the run to stop."""

    signal_number = int(signal.SIGINT)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Within it, SIGINT, SIGTERM or SIGHUP asks for a stop after the step in hand; a second SIGINT stops at once.

    A second SIGTERM does not: launchers and schedulers pass one on that the process itself has had already.
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
    heard = [
        number
        for name in ("SIGINT", "SIGTERM", "SIGHUP")
        # Under nohup a closed terminal is ignored, and stays so.
        if (number := getattr(signal, name, None)) and signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ending_recorded(files: RunFolder, home: Path) -> Iterator[None]:
    """Within it a run trains; if it ends before its time, its manifest says why. `home` is the command's folder."""
    try:
        yield
    except Diverged as error:
        _record(files, "diverged", str(error))
        raise
    except KeyboardInterrupt:
        _record(files, "interrupted")
        raise Interrupted(signal.SIGINT, home) from None
    except BaseException as error:
        _record(files, "failed", (str(error).splitlines() or [type(error).__name__])[0])
        raise


def _record(files: RunFolder, status: Status, reason: str = "") -> None:
    if not here().is_main:
        return
    try:
        files.set_status(status, reason)
    except OSError:  # a full disk: what ended the run is said all the same, and this word has room
        with contextlib.suppress(OSError):
            files.set_status_in_place("failed")


def is_settled(files: RunFolder) -> bool:
    """Whether nothing is left to do for a run: it is done, or it diverged, which it would do again."""
    return files.read_manifest().get("status") in ("done", "diverged")

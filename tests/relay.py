"""Stands for ``python`` where a launcher starts one: the program runs in a process forked from one at hand.

``python relay.py PLACE words…`` hands its words, variables, open files and folder to `tests.processes.serve`, passes
signals on, and ends as that process ends. It imports nothing that takes time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def begun(
    place: str, words: Sequence[str], files: Mapping[int, int], environment: Mapping[str, str]
) -> tuple[socket.socket, int]:
    """A process that has begun: its connection, and its number. `files` gives its descriptors in terms of ours."""
    asked = json.dumps([list(words), dict(environment), os.getcwd(), list(files)]).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(place)
    socket.send_fds(connection, [len(asked).to_bytes(4, "big")], list(files.values()))
    connection.sendall(asked)
    return connection, int.from_bytes(received(connection, 4), "big")


def received(connection: socket.socket, size: int) -> bytes:
    """So many bytes."""
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise EOFError("the process that others are forked from is gone")
        found += more
    return found


def ended(connection: socket.socket) -> int:
    """Its exit status, minus the number of the signal that killed it, once it has ended."""
    return int.from_bytes(received(connection, 4), "big", signed=True)


def open_files() -> list[int]:
    """The descriptors that this process was given."""
    found = []
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            os.fstat(int(name))
            found.append(int(name))
    return found


def main(place: str, *words: str) -> None:
    connection, _ = begun(place, words, {number: number for number in open_files()}, os.environ)
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)  # a handler alone may miss the moment between two instructions
    for number in PASSED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    while connection not in select.select([connection, heard], [], [])[0]:
        connection.sendall(os.read(heard, 64))
    status = ended(connection)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])

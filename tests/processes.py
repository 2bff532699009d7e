"""Python processes for tests to start, stop and kill, forked from one that has imported torch already.

Each is a process of its own, with its own signals and its own end; it only need not import torch and transformers
first, which takes longer than most of what tests do with one. All processes of the tests fork from the same one.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import importlib
import json
import multiprocessing
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tests import drawing
from tests.relay import begun, ended, received

FOLDER = "REWARDSHAPE_TESTS"  # where what all processes of the tests share lies: tests/conftest.py makes it
IMPORTED = [
    "rewardshape.probe.run",
    "rewardshape.probe.show",
    "torch.distributed.run",
    "accelerate.commands.accelerate_cli",
]
MANY = 100_000  # steps of a run that is stopped long before its end
BEYOND = 500  # descriptors are moved there before they get their numbers


# --- asking for one ---------------------------------------------------------------------------------------------------


class Python:
    """``python words…`` at work: ``-m MODULE``, ``-c CODE`` or a script, and what it is given. It draws nothing.

    Parameters
    ----------
    *words
    environment : mapping, optional
        More variables than this process has.
    """

    def __init__(self, *words: object, environment: Mapping[str, str] | None = None):
        self._said = tempfile.NamedTemporaryFile(prefix="said-")
        self._status: int | None = None
        variables = {**os.environ, **(environment or {})}
        with open(self._said.name, "a") as said, open(os.devnull) as nothing:
            files = {0: nothing.fileno(), 1: said.fileno(), 2: said.fileno()}
            self._connection, self.number = begun(place(), [str(word) for word in words], files, variables)

    @property
    def said(self) -> str:
        """All that it wrote so far, on both of its streams."""
        return Path(self._said.name).read_text(encoding="utf-8")

    @property
    def running(self) -> bool:
        return self._status is None and not select.select([self._connection], [], [], 0)[0]

    def until(self, condition: Callable[[], bool], seconds: float = 200.0) -> None:
        """Wait until something is so, or the process has ended."""
        end = time.monotonic() + seconds
        while not condition() and self.running:
            assert time.monotonic() < end, self.said
            time.sleep(0.005)

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.number, number)

    def wait(self, timeout: float = 200.0) -> int:
        """Its exit status, minus the number of the signal that killed it; it is killed where it takes longer."""
        if self._status is None:
            self._connection.settimeout(timeout)
            try:
                self._status = ended(self._connection)
            except TimeoutError:
                self.send_signal(signal.SIGKILL)
                raise AssertionError(f"still running after {timeout} seconds: {self.said}") from None
            self._connection.close()
        return self._status


def ranks(number: int, *words: object, **environment: str) -> str:
    """What a launcher starts so many times, without one; what the first of them said."""
    from torch.distributed import TCPStore

    # As torchrun does: the store where they meet is not made by the first of them, so its port is never free between.
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    common = {
        "WORLD_SIZE": str(number),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        **environment,
    }
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]
    processes = [Python(*words, environment=common | place) for place in places]
    for process in processes:
        assert process.wait() == 0, process.said
    return processes[0].said


def python() -> str:
    """An executable that stands for `sys.executable` where a launcher starts processes."""
    return str(Path(place()).with_name("python"))


def lines_in(file: Path) -> int:
    """Whole lines of a file that may not be there yet."""
    return file.read_bytes().count(b"\n") if file.is_file() else 0


@functools.cache
def place() -> str:
    """The socket of the process that all fork from, which the first that asks starts."""
    from filelock import FileLock

    folder = Path(os.environ[FOLDER])
    file = folder / "socket"
    with FileLock(folder / "lock"):
        if not file.exists():
            relay = Path(__file__).with_name("relay.py")
            executable = folder / "python"
            executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{relay}" "{file}" "$@"\n')
            executable.chmod(0o700)
            with open(folder / "said", "w") as said:
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.processes", folder],
                    cwd=Path(__file__).resolve().parents[1],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            while not file.exists():
                assert process.poll() is None, (folder / "said").read_text()
                time.sleep(0.02)
    return str(file)


# --- the process they fork from ---------------------------------------------------------------------------------------


def serve(folder: Path) -> None:
    """Fork a process for whoever asks, until the folder of the tests is gone, or the process that made it."""
    for name in IMPORTED:
        importlib.import_module(name)
    owner = int((folder / "owner").read_text())
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "made"))
        listening.listen()
        (folder / "made").rename(folder / "socket")
        listening.settimeout(1)
        while folder.exists() and _is_there(owner):
            with contextlib.suppress(ChildProcessError):  # none is left
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            with contextlib.suppress(TimeoutError):
                connection, _ = listening.accept()
                if os.fork() == 0:
                    listening.close()
                    _attend(connection)
                connection.close()
    shutil.rmtree(folder, ignore_errors=True)  # which whoever made it could not


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _attend(connection: socket.socket) -> NoReturn:
    """Start what is asked for, pass signals on to it, and say how it ended."""
    connection.setblocking(True)
    length, files, _, _ = socket.recv_fds(connection, 4, 200)
    words, environment, folder, numbers = json.loads(received(connection, int.from_bytes(length, "big")))
    process = os.fork()
    if process == 0:
        connection.close()
        _run(words, environment, folder, dict(zip(numbers, files, strict=True)))
    for file in files:
        os.close(file)
    threading.Thread(target=_pass_on, args=(connection, process), daemon=True).start()
    with contextlib.suppress(OSError):  # whoever asked is gone, and the process will be
        connection.sendall(process.to_bytes(4, "big"))
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(OSError):
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
    os._exit(0)


def _pass_on(connection: socket.socket, process: int) -> None:
    """The signals that are asked for; where whoever asks is gone, so is the process."""
    with contextlib.suppress(OSError):
        while asked := connection.recv(1):
            os.kill(process, asked[0])
        os.kill(process, signal.SIGKILL)


def _run(words: list[str], environment: dict[str, str], folder: str, files: dict[int, int]) -> NoReturn:
    """Be ``python words…``, with these variables and files, to the end of the process."""
    apart = {number: fcntl.fcntl(file, fcntl.F_DUPFD, BEYOND) for number, file in files.items()}
    for file in files.values():
        os.close(file)
    for number, file in apart.items():
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_executable(python())
    status = 1
    try:
        with drawing.undrawn():
            _execute(words)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if not isinstance(error.code, int | None):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(BaseException):
        threading._shutdown()  # as the end of an interpreter does
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _execute(words: list[str]) -> None:
    while words[0] in ("-u", "-B"):
        words = words[1:]
    kind, rest = words[0], words[1:]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), namespace)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(kind).parent))
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

"""Python processes for tests to start, stop and kill, forked from one that has imported torch already.

Each is a process of its own, with its own signals and its own end; it only need not import torch and transformers
first, which takes longer than most of what tests do with one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["rewardshape.probe.run", "rewardshape.probe.show"])


class Python:
    """``python words…`` at work: ``-m MODULE``, ``-c CODE`` or a script, and what it is given.

    Parameters
    ----------
    *words
    environment : mapping, optional
        More variables than this process has.
    """

    def __init__(self, *words: object, environment: Mapping[str, str] | None = None):
        self._said = tempfile.NamedTemporaryFile(prefix="said-")
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        given = ([str(word) for word in words], variables, self._said.name)
        self._process = CONTEXT.Process(target=_run, args=given, daemon=True)
        self._process.start()

    @property
    def said(self) -> str:
        """All that it wrote so far, on both of its streams."""
        return Path(self._said.name).read_text(encoding="utf-8")

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def until(self, condition: Callable[[], bool], seconds: float = 200.0) -> None:
        """Wait until something is so, or the process has ended."""
        end = time.monotonic() + seconds
        while not condition() and self.running:
            assert time.monotonic() < end, self.said
            time.sleep(0.005)

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def wait(self, timeout: float = 200.0) -> int:
        """Its exit status, minus the number of the signal that killed it; it is killed where it takes longer."""
        self._process.join(timeout)
        if self.running:
            self.send_signal(signal.SIGKILL)
            raise AssertionError(f"still running after {timeout} seconds: {self.said}")
        return self._process.exitcode


def ranks(number: int, *words: object, **environment: str) -> str:
    """What a launcher starts so many times, without one; what the first of them said."""
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(number), "MASTER_ADDR": "localhost", "MASTER_PORT": port, **environment}
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]
    processes = [Python(*words, environment=common | place) for place in places]
    for process in processes:
        assert process.wait() == 0, process.said
    return processes[0].said


def lines_in(file: Path) -> int:
    """Whole lines of a file that may not be there yet."""
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def _run(words: list[str], environment: dict[str, str], said: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    stream = os.open(said, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(stream, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kind, rest = words[0], words[1:]
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(kind).parent))
        runpy.run_path(kind, run_name="__main__")

"""Several runs of a sweep at a time, each in a process of its own (``--jobs``), with one progress line for all.

What the runs have in common (pairs as tokens, the reader, where the reference is kept) is handed to each process once.
A process takes one run after the other; on a machine with GPUs each process has one of them, in turn.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

import torch
from accelerate.utils import patch_environment

from rewardshape.errors import InputError, out_of_memory
from rewardshape.probe.distributed import join
from rewardshape.probe.process import quiet_imports, set_up
from rewardshape.probe.progress import Progress
from rewardshape.probe.stopping import Diverged, Interrupted, Stop

LOOK = 0.5  # seconds between two looks at whether a signal came
GPUS = "CUDA_VISIBLE_DEVICES"
TERMINATED = (-signal.SIGTERM, 128 + signal.SIGTERM)  # before its run could answer, and by force within one


class Work(Protocol):
    """One run, in whichever process: `common` is what all have, `progress` where it is heard."""

    def __call__(self, common: Any, run: Any, progress: Any) -> None: ...


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes
    ----------
    kind : str
        ``done``, ``diverged``, ``interrupted``, ``refused`` (bad input, a full disk), ``killed`` or ``failed``.
    reason : str
    """

    kind: str
    reason: str = ""


class Relay:
    """Stands for the progress line in a process of its own: what is shown there goes to the one that shows it."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._name = ""

    def say(self, text: str) -> None:
        """A line of its own, above the newest."""
        self._tell("say", text)

    def skip(self, steps: int) -> None:
        """Steps that an earlier start of the same run has done."""
        self._tell("skip", steps)

    def begin(self, name: str, doing: str) -> None:
        """A run begins in this process."""
        self._name = name
        self._tell("begin", name, doing)

    def step(self, values: Mapping[str, Any], *, tokens: int) -> None:
        """One more step of it is done."""
        self._tell("step", self._name, dict(values), tokens)

    def _tell(self, *message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:  # whoever started us is gone: finish the step, leave a checkpoint
            os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class Worker:
    """A process, what connects it with us, and the run that it is at, None while it waits."""

    process: SpawnProcess
    connection: Connection
    run: Any = None


@dataclass
class Shift:
    """All processes of a command, and the runs that wait for one.

    Attributes
    ----------
    workers : list of Worker
    waiting : list
        Runs, in their order.
    may_begin : callable
        Whether a run may begin while others are at work.
    ended : list of (run, Ended)
    asked_to_end : bool
        Whether we have told the processes to.
    """

    workers: list[Worker]
    waiting: list[Any]
    may_begin: Callable[[Any, Sequence[Any]], bool]
    ended: list[tuple[Any, Ended]] = field(default_factory=list)
    asked_to_end: bool = False

    @property
    def at_work(self) -> list[Worker]:
        """The processes that have a run in hand."""
        return [worker for worker in self.workers if worker.run is not None]

    @property
    def running(self) -> list[Any]:
        """The runs in hand."""
        return [worker.run for worker in self.at_work]

    def hand_out(self) -> None:
        """Give each idle process the first run that may begin."""
        for worker in self.workers:
            if worker.run is not None:
                continue
            place = next((i for i, run in enumerate(self.waiting) if self.may_begin(run, self.running)), None)
            if place is not None:
                worker.run = self.waiting.pop(place)
                with contextlib.suppress(OSError):  # it is gone, which is heard next
                    worker.connection.send(worker.run)

    def hear(self, progress: Progress) -> None:
        """Show what the processes say, and note which runs have ended."""
        by_connection = {worker.connection: worker for worker in self.at_work}
        for connection in wait(list(by_connection), LOOK):
            worker = by_connection[connection]  # type: ignore[index]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):  # it was killed
                worker.process.join()
                self.workers.remove(worker)
                status = worker.process.exitcode
                obeyed = self.asked_to_end and status in TERMINATED
                reason = (
                    f"its process was killed (status {status}), for want of memory maybe; go on with --resume, and "
                    "with fewer --jobs"
                )
                message = Ended("interrupted") if obeyed else Ended("killed", reason)
            if isinstance(message, Ended):
                self.ended.append((worker.run, message))
                worker.run = None
            else:
                show(progress, *message)


def in_processes(
    work: Work,
    common: Any,
    runs: Sequence[Any],
    *,
    jobs: int,
    may_begin: Callable[[Any, Sequence[Any]], bool],
    progress: Progress,
    stop: Stop,
) -> list[tuple[Any, Ended]]:
    """Do the runs, `jobs` at a time; how each that was begun ended. When `stop` is set, or one fails, all stop.

    Parameters
    ----------
    work : callable
        A function of a module, which each process imports.
    common, runs
        What can be pickled.
    may_begin : callable
        Of a run and of those at work: False lets it wait.
    """
    with started(work, common, min(jobs, len(runs))) as workers:
        shift = Shift(list(workers), list(runs), may_begin)
        while shift.running or (shift.waiting and not shift.asked_to_end):
            failed = any(how.kind in ("refused", "killed", "failed") for _, how in shift.ended)
            if (stop.is_set() or failed) and not shift.asked_to_end:
                shift.asked_to_end = True
                for worker in shift.at_work:
                    if worker.process.is_alive():
                        os.kill(worker.process.pid or 0, signal.SIGTERM)
            if not shift.asked_to_end:
                shift.hand_out()
            shift.hear(progress)
        return shift.ended


@contextlib.contextmanager
def started(work: Work, common: Any, number: int) -> Iterator[list[Worker]]:
    """So many processes that wait for runs; at the end none is left."""
    context = multiprocessing.get_context("spawn")
    threads = str(max(1, torch.get_num_threads() // number))
    gpus = list_of_gpus()
    workers: list[Worker] = []
    handed = pickle.dumps((work, common))  # bytes, so that what it imports is imported quietly
    try:
        for place in range(number):
            ours, theirs = context.Pipe()
            process = context.Process(target=attend, args=(theirs,), daemon=True)
            own = {GPUS: gpus[place % len(gpus)]} if gpus else {}
            with patch_environment(OMP_NUM_THREADS=threads, **own):  # which a process that starts takes over
                process.start()
            theirs.close()
            workers.append(Worker(process, ours))
        for worker in workers:
            # That one died as it started is heard of the run that it is given.
            with contextlib.suppress(OSError):
                worker.connection.send_bytes(handed)
        yield workers
    except BaseException:  # a second Ctrl-C: at once
        for worker in workers:
            worker.process.kill()
        raise
    finally:
        for worker in workers:
            worker.connection.close()  # which an idle process takes for the end
        for worker in workers:
            worker.process.join()


def list_of_gpus() -> list[str]:
    """The GPUs in sight, as CUDA names them."""
    if not torch.cuda.is_available():
        return []
    named = os.environ.get(GPUS)
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def attend(connection: Connection) -> None:
    """What a process does: told what and with what, one run after the other, until there are no more."""
    try:
        handed = connection.recv_bytes()
    except (EOFError, OSError):  # whoever started us was killed
        return
    with quiet_imports():
        work, common = pickle.loads(handed)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # of a terminal, which the one that started us hears: it tells us
    with set_up():
        join()
        while True:
            try:
                run = connection.recv()
            except (EOFError, OSError):  # the latter: whoever started us was killed
                return
            ended = outcome(lambda: work(common, run, Relay(connection)))  # noqa: B023
            with contextlib.suppress(OSError):
                connection.send(ended)


def outcome(act: Callable[[], None]) -> Ended:
    """How it ended, as a record that another process can read."""
    try:
        act()
    except Diverged as error:
        return Ended("diverged", str(error))
    except Interrupted:
        return Ended("interrupted")
    except (InputError, OSError) as error:
        return Ended("refused", str(error))
    except Exception as error:
        if out_of_memory(error):
            return Ended("refused", "out of memory; give fewer --jobs or a smaller --micro-batch-size")
        return Ended("failed", traceback.format_exc())
    return Ended("done")


def show(progress: Progress, what: str, *values: Any) -> None:
    """What a process said, on the one line."""
    if what == "step":
        name, shown, tokens = values
        progress.step(shown, tokens=tokens, name=name)
    else:
        getattr(progress, what)(*values)

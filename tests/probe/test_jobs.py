"""Several runs at a time record what they record one after the other, are seen on one line, and stop together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rewardshape import InputError, read_trace
from rewardshape.probe.__main__ import main
from rewardshape.probe.command import parse
from rewardshape.probe.jobs import Ended, Relay, in_processes, list_of_gpus, outcome
from rewardshape.probe.progress import Progress
from rewardshape.probe.stopping import Diverged, Stop
from tests import drawing
from tests.processes import MANY, Python, lines_in, python


@pytest.fixture
def forked():
    """Processes that are started are forked from one that has imported torch."""
    real = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable(python())
    yield
    multiprocessing.set_executable(real)


SWEEP = ["--objective", "dpo", "--beta", "0.1", "0.3", "0.5"]
SMALL = ["--steps", "3", "--batch-size", "4", "--probe-pairs", "6", "--learning-rate", "1e-3"]


def command(
    checkpoint: str, pairs_file: str, output: Path, *flags: str, sweep: Sequence[str] = SWEEP
) -> list[str]:
    return [checkpoint, "--data", pairs_file, "--output", str(output), *sweep, *SMALL, *flags]


def test_two_at_a_time_write_the_very_records_of_one_after_the_other(
    probe, checkpoint, pairs_file, tmp_path, capfd
):
    """In processes of their own from the first import on; the others here are forked."""
    sweep = ["--objective", "dpo", "--beta", "0.1", "0.3"]
    assert probe(tmp_path / "alone", *sweep, *SMALL) == 0
    capfd.readouterr()
    with drawing.drawn():
        words = command(checkpoint, pairs_file, tmp_path / "two", "--jobs", "2", sweep=sweep)
        assert main(words) == 0
    said = capfd.readouterr().err
    for name in ("beta=0.1", "beta=0.3"):
        a, b = ((tmp_path / folder / name / "trace.jsonl").read_bytes() for folder in ("alone", "two"))
        assert a == b
        assert read_trace(tmp_path / "two" / name).settings["status"] == "done"
    assert (tmp_path / "two" / "reference.json").read_bytes() == (
        tmp_path / "alone" / "reference.json"
    ).read_bytes()
    assert (tmp_path / "two" / "report.html").is_file()
    assert "(2/2)" in said
    assert said.count("pairs tokenised") == 1  # read once, for all
    assert "Traceback" not in said


def test_stopped_together_and_gone_on_with(probe, checkpoint, pairs_file, tmp_path):
    flags = ["--steps", str(MANY), "--checkpoint-every", str(MANY), "--jobs", "2"]
    process = Python("-m", "rewardshape.probe", *command(checkpoint, pairs_file, tmp_path / "run", *flags))
    traces = [tmp_path / "run" / name / "trace.jsonl" for name in ("beta=0.1", "beta=0.3")]
    process.until(lambda: all(lines_in(file) >= 3 for file in traces), 400)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143, process.said
    assert process.said.count("--resume --output") == 1
    for file in traces:
        assert read_trace(file.parent).settings["status"] == "interrupted"
        step = read_trace(file.parent).steps["step"].max()
        assert (file.parent / "checkpoints" / f"checkpoint-{step}").is_dir()


def test_no_jobs_at_all_are_refused():
    with pytest.raises(InputError, match="must be positive"):
        parse(["--jobs", "0"])


# --- the parts, with a work of their own ------------------------------------------------------------------------------


def triple(common, run, progress):  # what `in_processes` is given: it is imported by name in each process
    progress.begin(run, "working")
    progress.step({"step": run}, tokens=1)
    if run == "bad":
        raise InputError("no good")
    if run == "dead":
        os.kill(os.getpid(), signal.SIGKILL)
    if run == "asked":  # by another than the one that started it
        os.kill(os.getpid(), signal.SIGTERM)
    if run == "long":
        time.sleep(60)
    (common / run).write_text(os.environ["OMP_NUM_THREADS"])


def told(runs: list[str], common: object, **more) -> list[tuple[str, Ended]]:
    with Progress(len(runs), quiet=True) as progress:
        return in_processes(
            triple,
            common,
            runs,
            jobs=2,
            may_begin=lambda run, running: True,
            progress=progress,
            stop=Stop(),
            **more,
        )


def test_every_run_is_done_once_and_a_failure_stops_the_rest(tmp_path, monkeypatch, forked):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(triple, "__module__", "test_jobs")
    monkeypatch.setitem(sys.modules, "test_jobs", sys.modules[__name__])
    ended = told(["a", "b", "c"], tmp_path)
    assert sorted((run, how.kind) for run, how in ended) == [("a", "done"), ("b", "done"), ("c", "done")]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "c"]
    for fails, how_it_ends in [("bad", "refused"), ("dead", "killed"), ("asked", "killed")]:
        kinds = {run: how.kind for run, how in told([fails, "long", "e"], tmp_path)}
        assert kinds == {fails: how_it_ends, "long": "interrupted"}  # "e" does not begin after it


@pytest.mark.timeout(60)
def test_processes_that_die_as_they_start_are_heard_of(tmp_path):
    """However much they were to be handed: more than a pipe holds."""
    real = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable("/bin/false")
    try:
        ended = told(["a", "b", "c"], "x" * 2_000_000)
    finally:
        multiprocessing.set_executable(real)
    assert {run for run, _ in ended} <= {"a", "b"}  # "c" does not begin after them
    assert {how.kind for _, how in ended} == {"killed"}


def test_a_run_whose_process_alone_was_asked_to_end_is_no_success(probe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "rewardshape.probe.run.in_processes",
        lambda work, common, runs, **_: [(run, Ended("interrupted")) for run in runs],
    )
    assert probe(tmp_path / "run", "--alpha", "0", "0.25", "--steps", "2", "--jobs", "2") == 2
    said = capsys.readouterr().err
    assert "error: alpha=0: a signal asked its process alone to end; go on with --resume" in said


def test_how_it_ended_is_a_record():
    def fails(error: BaseException) -> None:
        raise error

    assert outcome(lambda: None) == Ended("done")
    assert outcome(lambda: fails(Diverged("step 3"))) == Ended("diverged", "step 3")
    assert outcome(lambda: fails(InputError("full"))) == Ended("refused", "full")
    assert outcome(lambda: fails(MemoryError())).kind == "refused"
    assert outcome(lambda: fails(RuntimeError("DefaultCPUAllocator: can't allocate"))).kind == "refused"
    assert "ZeroDivisionError" in outcome(lambda: fails(ZeroDivisionError("x"))).reason


def test_a_process_whose_starter_is_gone_asks_itself_to_stop(monkeypatch):
    class Gone:
        def send(self, message: object) -> None:
            raise BrokenPipeError

    asked: list[int] = []
    monkeypatch.setattr(os, "kill", lambda process, number: asked.append(number))
    Relay(Gone()).say("hello")  # type: ignore[arg-type]
    assert asked == [signal.SIGTERM]
    assert isinstance(list_of_gpus(), list)

"""However a run ends, its manifest and the last line say how; and a measurement that fails takes nothing from it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewardshape import InputError, read_trace
from rewardshape.probe import __main__ as program
from rewardshape.probe import stopping
from rewardshape.probe.__main__ import main
from rewardshape.probe.lock import locked
from rewardshape.probe.process import ASKING, Ended, signals_raise
from rewardshape.probe.stopping import Stop, stop_on_signal
from rewardshape.trace import RunFolder
from tests import drawing
from tests.processes import MANY, Python, lines_in

SMALL = ["--steps", "3", "--batch-size", "4", "--probe-pairs", "6", "--learning-rate", "1e-3"]


def words(checkpoint: str, pairs_file: str, output: Path, *flags: str) -> list[str]:
    return [checkpoint, "--data", pairs_file, "--output", str(output), *SMALL, *flags]


@pytest.fixture
def sweep(checkpoint: str, pairs_file: str, made_once, tmp_path: Path) -> Path:
    """Three values of α, of which the second ends in an infinite loss."""

    def make(folder: Path) -> None:
        with drawing.drawn():
            flags = ["--alpha", "0", "600", "0.25", "--quiet"]
            assert main(words(checkpoint, pairs_file, folder / "run", *flags)) == 1

    return shutil.copytree(made_once("sweep", make) / "run", tmp_path / "run")


def test_a_sweep_goes_on_past_a_run_that_diverges(sweep):
    found = {run.name: run.manifest for run in read_trace(sweep).runs}
    stands = {name: manifest["status"] for name, manifest in found.items()}
    assert stands == {"alpha=0": "done", "alpha=600": "diverged", "alpha=0.25": "done"}
    reason = found["alpha=600"]["reason"]
    assert re.match(r"step \d: the loss is not finite, on pair pairs\.jsonl:\d+", reason)
    page = (sweep / "report.html").read_text(encoding="utf-8")
    assert "alpha=600" in page
    assert "diverged" in page


def test_resuming_such_a_sweep_finds_nothing_left_and_says_so_again(sweep, capsys):
    before = {path: path.read_bytes() for path in sweep.rglob("trace.jsonl")}
    assert main(["--resume", "--output", str(sweep), "--json"]) == 1
    shown, said = capsys.readouterr()
    assert {row["run"] for row in json.loads(shown)["runs"]} == {"alpha=0", "alpha=600", "alpha=0.25"}
    assert "error: 1 of 3 runs diverged: alpha=600: diverged: step" in said
    assert {path: path.read_bytes() for path in sweep.rglob("trace.jsonl")} == before


def test_what_is_left_of_a_sweep_is_done_on_resume(sweep):
    left = sweep / "alpha=0.25" / "trace.jsonl"
    expected = left.read_bytes()
    manifest = sweep / "alpha=0.25" / "run.json"
    manifest.write_text(manifest.read_text().replace('"status": "done"', '"status": "running"'))
    left.write_bytes(b"".join(expected.splitlines(keepends=True)[:2]))
    shutil.rmtree(sweep / "alpha=0.25" / "checkpoints")
    assert main(["--resume", "--output", str(sweep), "--quiet"]) == 1
    assert left.read_bytes() == expected


def test_a_figure_that_cannot_be_drawn_is_a_note(
    checkpoint, pairs_file, tmp_path, drawn, monkeypatch, capsys
):
    def broken(*_: object) -> None:
        raise ValueError("no such colour")

    monkeypatch.setattr("rewardshape.probe.show.draw_all", broken)
    assert main(words(checkpoint, pairs_file, tmp_path / "run", "--quiet")) == 0
    said = capsys.readouterr().err
    assert "note: the figures could not be made (ValueError: no such colour); the trace is whole" in said
    assert (tmp_path / "run" / "report.html").is_file()


def test_whoever_stops_reading_ends_nothing(checkpoint, pairs_file, tmp_path):
    command = [sys.executable, "-m", "rewardshape.probe", *words(checkpoint, pairs_file, tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert read_trace(tmp_path / "run").runs[0].manifest["status"] == "done"
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.fixture(params=ASKING)
def asking(request) -> Iterator[int]:
    """A signal that does what it does by default, also where these tests run under nohup or in a shell's background."""
    number = request.param
    before = signal.signal(number, signal.SIG_DFL)
    yield number
    signal.signal(number, before)


def test_whatever_asks_for_an_end_is_heard_and_then_left_as_it_was(asking):
    def ask() -> None:
        os.kill(os.getpid(), asking)
        time.sleep(10)

    with stop_on_signal() as stop:
        os.kill(os.getpid(), asking)
        assert stop.wait(10)
    assert stop.signal_number == asking
    assert signal.getsignal(asking) == signal.SIG_DFL
    with pytest.raises(Ended) as ended, signals_raise():
        ask()
    assert ended.value.number == asking
    assert signal.getsignal(asking) == signal.SIG_DFL


@pytest.mark.parametrize("number", ASKING)
def test_what_was_ignored_before_stays_so(number):
    """Under nohup a closed terminal, in a shell's background Ctrl-C."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop, signals_raise():
            os.kill(os.getpid(), number)
            assert not stop.wait(0.05)
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


HEARS_SIGHUP = """
import signal, sys
from rewardshape.probe.__main__ import main

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
def test_a_closed_terminal_leaves_a_checkpoint_as_sigterm_does(checkpoint, pairs_file, tmp_path):
    output = tmp_path / "run"
    flags = words(checkpoint, pairs_file, output, "--steps", str(MANY), "--checkpoint-every", str(MANY))
    process = Python("-c", HEARS_SIGHUP, *flags)
    process.until(lambda: lines_in(output / "trace.jsonl") >= 3)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert f"--resume --output {output}" in process.said
    run = read_trace(output)
    assert run.runs[0].manifest["status"] == "interrupted"
    assert (output / "checkpoints" / f"checkpoint-{run.steps['step'].max()}").is_dir()


DEAF = """
import ctypes, signal, sys
from rewardshape.probe import stopping
from rewardshape.probe.__main__ import main
from rewardshape.probe.recorder import Recorder

stopping.STEP_MAY_TAKE = float(sys.argv.pop(1))
begun = Recorder.on_step_begin

def deaf(self, args, state, control, **keywords):
    begun(self, args, state, control, **keywords)
    if state.global_step == 1:
        print("deaf now", file=sys.stderr, flush=True)
        # Minutes within one call of C, the lock let go as torch does; blocked, a signal goes to another thread, as it
        # may while C computes, and does not end the call.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ctypes.CDLL(None).sleep(600)

Recorder.on_step_begin = deaf
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_ends_a_step_that_hears_nothing(checkpoint, pairs_file, tmp_path):
    """A step that is one call of C for minutes: the seconds it may take, or a second SIGTERM, and the record is whole.

    The seconds are few where they are waited for, and many where the second SIGTERM is.
    """
    assert stopping.STEP_MAY_TAKE == 10
    outputs = {2: tmp_path / "once", 600: tmp_path / "again"}
    once, again = (
        Python("-c", DEAF, seconds, *words(checkpoint, pairs_file, output, "--steps", "50"))
        for seconds, output in outputs.items()
    )
    for process in (once, again):
        process.until(lambda process=process: "deaf now" in process.said)
    began = time.monotonic()
    for process in (once, again):
        process.send_signal(signal.SIGTERM)
    assert once.wait(60) == 128 + signal.SIGTERM
    assert time.monotonic() - began >= 2
    assert again.running
    end = time.monotonic() + 60
    while again.running and time.monotonic() < end:
        again.send_signal(signal.SIGTERM)
        time.sleep(1.2)  # one counts that is heard more than a second after the first
    assert again.wait(1) == 128 + signal.SIGTERM
    for process, output in zip((once, again), outputs.values(), strict=True):
        assert f"--resume --output {output}" in process.said
        run = read_trace(output)
        assert run.runs[0].manifest["status"] == "interrupted"
        assert run.steps["step"].tolist() == [0, 1]


def test_a_step_that_hears_nothing_is_ended_whatever_its_manifest_has_become(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "STEP_MAY_TAKE", 0.0)
    folder, ended = RunFolder(tmp_path), []
    folder.manifest.write_text("{")
    reader, writer = os.pipe()
    os.write(writer, bytes([signal.SIGTERM]))
    with pytest.raises(InputError, match="cannot be read"):
        stopping._watch(reader, Stop(), folder, ended.append)
    assert ended == [signal.SIGTERM]
    for end in (reader, writer):
        os.close(end)


def test_stopping_while_the_figures_are_drawn_says_how_to_go_on(
    checkpoint, pairs_file, tmp_path, monkeypatch, capsys
):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rewardshape.probe.show.draw_all", stopped)
    assert main(words(checkpoint, pairs_file, tmp_path / "run", "--quiet")) == 130
    assert f"--resume --output {tmp_path / 'run'}" in capsys.readouterr().err


def test_a_second_process_is_refused_in_one_line(sweep, capsys):
    before = {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()}
    lock = locked(sweep)
    try:
        assert main(["--resume", "--output", str(sweep), "--quiet"]) == 2
    finally:
        lock.release()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {sweep}: another process is at work in it")
    assert {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()} == before


def test_the_way_on_is_quoted_for_the_shell():
    assert program.how_to_go_on("rewardshape probe", Path("my runs/a")).endswith("--output 'my runs/a'")

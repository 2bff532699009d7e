"""A run that was stopped, killed or torn ends in the trace of one that was not: the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rewardshape.probe.__main__ import main
from rewardshape.probe.checkpoints import whole_checkpoints
from rewardshape.trace import read_trace

STEPS = 12
FLAGS = [
    "--steps",
    str(STEPS),
    "--checkpoint-every",
    "3",
    "--keep-checkpoints",
    "2",
    "--objective",
    "dpo",
    "--beta",
    "0.1",
]


@pytest.fixture(scope="module")
def uninterrupted(probe: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert probe(folder, *FLAGS) == 0
    return folder


def start(output: Path, checkpoint: str, pairs_file: str) -> subprocess.Popen[str]:
    words = [
        sys.executable,
        "-m",
        "rewardshape.probe",
        checkpoint,
        "--data",
        pairs_file,
        "--output",
        str(output),
    ]
    words += ["--batch-size", "8", "--probe-pairs", "12", "--learning-rate", "1e-3", *FLAGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def wait_for_lines(trace: Path, lines: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if trace.is_file() and trace.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.005)


def test_killed_at_random_moments_and_resumed_gives_the_same_trace(
    uninterrupted, checkpoint, pairs_file, tmp_path
):
    rng = random.Random(time.time_ns())
    output = tmp_path / "run"
    process = start(output, checkpoint, pairs_file)
    wait_for_lines(output / "trace.jsonl", rng.randint(2, STEPS), process)
    time.sleep(rng.random() * 0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert main(["--resume", "--output", str(output), "--quiet"]) == 0
    assert (output / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()
    assert read_trace(output).settings["status"] == "done"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_checkpoints_says_how_to_go_on_and_loses_nothing(
    uninterrupted, checkpoint, pairs_file, tmp_path, number, status
):
    output = tmp_path / "run"
    process = start(output, checkpoint, pairs_file)
    wait_for_lines(output / "trace.jsonl", 4, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"--resume --output {output}" in said
    assert "Traceback" not in said
    steps = read_trace(output).steps["step"].max()
    assert whole_checkpoints(output / "checkpoints")[0].name == f"checkpoint-{steps}"
    assert main(["--resume", "--output", str(output), "--quiet"]) == 0
    assert (output / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()


def half_done(uninterrupted: Path, output: Path) -> None:
    """A folder as a kill between two checkpoints leaves it: records beyond the checkpoint, the last line torn."""
    shutil.copytree(uninterrupted, output)
    manifest = output / "run.json"
    manifest.write_text(manifest.read_text().replace('"status": "done"', '"status": "running"'))
    shutil.rmtree(output / "checkpoints" / f"checkpoint-{STEPS}")
    lines = (output / "trace.jsonl").read_text().splitlines(keepends=True)
    (output / "trace.jsonl").write_text("".join(lines[:-2]) + lines[-2][:40])
    command = output / "command.json"
    command.write_text(command.read_text().replace(str(uninterrupted), str(output)))


def test_a_torn_last_line_and_records_beyond_the_checkpoint_are_dropped(uninterrupted, tmp_path):
    half_done(uninterrupted, tmp_path / "run")
    assert read_trace(tmp_path / "run").steps["step"].max() == STEPS - 2
    assert main(["--resume", "--output", str(tmp_path / "run"), "--quiet"]) == 0
    assert (tmp_path / "run" / "trace.jsonl").read_bytes() == (uninterrupted / "trace.jsonl").read_bytes()


def test_a_torn_checkpoint_is_passed_over(uninterrupted, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(uninterrupted, output)
    weights = output / "checkpoints" / f"checkpoint-{STEPS}" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    assert [path.name for path in whole_checkpoints(output / "checkpoints")] == [f"checkpoint-{STEPS - 3}"]


def test_only_the_newest_checkpoints_stay(uninterrupted):
    kept = sorted(path.name for path in (uninterrupted / "checkpoints").iterdir())
    assert kept == [f"checkpoint-{STEPS}", f"checkpoint-{STEPS - 3}"]


def test_probe_every_may_change_on_resume_and_the_policy_does_not(uninterrupted, tmp_path):
    half_done(uninterrupted, tmp_path / "run")
    assert main(["--resume", "--output", str(tmp_path / "run"), "--quiet", "--probe-every", "2"]) == 0
    whole, resumed = (read_trace(folder).responses for folder in (uninterrupted, tmp_path / "run"))
    assert set(resumed.query("split == 'probe'")["step"]) == {*range(STEPS - 2), STEPS - 2, STEPS}
    for step in (STEPS - 2, STEPS):
        a, b = (table[table["step"] == step]["logp_sum"].tolist() for table in (whole, resumed))
        assert a == b


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--learning-rate", "0.5"], "--learning-rate: cannot change on --resume"),
        (["--alpha", "0.5"], "--alpha: cannot change on --resume"),
    ],
)
def test_a_resumed_run_cannot_become_another(uninterrupted, capsys, flags, said):
    before = (uninterrupted / "trace.jsonl").read_bytes()
    assert main(["--resume", "--output", str(uninterrupted), *flags]) == 2
    assert said in capsys.readouterr().err
    assert (uninterrupted / "trace.jsonl").read_bytes() == before

"""Several processes record what one records: real launches over gloo on the CPU, compared with a run of one process.

The launchers are torchrun and accelerate's, with the words of docs/scaling.md. Once they start processes as they do
anywhere; the others, and those that they start, are forked from one that has imported torch (`tests.processes`).

accelerate shards (FSDP) on accelerators only. For the sharded runs a driver tells it that the CPU is one; the
sharding, the gathering and the checkpoints are torch's own and real.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from rewardshape import read_trace
from rewardshape.probe.checkpoints import newest_whole
from rewardshape.probe.command import parse
from rewardshape.probe.run import run
from rewardshape.trace.records import read_records
from tests.processes import MANY, Python, lines_in, python, ranks

# Nats per response. Two processes add the same float32 gradients in another order, which after some steps of AdamW
# shows in the sixth digit.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-4}
FLAGS = [
    "--steps",
    "4",
    "--batch-size",
    "8",
    "--micro-batch-size",
    "2",
    "--probe-pairs",
    "13",
    "--learning-rate",
]
FLAGS += ["1e-3", "--objective", "dpo", "--beta", "0.1", "--checkpoint-every", "2", "--keep-checkpoints", "5"]

SHARDED = """
import os, sys, torch
os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
from accelerate import PartialState
from accelerate.utils import DistributedType
PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
torch.accelerator.is_available = lambda: True
from rewardshape.probe.__main__ import main
sys.exit(main())
"""
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}


TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHON_EXEC": python()}


def as_typed(mark: str) -> list[str]:
    """The launcher's words of the line in the guide that has `mark`, for two processes that meet at a free port."""
    guide = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"
    lines = guide.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    [line] = [line for line in lines if line.startswith("accelerate launch") and mark in line]
    words = shlex.split(line)
    words = words[: words.index("-m")]
    words[words.index("--num_processes") + 1] = "2"
    return [str(Path(sys.executable).with_name(words[0])), *words[1:], "--main_process_port", "0"]


def accelerated(mark: str, *program: str) -> subprocess.CompletedProcess[str]:
    words = [python(), *as_typed(mark), *program]
    return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def task(checkpoint: str, pairs_file: str) -> list[str]:
    return [checkpoint, "--data", pairs_file, *FLAGS]


@pytest.fixture(scope="module")
def one(task: list[str], made_once) -> Path:
    def make(folder: Path) -> None:
        run(parse([*task, "--output", str(folder / "run"), "--quiet"]))

    return made_once("one-process", make) / "run"


@pytest.fixture(scope="module")
def two(task: list[str], made_once) -> Path:
    def make(folder: Path) -> None:
        program = ["-m", "rewardshape.probe", *task, "--output", str(folder / "run"), "--json"]
        words = [python(), *as_typed("--multi_gpu"), *program]  # no PYTHON_EXEC: its workers are not forked
        done = subprocess.run(words, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        shown = [line for line in done.stdout.splitlines() if line.startswith("{")]
        assert len(shown) == 1  # one process speaks

    return made_once("two-processes", make) / "run"


def assert_same_record(found: Path, expected: Path) -> None:
    """The same rows in the same order, the same numbers as far as float32 goes."""
    a, b = read_trace(found), read_trace(expected)
    keys = ["step", "split", "pair_id", "response", "num_tokens"]
    assert a.responses[keys].equals(b.responses[keys])
    np.testing.assert_allclose(a.responses["logp_sum"], b.responses["logp_sum"], **TOLERANCE)
    np.testing.assert_allclose(a.responses["ref_logp_sum"], b.responses["ref_logp_sum"], rtol=1e-6, atol=1e-4)
    for name in ("loss", "margin", "grad_norm"):
        np.testing.assert_allclose(a.steps[name], b.steps[name], rtol=1e-4, atol=1e-4)
    for name in ("tokens", "learning_rate", "accuracy"):
        np.testing.assert_array_equal(a.steps[name], b.steps[name])


def test_two_processes_record_what_one_records(one, two):
    assert_same_record(two, one)
    assert read_trace(two).settings["device"]["processes"] == 2


def test_no_row_is_recorded_twice(two):
    rows = read_trace(two).responses
    assert not rows.duplicated(["step", "split", "pair_id", "response"]).any()
    steps = [record.step for record in read_records(two / "trace.jsonl")[1]]
    assert steps == [0, 1, 2, 3, 4]


def cut_back(whole: Path, output: Path, step: int) -> None:
    """The folder as a kill right after the checkpoint of `step` leaves it."""
    shutil.copytree(whole, output)
    for name in ("run.json", "command.json"):
        text = (output / name).read_text().replace('"status": "done"', '"status": "running"')
        (output / name).write_text(text.replace(str(whole), str(output)))
    for path in (output / "checkpoints").iterdir():
        if int(path.name.rpartition("-")[2]) > step:
            shutil.rmtree(path)


def test_a_checkpoint_of_two_processes_goes_on_with_one(one, two, tmp_path):
    cut_back(two, tmp_path / "run", 2)
    run(parse(["--resume", "--output", str(tmp_path / "run"), "--quiet"]))
    assert_same_record(tmp_path / "run", one)


def test_a_checkpoint_of_one_process_goes_on_with_two(one, tmp_path):
    cut_back(one, tmp_path / "run", 2)
    ranks(2, "-m", "rewardshape.probe", "--resume", "--output", tmp_path / "run", "--quiet")
    assert_same_record(tmp_path / "run", one)


@pytest.fixture(scope="module")
def sharded(task: list[str], made_once) -> Path:
    def make(folder: Path) -> None:
        program = folder / "sharded.py"
        program.write_text(SHARDED)
        done = accelerated("--use_fsdp", str(program), *task, "--output", str(folder / "run"), "--quiet")
        assert done.returncode == 0, done.stderr

    return made_once("sharded", make) / "run"


def test_a_sharded_model_records_what_a_whole_one_records(one, sharded):
    newest, _ = newest_whole(sharded / "checkpoints")
    assert len(list((newest / "pytorch_model_fsdp_0").glob("*.distcp"))) == 2  # sharded it was
    assert_same_record(sharded, one)


def test_a_sharded_checkpoint_goes_on_with_another_number_of_processes(one, sharded, tmp_path):
    cut_back(sharded, tmp_path / "run", 2)
    ranks(1, sharded.parent / "sharded.py", "--resume", "--output", tmp_path / "run", "--quiet", **FSDP)
    assert_same_record(tmp_path / "run", one)


def test_sigterm_checkpoints_both_within_30_seconds(task, tmp_path):
    output = tmp_path / "run"
    words = [*task, "--output", output, "--steps", MANY, "--checkpoint-every", MANY]
    process = Python(*TWO, "-m", "rewardshape.probe", *words, environment=environment())
    process.until(lambda: lines_in(output / "trace.jsonl") >= 3)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    assert process.said.count("--resume --output") == 1
    step = read_trace(output).steps["step"].max()
    assert newest_whole(output / "checkpoints") == (output / "checkpoints" / f"checkpoint-{step}", [])
    assert json.loads((output / "run.json").read_text())["status"] == "interrupted"


def test_an_error_on_one_process_ends_all_with_one_line(task, tmp_path):
    # The second of the two cannot read the data, its file name differs; the first waits for it.
    program = tmp_path / "one_fails.py"
    program.write_text(
        "import os, sys\n"
        "if os.environ['RANK'] == '1':\n"
        "    sys.argv[sys.argv.index('--data') + 1] = 'missing.jsonl'\n"
        "from rewardshape.probe.__main__ import main\n"
        "sys.exit(main())\n"
    )
    words = [python(), *TWO, str(program), *task, "--output", str(tmp_path / "run")]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "missing.jsonl" in errors[0]
    assert "exitcode  : 2" in done.stderr
    assert "rewardshape/probe/" not in done.stderr  # no traceback of ours


def test_both_processes_end_with_the_same_weights(one, two):
    a, b = (load_file(run / "checkpoints" / "checkpoint-4" / "model.safetensors") for run in (one, two))
    assert a.keys() == b.keys()
    assert max((a[name] - b[name]).abs().max().item() for name in a) < 1e-5


def test_a_process_that_fails_under_accelerate_ends_all_with_one_line_and_status_1(task, tmp_path):
    words = [*task, "--output", str(tmp_path / "run"), "--batch-size", "6", "--micro-batch-size", "2"]
    done = accelerated("--multi_gpu", "-m", "rewardshape.probe", *words)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert errors == ["error: --batch-size 6: must be a multiple of 2 processes × --micro-batch-size 2"]

"""Bad input: one ``error:`` line that says what, where and what to do; exit 2; nothing written over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rewardshape.probe.__main__ import main

GOOD = {
    "prompt": "Please bring eggs to the mill.\n",
    "chosen": "Here are eggs.",
    "rejected": "Here are lamps.",
}
GOOD_ROWS = [
    {**GOOD, "prompt": f"Please bring {n} eggs to the mill.\n"} for n in ("one", "two", "three", "four")
]


@pytest.fixture
def error(capsys, tmp_path, monkeypatch):
    """The one line of a command that must fail, having written nothing."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        capsys.readouterr()  # what the test itself had said
        assert main(["--quiet", "--steps", "2", "--probe-pairs", "1", *words]) == 2
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line.strip()]
        assert out == ""
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert after == before
        return lines[0]

    return run


def write(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([GOOD] * 6 + ['{"prompt": "a", "chosen": "b"'], ["data.jsonl:7", "JSON"]),
        ([GOOD, {"prompt": "a", "chosen": "b"}], ["data.jsonl:2", "'rejected'"]),
        ([GOOD, {**GOOD, "chosen": 3}], ["data.jsonl:2", "'chosen'", "number"]),
        ([{**GOOD, "chosen": " "}, {**GOOD, "rejected": ""}], ["no usable row", "empty response"]),
        ([{**GOOD, "chosen": "x", "rejected": "x"}], ["no usable row", "identical responses"]),
        ([], ["data.jsonl", "empty"]),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(error, checkpoint, tmp_path, rows, said):
    line = error(checkpoint, "--data", write(tmp_path / "data.jsonl", *rows))
    assert all(part in line for part in said), line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "absent.jsonl"], "absent.jsonl"),
        (["--objective", "dppo", "--beta", "1"], "dpo"),
        (["--objective", "ld_dpo"], "--objective ld_dpo: needs"),
        (["--objective", "kto", "--batch-size", "4", "--micro-batch-size", "2"], "couples the pairs"),
        (["--beta", "0"], "--beta 0"),
        (["--beta", "nan"], "--beta nan"),
        (["--alpha", "nan"], "--alpha nan"),
        (["--gamma", "1", "--gamma-beta-ratio", "0.5"], "not both"),
        (["--preset", "alphapo/mistral"], "alphapo/mistral-7b-instruct"),
        (["--steps", "0"], "--steps 0"),
        (["--steps", "many"], "--steps"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--max-prompt-tokens", "100000"], "context"),
        (["--batch-size", "6", "--micro-batch-size", "4"], "--micro-batch-size 4"),
        (["--resume"], "--output"),
        (["--resume", "--output", "absent"], "absent"),
        (["--parameter", "epsilon"], "NAME=VALUE"),
        (["--probe-pairs", "500"], "--probe-pairs 500"),
    ],
)
def test_a_bad_flag_is_named(error, checkpoint, tmp_path, flags, said):
    data = (
        []
        if "--data" in flags or "--resume" in flags
        else ["--data", write(tmp_path / "data.jsonl", *GOOD_ROWS)]
    )
    place = [] if "--resume" in flags else [checkpoint]
    assert said in error(*place, *data, *flags)


def test_a_checkpoint_without_data_asks_for_it(error, checkpoint):
    assert "--data" in error(checkpoint)


def test_an_output_folder_that_holds_something_is_kept(error, checkpoint, tmp_path):
    data = write(tmp_path / "data.jsonl", *GOOD_ROWS)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "precious").write_text("mine")
    assert "kept" in error(checkpoint, "--data", data, "--output", "kept")


def test_a_checkpoint_without_weights(error, checkpoint, tmp_path):
    data = write(tmp_path / "data.jsonl", *GOOD_ROWS)
    folder = tmp_path / "empty"
    folder.mkdir()
    assert "config.json" in error(str(folder), "--data", data)
    for file in Path(checkpoint).iterdir():
        if file.name.endswith(".json"):
            (folder / file.name).write_bytes(file.read_bytes())
    assert "safetensors" in error(str(folder), "--data", data)


def test_a_pickled_checkpoint_is_refused_unless_asked_for(error, checkpoint, tmp_path):
    data = write(tmp_path / "data.jsonl", *GOOD_ROWS)
    folder = tmp_path / "pickled"
    folder.mkdir()
    for file in Path(checkpoint).iterdir():
        if file.name.endswith(".json"):
            (folder / file.name).write_bytes(file.read_bytes())
    torch.save(AutoModelForCausalLM.from_pretrained(checkpoint).state_dict(), folder / "pytorch_model.bin")
    assert "--allow-pickle" in error(str(folder), "--data", data)
    flags = [
        "--allow-pickle",
        "--steps",
        "1",
        "--batch-size",
        "1",
        "--probe-pairs",
        "1",
        "--quiet",
        "--output",
        "out",
    ]
    assert main([str(folder), "--data", data, *flags]) == 0


def test_a_checkpoint_with_missing_weights_is_not_filled_with_noise(error, checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "partial"
    folder.mkdir()
    for file in Path(checkpoint).iterdir():
        if file.name.endswith(".json"):
            (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(Path(checkpoint) / "model.safetensors")
    removed = next(name for name in weights if "layers.0" in name)
    del weights[removed]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert removed in error(str(folder), "--data", write(tmp_path / "data.jsonl", *GOOD_ROWS))


def test_a_prompt_that_leaves_no_response_is_reported(error, checkpoint, tmp_path):
    # the response limit is one token: the two responses become the same
    data = write(tmp_path / "data.jsonl", *[GOOD] * 3)
    assert "no pair left" in error(checkpoint, "--data", data, "--max-response-tokens", "1")


@pytest.mark.skipif(os.name != "posix", reason="limits the size of a file the POSIX way")
def test_a_disk_that_fills_up_keeps_the_trace_readable(checkpoint, pairs_file, tmp_path):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        "from rewardshape.probe.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    flags = [
        "--steps",
        "30",
        "--batch-size",
        "8",
        "--probe-pairs",
        "12",
        "--checkpoint-every",
        "30",
        "--quiet",
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            checkpoint,
            "--data",
            pairs_file,
            "--output",
            str(tmp_path / "run"),
            *flags,
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = [line for line in done.stderr.splitlines() if "error" in line or "Traceback" in line]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    from rewardshape import read_trace

    assert len(read_trace(tmp_path / "run").steps) > 2

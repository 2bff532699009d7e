"""Bad input: one ``error:`` line that says what, where and what to do; exit 2; nothing written over."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rewardshape.probe.__main__ import main
from rewardshape.probe.policy import load_policy
from rewardshape.probe.settings import ModelSettings
from tests.processes import Python

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
        assert main(["--quiet", "--steps", "2", "--probe-pairs", "1", "--batch-size=1", *words]) == 2
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
        (["--batch-size", "100000"], "pairs to train on, and a batch holds none twice"),
        (["--steps", str(10**30)], "at most 1,000,000,000,000,000"),
        (["--sample-every", "1", "--samples", str(10**12)], "--samples 1000000000000: must be at most"),
        (["--lora-rank", str(10**9)], "--lora-rank 1000000000: must be at most"),
        (["--seed", "-1"], "--seed -1: must be from 0"),
        (["--seed", str(2**32)], "--seed 4294967296: must be from 0"),
        (["--sample-every", "1", "--gold", "os:path"], "--gold os:path: no function, but module"),
        (["--objective", "os:path"], "os:path"),
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


def harmed(weights: dict[str, torch.Tensor], config: dict[str, Any], how: str) -> str:
    """Harm a checkpoint in memory; what its error must name."""
    name = next(name for name in weights if "layers.1" in name and "down_proj" in name)
    if how == "a weight is missing":
        del weights[name]
    elif how == "fewer layers than weights":
        config["num_hidden_layers"] = 1
        name = "layers.1.input_layernorm"
    elif how == "a weight of another shape":
        weights[name] = weights[name][:, :-1].contiguous()
        name = (
            f"{tuple(weights[name].shape)} where {(len(weights[name]), weights[name].shape[1] + 1)} belongs"
        )
    elif how == "NaN":
        weights[name][0, 0] = float("nan")
    elif how == "infinity":
        weights[name][-1, -1] = float("inf")
    elif how == "a configuration that cannot be":
        config["num_attention_heads"] = 7
        name = "not a multiple of the number of attention heads"
    return name


@pytest.mark.parametrize(
    "how",
    [
        "a weight is missing",
        "fewer layers than weights",
        "a weight of another shape",
        "NaN",
        "infinity",
        "a configuration that cannot be",
    ],
)
def test_weights_that_are_not_the_models_are_refused_by_name(error, checkpoint, tmp_path, how):
    folder = tmp_path / "harmed"
    folder.mkdir()
    for file in Path(checkpoint).iterdir():
        if file.name.endswith(".json"):
            (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(Path(checkpoint) / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    named = harmed(weights, config, how)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    said = error(str(folder), "--data", write(tmp_path / "data.jsonl", *GOOD_ROWS))
    assert named in said
    assert str(folder) in said


def test_weights_that_are_no_part_of_the_model_are_a_warning(checkpoint, tmp_path):
    folder = tmp_path / "with-a-head"
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "score.weight": torch.zeros(1, 96)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.warns(UserWarning, match=r"1 weights are no part of the language model.*score\.weight"):
        load_policy(str(folder), ModelSettings())


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
    process = Python("-c", code, checkpoint, "--data", pairs_file, "--output", tmp_path / "run", *flags)
    assert process.wait() == 2, process.said
    lines = [line for line in process.said.splitlines() if "error" in line or "Traceback" in line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    from rewardshape import read_trace

    assert len(read_trace(tmp_path / "run").steps) > 2

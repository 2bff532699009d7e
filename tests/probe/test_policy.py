"""LoRA and the precisions: outside truth is plain peft, plain torch, and the float32 run of the same command."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape import read_trace
from rewardshape.data import EncodedPair
from rewardshape.probe import policy
from rewardshape.probe.command import parse
from rewardshape.probe.measure.logprobs import PlainReader
from rewardshape.probe.policy import default_learning_rate, load_policy, untouched
from rewardshape.probe.run import run
from rewardshape.probe.settings import ModelSettings

LORA = ["--lora-rank", "4", "--objective", "dpo", "--beta", "0.1", "--steps", "6", "--micro-batch-size", "4"]
LORA += ["--checkpoint-every", "2", "--keep-checkpoints", "5", "--learning-rate", "1e-2"]


SMALL = ["--steps", "4", "--batch-size", "8", "--probe-pairs", "12", "--learning-rate", "1e-3", "--quiet"]


@pytest.fixture(scope="module")
def record(checkpoint: str, pairs_file: str) -> Callable[..., Path]:
    """A small run of the embedded model with these flags; its folder."""

    def recorded(output: Path, *flags: str) -> Path:
        run(parse([checkpoint, "--data", pairs_file, "--output", str(output), *SMALL, *flags]))
        return output

    return recorded


def resume(output: Path, *flags: str) -> Path:
    run(parse(["--resume", "--output", str(output), "--quiet", *flags]))
    return output


@pytest.fixture(scope="module")
def adapted(record: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("lora") / "run", *LORA)


def plain_logps(model: torch.nn.Module, checkpoint: str, pairs_file: str, rows) -> np.ndarray:
    """Log-probs by plain transformers code: one sequence at a time, whole logits."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with open(pairs_file, encoding="utf-8") as file:
        source = {f"{Path(pairs_file).name}:{n}": json.loads(line) for n, line in enumerate(file, 1)}
    found = []
    for row in rows.itertuples():
        text = source[row.pair_id]
        prompt = tokenizer(text["prompt"])["input_ids"]
        both = [*tokenizer(text["prompt"] + text[row.response])["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logps = model(torch.tensor([both])).logits[0].double().log_softmax(-1)
        places = range(len(prompt), len(both))
        found.append(sum(logps[place - 1, both[place]].item() for place in places))
    return np.array(found)


@pytest.mark.parametrize("step", [2, 6])
def test_log_probs_of_a_lora_run_are_those_of_plain_peft(adapted, checkpoint, pairs_file, step):
    rows = read_trace(adapted).responses.query("split == 'probe' and step == @step")
    base = AutoModelForCausalLM.from_pretrained(checkpoint)
    model = PeftModel.from_pretrained(base, str(adapted / "checkpoints" / f"checkpoint-{step}")).eval()
    np.testing.assert_allclose(rows["logp_sum"], plain_logps(model, checkpoint, pairs_file, rows), atol=1e-4)


def test_the_reference_of_a_lora_run_is_the_checkpoint(adapted, checkpoint, pairs_file):
    rows = read_trace(adapted).responses.query("split == 'probe' and step == 6")
    base = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    np.testing.assert_allclose(
        rows["ref_logp_sum"], plain_logps(base, checkpoint, pairs_file, rows), atol=1e-4
    )
    assert (rows["logp_sum"] - rows["ref_logp_sum"]).abs().max() > 0.1  # it did train


def test_only_adapters_train_and_lie_in_the_checkpoint(adapted):
    weights = load_file(adapted / "checkpoints" / "checkpoint-6" / "adapter_model.safetensors")
    assert all("lora_" in name and weight.dtype == torch.float32 for name, weight in weights.items())
    config = json.loads((adapted / "checkpoints" / "checkpoint-6" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.0)
    assert not (adapted / "checkpoints" / "checkpoint-6" / "model.safetensors").exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_adapter_switched_off_gives_the_untouched_model(checkpoint, precision):
    pair = EncodedPair("a:1", [1, 5, 9], {"chosen": [7, 8, 2], "rejected": [11, 2]})
    reader = PlainReader()
    batch = reader.collate([pair])
    base = load_policy(checkpoint, ModelSettings(precision=precision)).eval()
    adapted = load_policy(checkpoint, ModelSettings(precision=precision, lora_rank=2)).eval()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_()
        expected = reader.logps(base, batch).token_logps
        assert not torch.allclose(reader.logps(adapted, batch).token_logps, expected)
        with untouched(adapted) as before:
            assert torch.equal(reader.logps(before, batch).token_logps, expected)


def cut_back(whole: Path, output: Path, step: int) -> None:
    """The folder as a kill right after the checkpoint of `step` leaves it."""
    shutil.copytree(whole, output)
    for file in ("run.json", "command.json"):
        text = (output / file).read_text().replace('"status": "done"', '"status": "running"')
        (output / file).write_text(text.replace(str(whole), str(output)))
    for folder in (output / "checkpoints").iterdir():
        if int(folder.name.rpartition("-")[2]) > step:
            shutil.rmtree(folder)


def test_a_lora_run_with_accumulation_resumes_bit_exactly(adapted, tmp_path):
    cut_back(adapted, tmp_path / "run", 2)
    resumed = resume(tmp_path / "run")
    assert (resumed / "trace.jsonl").read_bytes() == (adapted / "trace.jsonl").read_bytes()


def test_probe_every_may_change_and_the_adapters_end_the_same(adapted, tmp_path):
    cut_back(adapted, tmp_path / "run", 4)
    resume(tmp_path / "run", "--probe-every", "5")
    resumed, whole = (
        load_file(folder / "checkpoints" / "checkpoint-6" / "adapter_model.safetensors")
        for folder in (tmp_path / "run", adapted)
    )
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_lora_learns_at_ten_times_the_rate():
    full, lora = (default_learning_rate(7_000_000_000, ModelSettings(lora_rank=rank)) for rank in (None, 8))
    assert (full, lora) == (1e-6, 1e-5)


# --- bfloat16 weights -----------------------------------------------------------------------------------------------

RATE = "2e-6"
DRIFT = ["--steps", "20", "--learning-rate", RATE, "--schedule", "constant", "--warmup-ratio", "0"]
DRIFT += ["--probe-every", "20", "--probe-pairs", "4", "--checkpoint-every", "20"]


@pytest.fixture(scope="module")
def rounded(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with weights that are bfloat16 numbers, so that every precision starts at the same place."""
    folder = tmp_path_factory.mktemp("rounded")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).float()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def drift(rounded: Path, pairs_file: str, tmp_path_factory: pytest.TempPathFactory):
    """What 20 steps of AdamW add to the weights, as one vector."""

    def measured(*flags: str) -> torch.Tensor:
        output = tmp_path_factory.mktemp("drift") / "run"
        words = [str(rounded), "--data", pairs_file, "--output", str(output), "--batch-size", "4", "--quiet"]
        run(parse([*words, "--alpha", "0.25", *DRIFT, *flags]))
        before = load_file(rounded / "model.safetensors")
        after = load_file(output / "checkpoints" / "checkpoint-20" / "model.safetensors")
        return torch.cat([(after[name].double() - before[name].double()).flatten() for name in before])

    return measured


def test_bfloat16_weights_drift_as_float32_weights_do_and_rounded_to_nearest_do_not_move(drift):
    due = drift("--precision", "float32")
    stochastic = drift("--precision", "bfloat16")
    nearest = drift("--precision", "bfloat16", "--optimizer", "adamw_torch")

    def share(moved: torch.Tensor) -> float:
        """How far along the float32 drift: 1 where it is followed, 0 where nothing moves that way."""
        return (moved @ due / (due @ due)).item()

    large = due.abs() > 0.5 * due.abs().median()
    assert 0.8 < share(stochastic) < 1.1
    assert share(nearest) < 0.1
    assert (nearest[large] != 0).double().mean() < 0.1
    # In the mean over the weights whose sign of drift is clear, the due movement and none.
    direction = due[large].sign()
    assert (stochastic[large] * direction).mean() == pytest.approx(due[large].abs().mean().item(), rel=0.2)
    assert (nearest[large] * direction).mean().abs() < 0.1 * due[large].abs().mean()


def test_a_bfloat16_run_with_8_bit_state_resumes_bit_exactly(record, tmp_path):
    flags = ["--precision", "bfloat16", "--steps", "4", "--checkpoint-every", "2", "--keep-checkpoints", "3"]
    whole = record(tmp_path / "whole", *flags)
    assert read_trace(whole).settings["run"]["optimizer"] == "adamw_torch_8bit"
    cut_back(whole, tmp_path / "run", 2)
    resumed = resume(tmp_path / "run")
    assert (resumed / "trace.jsonl").read_bytes() == (whole / "trace.jsonl").read_bytes()


def test_mixed_precision_measures_what_float32_measures_as_far_as_bfloat16_can(record, tmp_path):
    tables = []
    for precision in ("float32", "mixed"):
        folder = record(tmp_path / precision, "--precision", precision, "--steps", "2")
        tables.append(read_trace(folder).responses)
    exact, mixed = tables
    per_token = (mixed["logp_sum"] - exact["logp_sum"]) / exact["num_tokens"]
    assert 0 < per_token.abs().max() < 0.05
    weights = load_file(tmp_path / "mixed" / "checkpoints" / "checkpoint-2" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


@pytest.fixture
def without(monkeypatch):
    """Pretend that a package is not installed."""

    def hide(package: str) -> None:
        found = importlib.util.find_spec
        monkeypatch.setattr(policy, "find_spec", lambda name: None if name == package else found(name))

    return hide


@pytest.mark.parametrize(
    ("package", "flags"), [("torchao", ["--precision", "bfloat16"]), ("peft", ["--lora-rank", "4"])]
)
def test_a_missing_package_is_one_line_that_names_the_extra(probe, capsys, tmp_path, without, package, flags):
    without(package)
    assert probe(tmp_path / "run", *flags) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert f"needs {package}" in line
    assert "rewardshape[gpu]" in line


def test_an_unknown_optimizer_is_named_with_the_nearest(probe, capsys, tmp_path):
    assert probe(tmp_path / "run", "--optimizer", "adamw_torchh") == 2
    assert "adamw_torch" in capsys.readouterr().err.split("try", 1)[1]

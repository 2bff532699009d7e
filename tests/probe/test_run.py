"""The numbers in a trace are right: against plain transformers code that shares nothing with the probe."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape import objective, read_trace
from rewardshape.probe.policy import load_policy
from rewardshape.probe.settings import ModelSettings
from rewardshape.trace.records import read_records

Probe = Callable[..., int]


def plain_logp(model: torch.nn.Module, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Log-probability of a response the slow way: one sequence, whole logits, a loop over its tokens."""
    logits = model(torch.tensor([prompt + response])).logits[0]
    logps = torch.log_softmax(logits.double(), -1)
    return sum(logps[len(prompt) + i - 1, token] for i, token in enumerate(response))


def texts(pairs_file: str) -> dict[str, dict[str, str]]:
    with open(pairs_file, encoding="utf-8") as file:
        return {f"{Path(pairs_file).name}:{n}": json.loads(line) for n, line in enumerate(file, 1)}


def token_ids(checkpoint: str, row: dict[str, str], response: str) -> tuple[list[int], list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    prompt = tokenizer(row["prompt"])["input_ids"]
    both = tokenizer(row["prompt"] + row[response])["input_ids"]
    assert both[: len(prompt)] == prompt
    return prompt, [*both[len(prompt) :], tokenizer.eos_token_id]


def recomputed(checkpoint: str, folder: str | Path, rows: pd.DataFrame, pairs_file: str) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    source = texts(pairs_file)
    with torch.no_grad():
        return np.array(
            [
                plain_logp(model, *token_ids(checkpoint, source[row.pair_id], row.response)).item()
                for row in rows.itertuples()
            ]
        )


@pytest.fixture(scope="module")
def traced(probe: Probe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traced") / "run"
    assert probe(folder, "--checkpoint-every", "1", "--keep-checkpoints", "10") == 0
    return folder


@pytest.mark.parametrize("step", [0, 2, 4])
def test_probe_rows_are_the_log_probs_of_that_steps_checkpoint(traced, checkpoint, pairs_file, step):
    rows = read_trace(traced).responses.query("split == 'probe' and step == @step")
    weights = checkpoint if step == 0 else traced / "checkpoints" / f"checkpoint-{step}"
    assert len(rows) == 24
    np.testing.assert_allclose(rows["logp_sum"], recomputed(checkpoint, weights, rows, pairs_file), atol=1e-4)


@pytest.mark.parametrize("step", [1, 3])
def test_train_rows_are_measured_before_that_steps_update(traced, checkpoint, pairs_file, step):
    rows = read_trace(traced).responses.query("split == 'train' and step == @step")
    weights = checkpoint if step == 1 else traced / "checkpoints" / f"checkpoint-{step - 1}"
    assert len(rows) == 16
    np.testing.assert_allclose(rows["logp_sum"], recomputed(checkpoint, weights, rows, pairs_file), atol=1e-4)


def test_steps_follow_from_the_recorded_responses(traced):
    trace = read_trace(traced)
    goal = objective("alphapo", **trace.settings["objective"]["parameters"])
    rows = trace.responses.query("split == 'train'")
    mean = rows.assign(s=rows["logp_sum"] / rows["num_tokens"])
    s_w = mean.query("response == 'chosen'").set_index("step")["s"]
    s_l = mean.query("response == 'rejected'").set_index("step")["s"]
    steps = trace.steps.query("step > 0").set_index("step")
    for step in steps.index:
        w, l = s_w[step].to_numpy(), s_l[step].to_numpy()  # noqa: E741
        np.testing.assert_allclose(steps["loss"][step], goal.loss(w, l).mean(), rtol=1e-5)
        np.testing.assert_allclose(steps["margin"][step], goal.margin(w, l).mean(), rtol=1e-4, atol=1e-5)
        assert steps["accuracy"][step] == np.mean(w > l)


def test_the_policy_moves_as_a_plain_adamw_loop_moves_it(traced, checkpoint, pairs_file):
    trace = read_trace(traced)
    source = texts(pairs_file)
    settings = trace.settings["run"]
    beta = trace.settings["objective"]["parameters"]["beta"]
    gamma = trace.settings["objective"]["parameters"]["gamma"]
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], weight_decay=0.0)
    steps, warmup = settings["steps"], math.ceil(settings["warmup_ratio"] * settings["steps"])
    for step in range(1, steps + 1):
        done = step - 1
        share = (
            done / warmup
            if done < warmup
            else 0.5 * (1 + math.cos(math.pi * (done - warmup) / (steps - warmup)))
        )
        optimizer.param_groups[0]["lr"] = share * settings["learning_rate"]
        losses = []
        for pair_id in trace.responses.query("split == 'train' and step == @step")["pair_id"].unique():
            s = []
            for response in ("chosen", "rejected"):
                prompt, ids = token_ids(checkpoint, source[pair_id], response)
                s.append(plain_logp(model, prompt, ids) / len(ids))
            reward_w, reward_l = (beta * (1 - torch.exp(-0.25 * x)) / 0.25 for x in s)
            losses.append(-torch.nn.functional.logsigmoid(reward_w - reward_l - gamma))
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    rows = trace.responses.query("split == 'probe' and step == @steps")
    with torch.no_grad():
        ours = [
            plain_logp(model, *token_ids(checkpoint, source[r.pair_id], r.response)).item()
            for r in rows.itertuples()
        ]
    np.testing.assert_allclose(rows["logp_sum"], ours, atol=2e-3)


def test_micro_batches_change_no_number_beyond_rounding(probe, traced, tmp_path):
    assert probe(tmp_path / "micro", "--micro-batch-size", "2") == 0
    whole, parts = read_trace(traced), read_trace(tmp_path / "micro")
    for table in ("steps", "responses"):
        a, b = getattr(whole, table), getattr(parts, table)
        for column in ("loss", "margin", "grad_norm", "logp_sum", "greedy_logp_sum", "entropy_sum"):
            if column in a:
                np.testing.assert_allclose(a[column], b[column], rtol=2e-4, atol=2e-4)
    assert (whole.responses["pair_id"] == parts.responses["pair_id"]).all()


def test_same_seed_gives_the_same_trace_to_the_last_byte(probe, traced, tmp_path):
    assert probe(tmp_path / "again") == 0
    assert (tmp_path / "again" / "trace.jsonl").read_bytes() == (traced / "trace.jsonl").read_bytes()


def test_reference_is_the_untouched_checkpoint(probe, tmp_path):
    assert probe(tmp_path / "dpo", "--objective", "dpo", "--beta", "0.1") == 0
    responses = read_trace(tmp_path / "dpo").responses
    start = responses.query("split == 'probe' and step == 0")
    np.testing.assert_allclose(start["logp_sum"], start["ref_logp_sum"], atol=1e-5)
    first = responses.query("split == 'train' and step == 1")
    np.testing.assert_allclose(first["logp_sum"], first["ref_logp_sum"], atol=1e-4)
    assert read_trace(tmp_path / "dpo").steps["loss"][1] == pytest.approx(math.log(2), abs=1e-6)


def test_probe_set_is_disjoint_from_training(traced):
    responses = read_trace(traced).responses
    probe_pairs = set(responses.query("split == 'probe'")["pair_id"])
    assert not probe_pairs & set(responses.query("split == 'train'")["pair_id"])


def test_a_sweep_has_one_folder_per_alpha_and_the_same_pairs_in_each(probe, tmp_path):
    assert probe(tmp_path / "sweep", "--alpha", "0", "1", "--steps", "2") == 0
    trace = read_trace(tmp_path / "sweep")
    assert [run.name for run in trace.runs] == ["alpha=0", "alpha=1"]
    zero, one = (trace.responses.query("run == @run.name") for run in trace.runs)
    assert (zero["pair_id"].to_numpy() == one["pair_id"].to_numpy()).all()
    assert zero.query("step == 0")["logp_sum"].tolist() == one.query("step == 0")["logp_sum"].tolist()
    assert zero.query("step == 2")["logp_sum"].tolist() != one.query("step == 2")["logp_sum"].tolist()


def test_every_run_loads_its_policy_once(probe, tmp_path, monkeypatch):
    """Also for the choice of the reader, the reference and the samples."""
    loaded: list[str] = []

    def counted(place: str, settings: ModelSettings) -> torch.nn.Module:
        loaded.append(place)
        return load_policy(place, settings)

    for module in ("run", "beginning"):
        monkeypatch.setattr(f"rewardshape.probe.{module}.load_policy", counted)
    flags = ["--sample-every", "2", "--samples", "4", "--best-of", "1", "--steps", "2"]
    assert probe(tmp_path / "sweep", "--objective", "dpo", "--beta", "0.1", "0.2", *flags) == 0
    assert len(loaded) == len(read_trace(tmp_path / "sweep").runs) == 2


def test_non_finite_loss_stops_before_the_update_and_names_the_pair(probe, tmp_path, capsys):
    assert probe(tmp_path / "run", "--alpha", "600") == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    found = re.match(r"error: step (\d+): the loss is not finite, on pair pairs\.jsonl:\d+", error[0])
    assert found
    _, records = read_records(tmp_path / "run" / "trace.jsonl")
    assert [record.step for record in records] == list(range(int(found[1])))


def test_token_log_probs_of_first_and_last_step_add_up(traced):
    trace = read_trace(traced)
    assert set(trace.tokens["step"]) == {0, 4}
    sums = trace.tokens.groupby(["step", "pair_id", "response"])["logp"].sum()
    rows = trace.responses.query("split == 'probe' and step in (0, 4)").set_index(
        ["step", "pair_id", "response"]
    )
    np.testing.assert_allclose(sums.sort_index(), rows["logp_sum"].sort_index(), rtol=1e-5)


def test_a_checkpoint_written_over_does_not_change_a_loaded_policy(checkpoint, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(checkpoint, copy)
    policy = load_policy(str(copy), ModelSettings())
    weights = copy / "model.safetensors"
    size = weights.stat().st_size
    with open(weights, "wb") as file:
        file.write(b"\x7f" * size)
    untouched = AutoModelForCausalLM.from_pretrained(checkpoint)
    for ours, theirs in zip(policy.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(ours, theirs)

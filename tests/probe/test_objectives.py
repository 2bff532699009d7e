"""Every objective of the registry trains in the probe, or says in one line why it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.analysis.displacement import displacement_summary
from rewardshape.errors import InputError
from rewardshape.probe.command import parse
from rewardshape.probe.grid import build_objective
from rewardshape.probe.run import run
from rewardshape.theory import Responses, objective, objective_names
from rewardshape.trace import RunFolder

MORE_THAN_SUMS = ("ld_dpo", "odpo", "pro", "sampo", "tdpo", "wpo")


@pytest.fixture(scope="module")
def pairs_file(pairs_file: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first of them: the runs here are of two steps, and a reference is measured on every pair."""
    file = tmp_path_factory.mktemp("few") / "pairs.jsonl"
    lines = Path(pairs_file).read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:24]), encoding="utf-8")
    return str(file)


def words(checkpoint: str, pairs_file: str, name: str, output: object) -> list[str]:
    small = "--steps 2 --batch-size 4 --probe-pairs 4 --learning-rate 1e-3 --quiet".split()
    return [checkpoint, "--data", pairs_file, "--objective", name, "--output", str(output), *small]


@pytest.mark.parametrize("name", sorted(set(objective_names()) - set(MORE_THAN_SUMS)))
def test_it_trains_and_its_recorded_loss_is_its_own(name, checkpoint, pairs_file, tmp_path):
    trace = run(parse(words(checkpoint, pairs_file, name, tmp_path / "run")))
    stated = trace.settings["objective"]
    goal = objective(stated["name"], **stated["parameters"])
    rows = trace.responses.query("split == 'train' and step == 2")
    sides = []
    for side in ("chosen", "rejected"):
        part = rows[rows["response"] == side]
        reference = part["ref_logp_sum"].to_numpy() if goal.needs_reference else None
        sides.append(Responses(part["logp_sum"].to_numpy(), part["num_tokens"].to_numpy(), reference))
    loss = trace.steps.set_index("step")["loss"][2]
    assert np.isfinite(loss)
    assert loss == pytest.approx(float(np.mean(goal.pair_loss(*sides))), rel=1e-4, abs=1e-6)


@pytest.fixture(scope="module")
def scored(pairs_file, tmp_path_factory) -> str:
    """The pairs with an annotator's scores."""
    file = tmp_path_factory.mktemp("scored") / "pairs.jsonl"
    lines = Path(pairs_file).read_text(encoding="utf-8").splitlines()
    rows = (
        json.loads(line) | {"liked": 3 + number % 4, "chosen_score": 0, "meh": 1}
        for number, line in enumerate(lines)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


SCORED = ["--columns", "chosen_score=liked", "rejected_score=meh"]


@pytest.mark.parametrize("name", MORE_THAN_SUMS)
def test_what_needs_more_than_sums_trains_and_goes_on_where_it_was_stopped(
    name, checkpoint, scored, tmp_path
):
    """The loss is tested where the trainer makes it; here a run, its record, and that resuming changes nothing."""
    command = [*words(checkpoint, scored, name, tmp_path / "run"), *SCORED, "--checkpoint-every", "1"]
    trace = run(parse([*command, "--keep-checkpoints", "2"]))
    stated = trace.settings["objective"]
    assert objective(stated["name"], **stated["parameters"]) == build_objective(parse(command).objective)
    assert np.isfinite(trace.steps["loss"]).iloc[1:].all()
    moved = trace.responses.query("split == 'probe'").groupby("step")["logp_sum"].mean()
    assert moved.nunique() > 1
    summary = displacement_summary(trace)
    assert summary["accuracy"].between(0, 1).all()

    files = RunFolder(tmp_path / "run")
    whole = files.trace.read_bytes()
    files.set_status("running")
    shutil.rmtree(files.checkpoints / "checkpoint-2")
    files.trace.write_bytes(whole[:-40])
    run(parse(["--resume", "--output", str(files.path), "--quiet"]))
    assert files.trace.read_bytes() == whole


def test_an_objective_of_labels_says_which_columns_it_lacks(checkpoint, pairs_file, tmp_path):
    with pytest.raises(InputError, match=r"pairs\.jsonl:\d+ has no scores .*--columns chosen_score="):
        run(parse(words(checkpoint, pairs_file, "odpo", tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_reference_follows_the_policy_and_goes_on_where_it_was(checkpoint, pairs_file, tmp_path):
    """Every step half of the way: what a step records under the reference is what these very weights say."""
    files = RunFolder(tmp_path / "run")
    flags = ["--parameter", "mixing=0.5", "every=1", "--steps", "3", "--schedule", "constant"]
    flags += ["--warmup-ratio", "0", "--checkpoint-every", "1", "--keep-checkpoints", "3"]
    trace = run(parse([*words(checkpoint, pairs_file, "tr_dpo", files.path), *flags]))

    start = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    lines = [json.loads(line) for line in Path(pairs_file).read_text(encoding="utf-8").splitlines()]
    reference = {name: weight.detach().clone() for name, weight in start.named_parameters()}
    for step in (1, 2, 3):
        with torch.no_grad():
            for name, weight in start.named_parameters():
                weight.copy_(reference[name])
        rows = trace.responses.query("split == 'train' and step == @step and response == 'rejected'")
        for pair_id, recorded in zip(rows["pair_id"], rows["ref_logp_sum"], strict=True):
            line = lines[int(pair_id.rpartition(":")[2]) - 1]
            prompt = tokenizer(line["prompt"])["input_ids"]
            ids = [*tokenizer(line["prompt"] + line["rejected"])["input_ids"], tokenizer.eos_token_id]
            with torch.no_grad():
                logps = start(torch.tensor([ids])).logits[0].log_softmax(-1)
            truth = sum(logps[place - 1, ids[place]].item() for place in range(len(prompt), len(ids)))
            assert recorded == pytest.approx(truth, abs=2e-3)
        policy = AutoModelForCausalLM.from_pretrained(files.checkpoints / f"checkpoint-{step}")
        moved = dict(policy.named_parameters())
        reference = {name: 0.5 * (weight + moved[name].detach()) for name, weight in reference.items()}
    first = trace.responses.query("split == 'train' and step == 1")
    assert not np.allclose(
        first["logp_sum"], trace.responses.query("split == 'train' and step == 3")["logp_sum"]
    )

    whole = files.trace.read_bytes()
    files.set_status("running")
    for step in (2, 3):
        shutil.rmtree(files.checkpoints / f"checkpoint-{step}")
    run(parse(["--resume", "--output", str(files.path), "--quiet"]))
    assert files.trace.read_bytes() == whole


@pytest.mark.parametrize("flag", ["--geometry-every", "--influence-every"])
def test_what_takes_gradients_of_scores_refuses_scores_of_more_than_sums(
    flag, checkpoint, pairs_file, tmp_path
):
    with pytest.raises(InputError, match=f"{flag}: takes gradients of scores"):
        run(parse([*words(checkpoint, pairs_file, "ld_dpo", tmp_path / "run"), flag, "1"]))


def test_a_sum_without_terms_is_refused(checkpoint, pairs_file, tmp_path):
    with pytest.raises(InputError, match="terms") as refusal:
        run(parse(words(checkpoint, pairs_file, "sum", tmp_path / "run")))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()

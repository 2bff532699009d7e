"""The geometry in a trace is right: against plain autograd in float64 that shares nothing with the probe."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from rewardshape import objective, read_trace
from rewardshape.analysis import kernel_cosines
from rewardshape.probe.__main__ import main
from rewardshape.probe.measure.geometry import ches
from rewardshape.probe.measure.probe_set import PAIR
from rewardshape.trace.read import read_probe_set
from rewardshape.trace.records import rewind
from tests.probe.test_run import plain_logp, texts, token_ids

Probe = Callable[..., int]
GEOMETRY = (
    "--geometry-every",
    "2",
    "--checkpoint-every",
    "1",
    "--keep-checkpoints",
    "10",
    "--probe-pairs",
    "6",
)
CONSTANT = ("--schedule", "constant", "--warmup-ratio", "0")


@pytest.fixture(scope="module")
def runs(probe: Probe, made_once) -> dict[str, Path]:
    flags = {
        "sgd": ["--optimizer", "sgd", "--learning-rate", "1e-2"],
        "adamw": [],
        "dpo": ["--objective", "dpo", "--beta", "0.1"],
    }

    def make(folder: Path) -> None:
        for name, own in flags.items():
            assert probe(folder / name, *GEOMETRY, *CONSTANT, *own) == 0

    folder = made_once("geometry", make)
    return {name: folder / name for name in flags}


def weights_at(folder: Path, checkpoint: str, step: int) -> torch.nn.Module:
    path = checkpoint if step == 0 else folder / "checkpoints" / f"checkpoint-{step}"
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()


def score_gradients(
    model: torch.nn.Module, checkpoint: str, pairs_file: str, pair_ids: list[str], *, per_token: bool = True
) -> Iterator[list[Tensor]]:
    """Chosen and rejected gradient of each pair's score, flat."""
    source = texts(pairs_file)
    for pair_id in pair_ids:
        flat = []
        for response in ("chosen", "rejected"):
            prompt, ids = token_ids(checkpoint, source[pair_id], response)
            score = plain_logp(model, prompt, ids) / (len(ids) if per_token else 1)
            flat.append(
                torch.cat([g.flatten() for g in torch.autograd.grad(score, list(model.parameters()))])
            )
        yield flat


def flat_weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def geometry(folder: Path, step: int) -> pd.DataFrame:
    return read_trace(folder).geometry.query("step == @step").set_index("pair_id")


@pytest.mark.parametrize(("name", "step"), [("adamw", 0), ("sgd", 2), ("dpo", 2)])
def test_gram_entries_are_those_of_brute_force_autograd(runs, checkpoint, pairs_file, name, step):
    table = geometry(runs[name], step)
    model = weights_at(runs[name], checkpoint, step)
    per_token = name != "dpo"  # the score of DPO is summed; its reference has no gradient
    found = score_gradients(model, checkpoint, pairs_file, list(table.index), per_token=per_token)
    expected = [(w @ w, w @ c, c @ c) for w, c in found]
    # An overlap near zero is what two gradients' products leave of each other: exact to float32 on their scale.
    atol = 1e-6 * np.max(expected)
    np.testing.assert_allclose(
        table[["gram_ww", "gram_wl", "gram_ll"]], np.array(expected), rtol=2e-4, atol=atol
    )


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_prediction_is_the_old_gradient_along_the_real_update(runs, checkpoint, pairs_file, name):
    table = geometry(runs[name], 2)
    before, after = (weights_at(runs[name], checkpoint, step) for step in (1, 2))
    update = flat_weights(after) - flat_weights(before)
    expected = [
        [(g @ update).item() for g in pair]
        for pair in score_gradients(before, checkpoint, pairs_file, list(table.index))
    ]
    predicted = table[["predicted_chosen", "predicted_rejected"]].to_numpy()
    np.testing.assert_allclose(predicted, expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())


def test_prediction_can_be_made_before_the_step_from_batch_gradient_and_optimiser_state(
    runs, checkpoint, pairs_file
):
    folder, step = runs["adamw"], 4
    trace = read_trace(folder)
    goal = objective("alphapo", **trace.settings["objective"]["parameters"])
    model = weights_at(folder, checkpoint, step - 1)
    source = texts(pairs_file)
    losses = []
    for pair_id in trace.responses.query("split == 'train' and step == @step")["pair_id"].unique():
        encoded = [token_ids(checkpoint, source[pair_id], response) for response in ("chosen", "rejected")]
        losses.append(goal.loss(*(plain_logp(model, prompt, ids) / len(ids) for prompt, ids in encoded)))
    torch.stack(losses).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    weights = list(model.parameters())
    gradient = torch.cat([weight.grad.flatten() for weight in weights])
    names = [name for name, _ in model.named_parameters()]
    saved = torch.load(folder / "checkpoints" / f"checkpoint-{step - 1}" / "optimizer.pt", weights_only=True)
    # transformers puts weights with decay first; none is decayed here, only the order matters
    decayed = [name for name in names if "norm" not in name]
    order = [*decayed, *(name for name in names if "norm" in name)]
    state = {name: saved["state"][i] for i, name in enumerate(order)}
    first, second = (
        torch.cat([state[name][key].double().flatten() for name in names])
        for key in ("exp_avg", "exp_avg_sq")
    )
    first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
    rate = trace.steps.set_index("step")["learning_rate"][step]
    update = -rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    table = geometry(folder, step)
    expected = [
        [(g @ update).item() for g in pair]
        for pair in score_gradients(model, checkpoint, pairs_file, list(table.index))
    ]
    predicted = table[["predicted_chosen", "predicted_rejected"]].to_numpy()
    np.testing.assert_allclose(predicted, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())
    plain = [
        [-rate * (g @ gradient).item() for g in pair]
        for pair in score_gradients(model, checkpoint, pairs_file, list(table.index))
    ]
    np.testing.assert_allclose(
        table[["descent_chosen", "descent_rejected"]], plain, rtol=1e-3, atol=1e-3 * np.abs(plain).max()
    )


def test_with_sgd_the_update_is_plain_descent_and_first_order_explains_what_moved(runs):
    table = read_trace(runs["sgd"]).geometry.query("step > 0")
    for side in ("chosen", "rejected"):
        predicted, moved = table[f"predicted_{side}"], table[f"moved_{side}"]
        np.testing.assert_allclose(
            predicted, table[f"descent_{side}"], rtol=2e-2, atol=2e-2 * moved.abs().max()
        )
        assert 1 - ((moved - predicted) ** 2).sum() / ((moved - moved.mean()) ** 2).sum() > 0.9


@pytest.mark.parametrize("name", ["sgd", "dpo"])
def test_moved_is_the_change_of_the_probe_sets_own_scores(runs, name):
    trace = read_trace(runs[name])
    goal = objective(trace.settings["objective"]["name"], **trace.settings["objective"]["parameters"])
    probe = trace.responses.query("split == 'probe'").set_index(["step", "response", "pair_id"]).sort_index()
    for step in (2, 4):
        for side in ("chosen", "rejected"):
            table = geometry(runs[name], step)
            scores = [
                goal.score(rows["logp_sum"], rows["num_tokens"], rows["ref_logp_sum"])
                for rows in (probe.loc[t, side].loc[table.index] for t in (step - 1, step))
            ]
            np.testing.assert_allclose(table[f"moved_{side}"], scores[1] - scores[0], atol=2e-5)


@pytest.mark.parametrize("name", ["adamw", "dpo"])
def test_weights_are_those_of_the_objective_at_the_probe_sets_scores(runs, name):
    trace = read_trace(runs[name])
    goal = objective(trace.settings["objective"]["name"], **trace.settings["objective"]["parameters"])
    probe = trace.responses.query("split == 'probe' and step == 2").set_index(["response", "pair_id"])
    table = geometry(runs[name], 2)
    scores = [
        goal.score(*(probe.loc[side].loc[table.index][c] for c in ("logp_sum", "num_tokens", "ref_logp_sum")))
        for side in ("chosen", "rejected")
    ]
    expected = np.stack(goal.weights(*(np.asarray(s) for s in scores)), 1)
    np.testing.assert_allclose(table[["weight_chosen", "weight_rejected"]], expected, rtol=1e-4)


def test_ches_is_definition_2_computed_slowly(runs, checkpoint, pairs_file):
    model = weights_at(runs["adamw"], checkpoint, 2)
    source = texts(pairs_file)
    table = geometry(runs["adamw"], 2)
    for pair_id, row in table.iterrows():
        sums, lengths = [], []
        for response in ("chosen", "rejected"):
            prompt, ids = token_ids(checkpoint, source[pair_id], response)
            total = torch.zeros(model.config.hidden_size, dtype=torch.float64)
            for k in range(len(ids)):  # h of the prompt with the tokens before the k-th
                before = torch.tensor([prompt + ids[:k]])
                with torch.no_grad():
                    total += model(before, output_hidden_states=True).hidden_states[-1][0, -1]
            sums.append(total)
            lengths.append(len(ids))
        chosen, rejected = sums
        assert row["ches"] == pytest.approx((chosen @ rejected - chosen @ chosen).item(), rel=1e-4, abs=1e-2)
        chosen, rejected = chosen / lengths[0], rejected / lengths[1]
        expected = (chosen @ rejected - chosen @ chosen).item()
        assert row["ches_normalised"] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_ches_of_equal_responses_is_zero():
    hidden = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert ches(hidden, hidden) == (0.0, 0.0)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_cross_gram_averages_over_pairs_of_different_pairs(runs, checkpoint, pairs_file, name):
    step = 2
    model = weights_at(runs[name], checkpoint, step)
    ids = list(geometry(runs[name], step).index)
    chosen, rejected = (
        torch.stack(side) for side in zip(*score_gradients(model, checkpoint, pairs_file, ids), strict=True)
    )
    different = ~np.eye(len(ids), dtype=bool)
    steps = read_trace(runs[name]).steps.set_index("step")
    for key, first, second in (("ww", chosen, chosen), ("wl", chosen, rejected), ("ll", rejected, rejected)):
        expected = (first @ second.T).numpy()[different].mean()
        assert steps[f"cross_gram_{key}"][step] == pytest.approx(expected, rel=2e-3)
    assert steps["cross_gram_ww"].notna().tolist() == [True, False, True, False, True]


def test_the_kernel_has_every_two_responses_at_both_ends(runs, checkpoint, pairs_file):
    trace = read_trace(runs["sgd"])
    table, count = trace.kernel, trace.geometry["pair_id"].nunique()
    assert table.groupby("step").size().to_dict() == {step: count * (2 * count + 1) for step in (0, 4)}
    ids = list(geometry(runs["sgd"], 4).index)
    sides = score_gradients(weights_at(runs["sgd"], checkpoint, 4), checkpoint, pairs_file, ids)
    texts_of = [(pair, side) for pair in ids for side in PAIR]
    gradients = dict(zip(texts_of, (g for both in sides for g in both), strict=True))
    for row in table[table["step"] == 4].to_dict("records"):
        first, second = (gradients[row[f"{o}pair_id"], row[f"{o}response"]] for o in ("", "other_"))
        lengths = (first.norm() * second.norm()).item()
        within = row["pair_id"] == row["other_pair_id"]  # exact; the others to a few times 1/64
        assert row["product"] == pytest.approx(
            (first @ second).item(), abs=(2e-3 if within else 4 / 64) * lengths
        )
    cosines = kernel_cosines(trace)
    assert len(cosines) == 2 * (2 * count) ** 2
    alike = [cosines[name] == cosines[f"other_{name}"] for name in ("pair_id", "response")]
    itself = cosines[alike[0] & alike[1]]
    np.testing.assert_allclose(itself["cosine"], 1)


def test_geometry_is_measured_at_the_steps_asked_for_and_the_last(probe, runs, tmp_path):
    assert read_trace(runs["sgd"]).geometry.groupby("step").size().to_dict() == {0: 6, 2: 6, 4: 6}
    assert probe(tmp_path / "run", *GEOMETRY[2:], "--geometry-every", "3") == 0
    table = read_trace(tmp_path / "run").geometry
    assert table["step"].unique().tolist() == [0, 3, 4]
    assert list(table.query("step == 4")["pair_id"]) == [
        pair["pair_id"] for pair in read_probe_set(tmp_path / "run")
    ]
    assert table.query("step == 0")["predicted_chosen"].isna().all()
    assert table.query("step > 0").notna().all(axis=None)


def test_measuring_geometry_leaves_the_training_as_it_was(probe, runs, tmp_path):
    assert probe(tmp_path / "plain", *GEOMETRY[2:], *CONSTANT) == 0
    measured, plain = read_trace(runs["adamw"]), read_trace(tmp_path / "plain")
    pd.testing.assert_frame_equal(measured.responses.drop(columns="run"), plain.responses.drop(columns="run"))


def test_a_resumed_run_measures_the_same_geometry(probe, runs, tmp_path):
    assert probe(tmp_path / "run", *GEOMETRY, *CONSTANT) == 0
    whole = (tmp_path / "run" / "trace.jsonl").read_bytes()
    for step in (2, 3, 4):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"checkpoint-{step}")
    rewind(tmp_path / "run", 1)
    manifest = tmp_path / "run" / "run.json"
    manifest.write_text(manifest.read_text().replace('"status": "done"', '"status": "interrupted"'))
    assert main(["--resume", "--output", str(tmp_path / "run"), "--quiet"]) == 0
    assert (tmp_path / "run" / "trace.jsonl").read_bytes() == whole

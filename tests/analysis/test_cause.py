"""Why pairs moved: against scipy, hand-worked pairs, and a linear model whose gradients are known exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rewardshape.analysis import (
    condition_agreement,
    fall_condition,
    movement_split,
    prediction_quality,
    predictions,
)
from rewardshape.analysis.resampling import draw_pairs
from rewardshape.errors import InputError
from rewardshape.plotting.cause import plot_entanglement
from rewardshape.theory import objective
from rewardshape.trace import TraceWriter, read_trace

ALPHAPO = {"name": "alphapo", "parameters": {"alpha": 1.0, "beta": 2.0, "gamma": 0.5}}
PAIRS = ("a:1", "a:2", "a:3", "a:4")
TOKENS = 4  # of every response


def probe_rows(s_w: np.ndarray, s_l: np.ndarray) -> dict:
    return {"logp_sum": TOKENS * np.stack([s_w, s_l], 1).ravel()}


def header(pair_ids: list[str]) -> dict:
    return {
        "pair_id": [pair for pair in pair_ids for _ in "wl"],
        "response": ["chosen", "rejected"] * len(pair_ids),
        "num_tokens": [TOKENS] * (2 * len(pair_ids)),
        "ref_logp_sum": [None] * (2 * len(pair_ids)),
    }


def manifest(folder: Path, **run: object) -> None:
    run = {"seed": 0, "optimizer": "sgd", "max_grad_norm": 1.0, **run}
    (folder / "run.json").write_text(json.dumps({"objective": ALPHAPO, "run": run}), encoding="utf-8")


def geometry_table(rng: np.random.Generator, pair_ids: list[str], step: int, slope: float = 1.0) -> dict:
    table = {
        "pair_id": pair_ids,
        **{name: rng.uniform(1, 2, len(pair_ids)) for name in ("gram_ww", "gram_wl", "gram_ll")},
        **{f"weight_{side}": rng.uniform(0.5, 1, len(pair_ids)) for side in ("chosen", "rejected")},
    }
    for side in ("chosen", "rejected") if step else ():
        predicted = rng.normal(0.01, 0.02, len(pair_ids))
        table[f"predicted_{side}"] = predicted
        table[f"descent_{side}"] = predicted / 10
        table[f"moved_{side}"] = slope * predicted + rng.normal(0, 0.002, len(pair_ids))
    return table


@pytest.fixture
def predicted(tmp_path, rng):
    """A run of 30 pairs whose measured movement is 1.2 × the prediction, with noise, at five steps."""
    ids = [f"p:{i}" for i in range(30)]
    with TraceWriter(tmp_path, header(ids)) as writer:
        for step in range(6):
            writer.append(
                step,
                metrics={"loss": 1.0, "learning_rate": 0.1} if step else None,
                probe=probe_rows(*rng.normal(-2, 0.3, (2, 30))),
                geometry=geometry_table(rng, ids, step, slope=1.2),
            )
    manifest(tmp_path)
    return read_trace(tmp_path)


def test_predictions_hold_every_measured_step_but_the_first_with_each_predictor(predicted):
    table = predictions(predicted)
    assert table.groupby(["predictor", "response"]).size().tolist() == [150] * 6
    row = predicted.geometry.query("step == 3 and pair_id == 'p:7'").iloc[0]
    own = table.query("step == 3 and pair_id == 'p:7' and predictor == 'own pair'").set_index("response")
    expected = 0.1 * (row.weight_chosen * row.gram_wl - row.weight_rejected * row.gram_ll)
    assert own["predicted"]["rejected"] == pytest.approx(expected, rel=1e-9)
    assert own["measured"]["rejected"] == pytest.approx(row.moved_rejected, rel=1e-9)


def test_quality_per_pair_is_that_of_scipy(predicted):
    table = predictions(predicted)
    quality = prediction_quality(table).set_index(["predictor", "response", "level"])
    for predictor in ("update", "descent"):
        points = table.query("predictor == @predictor and response == 'chosen'")
        fit = stats.linregress(points["predicted"], points["measured"])
        row = quality.loc[predictor, "chosen", "pair"]
        assert row["slope"] == pytest.approx(fit.slope, rel=1e-9)
        assert row["correlation"] == pytest.approx(fit.rvalue, rel=1e-9)
        error = ((points["measured"] - points["predicted"]) ** 2).mean()
        assert row["r_squared"] == pytest.approx(1 - error / points["measured"].var(ddof=0), rel=1e-9)


def test_quality_of_means_has_one_point_a_step(predicted):
    table = predictions(predicted)
    row = (
        prediction_quality(table)
        .set_index(["predictor", "response", "level"])
        .loc["update", "rejected", "mean"]
    )
    means = table.query("predictor == 'update' and response == 'rejected'").groupby("step")
    means = means[["predicted", "measured"]].mean()
    assert row["slope"] == pytest.approx(
        stats.linregress(means["predicted"], means["measured"]).slope, rel=1e-9
    )


def test_quality_intervals_resample_pairs_with_all_their_steps(predicted):
    points = predictions(predicted).query("predictor == 'update' and response == 'chosen'")
    wide = {
        name: points.pivot(index="step", columns="pair_id", values=name) for name in ("predicted", "measured")
    }
    order = list(wide["predicted"])
    slopes = [
        stats.linregress(
            wide["predicted"][[order[i] for i in draw]].to_numpy().ravel(),
            wide["measured"][[order[i] for i in draw]].to_numpy().ravel(),
        ).slope
        for draw in draw_pairs(30)[:400]
    ]
    row = prediction_quality(points).set_index("level").loc["pair"]
    assert row["slope_low"] == pytest.approx(np.quantile(slopes, 0.025), abs=0.004)
    assert row["slope_high"] == pytest.approx(np.quantile(slopes, 0.975), abs=0.004)
    assert row["slope_low"] < 1.2 < row["slope_high"]


@pytest.fixture
def end_of_last():
    """The change of the last pair."""
    return 0.4


@pytest.fixture
def condition(tmp_path, end_of_last):
    """Four pairs worked by hand: overlaps 2, 0.5, 1.5 and −1 against weight ratios 1, 1, 2 and 1."""
    geometry = {
        "pair_id": PAIRS,
        "gram_ww": [1.0, 2.0, 2.0, 1.0],
        "gram_wl": [2.0, 1.0, 3.0, -1.0],
        "gram_ll": [5.0, 1.0, 5.0, 2.0],
        "weight_chosen": [1.0, 1.0, 2.0, 1.0],
        "weight_rejected": [1.0, 1.0, 1.0, 1.0],
    }
    with TraceWriter(tmp_path, header(list(PAIRS))) as writer:
        start = np.full(4, -1.0)
        writer.append(0, probe=probe_rows(start, start - 1), geometry=geometry)
        moved = np.array([-0.3, 0.2, -0.1, end_of_last])
        writer.append(1, metrics={"learning_rate": 0.1}, probe=probe_rows(start + moved, start - 2))
    manifest(tmp_path)
    return fall_condition(read_trace(tmp_path))


def test_condition_by_hand(condition):
    assert condition["overlap"].tolist() == [2.0, 0.5, 1.5, -1.0]
    assert condition["weight_ratio"].tolist() == [1.0, 1.0, 2.0, 1.0]
    assert condition["should_fall"].tolist() == [True, False, False, False]
    assert condition["fell"].tolist() == [True, False, True, False]
    np.testing.assert_allclose(condition["change"], [-0.3, 0.2, -0.1, 0.4], rtol=1e-9)
    np.testing.assert_allclose(condition["excess"][:3], np.log([2.0, 0.5, 0.75]), rtol=1e-9)
    assert np.isnan(condition["excess"][3])  # no overlap at all: no logarithm, and no reason to fall


def test_where_a_weight_is_negative_the_ratio_tells_nothing_and_the_flow_still_does(tmp_path):
    """IPO past its target: both weights below 0, and the pair whose gradients agree rises."""
    geometry = {
        "pair_id": PAIRS,
        "gram_ww": [1.0] * 4,
        "gram_wl": [0.5, 2.0, 0.5, 2.0],
        "gram_ll": [5.0] * 4,
        "weight_chosen": [-1.0, -1.0, 1.0, -1.0],
        "weight_rejected": [-1.0, -1.0, -1.0, 1.0],
    }
    with TraceWriter(tmp_path, header(list(PAIRS))) as writer:
        start = np.full(4, -1.0)
        moved = np.array([-0.5, 1.0, 1.5, -3.0])  # w_w·a − w_l·b
        writer.append(0, probe=probe_rows(start, start - 1), geometry=geometry)
        writer.append(1, metrics={"learning_rate": 0.1}, probe=probe_rows(start + moved, start - 2))
    manifest(tmp_path)
    condition = fall_condition(read_trace(tmp_path))
    assert condition["should_fall"].tolist() == condition["fell"].tolist() == [True, False, False, True]
    assert condition[["weight_ratio", "excess"]].isna().all().all()
    [row] = condition_agreement(condition).to_dict("records")
    assert row["accuracy"] == 1.0
    assert np.isnan(row["auc"])


def test_agreement_by_hand(condition):
    [row] = condition_agreement(condition).to_dict("records")
    assert (row["num_pairs"], row["accuracy"], row["guess"]) == (4, 0.75, 0.5)
    assert row["auc"] == 1.0  # both fallen pairs exceed the unfallen one
    assert row["rho"] == -1.0


@pytest.mark.parametrize("end_of_last", [np.nan])
def test_a_pair_whose_end_is_no_number_says_nothing_of_the_condition(condition):
    """Of the other three one fell as the condition says, one did not as it says, and one fell against it."""
    assert condition["fell"].isna().tolist() == [False, False, False, True]
    [row] = condition_agreement(condition).to_dict("records")
    assert (row["num_pairs"], row["rho"], row["auc"]) == (3, -1.0, 1.0)
    assert row["accuracy"] == row["share_fell"] == pytest.approx(2 / 3)
    [said] = [text.get_text() for text in plot_entanglement(condition).texts]
    assert said == "2 of 3 as the condition says"


def test_auc_and_rank_correlation_are_those_of_scipy(rng):
    excess, change = rng.normal(size=(2, 60))
    change -= 0.8 * excess
    table = pd.DataFrame({"run": "r", "step": 0, "excess": excess, "change": change, "fell": change < 0})
    table = table.assign(should_fall=table["excess"] > 0, prompt=range(60))
    [row] = condition_agreement(table).to_dict("records")
    fell, rose = excess[change < 0], excess[change >= 0]
    assert row["auc"] == pytest.approx(stats.mannwhitneyu(fell, rose).statistic / (len(fell) * len(rose)))
    assert row["rho"] == pytest.approx(stats.spearmanr(excess, change).statistic)
    assert row["auc_low"] < row["auc"] < row["auc_high"]


def test_pairs_of_one_prompt_that_do_the_same_make_nothing_surer(rng, predicted):
    """Copies of every pair under its prompt leave each interval of the agreement and of the prediction as it was."""
    excess, change = rng.normal(size=(2, 40))
    table = pd.DataFrame({"run": "r", "step": 0, "excess": excess, "change": change, "fell": change < 0})
    table = table.assign(should_fall=table["excess"] > 0, prompt=range(40))
    one, three = (condition_agreement(each).iloc[0] for each in (table, pd.concat([table] * 3)))
    assert three["num_pairs"] == 120
    names = [name for name in table_of(one) if name != "num_pairs"]
    np.testing.assert_allclose(three[names].astype(float), one[names].astype(float), atol=1e-9)

    points = predictions(predicted)
    copies = pd.concat([points.assign(pair_id=points["pair_id"] + str(copy)) for copy in range(3)])
    one, three = (prediction_quality(each) for each in (points, copies))
    names = [name for name in one if name.endswith(("_low", "_high"))]
    np.testing.assert_allclose(three[names], one[names], atol=1e-9)


def table_of(row: pd.Series) -> list[str]:
    """The names of a row's numbers."""
    return [name for name in row.index if name not in ("run", "step")]


def linear_world(
    folder: Path, *, growth: float, clip: float = 1e9, alpha: float = 1.0, steps: int = 20
) -> None:
    """SGD on scores linear in the parameters. Between any two pairs the overlaps are the same a, b, c, which grow by
    `growth` a step; a pair's own overlap is larger. So batch means say exactly how another pair moves."""
    rng = np.random.default_rng(5)
    goal = objective("alphapo", **{**ALPHAPO["parameters"], "alpha": alpha})
    ids = [f"probe:{i}" for i in range(6)]
    trained = [f"train:{i}" for i in range(40)]
    probe, train = rng.normal(-1.0, 0.2, (2, 6)), rng.normal(-1.0, 0.2, (2, 40))
    folder.mkdir(exist_ok=True)
    with TraceWriter(folder, header(ids)) as writer:
        for step in range(steps + 1):
            a, b, c = np.array([1.0, 0.7, 0.9]) * (1 + growth * step)
            cross = {"cross_gram_ww": a, "cross_gram_wl": b, "cross_gram_ll": c} if step % 5 == 0 else {}
            geometry = geometry_table(rng, ids, step) if cross else None
            if step == 0:
                writer.append(0, metrics=cross, probe=probe_rows(*probe), geometry=geometry)
                continue
            a, b, c = np.array([1.0, 0.7, 0.9]) * (1 + growth * (step - 1))
            batch = rng.choice(40, 8, replace=False)
            w_w, w_l = goal.weights(*train[:, batch])
            norm = 0.5 + rng.random()
            eta = 0.05 * min(1, clip / norm)
            rows = {
                "pair_id": [trained[i] for i in batch for _ in "wl"],
                "response": ["chosen", "rejected"] * 8,
                "logp_sum": TOKENS * train[:, batch].T.ravel(),
                "ref_logp_sum": [None] * 16,
                "num_tokens": [TOKENS] * 16,
            }
            common = eta * np.array([w_w.mean() * a - w_l.mean() * b, w_w.mean() * b - w_l.mean() * c])
            probe, train = probe + common[:, None], train + common[:, None]
            train[:, batch] += eta * np.stack([w_w, -w_l]) / 8  # what is the pair's own
            metrics = {"loss": 1.0, "learning_rate": 0.05, "grad_norm": norm, **cross}
            writer.append(step, metrics=metrics, train=rows, probe=probe_rows(*probe), geometry=geometry)
    manifest(folder, max_grad_norm=clip)
    stated = {"name": "alphapo", "parameters": {**ALPHAPO["parameters"], "alpha": alpha}}
    written = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**written, "objective": stated}))


@pytest.mark.parametrize(("growth", "clip"), [(0.0, 1e9), (0.1, 1e9), (0.1, 0.7)])
def test_split_accounts_for_all_movement_of_a_linear_world(tmp_path, growth, clip):
    linear_world(tmp_path, growth=growth, clip=clip)
    split = movement_split(read_trace(tmp_path))
    assert split["measured"].abs().max() > 0.02
    np.testing.assert_allclose(split["rest"], 0, atol=1e-8)
    parts = split[["straight", "shape", "drift"]].sum(axis=1)
    np.testing.assert_allclose(parts, split["measured"], atol=1e-8)
    assert (split["drift"].abs().max() < 1e-12) == (growth == 0)


def test_a_straight_shape_has_no_shape_part(tmp_path):
    linear_world(tmp_path / "simpo", growth=0.1, alpha=0.0)
    linear_world(tmp_path / "alpha", growth=0.1, alpha=2.0)
    simpo, alpha = (movement_split(read_trace(tmp_path / name)) for name in ("simpo", "alpha"))
    np.testing.assert_allclose(simpo["shape"], 0, atol=1e-15)
    assert alpha["shape"].abs().max() > 0.01


def test_from_one_checkpoint_the_straight_parts_differ_by_the_clocks_alone(tmp_path):
    linear_world(tmp_path / "run=1", growth=0.0, clip=1e9)
    linear_world(tmp_path / "run=2", growth=0.2, clip=0.6, alpha=0.5)
    first, second = (
        rows.query("response == 'chosen' and step > 0")
        for _, rows in movement_split(read_trace(tmp_path)).groupby("run")
    )
    ratio = second["straight"].to_numpy() / first["straight"].to_numpy()
    np.testing.assert_allclose(ratio, second["clock"].to_numpy() / first["clock"].to_numpy(), rtol=1e-9)
    assert np.ptp(ratio) > 0.01


def test_runs_that_cannot_be_explained_say_why(tmp_path, write_run):
    bare = write_run(
        tmp_path / "bare", {k: np.full((3, 2), -4.0) for k in ("chosen", "rejected")},
        num_tokens={k: [4, 4] for k in ("chosen", "rejected")},
    )  # fmt: skip
    for function in (predictions, fall_condition, movement_split):
        with pytest.raises(InputError, match="--geometry-every K"):
            function(read_trace(bare))
    linear_world(tmp_path / "adam", growth=0.0)
    manifest(tmp_path / "adam", optimizer="adamw_torch")
    with pytest.raises(InputError, match=r"optimised by adamw_torch.*--optimizer sgd"):
        movement_split(read_trace(tmp_path / "adam"))

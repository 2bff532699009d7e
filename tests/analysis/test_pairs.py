"""The pairs of a probe set: their ranks against what was put there, their correlations against scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rewardshape.analysis import (
    falling_pairs,
    pair_correlations,
    pairs_table,
)
from rewardshape.analysis.pairs import edit_distance
from rewardshape.trace import read_trace
from tests.analysis.test_displacement import PAIRS, run_of


def slow_edit_distance(first, second):
    """The textbook recursion, cell by cell."""
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    table[:, 0], table[0, :] = np.arange(len(first) + 1), np.arange(len(second) + 1)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = min(table[i, j] + (a != b), table[i, j + 1] + 1, table[i + 1, j] + 1)
    return table[-1, -1]


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_edit_distance_matches_the_textbook_recursion(first, second):
    assert edit_distance(first, second) == slow_edit_distance(first, second)


def test_pairs_are_ranked_by_how_far_they_fell(write_run, tmp_path, level, rng):
    fall = rng.permutation(np.linspace(-1, 0.2, PAIRS))
    texts = [
        {
            "pair_id": f"pairs.jsonl:{i + 1}",
            "prompt": "p",
            "responses": {"chosen": "a b", "rejected": "a c c"},
            "tokens": {"chosen": ["a", "b"], "rejected": ["a", "c", "c"]},
        }
        for i in range(PAIRS)
    ]
    geometry = {0: {"pair_id": [t["pair_id"] for t in texts], "ches": (-10 * fall).tolist()}}
    moves = np.stack([np.zeros(PAIRS), fall])
    trace = run_of(write_run, tmp_path / "run", level, moves, texts=texts, geometry=geometry)
    pairs = pairs_table(trace)
    assert pairs["rank"].tolist() == list(range(1, PAIRS + 1))
    assert pairs["pair_id"].iloc[0] == f"pairs.jsonl:{fall.argmin() + 1}"
    assert pairs["chosen_change"].is_monotonic_increasing
    assert pairs["fallen"].sum() == (fall < 0).sum()
    assert (pairs["edit_distance"] == 2).all()
    assert pairs["similarity"].iloc[0] == pytest.approx(1 / 3)
    np.testing.assert_allclose(pairs["ches"], -10 * pairs["chosen_change"], atol=1e-8)


def test_a_pair_whose_end_is_no_number_has_not_fallen_nor_not(write_run, tmp_path, level):
    fall = np.where(np.arange(PAIRS) == 3, np.nan, np.where(np.arange(PAIRS) % 2, -0.1, 0.1))
    pairs = pairs_table(run_of(write_run, tmp_path / "run", level, np.stack([0 * fall, fall])))
    assert pairs.loc[pairs["fallen"].isna(), "pair_id"].tolist() == ["pairs.jsonl:4"]
    assert pairs["fallen"].sum() == PAIRS // 2 - 1


def test_rank_correlations_are_those_of_scipy_with_an_interval_around_them(rng):
    x = rng.normal(size=80)
    pairs = pd.DataFrame(
        {"run": "r", "chosen_change": -x + rng.normal(size=80), "chosen_sum_change": rng.normal(size=80)}
    )
    pairs["ches"], pairs["chosen_tokens"] = x, 5  # the constant descriptor has no rank correlation
    table = pair_correlations(pairs)
    assert table["descriptor"].unique().tolist() == ["ches"]
    per_token = table.set_index("change").loc["chosen_change"]
    truth = stats.spearmanr(x, pairs["chosen_change"])
    assert per_token["rho"] == pytest.approx(truth.statistic)
    theirs = stats.bootstrap(
        (x, pairs["chosen_change"].to_numpy()),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert per_token["rho_low"] == pytest.approx(theirs.low, abs=1e-9)
    assert per_token["rho_high"] == pytest.approx(theirs.high, abs=1e-9)


def test_pairs_of_one_prompt_that_say_the_same_make_no_correlation_surer(rng):
    x = rng.normal(size=30)
    pairs = pd.DataFrame(
        {"run": "r", "prompt": range(30), "ches": x, "chosen_change": -x + rng.normal(size=30)}
    )
    pairs["chosen_sum_change"] = pairs["chosen_change"]
    copies = pd.concat([pairs] * 4, ignore_index=True)
    one, four = (pair_correlations(table).iloc[0] for table in (pairs, copies))
    assert four["num_pairs"] == 120
    for name in ("rho", "rho_low", "rho_high"):
        assert four[name] == pytest.approx(one[name], abs=1e-9)


def test_what_other_runs_alone_have_measured_hides_nothing(write_run, tmp_path, level, rng):
    """The longer the chosen response, the deeper the fall, said of a run without geometry beside one with it."""
    fall = rng.permutation(np.linspace(-1, -0.1, PAIRS))
    moves = np.stack([np.zeros(PAIRS), fall])
    ids = [f"pairs.jsonl:{i + 1}" for i in range(PAIRS)]
    geometry = {0: {"pair_id": ids, "ches": rng.normal(size=PAIRS).tolist()}}
    tokens = {"chosen": (-100 * fall).round(), "rejected": np.full(PAIRS, 20)}
    for name, measured in (("with", geometry), ("without", None)):
        sums = {side: level[side] + moves * tokens[side] for side in tokens}
        write_run(tmp_path / name, sums, num_tokens=tokens, geometry=measured)
    pairs = pairs_table(read_trace(tmp_path))
    for name in ("with", "without"):
        told = falling_pairs(pairs[pairs["run"] == name]).query("told").set_index("descriptor")
        assert told.loc["chosen_tokens", "rho"] == pytest.approx(-1)


def test_a_printed_table_shows_the_pair_its_change_and_its_run():
    """As `print` shows it where the terminal is narrow: of 26 columns the first two and the last two."""
    table = pairs_table(read_trace(Path(__file__).parents[2] / "figures" / "runs" / "polite"))
    head = table.head().to_string(max_cols=4).splitlines()[0].split()
    assert head[:2] == ["pair_id", "chosen_change"]
    assert head[-1] == "run"


def test_one_prompt_has_no_interval_of_a_correlation(rng):
    pairs = pd.DataFrame(
        {"run": "a", "prompt": 0, "chosen_tokens": np.arange(20), "chosen_change": -np.arange(20.0)}
    ).assign(chosen_sum_change=lambda table: table["chosen_change"])
    found = pair_correlations(pairs)
    assert (found["rho"] == -1).all()
    assert found[["rho_low", "rho_high"]].isna().all(axis=None)

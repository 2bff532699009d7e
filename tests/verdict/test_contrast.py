"""The best of several settings against the worst: against scipy's Tukey test, and on sweeps whose courses are known."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from scipy import stats

from rewardshape.analysis.resampling import resampled_means
from rewardshape.trace import read_trace
from rewardshape.verdict.contrast import range_over_resamples, range_over_seeds
from rewardshape.verdict.findings import Tables, findings

PAIRS = 24
TOKENS = {"chosen": np.full(PAIRS, 10), "rejected": np.full(PAIRS, 10)}


def test_two_settings_over_seeds_are_a_paired_t_test(rng):
    values = rng.normal(size=(6, 2)) + np.array([0.0, 0.8])
    found, theirs = range_over_seeds(values[:, None]), stats.ttest_rel(values[:, 1], values[:, 0])
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-6)
    low, high = sorted(np.abs(theirs.confidence_interval()))
    assert sorted(np.abs([found.low[0], found.high[0]])) == pytest.approx([low, high], rel=1e-3)


def test_several_values_are_told_apart_as_if_each_had_its_share_of_the_chance(rng):
    """Four values, at the second of which one setting stands apart; the third setting ends before the third value."""
    values = rng.normal(size=(6, 4, 3)) + np.array([0.0, 4.0, 0.5, 0.0])[:, None] * [1, 0, 0]
    values[:, 2:, 2] = np.nan
    found, alone = range_over_seeds(values), stats.ttest_rel(values[:, 2, 0], values[:, 2, 1])
    assert (found.best, found.place) == (0, 1)
    at_two = range_over_seeds(values[:, 2:3, :2])
    assert at_two.p_value == pytest.approx(alone.pvalue, rel=1e-6)
    assert found.p_value == pytest.approx(4 * range_over_seeds(values[:, 1:2]).p_value, rel=1e-9)
    assert found.high[1] - found.low[1] > np.ptp(
        [*range_over_seeds(values[:, 1:2]).low, *range_over_seeds(values[:, 1:2]).high]
    )
    assert np.isnan(found.difference[2:]).all() == (found.worst == 2)


def test_the_range_of_resampled_means_is_that_of_two_paired_means(rng):
    pairs = rng.normal(size=(400, 2)) + np.array([0.0, 0.2])
    counts = rng.multinomial(400, np.full(400, 1 / 400), 4000)
    drawn = np.vstack([pairs.mean(axis=0), counts @ pairs / 400])[:, None]
    found, theirs = range_over_resamples(drawn, 400), stats.ttest_rel(pairs[:, 1], pairs[:, 0])
    assert found.p_value == pytest.approx(theirs.pvalue, abs=0.02)
    assert found.difference[0] == pytest.approx(theirs.statistic * stats.sem(pairs[:, 1] - pairs[:, 0]))


def test_all_differences_of_few_pairs_keep_to_their_chance(rng):
    """Six settings that are the same, over sixteen pairs: said to differ in 5 % of worlds."""
    told = 0
    for _ in range(200):
        values = rng.normal(size=16) + rng.normal(size=(6, 16))
        drawn = np.vstack([values.mean(axis=1), resampled_means(values)])[:, None]
        told += range_over_resamples(drawn, 16).p_value <= 0.05
    assert told <= stats.binom.ppf(0.995, 200, 0.05)


def write(write_run, folder, alpha, fall, *, seed=0, wild=0.0, gain=0.05):
    """Chosen falls by `fall` a step, the margin gains `gain`; `wild`: one pair whose chosen response runs away."""
    pace = np.random.default_rng(3).uniform(0.8, 1.2, PAIRS)
    at = np.arange(11)[:, None]
    sums = {"chosen": -20 - 10 * at * fall * pace, "rejected": -20 - 10 * at * (fall + gain) * pace}
    sums["chosen"][:, 0] -= wild * at[:, 0]
    stated = {"name": "alphapo", "parameters": {"alpha": alpha, "beta": 2.5, "gamma": 0.5}}
    return write_run(folder, sums, num_tokens=TOKENS, objective=stated, run={"seed": seed})


def test_a_run_carried_by_one_pair_is_named_and_neither_compared_nor_recommended(write_run, tmp_path):
    for alpha, fall, wild in ((0.0, 0.03, 0), (0.25, 0.02, 0), (1.0, 0.005, 20)):
        write(write_run, tmp_path / f"alpha={alpha:g}", alpha, fall, wild=wild)
    trace = read_trace(tmp_path)
    verdict = Tables(trace).verdicts["alpha=1"]
    assert verdict.evidence.learning.carried.pair_id == "pairs.jsonl:1"
    assert "carried by single pairs" in " ".join(verdict.to_dict()["story"])
    assert "pairs.jsonl:1" in " ".join(verdict.advice)
    found = findings(trace)
    assert "α = 1 is not compared: it is carried by single pairs" in found.sentence
    assert not any("--alpha 1 " in line for line in found.advice)
    assert found.advice[0].startswith(
        "Look at pair pairs.jsonl:1 before all else: α = 1 is carried by it. Clip the "
    )
    tables = Tables(trace)
    assert set(tables.along("logp_margin")["setting"]) == {"alpha=0", "alpha=0.25"}
    assert list(tables.left_out) == ["alpha=1"]


def test_advice_never_goes_beyond_the_values_tried(write_run, tmp_path):
    for alpha, fall in ((-0.5, 0.01), (0.0, 0.02), (0.25, 0.03)):
        write(write_run, tmp_path / f"alpha={alpha:g}", alpha, fall)
    advice = findings(read_trace(tmp_path)).advice
    assert "α = −0.5 paid least for its margin and is the smallest of the α compared" in advice[0]
    assert "--alpha -0.25" in advice[0]


def test_every_setting_is_compared_to_where_it_got(write_run, tmp_path):
    """α = 1 ends its way at half the margin, and does not decide how far the others are compared."""
    for alpha, fall, gain in ((0.0, 0.03, 0.05), (0.25, 0.02, 0.05), (1.0, 0.01, 0.025)):
        write(write_run, tmp_path / f"alpha={alpha:g}", alpha, fall, gain=gain)
    compared = Tables(read_trace(tmp_path)).contrast
    assert compared.left_out == {}
    top = 0.9 * 10 * 0.05
    np.testing.assert_allclose(compared.margins, top * np.arange(1, 5) / 4, rtol=0.03)
    assert (compared.best, compared.worst, compared.found.place) == ("alpha=0.25", "alpha=0", 3)
    # At a gain of g a setting has taken g / gain steps, and fallen by so many times its fall: 0.2 g apart.
    np.testing.assert_allclose(compared.found.difference, 0.2 * compared.margins, rtol=0.05)
    assert compared.settings["setting"].tolist() == ["alpha=0", "alpha=0.25"]


def test_a_run_that_gained_no_margin_is_left_out(write_run, tmp_path):
    for alpha, fall, gain in ((0.0, 0.03, 0.05), (0.25, 0.02, 0.05), (1.0, 0.0, 0.001)):
        write(write_run, tmp_path / f"alpha={alpha:g}", alpha, fall, gain=gain)
    assert Tables(read_trace(tmp_path)).contrast.left_out == {"alpha=1": "its margin gained too little"}


def test_over_seeds_the_sentence_goes_along_the_margins(write_run, tmp_path, rng):
    for seed in range(4):
        for alpha, fall in ((0.0, 0.03), (0.25, 0.02)):
            jitter = float(rng.normal(0, 0.0005))
            write(write_run, tmp_path / f"alpha={alpha:g}-seed={seed}", alpha, fall + jitter, seed=seed)
    found = findings(read_trace(tmp_path))
    assert "At equal margin α = 0.25 keeps the chosen responses above α = 0: by +" in found.sentence
    assert found.sentence.count("at a gain of") == 4
    assert "95 % intervals over 4 seeds" in found.sentence


def test_a_setting_that_collapsed_is_not_recommended_for_what_it_was_before(write_run, tmp_path):
    """α = 1 keeps chosen highest while its margin grows, and then loses the margin and the pairs' order."""
    write(write_run, tmp_path / "alpha=0", 0.0, 0.03)
    write(write_run, tmp_path / "alpha=0.25", 0.25, 0.02)
    folder = write(write_run, tmp_path / "alpha=1", 1.0, 0.005)
    assert Tables(read_trace(tmp_path)).contrast.best == "alpha=1"
    at, pace = np.arange(11)[:, None], np.random.default_rng(3).uniform(0.8, 1.2, PAIRS)
    gain = np.where(at < 9, 0.05 * at, -0.4)
    sums = {
        "chosen": -20 - 10 * (0.005 * at + (at >= 9)) * pace,
        "rejected": -20 - 10 * (0.005 * at + gain) * pace,
    }
    sums["chosen"][9:] -= 5
    stated = {"name": "alphapo", "parameters": {"alpha": 1.0, "beta": 2.5, "gamma": 0.5}}
    shutil.rmtree(folder)
    write_run(folder, sums, num_tokens=TOKENS, objective=stated, run={"seed": 0})
    found = Tables(read_trace(tmp_path))
    assert found.verdicts["alpha=1"].word == "collapsed"
    assert found.contrast.left_out == {"alpha=1": "it is collapsed"}
    assert found.contrast.best == "alpha=0.25"

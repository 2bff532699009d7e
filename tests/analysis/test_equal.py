"""Runs of a sweep where they have come equally far: courses are straight lines, so every crossing is known by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rewardshape.analysis import compare_along, compare_at_equal
from rewardshape.errors import InputError
from rewardshape.trace import read_trace
from tests.analysis.test_comparison import LEVEL, PAIRS, TOKENS, write_line


@pytest.fixture
def sweep(write_run, tmp_path):
    """α = 0 gains 0.04 nats per token a step and falls by 0.02; α = 1 gains 0.02 and falls by 0.015."""
    rows = {
        step: {
            "prompt_id": ["a", "b"],
            "logp_sum": [-5.0, -6.0],
            "ref_logp_sum": [-5.0 - kl, -6.0 - kl],
            "gold": [kl, 1],
        }
        for step, kl in ((0, 0.0), (10, 1.0), (20, 2.0))
    }
    write_line(write_run, tmp_path / "alpha=0", -0.02, -0.06, alpha=0.0, samples=rows)
    write_line(write_run, tmp_path / "alpha=1", -0.015, -0.035, alpha=1.0, samples=rows)
    return read_trace(tmp_path)


def test_equal_margin_interpolates_to_the_first_crossing(sweep):
    table = compare_at_equal(sweep, "logp_margin", 0.3).set_index("alpha")
    np.testing.assert_allclose(table["step"], [7.5, 15], atol=1e-6)
    np.testing.assert_allclose(table["chosen_change"], [-0.15, -0.225], atol=1e-6)
    np.testing.assert_allclose(table["logp_margin_gain"], 0.3, atol=1e-6)
    np.testing.assert_allclose(table["chosen_change_low"], table["chosen_change"], atol=1e-6)
    np.testing.assert_allclose(table["gold"], [(0.75 + 1) / 2, (1.5 + 1) / 2], atol=1e-6)


def test_a_value_out_of_reach_is_said_and_not_guessed(sweep):
    table = compare_at_equal(sweep, "logp_margin", 0.6).set_index("alpha")
    assert table["reached"].tolist() == [True, False]
    assert np.isnan(table.loc[1.0, "chosen_change"])


def test_equal_step_and_equal_kl(sweep):
    at_step = compare_at_equal(sweep, "step", 20).set_index("alpha")
    np.testing.assert_allclose(at_step["chosen_change"], [-0.4, -0.3], atol=1e-6)
    at_kl = compare_at_equal(sweep, "kl", 0.5)
    np.testing.assert_allclose(at_kl["step"], 5, atol=1e-9)
    np.testing.assert_allclose(at_kl["kl"], 0.5, atol=1e-9)


def test_each_resample_finds_its_own_crossing(write_run, tmp_path, rng):
    """Pairs that gain at different speeds: against a plain loop over resamples."""
    speed = rng.uniform(0.01, 0.07, PAIRS)
    at = np.arange(21)[:, None]
    sums = {"chosen": LEVEL - 0.1 * at * np.ones(PAIRS), "rejected": LEVEL - 10 * at * speed}
    write_run(tmp_path / "alpha=0", sums, num_tokens=TOKENS)
    row = compare_at_equal(read_trace(tmp_path), "logp_margin", 0.3).iloc[0]
    draws = np.random.default_rng(0).integers(0, PAIRS, (2000, PAIRS))
    falls = [-0.01 * min(0.3 / (speed[draw].mean() - 0.01), 20) for draw in draws]
    tail = stats.norm.cdf(-np.sqrt(PAIRS / (PAIRS - 1)) * stats.t.ppf(0.975, PAIRS - 1))
    assert row["chosen_change_low"] == pytest.approx(np.quantile(falls, tail), rel=1e-6)
    assert row["chosen_change_high"] == pytest.approx(np.quantile(falls, 1 - tail), rel=1e-6)


def test_the_interval_at_equal_margin_holds_the_truth_over_32_prompts(write_run, tmp_path, rng):
    """Chosen falls and the gap grows at speeds of each pair's own: at a gain of 0.3 the truth is −0.3 · 0.01/0.03."""
    held = []
    steps = np.arange(21)[:, None]
    for number in range(200):
        falls, gaps = rng.normal(0.01, 0.01, 32), rng.normal(0.03, 0.02, 32)
        chosen = -10 - 4 * falls * steps
        sums = {"chosen": chosen, "rejected": chosen - 4 * gaps * steps}
        tokens = {name: np.full(32, 4) for name in sums}
        folder = write_run(tmp_path / str(number), sums, num_tokens=tokens)
        row = compare_at_equal(read_trace(folder), "logp_margin", 0.3).iloc[0]
        held.append(row["chosen_change_low"] <= -0.1 <= row["chosen_change_high"])
    assert 0.90 <= np.mean(held) <= 0.99  # 3 standard errors of 200 about 0.95


def test_difference_from_the_baseline_is_paired(write_run, tmp_path, rng):
    """Both runs share the noise of their pairs, so the difference is sharper than either change."""
    noise = rng.normal(0, 0.01, PAIRS)
    for alpha, fall in ((0.0, -0.02), (1.0, -0.03)):
        write_line(write_run, tmp_path / f"alpha={alpha:g}", fall, fall - 0.04, noise=noise, alpha=alpha)
    table = compare_at_equal(read_trace(tmp_path), "logp_margin", 0.4, baseline="alpha=0").set_index("alpha")
    assert table.loc[0.0, ["difference", "difference_low", "difference_high"]].tolist() == [0, 0, 0]
    assert table.loc[1.0, "difference"] == pytest.approx(-0.1, abs=1e-6)
    assert table.loc[1.0, "difference_low"] == pytest.approx(-0.1, abs=1e-6)
    assert table.loc[1.0, "chosen_change_high"] - table.loc[1.0, "chosen_change_low"] > 0.03


def test_seeds_may_have_probe_sets_of_their_own_and_one_seed_may_not(write_run, tmp_path):
    for seed in (0, 1):
        ids = [f"seed {seed}, {i}" for i in range(PAIRS)]
        for alpha, fall in ((0.0, -0.02), (1.0, -0.015)):
            place = tmp_path / "sweep" / f"alpha={alpha:g}-seed={seed}"
            write_line(write_run, place, fall, -0.06, alpha=alpha, seed=seed, pair_ids=ids)
    trace = read_trace(tmp_path / "sweep")
    table = compare_at_equal(trace, "step", 10, baseline="alpha=0").query("alpha == 1")
    np.testing.assert_allclose(table["difference"], 10 * 0.005, atol=1e-6)
    assert table["seed"].tolist() == [0, 1]
    with pytest.raises(InputError, match="different probe pairs"):  # one run cannot stand for another's pairs
        compare_at_equal(trace, "step", 10, baseline="alpha=0-seed=0")


def test_unknown_or_unreaching_baseline_is_refused(sweep):
    with pytest.raises(InputError, match="there are alpha=0, alpha=1"):
        compare_at_equal(sweep, "step", 20, baseline="alpha=7")
    with pytest.raises(InputError, match="never reaches"):
        compare_at_equal(sweep, "logp_margin", 0.6, baseline="alpha=1")


def test_equal_kl_needs_samples(write_run, tmp_path):
    write_line(write_run, tmp_path / "alpha=0", -0.02, -0.05)
    with pytest.raises(InputError, match="--sample-every"):
        compare_at_equal(read_trace(tmp_path), "kl", 1.0)


def test_unknown_axis_is_refused(sweep):
    with pytest.raises(InputError, match="choose logp_margin, kl or step"):
        compare_at_equal(sweep, "time", 1.0)


def test_a_curve_takes_every_run_to_where_it_got(sweep):
    table = compare_along(sweep, "logp_margin", baseline="alpha=0", points=9)
    furthest = table.groupby("alpha")["value"].max()
    assert furthest[0.0] == pytest.approx(20 * 0.04)
    assert furthest[1.0] == pytest.approx(20 * 0.02)
    np.testing.assert_allclose(table["logp_margin_gain"], table["value"], atol=1e-9)
    rows = table[table["alpha"] == 1.0]
    np.testing.assert_allclose(rows["difference"], rows["value"] * (0.02 / 0.04 - 0.015 / 0.02), atol=1e-6)


@pytest.mark.parametrize("axis", ["logp_margin", "kl", "step"])
def test_a_run_that_broke_reaches_nothing_and_spoils_no_other(write_run, tmp_path, sweep, axis):
    noise = np.where(np.arange(21) == 20, np.nan, 0.0)[:, None]
    samples = {
        step: {"prompt_id": ["a"], "logp_sum": [-5.0], "ref_logp_sum": [-5.0 - kl], "gold": [0.5]}
        for step, kl in ((0, 0.0), (20, 2.0))
    }
    write_line(write_run, tmp_path / "alpha=2", -0.02, -0.06, noise=noise, alpha=2.0, samples=samples)
    broken = read_trace(tmp_path)
    pd.testing.assert_frame_equal(compare_along(broken, axis, points=5), compare_along(sweep, axis, points=5))
    assert compare_at_equal(broken, axis, 0.3)["reached"].tolist() == [True, True, False]
    with pytest.raises(InputError, match="every run broke"):
        compare_along(broken.run("alpha=2"), axis)


def test_the_kl_that_is_set_equal_is_the_same_in_every_row(write_run, tmp_path, rng):
    """Samples at other steps than the probe's, and a KL that is noisy: equal to 1e-9 all the same."""
    for alpha, scale in ((0.0, 1.0), (1.0, 0.8)):
        rows = {}
        for step in (0, 3, 7, 11, 20):
            kl = scale * 0.1 * step * (1 + 0.2 * rng.normal(size=12))
            rows[step] = {
                "prompt_id": list("abcdefghijkl"), "logp_sum": [-5.0] * 12, "ref_logp_sum": (-5.0 - kl).tolist(),
                "gold": [0.5] * 12,
            }  # fmt: skip
        write_line(write_run, tmp_path / f"alpha={alpha:g}", -0.02, -0.06, alpha=alpha, samples=rows)
    table = compare_at_equal(read_trace(tmp_path), "kl", 1.2)
    np.testing.assert_allclose(table["kl"], table["value"], rtol=0, atol=1e-9)
    width = table["chosen_change_high"] - table["chosen_change_low"]
    assert (width > 1e-3).all()  # the pairs are all alike: what is uncertain is the KL

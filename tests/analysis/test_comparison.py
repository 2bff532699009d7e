"""Comparisons of runs whose courses are straight lines, so every crossing is known by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rewardshape.analysis import compare, compare_along, compare_at_equal, over_seeds
from rewardshape.analysis.resampling import mean_interval
from rewardshape.errors import InputError
from rewardshape.trace import read_trace

PAIRS = 50
TOKENS = {"chosen": np.full(PAIRS, 10), "rejected": np.full(PAIRS, 10)}
LEVEL = np.linspace(-20, -10, PAIRS)


def write_line(write_run, folder, chosen, rejected, *, noise=0.0, steps=21, alpha=0.0, seed=0, **more):
    """A run whose responses move by `chosen` and `rejected` nats per token a step (plus `noise` per pair)."""
    at = np.arange(steps)[:, None]
    sums = {"chosen": LEVEL + 10 * at * (chosen + noise), "rejected": LEVEL + 10 * at * (rejected + noise)}
    stated = {"name": "alphapo", "parameters": {"alpha": alpha, "beta": 2.5, "gamma": 0.5}}
    return write_run(folder, sums, num_tokens=TOKENS, objective=stated, run={"seed": seed}, **more)


def test_paired_difference_cancels_what_pairs_have_in_common(write_run, tmp_path, rng):
    noise = rng.normal(0, 0.5, PAIRS)
    first = read_trace(write_line(write_run, tmp_path / "a", -0.02, -0.05, noise=noise))
    second = read_trace(write_line(write_run, tmp_path / "b", -0.03, -0.05, noise=noise))
    table = compare(first, second).query("response == 'chosen'").set_index("step")
    np.testing.assert_allclose(table["difference"], -0.01 * table.index, atol=1e-8)
    assert table.loc[20, "difference_high"] == pytest.approx(-0.2, abs=1e-6)  # no spread is left
    assert table.loc[20, "share_lower"] == 1


def test_paired_difference_has_the_interval_of_its_pairs(write_run, tmp_path, rng):
    noise = rng.normal(0, 0.1, PAIRS)
    first = read_trace(write_line(write_run, tmp_path / "a", -0.02, -0.05))
    second = read_trace(write_line(write_run, tmp_path / "b", -0.03, -0.05, noise=noise))
    last = compare(first, second).query("response == 'chosen' and step == 20").iloc[0]
    low, high = mean_interval(20 * (noise - 0.01)[None])
    assert (last["difference_low"], last["difference_high"]) == pytest.approx((low[0], high[0]), abs=1e-6)


def test_runs_without_a_common_pair_are_refused(write_run, tmp_path):
    ids = [f"other:{i}" for i in range(PAIRS)]
    first = read_trace(write_line(write_run, tmp_path / "a", -0.02, -0.05))
    second = read_trace(write_line(write_run, tmp_path / "b", -0.02, -0.05, pair_ids=ids))
    with pytest.raises(InputError, match="share no probe pair"):
        compare(first, second)


def test_a_sweep_is_not_one_run(write_run, tmp_path):
    for name in ("alpha=0", "alpha=1"):
        write_line(write_run, tmp_path / name, -0.02, -0.05)
    sweep = read_trace(tmp_path)
    with pytest.raises(InputError, match="holds 2 runs"):
        compare(sweep, sweep)


@pytest.fixture
def sweep(write_run, tmp_path):
    """α = 0 gains 0.04 nats per token a step and falls by 0.02; α = 1 gains 0.02 and falls by 0.015."""
    rows = {
        step: {
            "prompt_id": [0, 1],
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


def test_common_value_is_within_reach_of_every_run(sweep):
    table = compare_at_equal(sweep, "logp_margin")
    assert table["value"].iloc[0] == pytest.approx(0.9 * 20 * 0.02)
    assert table["reached"].all()


def test_a_value_out_of_reach_is_said_and_not_guessed(sweep):
    table = compare_at_equal(sweep, "logp_margin", 0.6).set_index("alpha")
    assert table["reached"].tolist() == [True, False]
    assert np.isnan(table.loc[1.0, "chosen_change"])


def test_equal_step_and_equal_kl(sweep):
    at_step = compare_at_equal(sweep, "step").set_index("alpha")
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
    assert row["chosen_change_low"] == pytest.approx(np.quantile(falls, 0.025), rel=1e-6)
    assert row["chosen_change_high"] == pytest.approx(np.quantile(falls, 0.975), rel=1e-6)


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


def test_unknown_or_unreaching_baseline_is_refused(sweep):
    with pytest.raises(InputError, match="there are alpha=0, alpha=1"):
        compare_at_equal(sweep, "step", baseline="alpha=7")
    with pytest.raises(InputError, match="never reaches"):
        compare_at_equal(sweep, "logp_margin", 0.6, baseline="alpha=1")


def test_equal_kl_needs_samples(write_run, tmp_path):
    write_line(write_run, tmp_path / "alpha=0", -0.02, -0.05)
    with pytest.raises(InputError, match="--sample-every"):
        compare_at_equal(read_trace(tmp_path), "kl")


def test_unknown_axis_is_refused(sweep):
    with pytest.raises(InputError, match="choose logp_margin, kl or step"):
        compare_at_equal(sweep, "time")


def test_seeds_are_averaged_and_matched_with_the_baseline(write_run, tmp_path):
    for seed, shift in enumerate((-0.01, 0.0, 0.02)):
        for alpha, fall in ((0.0, -0.02), (0.25, -0.015)):
            name = f"alpha={alpha}-seed={seed}"
            write_line(write_run, tmp_path / name, fall + shift, -0.06 + shift, alpha=alpha, seed=seed)
    rows = compare_at_equal(read_trace(tmp_path), "step")
    table = over_seeds(rows).set_index("setting")
    falls = 20 * (-0.02 + np.array([-0.01, 0.0, 0.02]))
    theirs = stats.ttest_1samp(falls, 0).confidence_interval()
    assert table.loc["alpha=0", "chosen_change"] == pytest.approx(falls.mean(), abs=1e-6)
    assert table.loc["alpha=0", "chosen_change_low"] == pytest.approx(theirs.low, abs=1e-6)
    matched = over_seeds(rows, baseline="alpha=0").set_index("setting").loc["alpha=0.25"]
    assert matched["chosen_change"] == pytest.approx(0.1, abs=1e-6)  # the seeds' shifts cancel
    assert matched["chosen_change_high"] == pytest.approx(0.1, abs=1e-6)


def test_unknown_baseline_is_refused():
    rows = pd.DataFrame(
        {
            "run": ["a"],
            "setting": "alpha=0",
            "alpha": 0.0,
            "seed": 0,
            "reached": True,
            "chosen_change": 1.0,
        }
    )
    with pytest.raises(InputError, match="there are alpha=0"):
        over_seeds(rows, baseline="alpha=9")


def test_a_curve_takes_every_run_to_where_it_got(sweep):
    table = compare_along(sweep, "logp_margin", baseline="alpha=0", points=9)
    furthest = table.groupby("alpha")["value"].max()
    assert furthest[0.0] == pytest.approx(20 * 0.04)
    assert furthest[1.0] == pytest.approx(20 * 0.02)
    np.testing.assert_allclose(table["logp_margin_gain"], table["value"], atol=1e-9)
    rows = table[table["alpha"] == 1.0]
    np.testing.assert_allclose(rows["difference"], rows["value"] * (0.02 / 0.04 - 0.015 / 0.02), atol=1e-6)


def test_the_kl_that_is_set_equal_is_the_same_in_every_row(write_run, tmp_path, rng):
    """Samples at other steps than the probe's, and a KL that is noisy: equal to 1e-9 all the same."""
    for alpha, scale in ((0.0, 1.0), (1.0, 0.8)):
        rows = {}
        for step in (0, 3, 7, 11, 20):
            kl = scale * 0.1 * step * (1 + 0.2 * rng.normal(size=12))
            rows[step] = {
                "prompt_id": list(range(12)), "logp_sum": [-5.0] * 12, "ref_logp_sum": (-5.0 - kl).tolist(),
                "gold": [0.5] * 12,
            }  # fmt: skip
        write_line(write_run, tmp_path / f"alpha={alpha:g}", -0.02, -0.06, alpha=alpha, samples=rows)
    table = compare_at_equal(read_trace(tmp_path), "kl")
    np.testing.assert_allclose(table["kl"], table["value"], rtol=0, atol=1e-9)
    width = table["chosen_change_high"] - table["chosen_change_low"]
    assert (width > 1e-3).all()  # the pairs are all alike: what is uncertain is the KL


def test_differences_from_a_setting_are_paired_by_seed(write_run, tmp_path):
    """Every seed falls by its own amount, and α = 0.25 always by 0.005 less: the seeds agree to the last digit."""
    for seed, shift in enumerate((-0.01, 0.02)):
        for alpha, fall in ((0.0, -0.03), (0.25, -0.025)):
            name = f"alpha={alpha}-seed={seed}"
            write_line(write_run, tmp_path / name, fall + shift, -0.09 + shift, alpha=alpha, seed=seed)
    table = over_seeds(compare_at_equal(read_trace(tmp_path), "step", baseline="alpha=0")).set_index(
        "setting"
    )
    row = table.loc["alpha=0.25"]
    assert row["difference"] == pytest.approx(0.1, abs=1e-6)
    assert row["difference_high"] - row["difference_low"] < 1e-6
    assert row["seeds_agreeing"] == 2

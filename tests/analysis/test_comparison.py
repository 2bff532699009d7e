"""Comparisons of runs whose courses are straight lines, so every crossing is known by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rewardshape.analysis import (
    compare,
    compare_along,
    compare_at_equal,
    difference_curves,
    over_seeds,
    settings_along,
)
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


def test_seeds_are_averaged_and_matched_with_the_baseline(write_run, tmp_path):
    for seed, shift in enumerate((-0.01, 0.0, 0.02)):
        for alpha, fall in ((0.0, -0.02), (0.25, -0.015)):
            name = f"alpha={alpha}-seed={seed}"
            write_line(write_run, tmp_path / name, fall + shift, -0.06 + shift, alpha=alpha, seed=seed)
    rows = compare_at_equal(read_trace(tmp_path), "step", 20)
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


def test_differences_from_a_setting_are_paired_by_seed(write_run, tmp_path):
    """Every seed falls by its own amount, and α = 0.25 always by 0.005 less: the seeds agree to the last digit."""
    for seed, shift in enumerate((-0.01, 0.02)):
        for alpha, fall in ((0.0, -0.03), (0.25, -0.025)):
            name = f"alpha={alpha}-seed={seed}"
            write_line(write_run, tmp_path / name, fall + shift, -0.09 + shift, alpha=alpha, seed=seed)
    table = over_seeds(compare_at_equal(read_trace(tmp_path), "step", 20, baseline="alpha=0")).set_index(
        "setting"
    )
    row = table.loc["alpha=0.25"]
    assert row["difference"] == pytest.approx(0.1, abs=1e-6)
    assert row["difference_high"] - row["difference_low"] < 1e-6
    assert row["seeds_agreeing"] == 2


def test_a_seed_without_numbers_is_no_seed(write_run, tmp_path):
    """Differences 0.1 and 0.2, and a third seed in which a run broke: 0.15 ± t of one degree of freedom · 0.05."""
    for seed, gap in enumerate((0.005, 0.01, np.nan)):
        for alpha, fall in ((0.0, -0.02), (1.0, -0.02 + gap)):
            write_line(write_run, tmp_path / f"{alpha}-{seed}", fall, -0.06, alpha=alpha, seed=seed)
    curves = difference_curves(read_trace(tmp_path)).query("response == 'chosen'")
    last = curves[curves["step"] == 20].iloc[0]
    half = stats.t.ppf(0.975, 1) * 0.05
    assert (last["difference_low"], last["difference_high"]) == pytest.approx(
        (0.15 - half, 0.15 + half), abs=1e-6
    )


def test_a_seed_whose_baseline_does_not_reach_the_value_is_not_paired(write_run, tmp_path):
    """α = 1 falls by 0.1 and 0.2 less at a margin gain of 0.4 in two seeds; in the third α = 0 gets to 0.2 only."""
    for seed, (gap, pace) in enumerate(((0.01, 0.04), (0.02, 0.04), (0.03, 0.01))):
        write_line(write_run, tmp_path / f"0-{seed}", -0.03, -0.03 - pace, alpha=0.0, seed=seed)
        write_line(write_run, tmp_path / f"1-{seed}", -0.03 + gap, -0.07 + gap, alpha=1.0, seed=seed)
    rows = compare_at_equal(read_trace(tmp_path), "logp_margin", 0.4, baseline="alpha=0")
    found = over_seeds(rows).set_index("setting").loc["alpha=1"]
    half = stats.t.ppf(0.975, 1) * 0.05
    assert (found["difference"], found["difference_high"]) == pytest.approx((0.15, 0.15 + half), abs=1e-6)
    assert (found["num_seeds"], found["seeds_paired"], found["seeds_agreeing"]) == (3, 2, 2)
    matched = over_seeds(rows, baseline="alpha=0").set_index("setting").loc["alpha=1"]
    assert (matched["chosen_change"], matched["chosen_change_high"]) == pytest.approx(
        (0.15, 0.15 + half), abs=1e-6
    )
    assert (matched["num_seeds"], matched["num_unreached"]) == (2, 1)


def test_settings_along_the_margin_are_paired_by_seed_and_end_where_a_seed_ends(write_run, tmp_path):
    """α = 0 gains 0.06 a step whatever the seed and falls by 0.03 + shift; α = 1 gains half of it and falls by less."""
    shifts = (-0.01, 0.0, 0.02)
    for seed, shift in enumerate(shifts):
        gain = 0.03 if seed < 2 else 0.015  # the last seed of α = 1 gets only half as far
        for alpha, fall, pace in ((0.0, -0.03, 0.06), (1.0, -0.01, gain)):
            name = f"alpha={alpha:g}-seed={seed}"
            fell = fall + shift * pace / 0.06
            write_line(write_run, tmp_path / name, fell, fell - pace, alpha=alpha, seed=seed)
    along = compare_along(read_trace(tmp_path), "logp_margin", baseline="alpha=0", points=9)
    rows = settings_along(along)
    assert rows.groupby("setting")["value"].max().round(6).to_dict() == {"alpha=0": 1.2, "alpha=1": 0.3}
    one = rows[(rows["setting"] == "alpha=1") & (rows["value"] > 0)].iloc[0]
    value = one["value"]
    change = {alpha: [value / pace * fall for pace, fall in paths] for alpha, paths in {
        0.0: [(0.06, -0.03 + shift) for shift in shifts],
        1.0: [(pace, -0.01 + shift * pace / 0.06) for shift, pace in zip(shifts, (0.03, 0.03, 0.015), strict=True)],
    }.items()}  # fmt: skip
    differences = np.subtract(change[1.0], change[0.0])
    theirs = stats.ttest_1samp(differences, 0).confidence_interval()
    assert one["difference"] == pytest.approx(differences.mean(), abs=1e-6)
    assert (one["difference_low"], one["difference_high"]) == pytest.approx(
        (theirs.low, theirs.high), abs=1e-6
    )
    assert one["seeds_agreeing"] == (np.sign(differences) == np.sign(differences.mean())).sum()
    alone = settings_along(along[along["seed"] == 0])
    kept = along[(along["seed"] == 0) & (along["setting"] == "alpha=1")]
    np.testing.assert_allclose(
        alone.loc[alone["setting"] == "alpha=1", "difference_low"], kept["difference_low"], atol=1e-12
    )


def texts(prompts):
    return [
        {"pair_id": f"pairs.jsonl:{i + 1}", "prompt": prompt, "responses": {}}
        for i, prompt in enumerate(prompts)
    ]


def test_pairs_of_one_name_and_other_prompts_are_other_pairs(write_run, tmp_path):
    ours, theirs = ([f"{letter}{i}" for i in range(PAIRS)] for letter in "ab")
    for name, prompts, alpha in (("a", ours, 0.0), ("b", theirs, 1.0)):
        write_line(write_run, tmp_path / name, -0.02, -0.05, alpha=alpha, texts=texts(prompts))
    sweep = read_trace(tmp_path)
    with pytest.raises(InputError, match="share no probe pair"):
        compare(sweep.run("a"), sweep.run("b"))
    with pytest.raises(InputError, match="different probe pairs"):
        compare_at_equal(sweep, "logp_margin", 0.1, baseline="alpha=0")


def test_a_mean_over_seeds_ends_with_the_first_seed_that_ends(write_run, tmp_path):
    """Seeds 0.1, 0.2 and 0.6 apart at step 20; the last one, which pulls the mean, ends at step 10."""
    for seed, (gap, steps) in enumerate(((0.005, 21), (0.01, 21), (0.03, 11))):
        for alpha, fall in ((0.0, -0.02), (1.0, -0.02 + gap)):
            write_line(
                write_run, tmp_path / f"{alpha}-{seed}", fall, -0.06, alpha=alpha, seed=seed, steps=steps
            )
    curve = difference_curves(read_trace(tmp_path)).query("response == 'chosen'")
    assert curve["step"].max() == 10
    np.testing.assert_allclose(curve["difference"], 0.015 * curve["step"], atol=1e-7)


def test_runs_that_state_no_seed_are_of_one(write_run, tmp_path):
    for alpha, fall in ((0.0, -0.02), (1.0, -0.01)):
        write_line(write_run, tmp_path / str(alpha), fall, fall - 0.03, alpha=alpha, seed=None)
    rows = compare_at_equal(read_trace(tmp_path), "logp_margin", 0.3)
    found = over_seeds(rows, baseline="alpha=0").set_index("setting").loc["alpha=1"]
    assert found["chosen_change"] == pytest.approx(0.1, abs=1e-7)

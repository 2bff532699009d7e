"""Effects of a what-if: by hand, and over many simulated what-ifs whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rewardshape import read_trace
from rewardshape.analysis.equal import MARGINS
from rewardshape.analysis.resampling import resampled_means
from rewardshape.analysis.what_if import (
    Outcome,
    by_place,
    effects,
    read_what_if,
    residual_variance,
    what_if_table,
)
from rewardshape.errors import InputError
from rewardshape.trace.folder import RunFolder

NAMES = ["as-it-is", "drop=random=0.2", "drop=ches=0.2", "drop=ties=0.2", "add_nll=0.1"]
UNITS, SEEDS = 64, 2
COMPARED = [
    (name, "drop=random=0.2" if name.startswith("drop=") and "random" not in name else "as-it-is")
    for name in NAMES[1:]
]


def simulated(rng, effect=0.0, seed_noise=0.02, pair_noise=0.1, values=1, seeds=SEEDS):
    """What pairs have in common, what a seed has, what a run has, and noise of each pair, along the margins."""
    ways = np.linspace(1 / values, 1, values)[:, None, None, None]
    own = rng.normal(0, pair_noise, (len(NAMES), 1, UNITS))  # how it treats each pair, whatever the seed
    of_seed, of_run = rng.normal(0, 0.05, (seeds, 1)), rng.normal(0, seed_noise, (len(NAMES), seeds, 1))
    helps = effect * (np.array(NAMES) == "drop=ches=0.2")[:, None, None]
    each = rng.normal(0, 0.5, UNITS) + ways * (own + of_seed + of_run + helps)
    drawn = resampled_means(each.reshape(-1, UNITS)).reshape(-1, *each.shape[:-1])
    return Outcome(np.concatenate([each.mean(axis=-1)[None], drawn]), UNITS, ways.ravel())


def intervals(outcome, compared=COMPARED):
    rows = [row for mine in effects(outcome, NAMES, compared).values() for row in mine]
    return [(row["difference"], row["difference_low"], row["difference_high"]) for row in rows]


@pytest.mark.parametrize("values", [1, MARGINS])
def test_false_alarms_of_a_whole_table_stay_at_their_level(values):
    """No intervention does anything; how often any interval of a table excludes 0 (goal: 5 %)."""
    rng = np.random.default_rng(0)
    alarms = [
        any(low > 0 or high < 0 for _, low, high in intervals(simulated(rng, values=values)))
        for _ in range(300)
    ]
    assert np.mean(alarms) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


def test_an_effect_is_covered_and_seen():
    rng = np.random.default_rng(1)
    found = [intervals(simulated(rng, effect=0.15))[1] for _ in range(200)]
    assert np.mean([low <= 0.15 <= high for _, low, high in found]) >= 0.95
    assert np.mean([low > 0 for _, low, _ in found]) > 0.6
    assert np.mean([mean for mean, _, _ in found]) == pytest.approx(0.15, abs=0.01)


def test_pairs_alone_would_raise_false_alarms():
    """What the variance over seeds is for: without it a random draw of seeds passes for an effect."""
    rng, only = np.random.default_rng(2), [("drop=ches=0.2", "drop=random=0.2")]
    found = [intervals(simulated(rng, seed_noise=0.1, pair_noise=0.02, seeds=1), only)[0] for _ in range(200)]
    assert np.mean([low > 0 or high < 0 for _, low, high in found]) > 0.5


def test_residual_variance_is_that_of_a_two_way_analysis(rng):
    """Against ordinary least squares with effects of intervention and seed, by numpy."""
    y = rng.normal(size=(len(NAMES), 3))
    rows, columns = np.indices(y.shape)
    design = np.hstack([np.eye(len(NAMES))[rows.ravel()], np.eye(3)[columns.ravel()][:, 1:]])
    left = y.ravel() - design @ np.linalg.lstsq(design, y.ravel(), rcond=None)[0]
    freedom = y.size - design.shape[1]
    known = pytest.approx(((left**2).sum() / freedom, freedom))
    assert residual_variance(y) == known
    assert residual_variance(np.vstack([y, [1.0, np.nan, 3.0]])) == known  # it lacks a seed


def test_an_interval_by_hand(rng):
    """Student's t at 1 − 0.05/(2 · 2 margins) of both parts, weighted by their variances."""
    outcome = simulated(rng, values=2)
    [first, second] = intervals(outcome, [("add_nll=0.1", "as-it-is")])
    for place, (mean, low, high) in enumerate((first, second)):
        means = outcome.drawn[:, place]
        gap = (means[:, 4] - means[:, 0]).mean(axis=1)
        residual, freedom = residual_variance(means[0])
        prompts = gap[1:].var() * UNITS / (UNITS - 1)
        at = stats.t.ppf(1 - 0.05 / 4, [UNITS - 1, freedom])
        half = (at[0] * prompts + at[1] * residual) / np.sqrt(prompts + residual)
        assert (mean, low, high) == pytest.approx((gap[0], gap[0] - half, gap[0] + half))


@pytest.fixture
def write(write_run, tmp_path):
    """Two interventions whose chosen responses end 0.1 nats per token apart at the same margin; a third goes 0.6 of
    the way as far."""

    def one(seeds=(0, 1), against=True):
        rng = np.random.default_rng(0)
        tokens = {"chosen": np.full(40, 10), "rejected": np.full(40, 10)}
        for name, fall, far, other in (
            ("as-it-is", -0.3, 1.0, ""),
            ("add_nll=0.1", -0.2, 1.0, "as-it-is"),
            ("learning_rate=1e-06", -0.3, 0.6, "as-it-is"),
        ):
            for seed in seeds:
                noise = rng.normal(0, 0.01, 40)
                ways = np.linspace(0, far, 5)[:, None]
                chosen = 10 * (-1 + ways * (fall + noise))
                rejected = 10 * (-1 + ways * (fall - 0.5 + noise))
                write_run(
                    tmp_path / "what-if" / f"{name}-seed={seed}",
                    {"chosen": chosen, "rejected": rejected},
                    num_tokens=tokens,
                    run={"seed": seed},
                    **(
                        {
                            "what_if": {
                                "name": name,
                                "changes": {},
                                "flags": "--add-nll 0.1",
                                "against": other,
                                "matched": False,
                            }
                        }
                        if against
                        else {}
                    ),
                )
        return read_trace(tmp_path / "what-if")

    return one


def test_chosen_is_compared_along_equal_margin_each_to_where_it_got(write):
    """The margin grows by 0.5: compared at quarters of 0.45, nine tenths of the way; the slow one gets to 0.27."""
    table = what_if_table(write())
    chosen = table[table["measure"] == "chosen"]
    nll, slow = (chosen[chosen["intervention"] == name] for name in ("add_nll=0.1", "learning_rate=1e-06"))
    assert nll["margin_gain"].to_numpy() == pytest.approx([0.1125, 0.225, 0.3375, 0.45])
    assert slow["margin_gain"].to_numpy() == pytest.approx([0.1125, 0.225])
    assert set(slow["margin_gain"]) < set(nll["margin_gain"])  # the very same values
    assert nll["difference"].to_numpy() == pytest.approx([0.0225, 0.045, 0.0675, 0.09], abs=0.01)
    assert slow["difference"].to_numpy() == pytest.approx(0, abs=0.01)
    assert (chosen["difference_low"] < chosen["difference"]).all()
    [row] = table[(table["measure"] == "accuracy") & (table["intervention"] == "add_nll=0.1")].to_dict(
        "records"
    )
    assert (row["against"], row["steps"], row["num_seeds"], row["difference"]) == ("as-it-is", 4, 2, 0)
    assert np.isnan(row["margin_gain"])
    assert "gold" not in set(table["measure"])
    places = by_place(table)
    assert [place.measure for place in places] == ["chosen"] * 4 + ["accuracy"]
    assert [len(rows) for rows in places.values()] == [2, 2, 1, 1, 2]


def test_what_says_nothing_by_its_means_is_left_out_with_the_reason(write):
    trace = write()
    table = what_if_table(trace, {"learning_rate=1e-06-seed=1": "it is broken"})
    [row] = table[table["intervention"] == "learning_rate=1e-06"].to_dict("records")
    assert row["left_out"] == "learning_rate=1e-06: it is broken"
    assert np.isnan(row["difference"])
    whole = table[table["intervention"] == "add_nll=0.1"]
    assert whole["difference"].notna().all()
    without = what_if_table(trace, {"as-it-is-seed=0": "it is broken"})
    assert without["difference"].isna().all()
    assert set(without["left_out"]) == {"as-it-is: it is broken"}


def test_with_one_seed_the_interval_is_over_pairs_each_resample_at_its_own_place(write):
    """The margin of a pair is 0.5 of its way in every pair, so the place is the same and Student's t is known."""
    trace = write(seeds=(0,))
    table = what_if_table(trace)
    row = table[(table["intervention"] == "add_nll=0.1") & (table["measure"] == "chosen")].iloc[-1]
    there = {}
    for run in trace.runs:
        mine = trace.responses[(trace.responses["run"] == run.name) & (trace.responses["split"] == "probe")]
        wide = (
            mine[mine["response"] == "chosen"].pivot(index="step", columns="pair_id", values="logp_sum") / 10
        )
        there[run.manifest["what_if"]["name"]] = 0.9 * (wide.loc[4] - wide.loc[0])
    difference = there["add_nll=0.1"] - there["as-it-is"]
    half = stats.t.ppf(1 - 0.05 / (2 * 6), 39) * stats.sem(
        difference
    )  # four margins, and two of the slow one
    assert row["difference"] == pytest.approx(difference.mean())
    assert row["difference_high"] - row["difference"] == pytest.approx(half, rel=0.05)  # 2,000 resamples


def test_what_is_no_what_if_says_so(write, tmp_path):
    with pytest.raises(InputError, match="--what-if"):
        what_if_table(write(against=False))
    assert read_what_if(tmp_path) is None


def test_a_table_of_another_form_is_one_line(tmp_path):
    RunFolder(tmp_path).what_if.write_text("intervention,chosen\nadd_nll=0.1,0.2\n")
    with pytest.raises(
        InputError, match=r"what-if.csv: no table of a what-if \(no column 'against'\); remove it"
    ):
        read_what_if(tmp_path)


def test_gold_is_compared_on_the_prompts_that_every_run_has_a_reward_for(write):
    """Each answer is worth 0.1 more with the likelihood term; the reward of one run's hardest prompt failed."""
    trace = write()
    worth = np.linspace(-5, 5, 40)
    samples = pd.concat(
        pd.DataFrame(
            {
                "run": run.name, "step": 4, "temperature": 1.0, "prompt_id": [f"p{i}" for i in range(40)],
                "text": "", "num_tokens": 5, "logp_sum": -10.0, "ref_logp_sum": -10.0,
                "gold": worth + 0.1 * run.name.startswith("add_nll"),
            }
        )
        for run in trace.runs
    ).reset_index(drop=True)  # fmt: skip
    failed = (samples["run"] == "add_nll=0.1-seed=0") & (samples["prompt_id"] == "p0")
    samples.loc[failed, "gold"] = np.nan
    table = what_if_table(replace(trace, samples=samples))
    [row] = table[(table["measure"] == "gold") & (table["intervention"] == "add_nll=0.1")].to_dict("records")
    assert row["difference"] == pytest.approx(0.1)
    assert row["difference_high"] - row["difference_low"] < 0.01


def test_the_interval_of_an_accuracy_holds_the_truth_with_one_seed_and_has_a_width(rng):
    """Both runs order 90 % of 64 pairs, one of them 5 % more; few pairs tell them apart, in many draws none."""
    held = []
    for _ in range(400):
        both = rng.random(64) < 0.9
        more, less = both | (rng.random(64) < 0.05 / 0.1), both
        of = [np.r_[each.mean(), resampled_means(1.0 * each[None])[:, 0]] for each in (less, more)]
        drawn = np.stack(of, axis=1)[:, None, :, None]
        outcome = Outcome(drawn, 64, np.array([np.nan]), share=True)
        [row] = effects(outcome, ["run", "changed"], [("changed", "run")])["changed", "run"]
        assert row["difference_low"] < row["difference_high"]
        held.append(row["difference_low"] <= 0.05 <= row["difference_high"])
    assert np.mean(held) >= 0.92

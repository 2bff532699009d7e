"""Effects of a what-if: by hand, and over many simulated what-ifs whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rewardshape import read_trace
from rewardshape.analysis.what_if import Outcome, _effect, read_what_if, residual_variance, what_if_table
from rewardshape.errors import InputError

NAMES = ["as-it-is", "drop=random=0.2", "drop=ches=0.2", "drop=ties=0.2", "add_nll=0.1"]
UNITS, SEEDS = 64, (0, 1)


def simulated(rng, effect=0.0, seed_noise=0.02, pair_noise=0.1):
    """Values of every run: what pairs have in common, what a seed has, what a run has, and noise of each pair."""
    pairs = rng.normal(0, 0.5, UNITS)
    of_seed = rng.normal(0, 0.05, len(SEEDS))
    ids = [f"p{i}" for i in range(UNITS)]
    found = {}
    for name in NAMES:
        own = rng.normal(0, pair_noise, UNITS)  # how this intervention treats each pair, whatever the seed
        for i, seed in enumerate(SEEDS):
            values = pairs + own + of_seed[i] + rng.normal(0, seed_noise) + effect * (name == "drop=ches=0.2")
            found[name, seed] = Outcome(pd.Series(values, index=ids), pd.Series(ids, index=ids))
    return found


EFFECTS = [
    (name, "drop=random=0.2" if name.startswith("drop=") and "random" not in name else "as-it-is")
    for name in NAMES[1:]
]


def test_false_alarms_of_a_whole_table_stay_at_their_level():
    """No intervention does anything; how often any of the four intervals of a table excludes 0 (goal: 5 %)."""
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(300):
        outcomes = simulated(rng)
        intervals = [_effect(outcomes, *pair, list(SEEDS), len(EFFECTS))[1:] for pair in EFFECTS]
        alarms.append(any(low > 0 or high < 0 for low, high in intervals))
    assert np.mean(alarms) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


def test_an_effect_is_covered_and_seen():
    rng = np.random.default_rng(1)
    found = [
        _effect(simulated(rng, effect=0.15), "drop=ches=0.2", "drop=random=0.2", list(SEEDS), 4)
        for _ in range(200)
    ]
    assert np.mean([low <= 0.15 <= high for _, low, high in found]) >= 0.95
    assert np.mean([low > 0 for _, low, _ in found]) > 0.6
    assert np.mean([mean for mean, _, _ in found]) == pytest.approx(0.15, abs=0.01)


def test_pairs_alone_would_raise_false_alarms():
    """What the variance over seeds is for: without it a random draw of seeds passes for an effect."""
    rng = np.random.default_rng(2)
    outside = []
    for _ in range(200):
        outcomes = simulated(rng, seed_noise=0.1, pair_noise=0.02)
        low, high = _effect(outcomes, "drop=ches=0.2", "drop=random=0.2", [0], 1)[1:]
        outside.append(low > 0 or high < 0)
    assert np.mean(outside) > 0.5


def test_residual_variance_is_that_of_a_two_way_analysis(rng):
    """Against ordinary least squares with effects of intervention and seed, by numpy."""
    outcomes = simulated(rng)
    y = np.array([[outcomes[name, seed].values.mean() for seed in SEEDS] for name in NAMES])
    rows, columns = np.indices(y.shape)
    design = np.hstack([np.eye(len(NAMES))[rows.ravel()], np.eye(len(SEEDS))[columns.ravel()][:, 1:]])
    left = y.ravel() - design @ np.linalg.lstsq(design, y.ravel(), rcond=None)[0]
    freedom = y.size - design.shape[1]
    assert residual_variance(outcomes, list(SEEDS)) == pytest.approx(((left**2).sum() / freedom, freedom))


@pytest.fixture
def write(write_run, tmp_path):
    """Two interventions whose chosen responses end 0.1 nats per token apart at the same margin."""

    def one(seeds=(0, 1), against=True):
        rng = np.random.default_rng(0)
        tokens = {"chosen": np.full(40, 10), "rejected": np.full(40, 10)}
        for name, fall, other in (("as-it-is", -0.3, ""), ("add_nll=0.1", -0.2, "as-it-is")):
            for seed in seeds:
                noise = rng.normal(0, 0.01, 40)
                ways = np.linspace(0, 1, 5)[:, None]
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


def test_chosen_is_compared_at_equal_margin(write):
    """The margin grows by 0.5 and is compared at 0.45, nine tenths of the way, where chosen stand 0.09 apart."""
    [row] = what_if_table(write()).to_dict("records")
    assert (row["intervention"], row["against"], row["steps"], row["num_seeds"]) == (
        "add_nll=0.1",
        "as-it-is",
        4,
        2,
    )
    assert row["margin_gain"] == pytest.approx(0.45)
    assert row["chosen"] == pytest.approx(0.09, abs=0.01)
    assert row["chosen_low"] < row["chosen"] < row["chosen_high"]
    assert row["accuracy"] == 0
    assert np.isnan(row["gold"])


def test_with_one_seed_the_interval_is_students_over_pairs(write):
    trace = write(seeds=(0,))
    [row] = what_if_table(trace).to_dict("records")
    there = {}
    for run in trace.runs:
        mine = trace.responses[(trace.responses["run"] == run.name) & (trace.responses["split"] == "probe")]
        wide = (
            mine[mine["response"] == "chosen"].pivot(index="step", columns="pair_id", values="logp_sum") / 10
        )
        there[run.manifest["what_if"]["name"]] = 0.9 * (wide.loc[4] - wide.loc[0])
    difference = there["add_nll=0.1"] - there["as-it-is"]
    low, high = stats.t.interval(0.95, 39, loc=difference.mean(), scale=stats.sem(difference))
    assert (row["chosen_low"], row["chosen_high"]) == pytest.approx((low, high))


def test_what_is_no_what_if_says_so(write, tmp_path):
    with pytest.raises(InputError, match="--what-if"):
        what_if_table(write(against=False))
    assert read_what_if(tmp_path) is None

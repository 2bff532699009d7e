"""How training went, by the rows of a log: what few rows bear, and what only many do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rewardshape.verdict.learning import learning_of, values_of


def rows_of(rng, accuracy, pairs=16, margin=None):
    """Rows of batches whose pairs are in order with these chances."""
    steps = pd.Index(10 * np.arange(1, len(accuracy) + 1), name="step")
    drawn = rng.binomial(pairs, accuracy) / pairs
    margin = np.zeros(len(drawn)) if margin is None else margin
    return pd.DataFrame({"loss": np.logaddexp(0, -margin), "margin": margin, "accuracy": drawn}, index=steps)


def learnt(rows, *, fixed=False):
    return learning_of(rows, rows, None, fixed=fixed)


def test_an_order_that_was_never_there_is_rarely_lost_and_one_that_was_is(rng):
    lost = [learnt(rows_of(rng, np.full(60, 0.5))).order_lost <= 0.025 for _ in range(60)]
    assert sum(lost) <= stats.binom.ppf(0.999, 60, 0.05)
    came_and_went = 0.5 + 0.35 * np.sin(np.pi * np.minimum(np.arange(60) / 42, 1))
    assert learnt(rows_of(rng, came_and_went)).order_lost < 0.001
    assert learnt(rows_of(rng, came_and_went), fixed=True).order_lost == 0.0  # exact about its own pairs


def test_the_change_of_accuracy_lies_in_its_interval_and_is_exact_of_a_fixed_set(rng):
    course = np.linspace(0.5, 0.8, 60)
    truth = course[-12:].mean() - course[:12].mean()
    found = [learnt(rows_of(rng, course)).accuracy_change for _ in range(60)]
    held = sum(change.low <= truth <= change.high for change in found)
    assert held >= stats.binom.ppf(0.001, 60, 0.95)
    rows = rows_of(rng, course)
    exact = learnt(rows, fixed=True).accuracy_change
    assert exact.low == exact.high == pytest.approx(rows["accuracy"].iloc[-1] - rows["accuracy"].iloc[0])


def test_the_start_is_told_by_the_first_twentieth_of_a_run_alone(rng):
    quick = 1 - 0.5 * np.exp(-np.arange(100) / 10)
    assert learnt(rows_of(rng, quick, pairs=256)).early_accuracy == pytest.approx(quick[:3].mean(), abs=0.05)
    assert learnt(rows_of(rng, quick[::5], pairs=256)).early_accuracy is None  # one row of twenty is no start
    assert learnt(rows_of(rng, quick), fixed=True).early_accuracy is not None


@pytest.mark.parametrize(
    ("num_rows", "low", "share"), [(10, 0, 0.03), (10, 5, 0.05), (25, 0, 0.05), (25, 12, 0.1), (100, 0, 0.1)]
)
def test_of_few_batches_less_of_the_gradient_may_be_left(rng, num_rows, low, share):
    """Windows of 3, 5 and 20 rows, or so many at the end whose loss is that of a margin of 6."""
    rows = rows_of(
        rng, np.full(num_rows, 0.99), margin=np.where(np.arange(num_rows) < num_rows - low, 1.0, 6.0)
    )
    assert learnt(rows).saturated_below == pytest.approx(share)
    assert learnt(rows, fixed=True).saturated_below == 0.1


def test_a_series_is_without_the_rows_that_lack_it():
    rows = pd.DataFrame({"margin": [0.1, np.nan, 0.3]}, index=[1, 2, 3])
    assert values_of(rows, "margin").to_dict() == {1: 0.1, 3: 0.3}
    assert values_of(rows, "loss").empty

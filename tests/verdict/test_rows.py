"""Levels, errors, onsets and turns of noisy rows, against simulation and explicit sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import linalg, stats

from rewardshape.verdict.judge import judge
from rewardshape.verdict.rows import change_of, inflation, noise_of, smallest_seen, turned, window


@pytest.mark.parametrize(("start", "rows"), [(500, 1000), (0, 1000), (200, 400)])
def test_an_onset_has_an_interval_that_holds_it(start, rows, make):
    rng = np.random.default_rng(4)
    course = -np.maximum(np.arange(rows) - start, 0) / (rows - start)
    verdict = judge(make(course, noise=0.3, margin=np.linspace(0.05, 1.5, rows) + rng.normal(0, 0.3, rows)))
    truth = 10 + 10 * (start + 0.05 * (rows - start))
    low, high = verdict.onset_interval
    assert low <= truth <= high
    assert abs(verdict.onset_step - truth) < 0.06 * 10 * rows


def test_held_out_loss_that_turns_is_over_optimized(make):
    steps = np.arange(12)
    loss = 0.69 - 0.05 * np.minimum(steps, 5) + 0.04 * np.maximum(steps - 5, 0)
    verdict = judge(make(-0.1 * steps, split="eval", loss=loss))
    assert verdict.over_optimized is True
    assert verdict.best_step == 60
    assert "step 60" in verdict.advice[0]
    assert judge(make(-0.1 * steps, split="eval")).over_optimized is False
    assert judge(make(-0.1 * steps)).over_optimized is None


def test_slow_wander_of_training_rows_is_not_taken_for_independent_rows(make):
    """Rows that wander with a correlation of 0.9 hold far fewer independent values than they number."""
    words = []
    for seed in range(15):
        shocks = np.random.default_rng(seed).normal(0, 0.1, 60)
        wander = np.zeros(60)
        for i in range(1, 60):
            wander[i] = 0.9 * wander[i - 1] + shocks[i]
        words.append(judge(make(wander - wander.mean())).word)
    assert words.count("displaced") <= 5


@pytest.mark.parametrize("rows", [6, 20, 80])
def test_pure_noise_is_rarely_called_displaced(rows, make):
    words = [judge(make(np.zeros(rows), noise=0.2, seed=seed)).word for seed in range(20)]
    assert words.count("displaced") + words.count("recovered") <= 3


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_variance_of_a_mean_is_the_sum_over_the_covariance_matrix(correlation):
    covariance = linalg.toeplitz(correlation ** np.arange(7))
    assert inflation(correlation, 7) == pytest.approx(covariance.sum() / 7, rel=1e-12)


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_the_error_of_a_level_is_that_of_simulated_runs(correlation):
    """About a trend, with correlated noise: the median of the errors stated, against the scatter of the levels."""
    rng = np.random.default_rng(1)
    shocks = rng.normal(size=(400, 60))
    noise = shocks.copy()
    for i in range(1, 60):
        noise[:, i] = correlation * noise[:, i - 1] + math.sqrt(1 - correlation**2) * shocks[:, i]
    stated = np.median([noise_of(row + np.linspace(0, 5, 60)).error(12) for row in noise])
    assert 1.0 <= stated / noise[:, -12:].mean(axis=1).std() <= 1.6  # on the safe side, and not far


def test_an_interval_and_its_chance_are_those_of_student():
    change = change_of(-1.5, 0.6, 9, tries=4)
    assert (change.low, change.high) == pytest.approx(stats.t.interval(0.95, 9, loc=-1.5, scale=0.6))
    assert change.chance == pytest.approx(4 * stats.t.cdf(-2.5, 9))
    assert change_of(0.0, 0.0, 9).chance == 1.0
    exact = change_of(-1.5, 0.0, 9)
    assert (exact.low, exact.high, exact.chance) == (-1.5, -1.5, 0.0)


def test_the_smallest_fall_is_seen_four_times_in_five():
    """Power of the one-sided test at 2.5 %, by simulation of the mean of many rows."""
    fall = smallest_seen(0.5, 1e6)
    found = np.random.default_rng(2).normal(-fall, 0.5, 40_000)
    assert (found / 0.5 < stats.norm.ppf(0.025)).mean() == pytest.approx(0.8, abs=0.01)


def test_a_level_is_a_fifth_of_the_rows_and_never_more_than_half():
    assert [window(rows) for rows in (1, 2, 4, 5, 6, 15, 50)] == [1, 1, 2, 2, 3, 3, 10]


def test_few_rows_turn_only_by_much_and_for_good():
    steps = np.array([10.0, 20.0, 30.0, 40.0])
    assert turned("loss", steps, np.array([0.7, 0.5, 0.6, 0.7])).worse is True
    assert turned("loss", steps, np.array([0.7, 0.5, 0.7, 0.69])).worse is None
    found = turned("loss", steps, np.array([0.7, 0.5, 0.51, 0.52]))
    assert (found.worse, found.best_step) == (None, 20)

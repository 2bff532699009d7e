"""Intervals over prompts: against scipy, plain loops, and simulations whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rewardshape.analysis.resampling import (
    LEAST_ERROR,
    MIN_PROMPTS,
    _skewed,
    draw_pairs,
    drawn_pairs,
    mean_error,
    mean_interval,
    percentile_interval,
    rank_correlations,
    ranks,
    resampled_means,
    share_interval,
    studentised,
)


def test_resampled_means_are_those_of_scipy(rng):
    values = rng.normal(size=(5, 33)) ** 3
    theirs = stats.bootstrap(
        (values,), np.mean, axis=-1, n_resamples=2000, method="percentile", rng=np.random.default_rng(7),
        confidence_level=1 - 2 * stats.norm.cdf(-np.sqrt(33 / 32) * stats.t.ppf(0.975, 32)),
    ).confidence_interval  # fmt: skip
    low, high = percentile_interval(resampled_means(values, seed=7), 33)
    np.testing.assert_allclose(low, theirs.low, rtol=0, atol=1e-12)
    np.testing.assert_allclose(high, theirs.high, rtol=0, atol=1e-12)


def test_the_interval_of_resampled_means_holds_the_truth_of_few_normal_values(rng):
    """Over 8 prompts: the plain central 95 % do in 89 of 100."""
    held = []
    for _ in range(600):
        low, high = percentile_interval(resampled_means(rng.normal(size=(1, 8))), 8)
        held.append(low[0] <= 0 <= high[0])
    assert 0.92 <= np.mean(held) <= 0.98


def test_the_error_of_one_pair_a_prompt_is_that_of_scipy(rng):
    values = rng.normal(size=(3, 20))
    np.testing.assert_allclose(mean_error(values), stats.sem(values, axis=1), rtol=1e-12)


def test_pairs_of_one_prompt_that_say_the_same_count_once(rng):
    """Four copies of every pair under its prompt change neither the error nor the interval."""
    values = rng.normal(size=(3, 20))
    copies, prompts = np.repeat(values, 4, axis=1), np.repeat(np.arange(20), 4)
    np.testing.assert_allclose(mean_error(copies, prompts), mean_error(values), rtol=1e-12)
    np.testing.assert_allclose(mean_interval(copies, prompts), mean_interval(values), rtol=1e-9)


def test_studentised_draws_are_those_of_a_plain_loop(rng):
    values, prompts = rng.lognormal(size=(2, 30)), np.repeat(np.arange(12), [1, 2, 3, 4] * 3)
    drawn = studentised(values, prompts, seed=3)
    for draw, found in list(zip(draw_pairs(12, seed=3), drawn, strict=True))[:200]:
        pairs = np.concatenate([np.flatnonzero(prompts == prompt) for prompt in draw])
        labels = np.concatenate([np.full((prompts == p).sum(), i) for i, p in enumerate(draw)])
        error = np.maximum(mean_error(values[:, pairs], labels), LEAST_ERROR * mean_error(values, prompts))
        theirs = (values[:, pairs].mean(axis=1) - values.mean(axis=1)) / error
        np.testing.assert_allclose(found, theirs, rtol=1e-9)


def test_too_few_prompts_have_no_interval(rng):
    values = rng.normal(size=(2, 4 * MIN_PROMPTS))
    low, high = mean_interval(values, np.arange(4 * MIN_PROMPTS) % (MIN_PROMPTS - 1))
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_a_long_curve_has_the_interval_of_each_of_its_rows(rng):
    """Beyond `MAX_ROWS` rows the shape is interpolated; at the ends it is exact, and close between."""
    walk = np.cumsum(rng.normal(size=(1500, MIN_PROMPTS)), axis=0)
    low, high = mean_interval(walk)
    for row in (0, 700, 1499):
        [one_low], [one_high] = mean_interval(walk[row][None])
        width = one_high - one_low
        assert low[row] == pytest.approx(one_low, abs=0.02 * width)
        assert high[row] == pytest.approx(one_high, abs=0.02 * width)


def test_one_pair_has_no_interval():
    low, high = mean_interval(np.array([[0.3], [0.4]]))
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_share_interval_is_honest_when_every_pair_fell():
    counts = np.array([0, 1, 40, 64])
    counts = np.array([0, 1, 40, 64])
    low, high = share_interval(np.arange(64) < counts[:, None])
    theirs = [stats.binomtest(int(count), 64).proportion_ci(method="wilson") for count in counts]
    np.testing.assert_allclose(low, [interval.low for interval in theirs], atol=1e-12)
    np.testing.assert_allclose(high, [interval.high for interval in theirs], atol=1e-12)
    assert high[-1] == 1.0


def test_a_share_of_copies_is_as_sure_as_that_of_the_pairs(rng):
    hits = rng.random((5, 40)) < np.array([[0.0], [0.1], [0.5], [0.8], [1.0]])
    copies, prompts = np.repeat(hits, 3, axis=1), np.repeat(np.arange(40), 3)
    np.testing.assert_allclose(share_interval(copies, prompts), share_interval(hits), rtol=1e-12)


def test_a_share_over_prompts_is_held_by_its_interval(rng):
    """Four pairs a prompt whose chance of a hit is their prompt's own, 0.6 in the mean (beta-binomial, ICC 1/3)."""
    prompts = np.repeat(np.arange(50), 4)
    hits = rng.random((1000, 200)) < rng.beta(1.2, 0.8, (1000, 50))[:, prompts]
    low, high = share_interval(hits, prompts)
    assert 0.93 <= ((low <= 0.6) & (0.6 <= high)).mean() <= 0.97
    alone_low, alone_high = share_interval(hits)
    assert ((alone_low <= 0.6) & (0.6 <= alone_high)).mean() < 0.9


def test_ranks_and_their_correlation_in_resampled_prompts_are_those_of_scipy(rng):
    prompts = np.repeat(np.arange(9), [1, 2, 3] * 3)
    first, second = rng.integers(0, 6, 18).astype(float), rng.normal(size=18)
    counts = drawn_pairs(18, prompts, seed=4)
    found = rank_correlations(first, second, counts)
    assert found[0] == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    for draw, row, rho in list(zip(draw_pairs(9, seed=4), counts[1:], found[1:], strict=True))[:200]:
        drawn = np.concatenate([np.flatnonzero(prompts == prompt) for prompt in draw])
        assert rho == pytest.approx(stats.spearmanr(first[drawn], second[drawn]).statistic, abs=1e-12)
        np.testing.assert_allclose(ranks(first, row[None])[0, drawn], stats.rankdata(first[drawn]), atol=1e-9)


def test_the_skewed_quantile_solves_hall_s_cubic(rng):
    """Where the transformed statistic equals the quantile, with the skewness of scipy."""
    values = rng.lognormal(size=(4, 40))
    a = stats.skew(values, axis=1) / np.sqrt(40)
    for quantile in (-2.0, 2.0):
        found = _skewed(values, None, quantile)
        np.testing.assert_allclose(
            found + a * found**2 / 3 + a**2 * found**3 / 27 + a / 6, quantile, atol=1e-9
        )
    assert _skewed(np.array([[-1.0, 0.0, 1.0, 0.0]]), None, 2.0) == pytest.approx(2.0)


@pytest.mark.parametrize(("spread", "share"), [(0.7, 0.3), (1.2, 0.3), (1.2, 0.5)])
def test_a_share_over_prompts_of_unequal_sizes_is_held_by_its_interval(rng, spread, share):
    """Prompts of log-normally many pairs that all do the same, the hardest case."""
    sizes = np.maximum(1, np.exp(1.4 + spread * stats.norm.ppf((np.arange(50) + 0.5) / 50))).astype(int)
    prompts = np.repeat(np.arange(50), sizes)
    low, high = share_interval((rng.random((2000, 50)) < share)[:, prompts], prompts)
    assert 0.90 <= ((low <= share) & (share <= high)).mean() <= 0.97

"""Values, slopes and curvatures of every shape and link, against mpmath and against autograd."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardshape.theory import (
    Alpha,
    ChiSquared,
    Exponential,
    Hinge,
    JensenShannon,
    Linear,
    Logistic,
    LogOdds,
    LogRatioModulated,
    ReverseKL,
    Sigmoid,
    Smoothed,
    Squared,
    SquaredLog,
)

m = mpmath


def softplus(x):
    return m.log1p(m.exp(x))


def sigma(x):
    return 1 / (1 + m.exp(-x))


SHAPES = {
    Alpha(0.25): lambda s: (1 - m.exp(-s / 4)) * 4,
    Alpha(-2.0): lambda s: (m.exp(2 * s) - 1) / 2,
    Alpha(1e-7): lambda s: (1 - m.exp(-m.mpf(1e-7) * s)) / m.mpf(1e-7),
    JensenShannon(): lambda s: m.log(2) - softplus(-s),
    ChiSquared(): lambda s: s + m.exp(s),
    LogOdds(): lambda s: s - m.log(1 - m.exp(s)),
    SquaredLog(): lambda s: s * m.exp(-s),
}
SCORES = [-60.0, -7.5, -1.0, -0.7, -0.3, -1e-3, -1e-9]
RATIOS = [3.0, 12.0]  # scores with a reference may be positive

LINKS = {
    Logistic(): lambda z: softplus(-z),
    Smoothed(0.9, 0.1): lambda z: (9 * softplus(-z) + softplus(z)) / 10,
    Squared(5.0): lambda z: (z - 5) ** 2,
    Exponential(): lambda z: m.exp(-z),
    Sigmoid(): lambda z: 1 - sigma(z),
    Linear(): lambda z: -z,
    ReverseKL(0.125): lambda z: sigma(z) * m.log(sigma(z) / 0.875) + sigma(-z) * m.log(sigma(-z) / 0.125),
    LogRatioModulated(0.05): lambda z: (1 - sigma(20 * z)) * softplus(-z) + sigma(20 * z) * m.exp(-z),
}
MARGINS = [-300.0, -20.0, -1.0, -0.01, 0.0, 0.5, 3.0, 40.0, 300.0]


def scores_of(shape):
    return SCORES if isinstance(shape, LogOdds) else SCORES + RATIOS


def close(value, truth, rtol, atol=0.0):
    with m.workdps(130):
        assert abs(m.mpf(float(value)) - truth) <= rtol * abs(truth) + atol


@pytest.mark.parametrize("shape", SHAPES, ids=str)
class TestShapes:
    def test_values_slopes_and_curvatures_against_mpmath(self, shape):
        with m.workdps(60):
            for s in scores_of(shape):
                close(shape.reward(s), SHAPES[shape](m.mpf(s)), 2e-14, atol=1e-16)
                close(shape.slope(s), m.diff(SHAPES[shape], m.mpf(s)), 2e-14)
                close(shape.curvature(s), m.diff(SHAPES[shape], m.mpf(s), 2), 2e-13)
                close(shape.log_slope(s), m.log(abs(m.diff(SHAPES[shape], m.mpf(s)))), 1e-13, atol=1e-15)

    @pytest.mark.parametrize("gap", [1e-12, 1e-4, 0.3, 0.99, 1.01, 40.0])
    def test_differences_keep_their_accuracy_however_small(self, shape, gap):
        with m.workdps(130):
            for s in scores_of(shape):
                for s_w, s_l in ((s, s - gap), (s - gap, s)):
                    truth = SHAPES[shape](m.mpf(s_w)) - SHAPES[shape](m.mpf(s_l))
                    close(shape.difference(s_w, s_l), truth, 3e-14)

    def test_derivatives_against_autograd(self, shape):
        s = torch.tensor(scores_of(shape)[:6], dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(shape.reward(s).sum(), s, create_graph=True)[0]
        curvature = torch.autograd.grad(slope.sum(), s)[0]
        np.testing.assert_allclose(slope.detach(), shape.slope(s.detach()), rtol=1e-14)
        np.testing.assert_allclose(curvature, shape.curvature(s.detach()), rtol=1e-9)

    def test_difference_of_a_swapped_pair_is_negated(self, shape):
        s = np.array(SCORES)
        np.testing.assert_array_equal(shape.difference(s, s[::-1]), -shape.difference(s[::-1], s))
        assert shape.difference(-1.0, -1.0) == 0.0

    def test_rewards_stay_within_their_bounds_and_reach_them(self, shape):
        low, high = shape.bounds(reference=False)
        rewards = shape.reward(np.array([-700.0, -300.0, -1e-12]))
        assert np.all(rewards >= low)
        assert np.all(rewards <= high + 1e-12)
        if np.isfinite(low):
            assert rewards[0] == pytest.approx(low)
        if np.isfinite(high):
            assert rewards[-1] == pytest.approx(high, abs=1e-6)


def test_bounds_with_a_reference_reach_over_positive_scores():
    assert Alpha(0.5).bounds(reference=True) == (-math.inf, 2.0)
    assert Alpha(-0.5).bounds(reference=True) == (-2.0, math.inf)
    assert Alpha(0.0).bounds(reference=True) == (-math.inf, math.inf)
    assert JensenShannon().bounds(reference=True)[1] == pytest.approx(math.log(2))


def test_odds_of_probability_one_count_as_those_of_the_nearest_probability_below():
    odds = LogOdds()
    assert math.isfinite(odds.reward(0.0))
    assert odds.reward(0.0) > odds.reward(-1e-300)
    s = torch.tensor([0.0], requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(odds.log_slope(s), s, allow_unused=True)[0]).all()


@pytest.mark.parametrize("link", LINKS, ids=str)
class TestLinks:
    def test_losses_and_slopes_against_mpmath(self, link):
        with m.workdps(200):
            for z in MARGINS:
                truth = LINKS[link](m.mpf(z))
                slope = m.diff(LINKS[link], m.mpf(z))
                close(link.loss(z), truth, 2e-14, atol=1e-16)
                close(link.slope(z), slope, 2e-13, atol=1e-15)
                if abs(slope) > 1e-100:
                    close(link.log_slope(z), m.log(abs(slope)), 1e-12, atol=1e-12)

    def test_slope_against_autograd(self, link):
        z = torch.tensor(MARGINS, dtype=torch.float64, requires_grad=True)
        grad = torch.autograd.grad(link.loss(z).sum(), z)[0]
        np.testing.assert_allclose(grad, link.slope(z.detach()), rtol=1e-14)

    def test_slope_is_its_direction_times_the_exponential_of_its_logarithm(self, link):
        z = np.array(MARGINS[1:-1])
        sign = -link.compute_direction(np, z)
        np.testing.assert_allclose(link.slope(z), sign * np.exp(link.log_slope(z)), rtol=1e-12, atol=1e-300)


def test_hinge_has_slope_minus_one_below_one_and_none_above():
    assert [Hinge().slope(z) for z in (-3.0, 0.999, 1.0, 2.0)] == [-1.0, -1.0, 0.0, 0.0]
    assert [Hinge().loss(z) for z in (-3.0, 0.5, 1.0, 2.0)] == [4.0, 0.5, 0.0, 0.0]


@settings(max_examples=40, deadline=None)
@given(z=st.floats(-600, 600), step=st.floats(1e-3, 10))
@pytest.mark.parametrize("link", [Logistic(), Hinge(), Exponential(), Sigmoid(), Linear()], ids=str)
def test_ranking_losses_never_increase(link, z, step):
    assert link.loss(z + step) <= link.loss(z) * (1 + 1e-15)


@settings(max_examples=40, deadline=None)
@given(s=st.floats(-700, -1e-6), step=st.floats(1e-9, 10))
@pytest.mark.parametrize("shape", [*list(SHAPES)[3:], Alpha(0.5), Alpha(-0.5)], ids=str)
@pytest.mark.filterwarnings("ignore:the reward difference is beyond float64:RuntimeWarning")
def test_shapes_are_increasing(shape, s, step):
    assert shape.difference(s, s - step) > 0

"""Values, slopes and curvatures of every shape, against mpmath and against autograd."""

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
    JensenShannon,
    LogOdds,
    SquaredLog,
)

m = mpmath


def softplus(x):
    return m.log1p(m.exp(x))


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


@settings(max_examples=40, deadline=None)
@given(s=st.floats(-700, -1e-6), step=st.floats(1e-9, 10))
@pytest.mark.parametrize("shape", [*list(SHAPES)[3:], Alpha(0.5), Alpha(-0.5)], ids=str)
@pytest.mark.filterwarnings("ignore:the reward difference is beyond float64:RuntimeWarning")
def test_shapes_are_increasing(shape, s, step):
    assert shape.difference(s, s - step) > 0

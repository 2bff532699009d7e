"""Losses and slopes of every link, against mpmath and against autograd."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardshape.theory import (
    Exponential,
    Hinge,
    Linear,
    Logistic,
    LogRatioModulated,
    ReverseKL,
    Sigmoid,
    Smoothed,
    Squared,
    objective,
)
from tests.theory.test_shapes import close, m, softplus


def sigma(x):
    return 1 / (1 + m.exp(-x))


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


def test_a_link_with_a_target_for_every_pair_is_asked_of_all_at_once():
    targets = np.linspace(0.5, 1.5, 20_000)  # more than one block
    z = np.linspace(-1, 2, 20_000)
    np.testing.assert_allclose(Squared(targets).loss(z), (z - targets) ** 2)


def test_the_logarithm_of_0_is_no_overflow():
    """Beyond its target a hinge has slope 0 and its pair weight 0: their logarithms are −∞, and nothing is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Hinge().log_slope(5.0) == -np.inf
        w_w, w_l = objective("slic").log_weights(np.array([0.0, 5.0]), np.array([0.0, -5.0]))
    assert (w_w[1], w_l[1]) == (-np.inf, -np.inf)

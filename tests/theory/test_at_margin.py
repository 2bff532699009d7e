"""Where a pair is at a given margin, against its integrated equations of motion and against the derivative."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rewardshape.theory import (
    Gram,
    alpha_sensitivity,
    break_even_score,
    displacement_at_margin,
    effective_beta,
    margin_at_pull,
    objective,
    point_at_margin,
    remaining_pull,
)

NEAR = Gram(1.0, 1.1, 1.5)


def phi(alpha, s):
    return s if alpha == 0 else -np.expm1(-alpha * s) / alpha


@pytest.mark.parametrize("margin", [0.0, 1.0, 3.0])
def test_the_point_is_where_the_integrated_pair_has_that_margin(margin, trajectory, random_pairs):
    """NaN exactly where the pair goes on for ever without it, near-parallel gradients included."""
    never = 0
    for alpha, gram, s_w, s_l in random_pairs(seed=int(10 * margin), count=60):
        needed = (margin + 0.25) / 2.5
        if phi(alpha, s_w) - phi(alpha, s_l) >= needed:
            truth = (s_w, s_l)
        else:
            truth = trajectory(
                alpha,
                gram,
                s_w,
                s_l,
                lambda w, low, alpha=alpha, needed=needed: phi(alpha, w) - phi(alpha, low) - needed,
            )
        ours = point_at_margin(alpha, Gram(*gram), s_w, s_l, margin=margin, beta=2.5, gamma=0.25)
        if truth is None:
            never += 1
            assert np.isnan(ours).all()
        else:
            np.testing.assert_allclose(ours, truth, rtol=1e-6, atol=1e-7)
    assert never < 30


@pytest.mark.parametrize(
    ("alpha", "gram", "s_w", "s_l", "options"),
    [
        (-0.25, (13.976, 18.68963, 24.994295), -2.2148, -0.2989, (0.80267, 1.32331, 0.0356)),
        (
            -1.0,
            (1.0, 1.4421869907459872, 2.080319359345642),
            -1.642372442455322,
            -1.6318503094525685,
            (0.0, 2.5, 0.25),
        ),
    ],
)
def test_a_point_whose_accumulated_weight_overflows_is_found(alpha, gram, s_w, s_l, options, trajectory):
    """ρ·exprel(−α(c−b)·W) is beyond float64 long before the pair is there."""
    margin, beta, gamma = options
    needed = (margin + gamma) / beta
    truth = trajectory(alpha, gram, s_w, s_l, lambda w, low: phi(alpha, w) - phi(alpha, low) - needed)
    ours = point_at_margin(alpha, Gram(*gram), s_w, s_l, margin=margin, beta=beta, gamma=gamma)
    np.testing.assert_allclose(ours, truth, atol=1e-5)


def test_it_is_the_start_where_the_margin_is_there_already():
    here = point_at_margin(0.5, Gram(1.0, 0.5, 1.0), -1.0, -3.0, margin=0.0, beta=1.0, gamma=0.5)
    assert here == (-1.0, -3.0)


def test_bounded_reward_reaches_a_target_beyond_its_bound_only_above_probability_one():
    """α = −1 and β = 1 bound the margin by 1: the path gets there only with s_w > 0, which no probability has."""
    s_w, _ = point_at_margin(-1.0, Gram(1.0, 0.2, 1.0), -1.0, -1.2, margin=0.0, beta=1.0, gamma=1.2)
    assert s_w > 0


@settings(max_examples=40, deadline=None)
@given(
    a=st.floats(0.1, 4),
    c=st.floats(0.1, 4),
    cosine=st.floats(-0.95, 0.95),
    s_w=st.floats(-4, -0.05),
    s_l=st.floats(-4, -0.05),
    target=st.floats(0.05, 1.5),
)
def test_sensitivity_is_the_derivative_of_displacement_at_equal_margin(a, c, cosine, s_w, s_l, target):
    gram = Gram(a, cosine * np.sqrt(a * c), c)
    assume(abs(s_w - s_l - target) > 1e-3)
    options = {"margin": target - 0.5, "beta": 1.0, "gamma": 0.5}
    up, down = displacement_at_margin(np.array([1e-4, -1e-4]), gram, s_w, s_l, **options)
    parts = alpha_sensitivity(gram, s_w, s_l, **options)
    assert parts.shortening + parts.bending == pytest.approx((up - down) / 2e-4, rel=1e-4, abs=1e-6)


def test_a_pair_that_has_its_margin_is_moved_by_no_alpha():
    parts = alpha_sensitivity(NEAR, -1.0, -3.0, margin=0.0, beta=2.5, gamma=0.25)
    assert parts == (0.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(alpha=st.floats(-2, 2), s_w=st.floats(-4, -0.05), s_l=st.floats(-4, -0.05))
def test_effective_beta_gives_alpha_zero_the_same_margin(alpha, s_w, s_l):
    made = objective("alphapo", alpha=alpha, beta=2.0, gamma=0.0)
    plain = objective("simpo", beta=float(effective_beta(alpha, s_w, s_l, beta=2.0)), gamma=0.0)
    assert plain.margin(s_w, s_l) == pytest.approx(made.margin(s_w, s_l), rel=1e-12)


def test_effective_beta_where_one_of_its_factors_overflows():
    """β (1 − e^(−αΔ)) e^(−αs_l)/(αΔ), by mpmath."""
    for alpha, s_w, s_l in ((-2.0, -1.0, -2000.0), (2.0, -1.0, -300.0), (1e-9, -1.0, -2.0)):
        with mpmath.workdps(60):
            a, w, low = map(mpmath.mpf, (alpha, s_w, s_l))
            truth = (mpmath.exp(-a * low) - mpmath.exp(-a * w)) / (a * (w - low))
        assert effective_beta(alpha, s_w, s_l, beta=1.0) == pytest.approx(float(truth), rel=1e-9)


def test_remaining_pull_is_the_weight_beside_its_largest():
    made = objective("simpo", beta=1.0, gamma=0.0)
    for z in (-3.0, 0.0, 1.0, 2.944):
        assert remaining_pull(z) == pytest.approx(made.weights(z, 0.0)[0], rel=1e-14)
        assert margin_at_pull(remaining_pull(z)) == pytest.approx(z, abs=1e-14)
    assert remaining_pull(0.0) == 0.5
    assert remaining_pull(2.944) == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize("alpha", [0.1, 0.25, 1.0])
@pytest.mark.parametrize("margin", [0.0, 1.0, 3.0])
def test_break_even_parts_the_scores_where_alpha_helps_from_those_where_it_harms(alpha, margin, trajectory):
    options = {"margin": margin, "beta": 2.5, "gamma": 0.25}
    even = break_even_score(alpha, NEAR, **options)
    needed = (margin + 0.25) / 2.5
    for s, helps in ((even - 0.2, True), (even, None), (even + 0.2, False)):
        moved = [
            trajectory(one, NEAR, s, s, lambda w, low, one=one: phi(one, w) - phi(one, low) - needed)[0] - s
            for one in (alpha, 0.0)
        ]
        if helps is None:
            assert moved[0] == pytest.approx(moved[1], abs=1e-8)
        else:
            assert (moved[0] > moved[1]) == helps


def test_where_the_chosen_rises_anyway_there_is_no_break_even():
    assert np.isnan(break_even_score(0.25, Gram(2.0, 0.5, 1.5), margin=0.0, beta=2.5, gamma=0.25))

"""`suggest` against a slow direct computation, one pair and one setting at a time."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rewardshape.analysis.choosing import suggest
from rewardshape.errors import InputError
from rewardshape.theory import Alpha, Gram, displacement_at_margin, objective, path

NEAR = Gram(1.0, 1.1, 1.5)
GRID = {"alpha": [-1.0, 0.0, 0.25, 1.0], "beta": [1.0, 2.5], "gamma": [0.25, 1.2]}


@pytest.fixture
def pairs(rng):
    s_w = -rng.gamma(4, 0.3, 60)
    return s_w, np.minimum(s_w + rng.normal(-0.1, 0.4, 60), -0.01)


@pytest.mark.filterwarnings("ignore:.*never exceeds.*:UserWarning")
def test_shares_are_those_of_a_count_pair_by_pair(pairs):
    s_w, s_l = pairs
    table = suggest(s_w, s_l, **GRID, target_margin=0.0, saturated_below=0.3).table
    assert len(table) == 16
    for row in table.itertuples():
        made = objective("alphapo", alpha=row.alpha, beta=row.beta, gamma=row.gamma)
        w_w, _ = made.weights(s_w, s_l)
        assert row.saturated == pytest.approx(np.mean(w_w < 0.3 * row.beta * Alpha(row.alpha).slope(s_w)))
        if row.alpha >= 0:
            assert (row.out_of_reach, row.needs_gain) == (0.0, 0.0)
        else:
            best_of_all = made.margin(0.0, -1e3)
            best_as_it_is = made.margin(s_w, np.full_like(s_w, -1e3))
            assert row.out_of_reach == float(best_of_all <= 0)
            assert row.needs_gain == pytest.approx(np.mean(best_as_it_is <= 0))


def test_displacement_at_a_margin_is_the_mean_over_stopping_points(pairs):
    s_w, s_l = pairs
    table = suggest(s_w, s_l, **GRID, target_margin=0.0, saturated_below=0.05, gram=NEAR, paths=60).table
    for row in table.itertuples():
        moved = displacement_at_margin(row.alpha, NEAR, s_w, s_l, margin=0.0, beta=row.beta, gamma=row.gamma)
        moved = np.where(s_w + moved > 0, np.nan, moved)
        if np.isfinite(moved).all():
            assert row.displacement == pytest.approx(moved.mean(), rel=0.02, abs=1e-4)
        assert row.reached == pytest.approx(np.isfinite(moved).mean(), abs=0.02)


def test_displacement_at_a_gap_is_the_mean_over_paths(pairs):
    s_w, s_l = pairs
    lengths = np.arange(1.0, 61.0)
    table = suggest(
        s_w,
        s_l,
        alpha=[0.0, 0.5],
        beta=1.0,
        gamma=0.5,
        target_gap=0.6,
        saturated_below=0.05,
        gram=NEAR,
        num_tokens=lengths,
    ).table
    for row in table.itertuples():
        end_w, _ = path(row.alpha, NEAR, s_w, s_l, np.maximum(0.6, s_w - s_l))
        reachable = np.isfinite(end_w)
        assert row.displacement == pytest.approx((end_w - s_w)[reachable].mean(), rel=1e-12)
        assert row.displacement_sum == pytest.approx(((end_w - s_w) * lengths)[reachable].mean(), rel=1e-12)


def test_a_setting_that_saturates_before_the_gap_does_not_reach_it():
    s = np.array([-1.0])
    table = suggest(
        s, s, alpha=0.0, beta=[1.0, 20.0], gamma=0.0, target_gap=1.0, saturated_below=0.1, gram=NEAR
    ).table
    assert table.reached.tolist() == [1.0, 0.0]  # σ(−1) = 0.27 and σ(−20) = 2e-9


def test_best_reaches_the_target_with_the_least_displacement(pairs):
    found = suggest(*pairs, **GRID, target_margin=0.0, saturated_below=0.05, gram=NEAR)
    rivals = found.table[found.table.reached == found.table.reached.max()]
    assert found.best["displacement"] == rivals.displacement.max()
    assert found.best["reached"] == rivals.reached.max()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma_beta_ratio": 0.5}, "exactly one"),
        ({"target_gap": 1.0}, "exactly one"),
        ({"target_margin": None, "target_gap": 1.0}, "needs gram"),
        ({"saturated_below": 1.5}, "saturated_below must be less than 1"),
        ({"beta": [1.0, 0.0]}, "beta must be greater than 0"),
    ],
)
def test_impossible_requests_are_refused(changes, message):
    s = np.array([-1.0, -2.0])
    options = {"alpha": 0.0, "beta": 1.0, "gamma": 0.5, "target_margin": 0.0, "saturated_below": 0.05}
    with pytest.raises(InputError, match=message):
        suggest(s, s, **(options | changes))


def test_a_hundred_thousand_pairs_and_a_thousand_settings_take_well_under_a_second(rng):
    s_w, s_l = -rng.gamma(4, 0.3, (2, 100_000))
    grid = {"alpha": np.linspace(-0.5, 1, 10), "beta": np.linspace(1, 10, 10), "gamma": np.linspace(0, 3, 10)}
    suggest(s_w[:10], s_l[:10], **grid, target_margin=0.0, saturated_below=0.05, gram=NEAR)
    start = time.process_time()
    table = suggest(s_w, s_l, **grid, target_margin=0.0, saturated_below=0.05, gram=NEAR).table
    assert time.process_time() - start < 2.0  # measured: about 0.2 s on one core, on a busy machine more
    assert len(table) == 1000

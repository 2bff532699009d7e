"""Identities of a loss and its margins: those of made pairs hold, and what breaks one is named."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from rewardshape.verdict.sanity import effective_scale, loss_is_logistic, sanity_checks, target_margin


def table_of_pairs(beta_times_difference, *, scale=1.0, gamma=0.0):
    """Mean loss and mean margin of made pairs, row by row, from the logistic loss of every pair."""
    pairs = np.asarray(beta_times_difference, float)
    return pd.DataFrame(
        {
            "loss": np.logaddexp(0, -(pairs - gamma)).mean(axis=1),
            "margin": pairs.mean(axis=1) / scale,
            "reward_chosen": 0.0,
            "reward_rejected": -pairs.mean(axis=1) / scale,
        }
    )


def test_an_honest_log_breaks_no_identity():
    pairs = (
        np.random.default_rng(0).normal(0, 1, (12, 64)) * np.linspace(0, 1, 12)[:, None]
        + np.linspace(0, 2, 12)[:, None]
    )
    assert sanity_checks(table_of_pairs(pairs), reference_free=False, beta=0.1) == []


def test_a_summed_first_loss_is_seen():
    table = pd.DataFrame(
        {"loss": [4 * math.log(2), 2.5], "reward_chosen": [0.0, 0.1], "reward_rejected": [0.0, -0.1]}
    )
    assert "4 × ln 2" in sanity_checks(table, reference_free=False, beta=0.1)[0]


@pytest.mark.parametrize("first", [25.0, 2500.0, 3 * math.log(2), 36 * math.log(2)])
def test_another_loss_is_not_taken_for_a_sum(first):
    """IPO starts at (1/2β)², which lies near some multiple of ln 2, since every large number does."""
    table = pd.DataFrame(
        {"loss": [first, first], "reward_chosen": [0.0, 0.01], "reward_rejected": [0.0, -0.01]}
    )
    [found] = sanity_checks(table, reference_free=False, beta=0.1)
    assert "the loss is not plain DPO" in found


def test_a_loss_below_jensen_s_bound_is_not_logistic():
    table = pd.DataFrame({"loss": [0.5, 0.3, 0.2], "margin": [0.2, 0.3, 0.4]})
    assert "no logistic loss" in " ".join(sanity_checks(table, reference_free=False, beta=0.1))


def test_the_scale_of_margins_logged_without_beta_is_found():
    pairs = np.linspace(0, 0.08, 10)[:, None] + np.zeros((10, 8))
    assert effective_scale(table_of_pairs(pairs)) == pytest.approx(1.0, rel=0.02)
    assert effective_scale(table_of_pairs(pairs, scale=0.1)) == pytest.approx(0.1, rel=0.02)


def test_the_target_margin_is_given_in_both_conventions():
    pairs = np.linspace(0, 0.5, 10)[:, None] + np.zeros((10, 8))
    sentence = target_margin(table_of_pairs(pairs, gamma=1.25), 2.5)
    assert "at most 1.25 in reward units, that is γ/β = 0.50" in sentence


def test_orpo_implies_no_target_margin():
    rows = 10
    table = pd.DataFrame(
        {
            "split": "train",
            "step": np.arange(1, 11),
            "loss": 0.8,
            "margin": -0.016,
            "log_odds_chosen": -0.8,
            "accuracy": 0.0,
        }
    )
    assert rows == len(table)
    assert target_margin(table, 0.1) is None


def test_a_margin_that_is_no_difference_is_counted():
    table = pd.DataFrame(
        {"reward_chosen": [0.1, 0.2, 0.3], "reward_rejected": 0.0, "margin": [0.1, -0.2, -0.3]}
    )
    [check] = sanity_checks(table, reference_free=False, beta=None)
    assert "in 2 of 3 rows (off by up to 0.6)" in check


@pytest.mark.parametrize(
    ("first", "link"), [(1.0, "the hinge loss"), (0.5, "the KTO loss"), (0.85, "not plain DPO")]
)
def test_the_first_loss_tells_the_link(first, link):
    table = pd.DataFrame({"loss": [first], "reward_chosen": [0.0], "reward_rejected": [0.0]})
    assert link in sanity_checks(table, reference_free=False, beta=None)[0]


def test_unpaired_examples_break_no_identity_of_pairs():
    table = pd.DataFrame({"loss": [9.0], "reward_chosen": [0.0], "reward_rejected": [0.0], "kl": [0.1]})
    assert sanity_checks(table, reference_free=False, beta=None) == []
    assert not loss_is_logistic(table)


def test_another_loss_is_not_put_beside_ln_2():
    """The identity-preference loss of real runs is a square of nats; a hinge or a KTO loss is known by its name."""
    ipo = pd.DataFrame(
        {"loss": [16.4, 13.6], "reward_chosen": [-0.22, -0.47], "reward_rejected": [-0.37, -0.7]}
    )
    ipo["margin"] = ipo["reward_chosen"] - ipo["reward_rejected"]
    assert not loss_is_logistic(ipo)
    dpo = ipo.assign(loss=[0.84, 0.71], reward_chosen=[-2.5, -1.6], reward_rejected=[-3.0, -2.4])
    assert loss_is_logistic(dpo)
    assert loss_is_logistic(dpo, "sigmoid")
    assert not loss_is_logistic(dpo, "hinge")

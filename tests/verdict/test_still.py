"""A run that trains nothing is known by what does not move, and one that moves is not taken for it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rewardshape.logs.read import Log, read_logs
from rewardshape.verdict.judge import judge
from rewardshape.verdict.still import stands_still


def test_a_gradient_of_exactly_zero_is_not_training(shared):
    (log,) = read_logs(shared / "logs" / "reference-dpo-stdout-excerpt.log")
    verdict = judge(log)
    assert verdict.word == "not training"
    assert "exactly 0 in 12 of 12 rows" in verdict.reasons[0]


def test_constant_loss_is_not_training_whatever_the_accuracy(make):
    verdict = judge(make(np.zeros(6), margin=np.zeros(6), accuracy=0.9))
    assert verdict.word == "not training"
    assert "0.6931 in every row" in verdict.reasons[0]


def test_a_loss_of_zero_without_margins_is_saturated_if_accuracy_is_perfect_and_dead_if_not():
    for accuracy, word in ((1.0, "saturated"), (0.6, "not training")):
        table = pd.DataFrame({"split": "train", "step": range(1, 7), "loss": 0.0, "accuracy": accuracy})
        assert judge(Log("made", "made", table)).word == word


def test_zero_gradients_with_moving_rewards_are_a_logging_fault_and_not_believed(make):
    assert judge(make(np.linspace(0, -2, 20), grad_norm=0.0)).word == "displaced"


def rows(**series):
    return pd.DataFrame(series)


@pytest.mark.parametrize("num_rows", [12, 20])
def test_a_loss_near_ln_2_stands_still_without_a_trend_of_the_margin_and_not_with_one(num_rows):
    """Simulated: the margin grows slowly or not at all; the loss is the logistic one of it."""
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.002, num_rows)
        for growth in (0.0, 0.04):
            margin = np.linspace(0, growth, num_rows) + noise
            table = rows(loss=np.logaddexp(0, -margin), margin=margin)
            said = stands_still(table, table)
            assert (said is None) is (growth > 0)
            assert growth or f"after {num_rows} rows the loss is still ln 2" in said
            assert stands_still(table[:7], table[:7]) is None  # too short to have learnt


def test_gradients_of_zero_count_only_where_nearly_all_are():
    norms = np.zeros(20)
    table = rows(loss=0.69 + np.tile([0.0, 0.01], 10), grad_norm=norms)
    assert "exactly 0 in 20 of 20 rows" in stands_still(table, table)
    table = table.assign(grad_norm=np.r_[1.0, 1.0, norms[2:]])
    assert stands_still(table, table) is None


def test_a_loss_of_nothing_in_training_is_no_standstill_where_the_other_rows_or_log_probs_move():
    flat = rows(loss=[0.0001] * 8)
    held_out = rows(loss=np.linspace(1.05, 1.55, 8), reward_chosen=np.linspace(-4, -10, 8))
    assert stands_still(held_out, flat) is None
    falls = rows(loss=[0.0001] * 8, logp_chosen=np.linspace(-240, -300, 8))
    assert stands_still(falls, falls) is None
    assert "in every row" in stands_still(flat, flat)

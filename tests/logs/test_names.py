"""What columns and cells of others' logs mean."""

from __future__ import annotations

import math

import pytest

from rewardshape.logs.names import meaning, number


@pytest.mark.parametrize(
    ("key", "split", "series"),
    [
        ("rewards/chosen", None, "reward_chosen"),
        ("eval_rewards/margins", "eval", "margin"),
        ("rewards_train/accuracies", "train", "accuracy"),
        ("Val reward margins", "eval", "margin"),
        ("policy_chosen_logps", None, "logp_chosen"),
        ("log_probs/rejected", None, "logp_rejected"),
        ("reject_reward", None, "reward_rejected"),
        ("Validation Loss", "eval", "loss"),
        ("eval_zh_demo_loss", "eval:zh_demo", "loss"),
        ("eval_zh_demo_nll_loss", "eval:zh_demo", "nll_loss"),
        ("eval/zh_demo_rewards/chosen", "eval:zh_demo", "reward_chosen"),
        ("eval/train_loss", "eval:train", "loss"),
        ("eval/test_loss", "eval:test", "loss"),
        ("eval/mean_loss", "eval", "loss"),
        ("eval/ref_logps/chosen", "eval", "ref_logp_chosen"),
        ("eval/nll_loss", "eval", "nll_loss"),
        ("trainer/global_step", None, "step"),
        ("eval_nll_loss", "eval", "nll_loss"),
        ("lr", None, "learning_rate"),
        ("train/global_step", "train", "step"),
        ("mean_token_accuracy", None, None),
        ("logits/chosen", None, None),
        ("eval_runtime", "eval", None),
    ],
)
def test_keys_mean_what_their_trainers_mean(key, split, series):
    assert meaning(key) == (split, series)


@pytest.mark.parametrize(
    ("cell", "value"),
    [("'0.5'", 0.5), ("**-1.5e-3**", -1.5e-3), ("85.5%", 0.855), ("1,234.5", 1234.5), ("−2", -2.0), ("1.2 ± 0.1", 1.2),
     ("tensor(0.25, device='cuda:0')", 0.25), ("inf", math.inf), (True, None), ("No log", None), ("", None),
     ("1:20", None)],
)  # fmt: skip
def test_numbers_are_read_out_of_their_dress(cell, value):
    assert number(cell) == value

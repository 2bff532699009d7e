"""Losses of each response on its own, against the formulas of their trainers."""

from __future__ import annotations

import numpy as np

from rewardshape.theory import objective


def test_kto_with_a_given_reference_point_is_the_trainers_loss():
    """KTOTrainer: 1 − σ(β(log-ratio − KL)) for a chosen response, 1 − σ(β(KL − log-ratio)) for a rejected one."""
    s_w, s_l, kl = np.array([1.0, -2.0]), np.array([0.5, -4.0]), 0.7
    sigma = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    truth = 1 - sigma(0.1 * (s_w - kl)) + 1 - sigma(0.1 * (kl - s_l))
    np.testing.assert_allclose(objective("kto", reference_point=kl).loss(s_w, s_l), truth, rtol=1e-14)


def test_bco_shift_is_the_mean_reward_of_the_batch():
    s_w, s_l = np.array([1.0, 3.0]), np.array([0.0, -2.0])
    shifted = objective("bco", beta=0.5, shift="batch_mean")
    np.testing.assert_allclose(shifted.loss(s_w, s_l), objective("bco", beta=0.5, shift=0.5).loss(s_w, s_l))

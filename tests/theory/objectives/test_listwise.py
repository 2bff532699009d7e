"""Losses of a list of responses, against the paper's double sum, against DPO and against autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rewardshape.theory import objective


class TestLipo:
    def test_two_responses_are_dpo(self):
        s_w, s_l = np.array([0.3, -2.0, 5.0]), np.array([0.1, 1.0, -5.0])
        lipo, dpo = objective("lipo", beta=0.5), objective("dpo", beta=0.5)
        np.testing.assert_allclose(lipo.loss(s_w, s_l), dpo.loss(s_w, s_l), rtol=1e-14)
        np.testing.assert_allclose(lipo.weights(s_w, s_l), dpo.weights(s_w, s_l), rtol=1e-14)
        lists = np.stack([s_l, s_w], axis=-1)  # the order within a list does not matter
        np.testing.assert_allclose(
            lipo.list_loss(lists, np.array([0.0, 1.0])), dpo.loss(s_w, s_l), rtol=1e-14
        )

    def test_four_responses_against_a_loop_over_the_papers_double_sum(self, rng):
        s, psi, beta = rng.normal(size=4), np.array([0.2, 0.9, 0.5, 0.1]), 0.7
        rank = {i: 1 + sum(s[j] > s[i] for j in range(4)) for i in range(4)}
        loss = 0.0
        for i in range(4):
            for j in range(4):
                if psi[i] > psi[j]:
                    discount = abs(1 / math.log(1 + rank[i]) - 1 / math.log(1 + rank[j]))
                    loss += (
                        abs(2 ** psi[i] - 2 ** psi[j])
                        * discount
                        * math.log1p(math.exp(-beta * (s[i] - s[j])))
                    )
        assert objective("lipo", beta=beta, normalized=False).list_loss(s, psi) == pytest.approx(
            loss, rel=1e-13
        )

    def test_weights_are_the_gradient_and_sum_to_zero(self, rng):
        s = torch.tensor(rng.normal(size=(5, 6)), requires_grad=True)
        labels = torch.tensor(rng.integers(0, 4, (5, 6)).astype(float))
        made = objective("lipo", beta=0.7)
        grad = torch.autograd.grad(made.list_loss(s, labels).sum(), s)[0]
        weights = made.list_weights(s.detach(), labels)
        torch.testing.assert_close(weights, -grad)
        torch.testing.assert_close(weights.sum(-1), torch.zeros(5, dtype=torch.float64), atol=1e-14, rtol=0)

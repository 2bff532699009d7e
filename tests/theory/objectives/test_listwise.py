"""Losses of a list of responses, against the paper's double sum, against DPO and against autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rewardshape.theory import Responses, objective


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


class TestPro:
    def test_rankings_of_any_length_have_the_authors_loss(self, rng):
        """Stage by stage: the best against all worse ones, then the best of the rest, …, at temperatures of its own."""
        for length in (2, 3, 5):
            scores, rewards = (
                torch.tensor(rng.normal(size=length)),
                np.sort(rng.normal(size=length))[::-1].copy(),
            )
            rewards = torch.tensor(rewards)
            total = torch.tensor(0.0, dtype=torch.float64)
            for stage in range(length - 1):
                negatives = rewards[stage] - rewards[stage + 1 :]
                positive = negatives.max()
                denominator = torch.exp(scores[stage] * positive)
                denominator = denominator + torch.exp(scores[stage + 1 :] * negatives).sum()
                total = total + torch.log(denominator) - scores[stage] * positive
            ranked = objective("pro").terms[0][1]
            assert float(ranked.list_loss(scores, rewards)) == pytest.approx(float(total), rel=1e-12)
            order = torch.randperm(length, generator=torch.Generator().manual_seed(length))
            assert float(ranked.list_loss(scores[order], rewards[order])) == pytest.approx(
                float(total), rel=1e-12
            )

    def test_weights_are_the_gradient(self, rng):
        s = torch.tensor(rng.normal(size=(5, 6)), requires_grad=True)
        labels = torch.tensor(rng.integers(0, 4, (5, 6)).astype(float))
        ranked = objective("pro").terms[0][1]
        grad = torch.autograd.grad(ranked.list_loss(s, labels).sum(), s)[0]
        torch.testing.assert_close(ranked.list_weights(s.detach(), labels), -grad)

    def test_a_ranking_of_two_is_the_pair(self):
        ranked = objective("pro").terms[0][1]
        w = Responses(np.array([-4.0]), np.array([4.0]), label=np.array([2.5]))
        r = Responses(np.array([-9.0]), np.array([3.0]), label=np.array([1.0]))
        listed = ranked.list_loss(np.array([-3.0, -1.0]), np.array([1.0, 2.5]))
        assert ranked.pair_loss(w, r)[0] == pytest.approx(float(listed), rel=1e-13)

"""The softmax model, whose Gram matrix moves, against gradient descent and against the fixed-Gram path."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.theory import Gram, objective, path, softmax_flow


class TestSoftmaxModel:
    @pytest.fixture
    def features(self, rng):
        """40 responses; chosen and rejected are near each other, as two answers of one policy are."""
        x = rng.normal(size=(40, 12))
        x[1] = 0.75 * x[0] + 0.85 * x[1]
        return x

    def test_flow_is_gradient_descent_on_the_loss(self, features):
        made = objective("alphapo", alpha=0.5, beta=1.0, gamma=0.5)
        theta, rate = np.zeros(12), 1e-4
        for _ in range(2000):
            logits = features @ theta
            logp = logits - np.logaddexp.reduce(logits)
            w_w, w_l = made.weights(logp[0], logp[1])
            mean = np.exp(logp) @ features
            theta += rate * (w_w * (features[0] - mean) - w_l * (features[1] - mean))
        logits = features @ theta
        end = softmax_flow(made, features, 0, 1, np.array([0.0, 0.2]))
        np.testing.assert_allclose(end["logp_chosen"][-1], logits[0] - np.logaddexp.reduce(logits), atol=2e-3)

    @pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5])
    def test_gram_entries_are_those_of_the_score_gradients(self, features, alpha):
        out = softmax_flow(objective("alphapo", alpha=alpha), features, 0, 1, np.linspace(0, 0.1, 2))
        centred = features - features.mean(0)
        np.testing.assert_allclose(out["gram_wl"][0], centred[0] @ centred[1])

    @pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5])
    def test_fixed_gram_path_is_exact_to_first_order(self, features, alpha):
        out = softmax_flow(
            objective("alphapo", alpha=alpha, beta=1.0), features, 0, 1, np.array([0.0, 1e-4, 2e-4])
        )
        gram = Gram(out["gram_ww"][0], out["gram_wl"][0], out["gram_ll"][0])
        gap = out["logp_chosen"] - out["logp_rejected"]
        ours, _ = path(alpha, gram, out["logp_chosen"][0], out["logp_rejected"][0], gap)
        moved = out["logp_chosen"] - out["logp_chosen"][0]
        errors = np.abs(ours - out["logp_chosen"])[1:]
        assert np.all(errors < 1e-2 * np.abs(moved[1:]))
        assert errors[1] / errors[0] == pytest.approx(4, rel=0.2)  # the error is of second order

    @pytest.mark.parametrize(("chosen", "rises"), [(-0.5, False), (-4.0, True)])
    def test_unseen_responses_of_a_table_gain_exactly_where_the_rejected_is_the_likelier(self, chosen, rises):
        """One logit for each response: the others move by −w·(π_w − π_l), whatever they are."""
        start = np.array([chosen, -2.0, -1.0, -1.5, -2.5])
        out = softmax_flow(objective("dpo", beta=0.5), np.eye(5), 0, 1, np.array([0.0, 0.01, 0.02]), start)
        assert (out["logp_others"][1] > out["logp_others"][0]) == rises
        assert np.allclose(
            np.exp(out["logp_others"]) + np.exp(out["logp_chosen"]) + np.exp(out["logp_rejected"]), 1
        )

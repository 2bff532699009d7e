"""The score of a response, against scores worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rewardshape.theory import Responses, objective
from rewardshape.theory.scores import Score


def test_dpo_is_worked_by_hand():
    chosen = Responses(np.array([-10.0]), np.array([5]), np.array([-12.0]))
    rejected = Responses(np.array([-20.0]), np.array([8]), np.array([-19.0]))
    dpo = objective("dpo", beta=0.5)
    assert dpo.pair_margin(chosen, rejected) == pytest.approx(0.5 * (2 - -1))
    assert dpo.pair_loss(chosen, rejected) == pytest.approx(math.log1p(math.exp(-1.5)))
    assert dpo.pair_weights(chosen, rejected)[0] == pytest.approx(0.5 / (1 + math.exp(1.5)))


def test_pair_entry_is_the_two_score_entry_on_scores(rng):
    made = objective("alphapo")
    logp, tokens = -rng.exponential(50, (2, 30)), rng.integers(1, 40, (2, 30))
    chosen, rejected = Responses(logp[0], tokens[0]), Responses(logp[1], tokens[1])
    s_w, s_l = made.score(logp[0], tokens[0]), made.score(logp[1], tokens[1])
    np.testing.assert_array_equal(made.pair_loss(chosen, rejected), made.loss(s_w, s_l))
    np.testing.assert_array_equal(made.pair_weights(chosen, rejected), made.weights(s_w, s_l))


@pytest.mark.parametrize(
    ("reference", "per_token", "truth", "per_nat", "formula"),
    [
        (False, False, -10.0, 1.0, "log π"),
        (False, True, -10.0 / 5, 1 / 5, "log π/|y|"),
        (True, False, -10.0 + 12.0, 1.0, "log π/π_ref"),
        (True, True, (-10.0 + 12.0) / 5, 1 / 5, "(log π/π_ref)/|y|"),
    ],
)
def test_each_bracket_of_the_score_is_optional(reference, per_token, truth, per_nat, formula):
    score = Score(reference=reference, per_token=per_token)
    assert score(np, -10.0, 5, -12.0) == truth
    assert score.per_nat(5) == per_nat == pytest.approx((score(np, -9.5, 5, -12.0) - truth) / 0.5)
    assert score.formula == formula

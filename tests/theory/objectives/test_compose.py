"""Objectives composed from parts, also from parts that this package does not know."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rewardshape.errors import InputError
from rewardshape.theory import (
    Alpha,
    Hinge,
    Link,
    LogRatioModulated,
    Responses,
    Shape,
    compose,
    objective,
)
from tests.theory.test_parts import Wrong


@dataclasses.dataclass(frozen=True)
class Softsign(Shape):
    """φ(s) = s/(1 + |s|/scale): bounded by ±scale."""

    scale: float = 2.0

    def compute_reward(self, xp, s):
        return s / (1 + xp.abs(s) / self.scale)

    def compute_slope(self, xp, s):
        return 1 / (1 + xp.abs(s) / self.scale) ** 2


class Wave(Shape):
    """Not increasing, and says so."""

    increasing = False

    def compute_reward(self, xp, s):
        return xp.sin(s)

    def compute_slope(self, xp, s):
        return xp.cos(s)


class Cubed(Link):
    """ℓ(z) = max(0, 1 − z)³, which no paper has."""

    def compute_loss(self, xp, z):
        return xp.where(z < 1, (1 - z) ** 3, 0.0 * z)

    def compute_slope(self, xp, z):
        return xp.where(z < 1, -3 * (1 - z) ** 2, 0.0 * z)


def test_built_in_parts_make_the_published_objectives(make_batch):
    chosen, rejected = make_batch(seed=3).responses()
    same = [
        (compose(score="logp_mean", shape=Alpha(0.25), beta=2.5, gamma=0.25), objective("alphapo")),
        (
            compose(
                score="logp_mean", shape={"name": "alpha", "alpha": 0.25}, beta=2.5, gamma_beta_ratio=0.1
            ),
            objective("alphapo"),
        ),
        (compose(score="log_ratio", beta=0.1), objective("dpo")),
        (compose(score="log_ratio_mean", beta=5.0), objective("ln_dpo")),
        (compose(score="log_ratio", link="hinge", beta=0.1), objective("slic")),
        (compose(score="log_ratio", shape="chi_squared", beta=0.05), objective("chipo")),
        (compose(score="log_ratio", beta=0.1, label_smoothing=0.1), objective("cdpo")),
        (compose(score="log_ratio", beta=0.1, sft=1.0), objective("rpo")),
        (compose(score="logp_sum", beta=0.1, sft=1.0), objective("cpo")),
        (
            compose(score="log_ratio", link={"name": "log_ratio_modulated", "tau": 0.05}, beta=0.05),
            objective("discopop"),
        ),
    ]
    for ours, published in same:
        torch.testing.assert_close(ours.pair_loss(chosen, rejected), published.pair_loss(chosen, rejected))
        for mine, theirs in zip(
            ours.pair_weights(chosen, rejected), published.pair_weights(chosen, rejected), strict=True
        ):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "link", [Hinge(), Cubed(), LogRatioModulated(0.3)], ids=lambda link: type(link).__name__
)
@pytest.mark.parametrize("shape", [Softsign(), Wave()], ids=lambda shape: type(shape).__name__)
@pytest.mark.parametrize("extra", [{}, {"label_smoothing": 0.2}, {"sft": 0.3}], ids=str)
def test_weights_of_a_foreign_composition_are_the_derivatives_of_its_loss(shape, link, extra, make_batch):
    made = compose(score="log_ratio", shape=shape, link=link, beta=0.7, gamma=0.2, **extra)
    batch = make_batch(seed=5, pairs=8)
    chosen, rejected = batch.responses()
    # the loss again, from the definitions
    u_w, u_l = chosen.logp_sum - chosen.ref_logp_sum, rejected.logp_sum - rejected.ref_logp_sum
    z = 0.7 * (shape.compute_reward(torch, u_w) - shape.compute_reward(torch, u_l)) - 0.2
    noise = extra.get("label_smoothing", 0.0)
    truth = (1 - noise) * link.compute_loss(torch, z) + noise * link.compute_loss(torch, -z)
    truth = truth - extra.get("sft", 0.0) * chosen.logp_sum / chosen.num_tokens
    torch.testing.assert_close(made.pair_loss(chosen, rejected), truth)
    grads = [
        torch.autograd.grad(loss.sum(), batch.token_logps, retain_graph=True)[0]
        for loss in (made.pair_loss(chosen, rejected), truth)
    ]
    torch.testing.assert_close(*grads)
    w_w, w_l = made.pair_weights(chosen, rejected)
    torch.testing.assert_close(torch.cat([-w_w, w_l]), grads[1][:, 0])


def test_curvature_follows_from_the_slope():
    s = np.array([-5.0, -1.0, -0.1])
    np.testing.assert_allclose(Softsign().curvature(s), 2 / 2 / (1 + np.abs(s) / 2) ** 3, rtol=1e-9)
    np.testing.assert_allclose(Wave().curvature(s), -np.sin(s), rtol=1e-8)
    assert Softsign().log_slope(-2.0) == pytest.approx(math.log(0.25))
    assert Softsign().bounds(reference=True) == (-math.inf, math.inf)


def test_simper_is_in_reach():
    """The authors' loss: −exp(mean log-prob of chosen) + exp(that of rejected)."""
    simper = compose(score="logp_mean", shape=Alpha(-1.0), link="linear", beta=1.0)
    chosen, rejected = (Responses(np.array([-9.0, -3.0]), np.array(n)) for n in ([3, 2], [9, 1]))
    truth = -np.exp([-3.0, -1.5]) + np.exp([-1.0, -3.0])
    np.testing.assert_allclose(simper.pair_loss(chosen, rejected), truth, rtol=1e-14)


@pytest.mark.parametrize(
    "made",
    [
        compose(score="logp_mean", shape=Alpha(-0.5), link="sigmoid", beta=2.0, gamma=0.1, sft=0.2),
        compose(score="log_ratio", shape=Softsign(3.0), link=Cubed(), beta=0.5, label_smoothing=0.1),
        compose(
            score="logp_mean",
            shape=Alpha(np.array([0.0, 0.5])),
            link={"name": "clipped", "link": {"name": "logistic"}, "bound": 3.0},
            beta=1.0,
        ),
    ],
    ids=["built-in", "own", "nested"],
)
def test_a_composition_is_made_again_from_its_parameters(made):
    again = objective(made.name, **json.loads(json.dumps(made.parameters)))
    s_w, s_l = np.array([-1.0, -2.0]), np.array([-2.0, -0.5])
    np.testing.assert_array_equal(again.margin(s_w, s_l), made.margin(s_w, s_l)) if made.two_scores else None
    assert again.parameters == made.parameters


def test_a_part_whose_module_is_not_imported_is_named():
    shape = {"name": "some_module:Shape", "scale": 1.0}
    with pytest.raises(InputError, match="import some_module first"):
        compose(score="logp_mean", shape=shape, beta=1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": Wrong()}, r"Wrong.compute_slope is .* it is not its derivative"),
        ({"shape": "chi"}, r"unknown shape 'chi'; the nearest valid names are: chi_squared"),
        ({"link": "logit"}, r"unknown link 'logit'; .* logistic"),
        ({"score": "mean"}, r"unknown score 'mean'; the nearest valid names are: logp_mean"),
        ({"beta": 0.0}, r"beta must be greater than 0"),
        ({"gamma": 0.1, "gamma_beta_ratio": 0.1}, r"not both"),
        ({"sft": -1.0}, r"sft must be at least 0"),
    ],
)
def test_what_makes_no_objective_is_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as refusal:
        compose(**({"score": "logp_mean", "beta": 1.0} | changes))
    assert "\n" not in str(refusal.value)


def test_unknown_arguments_of_a_recorded_composition_are_one_line():
    with pytest.raises(InputError, match="composed: got an unexpected keyword argument 'alfa'"):
        objective("composed", score="logp_mean", beta=1.0, alfa=1.0)


def test_hinge_simpo_is_as_trl_has_it(cpo_trainer_losses, rng):
    """``loss_type="hinge"`` of SimPO's own trainer: max(0, 1 − β(m_w − m_l − γ/β))."""
    m_w, m_l = (torch.tensor(-rng.exponential(1.0, 20)) for _ in range(2))
    made = compose(score="logp_mean", link="hinge", beta=2.0, gamma_beta_ratio=0.5)
    truth = F.relu(1 - 2.0 * (m_w - m_l - 0.5))
    torch.testing.assert_close(made.loss(m_w, m_l), truth)


def test_odds_are_of_a_probability_and_not_of_a_ratio_of_two():
    with pytest.raises(InputError, match="shape log_odds: of a probability"):
        compose(score="log_ratio", shape="log_odds", beta=0.1)
    assert compose(score="logp_mean", shape="log_odds", beta=0.1).loss(-1.0, -2.0) > 0

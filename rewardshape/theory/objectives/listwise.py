"""Beyond pairs: LiPO-λ and PRO on a list of K responses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from rewardshape.theory._arrays import Array, Pair, apply, detached, sigmoid, softplus, with_gradient
from rewardshape.theory.objectives.base import Objective
from rewardshape.theory.objectives.pairwise import Pairwise
from rewardshape.theory.scores import Responses

_FIRST_TWO = 1 / math.log(2) - 1 / math.log(3)  # the discount gap of ranks 1 and 2


@dataclass(frozen=True)
class Listwise(Objective):
    r"""LiPO-λ: logistic losses over all ordered pairs of a list, weighted by what swapping them would cost in DCG.

    .. math:: L = \sum_{\psi_i > \psi_j} \Delta_{ij}\, \mathrm{softplus}(-\beta (s_i - s_j)), \qquad
              \Delta_{ij} = |2^{\psi_i} - 2^{\psi_j}| \cdot
              \left| \frac{1}{\log(1+\tau_i)} - \frac{1}{\log(1+\tau_j)} \right|

    τ_i is the rank of response i by its present score, 1 for the highest; Δ carries no gradient. The paper leaves
    the base of the logarithm open, which only scales the loss: `normalized` scales it so that two responses with
    labels 1 and 0 have Δ = 1, and the loss is DPO's. Two-score and pair methods are that case.

    References
    ----------
    LiPO, arXiv:2402.01878.
    """

    remark: ClassVar[str] = "every pair i ≻ j of the list × Δ_ij"

    beta: float = 1.0
    normalized: bool = True

    def list_loss(self, scores: Array, labels: Array) -> Array:
        """The loss of each list: `scores` and `labels` ψ of shape (..., K), result (...)."""
        return apply(self.compute_list_loss, scores, labels, what="the loss", blocks=False)

    def list_weights(self, scores: Array, labels: Array) -> Array:
        """−∂L/∂s of every response, shape (..., K): positive is pulled up. They sum to 0 over a list."""
        return apply(self.compute_list_weights, scores, labels, what="a gradient weight", blocks=False)

    def compute_reward(self, xp: Any, s: Array) -> Array:
        return self.beta * s

    def compute_margin(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        return self.beta * (s_w - s_l)

    def compute_loss(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        # The two of a list of two have ranks 1 and 2, whichever is ahead: Δ is the same.
        return self._delta_of_two * _logistic(xp, self.compute_margin(xp, s_w, s_l))

    def compute_weights(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        pull = (self._delta_of_two * self.beta) * sigmoid(xp, -self.compute_margin(xp, s_w, s_l))
        return pull, 1.0 * pull

    @property
    def _delta_of_two(self) -> float:
        return 1.0 if self.normalized else _FIRST_TWO

    def compute_list_loss(self, xp: Any, s: Array, labels: Array) -> Array:
        """Loss of each list, over the last axis; `labels` are the gains of its responses."""
        z = self.beta * (s[..., :, None] - s[..., None, :])
        lambdas = self._lambdas(xp, detached(s), labels)
        return xp.sum(lambdas * _logistic(xp, z), axis=(-2, -1))

    def compute_list_weights(self, xp: Any, s: Array, labels: Array) -> Array:
        """−∂L/∂s of every response of each list."""
        z = self.beta * (s[..., :, None] - s[..., None, :])
        pulls = self._lambdas(xp, detached(s), labels) * sigmoid(xp, -z) * self.beta
        return xp.sum(pulls, axis=-1) - xp.sum(pulls, axis=-2)

    def _lambdas(self, xp: Any, s: Array, labels: Array) -> Array:
        """Δ_ij where ψ_i > ψ_j, and 0 elsewhere."""
        rank = xp.ones_like(s) + xp.argsort(xp.argsort(-s, axis=-1), axis=-1)
        discount = 1.0 / xp.log1p(rank)
        gain = 2.0**labels
        size = xp.abs(gain[..., :, None] - gain[..., None, :])
        size = size * xp.abs(discount[..., :, None] - discount[..., None, :])
        better = labels[..., :, None] > labels[..., None, :]
        return xp.where(better, size, 0.0) / (_FIRST_TWO if self.normalized else 1.0)


@dataclass(frozen=True)
class Ranked(Pairwise):
    r"""PRO: each response of a ranking against all that are worse, at temperatures that are differences of labels.

    .. math:: L = \sum_i \Big[\log\Big(e^{\tau_i s_i} + \sum_{\psi_j < \psi_i} e^{\tau_{ij} s_j}\Big) - \tau_i s_i\Big],
              \qquad \tau_{ij} = \psi_i - \psi_j, \quad \tau_i = \max_j \tau_{ij}

    Of a pair this is the logistic loss with the difference of the labels for β.

    References
    ----------
    PRO, arXiv:2306.17492; authors' process_manager.py.
    """

    remark: ClassVar[str] = "label_w − label_l for β; of a list, each against all that are worse"
    two_scores: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Responses` that must be given."""
        return (*super().needs, "label")

    def resolve(self, xp: Any, chosen: Responses, rejected: Responses) -> Objective:
        better: Array = chosen.label
        return Pairwise(self.scorer, self.shape, self.link, better - rejected.label)

    def list_loss(self, scores: Array, labels: Array) -> Array:
        """The loss of each ranking: `scores` and `labels` ψ of shape (..., K), in any order, result (...)."""
        return apply(self.compute_list_loss, scores, labels, what="the loss", blocks=False)

    def list_weights(self, scores: Array, labels: Array) -> Array:
        """−∂L/∂s of every response, shape (..., K): positive is pulled up."""
        return apply(self.compute_list_weights, scores, labels, what="a gradient weight", blocks=False)

    def compute_list_loss(self, xp: Any, s: Array, labels: Array) -> Array:
        """Loss of each ranking, over the last axis; the larger a label, the better its response."""
        own, others, _, _ = self._exponents(xp, s, labels)
        top = detached(xp.maximum(own, xp.max(others, axis=-1)))
        total = xp.exp(own - top) + xp.sum(xp.exp(others - top[..., None]), axis=-1)
        return xp.sum(top + xp.log(total) - own, axis=-1)

    def compute_list_weights(self, xp: Any, s: Array, labels: Array) -> Array:
        """−∂L/∂s of every response of each ranking."""
        own, others, largest, temperature = self._exponents(xp, s, labels)
        top = xp.maximum(own, xp.max(others, axis=-1))
        share, shares = xp.exp(own - top), xp.exp(others - top[..., None])
        total = share + xp.sum(shares, axis=-1)
        pushed = xp.sum(temperature * shares / total[..., None], axis=-2)
        return largest * (1.0 - share / total) - pushed

    def _exponents(self, xp: Any, s: Array, labels: Array) -> tuple[Array, Array, Array, Array]:
        """τ_i·s_i; τ_ij·s_j where j is worse than i, −∞ elsewhere; τ_i; τ_ij."""
        difference = labels[..., :, None] - labels[..., None, :]
        worse = difference > 0
        temperature = xp.where(worse, difference, 0.0)
        largest = xp.max(temperature, axis=-1)
        others = xp.where(worse, temperature * s[..., None, :], -xp.inf)
        return largest * s, others, largest, temperature


def _logistic(xp: Any, z: Array) -> Array:
    return with_gradient(xp, softplus(xp, -z), (z, -sigmoid(xp, -z)))

"""Beyond pairs: LiPO-λ on a list of K responses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from rewardshape.theory._arrays import Array, Pair, apply, detached, sigmoid, softplus, with_gradient
from rewardshape.theory.objectives.base import Objective

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


def _logistic(xp: Any, z: Array) -> Array:
    return with_gradient(xp, softplus(xp, -z), (z, -sigmoid(xp, -z)))

"""Objectives that take each response on its own: one loss for the chosen, one for the rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rewardshape.theory._arrays import Array, Pair, constant, detached, positive_part, with_gradient
from rewardshape.theory.links import Link
from rewardshape.theory.objectives.base import Objective
from rewardshape.theory.shapes import Shape


@dataclass(frozen=True)
class Pointwise(Objective):
    """One loss for each response on its own: ℓ_w(r_w − δ_w) + ℓ_l(−(r_l − δ_l)), r = β·φ(s).

    The shifts δ are 0 unless a subclass measures them on the batch; they carry no gradient.
    """

    shape: Shape
    chosen_link: Link
    rejected_link: Link | None
    beta: Any = 1.0
    chosen_weight: float = 1.0
    rejected_weight: float = 1.0

    def compute_reward(self, xp: Any, s: Array) -> Array:
        return constant(xp, self.beta, s) * self.shape.compute_reward(xp, s)

    def compute_margin(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        return constant(xp, self.beta, s_w) * self.shape.compute_difference(xp, s_w, s_l)

    def compute_shifts(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        """What is taken from the two rewards before the link: nothing."""
        return 0.0, 0.0

    def compute_loss(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        shift_w, shift_l = self.compute_shifts(xp, detached(s_w), detached(s_l))
        value = (
            self.chosen_weight * self.chosen_link.compute_loss(xp, self.compute_reward(xp, s_w) - shift_w)
            + 0.0 * s_l
        )
        if self.rejected_link is not None:
            value = value + self.rejected_weight * self.rejected_link.compute_loss(
                xp, shift_l - self.compute_reward(xp, s_l)
            )
        if xp is np:
            return value
        w_w, w_l = self.compute_weights(xp, s_w, s_l)
        return with_gradient(xp, value, (s_w, -w_w), (s_l, w_l))

    def compute_weights(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        shift_w, shift_l = self.compute_shifts(xp, detached(s_w), detached(s_l))
        w_w = self._pull(
            xp, self.chosen_link, self.compute_reward(xp, s_w) - shift_w, s_w, self.chosen_weight
        )
        if self.rejected_link is None:
            return _as_many(w_w, s_l), 0.0 * _as_many(w_w, s_l)
        w_l = self._pull(
            xp, self.rejected_link, shift_l - self.compute_reward(xp, s_l), s_l, self.rejected_weight
        )
        return _as_many(w_w, s_l), _as_many(w_l, s_w)

    def _pull(self, xp: Any, link: Link, r: Array, s: Array, weight: float) -> Array:
        if self.shape.tame:
            clock = -weight * constant(xp, self.beta, s) * link.compute_slope(xp, r)
            return clock * self.shape.compute_slope(xp, s)
        steepness = link.compute_log_slope(xp, r) + self.shape.compute_log_slope(xp, s)
        sign = link.compute_direction(xp, r) * self.shape.compute_direction(xp, s)
        return weight * constant(xp, self.beta, s) * sign * xp.exp(steepness)


def _as_many(values: Array, others: Array) -> Array:
    """The values, as many as there are pairs: of the scores of one side there may be one for all of the other."""
    return values if values.shape == others.shape else values + 0.0 * others


@dataclass(frozen=True)
class RewardShift(Pointwise):
    """BCO with its reward shift: δ is the mean reward of the batch, both responses alike."""

    remark: ClassVar[str] = "r − δ for r, δ the mean reward of the batch"

    coupled: ClassVar[bool] = True

    def compute_shifts(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        """The mean reward of the batch, chosen and rejected alike, from both."""
        shift = 0.5 * constant(xp, self.beta, s_w) * (xp.mean(s_w) + xp.mean(s_l))
        return shift, shift


@dataclass(frozen=True)
class FixedShift(Pointwise):
    """Pointwise losses around a reward δ that is given."""

    shift: Any = 0.0

    def compute_shifts(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        """The same constant from both."""
        shift = constant(xp, self.shift, s_w)
        return shift, shift


@dataclass(frozen=True)
class DivergenceShift(Pointwise):
    """Paired KTO: the reference point is the batch's KL estimate, max(0, mean log-ratio), of the other side."""

    remark: ClassVar[str] = "r − δ for r, δ = β·max(0, mean log-ratio) of the other side of the batch"

    coupled: ClassVar[bool] = True

    def compute_shifts(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        """From each the other side's estimate of the divergence, β times its mean score where that is positive."""
        kl_w, kl_l = (positive_part(xp, xp.mean(s)) for s in (s_w, s_l))
        beta = constant(xp, self.beta, s_w)
        return beta * kl_l, beta * kl_w

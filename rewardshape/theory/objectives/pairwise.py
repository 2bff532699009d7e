"""Objectives of one loss for each pair: ℓ(β·φ(s_w) − β·φ(s_l) − γ), and their kin that bend one of these parts.

Where a part depends on the pair or on the batch (a target of its own, a weight), `resolve` gives the plain
composition that these very pairs have, with an array in the place of a number. Long because the members of one family
are read beside each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rewardshape.theory._arrays import Array, Pair, constant, detached, negative_part, with_gradient
from rewardshape.theory.links import Link, Logistic
from rewardshape.theory.objectives.base import Objective, Sum
from rewardshape.theory.scores import Responses
from rewardshape.theory.shapes import Alpha, Shape

PLAIN: Shape = Alpha(0.0)  # φ(s) = s
LOGISTIC: Link = Logistic()


@dataclass(frozen=True)
class Pairwise(Objective):
    """Score ∘ shape ∘ link: the objectives whose loss is ℓ(β·φ(s_w) − β·φ(s_l) − γ).

    Examples
    --------
    >>> from rewardshape.theory import objective
    >>> alphapo = objective("alphapo", alpha=0.25, beta=2.5, gamma=0.25)
    >>> round(alphapo.margin(-1.0, -1.2), 6)
    0.408334
    >>> [round(weight, 6) for weight in alphapo.weights(-1.0, -1.2)]
    [1.281816, 1.347536]
    """

    pulled_factor: ClassVar[str] = ""
    """What w_w has beyond the composition, for the generated table."""
    pushed_factor: ClassVar[str] = ""
    """What w_l has beyond it."""

    shape: Shape = PLAIN
    link: Link = LOGISTIC
    beta: Any = 1.0
    gamma: Any = 0.0

    def compute_reward(self, xp: Any, s: Array) -> Array:
        return constant(xp, self.beta, s) * self.shape.compute_reward(xp, s)

    def compute_margin(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        difference = self.shape.compute_difference(xp, s_w, s_l)
        return constant(xp, self.beta, s_w) * difference - constant(xp, self.gamma, s_w)

    def compute_loss(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        value = self.link.compute_loss(xp, self.compute_margin(xp, s_w, s_l))
        if xp is np:
            return value
        w_w, w_l = self.compute_weights(xp, s_w, s_l)
        return with_gradient(xp, value, (s_w, -w_w), (s_l, w_l))

    def compute_log_weights(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        return self._log_weights_at(xp, self.compute_margin(xp, s_w, s_l), s_w, s_l)

    def compute_weights(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        z = self.compute_margin(xp, s_w, s_l)
        if self._directly:
            clock = -constant(xp, self.beta, z) * self.link.compute_slope(xp, z)
            return clock * self.shape.compute_slope(xp, s_w), clock * self.shape.compute_slope(xp, s_l)
        # Through logarithms, because a vanishing clock may meet a slope that overflows.
        log_w, log_l = self._log_weights_at(xp, z, s_w, s_l)
        pull = self.link.compute_direction(xp, z)
        return (
            _signed(pull, self.shape.compute_direction(xp, s_w), xp.exp(log_w)),
            _signed(pull, self.shape.compute_direction(xp, s_l), xp.exp(log_l)),
        )

    @property
    def _directly(self) -> bool:
        """Whether the weights are the product of clock and slope as it stands."""
        return self.shape.tame

    def _log_weights_at(self, xp: Any, z: Array, s_w: Array, s_l: Array) -> Pair:
        beta = constant(xp, self.beta, z)
        clock = self.link.compute_log_slope(xp, z) + (
            xp.log(beta) if hasattr(beta, "dtype") else math.log(beta)
        )
        return clock + self.shape.compute_log_slope(xp, s_w), clock + self.shape.compute_log_slope(xp, s_l)


def _signed(pull: Array, slope: Array, size: Array) -> Array:
    """The weight of that size; a sign that is the float 1.0 costs nothing."""
    for sign in (pull, slope):
        if not (isinstance(sign, float) and sign == 1.0):
            size = sign * size
    return size


@dataclass(frozen=True)
class Penalized(Pairwise):
    """DPOP: the chosen response's reward loses λ·β for every nat it falls below the reference."""

    remark: ClassVar[str] = "r_w = β·(s_w − λ·max(0, −s_w))"
    pulled_factor: ClassVar[str] = "(1 + λ·[s_w < 0])"

    penalty: float = 0.0

    @property
    def _directly(self) -> bool:
        return False

    def compute_margin(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        lost = self.penalty * negative_part(xp, s_w)
        return super().compute_margin(xp, s_w, s_l) - constant(xp, self.beta, s_w) * lost

    def _log_weights_at(self, xp: Any, z: Array, s_w: Array, s_l: Array) -> Pair:
        log_w, log_l = super()._log_weights_at(xp, z, s_w, s_l)
        return log_w + xp.where(s_w < 0, math.log1p(self.penalty), 0.0 * s_w), log_l


@dataclass(frozen=True)
class LengthMargin(Pairwise):
    """R-DPO: γ = −λ·(|y_w| − |y_l|), so a longer chosen response has less left to learn."""

    remark: ClassVar[str] = "γ = −λ·(|y_w| − |y_l|)"
    two_scores: ClassVar[bool] = False

    length_weight: float = 0.0

    def resolve(self, xp: Any, chosen: Responses, rejected: Responses) -> Objective:
        target = -self.length_weight * (chosen.num_tokens - rejected.num_tokens)
        return Pairwise(self.scorer, self.shape, self.link, self.beta, target)


@dataclass(frozen=True)
class SortedMargin(Pairwise):
    """AOT: the k-th smallest log-ratio of the batch is compared with the k-th smallest under the reference.

    In the terms of DPO, γ = β·(the reference's log-ratio of the same rank − the pair's own).
    """

    remark: ClassVar[str] = "γ so that margins are compared rank by rank over the batch"
    coupled: ClassVar[bool] = True
    two_scores: ClassVar[bool] = False

    def resolve(self, xp: Any, chosen: Responses, rejected: Responses) -> Objective:
        own: Array = chosen.ref_logp_sum
        own = own - rejected.ref_logp_sum
        rank = _rank(xp, chosen.logp_sum - rejected.logp_sum)
        target = constant(xp, self.beta, own) * (xp.sort(own)[rank] - own)
        return Pairwise(self.scorer, self.shape, self.link, self.beta, target)


@dataclass(frozen=True)
class Sorted(Pairwise):
    """AOT unpaired: the k-th smallest chosen score of the batch must exceed the k-th smallest rejected one.

    A pair's loss is the mean of what its two responses are part of; the margin is the pair's own.
    """

    remark: ClassVar[str] = "z of each response by its rank in the batch"
    coupled: ClassVar[bool] = True

    def _at_rank(self, xp: Any, function: Any, s_w: Array, s_l: Array) -> Pair:
        of_rank = function(xp, super().compute_margin(xp, xp.sort(s_w), xp.sort(s_l)))
        return of_rank[_rank(xp, s_w)], of_rank[_rank(xp, s_l)]

    def compute_loss(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        of_chosen, of_rejected = self._at_rank(xp, self.link.compute_loss, detached(s_w), detached(s_l))
        w_w, w_l = self.compute_weights(xp, s_w, s_l)
        return with_gradient(xp, 0.5 * (of_chosen + of_rejected), (s_w, -w_w), (s_l, w_l))

    def compute_weights(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        slope_w, slope_l = self._at_rank(xp, self.link.compute_slope, s_w, s_l)
        return -self.beta * slope_w, -self.beta * slope_l

    def compute_log_weights(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        return Objective.compute_log_weights(self, xp, s_w, s_l)


def _rank(xp: Any, x: Array) -> Array:
    return xp.argsort(xp.argsort(detached(x)))


@dataclass(frozen=True)
class LengthDesensitized(Pairwise):
    """LD-DPO: the tokens beyond the shorter response's length count `tail` each.

    Its score depends on the other response of the pair, so there is no score of a response alone.
    """

    remark: ClassVar[str] = "tokens beyond the shorter length count λ each in s"
    two_scores: ClassVar[bool] = False
    alone: ClassVar[bool] = False

    tail: float = 1.0

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Responses` that must be given."""
        return ("logp_sum", "num_tokens", "token_logps", "ref_token_logps")

    def compute_scores(self, xp: Any, chosen: Responses, rejected: Responses) -> Pair:
        shorter = xp.where(chosen.num_tokens < rejected.num_tokens, chosen.num_tokens, rejected.num_tokens)
        return self._score_of(xp, chosen, shorter), self._score_of(xp, rejected, shorter)

    def _score_of(self, xp: Any, responses: Responses, shorter: Array) -> Array:
        ratio: Array = responses.token_logps
        ratio = ratio - responses.ref_token_logps
        position = xp.cumsum(xp.ones_like(ratio), -1)
        counted = xp.where(position <= shorter[..., None], 1.0, self.tail)
        inside = position <= responses.num_tokens[..., None]
        return xp.sum(xp.where(inside, ratio, 0.0) * counted, axis=-1)


@dataclass(frozen=True)
class ProbabilityWeighted(Pairwise):
    """WPO: every pair's loss times how likely the policy itself is to say both responses, held constant.

    The weight of a response is exp of its mean token log-probability, which `aligned` divides by Σ_v π(v)² token
    by token, so that responses the policy could have sampled weigh about 1. The weight of the pair, the product of
    the two, is at most `clip`.
    """

    remark: ClassVar[str] = "ω: the policy's likelihood of the pair, at most the clip, held constant"
    pulled_factor: ClassVar[str] = "ω"
    pushed_factor: ClassVar[str] = "ω"
    two_scores: ClassVar[bool] = False

    aligned: bool = True
    clip: float | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Responses` that must be given."""
        return (*super().needs, *(("log_sum_sq_probs",) if self.aligned else ()))

    def resolve(self, xp: Any, chosen: Responses, rejected: Responses) -> Objective:
        likelihood = xp.exp(self._mean_likelihood(chosen) + self._mean_likelihood(rejected))
        if self.clip is not None:
            likelihood = xp.clip(likelihood, None, self.clip)
        return Sum(
            self.scorer, ((likelihood, Pairwise(self.scorer, self.shape, self.link, self.beta, self.gamma)),)
        )

    def _mean_likelihood(self, side: Responses) -> Array:
        alignment: Array = side.log_sum_sq_probs if self.aligned else 0.0
        return detached(side.logp_sum - alignment) / side.num_tokens


@dataclass(frozen=True)
class Shifted(Pairwise):
    """DPO-Shift: the rejected reward counts λ times in the margin, so that less is won by lowering it."""

    remark: ClassVar[str] = "z = r_w − λ·r_l"
    pushed_factor: ClassVar[str] = "λ"

    rejected_factor: float = 1.0

    @property
    def _directly(self) -> bool:
        return False

    def compute_margin(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        rest = (1.0 - self.rejected_factor) * self.shape.compute_reward(xp, s_l)
        return super().compute_margin(xp, s_w, s_l) + constant(xp, self.beta, s_w) * rest

    def _log_weights_at(self, xp: Any, z: Array, s_w: Array, s_l: Array) -> Pair:
        log_w, log_l = super()._log_weights_at(xp, z, s_w, s_l)
        return log_w, log_l + (math.log(self.rejected_factor) if self.rejected_factor else -xp.inf)


@dataclass(frozen=True)
class AdaptiveMargin(Pairwise):
    """α-DPO: a pair's target grows with how far its margin has moved from the reference's, beside its batch.

    γ_i = β·(γ/β + α·(g_i − mean g)/sd g), where g is the gap of per-token log-ratios; without a gradient. The
    statistics are those of the batch.
    """

    remark: ClassVar[str] = (
        "γ + β·α·(g − mean g)/sd g for γ, g the gap of the per-token log-ratios over the batch"
    )
    coupled: ClassVar[bool] = True
    two_scores: ClassVar[bool] = False

    spread: Any = 0.0

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Responses` that must be given."""
        return (*super().needs, "ref_logp_sum")

    def resolve(self, xp: Any, chosen: Responses, rejected: Responses) -> Objective:
        gap = detached(self._mean_ratio(chosen) - self._mean_ratio(rejected))
        off = gap - xp.mean(gap)
        deviation = xp.sqrt(xp.sum(off**2) / max(gap.shape[0] - 1, 1))
        standard = xp.where(deviation > 0, off / xp.where(deviation > 0, deviation, 1.0), 0.0 * off)
        beta, spread = constant(xp, self.beta, gap), constant(xp, self.spread, gap)
        target = constant(xp, self.gamma, gap) + beta * spread * standard
        return Pairwise(self.scorer, self.shape, self.link, self.beta, target)

    def _mean_ratio(self, side: Responses) -> Array:
        return (side.logp_sum - side.ref_logp_sum) / side.num_tokens


@dataclass(frozen=True)
class AdaptiveBeta(Pairwise):
    """β-DPO: β of a batch is β·(1 + a·(its mean gap − M₀)), at least 0.001; the gap is that of the log-ratios."""

    remark: ClassVar[str] = "β·(1 + a·(mean gap of the batch − M₀)) for β"
    coupled: ClassVar[bool] = True
    two_scores: ClassVar[bool] = False

    scaling: float = 0.0
    usual_gap: float = 0.0

    def resolve(self, xp: Any, chosen: Responses, rejected: Responses) -> Objective:
        s_w, s_l = (detached(s) for s in self.compute_scores(xp, chosen, rejected))
        beta = constant(xp, self.beta, s_w) * (1.0 + self.scaling * (xp.mean(s_w - s_l) - self.usual_gap))
        return Pairwise(self.scorer, self.shape, self.link, xp.clip(beta, 1e-3, None), self.gamma)


@dataclass(frozen=True)
class Offset(Pairwise):
    """ODPO: γ = α·log(label_w − label_l), from the annotator's scores of the two responses."""

    remark: ClassVar[str] = "γ = α·log(label_w − label_l)"
    two_scores: ClassVar[bool] = False

    offset: float = 0.0

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Responses` that must be given."""
        return (*super().needs, "label")

    def resolve(self, xp: Any, chosen: Responses, rejected: Responses) -> Objective:
        better: Array = chosen.label
        target = self.offset * xp.log(better - rejected.label)
        return Pairwise(self.scorer, self.shape, self.link, self.beta, target)


@dataclass(frozen=True)
class MovingReference(Pairwise):
    """TR-DPO: DPO whose reference follows the policy. Every `every` steps it becomes μ·π + (1 − μ)·π_ref, by weights.

    The loss of given log-ratios is DPO's; whoever trains moves the reference.
    """

    remark: ClassVar[str] = "π_ref ← μ·π + (1 − μ)·π_ref, weight by weight, every so many steps"

    mixing: float = 1.0
    every: int = 1


@dataclass(frozen=True)
class BatchRobust(Pairwise):
    """Dr. DPO: the batch's loss is −β′·log mean exp(−ℓ/β′), so pairs of a large loss, maybe mislabelled, weigh less.

    Every pair of the batch has this loss; the weights are those of its own scores.
    """

    remark: ClassVar[str] = "ω = exp(−ℓ/β′)/mean exp(−ℓ/β′) over the batch"
    pulled_factor: ClassVar[str] = "ω"
    pushed_factor: ClassVar[str] = "ω"
    coupled: ClassVar[bool] = True

    temperature: float = 1.0

    def _shares(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        """The batch's loss, and exp(−ℓ/β′) of each pair over its mean."""
        scaled = -self.link.compute_loss(xp, detached(self.compute_margin(xp, s_w, s_l))) / self.temperature
        if 0 in scaled.shape:  # no pair
            return scaled, scaled
        top = xp.max(scaled)
        share = xp.exp(scaled - top)
        mean = xp.mean(share)
        return -self.temperature * (top + xp.log(mean)) + 0.0 * scaled, share / mean

    def compute_loss(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        value, _ = self._shares(xp, s_w, s_l)
        w_w, w_l = self.compute_weights(xp, s_w, s_l)
        return with_gradient(xp, value, (s_w, -w_w), (s_l, w_l))

    def compute_weights(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        _, share = self._shares(xp, s_w, s_l)
        w_w, w_l = super().compute_weights(xp, s_w, s_l)
        return share * w_w, share * w_l

    def compute_log_weights(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        return Objective.compute_log_weights(self, xp, s_w, s_l)


@dataclass(frozen=True)
class SequentialKL(Pairwise):
    """TDPO₂: the rejected response's sequential KL beyond the chosen's, times α, must be made up for too.

    γ = β·α·(KL_l − KL_w), KL summed over the positions. KL_w carries no gradient; KL_l does, so besides pushing the
    rejected response down the loss draws the policy towards the reference along it. The gradient weights are those of
    the scores alone.
    """

    remark: ClassVar[str] = "γ = β·α·(KL_l − KL_w) over the positions; KL_l carries a gradient of its own"
    two_scores: ClassVar[bool] = False

    kl_weight: float = 0.0

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Responses` that must be given."""
        return (*super().needs, "position_kl")

    def resolve(self, xp: Any, chosen: Responses, rejected: Responses) -> Objective:
        kl_w: Array = detached(chosen.position_kl)
        target = constant(xp, self.beta, kl_w) * self.kl_weight * (detached(rejected.position_kl) - kl_w)
        return Pairwise(self.scorer, self.shape, self.link, self.beta, target)

    def compute_pair_loss(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        made = self.resolve(xp, chosen, rejected)
        s_w, s_l = self.compute_scores(xp, chosen, rejected)
        value = detached(made.compute_loss(xp, s_w, s_l))
        w_w, w_l = made.compute_weights(xp, s_w, s_l)
        slope = self.link.compute_slope(xp, made.compute_margin(xp, s_w, s_l))
        of_kl = -slope * constant(xp, self.beta, s_w) * self.kl_weight
        return with_gradient(xp, value, (s_w, -w_w), (s_l, w_l), (rejected.position_kl, of_kl))


@dataclass(frozen=True)
class DownSampled(Pairwise):
    """SamPO: of the longer response only as many tokens count as the shorter one has, drawn anew at every step.

    Not `drawn`, the expectation over the draws counts: every token in proportion.
    """

    remark: ClassVar[str] = "s over min(|y_w|, |y_l|) tokens of each, drawn at every step"
    two_scores: ClassVar[bool] = False
    alone: ClassVar[bool] = False

    drawn: bool = True

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Responses` that must be given."""
        return (*super().needs, *(("token_logps", "ref_token_logps", "token_draws") if self.drawn else ()))

    def compute_scores(self, xp: Any, chosen: Responses, rejected: Responses) -> Pair:
        shorter = xp.where(chosen.num_tokens < rejected.num_tokens, chosen.num_tokens, rejected.num_tokens)
        if self.drawn:
            return _over_drawn(xp, chosen, shorter), _over_drawn(xp, rejected, shorter)
        s_w, s_l = super().compute_scores(xp, chosen, rejected)
        return s_w * (shorter / chosen.num_tokens), s_l * (shorter / rejected.num_tokens)


def _over_drawn(xp: Any, responses: Responses, count: Array) -> Array:
    """The log-ratio over the `count` tokens of the smallest draws."""
    ratio: Array = responses.token_logps
    ratio = ratio - responses.ref_token_logps
    position = xp.cumsum(xp.ones_like(ratio), -1)
    draws = xp.where(position <= responses.num_tokens[..., None], responses.token_draws, xp.inf)
    rank = xp.argsort(xp.argsort(draws, axis=-1), axis=-1)
    return xp.sum(xp.where(rank < count[..., None], ratio, 0.0), axis=-1)

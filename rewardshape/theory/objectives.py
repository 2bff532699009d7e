"""Objectives: score ∘ shape ∘ link, and the gradient weights of each in closed form.

An objective turns each response into a score s, a score into a reward r = β·φ(s), the two rewards of a pair into
a margin z = r(y_w) − r(y_l) − γ and the margin into a loss ℓ(z). Its gradient is always

    ∇L = −w_w·∇s(y_w) + w_l·∇s(y_l),    w_w = −ℓ′(z)·β·φ′(s_w),    w_l = −ℓ′(z)·β·φ′(s_l).

Two ways in: the methods of two scores (`score`, `reward`, `margin`, `loss`, `weights`, `log_weights`), and the
uniform entry for training, `pair_loss`, `pair_margin`, `pair_weights`, which takes `Responses` and works for every
objective, also for those that need lengths, single tokens or the whole batch.

Everything is elementwise and returned per pair, in the caller's library, dtype, device and graph. In torch the
loss, the margin and the reward carry the closed-form gradients, so a pair that is switched off has gradient 0,
never 0·∞; a loss that truly overflows is inf in its own pair and leaves the others alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from rewardshape.errors import InputError
from rewardshape.theory._arrays import (
    Array,
    apply,
    constant,
    detached,
    negative_part,
    positive_part,
    with_gradient,
)
from rewardshape.theory._check import number
from rewardshape.theory.links import ALWAYS_DOWN, Link
from rewardshape.theory.scores import Responses, Score
from rewardshape.theory.shapes import Shape


@dataclass(frozen=True)
class Objective:
    """Base of all objectives; `objective(name, **parameters)` makes them.

    Attributes
    ----------
    name : str
    parameters : dict
        JSON-able; ``objective(name, **parameters)`` makes the same objective again.
    scorer : Score
        Whether the score has a reference, and whether it is per token.
    """

    name: str
    parameters: dict[str, Any] = field(hash=False)
    scorer: Score

    coupled: ClassVar[bool] = False
    """Whether a pair's loss depends on the other pairs of its batch."""
    two_scores: ClassVar[bool] = True
    """Whether the two scores of a pair are all that the loss needs."""
    remark: ClassVar[str] = ""
    """What the composition of score, shape and link leaves out, for the generated table."""

    @property
    def needs_reference(self) -> bool:
        """Whether the reference policy's log-probabilities are needed."""
        return any(name.startswith("ref_") for name in self.needs)

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Responses` that must be given."""
        reference = ("ref_logp_sum",) if self.scorer.reference else ()
        return ("logp_sum", "num_tokens", *reference)

    def score(self, logp_sum: Array, num_tokens: Array, ref_logp_sum: Array | None = None) -> Array:
        """The scores s of responses, in nats, or nats per token where the objective divides by the length.

        Parameters
        ----------
        logp_sum, num_tokens, ref_logp_sum : array, any shape, broadcast
            Summed log-probability in nats, response tokens, and the same under the reference where needed.
        """
        if self.scorer.reference and ref_logp_sum is None:
            raise InputError(
                f"{self.name} has a reference: give ref_logp_sum, the log-probabilities under it"
            )
        reference = ref_logp_sum if self.scorer.reference else 0.0
        return apply(self.scorer, logp_sum, num_tokens, reference, what="the score")

    def reward(self, s: Array) -> Array:
        """β·φ(s), the reward of a response with score `s`."""
        return apply(self._reward, s, what="the reward", blocks=self._blocks)

    def margin(self, s_w: Array, s_l: Array) -> Array:
        """z = β·(φ(s_w) − φ(s_l)) − γ, in reward units, without cancellation."""
        return self._of_scores(self._margin, s_w, s_l, what="the margin")

    def loss(self, s_w: Array, s_l: Array) -> Array:
        """The loss of each pair of scores."""
        return self._of_scores(self._loss, s_w, s_l, what="the loss")

    def weights(self, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        """The gradient weights (−∂L/∂s_w, ∂L/∂s_l): how hard the chosen is pulled up and the rejected pushed down.

        A pair whose margin is saturated has weights 0; they are never NaN for finite scores. Where the objective
        pushes the other way (beyond the target of a squared loss) they are negative.
        """
        return self._of_scores(self._weights, s_w, s_l, what="a gradient weight")

    def log_weights(self, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        """log|w_w| and log|w_l|, for an α-shape finite even where the weights over- or underflow."""
        return self._of_scores(self._log_weights, s_w, s_l, what="a log-weight")

    def pair_loss(self, chosen: Responses, rejected: Responses) -> Array:
        """The loss of every pair, shape (pairs,). Differentiable in torch. Its mean is what is trained."""
        return self._of_pairs(self._pair_loss, chosen, rejected, what="the loss")

    def pair_margin(self, chosen: Responses, rejected: Responses) -> Array:
        """The margin z of every pair, shape (pairs,)."""
        return self._of_pairs(self._pair_margin, chosen, rejected, what="the margin")

    def pair_weights(self, chosen: Responses, rejected: Responses) -> tuple[Array, Array]:
        """The gradient weights (−∂L/∂s_w, ∂L/∂s_l) of every pair, two arrays of shape (pairs,)."""
        return self._of_pairs(self._pair_weights, chosen, rejected, what="a gradient weight")

    def __add__(self, other: Objective) -> Sum:
        """The sum of two objectives: ``objective("dpo") + 0.1 * objective("sft")``."""
        if not isinstance(other, Objective):
            return NotImplemented
        return sum_of([*_terms(self), *_terms(other)])

    def __mul__(self, weight: float) -> Sum:
        return sum_of([(number("weight", weight) * own, term) for own, term in _terms(self)])

    __rmul__ = __mul__

    @property
    def _blocks(self) -> bool:
        """Whether a large array may be evaluated piece by piece: pairs are on their own, parameters are numbers."""
        return not self.coupled and not any(isinstance(value, list) for value in self.parameters.values())

    def _of_scores(self, function: Any, s_w: Array, s_l: Array, what: str) -> Any:
        if not self.two_scores:
            raise InputError(
                f"{self.name} needs more of a pair than its two scores: call pair_loss, pair_margin or pair_weights"
            )
        return apply(function, s_w, s_l, what=what, blocks=self._blocks)

    def _of_pairs(self, function: Any, chosen: Responses, rejected: Responses, what: str) -> Any:
        fields = self.needs
        columns = []
        for side, responses in (("chosen", chosen), ("rejected", rejected)):
            for name in fields:
                if getattr(responses, name) is None:
                    raise InputError(f"{self.name} needs {name}, which the {side} responses lack")
                columns.append(getattr(responses, name))

        def of_columns(xp: Any, *columns: Array) -> Any:
            sides = columns[: len(fields)], columns[len(fields) :]
            return function(xp, *(Responses(**dict(zip(fields, side, strict=True))) for side in sides))

        return apply(of_columns, *columns, what=what, blocks=self._blocks)

    def _scores(self, xp: Any, chosen: Responses, rejected: Responses) -> tuple[Array, Array]:
        s_w = self.scorer(xp, chosen.logp_sum, chosen.num_tokens, chosen.ref_logp_sum)
        return s_w, self.scorer(xp, rejected.logp_sum, rejected.num_tokens, rejected.ref_logp_sum)

    def _pair_loss(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        return self._loss(xp, *self._scores(xp, chosen, rejected))

    def _pair_margin(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        return self._margin(xp, *self._scores(xp, chosen, rejected))

    def _pair_weights(self, xp: Any, chosen: Responses, rejected: Responses) -> tuple[Array, Array]:
        return self._weights(xp, *self._scores(xp, chosen, rejected))

    def _reward(self, xp: Any, s: Array) -> Array:
        raise NotImplementedError

    def _margin(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        raise NotImplementedError

    def _loss(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        raise NotImplementedError

    def _weights(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        raise NotImplementedError

    def _log_weights(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        w_w, w_l = self._weights(xp, s_w, s_l)
        return xp.log(xp.abs(w_w)), xp.log(xp.abs(w_l))


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

    chosen_factor: ClassVar[str] = ""
    """What w_w has beyond the composition, for the generated table."""

    shape: Shape
    link: Link
    beta: Any
    gamma: Any

    def _reward(self, xp: Any, s: Array) -> Array:
        return constant(xp, self.beta, s) * self.shape._reward(xp, s)

    def _margin(self, xp: Any, s_w: Array, s_l: Array, gamma: Any = None) -> Array:
        difference = self.shape._difference(xp, s_w, s_l)
        gamma = constant(xp, self.gamma, s_w) if gamma is None else gamma
        return constant(xp, self.beta, s_w) * difference - gamma

    def _loss(self, xp: Any, s_w: Array, s_l: Array, gamma: Any = None) -> Array:
        value = self.link._loss(xp, self._margin(xp, s_w, s_l, gamma))
        if xp is np:
            return value
        w_w, w_l = self._weights(xp, s_w, s_l, gamma)
        return with_gradient(xp, value, (s_w, -w_w), (s_l, w_l))

    def _log_weights(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        return self._log_weights_at(xp, self._margin(xp, s_w, s_l), s_w, s_l)

    def _weights(self, xp: Any, s_w: Array, s_l: Array, gamma: Any = None) -> tuple[Array, Array]:
        # Through logarithms, because a vanishing clock may meet a slope that overflows.
        z = self._margin(xp, s_w, s_l, gamma)
        log_w, log_l = self._log_weights_at(xp, z, s_w, s_l)
        sign = self.link._direction(xp, z)
        if sign is ALWAYS_DOWN:
            return xp.exp(log_w), xp.exp(log_l)
        return sign * xp.exp(log_w), sign * xp.exp(log_l)

    def _log_weights_at(self, xp: Any, z: Array, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        beta = constant(xp, self.beta, z)
        clock = self.link._log_slope(xp, z) + (xp.log(beta) if hasattr(beta, "dtype") else math.log(beta))
        return clock + self.shape._log_slope(xp, s_w), clock + self.shape._log_slope(xp, s_l)


@dataclass(frozen=True)
class Penalized(Pairwise):
    """DPOP: the chosen response's reward loses λ·β for every nat it falls below the reference."""

    remark: ClassVar[str] = "r_w = β·(s_w − λ·max(0, −s_w))"
    chosen_factor: ClassVar[str] = "(1 + λ·[s_w < 0])"

    penalty: float

    def _margin(self, xp: Any, s_w: Array, s_l: Array, gamma: Any = None) -> Array:
        lost = self.penalty * negative_part(xp, s_w)
        return super()._margin(xp, s_w, s_l, gamma) - constant(xp, self.beta, s_w) * lost

    def _log_weights_at(self, xp: Any, z: Array, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        log_w, log_l = super()._log_weights_at(xp, z, s_w, s_l)
        return log_w + xp.where(s_w < 0, math.log1p(self.penalty), 0.0 * s_w), log_l


@dataclass(frozen=True)
class _Targeted(Pairwise):
    """A pairwise objective whose target margin depends on the pair."""

    two_scores: ClassVar[bool] = False

    def _target(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        raise NotImplementedError

    def _pair_loss(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        target = self._target(xp, chosen, rejected)
        return self._loss(xp, *self._scores(xp, chosen, rejected), target)

    def _pair_margin(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        target = self._target(xp, chosen, rejected)
        return self._margin(xp, *self._scores(xp, chosen, rejected), target)

    def _pair_weights(self, xp: Any, chosen: Responses, rejected: Responses) -> tuple[Array, Array]:
        target = self._target(xp, chosen, rejected)
        return self._weights(xp, *self._scores(xp, chosen, rejected), target)


@dataclass(frozen=True)
class LengthMargin(_Targeted):
    """R-DPO: γ = −λ·(|y_w| − |y_l|), so a longer chosen response has less left to learn."""

    remark: ClassVar[str] = "γ = −λ·(|y_w| − |y_l|)"

    length_weight: float

    def _target(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        return -self.length_weight * (chosen.num_tokens - rejected.num_tokens)


@dataclass(frozen=True)
class SortedMargin(_Targeted):
    """AOT: the k-th smallest log-ratio of the batch is compared with the k-th smallest under the reference.

    In the terms of DPO, γ = β·(the reference's log-ratio of the same rank − the pair's own).
    """

    remark: ClassVar[str] = "γ so that margins are compared rank by rank over the batch"

    coupled: ClassVar[bool] = True

    def _target(self, xp: Any, chosen: Any, rejected: Any) -> Array:
        own = chosen.ref_logp_sum - rejected.ref_logp_sum
        rank = _rank(xp, chosen.logp_sum - rejected.logp_sum)
        return self.beta * (xp.sort(own)[rank] - own)


@dataclass(frozen=True)
class Sorted(Pairwise):
    """AOT unpaired: the k-th smallest chosen score of the batch must exceed the k-th smallest rejected one.

    A pair's loss is the mean of what its two responses are part of; the margin is the pair's own.
    """

    remark: ClassVar[str] = "z of each response by its rank in the batch"

    coupled: ClassVar[bool] = True

    def _at_rank(self, xp: Any, function: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        of_rank = function(xp, super()._margin(xp, xp.sort(s_w), xp.sort(s_l)))
        return of_rank[_rank(xp, s_w)], of_rank[_rank(xp, s_l)]

    def _loss(self, xp: Any, s_w: Array, s_l: Array, gamma: Any = None) -> Array:
        of_chosen, of_rejected = self._at_rank(xp, self.link._loss, detached(s_w), detached(s_l))
        w_w, w_l = self._weights(xp, s_w, s_l)
        return with_gradient(xp, 0.5 * (of_chosen + of_rejected), (s_w, -w_w), (s_l, w_l))

    def _weights(self, xp: Any, s_w: Array, s_l: Array, gamma: Any = None) -> tuple[Array, Array]:
        slope_w, slope_l = self._at_rank(xp, self.link._slope, s_w, s_l)
        return -self.beta * slope_w, -self.beta * slope_l

    def _log_weights(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        return Objective._log_weights(self, xp, s_w, s_l)


def _rank(xp: Any, x: Array) -> Array:
    return xp.argsort(xp.argsort(detached(x)))


@dataclass(frozen=True)
class LengthDesensitized(Pairwise):
    """LD-DPO: the tokens beyond the shorter response's length count `tail` each."""

    remark: ClassVar[str] = "tokens beyond the shorter length count λ each in s"

    tail: float

    @property
    def needs(self) -> tuple[str, ...]:
        return ("logp_sum", "num_tokens", "token_logps", "ref_token_logps")

    def _scores(self, xp: Any, chosen: Responses, rejected: Responses) -> tuple[Array, Array]:
        shorter = xp.where(chosen.num_tokens < rejected.num_tokens, chosen.num_tokens, rejected.num_tokens)
        return self._score_of(xp, chosen, shorter), self._score_of(xp, rejected, shorter)

    def _score_of(self, xp: Any, responses: Any, shorter: Array) -> Array:
        ratio = responses.token_logps - responses.ref_token_logps
        position = xp.cumsum(xp.ones_like(ratio), -1)
        counted = xp.where(position <= shorter[..., None], 1.0, self.tail)
        inside = position <= responses.num_tokens[..., None]
        return xp.sum(xp.where(inside, ratio, 0.0) * counted, axis=-1)


@dataclass(frozen=True)
class ProbabilityWeighted(Pairwise):
    """WPO: every pair's loss times how likely the policy itself is to say both responses, held constant.

    The weight of a response is exp of its mean token log-probability, which `aligned` divides by Σ_v π(v)² token
    by token, so that responses the policy could have sampled weigh about 1.
    """

    remark: ClassVar[str] = "both weights × the policy's likelihood of the pair, held constant"

    aligned: bool
    two_scores: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[str, ...]:
        return (*super().needs, *(("log_sum_sq_probs",) if self.aligned else ()))

    def _likelihood(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        def mean(side: Responses) -> Array:
            alignment: Array = side.log_sum_sq_probs if self.aligned else 0.0
            return detached(side.logp_sum - alignment) / side.num_tokens

        return xp.exp(mean(chosen) + mean(rejected))

    def _pair_loss(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        return self._likelihood(xp, chosen, rejected) * super()._pair_loss(xp, chosen, rejected)

    def _pair_weights(self, xp: Any, chosen: Responses, rejected: Responses) -> tuple[Array, Array]:
        likelihood = self._likelihood(xp, chosen, rejected)
        w_w, w_l = super()._pair_weights(xp, chosen, rejected)
        return likelihood * w_w, likelihood * w_l


@dataclass(frozen=True)
class Pointwise(Objective):
    """One loss for each response on its own: ℓ_w(r_w − δ_w) + ℓ_l(−(r_l − δ_l)), r = β·φ(s).

    The shifts δ are 0 unless a subclass measures them on the batch; they carry no gradient.
    """

    shape: Shape
    chosen_link: Link
    rejected_link: Link | None
    beta: float
    chosen_weight: float = 1.0
    rejected_weight: float = 1.0

    def _reward(self, xp: Any, s: Array) -> Array:
        return self.beta * self.shape._reward(xp, s)

    def _margin(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        return self.beta * self.shape._difference(xp, s_w, s_l)

    def _shifts(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        return 0.0, 0.0

    def _loss(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        shift_w, shift_l = self._shifts(xp, detached(s_w), detached(s_l))
        value = self.chosen_weight * self.chosen_link._loss(xp, self._reward(xp, s_w) - shift_w) + 0.0 * s_l
        if self.rejected_link is not None:
            value = value + self.rejected_weight * self.rejected_link._loss(
                xp, shift_l - self._reward(xp, s_l)
            )
        if xp is np:
            return value
        w_w, w_l = self._weights(xp, s_w, s_l)
        return with_gradient(xp, value, (s_w, -w_w), (s_l, w_l))

    def _weights(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        shift_w, shift_l = self._shifts(xp, detached(s_w), detached(s_l))
        w_w = self._pull(xp, self.chosen_link, self._reward(xp, s_w) - shift_w, s_w, self.chosen_weight)
        if self.rejected_link is None:
            return w_w + 0.0 * s_l, 0.0 * w_w + 0.0 * s_l
        w_l = self._pull(xp, self.rejected_link, shift_l - self._reward(xp, s_l), s_l, self.rejected_weight)
        return w_w + 0.0 * s_l, w_l + 0.0 * s_w

    def _pull(self, xp: Any, link: Link, r: Array, s: Array, weight: float) -> Array:
        steepness = link._log_slope(xp, r) + self.shape._log_slope(xp, s)
        return weight * self.beta * link._direction(xp, r) * xp.exp(steepness)


@dataclass(frozen=True)
class RewardShift(Pointwise):
    """BCO with its reward shift: δ is the mean reward of the batch, both responses alike."""

    remark: ClassVar[str] = "r − δ for r, δ the mean reward of the batch"

    coupled: ClassVar[bool] = True

    def _shifts(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        shift = 0.5 * self.beta * (xp.mean(s_w) + xp.mean(s_l))
        return shift, shift


@dataclass(frozen=True)
class FixedShift(Pointwise):
    """Pointwise losses around a reward δ that is given."""

    shift: float = 0.0

    def _shifts(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        return self.shift, self.shift


@dataclass(frozen=True)
class DivergenceShift(Pointwise):
    """Paired KTO: the reference point is the batch's KL estimate, max(0, mean log-ratio), of the other side."""

    remark: ClassVar[str] = "r − δ for r, δ = β·max(0, mean log-ratio) of the other side of the batch"

    coupled: ClassVar[bool] = True

    def _shifts(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        kl_w, kl_l = (positive_part(xp, xp.mean(s)) for s in (s_w, s_l))
        return self.beta * kl_l, self.beta * kl_w


@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum of objectives, each on its own score. Rewards, margins and scores are those of the first term.

    The gradient weights refer to the first term's score: another term's weights are converted by the chain rule
    through log π(y|x), of which every score is an affine function.
    """

    terms: tuple[tuple[float, Any], ...]

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for _, term in self.terms for name in term.needs))

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        return any(term.coupled for _, term in self.terms)

    @property
    def two_scores(self) -> bool:  # type: ignore[override]
        return all(term.two_scores and term.scorer == self.scorer for _, term in self.terms)

    def _reward(self, xp: Any, s: Array) -> Array:
        return self.terms[0][1]._reward(xp, s)

    def _margin(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        return self.terms[0][1]._margin(xp, s_w, s_l)

    def _loss(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        return sum(weight * term._loss(xp, s_w, s_l) for weight, term in self.terms)

    def _weights(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        parts = [(weight, term._weights(xp, s_w, s_l)) for weight, term in self.terms]
        return sum(c * w_w for c, (w_w, _) in parts), sum(c * w_l for c, (_, w_l) in parts)

    def _pair_margin(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        return self.terms[0][1]._pair_margin(xp, chosen, rejected)

    def _pair_loss(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        return sum(weight * term._pair_loss(xp, chosen, rejected) for weight, term in self.terms)

    def _pair_weights(self, xp: Any, chosen: Responses, rejected: Responses) -> tuple[Array, Array]:
        total_w: Array = 0.0
        total_l: Array = 0.0
        for weight, term in self.terms:
            w_w, w_l = term._pair_weights(xp, chosen, rejected)
            total_w = total_w + weight * w_w * self._conversion(term, chosen.num_tokens)
            total_l = total_l + weight * w_l * self._conversion(term, rejected.num_tokens)
        return total_w, total_l

    def _conversion(self, term: Objective, num_tokens: Array) -> Array:
        """∂(the term's score)/∂(the first term's score)."""
        if term.scorer.per_token == self.scorer.per_token:
            return 1.0
        return term.scorer.per_nat(num_tokens) / self.scorer.per_nat(num_tokens)


def sum_of(terms: list[tuple[float, Objective]]) -> Sum:
    """The anonymous sum; a named one (ORPO) is built by the registry."""
    spelled = [{"weight": weight, "name": term.name, "parameters": term.parameters} for weight, term in terms]
    return Sum("sum", {"terms": spelled}, terms[0][1].scorer, tuple(terms))


def _terms(made: Objective) -> list[tuple[float, Objective]]:
    anonymous = isinstance(made, Sum) and made.name == "sum"
    return list(made.terms) if anonymous else [(1.0, made)]  # type: ignore[attr-defined]

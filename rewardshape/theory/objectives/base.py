"""What every objective answers, and the two ways to ask it.

An objective turns each response into a score s, a score into a reward r = β·φ(s), the two rewards of a pair into
a margin z = r(y_w) − r(y_l) − γ and the margin into a loss ℓ(z). Its gradient is always

    ∇L = −w_w·∇s(y_w) + w_l·∇s(y_l),    w_w = −ℓ′(z)·β·φ′(s_w),    w_l = −ℓ′(z)·β·φ′(s_l).

Two ways in: the methods of two scores (`score`, `reward`, `margin`, `loss`, `weights`, `log_weights`), and the
uniform entry for training, `pair_loss`, `pair_margin`, `pair_weights`, which takes `Responses` and works for every
objective, also for those that need lengths, single tokens or the whole batch.

Everything is elementwise and returned per pair, in the caller's library, dtype, device and graph. In torch the
loss, the margin and the reward carry the closed-form gradients, so a pair that is switched off has gradient 0,
never 0·∞; a loss that truly overflows is inf in its own pair and leaves the others alone.

What a subclass writes are the ``compute_…`` methods: the same formulas on an array namespace ``xp``, in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from rewardshape.errors import InputError
from rewardshape.theory._arrays import Array, Pair, apply
from rewardshape.theory._check import number
from rewardshape.theory.scores import Responses, Score


@dataclass(frozen=True)
class Objective:
    """Base of all objectives; `objective(name, **parameters)` makes them.

    Attributes
    ----------
    scorer : Score
        Whether the score has a reference, and whether it is per token.
    name : str
    parameters : dict
        JSON-able; ``objective(name, **parameters)`` makes the same objective again.
    """

    scorer: Score
    name: str = field(default="", kw_only=True)
    parameters: dict[str, Any] = field(default_factory=dict, kw_only=True, hash=False)

    coupled: ClassVar[bool] = False
    """Whether a pair's loss depends on the other pairs of its batch."""
    two_scores: ClassVar[bool] = True
    """Whether the two scores of a pair are all that the loss needs."""
    alone: ClassVar[bool] = True
    """Whether a response has a score without the other of its pair."""
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

    @property
    def sums_suffice(self) -> bool:
        """Whether summed log-probabilities and lengths are all it needs: what a trace holds at every step."""
        return set(self.needs) <= {"logp_sum", "num_tokens", "ref_logp_sum"}

    def score(self, logp_sum: Array, num_tokens: Array, ref_logp_sum: Array | None = None) -> Array:
        """The scores s of responses, in nats, or nats per token where the objective divides by the length.

        Parameters
        ----------
        logp_sum, num_tokens, ref_logp_sum : array, any shape, broadcast
            Summed log-probability in nats, response tokens, and the same under the reference where needed.
        """
        if not self.alone:
            raise InputError(
                f"{self.name}: the score of a response depends on the other of its pair; call pair_scores"
            )
        if self.scorer.reference and ref_logp_sum is None:
            raise InputError(
                f"{self.name} has a reference: give ref_logp_sum, the log-probabilities under it"
            )
        reference = ref_logp_sum if self.scorer.reference else 0.0
        return apply(self.scorer, logp_sum, num_tokens, reference, what="the score")

    def reward(self, s: Array) -> Array:
        """β·φ(s), the reward of a response with score `s`."""
        return apply(self.compute_reward, s, what="the reward", blocks=self._blocks)

    def margin(self, s_w: Array, s_l: Array) -> Array:
        """z = β·(φ(s_w) − φ(s_l)) − γ, in reward units, without cancellation."""
        return self._of_scores(self.compute_margin, s_w, s_l, what="the margin")

    def loss(self, s_w: Array, s_l: Array) -> Array:
        """The loss of each pair of scores."""
        return self._of_scores(self.compute_loss, s_w, s_l, what="the loss")

    def weights(self, s_w: Array, s_l: Array) -> Pair:
        """The gradient weights (−∂L/∂s_w, ∂L/∂s_l): how hard the chosen is pulled up and the rejected pushed down.

        A pair whose margin is saturated has weights 0; they are never NaN for finite scores. Where the objective
        pushes the other way (beyond the target of a squared loss) they are negative.
        """
        weights: Pair = self._of_scores(self.compute_weights, s_w, s_l, what="a gradient weight")
        return weights

    def log_weights(self, s_w: Array, s_l: Array) -> Pair:
        """log|w_w| and log|w_l|, for an α-shape finite even where the weights over- or underflow; −∞ of a weight 0."""
        logarithms: Pair = self._of_scores(
            self.compute_log_weights, s_w, s_l, what="a log-weight", logarithm=True
        )
        return logarithms

    def pair_scores(self, chosen: Responses, rejected: Responses) -> Pair:
        """The two scores of every pair, two arrays of shape (pairs,)."""
        scores: Pair = self._of_pairs(self.compute_scores, chosen, rejected, what="the score")
        return scores

    def pair_loss(self, chosen: Responses, rejected: Responses) -> Array:
        """The loss of every pair, shape (pairs,). Differentiable in torch. Its mean is what is trained."""
        return self._of_pairs(self.compute_pair_loss, chosen, rejected, what="the loss")

    def pair_margin(self, chosen: Responses, rejected: Responses) -> Array:
        """The margin z of every pair, shape (pairs,)."""
        return self._of_pairs(self.compute_pair_margin, chosen, rejected, what="the margin")

    def pair_weights(self, chosen: Responses, rejected: Responses) -> Pair:
        """The gradient weights (−∂L/∂s_w, ∂L/∂s_l) of every pair, two arrays of shape (pairs,)."""
        weights: Pair = self._of_pairs(self.compute_pair_weights, chosen, rejected, what="a gradient weight")
        return weights

    def __add__(self, other: Objective) -> Sum:
        """The sum of two objectives: ``objective("dpo") + 0.1 * objective("sft")``."""
        if not isinstance(other, Objective):
            return NotImplemented
        return total([*_terms(self), *_terms(other)])

    def __mul__(self, weight: float) -> Sum:
        return total([(number("weight", weight, arrays=False) * own, term) for own, term in _terms(self)])

    __rmul__ = __mul__

    @property
    def _blocks(self) -> bool:
        """Whether a large array may be evaluated piece by piece: pairs are on their own, parameters are numbers."""
        return not self.coupled and not holds_arrays(self)

    def _of_scores(
        self, function: Callable[..., Any], s_w: Array, s_l: Array, what: str, logarithm: bool = False
    ) -> Any:
        if not self.two_scores:
            raise InputError(
                f"{self.name} needs more of a pair than its two scores: call pair_loss, pair_margin or pair_weights"
            )
        if self.coupled and not (np.ndim(s_w) or np.ndim(s_l)):
            raise InputError(
                f"{self.name} looks at a whole batch: give arrays of scores, one entry for each pair"
            )
        return apply(function, s_w, s_l, what=what, blocks=self._blocks, logarithm=logarithm)

    def _of_pairs(
        self, function: Callable[..., Any], chosen: Responses, rejected: Responses, what: str
    ) -> Any:
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

    # --- what a subclass writes, on an array namespace -----------------------------------------------------------

    def resolve(self, xp: Any, chosen: Responses, rejected: Responses) -> Objective:
        """The objective of these very pairs, on the same score: itself, unless a part of it depends on the pair."""
        return self

    def compute_scores(self, xp: Any, chosen: Responses, rejected: Responses) -> Pair:
        """The two scores of every pair."""
        s_w = self.scorer(xp, chosen.logp_sum, chosen.num_tokens, chosen.ref_logp_sum)
        return s_w, self.scorer(xp, rejected.logp_sum, rejected.num_tokens, rejected.ref_logp_sum)

    def compute_pair_loss(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        """The loss of every pair."""
        made = self.resolve(xp, chosen, rejected)
        return made.compute_loss(xp, *self.compute_scores(xp, chosen, rejected))

    def compute_pair_margin(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        """The margin of every pair."""
        made = self.resolve(xp, chosen, rejected)
        return made.compute_margin(xp, *self.compute_scores(xp, chosen, rejected))

    def compute_pair_weights(self, xp: Any, chosen: Responses, rejected: Responses) -> Pair:
        """The gradient weights of every pair."""
        made = self.resolve(xp, chosen, rejected)
        return made.compute_weights(xp, *self.compute_scores(xp, chosen, rejected))

    def compute_reward(self, xp: Any, s: Array) -> Array:
        """β·φ(s)."""
        raise NotImplementedError

    def compute_margin(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        """z of the two scores."""
        raise NotImplementedError

    def compute_loss(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        """The loss, which carries its exact derivatives to the scores."""
        raise NotImplementedError

    def compute_weights(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        """(−∂L/∂s_w, ∂L/∂s_l)."""
        raise NotImplementedError

    def compute_log_weights(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        """The logarithms of their sizes."""
        w_w, w_l = self.compute_weights(xp, s_w, s_l)
        return xp.log(xp.abs(w_w)), xp.log(xp.abs(w_l))


@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum of objectives, each on its own score. Rewards, margins and scores are those of the first term.

    The gradient weights refer to the first term's score: another term's weights are converted by the chain rule
    through log π(y|x), of which every score is an affine function.
    """

    terms: tuple[tuple[Any, Objective], ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Responses` that any term needs."""
        return tuple(dict.fromkeys(name for _, term in self.terms for name in term.needs))

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        """Whether any term looks at the whole batch."""
        return any(term.coupled for _, term in self.terms)

    @property
    def alone(self) -> bool:  # type: ignore[override]
        """Whether the first term's score is that of a response without the other of its pair."""
        return self.terms[0][1].alone

    @property
    def two_scores(self) -> bool:  # type: ignore[override]
        """Whether every term is content with the first term's two scores."""
        return all(term.two_scores and term.scorer == self.scorer for _, term in self.terms)

    def compute_reward(self, xp: Any, s: Array) -> Array:
        return self.terms[0][1].compute_reward(xp, s)

    def compute_margin(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        return self.terms[0][1].compute_margin(xp, s_w, s_l)

    def compute_loss(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        return _added(weight * term.compute_loss(xp, s_w, s_l) for weight, term in self.terms)

    def compute_weights(self, xp: Any, s_w: Array, s_l: Array) -> Pair:
        parts = [(weight, term.compute_weights(xp, s_w, s_l)) for weight, term in self.terms]
        return _added(c * w_w for c, (w_w, _) in parts), _added(c * w_l for c, (_, w_l) in parts)

    def compute_pair_margin(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        return self.terms[0][1].compute_pair_margin(xp, chosen, rejected)

    def compute_pair_loss(self, xp: Any, chosen: Responses, rejected: Responses) -> Array:
        return _added(weight * term.compute_pair_loss(xp, chosen, rejected) for weight, term in self.terms)

    def compute_scores(self, xp: Any, chosen: Responses, rejected: Responses) -> Pair:
        return self.terms[0][1].compute_scores(xp, chosen, rejected)

    def compute_pair_weights(self, xp: Any, chosen: Responses, rejected: Responses) -> Pair:
        parts = [(c, term, term.compute_pair_weights(xp, chosen, rejected)) for c, term in self.terms]
        return (
            _added(c * w_w * self._conversion(term, chosen.num_tokens) for c, term, (w_w, _) in parts),
            _added(c * w_l * self._conversion(term, rejected.num_tokens) for c, term, (_, w_l) in parts),
        )

    def _conversion(self, term: Objective, num_tokens: Array) -> Array:
        """∂(the term's score)/∂(the first term's score)."""
        if term.scorer.per_token == self.scorer.per_token:
            return 1.0
        return term.scorer.per_nat(num_tokens) / self.scorer.per_nat(num_tokens)


def _added(parts: Iterable[Array]) -> Array:
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def total(terms: list[tuple[float, Objective]]) -> Sum:
    """The anonymous sum of terms; the registry makes it again from its parameters."""
    spelled = [{"weight": weight, "name": term.name, "parameters": term.parameters} for weight, term in terms]
    return Sum(terms[0][1].scorer, tuple(terms), name="sum", parameters={"terms": spelled})


def _terms(made: Objective) -> list[tuple[float, Objective]]:
    return list(made.terms) if isinstance(made, Sum) and made.name == "sum" else [(1.0, made)]


def holds_arrays(part: Any) -> bool:
    """Whether any parameter, of the objective or of a part of it, is an array rather than a number."""
    if dataclasses.is_dataclass(part):
        return any(holds_arrays(value) for value in vars(part).values())
    if isinstance(part, tuple):
        return any(map(holds_arrays, part))
    return hasattr(part, "ndim") and part.ndim > 0

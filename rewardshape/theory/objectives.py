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
from typing import Any

import numpy as np

from rewardshape.theory._arrays import Array, apply, constant, with_gradient
from rewardshape.theory.links import Link
from rewardshape.theory.scores import Responses, Score
from rewardshape.theory.shapes import Shape


@dataclass(frozen=True)
class Objective:
    """Base of all objectives: made by `objective(name, **parameters)`."""

    name: str
    parameters: dict[str, Any] = field(hash=False)
    scorer: Score

    @property
    def needs_reference(self) -> bool:
        """Whether the reference policy's log-probabilities are needed."""
        return self.scorer.reference

    def score(self, logp_sum: Array, num_tokens: Array, ref_logp_sum: Array | None = None) -> Array:
        """The scores s of responses, in nats, or nats per token where the objective divides by the length.

        Parameters
        ----------
        logp_sum, num_tokens, ref_logp_sum : array, any shape, broadcast
            Summed log-probability in nats, response tokens, and the same under the reference where needed.
        """
        return apply(self.scorer, logp_sum, num_tokens, self.scorer.checked(ref_logp_sum), what="the score")


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

    shape: Shape
    link: Link
    beta: Any
    gamma: Any

    def reward(self, s: Array) -> Array:
        """β·φ(s), the reward of a response with score `s`."""
        return apply(self._reward, s, what="the reward")

    def margin(self, s_w: Array, s_l: Array) -> Array:
        """z = β·(φ(s_w) − φ(s_l)) − γ, in reward units, without cancellation."""
        return apply(self._margin, s_w, s_l, what="the margin")

    def loss(self, s_w: Array, s_l: Array) -> Array:
        """ℓ(z) of each pair of scores."""
        return apply(self._loss, s_w, s_l, what="the loss")

    def weights(self, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        """The gradient weights (−∂L/∂s_w, ∂L/∂s_l): how hard the chosen is pulled up and the rejected pushed down.

        A pair whose margin is saturated has weights 0; they are never NaN for finite scores.
        """
        return apply(self._weights, s_w, s_l, what="a gradient weight")

    def log_weights(self, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        """log|w_w| and log|w_l|, finite where the weights themselves over- or underflow."""
        return apply(self._log_weights, s_w, s_l, what="a log-weight")

    def pair_loss(self, chosen: Responses, rejected: Responses) -> Array:
        """The loss of every pair, shape (pairs,), from log-probabilities and lengths."""
        return self._of_pairs(self._loss, chosen, rejected, what="the loss")

    def pair_margin(self, chosen: Responses, rejected: Responses) -> Array:
        """The margin z of every pair, shape (pairs,)."""
        return self._of_pairs(self._margin, chosen, rejected, what="the margin")

    def pair_weights(self, chosen: Responses, rejected: Responses) -> tuple[Array, Array]:
        """The gradient weights (−∂L/∂s_w, ∂L/∂s_l) of every pair, two arrays of shape (pairs,)."""
        return self._of_pairs(self._weights, chosen, rejected, what="a gradient weight")

    def _of_pairs(self, function: Any, chosen: Responses, rejected: Responses, what: str) -> Any:
        def of_pairs(xp: Any, *columns: Array) -> Any:
            p_w, n_w, q_w, p_l, n_l, q_l = columns
            return function(xp, self.scorer(xp, p_w, n_w, q_w), self.scorer(xp, p_l, n_l, q_l))

        columns = []
        for responses in (chosen, rejected):
            columns += [responses.logp_sum, responses.num_tokens, self.scorer.checked(responses.ref_logp_sum)]
        return apply(of_pairs, *columns, what=what)

    def _reward(self, xp: Any, s: Array) -> Array:
        return constant(xp, self.beta, s) * self.shape._reward(xp, s)

    def _margin(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        difference = self.shape._difference(xp, s_w, s_l)
        return constant(xp, self.beta, s_w) * difference - constant(xp, self.gamma, s_w)

    def _loss(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        value = self.link._loss(xp, self._margin(xp, s_w, s_l))
        if xp is np:
            return value
        w_w, w_l = self._weights(xp, s_w, s_l)
        return with_gradient(xp, value, (s_w, -w_w), (s_l, w_l))

    def _log_weights(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        return self._log_weights_at(xp, self._margin(xp, s_w, s_l), s_w, s_l)

    def _log_weights_at(self, xp: Any, z: Array, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        beta = constant(xp, self.beta, z)
        clock = self.link._log_slope(xp, z) + (xp.log(beta) if hasattr(beta, "dtype") else math.log(beta))
        return clock + self.shape._log_slope(xp, s_w), clock + self.shape._log_slope(xp, s_l)

    def _weights(self, xp: Any, s_w: Array, s_l: Array) -> tuple[Array, Array]:
        # Through logarithms, because a vanishing clock may meet a slope that overflows.
        z = self._margin(xp, s_w, s_l)
        log_w, log_l = self._log_weights_at(xp, z, s_w, s_l)
        sign = self.link._direction(xp, z)
        return sign * xp.exp(log_w), sign * xp.exp(log_l)

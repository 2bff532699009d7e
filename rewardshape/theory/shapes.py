"""Reward shapes φ: how a response's score becomes its reward, r = β·φ(s).

Every shape answers five questions about a score s, in nats: its value φ(s) (`reward`), slope φ′(s), log-slope,
curvature φ″(s), and the difference φ(s_w) − φ(s_l) of two scores, which the shapes here give without the cancellation
that subtracting two rewards suffers. β, the margin γ and the loss live in `rewardshape.theory.objectives`.

A shape of one's own is a subclass of `Shape` with two formulas, `compute_reward` and `compute_slope`; docs/compose.md
builds one and trains it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rewardshape.theory._arrays import (
    Array,
    apply_of,
    bounded,
    constant,
    limits,
    log1mexp,
    negative_part,
    positive_part,
    sigmoid,
    softplus,
    with_gradient,
)
from rewardshape.theory._check import number

LOG_HUGE = 709.0  # below the logarithm of the largest float64


class Shape:
    """Base of the shapes. The public methods take any array; ``compute_…`` are formulas on an array namespace ``xp``.

    A subclass must give `compute_reward` and `compute_slope`. Everything else follows from them and is overridden
    where more accuracy is to be had. A subclass that is a frozen dataclass of numbers, with a name that can be
    imported, is rebuilt from a trace.

    Examples
    --------
    >>> class Softsign(Shape):
    ...     def compute_reward(self, xp, s):
    ...         return s / (1 + xp.abs(s))
    ...     def compute_slope(self, xp, s):
    ...         return 1 / (1 + xp.abs(s)) ** 2
    >>> round(Softsign().curvature(-1.0), 9)
    0.25
    """

    formula: ClassVar[str] = "φ(s)"
    """φ(s) as text, for tables."""
    slope_formula: ClassVar[str] = "φ′(s)"
    """φ′(s) as text."""
    tame: ClassVar[bool] = False
    """Whether φ′ is finite in float64 at every finite score, so that weights need no detour through logarithms."""
    increasing: ClassVar[bool] = True
    """Whether φ increases everywhere; where it does not, weights take the sign of the slope."""

    def reward(self, s: Array) -> Array:
        """φ(s), the reward at β = 1. `s` of any shape, in nats; same library, dtype and device out."""
        return apply_of(self, self.compute_reward, s, what="the reward")

    def difference(self, s_w: Array, s_l: Array) -> Array:
        """φ(s_w) − φ(s_l); for the shapes of this package exact where the two scores nearly agree."""
        return apply_of(self, self.compute_difference, s_w, s_l, what="the reward difference")

    def slope(self, s: Array) -> Array:
        """φ′(s)."""
        return apply_of(self, self.compute_slope, s, what="the slope")

    def log_slope(self, s: Array) -> Array:
        """log|φ′(s)|: for the shapes of this package finite where the slope itself over- or underflows."""
        return apply_of(self, self.compute_log_slope, s, what="the log-slope", logarithm=True)

    def curvature(self, s: Array) -> Array:
        """φ″(s)."""
        return apply_of(self, self.compute_curvature, s, what="the curvature")

    def bounds(self, *, reference: bool) -> tuple[Array, Array]:
        """Infimum and supremum of φ over all scores: over s ≤ 0, or over every s where s has a reference.

        Infinite where none is known.
        """
        return -np.inf, np.inf

    def compute_reward(self, xp: Any, s: Array) -> Array:
        """φ(s)."""
        raise NotImplementedError

    def compute_slope(self, xp: Any, s: Array) -> Array:
        """φ′(s)."""
        raise NotImplementedError

    def compute_difference(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        """φ(s_w) − φ(s_l), with its exact derivatives."""
        return self._attach(xp, self.compute_reward(xp, s_w) - self.compute_reward(xp, s_l), s_w, s_l)

    def compute_log_slope(self, xp: Any, s: Array) -> Array:
        """log|φ′(s)|, −∞ where the slope is 0."""
        size = xp.abs(self.compute_slope(xp, s))
        return xp.where(size == 0, -xp.inf, xp.log(xp.where(size == 0, 1.0, size)))

    def compute_direction(self, xp: Any, s: Array) -> Array:
        """sign φ′(s): the float 1.0 where φ increases everywhere."""
        return 1.0 if self.increasing else xp.sign(self.compute_slope(xp, s))

    def compute_curvature(self, xp: Any, s: Array) -> Array:
        """φ″(s): unless overridden, the slope's difference quotient of fourth order, good to about ten digits."""
        step = 1e-3 * xp.clip(xp.abs(s), 1.0, None)
        near = self.compute_slope(xp, s + step) - self.compute_slope(xp, s - step)
        far = self.compute_slope(xp, s + 2 * step) - self.compute_slope(xp, s - 2 * step)
        return (8 * near - far) / (12 * step)

    def _attach(self, xp: Any, value: Array, s_w: Array, s_l: Array) -> Array:
        """The difference with its exact derivatives."""
        return with_gradient(
            xp, value, (s_w, self.compute_slope(xp, s_w)), (s_l, -self.compute_slope(xp, s_l))
        )

    def _attach_reward(self, xp: Any, value: Array, s: Array) -> Array:
        return with_gradient(xp, value, (s, self.compute_slope(xp, s)))


class _Steep(Shape):
    """A shape that knows the logarithm of its slope, which stays in range where the slope does not."""

    def compute_slope(self, xp: Any, s: Array) -> Array:
        return xp.exp(self.compute_log_slope(xp, s))


@dataclass(frozen=True)
class Alpha(_Steep):
    r"""The alpha family, φ_α(s) = (1 − e^(−αs))/α and φ_0(s) = s.

    .. math:: \varphi_\alpha(s) = \frac{1 - e^{-\alpha s}}{\alpha}, \qquad
              \varphi_\alpha' = e^{-\alpha s}, \qquad \varphi_\alpha'' = -\alpha e^{-\alpha s}

    α = 0 is SimPO (score per token, no reference) or DPO (summed, with a reference); α = 1 with a reference is
    forward KL; α = −1 is linear in the probability. For α < 0 the reward of a probability is bounded below by
    −1/\|α\|; for α > 0 it falls exponentially as s → −∞.

    The value and the difference are computed as

    .. math:: \varphi_\alpha(s_w) - \varphi_\alpha(s_l) = (s_w - s_l)\, e^{M}\, \mathrm{exprel}(-d), \quad
              M = \max(-\alpha s_w, -\alpha s_l),\; d = |\alpha (s_w - s_l)|

    with exprel(x) = (eˣ − 1)/x, so nothing cancels, no branch on α is needed, and e^M is applied in two halves so
    that only a difference that is itself too large overflows. In float64, with u = 2⁻⁵³ and elementary functions
    good to one ulp, the relative error of a difference is, to first order, at most (13 + \|M\|)·u: the product αs
    is rounded once and enters an exponential, which makes it \|M\|·u; the gap and α times it are rounded once each,
    and exprel passes at most that on because its condition number on the left half-line is below 1; two
    exponentials, one expm1, a division and three products make up the rest. A reward is the difference to s = 0.
    The margin z = β·Δφ − γ then has an absolute error of at most (14 + \|M\|)·u·β\|Δφ\| + u·\|z\|, and the logistic
    loss and the gradient weights, whose logarithms have slopes of at most 1 in z, pass that on as a relative error.

    Parameters
    ----------
    alpha : float or array
        The shape, finite. An array broadcasts against the scores.

    Examples
    --------
    >>> Alpha(0.0).reward(-2.0)
    -2.0
    >>> round(Alpha(1.0).reward(-2.0), 6)
    -6.389056

    References
    ----------
    AlphaPO, arXiv:2501.03884; with a reference, the alpha-divergence of f-DPO, arXiv:2309.16240.
    """

    alpha: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", number("alpha", self.alpha))

    @property
    def tame(self) -> bool:  # type: ignore[override]
        """Where α is 0."""
        return isinstance(self.alpha, float) and self.alpha == 0

    @property
    def formula(self) -> str:  # type: ignore[override]
        return "s" if np.all(np.asarray(self.alpha) == 0) else "(1 − e^(−αs))/α"

    @property
    def slope_formula(self) -> str:  # type: ignore[override]
        return "1" if np.all(np.asarray(self.alpha) == 0) else "e^(−αs)"

    def bounds(self, *, reference: bool) -> tuple[Array, Array]:
        alpha = np.asarray(self.alpha)
        with np.errstate(all="ignore"):  # 1/α beyond float64 is no bound at all: ∞ is right
            low = np.where(alpha < 0, 1 / alpha, -np.inf)
            high = np.where(alpha > 0, 1 / alpha, np.inf) if reference else 0.0 * alpha
        return low[()], high[()]

    def compute_difference(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        alpha = constant(xp, self.alpha, s_w)
        gap = bounded(xp, s_w - s_l)
        # max(−α s_w, −α s_l) = −α·s_w, or −α·s_l where α·gap is positive
        product = alpha * gap
        half = _exp_half(xp, -alpha * xp.where(product > 0, s_l, s_w))
        return self._attach(xp, gap * half * _decayed(xp, product) * half, s_w, s_l)

    def compute_reward(self, xp: Any, s: Array) -> Array:
        product = constant(xp, self.alpha, s) * s
        half = _exp_half(xp, positive_part(xp, -product))
        return self._attach_reward(xp, s * half * _decayed(xp, product) * half, s)

    def compute_slope(self, xp: Any, s: Array) -> Array:
        return xp.ones_like(s) if self.tame else super().compute_slope(xp, s)

    def compute_log_slope(self, xp: Any, s: Array) -> Array:
        return bounded(xp, -constant(xp, self.alpha, s) * s)

    def compute_curvature(self, xp: Any, s: Array) -> Array:
        alpha = constant(xp, self.alpha, s)
        return -alpha * xp.exp(-alpha * s)


def _exp_half(xp: Any, x: Array) -> Array:
    """e^(x/2), kept finite: squared it overflows all the same, but a gap of 0 times it stays 0."""
    if xp is np:
        return xp.exp(np.minimum(0.5 * x, LOG_HUGE))
    return xp.exp(xp.clip(0.5 * x, None, math.floor(math.log(limits(xp, x)[1]))))


def _decayed(xp: Any, x: Array) -> Array:
    """(1 − e^(−|x|))/|x|, 1 at x = 0, where the smallest normal number stands in for 0 and gives 1 as well."""
    size = xp.clip(xp.abs(x), *limits(xp, x))
    return xp.expm1(-size) / -size


@dataclass(frozen=True)
class JensenShannon(_Steep):
    """φ(s) = log 2 − softplus(−s), φ′ = σ(−s): bounded above by log 2, linear far below.

    References
    ----------
    f-DPO, arXiv:2309.16240.
    """

    tame: ClassVar[bool] = True
    formula: ClassVar[str] = "log 2 − softplus(−s)"
    slope_formula: ClassVar[str] = "σ(−s)"

    def bounds(self, *, reference: bool) -> tuple[Array, Array]:
        return -np.inf, float(np.log(2.0)) if reference else 0.0

    def compute_reward(self, xp: Any, s: Array) -> Array:
        return self.compute_difference(xp, s, 0.0 * s)

    def compute_difference(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        high, low = xp.where(s_w > s_l, s_w, s_l), xp.where(s_w > s_l, s_l, s_w)
        gap = high - low
        # Near each other: log1p of a positive number. Apart: the linear and the curved part of softplus on their own.
        near = xp.log1p(sigmoid(xp, -high) * xp.expm1(xp.where(gap < 1, gap, 0.0)))
        curved = xp.log1p(xp.exp(-xp.abs(low))) - xp.log1p(xp.exp(-xp.abs(high)))
        far = negative_part(xp, low) - negative_part(xp, high) + curved
        return self._attach(xp, xp.sign(s_w - s_l) * xp.where(gap < 1, near, far), s_w, s_l)

    def compute_slope(self, xp: Any, s: Array) -> Array:
        return sigmoid(xp, -s)

    def compute_log_slope(self, xp: Any, s: Array) -> Array:
        return -softplus(xp, s)

    def compute_curvature(self, xp: Any, s: Array) -> Array:
        return -sigmoid(xp, s) * sigmoid(xp, -s)


@dataclass(frozen=True)
class ChiSquared(_Steep):
    """φ(s) = s + e^s, φ′ = 1 + e^s: the χ² divergence mixed with KL, which is χPO's.

    References
    ----------
    χPO, arXiv:2407.13399.
    """

    formula: ClassVar[str] = "s + e^s"
    slope_formula: ClassVar[str] = "(1 + e^s)"

    def bounds(self, *, reference: bool) -> tuple[Array, Array]:
        return -np.inf, np.inf if reference else 1.0

    def compute_reward(self, xp: Any, s: Array) -> Array:
        return self._attach_reward(xp, s + xp.exp(s), s)

    def compute_difference(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        gap = s_w - s_l
        top = xp.where(gap > 0, s_w, s_l)
        # e^top·(1 − e^−|gap|) never meets an infinity that is not its own
        value = gap - xp.sign(gap) * xp.exp(top) * xp.expm1(-xp.abs(gap))
        return self._attach(xp, xp.where(gap == 0, 0.0 * gap, value), s_w, s_l)

    def compute_log_slope(self, xp: Any, s: Array) -> Array:
        return softplus(xp, s)

    def compute_curvature(self, xp: Any, s: Array) -> Array:
        return xp.exp(s)


@dataclass(frozen=True)
class LogOdds(_Steep):
    """φ(s) = s − log(1 − e^s), φ′ = 1/(1 − e^s): the log-odds of a probability e^s, so s ≤ 0.

    A probability of exactly 1, which float arithmetic makes of one near it, counts as the nearest below it.

    References
    ----------
    ORPO, arXiv:2403.07691.
    """

    tame: ClassVar[bool] = True
    formula: ClassVar[str] = "s − log(1 − e^s)"
    slope_formula: ClassVar[str] = "1/(1 − e^s)"

    def bounds(self, *, reference: bool) -> tuple[Array, Array]:
        return -np.inf, np.inf

    def compute_reward(self, xp: Any, s: Array) -> Array:
        # −log(e^−s − 1) is exact around its zero at s = −log 2, and s itself far below
        inner = xp.clip(s, -_DEEPEST, -limits(xp, s)[0])
        return self._attach_reward(xp, (s - inner) - xp.log(xp.expm1(-inner)), s)

    def compute_difference(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        s_w_inner, s_l_inner = _below_one(xp, s_w), _below_one(xp, s_l)
        ordered = s_w_inner - s_l_inner
        gap = xp.abs(ordered)
        # gap + log(u_low/u_high) with u = 1 − e^s, and u_low − u_high = −e^high·(e^(−gap) − 1): nothing cancels
        minus_u = xp.expm1(xp.maximum(s_w_inner, s_l_inner))
        value = gap + xp.log1p((1.0 + minus_u) * xp.expm1(-gap) / minus_u)
        return self._attach(xp, xp.copysign(value, ordered), s_w, s_l)

    def compute_slope(self, xp: Any, s: Array) -> Array:
        value = -1.0 / xp.expm1(_below_one(xp, s))
        # torch differentiates expm1 as expm1 + 1, which keeps nothing far below 0
        return value if xp is np else with_gradient(xp, value, (s, self.compute_curvature(xp, s)))

    def compute_log_slope(self, xp: Any, s: Array) -> Array:
        return -log1mexp(xp, _below_one(xp, s))

    def compute_curvature(self, xp: Any, s: Array) -> Array:
        s = _below_one(xp, s)
        return xp.exp(s - 2.0 * log1mexp(xp, s))


@dataclass(frozen=True)
class SquaredLog(Shape):
    """φ(s) = s·e^(−s), φ′ = (1 − s)·e^(−s), of a log-ratio s: the f′ of f(t) = ½(log t)², which is not convex.

    It increases up to s = 1 and falls beyond: a response that has become e times as likely as under the reference is
    pushed no further up, which is what makes the divergence resist displacement.

    References
    ----------
    SquaredPO, arXiv:2602.06788.
    """

    formula: ClassVar[str] = "s·e^(−s)"
    slope_formula: ClassVar[str] = "(1 − s)·e^(−s)"
    increasing: ClassVar[bool] = False

    def bounds(self, *, reference: bool) -> tuple[Array, Array]:
        return -np.inf, float(np.exp(-1.0)) if reference else 0.0

    def compute_reward(self, xp: Any, s: Array) -> Array:
        return self._attach_reward(xp, s * xp.exp(-s), s)

    def compute_difference(self, xp: Any, s_w: Array, s_l: Array) -> Array:
        # s_w·e^(−s_w) − s_l·e^(−s_l) = e^(−s_l)·(gap·e^(−gap) + s_l·(e^(−gap) − 1)), from the smaller score upwards
        high, low = xp.where(s_w > s_l, s_w, s_l), xp.where(s_w > s_l, s_l, s_w)
        gap = high - low
        value = xp.exp(-low) * (gap * xp.exp(-gap) + low * xp.expm1(-gap))
        return self._attach(xp, xp.sign(s_w - s_l) * xp.where(gap == 0, 0.0 * gap, value), s_w, s_l)

    def compute_slope(self, xp: Any, s: Array) -> Array:
        return (1.0 - s) * xp.exp(-s)

    def compute_log_slope(self, xp: Any, s: Array) -> Array:
        size = xp.abs(1.0 - s)
        return xp.where(size == 0, -xp.inf, xp.log(xp.where(size == 0, 1.0, size))) - s

    def compute_curvature(self, xp: Any, s: Array) -> Array:
        return (s - 2.0) * xp.exp(-s)


_DEEPEST = 80.0  # nats: e^80 is far from the end of float32, and below it the log-odds are s to the last bit


def _below_one(xp: Any, s: Array) -> Array:
    largest = -limits(xp, s)[0]
    return np.minimum(s, largest) if xp is np else xp.clip(s, None, largest)

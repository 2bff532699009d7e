"""Links ℓ: how the margin z of a pair becomes its loss.

A ranking loss decreases in z, and −ℓ′(z) is the speed at which the pair trains: the common factor of both of its
gradient weights. Every link answers with its loss ℓ(z), slope ℓ′(z), and log|ℓ′(z)|, which stays finite where the
slope underflows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from rewardshape.theory._arrays import (
    Array,
    apply_of,
    constant,
    positive_part,
    sigmoid,
    softplus,
    with_gradient,
)


class Link:
    """Base of the links. The public methods take any array; ``compute_…`` are formulas on an array namespace ``xp``.

    A subclass, which may be one's own, must give `compute_loss` and `compute_slope`.
    """

    formula: ClassVar[str] = "ℓ(z)"
    """ℓ(z) as text, for tables."""
    pull: ClassVar[str] = "−ℓ′(z)"
    """−ℓ′(z) as text."""

    def loss(self, z: Array) -> Array:
        """ℓ(z) for a margin `z` of any shape; same library, dtype and device out."""
        return apply_of(
            self,
            lambda xp, z: with_gradient(xp, self.compute_loss(xp, z), (z, self.compute_slope(xp, z))),
            z,
            what="the loss",
        )

    def slope(self, z: Array) -> Array:
        """ℓ′(z)."""
        return apply_of(self, self.compute_slope, z, what="the slope of the loss")

    def log_slope(self, z: Array) -> Array:
        """log|ℓ′(z)|."""
        return apply_of(self, self.compute_log_slope, z, what="the log-slope of the loss", logarithm=True)

    def compute_loss(self, xp: Any, z: Array) -> Array:
        """ℓ(z)."""
        raise NotImplementedError

    def compute_slope(self, xp: Any, z: Array) -> Array:
        """ℓ′(z)."""
        raise NotImplementedError

    def compute_log_slope(self, xp: Any, z: Array) -> Array:
        """log|ℓ′(z)|, −∞ where the slope is 0."""
        size = xp.abs(self.compute_slope(xp, z))
        return xp.where(size == 0, -xp.inf, xp.log(xp.where(size == 0, 1.0, size)))

    def compute_direction(self, xp: Any, z: Array) -> Array:
        """−sign ℓ′(z): +1 where a larger margin lowers the loss, the float 1.0 where that is everywhere."""
        return -xp.sign(self.compute_slope(xp, z))


class _Falling(Link):
    """A loss that falls with every margin."""

    def compute_direction(self, xp: Any, z: Array) -> Array:
        return 1.0


@dataclass(frozen=True)
class Logistic(_Falling):
    """ℓ(z) = softplus(−z) = −log σ(z), the Bradley-Terry likelihood of DPO, SimPO and AlphaPO.

    Examples
    --------
    >>> round(Logistic().loss(0.0), 6)
    0.693147
    """

    formula: ClassVar[str] = "softplus(−z)"
    pull: ClassVar[str] = "σ(−z)"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        return softplus(xp, -z)

    def compute_slope(self, xp: Any, z: Array) -> Array:
        return -sigmoid(xp, -z)

    def compute_log_slope(self, xp: Any, z: Array) -> Array:
        return -softplus(xp, z)


@dataclass(frozen=True)
class Smoothed(Link):
    """ℓ(z) = agree·softplus(−z) + flip·softplus(z): the logistic loss where some labels may be flipped.

    cDPO has agree = 1 − ε and flip = ε; robust DPO has agree = (1 − ε)/(1 − 2ε) and flip = −ε/(1 − 2ε), whose
    expectation under label noise ε is the clean loss.
    """

    agree: float
    flip: float
    formula: ClassVar[str] = "a·softplus(−z) + f·softplus(z)"
    pull: ClassVar[str] = "(a·σ(−z) − f·σ(z))"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        return self.agree * softplus(xp, -z) + self.flip * softplus(xp, z)

    def compute_slope(self, xp: Any, z: Array) -> Array:
        return self.flip * sigmoid(xp, z) - self.agree * sigmoid(xp, -z)


@dataclass(frozen=True)
class Hinge(Link):
    """ℓ(z) = max(0, at − z), SLiC's with at = 1. At the kink the slope is that of the right side, 0."""

    at: float = 1.0

    @property
    def formula(self) -> str:  # type: ignore[override]
        return f"max(0, {self.at:g} − z)" if self.at else "max(0, −z)"

    @property
    def pull(self) -> str:  # type: ignore[override]
        return f"[z < {self.at:g}]"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        return positive_part(xp, self.at - z)

    def compute_slope(self, xp: Any, z: Array) -> Array:
        return xp.where(z < self.at, -1.0 + 0.0 * z, 0.0 * z)


@dataclass(frozen=True)
class Squared(Link):
    """ℓ(z) = (z − c)², IPO and SPPO: pushes back once z has passed its target c."""

    target: Any
    formula: ClassVar[str] = "(z − c)²"
    pull: ClassVar[str] = "2(c − z)"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        return (z - constant(xp, self.target, z)) ** 2

    def compute_slope(self, xp: Any, z: Array) -> Array:
        return 2.0 * (z - constant(xp, self.target, z))


@dataclass(frozen=True)
class Exponential(_Falling):
    """ℓ(z) = e^(−z), of generalised preference optimization."""

    formula: ClassVar[str] = "e^(−z)"
    pull: ClassVar[str] = "e^(−z)"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        return xp.exp(-z)

    def compute_slope(self, xp: Any, z: Array) -> Array:
        return -xp.exp(-z)

    def compute_log_slope(self, xp: Any, z: Array) -> Array:
        return -z


@dataclass(frozen=True)
class Sigmoid(_Falling):
    """ℓ(z) = 1 − σ(z), of KTO and APO: saturates on both sides, so a hopeless response is left alone."""

    formula: ClassVar[str] = "1 − σ(z)"
    pull: ClassVar[str] = "σ(z)·σ(−z)"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        return sigmoid(xp, -z)

    def compute_slope(self, xp: Any, z: Array) -> Array:
        small = xp.exp(-xp.abs(z))  # σ(z)·σ(−z) is the same on both sides
        return -small / (1.0 + small) ** 2

    def compute_log_slope(self, xp: Any, z: Array) -> Array:
        return -softplus(xp, z) - softplus(xp, -z)


@dataclass(frozen=True)
class Linear(_Falling):
    """ℓ(z) = −z: of a score, its plain negative log-likelihood."""

    formula: ClassVar[str] = "−z"
    pull: ClassVar[str] = "1"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        return -z

    def compute_slope(self, xp: Any, z: Array) -> Array:
        return 0.0 * z - 1.0

    def compute_log_slope(self, xp: Any, z: Array) -> Array:
        return 0.0 * z


@dataclass(frozen=True)
class ReverseKL(Link):
    """ℓ(z) = KL((σ(z), σ(−z)) ‖ (1−ε, ε)), EXO's loss of a pair whose label is wrong with probability ε.

    Its slope σ(z)σ(−z)·(z − log((1−ε)/ε)) vanishes on both sides: where z is very negative, unlike in DPO, the
    pair is given up.
    """

    epsilon: float
    formula: ClassVar[str] = "KL(σ(±z) ‖ 1−ε, ε)"
    pull: ClassVar[str] = "σ(z)·σ(−z)·(log((1−ε)/ε) − z)"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        up = sigmoid(xp, z) * (-softplus(xp, -z) - math.log1p(-self.epsilon))
        return up + sigmoid(xp, -z) * (-softplus(xp, z) - math.log(self.epsilon))

    def compute_slope(self, xp: Any, z: Array) -> Array:
        return sigmoid(xp, z) * sigmoid(xp, -z) * (z - (math.log1p(-self.epsilon) - math.log(self.epsilon)))


@dataclass(frozen=True)
class LogRatioModulated(Link):
    """ℓ(z) = (1−m)·softplus(−z) + m·e^(−z), m = σ(z/τ): the loss that DiscoPOP discovered."""

    tau: float
    formula: ClassVar[str] = "(1−m)·softplus(−z) + m·e^(−z), m = σ(z/τ)"
    pull: ClassVar[str] = "((1−m)·σ(−z) + m·e^(−z) − m(1−m)(e^(−z) − softplus(−z))/τ)"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        return sigmoid(xp, -z / self.tau) * softplus(xp, -z) + self._exponential(xp, z)

    def _exponential(self, xp: Any, z: Array) -> Array:
        """m·e^(−z), through the logarithm because far below 0 it is 0·∞."""
        return xp.exp(-softplus(xp, -z / self.tau) - z)

    def compute_slope(self, xp: Any, z: Array) -> Array:
        rest = sigmoid(xp, -z / self.tau)
        m, exponential = 1.0 - rest, self._exponential(xp, z)
        blend = rest * (exponential - m * softplus(xp, -z)) / self.tau
        return blend - rest * sigmoid(xp, -z) - exponential


@dataclass(frozen=True)
class Flipped(Link):
    """ℓ(−z): the same loss, pushing down what it pulled up."""

    link: Link

    @property
    def formula(self) -> str:  # type: ignore[override]
        return _reflected(self.link.formula)

    @property
    def pull(self) -> str:  # type: ignore[override]
        return f"−{_reflected(self.link.pull)}"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        return self.link.compute_loss(xp, -z)

    def compute_slope(self, xp: Any, z: Array) -> Array:
        return -self.link.compute_slope(xp, -z)

    def compute_log_slope(self, xp: Any, z: Array) -> Array:
        return self.link.compute_log_slope(xp, -z)

    def compute_direction(self, xp: Any, z: Array) -> Array:
        return -self.link.compute_direction(xp, -z)


@dataclass(frozen=True)
class Clipped(Link):
    """ℓ(clip(z, −bound, bound)): a pair beyond the bound has slope 0, as χPO's analysis asks."""

    link: Link
    bound: float

    @property
    def formula(self) -> str:  # type: ignore[override]
        return f"{self.link.formula}, z clipped to ±{self.bound:g}"

    @property
    def pull(self) -> str:  # type: ignore[override]
        return f"{self.link.pull}·[|z| < {self.bound:g}]"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        return self.link.compute_loss(xp, xp.clip(z, -self.bound, self.bound))

    def compute_slope(self, xp: Any, z: Array) -> Array:
        inside = xp.abs(z) < self.bound
        return xp.where(inside, self.link.compute_slope(xp, xp.where(inside, z, 0.0)), 0.0 * z)


@dataclass(frozen=True)
class NoisyLabels(Link):
    """ℓ_ε(z) = (1 − ε)·ℓ(z) + ε·ℓ(−z): any loss, where a share ε of the labels is taken to be wrong."""

    link: Link
    noise: float

    @property
    def formula(self) -> str:  # type: ignore[override]
        return f"(1−ε)·[{self.link.formula}] + ε·[{_reflected(self.link.formula)}]"

    @property
    def pull(self) -> str:  # type: ignore[override]
        return f"((1−ε)·[{self.link.pull}] − ε·[{_reflected(self.link.pull)}])"

    def compute_loss(self, xp: Any, z: Array) -> Array:
        return (1 - self.noise) * self.link.compute_loss(xp, z) + self.noise * self.link.compute_loss(xp, -z)

    def compute_slope(self, xp: Any, z: Array) -> Array:
        return (1 - self.noise) * self.link.compute_slope(xp, z) - self.noise * self.link.compute_slope(
            xp, -z
        )


def _reflected(formula: str) -> str:
    """The formula with −z for z."""
    return "z".join(part.replace("z", "−z") for part in formula.split("−z"))

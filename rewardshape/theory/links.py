"""Links ℓ: how the margin z of a pair becomes its loss.

A ranking loss decreases in z, and −ℓ′(z) is the speed at which the pair trains: the common factor of both of its
gradient weights. Every link answers with its loss ℓ(z), slope ℓ′(z), and log|ℓ′(z)|, which stays finite where the
slope underflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rewardshape.theory._arrays import Array, apply, sigmoid, softplus, with_gradient


class Link:
    """Base of the links. Subclasses give formulas on an array namespace; the public methods take any array."""

    def loss(self, z: Array) -> Array:
        """ℓ(z) for a margin `z` of any shape; same library, dtype and device out."""
        return apply(
            lambda xp, z: with_gradient(xp, self._loss(xp, z), (z, self._slope(xp, z))), z, what="the loss"
        )

    def slope(self, z: Array) -> Array:
        """ℓ′(z)."""
        return apply(self._slope, z, what="the slope of the loss")

    def log_slope(self, z: Array) -> Array:
        """log|ℓ′(z)|."""
        return apply(self._log_slope, z, what="the log-slope of the loss")

    def _loss(self, xp: Any, z: Array) -> Array:
        raise NotImplementedError

    def _slope(self, xp: Any, z: Array) -> Array:
        raise NotImplementedError

    def _log_slope(self, xp: Any, z: Array) -> Array:
        raise NotImplementedError

    def _direction(self, xp: Any, z: Array) -> Array:
        """−sign ℓ′(z): +1 where a larger margin lowers the loss."""
        return 1.0


@dataclass(frozen=True)
class Logistic(Link):
    """ℓ(z) = softplus(−z) = −log σ(z), the Bradley-Terry likelihood of DPO, SimPO and AlphaPO.

    Examples
    --------
    >>> round(Logistic().loss(0.0), 6)
    0.693147
    """

    def _loss(self, xp: Any, z: Array) -> Array:
        return softplus(xp, -z)

    def _slope(self, xp: Any, z: Array) -> Array:
        return -sigmoid(xp, -z)

    def _log_slope(self, xp: Any, z: Array) -> Array:
        return -softplus(xp, z)

"""Differential information: what a policy has learnt beside its reference, as a distribution over responses.

The distribution q ∝ π/π_ref of a small vocabulary of responses, its entropy, and the rejected responses from which
DPO learns a given target exactly. `docs/differential-information.md` derives what is used here and tests the claim
that the entropy of q decides whether training sharpens or spreads a policy.

References
----------
Differential Information Distribution, arXiv:2505.23761.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rewardshape.errors import InputError
from rewardshape.theory._arrays import Array
from rewardshape.theory._check import number


class Information(NamedTuple):
    """log q over the responses, and the entropy of q in nats."""

    log_density: np.ndarray
    entropy: Array


def differential_information(log_policy: Array, log_reference: Array) -> Information:
    """q(y) ∝ π(y)/π_ref(y) over a vocabulary of responses, and its entropy.

    Parameters
    ----------
    log_policy, log_reference : array, shape (..., responses)
        Log-probabilities of every response, in nats; normalised over the last axis.

    Examples
    --------
    A policy that equals its reference has learnt nothing: q is uniform.

    >>> uniform = np.log(np.full(4, 0.25))
    >>> round(float(differential_information(uniform, uniform).entropy / np.log(4)), 6)
    1.0
    """
    ratio = _distribution("log_policy", log_policy) - _distribution("log_reference", log_reference)
    log_density = ratio - np.logaddexp.reduce(ratio, axis=-1, keepdims=True)
    return Information(log_density, entropy(log_density))


def entropy(log_probabilities: Array) -> Array:
    """−Σ p log p over the last axis, in nats."""
    p = np.asarray(log_probabilities, dtype=np.float64)
    return -np.sum(np.exp(p) * np.where(np.isneginf(p), 0.0, p), axis=-1)[()]  # 0 log 0 is 0


def rejected_distribution(log_target: Array, log_reference: Array, *, beta: float) -> np.ndarray:
    r"""The log-probabilities from which rejected responses must be drawn for DPO to learn `log_target` exactly.

    With chosen responses from π_ref and rejected ones from

    .. math:: \pi_l(y) \propto \pi_{\text{ref}}(y) \left(\frac{\pi_{\text{ref}}(y)}{\pi^*(y)}\right)^{\beta}

    the chance that, of two responses, one is the chosen is σ(β·log(π*/π_ref)(y₁) − β·log(π*/π_ref)(y₂)), which is
    DPO's model of a preference at π = π*: so π* minimises DPO's expected loss.

    References
    ----------
    arXiv:2505.23761, Theorem 3.3: q of (π_ref, π_l) is proportional to q of (π*, π_ref) to the power β.
    """
    target, reference = _distribution("log_target", log_target), _distribution("log_reference", log_reference)
    tilted = reference + number("beta", beta, above=0) * (reference - target)
    return np.asarray(tilted - np.logaddexp.reduce(tilted, axis=-1, keepdims=True))


def _distribution(name: str, log_probabilities: Array) -> np.ndarray:
    values = np.asarray(log_probabilities, dtype=np.float64)
    if not np.allclose(np.logaddexp.reduce(values, axis=-1), 0.0, atol=1e-6):
        raise InputError(
            f"{name} must be log-probabilities of every response, which sum to 1 over the last axis"
        )
    return values

"""An objective from its parts, which may be one's own: ``compose(score="logp_mean", shape=…, link=…, beta=2.0)``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from rewardshape.errors import InputError
from rewardshape.theory._arrays import callers_level
from rewardshape.theory._check import nearest, number
from rewardshape.theory.links import Linear, Link, Logistic, NoisyLabels, Smoothed
from rewardshape.theory.objectives.base import Objective, Sum
from rewardshape.theory.objectives.declaration import plain
from rewardshape.theory.objectives.pairwise import LOGISTIC, PLAIN, Pairwise
from rewardshape.theory.objectives.pointwise import Pointwise
from rewardshape.theory.parts import check_link, check_shape, part_of, spelled
from rewardshape.theory.scores import Score
from rewardshape.theory.shapes import Alpha, LogOdds, Shape

COMPOSED = "composed"
NEAR_BOUND = 0.9  # of the largest margin a bounded shape can reach: a γ beyond it is as good as out of reach
SCORES = {
    "logp_sum": Score(reference=False, per_token=False),
    "logp_mean": Score(reference=False, per_token=True),
    "log_ratio": Score(reference=True, per_token=False),
    "log_ratio_mean": Score(reference=True, per_token=True),
}


def compose(
    *,
    score: str,
    beta: Any,
    shape: Shape | str | Mapping[str, Any] = PLAIN,
    link: Link | str | Mapping[str, Any] = LOGISTIC,
    gamma: Any = None,
    gamma_beta_ratio: Any = None,
    label_smoothing: float = 0.0,
    sft: float = 0.0,
) -> Objective:
    r"""The objective ℓ(β·φ(s_w) − β·φ(s_l) − γ) of the parts given, with its exact gradient weights.

    Parameters
    ----------
    score : str
        What stands for a response: ``"logp_sum"`` log π(y|x), ``"logp_mean"`` log π(y|x)/\|y\|, ``"log_ratio"`` and
        ``"log_ratio_mean"`` the same of π/π_ref. In nats.
    beta : float or array
        Scale β of the reward, positive.
    shape : Shape, str or dict, optional
        φ: a `Shape`, which may be one's own, or the name of one of this package's (``"jensen_shannon"``), or
        its name with its parameters (``{"name": "alpha", "alpha": 0.25}``). φ(s) = s where left out.
    link : Link, str or dict, optional
        ℓ, in the same ways; the logistic loss where left out.
    gamma, gamma_beta_ratio : float or array, optional
        The target margin γ in reward units, or γ/β; one of the two, 0 where left out.
    label_smoothing : float
        ε: the loss becomes (1 − ε)·ℓ(z) + ε·ℓ(−z).
    sft : float
        Weight of −log π(y_w|x)/\|y_w\|, added to the loss of every pair.

    Returns
    -------
    Objective
        Its parameters spell the parts, so that ``objective("composed", **parameters)`` makes it again; a part of
        one's own must then have been imported.

    Raises
    ------
    InputError
        For an unknown name or an impossible value; for a part of one's own that is not finite, not increasing
        although it claims to be, or whose slope is not the derivative of its value.

    Examples
    --------
    SimPER is the alpha family at α = −1 with a linear link:

    >>> simper = compose(score="logp_mean", shape={"name": "alpha", "alpha": -1.0}, link="linear", beta=1.0)
    >>> round(simper.loss(-1.0, -2.0), 6), [round(w, 6) for w in simper.weights(-1.0, -2.0)]
    (-0.232544, [0.367879, 0.135335])
    """
    if score not in SCORES:
        raise InputError(nearest("score", score, SCORES))
    scorer = SCORES[score]
    shape, link = part_of(Shape, shape), part_of(Link, link)
    if isinstance(shape, LogOdds) and scorer.reference:
        raise InputError(
            "shape log_odds: of a probability e^s, and π/π_ref is none: where training begins it is 1, and its odds "
            "have no bound; give score logp_mean or logp_sum"
        )
    check_shape(shape, reference=scorer.reference)
    check_link(link)
    beta = number("beta", beta, above=0)
    if gamma is not None and gamma_beta_ratio is not None:
        raise InputError("give gamma or gamma_beta_ratio, not both")
    ratio = number("gamma_beta_ratio", 0.0 if gamma_beta_ratio is None else gamma_beta_ratio)
    gamma = number("gamma", ratio * beta if gamma is None else gamma)
    noise = number("label_smoothing", label_smoothing, arrays=False, least=0, below=0.5)
    weight = number("sft", sft, arrays=False, least=0)
    shapes = {"shape": spelled(shape), "link": spelled(link)}
    numbers = {"beta": beta, "gamma": gamma, "label_smoothing": noise, "sft": weight}
    parameters = {"score": score, **shapes, **plain(numbers)}
    named: dict[str, Any] = {"name": COMPOSED, "parameters": parameters}
    preference = Pairwise(scorer, shape, _noisy(link, noise), beta, gamma, **named)
    warn(preference)
    if not weight:
        return preference
    likelihood = Pointwise(SCORES["logp_mean"], PLAIN, Linear(), None)
    return Sum(scorer, ((1.0, preference), (weight, likelihood)), **named)


def _noisy(link: Link, noise: float) -> Link:
    if not noise:
        return link
    return Smoothed(1 - noise, noise) if isinstance(link, Logistic) else NoisyLabels(link, noise)


def warn(made: Objective) -> None:
    """Warn where a composition cannot work as its user would expect."""
    if not isinstance(made, Pairwise):
        return
    if (
        isinstance(made.shape, Alpha)
        and not made.scorer.per_token
        and np.any(np.asarray(made.shape.alpha) > 0)
    ):
        warnings.warn(
            f"{made.name}: alpha > 0 on summed log-probabilities overflows within a few hundred nats; "
            "use a per-token score (alphapo) or alpha <= 0",
            stacklevel=callers_level(),
        )
    low, high = made.shape.bounds(reference=made.scorer.reference)
    with np.errstate(invalid="ignore"):
        reach = made.beta * (np.asarray(high) - np.asarray(low))
    near = np.asarray(made.gamma) > NEAR_BOUND * reach
    if np.any(near & np.isfinite(reach)):
        warnings.warn(
            f"{made.name}: the reward is bounded, so the margin before gamma never exceeds {np.min(reach):.6g}, and "
            f"gamma = {np.max(made.gamma):.6g} leaves pairs that can never be satisfied; lower gamma or raise beta",
            stacklevel=callers_level(),
        )

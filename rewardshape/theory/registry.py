"""The registry: ``objective("alphapo", alpha=0.25)`` by the name its paper gave it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rewardshape.errors import InputError
from rewardshape.theory._check import nearest, number
from rewardshape.theory.links import Link, Logistic
from rewardshape.theory.objectives import Objective, Pairwise
from rewardshape.theory.scores import Score
from rewardshape.theory.shapes import Alpha, Shape

NEAR_BOUND = 0.9  # of the largest margin a bounded shape can reach: a γ beyond it is as good as out of reach


@dataclass(frozen=True)
class Entry:
    """One objective of the registry: how to build it, and where it is from."""

    build: Callable[..., Objective]
    source: str

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameters and their published defaults."""
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}


REGISTRY: dict[str, Entry] = {}


def registered(name: str, source: str) -> Callable:
    """Enter the decorated builder into the registry."""

    def register(build: Callable[..., Objective]) -> Callable[..., Objective]:
        REGISTRY[name] = Entry(build, source)
        return build

    return register


def objective(name: str, **parameters: Any) -> Any:
    """The objective of that name, with its published defaults for parameters left out.

    Parameters
    ----------
    name : str
        ``"alphapo"``, ``"simpo"``, ``"dpo"``, …: see `rewardshape.theory.objective_names`.
    **parameters
        The objective's own parameters. A target margin is given as `gamma` or as `gamma_beta_ratio`, never both.
        `alpha`, `beta` and `gamma` may be arrays, which broadcast against the scores.

    Returns
    -------
    Objective
        Its `parameters` are JSON-able and rebuild it.

    Raises
    ------
    InputError
        Unknown name or parameter (with the nearest valid ones), or a value that makes no objective.

    Examples
    --------
    >>> objective("alphapo", alpha=0.0, beta=2.0, gamma=1.0).parameters
    {'alpha': 0.0, 'beta': 2.0, 'gamma': 1.0}
    """
    if name not in REGISTRY:
        raise InputError(nearest("objective", name, REGISTRY))
    entry = REGISTRY[name]
    for given in parameters:
        if given not in entry.defaults:
            raise InputError(f"{name}: {nearest('parameter', given, entry.defaults)}")
    return entry.build(**{key: value for key, value in parameters.items() if value is not None})


def objective_names() -> list[str]:
    """All names that `objective` knows."""
    return sorted(REGISTRY)


def target_margin(beta: Any, gamma: Any, gamma_beta_ratio: Any, published_ratio: float) -> Any:
    """γ, from itself or from γ/β; the published ratio where neither is given."""
    if gamma is not None and gamma_beta_ratio is not None:
        raise InputError("give gamma or gamma_beta_ratio, not both")
    if gamma is not None:
        return number("gamma", gamma)
    ratio = published_ratio if gamma_beta_ratio is None else gamma_beta_ratio
    return number("gamma", number("gamma_beta_ratio", ratio) * beta)


def pairwise(
    name: str,
    parameters: dict[str, Any],
    score: Score,
    *,
    shape: Shape | None = None,
    link: Link | None = None,
    beta: Any,
    gamma: Any = 0.0,
) -> Pairwise:
    """Compose an objective, and warn where the composition cannot work as its user would expect."""
    made = Pairwise(
        name=name,
        parameters={key: _plain(value) for key, value in parameters.items()},
        scorer=score,
        shape=shape or Alpha(0.0),
        link=link or Logistic(),
        beta=beta,
        gamma=gamma,
    )
    _warn(made)
    return made


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _warn(made: Pairwise) -> None:
    if (
        isinstance(made.shape, Alpha)
        and not made.scorer.per_token
        and np.any(np.asarray(made.shape.alpha) > 0)
    ):
        warnings.warn(
            f"{made.name}: alpha > 0 on summed log-probabilities overflows within a few hundred nats; "
            "use a per-token score (alphapo) or alpha <= 0",
            stacklevel=5,
        )
    low, high = made.shape.bounds(reference=made.scorer.reference)
    with np.errstate(invalid="ignore"):
        reach = made.beta * (np.asarray(high) - np.asarray(low))
    near = np.asarray(made.gamma) > NEAR_BOUND * reach
    if np.any(near & np.isfinite(reach)):
        warnings.warn(
            f"{made.name}: the reward is bounded, so the margin before gamma never exceeds {np.min(reach):.6g}, and "
            f"gamma = {np.max(made.gamma):.6g} leaves pairs that can never be satisfied; lower gamma or raise beta",
            stacklevel=5,
        )


@registered("alphapo", source="AlphaPO, arXiv:2501.03884")
def _alphapo(
    *, alpha: Any = 0.25, beta: Any = 2.5, gamma: Any = None, gamma_beta_ratio: Any = None
) -> Objective:
    alpha, beta = number("alpha", alpha), number("beta", beta, above=0)
    gamma = target_margin(beta, gamma, gamma_beta_ratio, 0.1)
    parameters = {"alpha": alpha, "beta": beta, "gamma": gamma}
    score = Score(reference=False, per_token=True)
    return pairwise("alphapo", parameters, score, shape=Alpha(alpha), beta=beta, gamma=gamma)


@registered("simpo", source="SimPO, arXiv:2405.14734")
def _simpo(*, beta: Any = 2.5, gamma: Any = None, gamma_beta_ratio: Any = None) -> Objective:
    beta = number("beta", beta, above=0)
    gamma = target_margin(beta, gamma, gamma_beta_ratio, 0.1)
    score = Score(reference=False, per_token=True)
    return pairwise("simpo", {"beta": beta, "gamma": gamma}, score, beta=beta, gamma=gamma)


@registered("dpo", source="DPO, arXiv:2305.18290, eq. 7")
def _dpo(*, beta: Any = 0.1) -> Objective:
    beta = number("beta", beta, above=0)
    return pairwise("dpo", {"beta": beta}, Score(reference=True, per_token=False), beta=beta)

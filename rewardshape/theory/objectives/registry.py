"""Objectives by name: ``objective("alphapo", alpha=0.25)``."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from rewardshape.errors import InputError
from rewardshape.theory._check import nearest, number
from rewardshape.theory.objectives.aliases import ALIASES, require_names, translate
from rewardshape.theory.objectives.base import Objective, total
from rewardshape.theory.objectives.compose import COMPOSED, compose, warn
from rewardshape.theory.objectives.declaration import Declaration, plain
from rewardshape.theory.objectives.zoo import ZOO

SUM = "sum"

REGISTRY: dict[str, Declaration] = {declared.name: declared for declared in ZOO}
_OWN: dict[str, Callable[..., Objective]] = {}


def objective(name: str, **parameters: Any) -> Objective:
    """The objective of that name, with the defaults of its declaration for parameters left out.

    Parameters
    ----------
    name : str
        ``"alphapo"``, ``"simpo"``, ``"dpo"``, …: see `rewardshape.theory.objective_names`; TRL's name of a loss
        (``"exo_pair"``); or ``"sum"``, with
        `terms`, a list of ``{"weight", "name", "parameters"}``, which adding objectives makes, or ``"composed"``,
        with the arguments of `compose`.
    **parameters
        The objective's own parameters, listed with their defaults, and whom these follow, in docs/objectives.md. A
        target margin is given as `gamma` or as `gamma_beta_ratio`, never both. `alpha`, `beta` and `gamma` may be
        arrays, which broadcast against the scores (not in `aot_unpaired` and `lipo`, whose terms couple
        responses); every other parameter is a single number.

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
    if name in _BUILT:
        return _built(name, parameters)
    given = {key: value for key, value in parameters.items() if value is not None}
    if name in _OWN:
        return _named(name, _OWN[name](**given), given)
    if name in ALIASES:
        alias = ALIASES[name]
        return objective(alias.objective, **{**alias.parameters, **given})
    if name not in REGISTRY:
        own = (
            f"; if it is code of your own, call load_objective({name!r}, …) or import what registers it first"
            if ":" in str(name)
            else ""
        )
        raise InputError(nearest("objective", name, [*objective_names(), *ALIASES]) + own)
    declared = REGISTRY[name]
    settled = declared.settle(given)
    made = _named(name, declared.build(**settled), settled)
    warn(made)
    return made


def _named(name: str, made: Objective, parameters: dict[str, Any]) -> Objective:
    return dataclasses.replace(made, name=name, parameters=plain(parameters))


def objective_names() -> list[str]:
    """The names of all published objectives, and of those that `register` added."""
    return sorted([*REGISTRY, *_OWN])


def from_config(config: Mapping[str, Any]) -> Objective:
    """The objective that another trainer's configuration asks for.

    Parameters
    ----------
    config : dict
        Of TRL (`DPOConfig`, `CPOConfig`), SimPO's repository, LLaMA-Factory, OpenRLHF or Axolotl, as read from its
        YAML. What says nothing of the loss is passed over; parameters left out have this package's defaults.

    Raises
    ------
    InputError
        For a loss that is not known, or stated twice; for options of which no objective has all.

    Examples
    --------
    >>> from_config({"loss_type": "exo_pair", "beta": 0.3, "learning_rate": 5e-7}).parameters
    {'beta': 0.3, 'label_smoothing': 0.001}
    >>> mixed = from_config({"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0], "beta": 0.1})
    >>> [(weight, term.name) for weight, term in mixed.terms]
    [(0.8, 'dpo'), (0.2, 'bco'), (1.0, 'sft')]
    """
    require_names(config)
    terms = translate(config)
    if len(terms) == 1 and terms[0]["weight"] == 1.0:
        return objective(terms[0]["name"], **terms[0]["parameters"])
    return _sum(terms)


def register(name: str, make: Callable[..., Objective]) -> None:
    """Let `objective` know an objective of one's own under `name`, for this process.

    Parameters
    ----------
    name : str
        Any name that no published objective has. Registering it again replaces what it stood for.
    make : callable
        ``make(**parameters)`` gives the objective. The parameters must be JSON-able: a trace keeps name and
        parameters, and the objective is made again from them.

    Examples
    --------
    >>> register("half_dpo", lambda beta=0.1: 0.5 * objective("dpo", beta=beta))
    >>> round(objective("half_dpo", beta=1.0).loss(0.0, 0.0), 6)
    0.346574
    """
    if name in REGISTRY or name in _BUILT or name in ALIASES:
        raise InputError(f"{name!r} is a published objective; register your own under another name")
    if not callable(make):
        raise InputError(f"register({name!r}, …): give a function that makes the objective, got {make!r}")
    _OWN[name] = make


def _sum(terms: list[dict[str, Any]]) -> Objective:
    if not terms:
        raise InputError("sum: give terms, a list of {weight, name, parameters}")
    return total(
        [
            (
                number("weight", term["weight"], arrays=False),
                objective(term["name"], **term.get("parameters", {})),
            )
            for term in terms
        ]
    )


_BUILT: dict[str, Callable[..., Objective]] = {SUM: _sum, COMPOSED: compose}
"""What objectives that are made of others, or of parts, call themselves."""


def _built(name: str, parameters: dict[str, Any]) -> Objective:
    try:
        inspect.signature(_BUILT[name]).bind(**parameters)
    except TypeError as error:
        raise InputError(f"{name}: {error}") from None
    return _BUILT[name](**parameters)

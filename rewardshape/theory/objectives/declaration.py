"""What an objective of the zoo is declared by: its source, its parameters, and the parts they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rewardshape.errors import InputError
from rewardshape.theory._check import nearest, number
from rewardshape.theory.objectives.base import Objective


@dataclass(frozen=True)
class Parameter:
    """One parameter: its default, what it is, and whom the default follows.

    Attributes
    ----------
    default : float, str, bool or None
        None: the parameter may be left out, and then has no part in the objective.
    meaning : str
        Symbol and unit, and how other implementations name it.
    whom : str
        The paper and section, the authors' file or the trainer that the default is taken from, or "ours".
    check : callable
        ``check(name, value)`` gives the value as it is kept, or raises InputError.
    only_with : tuple, optional
        (name, value) of another parameter without which this one has no meaning.
    """

    default: Any
    meaning: str
    whom: str
    check: Callable[[str, Any], Any]
    only_with: tuple[str, Any] | None = None


def real(
    default: Any, meaning: str, whom: str, *words: str, arrays: bool = False, **bounds: float
) -> Parameter:
    """A number within `bounds` (`above`, `least`, `below`, `most`), or one of `words`; or one number for each pair."""

    def check(name: str, value: Any) -> Any:
        if isinstance(value, str) and value in words:
            return value
        return number(name, value, arrays=arrays, **bounds)

    return Parameter(default, meaning, whom, check)


def count(default: int, meaning: str, whom: str) -> Parameter:
    """A whole number, at least 1."""

    def check(name: str, value: Any) -> int:
        given = number(name, value, arrays=False, least=1)
        if given != int(given):
            raise InputError(f"{name} must be a whole number, got {value!r}")
        return int(given)

    return Parameter(default, meaning, whom, check)


def switch(default: bool, meaning: str, whom: str) -> Parameter:
    """True or False."""

    def check(name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InputError(f"{name} must be True or False, got {value!r}")
        return value

    return Parameter(default, meaning, whom, check)


def choice(default: str, meaning: str, whom: str, *names: str) -> Parameter:
    """One of `names`."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise InputError(nearest(name, value, names))
        return value

    return Parameter(default, meaning, whom, check)


RATIO_NAME = "gamma_beta_ratio"


@dataclass(frozen=True)
class Declaration:
    """An objective as data: ``build(**parameters)`` composes its parts, everything else stands here.

    A parameter `gamma` may always be given as `gamma_beta_ratio` instead; its default is such a ratio.
    """

    name: str
    source: str
    build: Callable[..., Objective] = field(repr=False)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    note: str = ""

    @property
    def accepted(self) -> list[str]:
        """The names of all parameters that may be given."""
        return [*self.parameters, *([RATIO_NAME] if "gamma" in self.parameters else [])]

    def settle(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter with its checked value: as given, or by default."""
        for name in given:
            if name not in self.accepted:
                raise InputError(f"{self.name}: {nearest('parameter', name, self.accepted)}")
        settled: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            value = given.get(name)
            if not self._applies(parameter, settled):
                if value is not None:
                    other, wanted = parameter.only_with or ("", "")
                    raise InputError(
                        f'{self.name}: {name} belongs to {other}="{wanted}", not to "{settled[other]}"'
                    )
                continue
            if name == "gamma":
                value = self._target(value, given.get(RATIO_NAME), settled["beta"])
            elif value is None:
                value = parameter.default
            if value is not None:
                settled[name] = parameter.check(name, value)
        return settled

    def _applies(self, parameter: Parameter, settled: Mapping[str, Any]) -> bool:
        return parameter.only_with is None or settled[parameter.only_with[0]] == parameter.only_with[1]

    def _target(self, gamma: Any, ratio: Any, beta: Any) -> Any:
        if gamma is not None and ratio is not None:
            raise InputError("give gamma or gamma_beta_ratio, not both")
        if gamma is not None:
            return gamma
        return number(RATIO_NAME, self.parameters["gamma"].default if ratio is None else ratio) * beta


def plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON has them."""
    return {
        key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in parameters.items()
    }

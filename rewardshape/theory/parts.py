"""Shapes and links as data, and the check of those that are not this package's own."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from rewardshape.errors import InputError
from rewardshape.theory._arrays import Array, apply
from rewardshape.theory._check import nearest
from rewardshape.theory.links import Link
from rewardshape.theory.shapes import Shape

_PACKAGE = __name__.rpartition(".")[0]
_POINTS = 401  # of the grid on which a part is checked
_AGREES = 1e-3  # relative: what a difference quotient of a correct formula never misses by

Part = TypeVar("Part", Shape, Link)


def part_of(base: type[Part], given: Part | str | Mapping[str, Any]) -> Part:
    """The shape or link that is meant: itself, its name, or its name and parameters as `spelled` gives them."""
    if isinstance(given, base):
        return given
    kind = base.__name__.lower()
    kinds = {name_of(known): known for known in _subclasses(base)}
    spelling = (
        {"name": given} if isinstance(given, str) else dict(given) if isinstance(given, Mapping) else None
    )
    if spelling is None or "name" not in spelling:
        raise InputError(
            f"{kind}: give a {base.__name__}, its name, or its name and parameters; got {given!r}"
        )
    name = spelling.pop("name")
    if name not in kinds:
        ours = [known for known in kinds if ":" not in known]
        own = f"; import {str(name).partition(':')[0]} first, which defines it" if ":" in str(name) else ""
        raise InputError(nearest(kind, name, ours) + own)
    values = {
        key: part_of(base, value) if isinstance(value, Mapping) else value for key, value in spelling.items()
    }
    try:
        return kinds[name](**values)
    except TypeError as error:
        raise InputError(f"{kind} {name!r}: {str(error).replace('__init__() ', '')}") from None


def spelled(part: Shape | Link) -> dict[str, Any]:
    """Name and parameters of a shape or link, as JSON has them."""
    names = (
        [field.name for field in dataclasses.fields(part)]
        if dataclasses.is_dataclass(part)
        else list(vars(part))
    )
    values: dict[str, Any] = {name: _plain(getattr(part, name)) for name in names}
    return {"name": name_of(type(part))} | values


def _plain(value: Any) -> Any:
    if isinstance(value, Shape | Link):
        return spelled(value)
    return value.tolist() if isinstance(value, np.ndarray) else value


def name_of(kind: type) -> str:
    """``jensen_shannon`` for a part of this package, ``module:Class`` for any other."""
    if kind.__module__.startswith(_PACKAGE):
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
    return f"{kind.__module__}:{kind.__qualname__}"


def _subclasses(base: type[Part]) -> Iterator[type[Part]]:
    for kind in base.__subclasses__():
        if not kind.__name__.startswith("_"):
            yield kind
        yield from _subclasses(kind)


# --- the check ----------------------------------------------------------------------------------------------------


def check_shape(shape: Shape, *, reference: bool) -> None:
    """Refuse a shape of one's own whose formulas are not finite, not monotone as claimed, or do not fit each other."""
    if type(shape).__module__.startswith(_PACKAGE):
        return
    s = np.linspace(-20.0, 20.0 if reference else -1e-3, _POINTS)
    slope = _check(shape, "s", s, "compute_reward", "compute_slope")
    if shape.increasing and (slope < 0).any():
        at = s[int(np.argmax(slope < 0))]
        raise InputError(
            f"{type(shape).__name__}: its slope at s = {at:.4g} is {slope[slope < 0][0]:.4g}, but it claims to be "
            "increasing; set increasing = False if it is not"
        )


def check_link(link: Link) -> None:
    """Refuse a link of one's own whose formulas are not finite or do not fit each other."""
    if not type(link).__module__.startswith(_PACKAGE):
        _check(link, "z", np.linspace(-20.0, 20.0, _POINTS), "compute_loss", "compute_slope")


def _check(part: Shape | Link, letter: str, x: np.ndarray, value_name: str, slope_name: str) -> np.ndarray:
    name = type(part).__name__
    value_of, slope_of = (_evaluated(part, method) for method in (value_name, slope_name))
    step = 1e-6 * np.maximum(1.0, np.abs(x))
    value, slope = value_of(x), slope_of(x)
    for method, found in ((value_name, value), (slope_name, slope)):
        if found.shape != x.shape:
            raise InputError(
                f"{name}.{method} must give one number for each {letter}, got shape {found.shape}"
            )
        if not np.isfinite(found).all():
            raise InputError(
                f"{name}.{method} is not finite at {letter} = {x[int(np.argmax(~np.isfinite(found)))]:.4g}"
            )
    ahead, behind = (value_of(x + step) - value) / step, (value - value_of(x - step)) / step
    # Rounding of the values, and a kink, where the slope may be that of either side, are no mistakes.
    allowed = _AGREES * np.abs(slope) + 1e-15 * np.abs(value) / step + np.abs(ahead - behind)
    wrong = np.abs((ahead + behind) / 2 - slope) > allowed
    wrong[0] = wrong[-1] = False  # whose neighbours may lie outside the domain
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"{name}.{slope_name} is {slope[at]:.6g} at {letter} = {x[at]:.4g}, where {value_name} changes by "
            f"{ahead[at]:.6g} per unit of {letter}: it is not its derivative"
        )
    _check_torch(part, name, x, value_name, slope_name)
    return slope


def _evaluated(part: Shape | Link, method: str) -> Callable[[np.ndarray], np.ndarray]:
    def evaluate(x: np.ndarray) -> np.ndarray:
        try:
            with np.errstate(all="ignore"):
                return np.asarray(getattr(part, method)(np, x), dtype=np.float64)
        except NotImplementedError:
            raise InputError(f"{type(part).__name__} must define {method}") from None

    return evaluate


def _check_torch(part: Shape | Link, name: str, x: np.ndarray, *methods: str) -> None:
    """Where torch is in use, that the formulas also take tensors, and give the same numbers."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return
    for method in methods:
        formula: Callable[..., Array] = getattr(part, method)
        try:
            tensors = np.asarray(apply(formula, torch.tensor(x), what=method).detach())
        except (TypeError, AttributeError, RuntimeError) as error:
            line = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"{name}.{method} fails on torch tensors ({line}): use the functions of xp instead of numpy's"
            ) from error
        if not np.allclose(tensors, formula(np, x), rtol=1e-9, atol=1e-12):
            raise InputError(f"{name}.{method} gives other numbers for torch tensors than for numpy arrays")

"""Checking of parameters: finite numbers, named, with the nearest valid names for what is unknown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np

from rewardshape.errors import InputError


def number(
    name: str,
    value: Any,
    *,
    arrays: bool = True,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> Any:
    """A float or, where `arrays` may be given, a float64 array; finite and within bounds. InputError otherwise."""
    if getattr(value, "requires_grad", False):
        raise InputError(
            f"{name} requires a gradient, but objectives are differentiated in the scores only; detach it"
        )
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu().double().numpy()
    if isinstance(value, bool | str) or value is None:
        raise InputError(f"{name} must be a number, got {value!r}")
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number or an array of numbers, got {value!r}") from None
    if array.ndim and not arrays:
        raise InputError(f"{name} must be a single number, got an array of shape {array.shape}")
    if not np.all(np.isfinite(array)):
        raise InputError(f"{name} must be finite, got {value!r}")
    if above is not None and not np.all(array > above):
        raise InputError(f"{name} must be greater than {above:g}, got {value!r}")
    if least is not None and not np.all(array >= least):
        raise InputError(f"{name} must be at least {least:g}, got {value!r}")
    if below is not None and not np.all(array < below):
        raise InputError(f"{name} must be less than {below:g}, got {value!r}")
    if most is not None and not np.all(array <= most):
        raise InputError(f"{name} must be at most {most:g}, got {value!r}")
    if array.ndim == 0:
        return float(array)
    array = array.copy()
    array.flags.writeable = False
    return array


def nearest(kind: str, name: Any, valid: Iterable[str]) -> str:
    """The message for an unknown name: what was given, and the names that come nearest."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name).lower(), names, n=3, cutoff=0.4) or names
    return f"unknown {kind} {name!r}; the nearest valid names are: {', '.join(close)}"

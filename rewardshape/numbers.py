"""How a number is written: one format for people on terminal, page and figure, one for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ"}


def number(value: float, digits: int = 3) -> str:
    """A number with a true minus sign.

    Examples
    --------
    >>> number(-0.12345)
    '−0.123'
    """
    return f"{value:.{digits}f}".replace("-", "−")


def typed(value: object) -> str:
    """A value as one types it, in a flag and in a name: a number as short as it stays the same number.

    Examples
    --------
    >>> typed(-0.25), typed(1e-6), typed(0.2500004)
    ('-0.25', '1e-06', '0.2500004')
    """
    if not isinstance(value, float):
        return str(value)
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))


def significant(value: float, digits: int = 3) -> str:
    """A number to so many significant digits.

    Examples
    --------
    >>> significant(-0.012345), significant(12.345, 2)
    ('−0.0123', '12')
    """
    return f"{value:.{digits}g}".replace("-", "−")


def moment(value: float | None) -> str:
    """Where in a run: a step or a number of examples, every digit of it, or an epoch; a dash where it is not known.

    Examples
    --------
    >>> moment(1234567.0), moment(0.25), moment(None)
    ('1234567', '0.25', '–')
    """
    if value is None:
        return "–"
    return f"{value:.0f}" if float(value).is_integer() else shortest(value)


def percent(value: float, digits: int = 0) -> str:
    """A share.

    Examples
    --------
    >>> percent(0.256), percent(0.0256, 1)
    ('26%', '2.6%')
    """
    return f"{value:.{digits}%}"


def shortest(value: float) -> str:
    """A parameter as it was given.

    Examples
    --------
    >>> shortest(-0.5)
    '−0.5'
    """
    return f"{value:g}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """A change, always with its sign.

    Examples
    --------
    >>> signed(0.5, 1)
    '+0.5'
    """
    return f"{value:+.{digits}f}".replace("-", "−")


class Row(Protocol):
    """A row of a table: a mapping, or a Series."""

    def __getitem__(self, name: str, /) -> Any: ...


def interval(row: Row, name: str, digits: int = 3) -> str:
    """The interval of a change, from the columns ``…_low`` and ``…_high`` of a table's row.

    Examples
    --------
    >>> interval({"change_low": -0.2, "change_high": 0.1}, "change", 1)
    '−0.2 to +0.1'
    """
    if not math.isfinite(row[f"{name}_low"]):
        return "no interval"
    return f"{signed(row[f'{name}_low'], digits)} to {signed(row[f'{name}_high'], digits)}"


def bracketed(value: float, low: float, high: float, digits: int = 3) -> str:
    """A change in a cell of a table, with its interval where that is known.

    Examples
    --------
    >>> bracketed(-0.12, -0.2, 0.1, 1)
    '−0.1 [−0.2, +0.1]'
    """
    known = f" [{signed(low, digits)}, {signed(high, digits)}]" if math.isfinite(low) else ""
    return f"{signed(value, digits)}{known}"


def counted(number: int, noun: str) -> str:
    """So many of something.

    Examples
    --------
    >>> counted(1, "row"), counted(1485, "row")
    ('1 row', '1,485 rows')
    """
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def percents(low: float, high: float) -> str:
    """Two shares as one text.

    Examples
    --------
    >>> percents(0.58, 0.73)
    '58% to 73%'
    """
    return percent(low) if percent(low) == percent(high) else f"{percent(low)} to {percent(high)}"


def parameter(name: str, value: object) -> str:
    """A parameter with its value.

    Examples
    --------
    >>> parameter("alpha", -0.5), parameter("learning_rate", 1e-5)
    ('α = −0.5', 'learning rate = 1e−05')
    """
    text = shortest(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    return f"{GREEK.get(name, name.replace('_', ' '))} = {text}"


def as_json(value: Any, digits: int | None = None) -> Any:
    """A value as JSON has it: no NaN or infinity, which become null, nothing of numpy or torch, text as keys.

    Parameters
    ----------
    value : object
        Numbers and texts, in mappings, lists, arrays or tensors.
    digits : int, optional
        How many significant digits a fraction keeps; all of them if none are given.

    Examples
    --------
    >>> as_json({"a": (1.23456, float("nan"), 2)}, digits=3)
    {'a': [1.23, None, 2]}
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return float(value) if digits is None else float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {str(key): as_json(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, digits) for item in value]
    return as_json(value.tolist(), digits) if hasattr(value, "tolist") else value

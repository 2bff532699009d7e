"""Objectives from a user's own code: ``load_objective("my_module:my_function", scale=2.0)``."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rewardshape.errors import InputError
from rewardshape.theory.objectives.base import Objective
from rewardshape.theory.objectives.registry import objective, register


def load_objective(where: str, **parameters: Any) -> Objective:
    """The objective that a function of the user's own code makes.

    Parameters
    ----------
    where : str
        ``"module:function"``; the module is imported as Python finds it, or from the working directory.
    **parameters
        Given to the function.

    Returns
    -------
    Objective
        As the function made it, if its name and parameters make it again without the function's code (what
        `compose` makes of the package's own parts does). Otherwise its name is `where`, which `objective` then knows
        in this process: in another, call `load_objective` before reading the trace.

    Raises
    ------
    InputError
        In one line, where there is no such module or function, or where it makes no objective.
    """
    function = _function(where)
    signature = inspect.signature(function)
    try:
        signature.bind(**parameters)
    except TypeError as error:
        raise InputError(f"{where}{signature}: {error}") from None

    def make(**parameters: Any) -> Objective:
        try:
            made = function(**parameters)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        except (Exception, SystemExit) as error:
            line = (str(error).splitlines() or [""])[0]
            raise InputError(f"{where} failed with {type(error).__name__}: {line}") from error
        if not isinstance(made, Objective):
            raise InputError(
                f"{where} must return a rewardshape.theory.Objective, as compose(…) does; it returned {made!r:.80}"
            )
        return made

    made = make(**parameters)
    if _rebuilds(made):
        return made
    try:
        json.dumps(parameters)
    except TypeError:
        raise InputError(
            f"{where}: its parameters must be numbers, text or lists of these, got {parameters}"
        ) from None
    register(where, make)
    return objective(where, **parameters)


def _function(where: str) -> Callable[..., Any]:
    name, colon, attribute = where.partition(":")
    if not (name and colon and attribute):
        raise InputError(f"{where!r}: write MODULE:FUNCTION")
    with _working_directory_on_the_path():
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and (name == error.name or name.startswith(f"{error.name}.")):
                raise InputError(f"{where}: no module {name!r} here or on the Python path") from None
            raise InputError(
                f"{where}: {name} needs the module {error.name!r}, which is not installed"
            ) from error
        except (Exception, SystemExit) as error:
            line = (str(error).splitlines() or [""])[0]
            raise InputError(f"{where}: {name} cannot be imported, {type(error).__name__}: {line}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        there = "is not a function" if hasattr(module, attribute) else "is not there"
        raise InputError(f"{where}: {attribute} {there} in {module.__file__ or name}")
    return function  # type: ignore[no-any-return]


@contextlib.contextmanager
def _working_directory_on_the_path() -> Iterator[None]:
    """As for ``python -m``, which a console script lacks; put back afterwards."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


def _rebuilds(made: Objective) -> bool:
    """Whether name and parameters, read back from JSON, make the same objective."""
    try:
        return objective(made.name, **json.loads(json.dumps(made.parameters))) == made
    except (InputError, TypeError, ValueError):
        return False

"""The one exception that means: the user's input is at fault, and this one line says how to mend it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def printable(text: object) -> str:
    r"""Text from outside (a file's name, a field, a log) as it may go to a terminal: one line, every control escaped.

    Examples
    --------
    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in str(text)
    )


def to_any_output() -> None:
    """Let nothing that is said end a command: ``?`` stands for letters that the output's encoding lacks.

    Where the output was closed before the start (``>&-``), it goes nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def described(error: Exception) -> str:
    """What is wrong, in one printable line; of a file, its name first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return printable(f"{os.fsdecode(error.filename)}: {error.strerror}")
    return printable(error)


def out_of_memory(error: Exception) -> bool:
    """Whether a device or the machine had no memory left: torch's errors, which may not be imported here, and Python's.

    Examples
    --------
    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    True
    """
    of_torch = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return of_torch or isinstance(error, MemoryError)


class InputError(ValueError):
    """Bad input: a file, a field, a flag.

    The message is one line that names what is wrong, where (file:line, field or flag) and what to do.
    The command line prints it as ``error: …`` and exits with status 2; in Python it is a ValueError. Whatever the
    message quotes, control characters are escaped in it.
    """

    def __init__(self, message: object) -> None:
        super().__init__(printable(message))


class NotSingleKeys(ValueError):
    """A JSON object that has one key twice."""


def single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values, for JSON's decoder; `NotSingleKeys` where one key stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise NotSingleKeys(f"key {twice} stands twice in one object")
    return found


@contextmanager
def needing(extra: str, whom: object) -> Iterator[None]:
    """Around an import that an extra of ours brings: where the package is missing, say which extra, and for whom.

    Examples
    --------
    >>> with needing("probe", "pairs.parquet"):
    ...     import no_such_package
    Traceback (most recent call last):
    ...
    rewardshape.errors.InputError: pairs.parquet: needs no_such_package; pip install 'rewardshape[probe]'
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package in ("", "rewardshape"):
            raise
        raise InputError(f"{whom}: needs {package}; pip install 'rewardshape[{extra}]'") from missing

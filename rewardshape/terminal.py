"""What commands share on a terminal: help that keeps its lines, bad input as one line, and how wide it is."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from rewardshape.errors import InputError, described, to_any_output


def parser_of(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser without arguments yet; its help shows both texts line by line, as they are written."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def answered(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, act: Callable[[argparse.Namespace], int]
) -> int:
    """What `act` says of the words; 2, with one ``error:`` line, where input or a file is at fault."""
    to_any_output()
    arguments = parser.parse_args(argv)
    try:
        status = act(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        return read_enough()
    except (InputError, OSError) as error:
        return refused(error)


def read_enough() -> int:
    """Where nobody reads our output on (``| head``), what follows goes nowhere; no error, status 0."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def refused(error: Exception) -> int:
    """Say in one ``error:`` line what is wrong; the exit status of bad input."""
    print(f"error: {described(error)}", file=sys.stderr)
    return 2


ASSUMED = 80  # columns of a terminal that does not say how many it has


def columns_of(stream: TextIO) -> int | None:
    """How many columns the terminal has that `stream` goes to; none where it goes to a file or a pipe."""
    try:
        return (os.get_terminal_size(stream.fileno()).columns or ASSUMED) if stream.isatty() else None
    except (OSError, ValueError):  # no terminal, or no stream any more
        return None

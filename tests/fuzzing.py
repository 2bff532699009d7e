"""How much is searched: a small fixed slice in the tests, and by hand (`benchmarks/fuzz.py`) as much as one likes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from rewardshape.errors import InputError

EXAMPLES = int(os.environ.get("REWARDSHAPE_FUZZ", "0"))
FUZZ = settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def attempted(function: Callable[..., Any], *given: Any, **named: Any) -> tuple[Any, str]:
    """What a call returns, and what it says where it is refused; anything else that it raises fails the test."""
    try:
        return function(*given, **named), ""
    except InputError as error:
        return None, str(error)


STRANGE = st.sampled_from(
    ["", " ", "nan", "-Infinity", "1e999", "١٢", "\x00", "\x1b[2J", "\u202eabc", "\ud800", "$\\frac{$", "=1+1", "../x",
     "<script>", "a" * 300, "𝔘" * 70, "None", "[", "{}", "--", "-", "%s%n", "'; --", "\r", "\t"]
)  # fmt: skip


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """A file with a few of its bytes changed, cut out, doubled, or written over with zeros."""
    places = st.integers(0, max(len(content) - 1, 0))

    def change(draws: list[tuple[str, int, int, bytes]]) -> bytes:
        found = content
        for how, start, size, given in draws:
            end = start + size
            middle = {
                "cut": b"",
                "zeros": bytes(len(found[start:end])),
                "other": given,
                "double": found[start:end] * 2,
            }
            found = found[:start] + middle[how] + found[end:]
        return found

    change_of = st.tuples(
        st.sampled_from(["cut", "zeros", "other", "double"]),
        places,
        st.integers(0, 60),
        st.binary(max_size=8),
    )
    return st.lists(change_of, min_size=1, max_size=3).map(change)

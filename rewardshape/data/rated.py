"""Rows with one rated response each, as HelpSteer2 has them: two that follow each other with one prompt make a pair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rewardshape.data.cells import Row
from rewardshape.data.forms import of_next, rating_of
from rewardshape.data.sources import Rows
from rewardshape.errors import InputError


def joined(rows: Rows) -> Iterator[tuple[int, Row | InputError, int]]:
    """Number, row, and how many rows of the source it is: two where it was joined from two rated ones."""
    waiting: tuple[int, Row] | None = None
    for number, row in rows:
        rating = None if isinstance(row, InputError) else rating_of(row)
        if waiting is not None:
            first_number, first = waiting
            waiting = None
            if rating is not None and rating == rating_of(first) and row["prompt"] == first["prompt"]:  # type: ignore[index]
                yield first_number, _pair(first, row, rating), 2  # type: ignore[arg-type]
                continue
            yield first_number, first, 1
        if rating is None:
            yield number, row, 1
        else:
            waiting = (number, row)  # type: ignore[assignment]
    if waiting is not None:
        yield *waiting, 1


def _pair(first: Row, second: Row, rating: str) -> dict[str, Any]:
    return {**first, **{of_next(name): second[name] for name in ("response", rating)}}

"""Leaving pairs out of training: by what they are like, or as many at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from rewardshape.errors import InputError
from rewardshape.numbers import typed

RANDOM, INFLUENCE = "random", "influence"
CRITERIA = {
    "ties": "responses about equally likely to the untouched model",
    "ches": "responses alike in the untouched model's hidden states (CHES, normalised)",
    "similarity": "responses alike in their tokens",
    "length": "responses of the most different lengths",
    INFLUENCE: "pairs whose first step would push chosen responses down most",
    RANDOM: "as many pairs at random",
}


@dataclass(frozen=True)
class Drop:
    """Which pairs are left out.

    Attributes
    ----------
    criterion : str
        One of `CRITERIA`.
    share : float
        Of the training pairs, between 0 and 1.
    """

    criterion: str
    share: float

    @classmethod
    def read(cls, text: str) -> Drop:
        """From ``CRITERION=SHARE``.

        Raises
        ------
        InputError
            For another criterion (the nearest is named) or a share that is none.

        Examples
        --------
        >>> Drop.read("ches=0.2")
        Drop(criterion='ches', share=0.2)
        """
        criterion, equals, share = text.partition("=")
        if criterion not in CRITERIA:
            [close] = get_close_matches(criterion, CRITERIA, 1, cutoff=0.0)
            raise InputError(
                f"--drop {text}: no criterion {criterion!r}; the nearest is {close!r} of {', '.join(CRITERIA)}"
            )
        try:
            value = float(share) if equals else np.nan
        except ValueError:
            value = np.nan
        if not 0 < value < 1:
            raise InputError(
                f"--drop {text}: write CRITERION=SHARE with a share between 0 and 1, as {criterion}=0.2"
            )
        return cls(criterion, value)

    def of(self, number: int) -> int:
        """How many of so many pairs are left out: at least one, and never all."""
        return min(max(round(self.share * number), 1), number - 1)

    def __str__(self) -> str:
        return f"{self.criterion}={typed(self.share)}"


def left_out(pair_ids: Sequence[str], scores: np.ndarray, drop: Drop) -> list[str]:
    """The ids with the highest scores, as many as `drop` leaves out; of equal scores the first.

    Examples
    --------
    >>> left_out(["a", "b", "c", "d"], np.array([1.0, 3.0, 2.0, 3.0]), Drop("ches", 0.5))
    ['b', 'd']
    """
    return [pair_ids[place] for place in np.argsort(-scores, kind="stable")[: drop.of(len(pair_ids))]]

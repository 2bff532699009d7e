"""What was tried in a what-if beside a run, and what it did: the only sizes that advice gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardshape.analysis.what_if import what_if_beside
from rewardshape.numbers import interval, number, signed

FEWEST_SEEDS = 2  # with one, the interval is not over other orders of the pairs


@dataclass(frozen=True)
class Tried:
    """A change whose effect on chosen is beyond chance.

    Attributes
    ----------
    row : mapping
        Of `rewardshape.analysis.what_if.what_if_table`.
    """

    row: Mapping[str, Any]

    @property
    def sentence(self) -> str:
        """What it is, by how much it helped or harmed, over how much."""
        row = self.row
        word, side = ("Try", "higher") if row["chosen"] > 0 else ("Do not try", "lower")
        than = "as many pairs dropped at random" if row["matched"] else "the run as it is"
        gold = f", gold {signed(row['gold'])} ({interval(row, 'gold')})" if row["gold"] == row["gold"] else ""
        return (
            f"{word} {row['flags']}: over {row['steps']} steps and {row['num_seeds']} seeds it left chosen "
            f"{number(abs(row['chosen']))} nats per token {side} than {than}, at equal margin (95 % interval "
            f"{interval(row, 'chosen')}, of all changes tried together){gold}."
        )


def tried_beside(folder: Path) -> tuple[Tried, ...]:
    """The changes that a what-if in or beside a run's folder found to be beyond chance, the best first."""
    table = what_if_beside(folder)
    if table is None:
        return ()
    sure = table[
        (table["num_seeds"] >= FEWEST_SEEDS) & ((table["chosen_low"] > 0) | (table["chosen_high"] < 0))
    ]
    rows = sure.sort_values("chosen", ascending=False).to_dict("records")
    return tuple(Tried({str(name): value for name, value in row.items()}) for row in rows)

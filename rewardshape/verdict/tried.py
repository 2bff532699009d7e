"""What was tried in a what-if beside a run, and what it did: the only sizes that advice gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardshape.analysis.what_if import what_if_beside
from rewardshape.numbers import counted, interval, number, signed, significant

FEWEST_SEEDS = 2  # with one, the interval is not over other orders of the pairs
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Tried:
    """A change whose effect on chosen is beyond chance.

    Attributes
    ----------
    surest : mapping
        Of the rows of chosen in `rewardshape.analysis.what_if.what_if_table` the one that is furthest from no effect,
        by the near end of its interval.
    other : mapping or None
        The surest of those with the other sign that are beyond chance too.
    beyond, margins : int
        At how many margins it is beyond chance, and at how many it was compared.
    gold : mapping or None
        The row of gold.
    """

    surest: Row
    other: Row | None
    beyond: int
    margins: int
    gold: Row | None

    @property
    def sentence(self) -> str:
        """What it is, by how much it helped or harmed, over how much."""
        row, than = self.surest, _than(self.surest)
        over = f"over {counted(row['steps'], 'step')} and {counted(row['num_seeds'], 'seed')}"
        together = "(95 % interval {}, of all changes and margins tried together)"
        if self.other is not None:
            ends = f"{interval(row, 'difference')} and {interval(self.other, 'difference')}"
            both = f"{_by(row)}, and {_by(self.other)}"
            return (
                f"What {row['flags']} does depends on how far a run goes: {over} it left chosen {both} than {than} "
                f"{together.format(ends).replace('interval', 'intervals')}{self._gold}."
            )
        worse = row["difference"] < 0 or (self.gold is not None and self.gold["difference_high"] < 0)
        at = f"; at {self.beyond} of {self.margins} margins it is beyond chance" if self.margins > 1 else ""
        return (
            f"{'Do not try' if worse else 'Try'} {row['flags']}: {over} it left chosen {_by(row)} than {than} "
            f"{together.format(interval(row, 'difference'))}{at}{self._gold}."
        )

    @property
    def _gold(self) -> str:
        if self.gold is None:
            return ""
        return (
            f"; gold at the last step {signed(self.gold['difference'])} ({interval(self.gold, 'difference')})"
        )


def _by(row: Row) -> str:
    side = "higher" if row["difference"] > 0 else "lower"
    return (
        f"{number(abs(row['difference']))} nats per token {side} where the margin had grown by "
        f"{significant(row['margin_gain'], 2)}"
    )


def _than(row: Row) -> str:
    return "as many pairs dropped at random" if row["matched"] else "the run as it is"


def sure_by(row: Row) -> float:
    """How far the near end of the interval is from no effect; below 0 where the interval holds none."""
    return float(max(row["difference_low"], -row["difference_high"]))


def tried_beside(folder: Path) -> tuple[Tried, ...]:
    """The changes that a what-if in or beside a run's folder found to be beyond chance, the best first."""
    table = what_if_beside(folder)
    if table is None:
        return ()
    found = []
    for _, mine in table[table["num_seeds"] >= FEWEST_SEEDS].groupby("intervention", sort=False):
        rows = [{str(name): value for name, value in row.items()} for row in mine.to_dict("records")]
        chosen = [
            row for row in rows if row["measure"] == "chosen" and row["difference"] == row["difference"]
        ]
        sure = sorted((row for row in chosen if sure_by(row) > 0), key=sure_by, reverse=True)
        if sure:
            up = sure[0]["difference"] > 0
            other = next((row for row in sure if (row["difference"] > 0) is not up), None)
            gold = next((row for row in rows if row["measure"] == "gold"), None)
            found.append(Tried(sure[0], other, len(sure), len(chosen), gold))
    return tuple(sorted(found, key=lambda tried: tried.surest["difference"], reverse=True))

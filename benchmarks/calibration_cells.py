"""What a cell of benchmarks/calibration.py is: statements, a world at a size, and how many such worlds are drawn."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
from calibration_worlds import Drawn

# Of a cell whose worlds take tens of milliseconds each, of one whose worlds take few, and of one that was in doubt.
SIMULATIONS, MANY, IN_DOUBT = 200, 500, 4000
DRAW = (
    1  # another number, other worlds: raised where a statement was mended after its worlds had been looked at
)


@dataclass(frozen=True)
class Statement:
    """What may be said of a world: between what its rate is to lie, and whether that is a share or a median."""

    name: str
    least: float = 0.0
    most: float = 1.0
    median: bool = False

    @property
    def goal(self) -> str:
        """As a table has it; empty of a power, which has none."""
        if (self.least, self.most) == (0.0, 1.0):
            return ""
        most = f"{100 * self.most:g} %"
        return f"at most {most}" if self.least <= 0 else f"{100 * self.least:g} to {most}"

    def beyond(self, rate: float, simulations: int) -> bool:
        """Whether a rate lies beyond the goal by more than the simulations' own chance (95 %)."""
        room = 0.0 if self.median else by_chance(self, simulations)
        return not self.least - room <= rate <= self.most + room


def by_chance(statement: Statement, simulations: int) -> float:
    """How far a share that is at the end of its goal is measured from it, in 95 of 100 measurements."""
    end = statement.most if statement.most < 0.5 else statement.least if statement.least > 0 else 0.5
    return 1.96 * math.sqrt(end * (1 - end) / simulations)


@dataclass(frozen=True)
class Cell:
    """Worlds of one kind and size: `drawn` draws so many and says of each statement in which it is made (or held)."""

    statements: tuple[Statement, ...]
    world: str
    size: str
    drawn: Drawn
    simulations: int = SIMULATIONS
    draw: int = DRAW

    @property
    def names(self) -> list[str]:
        return [f"{statement.name} | {self.world} | {self.size}" for statement in self.statements]

    def rates(self, simulations: int) -> dict[str, float]:
        """Of each statement the share of so many worlds in which it is made, NaN where none is."""
        rng = np.random.default_rng([zlib.crc32(self.names[0].encode()), self.draw])
        found = self.drawn(rng, simulations)
        rates = [
            np.median(row) if statement.median else row.mean()
            for statement, row in zip(self.statements, found, strict=True)
        ]
        return dict(zip(self.names, map(float, rates), strict=True))


def false_alarm(name: str, most: float = 0.05) -> Statement:
    return Statement(name, most=most)


def fall_and_clear(of: str, most: float = 0.05, clear: float = 0.01) -> tuple[Statement, Statement]:
    return false_alarm(f"displaced or recovered ({of})", most), false_alarm(f"the same, clear ({of})", clear)


def onset(of: str) -> tuple[Statement, Statement]:
    late = f"onset: median, late by this share of the run ({of})"
    return holds(f"onset interval holds ({of})"), Statement(late, -0.05, 0.05, median=True)


def holds(name: str) -> Statement:
    return Statement(name, 0.93, 0.97)


NOISES = ("white", "t(3)", "AR .5")

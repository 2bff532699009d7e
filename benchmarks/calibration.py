"""How often each statement is made by chance, and how often a real effect is seen: the tables of docs/calibration.md.

    python benchmarks/calibration.py                   every cell that calibration.jsonl lacks, then the tables
    python benchmarks/calibration.py --only onset      the cells whose name matches

A cell is one world at one size (calibration_worlds.py), with the statements that are looked for in it. Its worlds are
drawn from a seed made of its name, so that a cell gives the same rates wherever and in whatever order it runs; the
command may be stopped and started again. A line of calibration.jsonl is one rate; take out those that a change of the
product makes untrue.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from calibration_worlds import (
    APART,
    BARELY_EQUAL,
    DRAWS,
    EQUALLY_GOOD,
    GRADES,
    WORSE_OR_BETTER,
    Drawn,
    answers_called,
    best_and_worst_differ,
    change_told,
    evaluations_fell,
    gold_fell,
    held_out_turned,
    interval_holds,
    onset_held,
    onset_of_pairs_held,
    pairs_fell,
    pairs_in_common,
    rows_fell,
)

from rewardshape.numbers import counted

RESULTS = Path(__file__).with_suffix(".jsonl")
PAGE = Path(__file__).parents[1] / "docs" / "calibration.md"
BEGIN, END = "<!-- written by benchmarks/calibration.py -->\n", "<!-- end -->"
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


# --- the cells ---------------------------------------------------------------------------------------------------


def false_alarm(name: str, most: float = 0.05) -> Statement:
    return Statement(name, most=most)


def fall_and_clear(of: str, most: float = 0.05, clear: float = 0.01) -> tuple[Statement, Statement]:
    return false_alarm(f"displaced or recovered ({of})", most), false_alarm(f"the same, clear ({of})", clear)


def onset(of: str) -> tuple[Statement, Statement]:
    late = f"onset: median, late by this share of the run ({of})"
    return holds(f"onset interval holds ({of})"), Statement(late, -0.05, 0.05, median=True)


def holds(name: str) -> Statement:
    return Statement(name, 0.93, 0.97)


def cells() -> Iterator[Cell]:
    """Every cell of the plan, in the order of its tables."""
    yield from of_rows()
    yield from of_pairs()
    yield from of_curves()
    yield from of_sweeps()
    yield from of_answers()


NOISES = ("white", "t(3)", "AR .5")


def of_rows() -> Iterator[Cell]:
    """Rows of batches, and evaluations without a reference."""
    for kind in (*NOISES, "AR .9"):
        told = fall_and_clear("batches", *((0.1, 0.02) if kind == "AR .9" else ()))
        for rows in (10, 25, 50, 100, 400):
            yield Cell(told, kind, f"{rows} rows", rows_fell(kind, rows), MANY)
    for kind in NOISES:
        for rows in (3, 5, 10, 20):
            told = fall_and_clear("evaluations")
            yield Cell(told, kind, f"{rows} rows", evaluations_fell(kind, rows), MANY)
    seen = (Statement("power: displaced (batches)"), Statement("power: the same, clear (batches)"))
    for kind in NOISES:
        for rows, fall in ((25, 0.4), (50, 0.4), (100, 0.2), (200, 0.2), (400, 0.2)):
            world = f"{kind}, sd .3, falls {fall:g}"
            yield Cell(seen, world, f"{rows} rows", rows_fell(kind, rows, fall=fall))
    for shape in ("straight", "slowing"):
        for kind in ("white", "AR .5"):
            for rows, start in ((400, 200), (1000, 500), (1000, 0), (2000, 1500)):
                drawn, size = onset_held(kind, rows, start, shape), f"{rows} rows, from {start}"
                doubted = (kind, shape, rows, start) == ("white", "straight", 1000, 500)
                more = {"simulations": IN_DOUBT // 4, "draw": DRAW + 1} if doubted else {}
                yield Cell(onset("batches"), f"{kind}, {shape}", size, drawn, **more)


def of_pairs() -> Iterator[Cell]:
    """Probe pairs, of one prompt each or four to a prompt."""
    for kind in DRAWS:
        for prompts, pairs in ((8, 1), (16, 1), (32, 1), (64, 1), (256, 1), (16, 4), (32, 4), (64, 4)):
            drawn, size = interval_holds(kind, prompts, pairs), f"{prompts} prompts × {pairs}"
            yield Cell(
                (holds("95 % interval holds"),),
                kind,
                size,
                drawn,
                2 * MANY if "log" not in kind else IN_DOUBT,
            )
    told = (*fall_and_clear("pairs"), false_alarm("rose, then given back (pairs)"))
    for kind in DRAWS:
        for prompts, pairs in ((8, 1), (16, 1), (64, 1), (256, 1), (16, 4), (64, 4)):
            yield Cell(told, kind, f"{prompts} prompts × {pairs}", pairs_fell(kind, prompts, pairs))
    seen = (
        Statement("power: displaced (pairs)"),
        Statement("power: the same, clear (pairs)"),
        false_alarm("a steady fall, said to be given back (pairs)"),
    )
    for fall in (0.5, 1.0):
        for prompts in (16, 64):
            world, drawn = (
                f"normal, sd 1 nat, falls {fall:g} nats",
                pairs_fell("normal", prompts, 1, drift=-fall),
            )
            yield Cell(seen, world, f"{prompts} prompts × 1", drawn)
    for kind in ("normal", "skewed (exponential)"):
        for prompts in (32, 64, 256):
            world, drawn = f"{kind}, sd 1 nat, falls 1 nat", onset_of_pairs_held(kind, prompts, 1.0)
            yield Cell(onset("pairs"), world, f"{prompts} prompts × 1", drawn)
    for pairs in (16, 64, 256):
        drawn = pairs_in_common(pairs)
        yield Cell((false_alarm("pairs that are … fell deeper"),), "no relation", f"{pairs} pairs", drawn)
    for related in (0.3, 0.5):
        drawn = pairs_in_common(64, related=related)
        seen = (Statement("power: pairs that are … fell deeper"),)
        yield Cell(seen, f"ρ = {related:g}", "64 pairs", drawn)


def of_curves() -> Iterator[Cell]:
    """Held-out loss and gold reward along a run."""
    for kind in NOISES:
        for spread in (0.017, 0.05):
            for rows in (3, 5, 10, 20, 50):
                world, drawn = f"{kind}, sd {spread:.1%}", held_out_turned(kind, rows, spread)
                yield Cell((false_alarm("over-optimized"),), world, f"{rows} rows", drawn)
    for rows in (5, 10, 20):
        drawn, seen = held_out_turned("white", rows, 0.017, rise=0.15), Statement("power: over-optimized")
        yield Cell((seen,), "white, sd 1.7%, rises 15%", f"{rows} rows", drawn)
    for truth in ("flat", "linear", "saturating", "peak .3 at √KL .8"):
        peaks = truth.startswith("peak")
        told = Statement("power: gold peaks") if peaks else false_alarm("gold peaks")
        for steps, prompts in ((7, 64), (11, 128)):
            drawn, size = gold_fell(truth, steps, prompts), f"{steps} steps × {prompts} prompts"
            yield Cell((told,), truth, size, drawn, SIMULATIONS if peaks else IN_DOUBT // 2)


def of_sweeps() -> Iterator[Cell]:
    """Settings, and changes of a what-if, along equal margin."""
    for seeds, world in ((1, "over 64 pairs"), (5, "over 5 seeds")):
        for settings in (2, 4, 6):
            drawn = best_and_worst_differ(settings, seeds)
            yield Cell((false_alarm("best against worst"),), world, f"{settings} settings", drawn, MANY)
    for seeds, apart, world in (
        (5, 3.0, "5 seeds, one ends 3 sd above"),
        (1, 0.5, "64 pairs, one ends .5 sd above"),
    ):
        for settings in (2, 6):
            drawn = best_and_worst_differ(settings, seeds, effect=apart)
            yield Cell((Statement("power: best against worst"),), world, f"{settings} settings", drawn)

    for kind in APART:
        for changes, seeds in ((1, 2), (3, 2), (8, 2), (8, 5)):
            drawn, size = change_told(kind, changes, seeds), f"{counted(changes, 'change')} × {seeds} seeds"
            yield Cell((false_alarm("a change helps or harms (what-if)"),), kind, size, drawn, MANY)
    for kind, apart in (("runs differ most", 0.25), ("pairs differ most", 0.1)):
        for changes, seeds in ((3, 2), (8, 2), (8, 5)):
            drawn, size = (
                change_told(kind, changes, seeds, effect=apart),
                f"{counted(changes, 'change')} × {seeds} seeds",
            )
            seen = Statement("power: a change helps or harms (what-if)")
            yield Cell((seen,), f"{kind}, one ends {apart:g} above", size, drawn)


def of_answers() -> Iterator[Cell]:
    """Answers of a run's last step against those of step 0."""
    for statement, wins, words in (
        (false_alarm("worse or better, of answers that win 50 %"), 0.5, WORSE_OR_BETTER),
        (false_alarm("equally good, of answers that win 40 %"), BARELY_EQUAL, EQUALLY_GOOD),
        (Statement("power: worse, of answers that win 35 %"), 0.35, WORSE_OR_BETTER[:1]),
    ):
        for kind in GRADES:
            for prompts, samples in ((32, 1), (64, 4), (256, 4)):
                drawn, size = (
                    answers_called(kind, prompts, samples, wins, words),
                    f"{prompts} prompts × {samples}",
                )
                yield Cell((statement,), kind, size, drawn)


# --- running and writing -----------------------------------------------------------------------------------------


def measured() -> list[dict[str, object]]:
    """The rates that were measured, one a line of the file of results."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []
    return [json.loads(line) for line in lines]


def run(share: float, only: str) -> None:
    """Every cell that is not measured and whose name matches `only`, each written when it is done."""
    done = {row["name"] for row in measured()}
    for cell in cells():
        if set(cell.names) <= done or not any(re.search(only, name) for name in cell.names):
            continue
        start, simulations = time.process_time(), max(20, round(share * cell.simulations))
        rates = cell.rates(simulations)
        with RESULTS.open("a", encoding="utf-8") as out:
            for name, rate in rates.items():
                known = None if math.isnan(rate) else rate
                row = {"name": name, "rate": known, "simulations": simulations}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        took = time.process_time() - start
        print(
            f"{took:4.0f} s  {simulations}  " + "; ".join(f"{n}: {r:.3f}" for n, r in rates.items()),
            flush=True,
        )


def tables(rows: list[dict[str, object]]) -> str:
    """One table a statement, in the order of the plan: worlds in rows, sizes in columns."""
    rates = {str(row["name"]): row for row in rows}
    planned = [(cell, *one) for cell in cells() for one in zip(cell.statements, cell.names, strict=True)]
    shown = [(cell, statement, rates[name]) for cell, statement, name in planned if name in rates]
    parts = [_summary(len(planned), shown)]
    for name in dict.fromkeys(statement.name for _, statement, _ in shown):
        mine = [row for row in shown if row[1].name == name]
        columns = sorted({cell.size for cell, _, _ in mine}, key=_by_number)
        lines = [f"| {name}{_goals(mine)} | {' | '.join(columns)} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for world in dict.fromkeys(cell.world for cell, _, _ in mine):
            cells_of = {
                cell.size: _shown(statement, row) for cell, statement, row in mine if cell.world == world
            }
            lines.append(f"| {world} | {' | '.join(cells_of.get(size, '') for size in columns)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _summary(planned: int, shown: list[tuple[Cell, Statement, dict[str, object]]]) -> str:
    """How many rates of the plan were measured, and how many of them lie within their goal."""
    counts = [_simulations(row) for _, _, row in shown]
    judged = [(statement, row) for _, statement, row in shown if statement.goal and row["rate"] is not None]
    within = sum(statement.least <= _rate(row) <= statement.most for statement, row in judged)
    beyond = sum(statement.beyond(_rate(row), _simulations(row)) for statement, row in judged)
    return (
        f"{len(shown)} of {planned} rates of the plan, each from {min(counts)} to {max(counts):,} simulations. Of "
        f"{len(judged)} with a goal, {within} lie within it, {len(judged) - within - beyond} beyond it by no more than "
        f"the chance of the simulations, and {beyond} beyond that (bold)."
    )


def _goals(shown: list[tuple[Cell, Statement, dict[str, object]]]) -> str:
    """The goals of a table, and to how much its rates are known."""
    goals = " or ".join(dict.fromkeys(statement.goal for _, statement, _ in shown if statement.goal))
    room = max(by_chance(statement, _simulations(row)) for _, statement, row in shown)
    known = "" if shown[0][1].median else f"± {100 * room:.1f} by chance"
    told = ", ".join(part for part in (f"goal {goals}" if goals else "", known) if part)
    return f" ({told})" if told else ""


def _rate(row: dict[str, object]) -> float:
    return float(str(row["rate"]))


def _simulations(row: dict[str, object]) -> int:
    return int(str(row["simulations"]))


def _shown(statement: Statement, row: dict[str, object]) -> str:
    if row["rate"] is None:
        return "refused"
    rate, simulations = _rate(row), _simulations(row)
    text = f"{100 * rate:.1f} %"
    return f"**{text}**" if statement.goal and statement.beyond(rate, simulations) else text


def _by_number(size: str) -> list[int]:
    return [int(number) for number in reversed(re.findall(r"\d+", size))]


def write_page() -> None:
    """Put the tables where they stand in the docs."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{tables(measured())}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the simulations of each cell")
    parser.add_argument("--only", default="", help="pattern of the names of the cells to run")
    arguments = parser.parse_args()
    run(arguments.share, arguments.only)
    write_page()

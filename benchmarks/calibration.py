"""How often each statement is made by chance, and how often a real effect is seen: the tables of docs/calibration.md.

    python benchmarks/calibration.py                   every cell that calibration.jsonl lacks, then the tables
    python benchmarks/calibration.py --only onset      the cells whose name matches

A cell is one world at one size, with the statements that are looked for in it. Its worlds are drawn from a seed made
of its name, so that a cell gives the same rates wherever and in whatever order it runs; the command may be stopped and
started again. A line of calibration.jsonl is one rate; take out those that a change of the product makes untrue.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rewardshape.analysis.overoptimization import drop_p_value, resampled_weights
from rewardshape.analysis.pairs import DESCRIPTORS, falling_pairs
from rewardshape.analysis.panels import Panel
from rewardshape.analysis.resampling import MAX_ROWS, mean_interval, resampled_means
from rewardshape.verdict.contrast import range_over_resamples, range_over_seeds
from rewardshape.verdict.evidence import Baseline, Evidence
from rewardshape.verdict.judge import Verdict, gave_back, verdict_of
from rewardshape.verdict.of_log import levels_of_rows
from rewardshape.verdict.of_trace import levels_of_pairs
from rewardshape.verdict.rows import noise_of, onset_of_rows, turned
from rewardshape.verdict.signal import Signal
from rewardshape.verdict.thresholds import MATTERS, SMALLEST

RESULTS = Path(__file__).with_suffix(".jsonl")
PAGE = Path(__file__).parents[1] / "docs" / "calibration.md"
BEGIN, END = "<!-- written by benchmarks/calibration.py -->\n", "<!-- end -->"
SIMULATIONS = 1000
Rng = np.random.Generator
FELL = ("displaced", "recovered", "collapsed")


@dataclass(frozen=True)
class Statement:
    """What may be said of a world: its name, its goal in words, and whether its rate is a share or a median."""

    name: str
    goal: str = ""
    median: bool = False


@dataclass(frozen=True)
class Cell:
    """Worlds of one kind and size: `drawn` draws so many and says of each statement in which it is made (or held)."""

    statements: tuple[Statement, ...]
    world: str
    size: str
    drawn: Callable[[Rng, int], np.ndarray]
    simulations: int = SIMULATIONS

    @property
    def names(self) -> list[str]:
        return [f"{statement.name} | {self.world} | {self.size}" for statement in self.statements]

    def rates(self, simulations: int) -> dict[str, float]:
        """Of each statement the share of so many worlds in which it is made, NaN where none is."""
        rng = np.random.default_rng(zlib.crc32(self.names[0].encode()))
        found = self.drawn(rng, simulations)
        rates = [
            np.median(row) if statement.median else row.mean()
            for statement, row in zip(self.statements, found, strict=True)
        ]
        return dict(zip(self.names, map(float, rates), strict=True))


def each(world: Callable[[Rng], tuple[float, ...]]) -> Callable[[Rng, int], np.ndarray]:
    """Worlds that are drawn one after another: (statements, worlds)."""
    return lambda rng, worlds: np.array([world(rng) for _ in range(worlds)], dtype=float).T


# --- noise -------------------------------------------------------------------------------------------------------


def noise(kind: str, rows: int, rng: Rng) -> np.ndarray:
    """Rows of noise of unit variance: ``white``, ``t(3)`` or ``AR .5``."""
    if kind == "white":
        return rng.normal(size=rows)
    if kind == "t(3)":
        return rng.standard_t(3, rows) / np.sqrt(3)
    rho = float(kind.removeprefix("AR "))
    values = rng.normal(size=rows)
    for i in range(1, rows):
        values[i] = rho * values[i - 1] + np.sqrt(1 - rho**2) * values[i]
    return values


def of_rows(values: np.ndarray, *, batches: bool, known: bool = True) -> Verdict:
    """The verdict on rows of rewards of batches, or of log-probs of a fixed set above its first row."""
    unit = "reward" if batches else "nats"
    basis = "rewards/chosen of training batches" if batches else "logps/chosen of the evaluation set"
    baseline = Baseline("the reference" if known else "the first logged row", assumed=not known)
    chosen = pd.Series(values, index=10 * np.arange(1, len(values) + 1))
    signal = Signal(chosen, None, unit, basis, baseline, known, batches, "train" if batches else "eval")
    return verdict_of(Evidence("made", "made", **levels_of_rows(signal)))


def fell_and_clear(verdict: Verdict) -> tuple[float, float]:
    """Whether a fall is said, and whether it is said to be clear."""
    fell = verdict.word in FELL
    return fell, fell and verdict.how_sure == "clear"


def rows_fell(kind: str, rows: int, *, fall: float = 0.0) -> Callable[[Rng, int], np.ndarray]:
    def drawn(rng: Rng) -> tuple[float, float]:
        values = 0.3 * noise(kind, rows, rng) - fall * np.linspace(0, 1, rows)
        return fell_and_clear(of_rows(values, batches=True))

    return each(drawn)


def evaluations_fell(kind: str, rows: int) -> Callable[[Rng, int], np.ndarray]:
    def drawn(rng: Rng) -> tuple[float, float]:
        values = noise(kind, rows, rng)
        return fell_and_clear(of_rows(values - values[0], batches=False, known=False))

    return each(drawn)


# --- pairs -------------------------------------------------------------------------------------------------------

DRAWS: dict[str, tuple[Callable[[Rng, int], np.ndarray], float]] = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0),
    "t(3)": (lambda rng, size: rng.standard_t(3, size), 0.0),
    "skewed (exponential)": (lambda rng, size: -rng.exponential(size=size), -1.0),
    "skewed (log-normal)": (lambda rng, size: -rng.lognormal(size=size), -float(np.exp(0.5))),
}


def drawn_pairs(kind: str, prompts: int, pairs: int, rng: Rng) -> np.ndarray:
    """Values of pairs with mean 0, `pairs` a prompt; of several, half of the variance is the prompt's."""
    draw, mean = DRAWS[kind]
    if pairs == 1:
        return draw(rng, prompts) - mean
    of_prompts = np.repeat(draw(rng, prompts), pairs)
    return (of_prompts + draw(rng, prompts * pairs) - 2 * mean) / np.sqrt(2)


def interval_holds(kind: str, prompts: int, pairs: int) -> Callable[[Rng, int], np.ndarray]:
    """Whether the interval holds the true mean, 0; NaN where none is given."""

    def drawn(rng: Rng, worlds: int) -> np.ndarray:
        own = np.repeat(np.arange(prompts), pairs)
        values = np.stack([drawn_pairs(kind, prompts, pairs, rng) for _ in range(worlds)])
        parts = [mean_interval(part, own) for part in np.array_split(values, -(-worlds // MAX_ROWS))]
        low, high = np.concatenate(parts, axis=1)
        return np.where(np.isnan(low), np.nan, (low <= 0) & (0 <= high))[None]

    return drawn


def probe(kind: str, prompts: int, pairs: int, rng: Rng, drift: float = 0.0) -> Evidence:
    """A run of eleven probe steps whose pairs walk at random, 20 tokens each, about a mean that drifts."""
    steps = 11
    moved = np.stack([drawn_pairs(kind, prompts, pairs, rng) for _ in range(steps - 1)])
    own = np.repeat(np.arange(prompts), pairs)
    path = np.vstack([np.zeros(len(own)), np.cumsum(moved, axis=0)]) / np.sqrt(steps - 1)
    path += drift * np.linspace(0, 1, steps)[:, None]
    panels = [
        Panel(
            run=None,
            response=name,
            steps=np.arange(steps),
            pair_ids=list(map(str, range(len(own)))),
            prompt_ids=list(map(str, own)),
            prompt_codes=own,
            num_tokens=np.full(len(own), 20.0),
            ref_logp_sum=None,
            sums=sums,
        )
        for name, sums in (("chosen", {"logp_sum": path}), ("rejected", {"logp_sum": path - 1}))
    ]
    more = {"matters": MATTERS["nats"] / 20, "smallest": SMALLEST["nats"] / 20, "num_pairs": len(own)}
    return Evidence("made", "made", **levels_of_pairs(*panels), num_prompts=prompts, **more)


def pairs_fell(
    kind: str, prompts: int, pairs: int, *, drift: float = 0.0
) -> Callable[[Rng, int], np.ndarray]:
    """Whether a fall is said, whether it is said to be clear, and whether a rise is said to be given back."""

    def drawn(rng: Rng) -> tuple[float, ...]:
        evidence = probe(kind, prompts, pairs, rng, drift)
        return *fell_and_clear(verdict_of(evidence)), gave_back(evidence)

    return each(drawn)


def pairs_in_common(pairs: int, *, related: float = 0.0) -> Callable[[Rng, int], np.ndarray]:
    """Whether anything is said of what falling pairs have in common; `related`: correlation with one descriptor."""

    def drawn(rng: Rng) -> tuple[float]:
        table = pd.DataFrame({known.name: rng.normal(size=pairs) for known in DESCRIPTORS})
        change = related * table[DESCRIPTORS[0].name] + np.sqrt(1 - related**2) * rng.normal(size=pairs)
        return (not falling_pairs(table.assign(run="made", chosen_change=change)).query("told").empty,)

    return each(drawn)


# --- curves ------------------------------------------------------------------------------------------------------


def held_out_turned(
    kind: str, rows: int, spread: float, rise: float = 0.0
) -> Callable[[Rng, int], np.ndarray]:
    def drawn(rng: Rng) -> tuple[float]:
        course = 1 + rise * np.maximum(np.linspace(-1, 1, rows), 0)
        values = 0.6 * (course + spread * noise(kind, rows, rng))
        return (bool(turned("held-out loss", np.arange(rows), values).worse),)

    return each(drawn)


def gold_fell(truth: str, steps: int, prompts: int) -> Callable[[Rng, int], np.ndarray]:
    """Whether gold is said to have dropped from a peak; prompts differ in ease, samples scatter by 0.4."""
    d = 1.6 * (np.arange(steps) / (steps - 1)) ** 0.8
    curves = {
        "flat": 0 * d, "linear": 0.1 * d, "saturating": 0.15 * (1 - np.exp(-3 * d)),
        "peak .3 at √KL .8": 0.3 * (2 * d / 0.8 - (d / 0.8) ** 2),
    }  # fmt: skip
    weights = resampled_weights(prompts)

    def drawn(rng: Rng) -> tuple[float]:
        scatter = 0.2 * rng.normal(size=prompts) + 0.4 * rng.normal(size=(steps, prompts))
        gold = curves[truth][:, None] + scatter
        means = np.vstack([gold.mean(axis=1), weights @ gold.T / (prompts - 1)])
        return (drop_p_value(means, prompts) <= 0.05,)

    return each(drawn)


def best_and_worst_differ(
    settings: int, seeds: int, *, effect: float = 0.0
) -> Callable[[Rng, int], np.ndarray]:
    """Whether the best setting is said to stand above the worst: over seeds, or over 64 pairs of one seed each."""
    truth = np.r_[effect, np.zeros(settings - 1)]

    def over_seeds(rng: Rng) -> tuple[float]:
        values = rng.normal(size=(seeds, 1)) + truth + rng.normal(size=(seeds, settings))
        return (range_over_seeds(values).p_value <= 0.05,)

    def over_pairs(rng: Rng) -> tuple[float]:
        values = rng.normal(size=64) + truth[:, None] + rng.normal(size=(settings, 64))
        means = np.vstack([values.mean(axis=1), resampled_means(values)])
        return (range_over_resamples(means, 64).p_value <= 0.05,)

    return each(over_seeds if seeds > 1 else over_pairs)


def onset_held(kind: str, rows: int, start: int, shape: str) -> Callable[[Rng, int], np.ndarray]:
    """Whether the interval holds the true onset, and by what share of the run the onset is late."""
    along = np.maximum(np.arange(rows) - start, 0) / (rows - start)
    course = along if shape == "straight" else (1 - np.exp(-3 * along)) / (1 - np.exp(-3))
    truth = float(np.interp(0.05, course[start:], np.arange(start, rows)))

    def drawn(rng: Rng) -> tuple[float, float]:
        values = 0.3 * noise(kind, rows, rng) - course
        found = onset_of_rows(np.arange(rows, dtype=float), values, noise_of(values))
        if found is None:
            return False, math.inf
        return found.low <= truth <= found.high, (found.step - truth) / rows

    return each(drawn)


# --- the cells ---------------------------------------------------------------------------------------------------


def fall_and_clear(of: str, goal: str, clear: str) -> tuple[Statement, Statement]:
    return Statement(f"displaced or recovered ({of})", goal), Statement(f"the same, clear ({of})", clear)


def cells() -> Iterator[Cell]:
    """Every cell of the plan, those that decide most for their time first."""
    between = (Statement("best against worst", "5 %"),)
    for settings in (2, 4, 6):
        yield Cell(between, "over 64 pairs", f"{settings} settings", best_and_worst_differ(settings, 1))
    for kind in DRAWS:
        for prompts, pairs in ((8, 1), (16, 1), (32, 1), (64, 1), (256, 1), (16, 4), (32, 4), (64, 4)):
            holds = Statement("95 % interval holds", "93–97 %")
            size = f"{prompts} prompts × {pairs}"
            yield Cell((holds,), kind, size, interval_holds(kind, prompts, pairs))
    for truth in ("flat", "linear", "saturating"):
        for steps, prompts in ((7, 64), (11, 128)):
            size = f"{steps} steps × {prompts} prompts"
            yield Cell((Statement("gold peaks", "5 %"),), truth, size, gold_fell(truth, steps, prompts), 400)
    for pairs in (16, 64, 256):
        told = Statement("pairs that are … fell deeper", "5 %")
        yield Cell((told,), "no relation", f"{pairs} pairs", pairs_in_common(pairs), 400)
    for shape in ("straight", "slowing"):
        for kind in ("white", "AR .5"):
            for rows, start in ((400, 200), (1000, 500), (1000, 0), (2000, 1500)):
                of = (
                    Statement("onset interval holds", "93–97 %"),
                    Statement("onset: median, late by this share of the run", "5 %", median=True),
                )
                size = f"{rows} rows, from {start}"
                yield Cell(of, f"{kind}, {shape}", size, onset_held(kind, rows, start, shape), 200)
    for kind in ("white", "t(3)", "AR .5", "AR .9"):
        of = fall_and_clear("batches", *(("10 %", "2 %") if kind == "AR .9" else ("5 %", "1 %")))
        for rows in (10, 25, 50, 100, 400):
            yield Cell(of, kind, f"{rows} rows", rows_fell(kind, rows), 500)
    for kind in ("white", "t(3)", "AR .5"):
        of = fall_and_clear("evaluations", "5 %", "1 %")
        for rows in (3, 5, 10, 20):
            yield Cell(of, kind, f"{rows} rows", evaluations_fell(kind, rows), 500)
    for kind in ("white", "t(3)", "AR .5"):
        for rows in (3, 5, 10, 20, 50):
            for spread in (0.017, 0.05):
                world, told = f"{kind}, sd {spread:.1%}", Statement("over-optimized", "5 %")
                yield Cell((told,), world, f"{rows} rows", held_out_turned(kind, rows, spread), 400)
    of_pairs = (*fall_and_clear("pairs", "5 %", "1 %"), Statement("rose, then given back (pairs)", "5 %"))
    for prompts, pairs in ((16, 1), (64, 1), (16, 4), (8, 1), (256, 1), (64, 4)):
        for kind in DRAWS:
            many = 200 if prompts * pairs > 100 else 300
            size = f"{prompts} prompts × {pairs}"
            yield Cell(of_pairs, kind, size, pairs_fell(kind, prompts, pairs), many)
    yield from power()
    for settings in (2, 4, 6):
        yield Cell(between, "over 5 seeds", f"{settings} settings", best_and_worst_differ(settings, 5))


def power() -> Iterator[Cell]:
    """The same statements where they are true: how often they are made."""
    for kind in ("white", "t(3)", "AR .5"):
        for rows, fall in ((25, 0.4), (50, 0.4), (100, 0.2), (200, 0.2), (400, 0.2)):
            of = (Statement("power: displaced (batches)"), Statement("power: the same, clear (batches)"))
            world = f"{kind}, sd .3, falls {fall:g}"
            yield Cell(of, world, f"{rows} rows", rows_fell(kind, rows, fall=fall), 400)
    of_pairs = (
        Statement("power: displaced (pairs)"),
        Statement("power: the same, clear (pairs)"),
        Statement("a steady fall, said to be given back (pairs)", "5 %"),
    )
    for prompts in (16, 64):
        for drift in (0.5, 1.0):
            world = f"normal, sd 1 nat, falls {drift:g} nats"
            drawn = pairs_fell("normal", prompts, 1, drift=-drift)
            yield Cell(of_pairs, world, f"{prompts} prompts × 1", drawn, 200)
    for rows in (5, 10, 20):
        drawn = held_out_turned("white", rows, 0.017, rise=0.15)
        yield Cell(
            (Statement("power: over-optimized"),), "white, sd 1.7%, rises 15%", f"{rows} rows", drawn, 200
        )
    for steps, prompts in ((7, 64), (11, 128)):
        size, drawn = f"{steps} steps × {prompts} prompts", gold_fell("peak .3 at √KL .8", steps, prompts)
        yield Cell((Statement("power: gold peaks"),), "peak .3 at √KL .8", size, drawn, 200)
    for seeds, effect, world in (
        (5, 3.0, "5 seeds, one stands 3 sd above"),
        (1, 0.5, "64 pairs, one stands .5 sd above"),
    ):
        for settings in (2, 6):
            drawn = best_and_worst_differ(settings, seeds, effect=effect)
            yield Cell((Statement("power: best against worst"),), world, f"{settings} settings", drawn, 400)
    for related in (0.3, 0.5):
        drawn, told = (
            pairs_in_common(64, related=related),
            Statement("power: pairs that are … fell deeper"),
        )
        yield Cell((told,), f"ρ = {related:g}", "64 pairs", drawn, 300)


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
        start, simulations = time.perf_counter(), max(20, round(share * cell.simulations))
        rates = cell.rates(simulations)
        with RESULTS.open("a", encoding="utf-8") as out:
            for name, rate in rates.items():
                known = None if math.isnan(rate) else rate
                row = {"name": name, "rate": known, "simulations": simulations}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        took = time.perf_counter() - start
        print(
            f"{took:4.0f} s  {simulations}  " + "; ".join(f"{n}: {r:.3f}" for n, r in rates.items()),
            flush=True,
        )


def tables(rows: list[dict[str, object]]) -> str:
    """One table a statement, in the order of the plan: worlds in rows, sizes in columns."""
    rates = {row["name"]: row for row in rows}
    shown: dict[Statement, dict[str, dict[str, str]]] = {}
    counts = []
    for cell in cells():
        for statement, name in zip(cell.statements, cell.names, strict=True):
            if name in rates:
                counts.append(rates[name]["simulations"])
                shown.setdefault(statement, {}).setdefault(cell.world, {})[cell.size] = _shown(rates[name])
    total = sum(len(cell.names) for cell in cells())
    parts = [
        f"{len(counts)} of {total} rates of the plan, each from {min(counts)} to {max(counts):,} simulations."
    ]
    names = dict.fromkeys(statement.name for statement in shown)
    for name in names:
        mine = [statement for statement in shown if statement.name == name]
        goals = " or ".join(dict.fromkeys(statement.goal for statement in mine if statement.goal))
        worlds = {world: sizes for statement in mine for world, sizes in shown[statement].items()}
        columns = sorted({size for sizes in worlds.values() for size in sizes}, key=_by_number)
        lines = [f"| {name}{f' (goal {goals})' if goals else ''} | {' | '.join(columns)} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for world, sizes in worlds.items():
            lines.append(f"| {world} | {' | '.join(sizes.get(size, '') for size in columns)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _shown(row: dict[str, object]) -> str:
    rate = row["rate"]
    return "refused" if rate is None else f"{100 * float(str(rate)):.1f} %"


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

"""How often each statement is made by chance, and how often a real effect is seen: the tables of docs/calibration.md.

    python benchmarks/calibration.py --to calibration.jsonl            every cell that the file lacks
    python benchmarks/calibration.py --to calibration.jsonl --table    the tables, as Markdown

A cell is one statement in one world at one size. Its worlds are drawn from a seed made of its name, so that a cell
gives the same rate wherever and in whatever order it runs; the command may be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rewardshape.analysis.overoptimization import drop_p_value
from rewardshape.analysis.pairs import DESCRIPTORS, falling_pairs
from rewardshape.analysis.panels import Panel
from rewardshape.analysis.resampling import mean_interval, resampled_means
from rewardshape.verdict.contrast import range_over_resamples, range_over_seeds
from rewardshape.verdict.evidence import Evidence
from rewardshape.verdict.judge import Verdict, gave_back, verdict_of
from rewardshape.verdict.of_log import levels_of_rows
from rewardshape.verdict.of_trace import levels_of_pairs
from rewardshape.verdict.rows import noise_of, onset_of_rows, turned
from rewardshape.verdict.signal import Signal
from rewardshape.verdict.thresholds import MATTERS, SMALLEST

SIMULATIONS = 1000
Rng = np.random.Generator
FELL = ("displaced", "recovered", "collapsed")


@dataclass(frozen=True)
class Cell:
    """One statement in one world: `told` draws a world and says whether the statement is made (or the truth held)."""

    statement: str
    world: str
    size: str
    told: Callable[[Rng], bool]
    simulations: int = SIMULATIONS
    goal: str = ""

    @property
    def name(self) -> str:
        return f"{self.statement} | {self.world} | {self.size}"

    def rate(self, simulations: int) -> float:
        """The share of so many worlds in which the statement is made."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        return float(np.mean([self.told(rng) for _ in range(simulations)]))


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
    basis = f"{'rewards/chosen of training batches' if batches else 'logps/chosen of the evaluation set'}"
    chosen = pd.Series(values, index=10 * np.arange(1, len(values) + 1))
    signal = Signal(chosen, None, unit, basis, "the reference", known, batches)
    return verdict_of(Evidence("made", "made", **levels_of_rows(signal)))


def rows_told(kind: str, rows: int, *, clear: bool = False, fall: float = 0.0) -> Callable[[Rng], bool]:
    def told(rng: Rng) -> bool:
        verdict = of_rows(0.3 * noise(kind, rows, rng) - fall * np.linspace(0, 1, rows), batches=True)
        return verdict.word in FELL and (not clear or verdict.how_sure == "clear")

    return told


def evaluations_told(kind: str, rows: int, *, clear: bool = False) -> Callable[[Rng], bool]:
    def told(rng: Rng) -> bool:
        values = noise(kind, rows, rng)
        verdict = of_rows(values - values[0], batches=False, known=False)
        return verdict.word in FELL and (not clear or verdict.how_sure == "clear")

    return told


# --- pairs -------------------------------------------------------------------------------------------------------

DRAWS: dict[str, tuple[Callable[[Rng, int], np.ndarray], float]] = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0),
    "t(3)": (lambda rng, size: rng.standard_t(3, size), 0.0),
    "skewed (exponential)": (lambda rng, size: -rng.exponential(size=size), -1.0),
    "skewed (log-normal)": (lambda rng, size: -rng.lognormal(size=size), -float(np.exp(0.5))),
}


def drawn_pairs(kind: str, prompts: int, each: int, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Values of pairs with mean 0, `each` a prompt (with ICC one half where several), and their prompts."""
    draw, mean = DRAWS[kind]
    own = np.repeat(np.arange(prompts), each)
    if each == 1:
        return draw(rng, prompts) - mean, own
    return (draw(rng, prompts)[own] + draw(rng, prompts * each) - 2 * mean) / np.sqrt(2), own


def interval_holds(kind: str, prompts: int, each: int) -> Callable[[Rng], bool]:
    def told(rng: Rng) -> bool:
        values, own = drawn_pairs(kind, prompts, each, rng)
        [low], [high] = mean_interval(values[None], own)
        return bool(low <= 0 <= high)

    return told


def probe(kind: str, prompts: int, each: int, rng: Rng, drift: float = 0.0) -> Evidence:
    """A run of eleven probe steps whose pairs walk at random, 20 tokens each, about a mean that drifts."""
    steps = 11
    moved = np.stack([drawn_pairs(kind, prompts, each, rng)[0] for _ in range(steps - 1)])
    own = drawn_pairs(kind, prompts, each, rng)[1]
    path = np.vstack([np.zeros(len(own)), np.cumsum(moved, axis=0)]) / np.sqrt(steps - 1)
    path += drift * np.linspace(0, 1, steps)[:, None]
    panels = [
        Panel(
            None,
            name,
            np.arange(steps),
            list(map(str, range(len(own)))),
            own,
            np.full(len(own), 20.0),
            None,
            sums,
        )
        for name, sums in (("chosen", {"logp_sum": path}), ("rejected", {"logp_sum": path - 1}))
    ]
    more = {"matters": MATTERS["nats"] / 20, "smallest": SMALLEST["nats"] / 20, "num_pairs": len(own)}
    return Evidence("made", "made", **levels_of_pairs(*panels), num_prompts=prompts, **more)


def pairs_told(
    kind: str, prompts: int, each: int, *, clear: bool = False, drift: float = 0.0
) -> Callable[[Rng], bool]:
    def told(rng: Rng) -> bool:
        verdict = verdict_of(probe(kind, prompts, each, rng, drift))
        return verdict.word in FELL and (not clear or verdict.how_sure == "clear")

    return told


def rise_given_back(kind: str, prompts: int) -> Callable[[Rng], bool]:
    return lambda rng: gave_back(probe(kind, prompts, 1, rng))


def pairs_in_common(pairs: int, *, related: float = 0.0) -> Callable[[Rng], bool]:
    """Whether anything is said of what falling pairs have in common; `related`: correlation with one descriptor."""

    def told(rng: Rng) -> bool:
        table = pd.DataFrame({known.name: rng.normal(size=pairs) for known in DESCRIPTORS})
        change = related * table[DESCRIPTORS[0].name] + np.sqrt(1 - related**2) * rng.normal(size=pairs)
        return not falling_pairs(table.assign(run="made", chosen_change=change)).query("told").empty

    return told


# --- curves ------------------------------------------------------------------------------------------------------


def held_out_turned(kind: str, rows: int, spread: float, rise: float = 0.0) -> Callable[[Rng], bool]:
    def told(rng: Rng) -> bool:
        course = 1 + rise * np.maximum(np.linspace(-1, 1, rows), 0)
        values = 0.6 * (course + spread * noise(kind, rows, rng))
        return bool(turned("held-out loss", np.arange(rows), values).worse)

    return told


def gold_fell(truth: str, steps: int, prompts: int) -> Callable[[Rng], bool]:
    """Whether gold is said to have dropped from a peak; prompts differ in ease, samples scatter by 0.4."""
    d = 1.6 * (np.arange(steps) / (steps - 1)) ** 0.8
    curves = {
        "flat": 0 * d, "linear": 0.1 * d, "saturating": 0.15 * (1 - np.exp(-3 * d)),
        "peak .3 at √KL .8": 0.3 * (2 * d / 0.8 - (d / 0.8) ** 2),
    }  # fmt: skip

    def told(rng: Rng) -> bool:
        gold = (
            curves[truth][:, None] + 0.2 * rng.normal(size=prompts) + 0.4 * rng.normal(size=(steps, prompts))
        )
        return drop_p_value(np.vstack([gold.mean(axis=1), resampled_means(gold)])) <= 0.05

    return told


def best_and_worst_differ(settings: int, seeds: int, *, effect: float = 0.0) -> Callable[[Rng], bool]:
    """Whether the best setting is said to stand above the worst: over seeds, or over 64 pairs of one seed each."""

    def told(rng: Rng) -> bool:
        truth = np.r_[effect, np.zeros(settings - 1)]
        if seeds > 1:
            return (
                range_over_seeds(
                    rng.normal(size=(seeds, 1)) + truth + rng.normal(size=(seeds, settings))
                ).p_value
                <= 0.05
            )
        values = rng.normal(size=64) + truth[:, None] + rng.normal(size=(settings, 64))
        drawn = np.vstack([values.mean(axis=1), resampled_means(values)])
        return range_over_resamples(drawn, 64).p_value <= 0.05

    return told


def onset_held(kind: str, rows: int, start: int, shape: str) -> Callable[[Rng], bool]:
    def told(rng: Rng) -> bool:
        along = np.maximum(np.arange(rows) - start, 0) / (rows - start)
        course = along if shape == "straight" else (1 - np.exp(-3 * along)) / (1 - np.exp(-3))
        truth = float(np.interp(0.05, course[start:], np.arange(start, rows)))
        values = 0.3 * noise(kind, rows, rng) - course
        found = onset_of_rows(np.arange(rows, dtype=float), values, noise_of(values))
        return found is not None and found.low <= truth <= found.high

    return told


# --- the cells ---------------------------------------------------------------------------------------------------


def cells() -> Iterator[Cell]:
    for kind, goal in (("white", "5 %"), ("t(3)", "5 %"), ("AR .5", "5 %"), ("AR .9", "10 %")):
        for rows in (10, 25, 50, 100, 400):
            yield Cell(
                "displaced or recovered (batches)", kind, f"{rows} rows", rows_told(kind, rows), goal=goal
            )
            strict = "1 %" if goal == "5 %" else "none set"
            told = rows_told(kind, rows, clear=True)
            yield Cell("the same, clear (batches)", kind, f"{rows} rows", told, goal=strict)
    for kind in ("white", "t(3)", "AR .5"):
        for rows in (3, 5, 10, 20):
            size = f"{rows} rows"
            yield Cell(
                "displaced or recovered (evaluations)", kind, size, evaluations_told(kind, rows), goal="5 %"
            )
            told = evaluations_told(kind, rows, clear=True)
            yield Cell("the same, clear (evaluations)", kind, size, told, goal="1 %")
    for kind in DRAWS:
        for prompts, each in ((8, 1), (16, 1), (32, 1), (64, 1), (256, 1), (16, 4), (64, 4)):
            size = f"{prompts} prompts × {each}"
            many = 300 if prompts * each > 100 else SIMULATIONS
            yield Cell(
                "95 % interval holds", kind, size, interval_holds(kind, prompts, each), many, "93–97 %"
            )
            many = 200 if prompts * each > 100 else 400
            told = pairs_told(kind, prompts, each)
            yield Cell("displaced or recovered (pairs)", kind, size, told, many, "5 %")
            told = pairs_told(kind, prompts, each, clear=True)
            yield Cell("the same, clear (pairs)", kind, size, told, many, "1 %")
        yield Cell(
            "rose, then given back (pairs)", kind, "64 prompts × 1", rise_given_back(kind, 64), 400, "5 %"
        )
    for kind in ("white", "t(3)", "AR .5"):
        for rows in (3, 5, 10, 20, 50):
            for spread in (0.017, 0.05):
                told = held_out_turned(kind, rows, spread)
                yield Cell("over-optimized", f"{kind}, sd {spread:.1%}", f"{rows} rows", told, 400, "5 %")
    for pairs in (16, 64, 256):
        told = pairs_in_common(pairs)
        yield Cell("pairs that are … fell deeper", "no relation", f"{pairs} pairs", told, 300, "5 %")
    for truth in ("flat", "linear", "saturating"):
        for steps, prompts in ((7, 64), (11, 128)):
            told = gold_fell(truth, steps, prompts)
            yield Cell("gold peaks", truth, f"{steps} steps × {prompts} prompts", told, 400, "5 %")
    for seeds in (5, 1):
        for settings in (2, 4, 6):
            told = best_and_worst_differ(settings, seeds)
            over = f"over {seeds} seeds" if seeds > 1 else "over 64 pairs"
            yield Cell("best against worst", over, f"{settings} settings", told, 400, "5 %")
    for kind in ("white", "AR .5"):
        for rows, start in ((400, 200), (1000, 500), (1000, 0), (2000, 1500)):
            for shape in ("straight", "slowing"):
                told = onset_held(kind, rows, start, shape)
                size = f"{rows} rows, from {start}"
                yield Cell("onset interval holds", f"{kind}, {shape}", size, told, 200, "93–97 %")
    yield from power()


def power() -> Iterator[Cell]:
    """The same statements where they are true: how often they are made."""
    for kind in ("white", "t(3)", "AR .5"):
        for rows, fall in ((25, 0.4), (50, 0.4), (100, 0.2), (200, 0.2), (400, 0.2)):
            told = rows_told(kind, rows, fall=fall)
            yield Cell(
                "power: displaced (batches)", f"{kind}, sd .3, falls {fall:g}", f"{rows} rows", told, 400
            )
    for prompts in (16, 64):
        for drift in (0.5, 1.0):
            told = pairs_told("normal", prompts, 1, drift=-drift)
            world = f"normal, sd 1 nat, falls {drift:g} nats"
            yield Cell("power: displaced (pairs)", world, f"{prompts} prompts × 1", told, 300)
    for rows in (5, 10, 20):
        told = held_out_turned("white", rows, 0.017, rise=0.15)
        yield Cell("power: over-optimized", "white, sd 1.7%, rises 15%", f"{rows} rows", told, 300)
    for steps, prompts in ((7, 64), (11, 128)):
        told = gold_fell("peak .3 at √KL .8", steps, prompts)
        yield Cell("power: gold peaks", "peak .3 at √KL .8", f"{steps} steps × {prompts} prompts", told, 200)
    for settings in (2, 6):
        told = best_and_worst_differ(settings, 5, effect=3.0)
        yield Cell(
            "power: best against worst", "5 seeds, one stands 3 sd above", f"{settings} settings", told, 200
        )
    for related in (0.3, 0.5):
        told = pairs_in_common(64, related=related)
        yield Cell("power: pairs that are … fell deeper", f"ρ = {related:g}", "64 pairs", told, 300)


# --- running and writing -----------------------------------------------------------------------------------------


def run(file: Path, share: float, only: str) -> None:
    """Every cell that the file lacks and whose name matches `only`, each appended when it is done."""
    done = {json.loads(line)["name"] for line in file.read_text().splitlines()} if file.is_file() else set()
    for cell in cells():
        if cell.name in done or not re.search(only, cell.name):
            continue
        start, simulations = time.perf_counter(), max(20, round(share * cell.simulations))
        row = {**asdict(cell), "name": cell.name, "rate": cell.rate(simulations), "simulations": simulations}
        del row["told"]
        with file.open("a") as out:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(
            f"{cell.name}: {row['rate']:.3f} of {simulations} ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )


def tables(file: Path) -> str:
    """One table a statement: worlds in rows, sizes in columns."""
    rows = pd.DataFrame(map(json.loads, file.read_text().splitlines()))
    parts = []
    for statement, mine in rows.groupby("statement", sort=False):
        goal = f" (at most {mine['goal'].iloc[0]})" if mine["goal"].iloc[0].endswith(" %") else ""
        goal = f" (goal {mine['goal'].iloc[0]})" if "–" in mine["goal"].iloc[0] else goal
        sizes = list(dict.fromkeys(mine["size"]))
        lines = [f"| {statement}{goal} | {' | '.join(sizes)} |", "|---" * (len(sizes) + 1) + "|"]
        for world, cells_of in mine.groupby("world", sort=False):
            rates = cells_of.set_index("size")["rate"]
            shown = [f"{100 * rates[size]:.1f} %" if size in rates else "" for size in sizes]
            lines.append(f"| {world} | {' | '.join(shown)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--share", type=float, default=1.0, help="of the simulations of each cell")
    parser.add_argument("--only", default="", help="pattern of the names of the cells to run")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(tables(arguments.to))
    else:
        run(arguments.to, arguments.share, arguments.only)

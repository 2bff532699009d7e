"""How often "lost to worse answers" and its sisters are said by chance: the tables of docs/calibration.md, Answers.

    python benchmarks/answers.py [--simulations 1000]

Answers of two steps to the same prompts, which differ in ease; what the second wins is known.
"""

from __future__ import annotations

import argparse
import functools
import zlib
from collections.abc import Callable

import numpy as np
import pandas as pd

from rewardshape.analysis.generations import EQUIVALENCE, against

Rng = np.random.Generator
SIZES = ((32, 1), (64, 4), (256, 4))  # prompts, samples of each
STATEMENTS = {
    "worse or better, of answers that win 50 %": (0.5, ("lost to worse answers", "answers got better")),
    "equally good, of answers that win 40 %": (0.5 - EQUIVALENCE, ("lost to equally good ones",)),
    "power: worse, of answers that win 35 %": (0.35, ("lost to worse answers",)),
}


GRADES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "graded": lambda quality: quality,
    "passed or not": lambda quality: (quality > 0).astype(float),
    "five grades": lambda quality: np.digitize(quality, [-1.5, -0.5, 0.5, 1.5]).astype(float),
}


def _shift_of(kind: str) -> Callable[[float], float]:
    """From a win rate to the shift in quality that has it: inverted on a large draw of its own."""

    @functools.cache
    def table() -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        ease, noise = rng.normal(size=200_000), rng.normal(size=(2, 200_000))
        shifts = np.linspace(-2, 0, 41)
        old = GRADES[kind](ease + noise[0])
        return shifts, np.array(
            [((np.sign(GRADES[kind](ease + s + noise[1]) - old) + 1) / 2).mean() for s in shifts]
        )

    return lambda rate: 0.0 if rate == 0.5 else float(np.interp(rate, table()[1], table()[0]))


SHIFTS = {kind: _shift_of(kind) for kind in GRADES}


def rate(statement: str, kind: str, prompts: int, each: int, simulations: int) -> float:
    """The share of worlds in which one of the statement's words is said."""
    win_rate, words = STATEMENTS[statement]
    rng = np.random.default_rng(zlib.crc32(f"{statement} | {kind} | {prompts} × {each}".encode()))
    return float(np.mean([_word(rng, kind, prompts, each, win_rate) in words for _ in range(simulations)]))


def _word(rng: Rng, kind: str, prompts: int, each: int, win_rate: float) -> str:
    ease, ids, steps = rng.normal(size=prompts), np.repeat(np.arange(prompts), each), []
    for step, shift in ((0, 0.0), (1, SHIFTS[kind](win_rate))):
        gold = GRADES[kind](ease[:, None] + shift + rng.normal(size=(prompts, each)))
        steps.append(pd.DataFrame({"step": step, "prompt_id": ids, "gold": gold.ravel(), "num_tokens": 10}))
    return against(*steps).word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=1000)
    simulations = parser.parse_args().simulations
    for statement in STATEMENTS:
        print(f"| {statement} | {' | '.join(f'{prompts} prompts × {each}' for prompts, each in SIZES)} |")
        print("|---" * (len(SIZES) + 1) + "|")
        for kind in GRADES:
            rates = [f"{rate(statement, kind, *size, simulations):.1%}" for size in SIZES]
            print(f"| {kind} | {' | '.join(rates)} |", flush=True)
        print()


if __name__ == "__main__":
    main()

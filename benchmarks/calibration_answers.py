"""The worlds of benchmarks/calibration.py in which answers of two steps, or of several, are set against each other."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pandas as pd
from calibration_worlds import Drawn, Rng, each
from scipy import special

from rewardshape.analysis.generations import (
    EQUIVALENCE,
    against,
    chosen_on_half,
    length_controlled_win_rate,
)

GRADES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "graded": lambda quality: quality,
    "passed or not": lambda quality: (quality > 0).astype(float),
    "five grades": lambda quality: np.digitize(quality, [-1.5, -0.5, 0.5, 1.5]).astype(float),
}
WORSE_OR_BETTER = ("lost to worse answers", "answers got better")
EQUALLY_GOOD = ("lost to equally good ones",)
BARELY_EQUAL = 0.5 - EQUIVALENCE  # a win rate that is just not equally good


@functools.cache
def shifts_and_rates(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Shifts in quality, and what share of comparisons an answer so much worse wins; on a large draw of its own."""
    rng = np.random.default_rng(0)
    ease, noise = rng.normal(size=200_000), rng.normal(size=(2, 200_000))
    shifts = np.linspace(-2, 0, 41)
    old = GRADES[kind](ease + noise[0])
    wins = [((np.sign(GRADES[kind](ease + shift + noise[1]) - old) + 1) / 2).mean() for shift in shifts]
    return shifts, np.array(wins)


def answers_called(kind: str, prompts: int, samples: int, wins: float, words: tuple[str, ...]) -> Drawn:
    """Whether answers that win so much against those of step 0 get one of these words; prompts differ in ease."""

    def drawn(rng: Rng) -> tuple[float]:
        shift = 0.0 if wins == 0.5 else float(np.interp(wins, *shifts_and_rates(kind)[::-1]))
        ease, ids, steps = rng.normal(size=(prompts, 1)), np.repeat(np.arange(prompts), samples), []
        for step, moved in enumerate((0.0, shift)):
            gold = GRADES[kind](ease + moved + rng.normal(size=(prompts, samples)))
            steps.append(
                pd.DataFrame({"step": step, "prompt_id": ids, "gold": gold.ravel(), "num_tokens": 10})
            )
        return (against(*steps).word in words,)

    return each(drawn)


def rate_at_equal_length_held(prompts: int, samples: int, *, better: float) -> Drawn:
    """Whether the interval at equal length holds the truth, where longer answers win more."""
    truth = float(special.expit(better))

    def drawn(rng: Rng) -> tuple[float]:
        length = 5 + rng.normal(0, 20, (prompts, 1)) + rng.normal(0, 5, (prompts, samples))
        chance = special.expit(better + 1.2 * np.tanh(length / length.std()))
        alike = special.ndtr(np.broadcast_to(rng.normal(size=(prompts, 1)), length.shape))
        alone = rng.random(length.shape)
        won = (np.where(rng.random(length.shape) < 0.5, alike, alone) < chance).astype(float)
        ids = np.repeat(np.arange(prompts), samples)
        _, low, high = length_controlled_win_rate(won.ravel(), length.ravel(), ids)
        return (low <= truth <= high,)

    return each(drawn)


def chosen_step_gains(prompts: int, *, gain: float = 0.0) -> Drawn:
    """Whether the step that half of the prompts choose is said to be worth more than step 0, beyond chance."""

    def drawn(rng: Rng) -> tuple[float]:
        ease = rng.normal(size=(prompts, 1))
        gold = ease + gain * np.arange(6) / 5 + rng.normal(size=(prompts, 6))
        return (chosen_on_half(pd.DataFrame(gold, columns=range(6)))["gain_low"] > 0,)

    return each(drawn)

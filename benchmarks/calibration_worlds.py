"""The worlds of benchmarks/calibration.py, in which it is known what is true.

Each function takes what a world is like and returns `drawn`, which draws so many worlds and tells of each whether the
statements looked for in it are made (or their interval holds the truth): (statements, worlds), NaN where none is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.equal import MARGINS
from rewardshape.analysis.forecast import expected_end
from rewardshape.analysis.overoptimization import drop_p_value, resampled_weights
from rewardshape.analysis.pairs import DESCRIPTORS, falling_pairs, pair_correlations
from rewardshape.analysis.panels import Panel
from rewardshape.analysis.resampling import MAX_ROWS, mean_interval, resampled_means, share_interval
from rewardshape.analysis.what_if import Outcome, effects
from rewardshape.verdict.contrast import range_over_resamples, range_over_seeds
from rewardshape.verdict.evidence import Baseline, Course, Evidence, Learning
from rewardshape.verdict.judge import Verdict, gave_back, saturated, verdict_of
from rewardshape.verdict.of_log import levels_of_rows
from rewardshape.verdict.of_trace import levels_of_pairs
from rewardshape.verdict.rows import noise_of, onset_of_rows, turned
from rewardshape.verdict.signal import Signal
from rewardshape.verdict.spikes import carried_by, carried_by_pair
from rewardshape.verdict.thresholds import MATTERS, SMALLEST, WINDOW_SHARE
from rewardshape.verdict.tried import sure_by

Rng = np.random.Generator
Drawn = Callable[[Rng, int], np.ndarray]
FELL = ("displaced", "recovered", "collapsed")


def each(world: Callable[[Rng], tuple[float, ...]]) -> Drawn:
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


def rows_fell(kind: str, rows: int, *, fall: float = 0.0) -> Drawn:
    def drawn(rng: Rng) -> tuple[float, float]:
        values = 0.3 * noise(kind, rows, rng) - fall * np.linspace(0, 1, rows)
        return fell_and_clear(of_rows(values, batches=True))

    return each(drawn)


def evaluations_fell(kind: str, rows: int) -> Drawn:
    def drawn(rng: Rng) -> tuple[float, float]:
        values = noise(kind, rows, rng)
        return fell_and_clear(of_rows(values - values[0], batches=False, known=False))

    return each(drawn)


def rise_told(kind: str, rows: int, *, batches: bool) -> Drawn:
    """Whether chosen is said to have gained probability, and whether a rise is said to be given back."""

    def drawn(rng: Rng) -> tuple[float, float]:
        values = noise(kind, rows, rng)
        found = of_rows(0.3 * values if batches else values - values[0], batches=batches, known=batches)
        return "they gained probability" in found.sentence, gave_back(found.evidence)

    return each(drawn)


def fallen(rows: int, depth: float) -> np.ndarray:
    """A steady fall, so deep in the mean of the last fifth of the rows."""
    return -depth * np.linspace(0, 1, rows) / (1 - WINDOW_SHARE / 2)


def fall_overlooked(kind: str, rows: int) -> Drawn:
    """Whether chosen is said not to be displaced, though it fell by what matters."""

    def drawn(rng: Rng) -> tuple[float]:
        values = 0.3 * noise(kind, rows, rng) + fallen(rows, MATTERS["reward"])
        return (of_rows(values, batches=True).word == "not displaced",)

    return each(drawn)


def smallest_fall_seen(kind: str, rows: int) -> Drawn:
    """Whether a fall of the size that is named as the smallest that would have been seen is seen, in another run."""

    def drawn(rng: Rng) -> tuple[float]:
        size = of_rows(0.3 * noise(kind, rows, rng), batches=True).smallest_fall
        if size is None:
            return (math.nan,)
        return fell_and_clear(of_rows(0.3 * noise(kind, rows, rng) + fallen(rows, size), batches=True))[:1]

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


def interval_holds(kind: str, prompts: int, pairs: int) -> Drawn:
    """Whether the interval holds the true mean, 0; NaN where none is given."""

    def drawn(rng: Rng, worlds: int) -> np.ndarray:
        own = np.repeat(np.arange(prompts), pairs)
        values = np.stack([drawn_pairs(kind, prompts, pairs, rng) for _ in range(worlds)])
        parts = [mean_interval(part, own) for part in np.array_split(values, -(-worlds // MAX_ROWS))]
        low, high = np.concatenate(parts, axis=1)
        return np.where(np.isnan(low), np.nan, (low <= 0) & (0 <= high))[None]

    return drawn


def probe(kind: str, prompts: int, pairs: int, rng: Rng, course: np.ndarray) -> Evidence:
    """A run whose probe pairs, of 20 tokens each, walk at random about a mean that takes this course, in nats."""
    steps = len(course)
    moved = np.stack([drawn_pairs(kind, prompts, pairs, rng) for _ in range(steps - 1)])
    own = np.repeat(np.arange(prompts), pairs)
    path = np.vstack([np.zeros(len(own)), np.cumsum(moved, axis=0)]) / np.sqrt(steps - 1) + course[:, None]
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
            sums={"logp_sum": sums},
        )
        for name, sums in (("chosen", path), ("rejected", path - 1))
    ]
    more = {"matters": MATTERS["nats"] / 20, "smallest": SMALLEST["nats"] / 20, "num_pairs": len(own)}
    return Evidence("made", "made", **levels_of_pairs(*panels), num_prompts=prompts, **more)


def pairs_fell(kind: str, prompts: int, pairs: int, *, drift: float = 0.0) -> Drawn:
    """Whether a fall is said, whether it is said to be clear, and whether a rise is said to be given back."""

    def drawn(rng: Rng) -> tuple[float, ...]:
        evidence = probe(kind, prompts, pairs, rng, np.linspace(0, drift, 11))
        return *fell_and_clear(verdict_of(evidence)), gave_back(evidence)

    return each(drawn)


def smallest_fall_of_pairs_seen(kind: str, prompts: int) -> Drawn:
    """As for rows, of the mean over probe pairs."""

    def drawn(rng: Rng) -> tuple[float]:
        size = verdict_of(probe(kind, prompts, 1, rng, np.zeros(11))).smallest_fall
        course = np.linspace(0, -20 * float(size or math.nan), 11)  # in nats; pairs have 20 tokens
        return fell_and_clear(verdict_of(probe(kind, prompts, 1, rng, course)))[:1]

    return each(drawn)


# Of the margins at the end of a run: mean and scatter.
MARGINS_OF_PAIRS = {"learnt": (1.5, 1.15), "nearly learnt": (5.0, 3.0), "spread wide": (5.0, 10.0)}


def pair_carries(world: str, kind: str, pairs: int, *, wild: float = 0.0) -> Drawn:
    """Whether a run is said to be carried by a single pair; `wild`: minus the margin of one pair that carries it."""

    def drawn(rng: Rng) -> tuple[float]:
        if world == "log-normal weights":
            weights = rng.lognormal(0, float(kind.removeprefix("σ = ")), pairs)
            losses = weights  # as where the loss grows exponentially, fastest of all shapes
        else:
            mean, spread = MARGINS_OF_PAIRS[world]
            margins = mean + spread * noise(kind, pairs, rng)
            margins[:1] = -wild if wild else margins[:1]
            losses = np.logaddexp(0, -margins)
            weights = -np.expm1(-losses)
        return (carried_by_pair(list(map(str, range(pairs))), weights, losses) is not None,)

    return each(drawn)


def batch_carries(start: float, end: float, scatter: float, rows: int) -> Drawn:
    """Whether a run is said to be carried by single batches; losses are log-normal about their course."""

    def drawn(rng: Rng) -> tuple[float]:
        course = end + (start - end) * np.exp(-8 * np.linspace(0, 1, rows))
        losses = course * rng.lognormal(-(scatter**2) / 2, scatter, rows)
        return (carried_by(pd.Series(losses, index=10 * np.arange(1, rows + 1)), "step") is not None,)

    return each(drawn)


def pairs_saturated(left: float, pairs: int) -> Drawn:
    """Whether a run is said to be saturated; of the median pair's gradient this share is left."""

    def drawn(rng: Rng) -> tuple[float]:
        median = -math.log(left / (2 - left))
        margins = median * (1 + 0.5 * rng.normal(size=pairs))
        weights = 2 / (1 + np.exp(margins))
        accuracy = float((margins > 0).mean())
        learning = Learning(accuracy=Course(0.5, accuracy, accuracy), gradient_left=float(np.median(weights)))
        return (saturated(Evidence("made", "made", learning=learning)),)

    return each(drawn)


def share_held(share: float, prompts: int) -> Drawn:
    """Whether the interval of a share of pairs holds it."""

    def drawn(rng: Rng, worlds: int) -> np.ndarray:
        low, high = share_interval(rng.random((worlds, prompts)) < share, np.arange(prompts))
        return np.where(np.isnan(low), np.nan, (low <= share) & (share <= high))[None]

    return drawn


def share_of_prompts_held(share: float, spread: float, prompts: int) -> Drawn:
    """The same where prompts have log-normally many pairs, about four, alike in a third of their variance."""
    sizes = np.maximum(1, 4 * np.exp(spread * stats.norm.ppf((np.arange(prompts) + 0.5) / prompts))).astype(
        int
    )
    codes = np.repeat(np.arange(prompts), sizes)

    def drawn(rng: Rng, worlds: int) -> np.ndarray:
        chances = rng.beta(2 * share, 2 * (1 - share), (worlds, prompts))
        low, high = share_interval(rng.random((worlds, len(codes))) < chances[:, codes], codes)
        return ((low <= share) & (share <= high)).astype(float)[None]

    return drawn


def correlation_held(related: float, pairs: int) -> Drawn:
    """Whether the interval of Spearman's ρ holds it, of normal pairs (ρ = 6/π asin(r/2))."""
    truth = 6 / math.pi * math.asin(related / 2)
    [first] = [known.name for known in DESCRIPTORS[:1]]

    def drawn(rng: Rng) -> tuple[float]:
        own = rng.normal(size=pairs)
        change = related * own + math.sqrt(1 - related**2) * rng.normal(size=pairs)
        table = pd.DataFrame(
            {"run": "made", first: own, "chosen_change": change, "chosen_sum_change": change}
        )
        row = pair_correlations(table).iloc[0]
        return (row["rho_low"] <= truth <= row["rho_high"],)

    return each(drawn)


def forecast_held(shape: str, seen: float, pairs: int) -> Drawn:
    """Whether the interval of a forecast holds the end; pairs fall by 0.3 nats per token, each at its own pace."""
    courses = {
        "straight": lambda clock: clock,
        "slowing": lambda clock: np.expm1(-3 * clock) / math.expm1(-3),
        "speeding up": lambda clock: clock**2,
    }

    def drawn(rng: Rng) -> tuple[float]:
        clock, measured = np.linspace(0, 1, 31), np.linspace(0, 1, 31) <= seen
        walk = np.vstack([np.zeros(pairs), rng.normal(0, 0.02, (30, pairs)).cumsum(axis=0)])
        change = -0.3 * courses[shape](clock)[:, None] * (1 + 0.5 * rng.normal(size=pairs)) + walk
        row = expected_end(clock[measured], change[measured])
        return (row["low"] <= change[-1].mean() <= row["high"],)

    return each(drawn)


def onset_of_pairs_held(kind: str, prompts: int, depth: float) -> Drawn:
    """Whether the interval holds the onset of a fall from step 10 to 30, and by what share of the run it is late."""
    course = -depth * np.maximum(np.arange(31) - 10, 0) / 20
    truth = int((course <= 0.05 * course[-1]).argmax())

    def drawn(rng: Rng) -> tuple[float, float]:
        onset = probe(kind, prompts, 1, rng, course).onset
        if onset is None:
            return False, math.inf
        return onset.low <= truth <= onset.high, (onset.step - truth) / 30

    return each(drawn)


def pairs_in_common(pairs: int, *, related: float = 0.0) -> Drawn:
    """Whether anything is said of what falling pairs have in common; `related`: correlation with one descriptor."""

    def drawn(rng: Rng) -> tuple[float]:
        table = pd.DataFrame({known.name: rng.normal(size=pairs) for known in DESCRIPTORS})
        change = related * table[DESCRIPTORS[0].name] + np.sqrt(1 - related**2) * rng.normal(size=pairs)
        return (not falling_pairs(table.assign(run="made", chosen_change=change)).query("told").empty,)

    return each(drawn)


# --- curves ------------------------------------------------------------------------------------------------------


def held_out_turned(kind: str, rows: int, spread: float, rise: float = 0.0) -> Drawn:
    def drawn(rng: Rng) -> tuple[float]:
        course = 1 + rise * np.maximum(np.linspace(-1, 1, rows), 0)
        values = 0.6 * (course + spread * noise(kind, rows, rng))
        return (bool(turned("held-out loss", np.arange(rows), values).worse),)

    return each(drawn)


def gold_fell(truth: str, steps: int, prompts: int) -> Drawn:
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


def best_and_worst_differ(settings: int, seeds: int, *, effect: float = 0.0) -> Drawn:
    """Whether one setting is said to stand above another along the margins: over seeds, or over 64 pairs of one seed.

    Settings drift apart along the margins as random walks do, and one of them by `effect` in a straight line; of more
    than two the last gets only half as far as the others.
    """
    truth = effect * np.outer(np.arange(1, MARGINS + 1) / MARGINS, np.arange(settings) == 0)
    beyond = np.zeros_like(truth, dtype=bool)
    beyond[MARGINS // 2 :, -1] = settings > 2

    def walks(rng: Rng, repeats: int, settings: int) -> np.ndarray:
        return rng.normal(size=(repeats, MARGINS, settings)).cumsum(axis=1) / math.sqrt(MARGINS)

    def drawn(rng: Rng) -> tuple[float]:
        repeats = seeds if seeds > 1 else 64
        values = walks(rng, repeats, 1) + walks(rng, repeats, settings) + truth
        values[:, beyond] = np.nan
        if seeds > 1:
            return (range_over_seeds(values).p_value <= 0.05,)
        means = resampled_means(values.reshape(repeats, -1).T).reshape(-1, *truth.shape)
        return (range_over_resamples(np.concatenate([values.mean(axis=0)[None], means]), 64).p_value <= 0.05,)

    return each(drawn)


# Of a what-if: how far runs end apart by their order of the data, and how far the changes move a pair from another.
APART = {
    "runs differ most": (0.05, 0.1),
    "pairs differ most": (0.005, 0.1),
    "heavy-tailed pairs": (0.005, 0.1),
}


def change_told(kind: str, changes: int, seeds: int, *, effect: float = 0.0) -> Drawn:
    """Whether any change of a what-if is said to help or to harm; 64 pairs, and walks along the margins as above.

    Beside the changes there are the run as it is and the one that drops pairs at random, which half of the changes
    are set against; the last of several gets half as far, and one ends higher by `effect`.
    """
    names = ["as it is", "at random", *(f"change {i}" for i in range(changes))]
    compared = [(name, names[i % 2 if i > 1 else 0]) for i, name in enumerate(names) if i]
    of_run, of_pair = APART[kind]
    margins = np.arange(1, MARGINS + 1) / MARGINS
    draw = DRAWS["t(3)" if kind == "heavy-tailed pairs" else "normal"][0]

    def walk(rng: Rng, *shape: int) -> np.ndarray:
        return draw(rng, (MARGINS, *shape)).cumsum(axis=0) / math.sqrt(MARGINS)

    def drawn(rng: Rng) -> tuple[float]:
        values = of_run * walk(rng, len(names), seeds, 1) + of_pair * walk(rng, len(names), 1, 64)
        values = values + 0.5 * rng.normal(size=(seeds, 64))
        values[:, 2] += effect * margins[:, None, None]
        means = resampled_means(values.reshape(-1, 64)).reshape(-1, *values.shape[:-1])
        both = np.concatenate([values.mean(axis=-1)[None], means])
        if changes > 1:
            both[:, MARGINS // 2 :, -1] = np.nan
        found = effects(Outcome(both, 64, margins), names, compared)
        return (any(sure_by(row) > 0 for rows in found.values() for row in rows),)

    return each(drawn)


def onset_held(kind: str, rows: int, start: int, shape: str) -> Drawn:
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

"""Worlds of whole logs and of a run's probe pairs for benchmarks/calibration.py, judged as a user's are.

A made log holds batches of pairs whose margins scatter about a course, with all the series that a trainer writes; what
is looked for is the text that `diagnose` prints of it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from calibration_worlds import Drawn, Rng, each, noise
from scipy import optimize, special, stats

from rewardshape.diagnose import report
from rewardshape.logs.kinds import kind_of
from rewardshape.logs.log import Log
from rewardshape.verdict.judge import judge
from rewardshape.verdict.recovery import is_per_token, recover_reference

# What is looked for in the words of a diagnosis, by the name that its tables have.
SAYS = {
    "collapsed": "COLLAPSED:",
    "labels swapped": "training pushed against the order of the pairs",
    "ties": "seem to be ties",
    "saturated": "SATURATED:",
    "too easy": "from the start: the pairs are too easy",
    "carried by single batches": "carried by single batches",
    "another reference": "the reference is not the model that the run began with",
    "no reference": "no reference: rewards are",
    "not training": "NOT TRAINING:",
    "an identity is broken": "Check: - ",
    "hardly moved": "Accuracy has hardly moved",
    "not displaced": "NOT DISPLACED:",
    "gained": "they gained probability",
    "rose, then given back": "had risen to",
}
EVERY = 10  # steps from one row of a made log to the next
BETA = 0.1
Course = np.ndarray


def said(log: Log) -> str:
    """All that a diagnosis of a log says, on one line."""
    return " ".join(report(judge(log)).split())


# --- the courses of runs -----------------------------------------------------------------------------------------


def up(along: Course) -> Course:
    """From 0 to 1, slowing down."""
    return np.expm1(-3 * along) / math.expm1(-3)


@functools.cache
def spread_that_leaves(kind: str, margin: float, share: float) -> float:
    """How far the margins of pairs must scatter for this share of the gradient at the start, 2 E σ(−margin)."""
    drawn = scatter(kind, 1, 200_000, np.random.default_rng(0))[0]
    return float(
        optimize.brentq(lambda s: 2 * special.expit(-margin - s * drawn).mean() - share, 0.1, 4 * margin)
    )


def course_of(world: str, rows: int, kind: str) -> tuple[Course, Course, Course]:
    """Of a world by its name: mean margin, scatter of the pairs' margins, and mean reward of chosen, by row."""
    k = np.arange(1, rows + 1)
    u = k / rows
    level = np.zeros(rows)
    if world in (
        "5 of 10 are ties",
        "margins of the other sign",
        "one batch carries it",
        "without a reference",
    ):
        world = "learnt"
    if world == "learnt, from 5 to 7 of 10 in order":
        margin, spread = 0.3 * u, 0.2 + 0.5 * u
    elif world.startswith("learnt slowly"):
        margin, spread = 0.15 * u, 0.1 + 0.5 * u
    elif world.startswith("learnt"):
        margin = 1.5 * up(u)
        spread = 0.1 + 0.7 * margin
    elif world.startswith("nothing learnt"):
        margin, spread = level, 0.05 + 0.5 * u
    elif world == "from 3 to 4.5 of 10 in order":
        margin, spread = stats.norm.ppf(0.3 + 0.15 * u), level + 1
    elif world == "a fifth of the gradient left":
        margin = 5.5 * -np.expm1(-12 * u)
        spread = 0.1 + spread_that_leaves(kind, 5.5, 0.2) * margin / 5.5
    elif world.startswith("saturates, from"):
        inside, of = map(int, world.split()[2::2])
        start = stats.norm.ppf(inside / of)
        late = k / max(5.0, 0.1 * rows)
        margin = 9 * -np.expm1(-late / 3)
        spread = margin / (start + (2.9 - start) * -np.expm1(-late))
    elif world == "came in order and lost it, chosen falls":
        margin = 1.5 * np.sin(math.pi * np.minimum(u / 0.7, 1))
        spread = 0.4 + 0.5 * margin
    elif world == "swapped":
        margin = -1.5 * up(u)
        spread = 0.1 - 0.7 * margin
    elif world == "begins at 3":
        margin, spread, level = 1.5 + 0.5 * u, level + 1, level + 3
    elif world == "nothing moves":
        margin, spread = level, level + 0.002
    elif world == "scattered from the start":
        margin, spread = 0.5 * u, level + 1
    elif world.startswith("rewards reach"):
        sign, within = (-1 if "−" in world else 1), float(world.split()[-2])
        ends = np.exp(-3 * EVERY * np.arange(rows + 1) / within)
        reached = 1 - (ends[:-1] - ends[1:]) * within / 3 / EVERY  # the mean over the steps of a row
        margin = 3 * reached
        return margin, 0.1 + 0.5 * margin, sign * 6 * reached
    elif world.startswith("spread"):
        margin = 1.5 * up(u)
        spread = 0.02 + float(world.split()[1]) * margin
    else:
        raise ValueError(world)
    return margin, spread, -1.5 * u if "chosen falls" in world else level


def scatter(kind: str, rows: int, pairs: int, rng: Rng) -> np.ndarray:
    """Of the margins of a batch's pairs, (rows, pairs); ``AR .5``: so is half of the variance of a batch's mean."""
    if kind == "t(3)":
        return rng.standard_t(3, (rows, pairs)) / math.sqrt(3)
    drawn = rng.normal(size=(rows, pairs))
    return drawn if kind == "white" else drawn + noise(kind, rows, rng)[:, None] / math.sqrt(pairs)


def batches(margins: np.ndarray, chosen: np.ndarray, rng: Rng) -> pd.DataFrame:
    """What a trainer logs of batches whose pairs have these margins and chosen rewards, (rows, pairs) each."""
    rewards = {"chosen": chosen, "rejected": chosen - margins}
    logps = {side: rng.normal(-150, 50, margins.shape) + values / BETA for side, values in rewards.items()}
    return pd.DataFrame(
        {
            "split": "train",
            "step": EVERY * np.arange(1, len(margins) + 1),
            "loss": np.logaddexp(0, -margins).mean(axis=1),
            "grad_norm": rng.lognormal(1, 0.3, len(margins)),
            "accuracy": (margins > 0).mean(axis=1),
            "margin": margins.mean(axis=1),
            **{f"reward_{side}": values.mean(axis=1) for side, values in rewards.items()},
            **{f"logp_{side}": values.mean(axis=1) for side, values in logps.items()},
        }
    ).round(4)


def made(world: str, kind: str, rows: int, pairs: int, rng: Rng) -> Log:
    """A log of a world."""
    margin, spread, chosen = course_of(world, rows, kind)
    own = 0.5 * (0.1 + spread)[:, None] * rng.normal(size=(rows, pairs))
    margins = margin[:, None] + spread[:, None] * scatter(kind, rows, pairs, rng)
    if world == "5 of 10 are ties":
        tied = rng.random((rows, pairs)) < 0.5
        margins = np.where(tied, 0, margins)
    table = batches(margins, chosen[:, None] + own, rng)
    if world == "one batch carries it":
        table.loc[rng.integers(rows), "loss"] = 1000.0
    if world == "margins of the other sign":
        table["margin"] *= -1
    if world == "without a reference":
        for side in ("chosen", "rejected"):
            table[f"reward_{side}"] = BETA * table[f"logp_{side}"]
    return Log("made", "made", table)


def told(names: Sequence[str], world: str, kind: str, rows: int, pairs: int) -> Drawn:
    """Whether each of these statements is made of a log."""

    def drawn(rng: Rng) -> tuple[float, ...]:
        text = said(made(world, kind, rows, pairs, rng))
        return tuple(SAYS[name] in text for name in names)

    return each(drawn)


# --- evaluations -------------------------------------------------------------------------------------------------

# Losses of a pair by its margin, and by the loss of its chosen response as text.
LOSSES = {
    "a hinge": lambda margin, likelihood: np.maximum(0, 1 - margin),
    "smoothed by .4": lambda margin, likelihood: (
        0.6 * np.logaddexp(0, -margin) + 0.4 * np.logaddexp(0, margin)
    ),
    "with a likelihood term": lambda margin, likelihood: np.logaddexp(0, -margin) + 0.3 * likelihood,
    "logistic": lambda margin, likelihood: np.logaddexp(0, -margin),
}


def held_out_above(loss: str, rows: int, *, harm: bool = False) -> Drawn:
    """Whether held-out loss is said never to have been below that of no training; `harm`: it rises from ln 2 on."""

    def drawn(rng: Rng) -> tuple[float]:
        log = made("learnt", "white", 40, 16, rng)
        train, u = log.table, np.linspace(0.1, 1, rows)[:, None]
        pace = rng.normal(size=64)
        margins = u * (-0.5 + 2 * pace if harm else 0.6 + 0.5 * pace)
        chosen = 0.1 * u * rng.normal(size=64)
        evaluated = batches(margins, chosen, rng)
        likelihood = 1.5 - 0.3 * u
        evaluated["loss"] = LOSSES[loss](margins, likelihood).mean(axis=1).round(4)
        course, spread, _ = course_of("learnt", 40, "white")
        own = course[:, None] + spread[:, None] * rng.normal(size=(40, 16))
        train["loss"] = LOSSES[loss](own, 1.5 - 0.3 * np.linspace(0, 1, 40)[:, None]).mean(axis=1).round(4)
        evaluated["split"], evaluated["step"] = "eval", np.linspace(40, 400, rows).round().astype(int)
        log = Log("made", "made", pd.concat([train, evaluated], ignore_index=True))
        return ("was never below what no training gives" in said(log),)

    return each(drawn)


def squeezed(world: str, rows: int) -> Drawn:
    """Whether what the responses lost is said to have gone to the most likely tokens."""
    fall = {"chosen level": 0.0, "chosen falls by 20 nats": 20.0}[world.split(",")[0]]
    rise = 10.0 if world.endswith("greedy rises by 10") else 0.0

    def drawn(rng: Rng) -> tuple[float]:
        u = np.linspace(0, 1, rows)
        table = {
            "split": "eval",
            "step": EVERY * np.arange(rows),
            "logp_chosen": -150 - fall * u + rng.normal(size=rows),
            "logp_rejected": -160 - 2 * fall * u + rng.normal(size=rows),
            "logp_greedy": -60 + rise * u + rng.normal(size=rows),
        }
        return ("the squeezing effect" in said(Log("made", "made", pd.DataFrame(table))),)

    return each(drawn)


# --- what a log implies ------------------------------------------------------------------------------------------


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to the eight bits that bfloat16 has."""
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.round(fraction * 256) / 256, exponent)


def reference_told(world: str, rows: int) -> Drawn:
    """Whether β is recovered, whether examples are said to change, and whether there is said to be no reference.

    Worlds are evaluations of 64 pairs whose chosen rewards fall to −1 and rejected ones to −2, at β = 0.1.
    """

    def drawn(rng: Rng) -> tuple[float, ...]:
        u = np.arange(1, rows + 1)[:, None] / rows
        table = {}
        for side, end in (("chosen", -1.0), ("rejected", -2.0)):
            base = rng.normal(-150, 50, (rows if world == "examples change" else 1, 64))
            reward = end * u * (1 + 0.5 * rng.normal(size=64)) + 0.05 * rng.normal(size=(rows, 64))
            logp = base + reward / BETA
            if world == "a fixed set in bfloat16":
                logp = bfloat16(logp)
                reward = bfloat16(BETA * (logp - bfloat16(base)))
            table |= {f"logp_{side}": logp.mean(axis=1), f"reward_{side}": reward.mean(axis=1)}
        found = recover_reference(pd.DataFrame(table).round(4))
        return found.holds is True and not found.free, found.holds is False, found.free is True

    return each(drawn)


def unit_told(tokens: int, nats: float, rows: int = 25) -> Drawn:
    """Whether log-probs (of so many tokens; 0: per token) are said to be per token, and whether to be sums."""

    def drawn(rng: Rng) -> tuple[float, float]:
        own = nats * rng.lognormal(-0.08, 0.4, (rows, 8))
        logps = -own * np.maximum(1, rng.poisson(tokens, own.shape)) if tokens else -own
        found = is_per_token(pd.DataFrame({"logp_chosen": logps.mean(axis=1)}))
        return found is True, found is False

    return each(drawn)


def taken_for_preferences(rng: Rng, worlds: int) -> np.ndarray:
    """Whether a log with nothing but a supervised loss is taken for one of preferences."""
    first = np.exp(rng.normal(math.log(1.8), 0.4, worlds))
    return np.array([[kind_of(["loss"], loss, {})[0] == "preference" for loss in first]], float)


def known_for_preferences(rng: Rng, worlds: int) -> np.ndarray:
    """Whether a log with nothing but a loss that begins at ln 2 is, batches of 8 pairs after 10 steps."""
    margins = 0.02 + 0.1 * rng.normal(size=(worlds, 80))
    first = np.logaddexp(0, -margins).mean(axis=1).round(4)
    return np.array([[kind_of(["loss"], loss, {})[0] == "preference" for loss in first]], float)

"""The plan of benchmarks/calibration.py: every statement, the worlds in which it is looked for, and its goal."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from calibration_answers import (
    BARELY_EQUAL,
    EQUALLY_GOOD,
    GRADES,
    WORSE_OR_BETTER,
    answers_called,
    chosen_step_gains,
)
from calibration_logs import (
    held_out_above,
    known_for_preferences,
    reference_told,
    squeezed,
    taken_for_preferences,
    told,
    unit_told,
)
from calibration_worlds import (
    APART,
    DRAWS,
    Drawn,
    batch_carries,
    best_and_worst_differ,
    change_told,
    correlation_held,
    evaluations_fell,
    fall_overlooked,
    forecast_held,
    gold_fell,
    held_out_turned,
    interval_holds,
    onset_held,
    onset_of_pairs_held,
    pair_carries,
    pairs_fell,
    pairs_in_common,
    pairs_saturated,
    rise_told,
    rows_fell,
    share_held,
    smallest_fall_of_pairs_seen,
    smallest_fall_seen,
)

from rewardshape.numbers import counted

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
    yield from of_logs()
    yield from of_evaluations()
    yield from of_numbers()


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
    for prompts in (32, 64, 256):
        told_of = (false_alarm("the chosen step is better than step 0, beyond chance"),)
        yield Cell(told_of, "six steps, equally good", f"{prompts} prompts", chosen_step_gains(prompts))
    seen = (Statement("power: the chosen step is better than step 0, beyond chance"),)
    yield Cell(seen, "the last is .5 sd better", "256 prompts", chosen_step_gains(256, gain=0.5))


# Rows of a log, and pairs in a batch.
SIZES = ((10, 8), (25, 4), (100, 16), (400, 8))
# Worlds of logs: what is looked for, in which it is false, with which scatter, at which sizes.
IN_GENERAL = (
    "ties", "labels swapped", "another reference", "no reference", "not training", "an identity is broken",
    "hardly moved", "carried by single batches",
)  # fmt: skip
LOGS = (
    (IN_GENERAL, ("learnt slowly", "learnt"), NOISES, SIZES),
    (("collapsed", "labels swapped", "ties"), ("nothing learnt, chosen falls",), NOISES, SIZES),
    (("collapsed",), ("learnt slowly, chosen falls", "learnt, chosen falls"), ("white",), SIZES[1:3]),
    (("labels swapped",), ("from 3 to 4.5 of 10 in order",), ("white",), SIZES),
    (("saturated",), ("a fifth of the gradient left",), ("white", "t(3)"), SIZES),
    (("too easy",), tuple(f"saturates, from {n} of 10" for n in (5, 6, 7)), ("white",), SIZES[1:]),
    (("another reference", "no reference"), ("scattered from the start",), ("white",), SIZES),
    (
        ("another reference", "no reference"),
        tuple(f"rewards reach {sign}6 within {steps} steps" for sign in ("", "−") for steps in (60, 200)),
        ("white",),
        SIZES[:3:2],
    ),
    (
        ("an identity is broken",),
        tuple(f"spread {n} times the mean" for n in (1, 2, 4)),
        ("white",),
        SIZES[1:3],
    ),
)
# Worlds in which it is true.
SEEN = (
    ("collapsed", "learnt and lost, chosen falls"),
    ("labels swapped", "swapped"),
    ("ties", "4 of 10 are ties"),
    ("saturated", "saturates, from 5 of 10"),
    ("too easy", "saturates, from 95 of 100"),
    ("carried by single batches", "one batch carries it"),
    ("another reference", "begins at 3"),
    ("no reference", "without a reference"),
    ("not training", "nothing moves"),
    ("an identity is broken", "margins in nats"),
    ("hardly moved", "nothing learnt"),
)


def of_logs() -> Iterator[Cell]:
    """Whole logs of batches, as a diagnosis speaks of them."""
    for names, worlds, kinds, sizes in LOGS:
        statements = tuple(map(false_alarm, names))
        for world in worlds:
            for kind in kinds:
                for rows, pairs in sizes:
                    drawn, size = told(names, world, kind, rows, pairs), f"batches of {pairs}, {rows} rows"
                    yield Cell(statements, f"{world}; {kind}", size, drawn)
    for name, world in SEEN:
        for rows, pairs in SIZES[1:3]:
            drawn, size = told((name,), world, "white", rows, pairs), f"batches of {pairs}, {rows} rows"
            yield Cell((Statement(f"power: {name}"),), world, size, drawn, SIMULATIONS // 2)
    for start, end in ((25, 2), (5, 5)):
        for scatter in (0.5, 1.0):
            for rows in (10, 25, 100, 400):
                drawn = batch_carries(start, end, scatter, rows)
                world = f"losses from {start} to {end}, log-normal, σ = {scatter:g}"
                yield Cell(
                    (false_alarm("carried by single batches, large losses"),), world, f"{rows} rows", drawn
                )


def of_evaluations() -> Iterator[Cell]:
    """Fixed sets, or what a log takes for one."""
    for loss in ("a hinge", "smoothed by .4", "with a likelihood term", "logistic"):
        for rows in (3, 5, 20):
            above = (false_alarm("the held-out loss was never below that of no training"),)
            yield Cell(above, f"gets better; {loss}", f"{rows} evaluations", held_out_above(loss, rows))
    for rows in (3, 5, 20):
        seen = (Statement("power: the held-out loss was never below that of no training"),)
        yield Cell(
            seen,
            "rises from ln 2 on; logistic",
            f"{rows} evaluations",
            held_out_above("logistic", rows, harm=True),
        )
    for world in ("chosen level", "chosen falls by 20 nats"):
        for rows in (2, 3, 5, 10, 20):
            yield Cell(
                (false_alarm("the squeezing effect"),), world, f"{rows} evaluations", squeezed(world, rows)
            )
    for rows in (3, 5, 20):
        seen, world = (
            (Statement("power: the squeezing effect"),),
            "chosen falls by 20 nats, greedy rises by 10",
        )
        yield Cell(seen, world, f"{rows} evaluations", squeezed(world, rows))
    names = "β is recovered", "the evaluated examples change", "there is no reference (evaluations)"
    for rows in (1, 2, 3, 5, 10):
        size, world = f"{rows} evaluations", "examples change"
        statements = (false_alarm(names[0]), Statement(f"power: {names[1]}"), false_alarm(names[2]))
        yield Cell(statements, world, size, reference_told(world, rows), MANY)
        for world in ("a fixed set", "a fixed set in bfloat16"):
            statements = (Statement(f"power: {names[0]}"), *map(false_alarm, names[1:]))
            yield Cell(statements, world, size, reference_told(world, rows), MANY)
    per_token, sums = false_alarm("log-probs are means per token"), false_alarm("log-probs are sums")
    ignored = Statement("log-probs are sums, rightly"), Statement("log-probs are means, rightly")
    for tokens in (5, 20, 100):
        drawn = unit_told(tokens, 1.0)
        yield Cell((per_token, ignored[0]), "sums, 1 nat per token", f"{tokens} tokens", drawn, MANY)
    for nats in (0.5, 2.0, 4.0):
        drawn = unit_told(0, nats)
        yield Cell((ignored[1], sums), "means per token", f"{nats:g} nats per token", drawn, MANY)
    taken = "a loss alone is taken for preferences"
    yield Cell(
        (false_alarm(taken),), "supervised, log-normal about 1.8", "any", taken_for_preferences, IN_DOUBT
    )
    yield Cell((Statement(f"power: {taken}"),), "begins at ln 2", "any", known_for_preferences, IN_DOUBT)


def of_numbers() -> Iterator[Cell]:
    """What is said of the size of things: gains, what would have been seen, shares, forecasts, single pairs."""
    for of, batches, sizes in (
        ("batches", True, (10, 25, 50, 100, 400)),
        ("evaluations", False, (3, 5, 10, 20)),
    ):
        names = f"gained probability ({of})", f"rose, then given back ({of})"
        for kind in NOISES:
            for rows in sizes:
                drawn = rise_told(kind, rows, batches=batches)
                yield Cell(tuple(map(false_alarm, names)), kind, f"{rows} rows", drawn, MANY)
    for kind in NOISES:
        for rows in (10, 25, 50, 100, 400):
            missed = (false_alarm("not displaced, of a fall of 0.3 in rewards (batches)"),)
            yield Cell(missed, f"{kind}, sd .3", f"{rows} rows", fall_overlooked(kind, rows), MANY)
            seen = (Statement("the smallest fall that is named is seen (batches)", 0.75),)
            yield Cell(seen, f"{kind}, sd .3", f"{rows} rows", smallest_fall_seen(kind, rows), MANY)
    for kind in ("normal", "t(3)", "skewed (exponential)"):
        for prompts in (16, 64, 256):
            seen = (Statement("the smallest fall that is named is seen (pairs)", 0.75),)
            yield Cell(seen, kind, f"{prompts} prompts", smallest_fall_of_pairs_seen(kind, prompts))
    for share in (0.5, 0.8, 0.95):
        for prompts in (32, 64, 256):
            drawn = share_held(share, prompts)
            yield Cell(
                (holds("95 % interval of a share holds"),), f"{share:g}", f"{prompts} pairs", drawn, 2 * MANY
            )
    for related in (0.0, 0.5):
        for pairs in (32, 64, 256):
            drawn = correlation_held(related, pairs)
            yield Cell(
                (holds("95 % interval of ρ holds"),), f"r = {related:g}", f"{pairs} pairs", drawn, MANY
            )
    for shape in ("straight", "slowing", "speeding up"):
        for seen_share in (0.2, 0.5):
            for pairs in (16, 64):
                held = (Statement("forecast: the interval holds the end", 0.93),)
                world, size = f"{shape}, {seen_share:.0%} seen", f"{pairs} pairs"
                yield Cell(held, world, size, forecast_held(shape, seen_share, pairs), MANY)
    carried = (false_alarm("carried by single pairs"),)
    for world, kinds in (
        *((world, ("white", "t(3)")) for world in ("learnt", "nearly learnt", "spread wide")),
        ("log-normal weights", ("σ = 0.5", "σ = 1")),
    ):
        for kind in kinds:
            for pairs in (8, 32, 64, 256):
                yield Cell(
                    carried, f"{world}; {kind}", f"{pairs} pairs", pair_carries(world, kind, pairs), MANY
                )
    for wild in (50.0, 200.0):
        for pairs in (8, 32, 64, 256):
            drawn = pair_carries("nearly learnt", "white", pairs, wild=wild)
            seen = (Statement("power: carried by single pairs"),)
            yield Cell(seen, f"nearly learnt, one margin is −{wild:g}", f"{pairs} pairs", drawn)
    for pairs in (8, 16, 64, 256):
        yield Cell(
            (false_alarm("saturated (pairs)"),),
            "the median pair keeps a fifth",
            f"{pairs} pairs",
            pairs_saturated(0.2, pairs),
            MANY,
        )
        yield Cell(
            (Statement("power: saturated (pairs)"),),
            "the median pair keeps a fiftieth",
            f"{pairs} pairs",
            pairs_saturated(0.02, pairs),
        )

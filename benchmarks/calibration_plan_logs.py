"""The plan of benchmarks/calibration.py for whole logs, for what evaluations tell, and for the sizes that are named."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from calibration_cells import IN_DOUBT, MANY, NOISES, SIMULATIONS, Cell, Statement, false_alarm, holds
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
    batch_carries,
    correlation_held,
    fall_overlooked,
    forecast_held,
    pair_carries,
    pairs_saturated,
    rise_told,
    share_held,
    share_of_prompts_held,
    smallest_fall_of_pairs_seen,
    smallest_fall_seen,
)

# Worlds in which a statement had been looked for before it was mended are drawn anew.
ANEW = 2

# Rows of a log, and pairs in a batch.
SIZES = ((10, 8), (25, 4), (100, 16), (400, 8))
# Worlds of logs: what is looked for, in which it is false, with which scatter, at which sizes.
LEARNT = (
    "ties", "labels swapped", "another reference", "no reference", "not training", "an identity is broken",
    "carried by single batches",
)  # fmt: skip
FAST = tuple(f"rewards reach {sign}6 within {steps} steps" for sign in ("", "−") for steps in (60, 200))
LOGS = (
    (LEARNT, ("learnt slowly",), NOISES, SIZES),
    ((*LEARNT, "hardly moved"), ("learnt",), NOISES, SIZES[1:3]),
    (("hardly moved",), ("learnt, from 5 to 7 of 10 in order",), NOISES, SIZES[1:3]),
    (("collapsed", "labels swapped", "ties"), ("nothing learnt, chosen falls",), NOISES, SIZES),
    (("collapsed",), ("learnt slowly, chosen falls", "learnt, chosen falls"), ("white",), SIZES[1:3]),
    (("labels swapped",), ("from 3 to 4.5 of 10 in order",), ("white",), SIZES),
    (("saturated",), ("a fifth of the gradient left",), ("white", "t(3)"), SIZES),
    (("too easy",), tuple(f"saturates, from {n} of 10" for n in (5, 6, 7)), ("white",), SIZES[1:]),
    (("another reference", "no reference"), ("scattered from the start",), ("white",), SIZES),
    (("another reference", "no reference"), FAST, ("white",), SIZES[:3:2]),
    (
        ("an identity is broken",),
        tuple(f"spread {n} times the mean" for n in (1, 2, 4)),
        ("white",),
        SIZES[1:3],
    ),
)
# Worlds in which it is true.
SEEN = (
    ("collapsed", "came in order and lost it, chosen falls"),
    ("labels swapped", "swapped"),
    ("ties", "5 of 10 are ties"),
    ("saturated", "saturates, from 5 of 10"),
    ("too easy", "saturates, from 95 of 100"),
    ("carried by single batches", "one batch carries it"),
    ("another reference", "begins at 3"),
    ("no reference", "without a reference"),
    ("not training", "nothing moves"),
    ("an identity is broken", "margins of the other sign"),
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
                    yield Cell(statements, f"{world}; {kind}", size, drawn, draw=ANEW)
    for name, world in SEEN:
        for rows, pairs in SIZES[1:3]:
            drawn, size = told((name,), world, "white", rows, pairs), f"batches of {pairs}, {rows} rows"
            yield Cell((Statement(f"power: {name}"),), world, size, drawn, SIMULATIONS // 2, ANEW)
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
            told_of, size = (false_alarm("the squeezing effect"),), f"{rows} evaluations"
            yield Cell(told_of, world, size, squeezed(world, rows), draw=ANEW)
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
        yield Cell(statements, world, size, reference_told(world, rows), MANY, ANEW)
        for world in ("a fixed set", "a fixed set in bfloat16"):
            statements = (Statement(f"power: {names[0]}"), *map(false_alarm, names[1:]))
            yield Cell(statements, world, size, reference_told(world, rows), MANY, ANEW)
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
    for share, spread in itertools.product((0.5, 0.8), (0.7, 1.2)):
        for prompts in (32, 64, 256):
            drawn = share_of_prompts_held(share, spread, prompts)
            held, world = (
                holds("95 % interval of a share over prompts holds"),
                f"{share:g}, σ of log sizes {spread:g}",
            )
            yield Cell((held,), world, f"{prompts} prompts", drawn, 2 * MANY)
    for related in (0.0, 0.5):
        for pairs in (32, 64, 256):
            drawn = correlation_held(related, pairs)
            yield Cell((holds("95 % interval of ρ holds"),), f"r = {related:g}", f"{pairs} pairs", drawn)
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
                    carried,
                    f"{world}; {kind}",
                    f"{pairs} pairs",
                    pair_carries(world, kind, pairs),
                    MANY,
                    ANEW,
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

"""The plan of benchmarks/calibration.py: every statement, the worlds in which it is looked for, and its goal."""

from __future__ import annotations

from collections.abc import Iterator

from calibration_answers import (
    BARELY_EQUAL,
    EQUALLY_GOOD,
    GRADES,
    WORSE_OR_BETTER,
    answers_called,
    chosen_step_gains,
    rate_at_equal_length_held,
)
from calibration_cells import (
    DRAW,
    IN_DOUBT,
    MANY,
    NOISES,
    SIMULATIONS,
    Cell,
    Statement,
    fall_and_clear,
    false_alarm,
    holds,
    onset,
)
from calibration_plan_logs import of_evaluations, of_logs, of_numbers
from calibration_worlds import (
    APART,
    DRAWS,
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
    for better, world in ((0.0, "wins by length alone"), (0.4, "better, and longer")):
        for prompts, samples in ((32, 1), (64, 4), (256, 4)):
            drawn = rate_at_equal_length_held(prompts, samples, better=better)
            told_of = (holds("95 % interval of a win rate at equal length holds"),)
            yield Cell(told_of, world, f"{prompts} prompts × {samples}", drawn, MANY)
    for prompts in (32, 64, 256):
        told_of = (false_alarm("the chosen step is better than step 0, beyond chance"),)
        yield Cell(told_of, "six steps, equally good", f"{prompts} prompts", chosen_step_gains(prompts))
    seen = (Statement("power: the chosen step is better than step 0, beyond chance"),)
    yield Cell(seen, "the last is .5 sd better", "256 prompts", chosen_step_gains(256, gain=0.5))

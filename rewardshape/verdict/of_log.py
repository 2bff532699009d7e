"""Evidence from the rows of another trainer's log."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from rewardshape.logs.log import Log
from rewardshape.logs.names import SERIES
from rewardshape.numbers import counted, moment, signed, significant
from rewardshape.verdict.evidence import Change, Evidence, HeldOut, Onset, as_step
from rewardshape.verdict.learning import learning_of, values_of
from rewardshape.verdict.nonfinite import broken_since, loss_lost, never_held, one_sided
from rewardshape.verdict.recovery import Reference, find_reference, has, is_per_token
from rewardshape.verdict.rows import (
    FEWEST_TO_TURN,
    Noise,
    change_along,
    change_of,
    exact_change,
    noise_of,
    onset_of_rows,
    smallest_seen,
    turned,
)
from rewardshape.verdict.sanity import loss_is_logistic, sanity_checks
from rewardshape.verdict.signal import Signal, chosen_signal, started_elsewhere
from rewardshape.verdict.spikes import carried_by
from rewardshape.verdict.thresholds import (
    CHANCE_LIKELY,
    MATTERS,
    ONSET_SHARE,
    SMALLEST,
)

NEEDED = (
    "loss", "reward_chosen", "reward_rejected", "margin", "accuracy", "logp_chosen", "logp_rejected", "grad_norm",
)  # fmt: skip
# The scatter that few rows show is itself by chance: so much larger, over the degrees of freedom, is the fall that is
# named as seen four times in five, which it then is (docs/calibration.md).
UNSURE, MOST_UNSURE = 6.0, 3.0
# Rows of one sign that end a wobble about the baseline: chance gives as many in one run of thirty.
SAME_SIGN = 5


def evidence_of_log(log: Log, *, beta: float | None = None) -> Evidence:
    """What the log of one run shows.

    Parameters
    ----------
    log : Log
    beta : float, optional
        β where the user knows it; else it is recovered from a fixed evaluation set, or taken from the log's text.
    """
    nonfinite, lacking = one_sided(log.nonfinite)
    never = never_held(log)
    log = replace(log, nonfinite=nonfinite)
    lost = loss_lost(log)
    lacking = [*lacking, *lost]
    carried = carried_by(log.split("train").get("loss", pd.Series(dtype=float)), log.counts)
    if carried is not None:
        apart = (log.table["split"] == "train") & log.table["step"].isin(carried.steps)
        log = replace(log, table=log.table[~apart].reset_index(drop=True))
    evaluated, trained = log.split("eval"), log.split("train")
    reference, source = find_reference(evaluated, trained, beta, log.settings)
    per_token = log.settings.get("per_token", is_per_token(pd.concat([evaluated, trained])))
    elsewhere = started_elsewhere(log, reference)
    signal = chosen_signal(log, reference, per_token, elsewhere is not None)
    rows = _progress_rows(evaluated, trained, signal)
    told = rows.drop(columns="loss", errors="ignore") if lost and rows is trained else rows
    learning = learning_of(told, trained, reference.beta, fixed=rows is evaluated)
    learning = replace(learning, carried=carried)
    held = _held_out(evaluated, trained, reference, log.settings)
    found: dict[str, Any] = dict(
        name=log.name,
        form=log.form,
        part=log.part,
        learning=learning,
        held_out=held,
        broken=broken_since(log),
        why_unknown=never or _why_unknown(log, signal),
        never_held=bool(never),
        started_elsewhere=elsewhere is not None,
        counts=log.counts,
        rows=_rows_in_words(log),
        per_token=per_token,
        reference=reference,
        beta_source=source,
        nonfinite_steps=tuple(sorted(set(log.nonfinite["step"]))),
        nonfinite_series=tuple(sorted({SERIES.get(name, name) for name in log.nonfinite["series"]})),
        missing=_missing(log),
        evaluated=bool(len(evaluated)),
        facts=(*_facts(elsewhere), *_greedy(evaluated), *(() if never else lacking)),
        checks=(*_checks(evaluated, trained, reference), *log.notes),
        cannot_tell=_cannot_tell(signal, reference, evaluated, held),
        cannot_tell_of_fall=_cannot_tell_of_fall(signal, evaluated),
        progress=log.table,
    )
    if signal is not None:
        found |= levels_of_rows(signal)
    return Evidence(**found)


# --- levels ------------------------------------------------------------------------------------------------------


def levels_of_rows(signal: Signal) -> dict[str, Any]:
    """Where the chosen responses end, how deep and how high they were, and what of it came back."""
    values, width = signal.chosen, signal.width
    noise = noise_of(values.to_numpy(float))
    smooth = values.rolling(width, center=True, min_periods=1).mean() if width > 1 else values.copy()
    # The start and the end are the means of the first and last window, not of half of one.
    smooth.iloc[: width // 2] = values.iloc[:width].mean()
    smooth.iloc[-max(width // 2, 1) :] = values.iloc[-width:].mean()
    exact = _is_exact(signal)
    known = 1.0 if signal.known_zero else 2.0  # a baseline that is itself a row scatters as much as one
    error = noise.error(width) * math.sqrt(known)
    tries = 1.0 if exact else max(1.0, 4 * len(values) / width)
    lowest, highest = int(smooth.to_numpy().argmin()), int(smooth.to_numpy().argmax())
    end = float(smooth.iloc[-1])

    def level(value: float, place: int, *, searched: bool, of_two: bool = False) -> Change:
        step = as_step(smooth.index[place])
        if exact:
            return exact_change(value, step=step, chance=_chance_of_wobble(signal, value))
        of = noise.error(width) * math.sqrt(2) if of_two else error
        return change_of(value, of, noise.freedom, tries=tries if searched else 1.0, step=step)

    last = len(smooth) - 1
    found: dict[str, Any] = {
        "unit": signal.unit,
        "basis": signal.basis,
        "baseline": signal.baseline,
        "matters": MATTERS[signal.unit],
        "smallest": SMALLEST[signal.unit],
        "exact": exact,
        "chosen": level(end, last, searched=False),
        "lowest": level(float(smooth.iloc[lowest]), lowest, searched=True),
        "highest": level(float(smooth.iloc[highest]), highest, searched=True),
        "regained": level(end - float(smooth.iloc[lowest]), lowest, searched=True, of_two=True),
        "given_back": level(end - float(smooth.iloc[highest]), highest, searched=True, of_two=True),
        "smallest_fall": SMALLEST[signal.unit] if exact else _seen(error, noise, SMALLEST[signal.unit]),
        "curve": pd.DataFrame(
            {"step": smooth.index, "chosen": values.to_numpy(), "smooth": smooth.to_numpy()}
        ),
    }
    if min(found["chosen"].chance, found["lowest"].chance) <= CHANCE_LIKELY:
        found["onset"] = _onset(signal, noise, lowest)
    if signal.rejected is not None:
        rejected = signal.rejected
        found["curve"]["rejected"] = rejected.to_numpy()
        their_noise = noise_of(rejected.to_numpy(float)).error(width) * math.sqrt(known)
        value = float(rejected.iloc[-width:].mean())
        found["rejected"] = exact_change(value) if exact else change_of(value, their_noise, noise.freedom)
    return found


def _is_exact(signal: Signal) -> bool:
    """Whether the end is exact about the pairs it was measured on.

    On a fixed set an evaluation has no noise: it is what that checkpoint does to these pairs. What may still be chance
    is that a run that wobbles about its start ends on one side of it. So the numbers are taken as they stand where
    all rows that are worth a word lie on one side of a known start, or the last rows of a longer run do, or where such
    a run crosses it once, or went so far from it that no wobble does; else the scatter of the rows is taken for noise.
    """
    if signal.batches:
        return False
    values = signal.chosen.to_numpy(float)
    end, far = values[-1], MATTERS[signal.unit]
    if signal.baseline.assumed:
        return bool(len(values) > 1 and abs(end) >= far and (values[1:] * end > 0).all())
    sides = np.sign(values[np.abs(values) >= SMALLEST[signal.unit]])
    crossed = np.count_nonzero(np.diff(sides))
    longer = len(values) >= SAME_SIGN
    settled = longer and (values[-SAME_SIGN:] * end > 0).all()
    return bool(crossed == 0 or (crossed == 1 and longer) or settled or np.abs(values).max() >= far)


def _chance_of_wobble(signal: Signal, value: float) -> float:
    """Of a fixed set: none where the start is known or the change is beyond any wobble, else "likely" at most."""
    return 0.0 if not signal.baseline.assumed or abs(value) >= 2 * MATTERS[signal.unit] else CHANCE_LIKELY / 2


def _seen(error: float, noise: Noise, smallest: float) -> float | None:
    seen = smallest_seen(error, noise.freedom) * min(1 + UNSURE / noise.freedom, MOST_UNSURE)
    return max(seen, smallest) if math.isfinite(seen) else None


def _onset(signal: Signal, noise: Noise, lowest: int) -> Onset | None:
    """When the fall began: between two evaluations of a fixed set, by a fitted ramp on batches."""
    values = signal.chosen.to_numpy(float)
    steps = signal.chosen.index.to_numpy(float)
    if signal.batches and len(values) >= 2 * signal.width + 2:
        return onset_of_rows(steps, values, noise)
    if len(values) == 1:  # there is no course in which anything begins
        return None
    stop = len(values) if values[-1] < 0 else lowest + 1
    if values[stop - 1] >= 0:
        return None
    reached = values[:stop] <= ONSET_SHARE * values[stop - 1]
    first = stop - int(np.argmin(reached[::-1])) if not reached.all() else 0
    before = steps[first - 1] if first else (0.0 if signal.known_zero else steps[0])
    return Onset(
        as_step(steps[min(first, stop - 1)]), as_step(min(before, steps[first])), as_step(steps[first])
    )


# --- learning ------------------------------------------------------------------------------------------------------


def _progress_rows(evaluated: pd.DataFrame, trained: pd.DataFrame, signal: Signal | None) -> pd.DataFrame:
    """The rows that tell how training went: those that the chosen responses were judged on, so that numbers add up."""
    if signal is not None:
        judged = trained if signal.split == "train" else evaluated
        other = evaluated if judged is trained else trained
        return judged if has(judged, "loss") or not has(other, "loss") or len(judged) > 1 else other
    rows = evaluated if len(evaluated) > 1 and has(evaluated, "loss") else trained
    return rows if len(rows) else evaluated


# --- what was held out -------------------------------------------------------------------------------------------


def _held_out(
    evaluated: pd.DataFrame, trained: pd.DataFrame, reference: Reference, settings: dict[str, Any]
) -> HeldOut | None:
    """Whether the held-out loss turned while training went on; accuracy or chosen name the best row without it."""
    if has(evaluated, "loss"):
        values = evaluated["loss"].dropna()
        above = (
            loss_is_logistic(evaluated, settings.get("loss_type"), trained=trained)
            and reference.free is not True
            and values.min() > math.log(2)
        )
        above = above and has(evaluated, "margin") and evaluated["margin"].abs().max() > 0.01
        grew = _grows(trained, "margin") or _grows(evaluated, "margin") or _grows(trained, "loss", -1)
        found = turned(
            "held-out loss", values.index.to_numpy(float), values.to_numpy(float), above_start=above
        )
        return replace(found, trained_on=grew)
    for column in ("accuracy", "logp_chosen"):
        if has(evaluated, column) and len(evaluated) > 1:
            return HeldOut(SERIES[column], as_step(evaluated[column].idxmax()))
    return None


def _grows(table: pd.DataFrame, column: str, sign: int = 1) -> bool:
    values = table[column].dropna() if column in table else pd.Series(dtype=float)
    return len(values) > 1 and sign * (float(values.iloc[-1]) - float(values.iloc[0])) > 0


# --- what is wrong with the log ----------------------------------------------------------------------------------


def _why_unknown(log: Log, signal: Signal | None) -> str:
    """Why the chosen responses cannot be followed."""
    if signal is None:
        lost = sorted({SERIES[s] for s in log.nonfinite["series"] if s in ("reward_chosen", "logp_chosen")})
        if lost:
            return f"every value of {' and '.join(lost)} is NaN or infinite"
        return "the log holds no rewards/chosen and no logps/chosen: only their difference, or the loss"
    if len(signal.chosen) < 2 and not (signal.known_zero and not signal.batches):
        return "the log holds one row with the chosen responses, which shows no change"
    return ""


def _rows_in_words(log: Log) -> str:
    counts = " and ".join(
        counted(count, f"{name} row")
        for split, name in (("eval", "evaluation"), ("train", "training"))
        if (count := len(log.split(split)))
    )
    first, last = log.table["step"].min(), log.table["step"].max()
    span = (
        f"{log.rows_are} {moment(first)} to {moment(last)}"
        if first < last
        else f"{log.counts} {moment(first)}"
    )
    return f"{counts}, {span}"


def _missing(log: Log) -> tuple[str, ...]:
    logged = {column for column in log.table if log.table[column].notna().any()} | set(
        log.nonfinite["series"]
    )
    missing = tuple(SERIES[series] for series in NEEDED if series not in logged)
    return missing if len(log.split("eval")) else (*missing, "evaluation rows")


def _facts(elsewhere: tuple[float, float] | None) -> tuple[str, ...]:
    if elsewhere is None:
        return ()
    return (
        f"the first logged rewards are {signed(elsewhere[0], 2)} and {signed(elsewhere[1], 2)}, which a few steps do "
        "not give: the reference is not the model that the run began with (an adapter that was not merged and is "
        "switched off for the reference, another checkpoint, dropout or another precision), so the run is judged "
        "against its own first rows",
    )


def _greedy(evaluated: pd.DataFrame) -> tuple[str, ...]:
    """Where the most likely tokens ended, and what that tells of a probability that was lost."""
    greedy = values_of(evaluated, "logp_greedy")
    if len(greedy) < 2:
        return ()
    moved = float(greedy.iloc[-1] - greedy.iloc[0])
    lost = any(_went(values_of(evaluated, f"logp_{side}"), -1) for side in ("chosen", "rejected"))
    squeezed = ": what the other responses lost went there (the squeezing effect)"
    return (
        f"the log-probability of the most likely tokens {'rose' if moved > 0 else 'fell'} by "
        f"{significant(abs(moved))} nats{squeezed if lost and _went(greedy, 1) else ''}",
    )


def _went(values: pd.Series, sign: int) -> bool:
    """Whether log-probs of a fixed set went up (1) or down (−1): further than any wobble does, or beyond their own."""
    if len(values) < 2:
        return False
    change = float(values.iloc[-1] - values.iloc[0])
    return sign * change >= MATTERS["nats"] or (
        sign * change >= SMALLEST["nats"] and change_along(values.to_numpy(float), 1).chance <= CHANCE_LIKELY
    )


def _checks(evaluated: pd.DataFrame, trained: pd.DataFrame, reference: Reference) -> list[str]:
    where: dict[str, str] = {}  # what both splits break is said once
    for table, split in ((evaluated, "evaluation"), (trained, "training")):
        for check in sanity_checks(table, reference_free=reference.free, beta=reference.beta):
            where.setdefault(check, split)
    return [f"{split}: {check}" for check, split in where.items()]


def _cannot_tell(
    signal: Signal | None, reference: Reference, evaluated: pd.DataFrame, held: HeldOut | None
) -> tuple[str, ...]:
    unknown = []
    if signal is None:
        unknown.append("whether the chosen responses lost probability: a margin grows as well when both fall")
    if signal is not None and signal.baseline.assumed:
        unknown.append("what happened before the first logged row, which is taken for the start")
    if signal is not None and signal.batches:
        unknown.append(
            "how a fixed set fared: training rows are of changing batches (evaluate every few steps)"
        )
    elif signal is not None:
        unknown.append("how other pairs than those of the evaluation set fared")
    if reference.holds is False and has(evaluated, "logp_chosen", "reward_chosen"):
        unknown.append(
            "the reference: logps − rewards/β is not constant, so the evaluated examples change or the reward is not "
            "linear in the log-probability; the rewards themselves are used"
        )
    if not len(evaluated):
        unknown.append("over-optimization: nothing held out is logged")
    elif held is None or (held.worse is None and not held.above_start):
        unknown.append(f"over-optimization: that takes {FEWEST_TO_TURN} evaluations of the held-out loss")
    unknown.append("whether answers got worse: that takes samples")
    return tuple(unknown)


def _cannot_tell_of_fall(signal: Signal | None, evaluated: pd.DataFrame) -> tuple[str, ...]:
    unknown = []
    if signal is not None and signal.unit == "reward":
        unknown.append("the depth in nats: that takes β, which you can give with --beta")
    if not has(evaluated, "logp_greedy"):
        unknown.append(
            "where the lost probability went: that takes samples, or greedy log-probs of a probe set"
        )
    return tuple(unknown)

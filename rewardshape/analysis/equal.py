"""The runs of a sweep where they have come equally far: in margin, in KL, in steps.

A common value, which you name, says how the runs stand there; a curve over the margin or the KL takes every run to
where it got. Each resample of the pairs, and for the KL of the prompts that were sampled,
finds its own place on its own curve, so that the uncertainty of what is set equal is in the intervals.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from rewardshape.analysis.panels import BY_SETTING, chosen_and_rejected, in_order, run_label
from rewardshape.analysis.resampling import (
    MIN_PROMPTS,
    RESAMPLES,
    drawn_counts,
    evenly,
    percentile_interval,
    resampled_means,
    share_interval,
    where_known,
)
from rewardshape.analysis.samples import samples_of
from rewardshape.errors import InputError
from rewardshape.trace import Run, Trace

Axis = Literal["logp_margin", "kl", "step"]
POINTS, MOST_STEPS = 21, 200
# Most resamples of the pairs reach it too.
WITHIN_REACH = 0.9
# Margins at which runs are set against each other, evenly spaced up to the largest that two of them reach.
MARGINS = 4


class Course(NamedTuple):
    """One run along its steps: the steps of the probe set, and for the KL those at which it sampled."""

    run: Run
    pairs: list[tuple[str, str]]
    """What each is called, and its prompt."""
    prompts: np.ndarray
    """The prompt of each pair."""
    steps: np.ndarray
    chosen: np.ndarray
    """(steps, pairs), nats per token since step 0; `rejected` likewise."""
    rejected: np.ndarray
    accuracy: np.ndarray
    samples: pd.DataFrame
    """KL (nats per response, not falling along the run) and gold reward by step, where samples were drawn."""
    resampled: dict[str, np.ndarray]
    """Means of chosen and rejected, and what is followed, in every resample: (resamples, steps)."""
    followed: np.ndarray
    """What is set equal, (steps,)."""

    @property
    def num_prompts(self) -> int:
        """How many different ones."""
        return len(np.unique(self.prompts))

    @property
    def end(self) -> float:
        """The furthest that it got in what is followed; NaN of a run that broke: one whose course is not finite."""
        finite = all(np.isfinite(values).all() for values in (self.followed, self.chosen, self.rejected))
        return float(self.followed.max()) if finite else np.nan


def compare_at_equal(
    trace: Trace, axis: Axis, value: float, *, baseline: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Every run of a sweep at the step where it first reaches a common margin gain, KL, or step.

    Between steps, and between the steps at which samples were drawn, all quantities are interpolated linearly.

    Parameters
    ----------
    trace : Trace
        A sweep: runs that have their checkpoint and their probe set in common with those of their seed.
    axis : {"logp_margin", "kl", "step"}
        What is set equal: the gain since step 0 of the probe margin in log-probs (nats per token), the KL to the
        reference (nats per response, the mean over samples, made non-decreasing along the run by isotonic
        regression, since the first crossing of a noisy curve comes early), or the step.
    value : float
        The common value.
    baseline : str, optional
        A run, or a setting: then each run is set against the baseline's run of its own seed. ``difference`` tells how
        much higher or lower the run's chosen responses stand, paired: every resample holds the same pairs in both.

    Returns
    -------
    DataFrame
        One row per run, ordered by α and seed: ``run``, ``setting``, ``alpha``, ``seed``, ``axis``, ``value``,
        ``reached`` (False: the run never gets there, or broke, and what follows is NaN), ``step`` (fractional),
        ``chosen_change``, ``rejected_change``, ``logp_margin_gain`` (nats per token), ``share_fallen``,
        ``accuracy``; where samples were drawn ``kl`` and ``gold``. ``chosen_change`` and ``rejected_change`` with
        ``…_low`` and ``…_high`` over prompts; each resample finds its own step (one that never reaches the value
        stands where it came closest). ``share_fallen`` has its Wilson interval at that
        step.

    Raises
    ------
    InputError
        If `axis` is unknown, or is "kl" and a run has no samples; if `baseline` is neither run nor setting, never
        reaches the value, or has other probe pairs than the rest.

    Examples
    --------
    >>> compare_at_equal(read_trace("runs/sweep"), "logp_margin", 0.1)       # doctest: +SKIP
    """
    if not 0 <= value < np.inf:
        raise InputError(f"value = {value}: give a number that runs can reach")
    courses = _courses(trace, axis, seed)
    found = [_row(course, axis, value) for course in courses]
    if baseline is not None:
        _add_differences(found, courses, baseline)
    return pd.DataFrame([row for row, _ in found]).sort_values(BY_SETTING, ignore_index=True)


def compare_along(
    trace: Trace,
    axis: Axis = "logp_margin",
    *,
    baseline: str | None = None,
    points: int = POINTS,
    seed: int = 0,
) -> pd.DataFrame:
    """Every run of a sweep along its margin gain, KL or steps, each to where it got.

    Parameters
    ----------
    trace, axis, baseline, seed
        As for `compare_at_equal`.
    points : int
        Values between 0 and the furthest that any run got, beside those at which a run ended its way.

    Of a long run at most `MOST_STEPS` probed steps are followed, evenly spaced, and straight lines between them.

    Returns
    -------
    DataFrame
        The columns of `compare_at_equal`, one row per run and value that the run reached; none of a run that broke.
        Bands are pointwise.

    Raises
    ------
    InputError
        As for `compare_at_equal`, save that a baseline need not reach a value; or if every run broke.
    """
    courses = _courses(trace, axis, seed, most=MOST_STEPS)
    ends = [course.end for course in courses if np.isfinite(course.end)]
    if not ends:
        raise InputError(f"{trace.folder}: every run broke: none is finite at all of its steps")
    tables = []
    for value in np.union1d(np.linspace(0, max(ends), points), ends):
        there = [course for course in courses if course.end >= value]
        found = [_row(course, axis, float(value)) for course in there]
        if baseline is not None:
            _add_differences(found, there, baseline, refuse=False, known=courses)
        tables.append(pd.DataFrame([row for row, _ in found]))
    return pd.concat(tables, ignore_index=True).sort_values([*BY_SETTING, "value"], ignore_index=True)


def resampled_along(
    trace: Trace, axis: Axis, values: np.ndarray, runs: list[str], *, seed: int = 0
) -> tuple[np.ndarray, int]:
    """Change of the chosen responses of some runs at several values, and over how many prompts.

    Returns
    -------
    changes : array, shape (1 + resamples, values, runs)
        Row 0 as measured, then every resample; NaN where a run does not reach the value.
    num_prompts : int
    """
    courses = {course.run.name: course for course in _courses(trace, axis, seed)}
    changes = np.full((1 + RESAMPLES, len(values), len(runs)), np.nan)
    for i, value in enumerate(values):
        for j, course in enumerate(courses[run] for run in runs):
            if course.end >= value:
                row, drawn = _row(course, axis, float(value))
                changes[:, i, j] = np.r_[row["chosen_change"], drawn]
    return changes, min(courses[run].num_prompts for run in runs)


# --- courses -----------------------------------------------------------------------------------------------------


def _courses(trace: Trace, axis: Axis, seed: int, *, most: int | None = None) -> list[Course]:
    if axis not in ("logp_margin", "kl", "step"):
        raise InputError(f"axis {axis!r}: choose logp_margin, kl or step")
    courses = []
    for chosen, rejected in chosen_and_rejected(trace):
        run, prompts = chosen.run, chosen.prompt_codes
        samples = _sampled(trace, run)
        resampled_kl = _resampled_kl(trace, run, seed) if axis == "kl" else None
        steps = chosen.steps if most is None else chosen.steps[evenly(len(chosen.steps), most)]
        steps = np.union1d(steps, samples.index) if axis == "kl" else steps
        onto = _interpolation(chosen.steps, steps)
        parts = {"chosen": onto @ chosen.change(), "rejected": onto @ rejected.change()}
        resampled = {
            "chosen": resampled_means(chosen.change(), prompts, seed=seed) @ onto.T,
            "rejected": resampled_means(rejected.change(), prompts, seed=seed) @ onto.T,
        }
        followed, resampled["followed"] = _followed(axis, run, steps, parts, resampled, samples, resampled_kl)
        accuracy = onto @ in_order(chosen, rejected).mean(axis=1)
        courses.append(
            Course(run, chosen.pairs, prompts, steps, **parts, accuracy=accuracy, samples=samples,
                   resampled=resampled, followed=followed)
        )  # fmt: skip
    return courses


def _interpolation(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The matrix that interpolates values at `known` steps linearly to `wanted` ones: (wanted, known)."""
    return np.stack([np.interp(wanted, known, row) for row in np.eye(len(known))], axis=1)


def _followed(
    axis: Axis,
    run: Run,
    steps: np.ndarray,
    parts: dict[str, np.ndarray],
    resampled: dict[str, np.ndarray],
    samples: pd.DataFrame,
    resampled_kl: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """What is set equal, as measured (steps,) and in every resample (resamples, steps)."""
    if axis == "logp_margin":
        gain = parts["chosen"].mean(axis=1) - parts["rejected"].mean(axis=1)
        return gain, resampled["chosen"] - resampled["rejected"]
    if axis == "step":
        return steps.astype(float), np.broadcast_to(steps.astype(float), resampled["chosen"].shape)
    if resampled_kl is None:
        raise InputError(f"run {run.name!r} has no KL: it drew no samples (--sample-every)")
    onto = _interpolation(samples.index.to_numpy(float), steps.astype(float))
    return onto @ samples["kl"].to_numpy(), resampled_kl @ onto.T


def _sampled(trace: Trace, run: Run) -> pd.DataFrame:
    """KL and mean gold reward by step; empty if no samples were drawn."""
    samples = samples_of(trace, run)
    if samples.empty or samples["kl"].isna().all():
        return pd.DataFrame(index=pd.Index([], dtype=float))
    table = samples.groupby("step")[[name for name in ("kl", "gold") if name in samples]].mean()
    table["kl"] = isotonic_regression(table["kl"].to_numpy()).x
    return table


def _resampled_kl(trace: Trace, run: Run, seed: int) -> np.ndarray | None:
    """The KL of every step in every resample of the prompts, (resamples, steps); None if no samples were drawn."""
    samples = samples_of(trace, run)
    if samples.empty or samples["kl"].isna().all():
        return None
    wide = samples.pivot_table(
        index="step", columns="prompt_id", values="kl", aggfunc=["sum", "count"], fill_value=0
    )
    sums, sizes = np.asarray(wide["sum"], dtype=float), np.asarray(wide["count"], dtype=float)
    # other prompts than those of the pairs: drawn on their own
    counts = drawn_counts(sums.shape[1], seed=seed + 1)
    total: np.ndarray = counts @ sizes.T
    drawn = np.divide(counts @ sums.T, total, out=np.zeros_like(total), where=total > 0)
    return np.stack([isotonic_regression(row).x for row in drawn])


# --- at a value --------------------------------------------------------------------------------------------------


def _row(course: Course, axis: Axis, value: float) -> tuple[dict[str, Any], np.ndarray]:
    """The row of one run, and the change of its chosen responses in every resample."""
    reached = bool(course.end >= value)
    place = first_place(course.followed[None], value)
    own = first_place(course.resampled["followed"], value)
    step = float(at_place(course.steps[None], place)[0])
    row = {**run_label(course.run), "axis": axis, "value": value, "reached": reached, "step": step}
    there = {name: at_place(course.resampled[name], own) for name in ("chosen", "rejected")}
    for name, change in (("chosen", course.chosen), ("rejected", course.rejected)):
        low, high = _interval(there[name], course.num_prompts)
        mean = at_place(change.mean(axis=1)[None], place)[0]
        row |= {f"{name}_change": mean, f"{name}_change_low": low, f"{name}_change_high": high}
    row["logp_margin_gain"] = row["chosen_change"] - row["rejected_change"]
    change = at_place(course.chosen.T, place)[None]
    fallen = where_known(change < 0, change)
    low, high = (float(end[0]) for end in share_interval(fallen, course.prompts))
    row |= {"share_fallen": fallen.mean(), "share_fallen_low": low, "share_fallen_high": high}
    row["accuracy"] = at_place(course.accuracy[None], place)[0]
    for name in map(str, course.samples.columns):
        row[name] = np.interp(step, course.samples.index, course.samples[name], left=np.nan, right=np.nan)
    if not reached:
        row = {key: row[key] for key in (*run_label(course.run), "axis", "value", "reached")}
    return row, there["chosen"]


def _interval(resampled: np.ndarray, prompts: int) -> tuple[float, float]:
    """95 % interval over prompts; NaN from fewer than `MIN_PROMPTS`."""
    if prompts < MIN_PROMPTS:
        return np.nan, np.nan
    low, high = percentile_interval(resampled, prompts)
    return float(low), float(high)


def _add_differences(
    found: list[tuple[dict[str, Any], np.ndarray]],
    courses: list[Course],
    baseline: str,
    *,
    refuse: bool = True,
    known: list[Course] | None = None,
) -> None:
    """Add to every row how it stands against the baseline's run, or its run of the same seed."""
    runs = [course.run for course in known or courses]
    if baseline not in {run.name for run in runs} | {run.setting for run in runs}:
        raise InputError(
            f"no run {baseline!r} to compare with: there are {', '.join(run.name for run in runs)}"
        )
    base = {
        (course.run.seed if course.run.name != baseline else None): (course.pairs, *entry)
        for course, entry in zip(courses, found, strict=True)
        if baseline in (course.run.name, course.run.setting) and entry[0]["reached"]
    }
    if not base and refuse:
        raise InputError(f"run {baseline!r} never reaches the common value, so nothing can be told from it")
    for course, (row, resampled) in zip(courses, found, strict=True):
        theirs = base.get(None) or base.get(row["seed"])
        if row["reached"] and theirs is not None:
            pairs, base_row, base_resampled = theirs
            if course.pairs != pairs:
                raise InputError("the runs have different probe pairs, so their differences cannot be paired")
            low, high = _interval(resampled - base_resampled, course.num_prompts)
            row["difference"] = row["chosen_change"] - base_row["chosen_change"]
            row |= {"difference_low": low, "difference_high": high}


def first_place(curves: np.ndarray, value: float) -> np.ndarray:
    """Fractional index at which each curve (row) first reaches `value`, or else of its maximum."""
    above = curves >= value
    first = np.where(above.any(axis=1), above.argmax(axis=1), curves.argmax(axis=1))
    before = np.maximum(first - 1, 0)
    rows = np.arange(len(curves))
    rise = curves[rows, first] - curves[rows, before]
    short = np.clip(curves[rows, first] - value, 0, None)  # how far past the value that index already is
    return np.asarray(
        first - np.divide(short, rise, out=np.zeros(len(curves)), where=(rise > 0) & (first > before))
    )


def at_place(curves: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Linear interpolation of each curve (rows) at a fractional index."""
    before = np.floor(place).astype(int)
    after = np.minimum(before + 1, curves.shape[1] - 1)
    rows = np.arange(len(curves))
    share = place - before
    return np.asarray(curves[rows, before] * (1 - share) + curves[rows, after] * share)


def stands_at(value: float, x: np.ndarray, y: np.ndarray) -> float:
    """y where x first reaches a value, straight between the points."""
    return float(at_place(y[None], first_place(x[None], value))[0])

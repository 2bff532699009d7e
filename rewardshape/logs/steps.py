"""Which optimiser step a row of a log belongs to, where the log does not say it in so many words."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rewardshape.logs.rows import Rows

Counts = Literal["step", "epoch", "example", "row"]
_MOST_BARS = (
    0.8  # share of the training rows that a progress bar must precede to be taken for the step itself
)
# Share of the rows that must state a step for the others to be placed among them
_MOST_STEPS = 0.5

Floats = NDArray[np.float64]


def steps_of(rows: Rows, run: NDArray[np.int64]) -> tuple[Floats, Counts]:
    """The step of each row of a run, and what these numbers count.

    In this order: the row's own step; the training progress bar before it; its number of examples or its epoch, at the
    rate that other rows show; the number of examples alone; whole epochs; the row's place.
    """
    steps, examples, epochs = (
        np.frombuffer(rows.place[name])[run].copy() for name in ("step", "examples", "epoch")
    )
    trains = np.frombuffer(rows.trains, dtype=np.uint8)[run].astype(bool)
    if np.isnan(steps).all():
        steps = _of_bars(rows, run, trains, epochs)
    for counter in (examples, epochs):
        steps = np.where(np.isnan(steps), _at_rate(counter, steps, counter), steps)
    if np.isfinite(steps).mean() >= _MOST_STEPS:
        return _filled(steps), "step"
    if np.isfinite(examples).all():
        return examples, "example"
    if _are_whole(epochs, trains):
        return epochs, "epoch"
    if not trains.any():
        return np.arange(len(run), dtype=float), "row"
    return np.cumsum(trains).astype(float), "row"


def _filled(steps: Floats) -> Floats:
    """A row that states no step belongs to the row before it; before all of them, to the first one."""
    known = np.flatnonzero(np.isfinite(steps))
    last = np.searchsorted(known, np.arange(len(steps)), side="right") - 1
    return steps[known[np.maximum(last, 0)]]


def _are_whole(epochs: Floats, trains: NDArray[np.bool_]) -> bool:
    """Whether rows are epochs: each states a whole one, and none twice."""
    if not np.isfinite(epochs).all() or np.any(epochs != np.round(epochs)):
        return False
    return all(len(np.unique(epochs[part])) == int(part.sum()) for part in (trains, ~trains))


def _of_bars(rows: Rows, run: NDArray[np.int64], trains: NDArray[np.bool_], epochs: Floats) -> Floats:
    """Transformers prints a step only in its progress bar: the steps of the bars, NaN where there is none.

    Other bars (tokenising, evaluation loops) are told apart by their total: training's is the one that precedes most
    training records. Several records of one epoch in a row are of one step. Where bars are rare, they only calibrate
    steps per epoch: a bar stands at the step of the record behind it or of that before it, whichever makes them agree.
    """
    steps = np.full(len(run), math.nan)
    place = np.full(len(rows), -1)
    place[run] = np.arange(len(run))
    at, counts, totals = (np.frombuffer(column, dtype=np.int64) for column in rows.bars)
    at = place[at] if len(at) else at
    total = _training_total(totals[at >= 0], trains[at[at >= 0]])
    if total is None:
        return steps
    own = (at >= 0) & (totals == total)
    steps[at[own]] = counts[own]
    for row in np.flatnonzero(np.isnan(steps[1:]) & (epochs[1:] == epochs[:-1])) + 1:
        steps[row] = steps[row - 1]
    if np.isfinite(steps[trains]).sum() >= _MOST_BARS * trains.sum():
        return steps
    before = np.concatenate([[math.nan], epochs[:-1]])
    stands = min((before, epochs), key=lambda at: _spread(steps, at))
    return np.where(epochs > 0, np.minimum(_at_rate(epochs, steps, stands), total), math.nan)


def _spread(steps: Floats, at: Floats) -> float:
    """How far known steps are from one rate, as a share of the largest counter a step; infinite where there is none."""
    known = (steps > 0) & (at > 0)
    rates = at[known] / steps[known]
    return float(1 - rates.min() / rates.max()) if known.any() else math.inf


def _at_rate(counter: Floats, steps: Floats, at: Floats) -> Floats:
    """The steps that a counter stands for, at the middle rate of the known steps; NaN where it tells none."""
    known = (steps > 0) & (at > 0)
    if not known.any():
        return np.full(len(counter), math.nan)
    with np.errstate(over="ignore", invalid="ignore"):  # an epoch of 1e-320
        found = np.round(counter * np.median(steps[known] / at[known]))
    return np.where(np.isfinite(found), found, math.nan)


def _training_total(totals: NDArray[np.int64], trains: NDArray[np.bool_]) -> int | None:
    """The total of most bars before training rows; of equally many, the largest. Each row has a bar of a total once."""
    found, times = np.unique(totals[trains], return_counts=True)
    return int(found[np.flatnonzero(times == times.max())[-1]]) if len(found) else None

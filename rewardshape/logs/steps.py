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
        steps = _of_bars([rows.bars[row] for row in run], trains, epochs)
    for counter in (examples, epochs):
        known = (steps > 0) & (counter > 0)
        if known.any():
            rate = float(np.median(steps[known] / counter[known]))
            steps = np.where(np.isnan(steps), np.round(counter * rate), steps)
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


def _of_bars(bars: list[tuple[tuple[int, int], ...]], trains: NDArray[np.bool_], epochs: Floats) -> Floats:
    """Transformers prints a step only in its progress bar: the steps of the bars, NaN where there is none.

    Other bars (tokenising, evaluation loops) are told apart by their total: training's is the one that precedes most
    training records. Where bars are rare, they only calibrate steps per epoch: what follows a bar comes after it.
    """
    steps = np.full(len(bars), math.nan)
    total = _training_total(bars, trains)
    if total is None:
        return steps
    for row, found in enumerate(bars):
        steps[row] = next((count for count, of in reversed(found) if of == total), math.nan)
    if np.isfinite(steps[trains]).sum() >= _MOST_BARS * trains.sum():
        return steps
    before = np.concatenate([[math.nan], epochs[:-1]])
    known = np.isfinite(steps) & (before > 0)
    if not known.any():
        return np.full(len(bars), math.nan)
    rate = float(np.median(steps[known] / before[known]))
    return np.where(epochs > 0, np.round(epochs * rate), math.nan)


def _training_total(bars: list[tuple[tuple[int, int], ...]], trains: NDArray[np.bool_]) -> int | None:
    counts: dict[int, int] = {}
    for row in np.flatnonzero(trains):
        for total in {total for _, total in bars[row]}:
            counts[total] = counts.get(total, 0) + 1
    return max(counts, key=lambda total: (counts[total], total)) if counts else None

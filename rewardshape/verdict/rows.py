r"""What rows of a log can bear: levels of a noisy series with their error, when a fall began, whether a curve turned.

Rows of training batches scatter, and successive rows may be correlated. A series is taken as a slow trend (straight
pieces) plus noise whose successive values correlate by :math:`\rho` (AR(1), Box and Jenkins). The mean of the last w
rows then has the variance :math:`\sigma^2/w\,[1 + 2\sum_{k<w}(1 - k/w)\rho^k]`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rewardshape.analysis.resampling import evenly
from rewardshape.verdict.evidence import Change, HeldOut, Onset, as_step
from rewardshape.verdict.thresholds import (
    CHANCE_LIKELY,
    CHANGE_POINTS,
    MUCH_WORSE_LOSS,
    NULL_RUNS,
    ONSET_SHARE,
    POWER,
    WINDOW_ROWS,
    WINDOW_SHARE,
    WORSE_LOSS,
)

# Straight pieces of the trend: one more for every so many rows, up to the number of windows in a run.
ROWS_PER_PIECE, MAX_PIECES = 6, 10
MAX_CORRELATION = 0.97
SAFE = 1.5
FEWEST_TO_TURN = 5
SLOWING = 3.0
# How often an onset outside its interval may look as likely as this one. A kink is found a little less exactly than the
# likelihood ratio of one parameter promises: at 3.5 % the interval holds it in 95 of 100 runs (docs/calibration.md).
ONSET_CHANCE = 0.035
MOST_OF_RUN = 0.8  # an onset that may lie anywhere in so much of the run is not told
MAX_FITTED = 400  # means of rows that a fall is fitted to
MAX_KNOTS = 40  # places at which a fall may begin or end, in the search for its onset


def window(num_rows: int) -> int:
    """How many rows are averaged into one level."""
    return min(max(WINDOW_ROWS, round(WINDOW_SHARE * num_rows)), max(1, num_rows // 2))


@dataclass(frozen=True)
class Noise:
    """Noise about a trend: standard deviation of a row, correlation of neighbours, degrees of freedom."""

    deviation: float
    correlation: float
    freedom: float

    def error(self, rows: int) -> float:
        """Standard error of the mean of so many successive rows."""
        return self.deviation * math.sqrt(inflation(self.correlation, rows) / rows)

    def quantile(self, chance: float) -> float:
        """How many standard errors chance passes with this probability."""
        return float(stats.t.isf(chance, self.freedom))


def inflation(correlation: float, rows: int) -> float:
    """Variance of a mean of AR(1) rows over that of independent ones."""
    lags = np.arange(1, rows)
    return float(1 + 2 * ((1 - lags / rows) * correlation**lags).sum())


def trend_columns(num_rows: int) -> np.ndarray:
    """A continuous line of straight pieces as columns of a regression, (rows, 1 + pieces)."""
    pieces = int(np.clip(num_rows // ROWS_PER_PIECE, 1, MAX_PIECES))
    place = np.linspace(0, 1, num_rows)
    return np.stack([np.ones(num_rows), *(np.maximum(place - k / pieces, 0) for k in range(pieces))], axis=1)


def noise_of(values: np.ndarray) -> Noise:
    """Noise about the trend. Correlation is corrected for what fitting the trend takes from it (Kendall 1954)."""
    columns = trend_columns(len(values))
    freedom = len(values) - columns.shape[1]
    if freedom < 1:
        return Noise(math.inf, 0.0, 1.0)
    left = values - columns @ np.linalg.lstsq(columns, values, rcond=None)[0]
    squares = float(left @ left)
    if squares <= 1e-24 * max(1.0, float(values @ values)):
        return Noise(0.0, 0.0, freedom)
    found = float(left[1:] @ left[:-1]) / squares
    # A fitted parameter costs each correlation about (1 + ρ)/n, and the estimate itself is low by 2ρ/n more.
    size = len(values)
    corrected = (found + columns.shape[1] / size) / max(1 - (columns.shape[1] + 2) / size, 0.2)
    # One standard error of the estimate on the safe side: too small a correlation makes chance look like a change.
    corrected += SAFE * math.sqrt(max(1 - corrected**2, 0.0) / size)
    correlation = float(np.clip(corrected, 0.0, MAX_CORRELATION))
    # The residuals of a fitted trend are smaller than the noise, the more so the longer the noise remembers.
    independent = max(size * (1 - correlation) / (1 + correlation), columns.shape[1] + 1.0)
    deviation = math.sqrt(squares / size * independent / (independent - columns.shape[1]))
    return Noise(deviation, correlation, max(independent - columns.shape[1], 1.0))


def change_of(
    value: float, error: float, freedom: float, *, tries: float = 1.0, step: float | None = None
) -> Change:
    """A change with its interval and the chance that it is none; `tries` places were looked at for it (Bonferroni)."""
    if error == 0:
        return exact_change(value, step=step)
    chance = float(stats.t.sf(abs(value) / error, freedom)) if math.isfinite(error) else 1.0
    half = error * float(stats.t.isf(0.025, freedom)) if math.isfinite(error) else math.inf
    return Change(value, error, value - half, value + half, min(1.0, tries * chance), step)


def exact_change(value: float, *, step: float | None = None, chance: float = 0.0) -> Change:
    """A change that is exact about the pairs it was measured on; `chance`: of a wobble that ends so far away."""
    return Change(value, 0.0, value, value, chance if value else 1.0, step)


def smallest_seen(error: float, freedom: float) -> float:
    """The fall that would have been said with the power `POWER`."""
    return error * float(stats.t.isf(CHANCE_LIKELY, freedom) + stats.norm.ppf(POWER))


def change_along(values: np.ndarray, width: int) -> Change:
    """From the first to the last level of rows of batches."""
    noise = noise_of(values)
    change = float(values[-width:].mean() - values[:width].mean())
    return change_of(change, noise.error(width) * math.sqrt(2), noise.freedom)


def chance_of_losing(values: np.ndarray, width: int, floor: float) -> float:
    """How often rows of batches that stay at `floor` would rise above it somewhere and end so far below that again."""
    noise, tries = noise_of(values), max(1.0, 4 * len(values) / width)
    levels = np.convolve(values, np.full(width, 1 / width), "valid")
    error, highest = noise.error(width), float(levels.max())
    rise = change_of(highest - floor, error, noise.freedom, tries=tries)
    back = change_of(float(levels[-1]) - highest, error * math.sqrt(2), noise.freedom, tries=tries)
    return max(rise.chance, back.chance)


# --- when a fall began -------------------------------------------------------------------------------------------


def onset_of_rows(steps: np.ndarray, values: np.ndarray, noise: Noise) -> Onset | None:
    """When a noisy series began to fall: level, then a fall, then level, fitted by least squares.

    The fall is straight or slows down (as 1 − e^−3u does). The onset is where it has fallen by `ONSET_SHARE` of its
    depth. Its interval holds the onsets of all falls that the data reject no more than the likelihood ratio of one
    parameter allows, with the variance of correlated noise. Of a long series the means of successive rows are fitted.
    """
    rows = len(values)
    each = math.ceil(rows / MAX_FITTED)  # rows in a mean
    starts = np.arange(0, rows, each)
    found = _fitted_falls(np.add.reduceat(values, starts) / np.diff(np.r_[starts, rows]))
    if found is None:
        return None
    begun, misfit = found
    long_run = noise.deviation**2 * (1 + noise.correlation) / (1 - noise.correlation)
    room = float(stats.f.isf(ONSET_CHANCE, 1, max(noise.freedom, 1))) * long_run / each
    allowed = misfit <= misfit.min() + room
    half = (each - 1) / 2  # a mean stands for rows on either side of its middle
    place = np.array([begun[misfit.argmin()], begun[allowed].min(), begun[allowed].max()]) * each + half
    place += [0, -half, half]
    onset, low, high = np.interp(place, np.arange(rows), steps)
    if (steps == steps.round()).all():  # outwards to whole steps, where steps are whole
        onset, low, high = round(onset), math.floor(low), math.ceil(high)
    whole_run = bool(high - low > MOST_OF_RUN * (steps[-1] - steps[0]))
    return Onset(as_step(onset), as_step(low), as_step(high), whole_run)


def _fitted_falls(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Falls between places of a series: where each has begun and the squares it leaves; None where nothing fell."""
    rows = len(values)
    knots = evenly(rows, MAX_KNOTS)
    coarse = [_falls(values, knots, slowing) for slowing in (False, True)]
    begun, misfit, start, end = (np.concatenate(parts) for parts in zip(*coarse, strict=True))
    if not len(misfit):
        return None
    if len(knots) < rows:  # a finer search around the best fall
        spread, best = rows // MAX_KNOTS + 1, int(misfit.argmin())
        near = np.concatenate(
            [np.linspace(k - 2 * spread, k + 2 * spread, 24) for k in (start[best], end[best])]
        )
        fine_knots = np.unique(np.clip(near, 0, rows - 1).round().astype(int))
        fine = [_falls(values, fine_knots, slowing) for slowing in (False, True)]
        begun = np.concatenate([begun, *(found[0] for found in fine)])
        misfit = np.concatenate([misfit, *(found[1] for found in fine)])
    return begun, misfit


def _falls(
    values: np.ndarray, knots: np.ndarray, slowing: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every fall between two knots: where it has begun, the squares it leaves, where it starts and ends."""
    place = np.arange(len(values), dtype=float)
    pairs = np.array([(i, j) for i in knots for j in knots if i < j], dtype=float).reshape(-1, 2)
    start, end = pairs.T
    misfit, fell = np.empty(len(pairs)), np.empty(len(pairs), bool)
    centred = values - values.mean()
    for block in np.array_split(np.arange(len(pairs)), max(1, len(pairs) * len(values) // 4_000_000)):
        ramp = np.clip((place - start[block, None]) / (end - start)[block, None], 0, 1)
        if slowing:
            ramp = -np.expm1(-SLOWING * ramp)
        ramp = ramp - ramp.mean(axis=1, keepdims=True)
        along, size = ramp @ centred, (ramp**2).sum(axis=1)
        misfit[block] = centred @ centred - along**2 / size
        fell[block] = along < 0
    share = -math.log1p(ONSET_SHARE * math.expm1(-SLOWING)) / SLOWING if slowing else ONSET_SHARE
    begun = start + share * (end - start)
    return begun[fell], misfit[fell], start[fell], end[fell]


# --- whether a held-out measure turned ---------------------------------------------------------------------------


def turned(measure: str, steps: np.ndarray, values: np.ndarray, *, above_start: bool = False) -> HeldOut:
    """Whether a measure that should fall (a held-out loss) got worse after its best row.

    For every place at which it may have turned, a line that bends there is fitted; the largest t-statistic of the rise
    after it is set against `NULL_RUNS` series without a trend whose noise is as correlated as that of this one. Of
    fewer than `FEWEST_TO_TURN` rows only a rise by `MUCH_WORSE_LOSS` that never turns back counts.
    """
    best = int(values.argmin())
    rise = float(values[-1] - values[best])
    chance = 1.0
    worse: bool | None = None
    if len(values) >= FEWEST_TO_TURN:
        chance = _chance_of_turning(values, noise_of(values).correlation)
        worse = chance <= 2 * CHANCE_LIKELY and rise > WORSE_LOSS * abs(values[best])
    elif rise > MUCH_WORSE_LOSS * abs(values[best]) and (np.diff(values[best:]) > 0).all():
        chance, worse = 2 * CHANCE_LIKELY, True
    told = None if worse is None else bool(worse)
    ends = float(values[best]), float(values[-1])
    best_step = as_step(steps[best])
    return HeldOut(
        measure, best_step, told, chance=chance, above_start=above_start, best=ends[0], last=ends[1]
    )


def _chance_of_turning(values: np.ndarray, correlation: float) -> float:
    rows = len(values)
    shocks = np.random.default_rng(0).normal(size=(NULL_RUNS, rows))
    null = np.empty_like(shocks)
    null[:, 0] = shocks[:, 0]
    for i in range(1, rows):
        null[:, i] = correlation * null[:, i - 1] + math.sqrt(1 - correlation**2) * shocks[:, i]
    found = _largest_rise(np.concatenate([values[None], null]))
    return float((1 + (found[1:] >= found[0]).sum()) / (1 + NULL_RUNS))


def _largest_rise(series: np.ndarray) -> np.ndarray:
    """The largest t-statistic, over all bends, of the slope after the bend; one per row of `series`."""
    rows = series.shape[1]
    place = np.linspace(0, 1, rows)
    bends = evenly(rows - 2, CHANGE_POINTS)
    largest = np.full(len(series), -np.inf)
    for bend in bends:
        after = np.maximum(place - place[bend], 0)
        before = np.minimum(place - place[bend], 0)
        columns = (
            np.stack([np.ones(rows), after, before], axis=1) if bend else np.stack([np.ones(rows), after], 1)
        )
        inverse = np.linalg.pinv(columns.T @ columns)
        slopes = series @ columns @ inverse
        left = series - slopes @ columns.T
        freedom = max(rows - columns.shape[1], 1)
        error = np.sqrt(np.maximum((left**2).sum(axis=1), 1e-300) / freedom * inverse[1, 1])
        largest = np.maximum(largest, slopes[:, 1] / error)
    return largest

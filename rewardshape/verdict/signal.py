"""The series that tells what the chosen responses did, its baseline, and its noise.

A log may hold several: rewards and log-probabilities, of a fixed set and of training batches. The best is chosen, put
above its baseline, smoothed if its rows are batches, and given the standard error of its end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.logs.names import SERIES
from rewardshape.verdict.recovery import Reference, has
from rewardshape.verdict.thresholds import (
    BEYOND_NOISE,
    FEW_EVALUATIONS,
    MANY_ROWS,
    MIN_ROWS,
    ONSET_SHARE,
    SMALLEST,
    WINDOW_ROWS,
    WINDOW_SHARE,
)


@dataclass(frozen=True)
class Signal:
    """The chosen log-probability above its baseline, and how well that is known."""

    values: pd.Series  # by step, smoothed where rows are noisy
    raw: pd.Series
    rejected: pd.Series | None
    unit: str
    basis: str
    baseline: str
    error: float  # of one value of `values` against the baseline
    limit: float  # what counts as beyond noise, in `unit`
    batches: bool  # rows of changing batches, not of a fixed set
    weak: bool  # log-probabilities of changing batches: too noisy to decide that nothing happened

    @property
    def end(self) -> float:
        return float(self.values.iloc[-1])


def chosen_signal(
    evaluated: pd.DataFrame, trained: pd.DataFrame, reference: Reference, per_token: bool | None, counts: str
) -> Signal | None:
    """The best series for the chosen responses: a fixed set before batches, and of a set the best baseline.

    That is the untouched checkpoint where step 0 was evaluated, else the reference, where rewards are 0, else the
    first row.
    """
    logp_unit = "nats per token" if per_token else "nats"
    for table, batches in ((evaluated, False), (trained, True)):
        enough = FEW_EVALUATIONS if _count(trained) >= MANY_ROWS else MIN_ROWS
        if not batches and _count(table) < enough and _count(trained) >= _count(table):
            continue
        where = "training batches" if batches else "the evaluation set"
        from_start = (
            not batches and has(table, "logp_chosen") and table["logp_chosen"].first_valid_index() == 0
        )
        rewards_from_zero = has(table, "reward_chosen") and reference.free is not True
        if rewards_from_zero and not (from_start and counts == "step"):
            unit, scale = (logp_unit, 1 / reference.beta) if reference.beta else ("reward", 1.0)
            basis = f"rewards/chosen of {where}" + (
                f" divided by β = {reference.beta:.4g}" if reference.beta else ""
            )
            chosen = table["reward_chosen"].dropna() * scale
            rejected = table["reward_rejected"] * scale if has(table, "reward_rejected") else None
            return _make(chosen, rejected, unit, basis, "the reference", batches, True, False)
        series, unit = ("logp", logp_unit) if has(table, "logp_chosen") else ("reward", "reward")
        if has(table, f"{series}_chosen"):
            chosen, rejected = table[f"{series}_chosen"].dropna(), table.get(f"{series}_rejected")
            first = chosen.index[0]
            start = (
                "step 0" if first == 0 and counts == "step" else f"the first logged row ({counts} {first})"
            )
            basis = f"{SERIES[f'{series}_chosen']} of {where}"
            return _make(chosen, rejected, unit, basis, start, batches, False, batches)
    return None


def _count(table: pd.DataFrame) -> int:
    """Rows that say something about the chosen responses."""
    columns = [column for column in ("reward_chosen", "logp_chosen") if column in table]
    return int(table[columns].notna().any(axis=1).sum()) if columns else 0


def _make(
    chosen: pd.Series,
    rejected: pd.Series | None,
    unit: str,
    basis: str,
    baseline: str,
    batches: bool,
    from_zero: bool,
    weak: bool,
) -> Signal:
    """Smooth rows of batches over a window, set the baseline to 0, and find the error of a value against it."""
    width = max(WINDOW_ROWS, round(WINDOW_SHARE * len(chosen))) if batches else 1
    width = min(width, max(1, len(chosen) // 2))
    noise = row_noise(chosen.to_numpy(float), batches=batches)
    zero, zero_error = 0.0, 0.0
    if not from_zero:
        zero = float(chosen.iloc[:width].mean())
        zero_error = mean_error(chosen.iloc[:width].to_numpy(float), noise) if batches else 0.0
    above = chosen - zero
    smooth = above.rolling(width, center=True, min_periods=1).mean() if width > 1 else above.copy()
    if width > 1:  # the end is the mean of the last window, not of half of one
        smooth.iloc[-1] = above.iloc[-width:].mean()
    last = mean_error(above.iloc[-width:].to_numpy(float), noise) if batches else noise
    error = math.hypot(last, zero_error)
    limit = critical(len(chosen)) * error
    if from_zero and not batches and len(chosen) <= FEW_EVALUATIONS:
        # The untouched checkpoint is a row of a fixed set too, and known: its reward is 0
        with_start = row_noise(np.r_[0.0, chosen.to_numpy(float)])
        if critical(len(chosen) + 1) * with_start < limit:
            error, limit = with_start, critical(len(chosen) + 1) * with_start
    limit = max(limit, SMALLEST[unit])
    if rejected is not None:
        rejected = rejected.dropna()
        rejected = rejected - (0.0 if from_zero or rejected.empty else float(rejected.iloc[:width].mean()))
    return Signal(smooth, above, rejected, unit, basis, baseline, error, limit, batches, weak)


def row_noise(values: np.ndarray, *, batches: bool = False) -> float:
    """Standard deviation about a slow trend, from successive differences (von Neumann's estimator).

    First differences contain a steep trend whole, second differences its bend only: the smaller of the two counts
    for a fixed set or a few rows. Of many rows of batches, noise is most of the differences.
    """
    if len(values) < 2:
        return math.inf
    many = batches and len(values) > MANY_ROWS
    orders = [(1, 2.0)] if many or len(values) < 3 else [(1, 2.0), (2, 6.0)]
    return min(float(np.sqrt(np.mean(np.diff(values, order) ** 2) / scale)) for order, scale in orders)


def mean_error(values: np.ndarray, noise: float) -> float:
    """Standard error of the mean of a window of rows, which may be correlated in time.

    The noise of one row is the larger of the trend-free one and the window's own; the number of independent rows is
    n(1 − ρ)/(1 + ρ) with the lag-1 autocorrelation ρ ≥ 0 of the window about its own trend.
    """
    if len(values) < WINDOW_ROWS:
        return noise
    place = np.arange(len(values))
    left = values - np.polyval(np.polyfit(place, values, 1), place)
    rho = float(np.clip(left[1:] @ left[:-1] / (left @ left), 0, 0.9)) if left @ left > 0 else 0.0
    spread = max(noise, float(np.sqrt(left @ left / max(len(values) - 2, 1))))
    return spread / math.sqrt(max(1.0, len(values) * (1 - rho) / (1 + rho)))


def critical(count: int) -> float:
    return max(BEYOND_NOISE, float(stats.t.ppf(0.95, max(count - 1, 1))))


def onset(signal: Signal, *, until_deepest: bool = False) -> int | float | None:
    """Where the fall began: in the last stretch below the baseline, where it first stands out.

    The stretch is found on the smoothed values; within it rows of batches are smoothed lightly, since a wide window
    would see the fall before it comes. With `until_deepest` what came after the deepest point is left out.
    """
    values = signal.values.loc[: signal.values.idxmin()] if until_deepest else signal.values
    end = float(values.iloc[-1])
    if end >= 0:
        return None
    not_below = np.flatnonzero(values.to_numpy() >= 0)
    start = int(not_below[-1]) + 1 if len(not_below) else 0
    light, noise = values, row_noise(values.to_numpy(float))
    if signal.batches:
        light = signal.raw.rolling(WINDOW_ROWS, center=True, min_periods=1).mean()
        noise = row_noise(signal.raw.to_numpy(float), batches=True) / math.sqrt(WINDOW_ROWS)
    stretch = light.loc[values.index[start] : values.index[-1]]
    stands_out = stretch.to_numpy() <= -min(max(-ONSET_SHARE * end, noise), -end)
    return stretch.index[int(np.argmax(stands_out))]

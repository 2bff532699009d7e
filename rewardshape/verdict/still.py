"""Whether anything is trained at all: gradients of exactly 0, a constant loss, or a loss that stays at ln 2."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from rewardshape.numbers import significant
from rewardshape.verdict.recovery import has
from rewardshape.verdict.rows import noise_of, window
from rewardshape.verdict.thresholds import (
    AT_LN2,
    CHANCE_CLEAR,
    STILL_LOSS,
    STILL_REWARD,
    STILL_ROWS,
    STILL_SHARE,
    WINDOW_ROWS,
)

REWARDS = ("reward_chosen", "reward_rejected", "margin")


def stands_still(rows: pd.DataFrame, trained: pd.DataFrame, beta: float | None = None) -> str | None:
    """Why nothing is trained, or None."""
    every = [table["loss"].dropna() for table in (rows, trained) if has(table, "loss")]
    flat = all(np.ptp(losses) < STILL_LOSS for losses in every)
    if beta == 0 and flat:
        return "β is 0, so rewards are 0 and the loss is the same whatever the log-probabilities do"
    moved = any(
        _moved(table, column) for table in (rows, trained) for column in ("margin", "reward_chosen", "loss")
    )
    norms = trained["grad_norm"].dropna() if "grad_norm" in trained else pd.Series(dtype=float)
    if len(norms) >= WINDOW_ROWS and (norms == 0).mean() >= STILL_SHARE and not moved:
        rows_of = f"{int((norms == 0).sum())} of {len(norms)} rows"
        return f"the gradient norm is exactly 0 in {rows_of}, and nothing has a trend"
    others = [table[c].dropna() for table in (rows, trained) for c in REWARDS if c in table]
    steady = flat and all(np.ptp(series) < STILL_REWARD for series in others if len(series))
    steady = steady and not any(_moved(table, "logp_chosen") for table in (rows, trained))
    for table in (trained, rows):
        losses = table["loss"].dropna() if "loss" in table else pd.Series(dtype=float)
        if len(losses) >= WINDOW_ROWS and steady:
            return f"the loss is {significant(losses.iloc[-1], 4)} in every row and nothing else moves"
        near = np.abs(losses - math.log(2)).mean() < AT_LN2
        if len(losses) >= STILL_ROWS and near and not moved and has(table, "margin"):
            return f"after {len(losses)} rows the loss is still ln 2 = 0.693 and the margin has no trend"
    return None


def _moved(table: pd.DataFrame, column: str) -> bool:
    """Whether a series ends elsewhere than it began, beyond noise, or has a trend.

    The order of the rows (Kendall's τ) sees the trend of few rows, whose correlation `noise_of` takes for high.
    """
    values = table[column].dropna().to_numpy(float) if column in table else np.array([])
    if len(values) < 2:
        return False
    width, noise = window(len(values)), noise_of(values)
    change = abs(values[-width:].mean() - values[:width].mean())
    beyond = noise.quantile(CHANCE_CLEAR) * math.sqrt(2) * noise.error(width) if noise.freedom else math.inf
    if change > (beyond if math.isfinite(beyond) else 0.0) + STILL_LOSS / 5:
        return True
    return bool(change > STILL_LOSS / 5 and kendalltau(range(len(values)), values).pvalue <= CHANCE_CLEAR)

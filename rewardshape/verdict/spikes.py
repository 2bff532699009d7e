"""Single pairs and single batches that a whole run is about: which they are, and whether it is carried by them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rewardshape.verdict.evidence import Carried, as_step
from rewardshape.verdict.thresholds import CARRIED_LEAST_LOSS, CARRIED_LOSS, CARRIED_SHARE, FEWEST_CARRIED

NEAR = 7  # rows around one, of whose loss the median is what it would be without its own batch


def carried_by(losses: pd.Series, counts: str) -> Carried | None:
    """The rows of batches that own most of the summed loss, where the mean loss is far above the median.

    A loss that falls from a high start is carried by none: each of its rows is like its neighbours.

    Parameters
    ----------
    losses : Series
        By step.
    counts : str
        What a step is.

    Examples
    --------
    >>> steps = range(10, 210, 10)
    >>> str(carried_by(pd.Series([0.6] * 18 + [4e4, 0.6], index=steps), "step"))
    'carried by single batches (step 190: 100% of the summed loss, whose mean is 3.33e+03 times the median)'
    """
    losses = losses.dropna()
    if len(losses) < FEWEST_CARRIED or not losses.gt(0).any():
        return None
    middle, mean = float(losses.median()), float(losses.mean())
    if mean < CARRIED_LEAST_LOSS or mean < CARRIED_LOSS * middle:
        return None
    usual = losses.rolling(NEAR, center=True, min_periods=1).median()
    apart = losses[(losses > CARRIED_LOSS * usual) & (losses > CARRIED_LEAST_LOSS)]
    share = float(apart.sum() / losses.sum())
    if share < CARRIED_SHARE:
        return None
    ratio = mean / middle if middle > 0 else np.inf
    return Carried("", share, ratio, tuple(map(as_step, apart.index)), counts)


def carried_by_pair(pair_ids: Sequence[str], weights: np.ndarray, losses: np.ndarray) -> Carried | None:
    """The probe pair that owns most of the gradient weight, if the run is about single pairs.

    Parameters
    ----------
    weights, losses : array, shape (pairs,)
        Of every pair at the end of the run.
    """
    total = float(np.abs(weights).sum())
    if not np.isfinite(total) or total == 0 or len(weights) < FEWEST_CARRIED:
        return None
    largest = int(np.abs(weights).argmax())
    share, middle = float(np.abs(weights[largest]) / total), float(np.median(losses))
    ratio = float(losses.mean() / middle) if middle > 0 else 0.0
    if share < CARRIED_SHARE and (ratio < CARRIED_LOSS or losses.mean() < CARRIED_LEAST_LOSS):
        return None
    return Carried(str(pair_ids[largest]), share, ratio)

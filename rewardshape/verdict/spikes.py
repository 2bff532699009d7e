"""Single pairs and single batches that a whole run is about: which they are, and whether it is carried by them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rewardshape.verdict.evidence import Carried, as_step
from rewardshape.verdict.thresholds import (
    CARRIED_LEAST_LOSS,
    CARRIED_LOSS,
    CARRIED_SHARE,
    FEWEST_BATCHES,
    FEWEST_CARRIED,
)

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
    if len(losses) < FEWEST_BATCHES or not losses.gt(0).any():
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
    """The probe pair that owns most of the gradient weight, or of the loss, if the run is about it alone.

    Parameters
    ----------
    weights, losses : array, shape (pairs,)
        Of every pair at the end of the run.

    Examples
    --------
    >>> losses = np.r_[np.full(31, 0.5), 400.0]
    >>> carried_by_pair([f"p{i}" for i in range(32)], np.full(32, 0.5), losses).what
    'pair p31'
    """
    total, mean = float(np.abs(weights).sum()), float(losses.mean())
    if not np.isfinite([total, mean]).all() or total == 0 or len(weights) < FEWEST_CARRIED:
        return None
    if mean < CARRIED_LEAST_LOSS:  # what little is left to learn is always owned by few
        return None
    middle = float(np.median(losses))
    ratio = mean / middle if middle > 0 else 0.0
    heaviest, dearest = int(np.abs(weights).argmax()), int(losses.argmax())
    if np.abs(weights[heaviest]) >= CARRIED_SHARE * total:
        found = heaviest
    elif _loss_is_of(losses, ratio):
        found = dearest
    else:
        return None
    of_loss = float(losses[found] / losses.sum())
    return Carried(str(pair_ids[found]), float(np.abs(weights[found]) / total), ratio, of_loss=of_loss)


def _loss_is_of(losses: np.ndarray, ratio: float) -> bool:
    """Whether the summed loss is mostly that of one pair, far above all others."""
    second, first = np.sort(losses)[-2:]
    alone = first >= CARRIED_SHARE * losses.sum() and first >= CARRIED_LOSS * second
    return bool(alone and ratio >= CARRIED_LOSS and len(losses) >= 2 * FEWEST_CARRIED)

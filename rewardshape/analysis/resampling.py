"""Bootstrap over pairs, for many statistics at once.

One draw of pairs serves every step, every response and every run of the same probe set, so that differences
between them are paired, and a whole curve costs one matrix product.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

RESAMPLES = 2000
CONFIDENCE = 0.95


def draw_pairs(num_pairs: int, *, seed: int = 0) -> np.ndarray:
    """Indices of the pairs in every bootstrap resample, shape (resamples, pairs).

    The draws are those of ``scipy.stats.bootstrap`` with ``rng=numpy.random.default_rng(seed)``.
    """
    return np.random.default_rng(seed).integers(0, num_pairs, (RESAMPLES, num_pairs))


def resampled_means(values: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Means over pairs in every resample.

    Parameters
    ----------
    values : array, shape (steps, pairs)
    seed : int
        Equal seeds and numbers of pairs draw equal resamples.

    Returns
    -------
    array, shape (resamples, steps)
    """
    num_pairs = values.shape[-1]
    rows = np.arange(RESAMPLES)[:, None] * num_pairs
    counts = np.bincount((draw_pairs(num_pairs, seed=seed) + rows).ravel(), minlength=RESAMPLES * num_pairs)
    return (counts.reshape(RESAMPLES, num_pairs) / num_pairs) @ values.T


def percentile_interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The central 95 % of resampled statistics, over axis 0."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


def mean_interval(values: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """95 % bootstrap interval of the mean over pairs, one per row; NaN where there is only one pair.

    Parameters
    ----------
    values : array, shape (steps, pairs)

    Returns
    -------
    low, high : arrays, shape (steps,)

    Examples
    --------
    >>> low, high = mean_interval(np.array([[1.0, 2.0, 3.0, 4.0]]))
    >>> bool(low[0] < 2.5 < high[0])
    True
    """
    if values.shape[-1] < 2:
        unknown = np.full(values.shape[0], np.nan)
        return unknown, unknown
    return percentile_interval(resampled_means(values, seed=seed))


def share_interval(counts: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % Wilson interval of shares: honest also at 0 and 1, where a bootstrap has no width.

    Examples
    --------
    >>> low, high = share_interval(np.array([64]), 64)
    >>> round(float(low[0]), 3), float(high[0])
    (0.943, 1.0)
    """
    square = stats.norm.ppf((1 + CONFIDENCE) / 2) ** 2
    share = np.asarray(counts) / total
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = np.sqrt(square * (share * (1 - share) + square / (4 * total)) / total) / (1 + square / total)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)

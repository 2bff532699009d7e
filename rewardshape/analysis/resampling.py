"""Intervals over prompts, for many statistics at once.

Pairs of one prompt are no independent observations, so prompts are drawn, each with all its pairs; where every pair has
a prompt of its own that is a draw of pairs. One draw serves every step, every response and every run of the same probe
set, so that differences between them are paired, and a whole curve costs a few matrix products.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import stats

RESAMPLES = 2000
CONFIDENCE = 0.95
# From so many prompts on an interval for others holds the truth in 93 of 100 cases also where values are strongly
# skewed (log-normal; docs/calibration.md). From fewer none is given; from fewer than the second nothing is tested.
MIN_PROMPTS, MIN_TESTED = 32, 8
# Beyond so many rows the shape of the resampled distribution is found at so many places and interpolated between them.
MAX_ROWS = 400
# Of the error over all pairs: no resample counts as more precise than that.
LEAST_ERROR = 0.1


def evenly(count: int, most: int) -> np.ndarray:
    """Places among `count` rows, at most so many and evenly spaced, the first and the last among them.

    Examples
    --------
    >>> evenly(9, 3).tolist(), evenly(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def draw_pairs(num_pairs: int, *, seed: int = 0) -> np.ndarray:
    """Indices of the pairs (or prompts) in every bootstrap resample, shape (resamples, pairs).

    The draws are those of ``scipy.stats.bootstrap`` with ``rng=numpy.random.default_rng(seed)``.
    """
    return np.random.default_rng(seed).integers(0, num_pairs, (RESAMPLES, num_pairs))


@lru_cache(maxsize=4)  # one probe set is resampled for every series of a page
def drawn_counts(num_prompts: int, *, seed: int = 0) -> np.ndarray:
    """How often each prompt is in every resample, shape (resamples, prompts); read-only."""
    rows = np.arange(RESAMPLES)[:, None] * num_prompts
    flat = (draw_pairs(num_prompts, seed=seed) + rows).ravel()
    counts = (
        np.bincount(flat, minlength=RESAMPLES * num_prompts).reshape(RESAMPLES, num_prompts).astype(float)
    )
    counts.flags.writeable = False
    return counts


def _by_prompt(values: np.ndarray, prompts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the pairs of each prompt, (rows, prompts), and the number of pairs of each, (prompts,)."""
    if prompts is None:
        return values, np.ones(values.shape[-1])
    _, codes, sizes = np.unique(prompts, return_inverse=True, return_counts=True)
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return np.add.reduceat(values[..., order], starts, axis=-1), sizes.astype(float)


def num_prompts(values: np.ndarray, prompts: np.ndarray | None) -> int:
    """How many prompts there are."""
    return values.shape[-1] if prompts is None else len(np.unique(prompts))


def resampled_means(values: np.ndarray, prompts: np.ndarray | None = None, *, seed: int = 0) -> np.ndarray:
    """Means over pairs in every resample of the prompts.

    Parameters
    ----------
    values : array, shape (rows, pairs)
    prompts : array, shape (pairs,), optional
        Equal where pairs share a prompt; left out, every pair has its own.
    seed : int
        Equal seeds and numbers of prompts draw equal resamples.

    Returns
    -------
    array, shape (resamples, rows)
    """
    sums, sizes = _by_prompt(values, prompts)
    counts = drawn_counts(len(sizes), seed=seed)
    return np.asarray((counts @ sums.T) / (counts @ sizes)[:, None])


def mean_error(values: np.ndarray, prompts: np.ndarray | None = None) -> np.ndarray:
    """Standard error of the mean over pairs, one per row, with pairs of one prompt taken as dependent.

    The variance of the ratio (sum over prompts of their sums) / (sum of their sizes), linearised, with the factor
    n/(n − 1) for n prompts; with one pair a prompt that is ``scipy.stats.sem``.
    """
    sums, sizes = _by_prompt(values, prompts)
    count, total = len(sizes), sizes.sum()
    if count < 2:
        return np.full(values.shape[0], np.nan)
    left = sums - values.mean(axis=1, keepdims=True) * sizes
    return np.asarray(np.sqrt(count / (count - 1) * (left**2).sum(axis=1)) / total)


def studentised(values: np.ndarray, prompts: np.ndarray | None = None, *, seed: int = 0) -> np.ndarray:
    """(mean − true mean) / standard error in every resample: the distribution that a t-statistic has under these data.

    Returns
    -------
    array, shape (resamples, rows)
    """
    sums, sizes = _by_prompt(values, prompts)
    left = sums - values.mean(axis=1, keepdims=True) * sizes  # sums to 0 over prompts
    counts = drawn_counts(len(sizes), seed=seed)
    total = (counts @ sizes)[:, None]
    shift = (counts @ left.T) / total
    squares = (
        counts @ (left**2).T
        - 2 * shift * (counts @ (left * sizes).T)
        + shift**2 * (counts @ sizes**2)[:, None]
    )
    count = len(sizes)
    error = np.sqrt(count / (count - 1) * np.maximum(squares, 0)) / total
    # A draw of nearly equal pairs has hardly an error of its own, and would be infinitely many of them away.
    error = np.maximum(error, LEAST_ERROR * mean_error(values, prompts))
    return np.asarray(np.divide(shift, error, out=np.zeros_like(shift), where=error > 0))


def percentile_interval(resampled: np.ndarray, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """The central part of resampled statistics over axis 0, for 95 % over so many prompts.

    Of n prompts the central 95 % are too narrow, by √((n − 1)/n) and by the normal quantile in place of Student's: the
    expanded percentile interval (Hesterberg 2015, doi:10.1080/00031305.2015.1089789) takes the share beyond each end
    that mends both for a mean. Of ranks the plain `central` part holds (docs/calibration.md).
    """
    student = stats.t.ppf((1 + CONFIDENCE) / 2, prompts - 1)
    tail = stats.norm.cdf(-np.sqrt(prompts / (prompts - 1)) * student)
    return central(resampled, tail)


def central(resampled: np.ndarray, tail: float = (1 - CONFIDENCE) / 2) -> tuple[np.ndarray, np.ndarray]:
    """What lies between a share `tail` beyond each end, over axis 0."""
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


ENDS = ("", "_low", "_high")  # of the names of a mean and of the ends of its interval


def with_interval(
    name: str, mean: np.ndarray | float, low: np.ndarray | float, high: np.ndarray | float
) -> dict[str, np.ndarray | float]:
    """A mean and its interval as columns of a table: ``name``, ``name_low``, ``name_high``."""
    return dict(zip((name + end for end in ENDS), (mean, low, high), strict=True))


def mean_interval(
    values: np.ndarray, prompts: np.ndarray | None = None, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of the mean over pairs for other prompts like these, one per row.

    Parameters
    ----------
    values : array, shape (rows, pairs)
    prompts : array, shape (pairs,), optional
        Equal where pairs share a prompt.

    Returns
    -------
    low, high : arrays, shape (rows,)
        NaN where there are fewer than `MIN_PROMPTS` prompts.

    Examples
    --------
    >>> low, high = mean_interval(np.arange(40.0)[None])
    >>> bool(low[0] < 19.5 < high[0])
    True
    """
    if num_prompts(values, prompts) < MIN_PROMPTS:
        return np.full(values.shape[0], np.nan), np.full(values.shape[0], np.nan)
    return mean_bounds(values, prompts, seed=seed)


def mean_bounds(
    values: np.ndarray, prompts: np.ndarray | None = None, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of `mean_interval`, whatever the number of prompts: of few skewed values they lie too close.

    The widest of three at each end: Student's t, which holds for heavy tails; the studentised bootstrap over prompts
    (Efron and Tibshirani 1993, chapter 12.5) and t with its skewness transformed away (Hall 1992), for skewed ones.
    """
    count = num_prompts(values, prompts)
    rows = np.arange(len(values))
    shown = evenly(len(values), MAX_ROWS)
    low, high = central(studentised(values[shown], prompts, seed=seed))
    student = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    hall_low, hall_high = (_skewed(values, prompts, quantile) for quantile in (-student, student))
    low = np.minimum(np.minimum(np.interp(rows, shown, low), -student), hall_low)
    high = np.maximum(np.maximum(np.interp(rows, shown, high), student), hall_high)
    mean, error = values.mean(axis=1), mean_error(values, prompts)
    return mean - high * error, mean - low * error


def _skewed(values: np.ndarray, prompts: np.ndarray | None, quantile: float) -> np.ndarray:
    r"""A quantile of the t-statistic of a skewed mean, one per row.

    With the skewness g over n prompts and a = g/√n, :math:`T + a T^2/3 + a^2 T^3/27 + a/6` is no longer skewed (Hall
    1992, "On the removal of skewness by transformation"); solved for T.
    """
    sums, sizes = _by_prompt(values, prompts)
    left = sums - values.mean(axis=1, keepdims=True) * sizes
    spread = np.sqrt((left**2).mean(axis=1))
    moment = (left**3).mean(axis=1)
    a = np.divide(moment, spread**3, out=np.zeros(len(values)), where=spread > 0) / np.sqrt(len(sizes))
    plain = np.abs(a) < 1e-6
    safe = np.where(plain, 1.0, a)
    return np.where(plain, quantile, 3 / safe * (np.cbrt(1 + safe * (quantile - safe / 6)) - 1))


def where_known(hits: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Hits among values as 0 and 1, NaN where a value is: a share of pairs that are not all known is not known either.

    Examples
    --------
    >>> values = np.array([-1.0, 2.0, np.nan])
    >>> where_known(values < 0, values)
    array([ 1.,  0., nan])
    """
    return np.where(np.isnan(values), np.nan, hits)


def share_interval(hits: np.ndarray, prompts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """95 % Wilson interval of a share of the pairs: honest also at 0 and 1, where a bootstrap has no width.

    Where pairs share prompts the sample size is the effective one: as many independent pairs as give the share the
    standard error that it has over prompts (Korn and Graubard 1998). That error is known the less, the fewer prompts of
    equal size weigh as much as these do (Kish), which Student's t makes up for; where it is 0, they are the sample.

    Parameters
    ----------
    hits : array of bool, shape (rows, pairs)
        Or as `where_known` gives them.
    prompts : array, shape (pairs,), optional
        Equal where pairs share a prompt.

    Examples
    --------
    >>> low, high = share_interval(np.ones((1, 64), bool))
    >>> round(float(low[0]), 3), float(high[0])
    (0.943, 1.0)
    """
    share = hits.mean(axis=1)
    total = np.full(len(hits), float(hits.shape[1]))
    units = num_prompts(hits, prompts)
    if units < hits.shape[1]:
        sums, sizes = _by_prompt(hits.astype(float), prompts)
        even = sizes.sum() ** 2 / (sizes**2).sum()
        # The jackknife over prompts, which of unequal ones does not come out too small; of equal ones Wilson's.
        left = (sums - share[:, None] * sizes) / np.maximum(1 - sizes / sizes.sum(), 1e-9)
        variance = ((1 - 1 / units) / sizes.sum()) ** 2 * (left**2).sum(axis=1)
        alone = np.divide(share * (1 - share), variance, out=np.full(len(hits), even), where=variance > 0)
        known, if_even = (stats.t.ppf((1 + CONFIDENCE) / 2, max(n - 1, 1)) for n in (even, units))
        total = np.minimum(alone, total) * (if_even / known) ** 2
    square = stats.norm.ppf((1 + CONFIDENCE) / 2) ** 2
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = np.sqrt(square * (share * (1 - share) + square / (4 * total)) / total) / (1 + square / total)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


# --- ranks -------------------------------------------------------------------------------------------------------


def drawn_pairs(num_pairs: int, prompts: np.ndarray | None = None, *, seed: int = 0) -> np.ndarray:
    """How often each pair is in every resample of the prompts, shape (1 + resamples, pairs); row 0 holds each once."""
    if prompts is None:
        counts = drawn_counts(num_pairs, seed=seed)
    else:
        codes = np.unique(prompts, return_inverse=True)[1]
        counts = drawn_counts(codes.max() + 1, seed=seed)[:, codes]
    return np.vstack([np.ones(num_pairs), counts])


def ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rank of every pair among all that were drawn, mean ranks where values tie: (rows, pairs).

    Parameters
    ----------
    values : array, shape (pairs,)
    counts : array, shape (rows, pairs)
        How often each pair was drawn.

    Examples
    --------
    >>> ranks(np.array([3.0, 1.0, 3.0]), np.ones((1, 3)))
    array([[2.5, 1. , 2.5]])
    """
    levels, codes = np.unique(values, return_inverse=True)
    member = np.zeros((len(codes), len(levels)))
    member[np.arange(len(codes)), codes] = 1
    at_level = counts @ member
    return np.asarray((at_level.cumsum(axis=1) - at_level / 2 + 0.5)[:, codes])


def rank_correlations(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's correlation of the pairs in every row of `counts`, NaN where a row has no order: (rows,)."""
    total = counts.sum(axis=1, keepdims=True)
    x, y = (ranks(values, counts) for values in (first, second))
    x, y = (r - (counts * r).sum(axis=1, keepdims=True) / total for r in (x, y))
    spread = np.sqrt((counts * x**2).sum(axis=1) * (counts * y**2).sum(axis=1))
    together = (counts * x * y).sum(axis=1)
    nothing = np.full(len(counts), np.nan)
    return np.asarray(np.divide(together, spread, out=nothing, where=spread > 1e-9 * total[:, 0]))

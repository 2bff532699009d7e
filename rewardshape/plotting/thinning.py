"""Which rows of a long series a picture needs, so that thinning hides no extreme."""

from __future__ import annotations

import numpy as np


def extremes(values: np.ndarray, stretches: int) -> np.ndarray:
    """Places of the rows to keep: the ends, and of each of so many stretches where a column is lowest and highest.

    Parameters
    ----------
    values : array, shape (rows, columns)
        NaN where a column has no value.
    stretches : int

    Returns
    -------
    array of int
        Increasing; every row where there are no more than would be kept.

    Examples
    --------
    >>> extremes(np.array([[0.0], [5.0], [1.0], [-3.0], [0.0], [0.0]]), 1).tolist()
    [0, 1, 3, 5]
    """
    count, columns = values.shape
    if count <= 2 + 2 * columns * stretches:
        return np.arange(count)
    begins = np.linspace(0, count, stretches + 1).astype(int)[:-1]
    ends = np.r_[begins[1:], count] - 1
    stretch = np.repeat(np.arange(stretches), ends - begins + 1)
    kept = [[0, count - 1]]
    for column in values.T:
        missing = np.isnan(column)
        kept.append(np.lexsort((np.where(missing, np.inf, column), stretch))[begins])
        kept.append(np.lexsort((np.where(missing, -np.inf, column), stretch))[ends])
    return np.unique(np.concatenate(kept))

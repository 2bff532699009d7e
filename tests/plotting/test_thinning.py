"""Thinning hides no extreme."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rewardshape.plotting.thinning import extremes


@given(st.integers(1, 3000), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_thinning_keeps_ends_and_extremes(size, bins, seed):
    values = np.random.default_rng(seed).normal(size=(size, 2)).cumsum(axis=0)
    kept = extremes(values, bins)
    assert kept[0] == 0
    assert kept[-1] == size - 1
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= max(5 * bins + 1, 1)
    np.testing.assert_array_equal(values[kept].min(axis=0), values.min(axis=0))
    np.testing.assert_array_equal(values[kept].max(axis=0), values.max(axis=0))


def test_missing_values_hide_no_extreme(rng):
    values = rng.normal(size=(1000, 2))
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:100, 1] = np.nan
    kept = extremes(values, 20)
    np.testing.assert_array_equal(np.nanmin(values[kept], axis=0), np.nanmin(values, axis=0))
    np.testing.assert_array_equal(np.nanmax(values[kept], axis=0), np.nanmax(values, axis=0))

"""Steps and metrics of a loop: what is a number is taken, what is none is one line."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rewardshape.errors import InputError
from rewardshape.integrations.told import as_numbers, whole_step


@pytest.mark.parametrize("step", [3, 3.0, np.int64(3), np.float64(3), torch.tensor(3)])
def test_a_whole_number_is_a_step_in_any_dress(step):
    found = whole_step(step)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("step", [0.5, math.nan, math.inf, "3", None])
def test_what_is_no_whole_number_is_no_step(step):
    with pytest.raises(InputError, match="whole number of updates"):
        whole_step(step)


def test_metrics_are_floats():
    given = {"a": True, "b": np.float32(2), "c": torch.tensor([0.5]), "d": 1, "e": math.nan}
    found = as_numbers(given)
    assert {type(value) for value in found.values()} == {float}
    assert list(found.values())[:4] == [1.0, 2.0, 0.5, 1.0]
    assert math.isnan(found["e"])


@pytest.mark.parametrize("value", ["0.5", [1.0], torch.ones(2), 10**400, None])
def test_a_metric_that_is_no_number_is_named(value):
    with pytest.raises(InputError, match="metrics: lrs is"):
        as_numbers({"lrs": value})

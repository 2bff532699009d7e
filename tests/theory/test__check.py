"""Parameters are finite numbers within bounds, and an unknown name gets the nearest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewardshape.errors import InputError
from rewardshape.theory._check import nearest, number


def test_a_number_of_any_library_is_a_float_and_an_array_is_kept_from_writing():
    for one in (2, 2.0, np.float32(2), torch.tensor(2.0)):
        assert type(number("beta", one)) is float
    given = np.array([1, 2])
    kept = number("beta", given)
    given[0] = 7
    assert kept.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 3.0


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (True, {}, "beta must be a number, got True"),
        ([1.0, np.inf], {}, "beta must be finite"),
        (0.0, {"above": 0.0}, "beta must be greater than 0, got 0.0"),
        ([0.5, -0.1], {"least": 0.0}, "beta must be at least 0"),
        (0.5, {"below": 0.5}, "beta must be less than 0.5"),
        (torch.tensor(1.0, requires_grad=True), {}, "beta requires a gradient"),
        ({}, {}, "beta must be a number or an array of numbers"),
    ],
)
def test_what_is_no_number_within_its_bounds_is_refused(value, bounds, message):
    with pytest.raises(InputError, match=message):
        number("beta", value, **bounds)


def test_the_nearest_names_are_told_and_all_where_none_is_near():
    assert (
        nearest("word", "ALPAH", ["alpha", "zeta"])
        == "unknown word 'ALPAH'; the nearest valid names are: alpha"
    )
    assert nearest("word", "qqq", ["zeta", "alpha"]).endswith(": alpha, zeta")

"""What an objective is declared by: every value checked, every default taken, γ by whichever of its two names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rewardshape.errors import InputError
from rewardshape.theory import objective
from rewardshape.theory.objectives.declaration import Declaration, choice, plain, real, switch

DECLARED = Declaration(
    name="declared",
    source="none",
    build=lambda **parameters: objective("simpo"),
    parameters={
        "beta": real(2.0, "β", "ours", above=0.0),
        "gamma": real(0.5, "γ/β", "ours", least=0.0),
        "kind": choice("plain", "", "ours", "plain", "curved"),
        "bend": replace(real(0.25, "", "ours"), only_with=("kind", "curved")),
        "clip": switch(False, "", "ours"),
    },
)


def test_what_is_left_out_has_its_default_and_gamma_is_a_ratio_times_beta():
    assert DECLARED.settle({}) == {"beta": 2.0, "gamma": 0.5 * 2.0, "kind": "plain", "clip": False}
    assert DECLARED.settle({"beta": 4.0})["gamma"] == 0.5 * 4.0
    assert DECLARED.settle({"beta": 4.0, "gamma_beta_ratio": 0.1})["gamma"] == pytest.approx(0.1 * 4.0)
    assert DECLARED.settle({"beta": 4.0, "gamma": 0.3})["gamma"] == 0.3


def test_a_parameter_that_belongs_to_another_is_there_only_with_it():
    assert DECLARED.settle({"kind": "curved"})["bend"] == 0.25
    with pytest.raises(InputError, match='declared: bend belongs to kind="curved", not to "plain"'):
        DECLARED.settle({"bend": 1.0})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bets": 1.0}, "declared: unknown parameter 'bets'; the nearest valid names are: beta"),
        ({"beta": 0.0}, "beta must be greater than 0"),
        ({"kind": "curve"}, "unknown kind 'curve'; the nearest valid names are: curved"),
        ({"clip": 1}, "clip must be True or False, got 1"),
        ({"gamma": 1.0, "gamma_beta_ratio": 0.5}, "not both"),
    ],
)
def test_a_value_that_cannot_be_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        DECLARED.settle(given)


def test_parameters_become_plain_values():
    assert plain({"alpha": np.array([0.0, 0.5]), "beta": 2.0}) == {"alpha": [0.0, 0.5], "beta": 2.0}

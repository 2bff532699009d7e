"""Objectives by name: what is refused, what is warned of, and that parameters make the objective again."""

from __future__ import annotations

import json
import math
import warnings
from functools import partial

import pytest

from rewardshape.errors import InputError
from rewardshape.theory import compose, objective


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("simp", {}, "nearest valid names are: simpo"),
        ("alphapo", {"alfa": 1.0}, "nearest valid names are: alpha"),
        ("alphapo", {"gamma": 1.0, "gamma_beta_ratio": 0.5}, "not both"),
        ("alphapo", {"beta": 0.0}, "beta must be greater than 0"),
        ("alphapo", {"alpha": math.nan}, "alpha must be finite"),
        ("alphapo", {"alpha": "big"}, "alpha must be a number"),
        ("dpo", {"beta": -1}, "beta must be greater than 0"),
    ],
)
def test_impossible_input_is_refused(name, parameters, message):
    with pytest.raises(InputError, match=message):
        objective(name, **parameters)


def test_margin_out_of_reach_of_a_bounded_reward_warns():
    with pytest.warns(UserWarning, match="never exceeds 1.25") as caught:
        objective("alphapo", alpha=-2.0, beta=2.5, gamma=1.24)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective("alphapo", alpha=-2.0, beta=2.5, gamma=0.25)


def test_parameters_rebuild_the_objective():
    for made in (objective("alphapo", alpha=0.5, gamma_beta_ratio=0.3), objective("dpo"), objective("simpo")):
        again = objective(made.name, **json.loads(json.dumps(made.parameters)))
        assert again == made


@pytest.mark.parametrize("likelihood", [0.0, 0.1])
def test_a_composition_warns_however_it_is_made(likelihood):
    parts = {"score": "logp_mean", "shape": {"name": "alpha", "alpha": -2.0}, "beta": 1.0, "gamma": 0.6}
    for make in (compose, partial(objective, "composed")):
        with pytest.warns(UserWarning, match="can never be satisfied") as caught:
            make(**parts, sft=likelihood)
        assert len(caught) == 1

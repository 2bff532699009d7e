"""Settings: one value each, several of an axis; whatever does not exist is refused with the nearest that does."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from rewardshape.errors import InputError
from rewardshape.probe.settings import GROUPS, SETTINGS, Settings


@pytest.mark.parametrize("wrong", ["bacth_size", "learning_rat", "alfa", "probe_evry"])
@pytest.mark.parametrize("way", ["replace", "from_dict"])
def test_an_unknown_name_is_refused_with_the_nearest(wrong, way):
    nearest = {
        "bacth_size": "batch_size",
        "learning_rat": "learning_rate",
        "alfa": "alpha",
        "probe_evry": "probe_every",
    }
    make = {
        "replace": lambda: Settings().replace(**{wrong: 1}),
        "from_dict": lambda: Settings.from_dict({wrong: 1}),
    }
    with pytest.raises(InputError, match=f"no setting '{wrong}'; the nearest is '{nearest[wrong]}'"):
        make[way]()


def test_every_setting_is_declared_once_and_documented():
    names = [f.name for group in GROUPS.values() for f in dataclasses.fields(group)]
    assert len(names) == len(set(names)) == len(SETTINGS)
    assert all(setting.help for setting in SETTINGS.values())
    assert "checkpoint" not in names


def test_what_is_written_is_read_again():
    settings = Settings().replace(
        checkpoint="model", data=["a.jsonl", "b.jsonl"], alpha=[0, 0.25], seeds=2, lora_rank=8, quiet=True
    )
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


def test_several_values_of_an_axis_are_a_sweep_and_one_value_is_none():
    settings = Settings().replace(alpha=(0, 1), learning_rate=[1e-3, 2e-3], beta=[2])
    assert settings.sweep == {"alpha": (0.0, 1.0), "learning_rate": (1e-3, 2e-3)}
    assert (settings.objective.alpha, settings.objective.beta) == (0.0, 2.0)
    assert settings.replace(alpha=0.5).sweep == {"learning_rate": (1e-3, 2e-3)}
    assert settings.replace(alpha=[]).objective.alpha is None


def test_numbers_of_other_libraries_are_numbers():
    settings = Settings().replace(alpha=np.array([0, 0.25]), steps=np.int64(7), beta=np.float32(2.5))
    assert settings == Settings().replace(alpha=[0.0, 0.25], steps=7, beta=2.5)
    assert type(settings.training.steps) is int


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": "many"}, "--steps 'many': must be a whole number"),
        ({"steps": 2.5}, "--steps 2.5: must be a whole number"),
        ({"steps": True}, "--steps True: must be a whole number"),
        ({"alpha": "0.25"}, "--alpha '0.25': must be a number"),
        ({"quiet": 1}, "--quiet 1: must be True or False"),
        ({"schedule": "cosin"}, "--schedule cosin: must be one of"),
        ({"data": 3}, "--data 3: must be a list of texts"),
        ({"data": ["a", 3]}, "--data 3: must be a text"),
        ({"probe_pairs": [1, 2]}, "--probe-pairs: takes one value, 2 were given"),
        ({"alpha": [0.25, 0.25]}, "--alpha 0.25: given twice"),
        ({"beta": [1.0, -1.0]}, "--beta -1.0: must be positive"),
        ({"alpha": [0.0, float("inf")]}, "--alpha inf: must be a finite number"),
        ({"seed": -1}, "--seed -1: must be from 0 to 4294967295"),
        ({"seed": 2**40}, "--seed 1099511627776: must be from 0 to 4294967295"),
        ({"seed": 2**32 - 1, "seeds": 2}, "--seed 4294967295: must be from 0"),
        ({"seed": [1, 2], "seeds": 2}, "--seed and --seeds"),
        ({"parameter": "epsilon"}, "--parameter epsilon: write NAME=VALUE"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_flag(changes, said):
    with pytest.raises(InputError) as refusal:
        Settings().replace(**changes)
    assert said in str(refusal.value)


def test_an_empty_output_is_not_the_folder_one_stands_in():
    with pytest.raises(InputError, match=r"--output.*empty name"):
        Settings.from_dict({"output": ""})


def test_what_a_file_of_settings_may_hold_by_mistake_is_one_line():
    with pytest.raises(InputError, match=r"checkpoint \['a', 'b'\]: one path or hub id"):
        Settings().replace(checkpoint=["a", "b"])
    with pytest.raises(InputError, match=r"--beta 1000.*: must be a number"):
        Settings().replace(beta=10**400)

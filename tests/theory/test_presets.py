"""Published settings, against the tables and configurations that publish them."""

from __future__ import annotations

import pytest

from rewardshape.errors import InputError
from rewardshape.theory import preset, preset_names


@pytest.mark.parametrize("name", preset_names())
def test_presets_load(name):
    record = preset(name)
    assert record.objective.name == name.split("/")[0]
    assert record.training.get("learning_rate", 1.0) > 0
    assert record.source


def test_simpo_for_a_base_model_has_the_short_texts_of_its_released_configuration():
    """training_configs/mistral-7b-base-simpo.yaml: max_length 1024, max_prompt_length 512, γ 1.6 = 0.8·β."""
    base, instruct = preset("simpo/mistral-7b-base"), preset("simpo/mistral-7b-instruct")
    assert (base.training["max_tokens"], base.training["max_prompt_tokens"]) == (1024, 512)
    assert (instruct.training["max_tokens"], instruct.training["max_prompt_tokens"]) == (2048, 1800)
    assert base.objective.parameters["gamma"] == pytest.approx(1.6)


def test_published_alphapo_settings():
    """AlphaPO, Table 3: γ = (γ/β)·β."""
    table = {
        name: preset(name).objective.parameters for name in preset_names() if name.startswith("alphapo/")
    }
    assert table == {
        "alphapo/mistral-7b-instruct": {"alpha": 0.25, "beta": 2.5, "gamma": 0.25},
        "alphapo/llama-3-8b-instruct": {"alpha": 0.25, "beta": 2.5, "gamma": 2.5},
        "alphapo/llama-3-8b-instruct-armorm": {"alpha": 0.25, "beta": 10.0, "gamma": 3.0},
        "alphapo/gemma-2-9b-instruct": {"alpha": 0.1, "beta": 10.0, "gamma": 5.0},
    }


def test_unknown_preset_names_the_nearest():
    with pytest.raises(InputError, match="alphapo/mistral-7b-instruct"):
        preset("alphapo/mistral")

"""The command line says what the settings say, both ways."""

from __future__ import annotations

import re
import shlex

import pytest

from rewardshape.errors import InputError
from rewardshape.probe.command import command_line, parse
from rewardshape.probe.settings import SETTINGS, Settings, flag


def test_words_become_settings():
    words = "model --data a b --alpha 0 -5e-1 -1E-1 -.25 --steps 7 --no-end-token --quiet"
    assert parse(words.split()) == Settings().replace(
        checkpoint="model",
        data=["a", "b"],
        alpha=[0, -0.5, -0.1, -0.25],
        steps=7,
        no_end_token=True,
        quiet=True,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": [-0.5, 0, 1e-7, 0.2500004], "seeds": 3, "schedule": "linear"},
        {"preset": "simpo/mistral-7b-instruct", "lora_rank": [4, 8], "gradient_checkpointing": True},
        {
            "objective": ["dpo", "ipo"],
            "beta": 0.1,
            "parameter": ["label_smoothing=0.1"],
            "chat_template": "{{ x }}",
        },
    ],
)
def test_the_command_of_settings_is_parsed_into_the_same(changes):
    settings = Settings().replace(checkpoint="my model", data="a b.jsonl", **changes)
    _, _, _, *words = shlex.split(command_line(settings))
    assert parse(words) == settings


def test_every_setting_has_its_flag_and_its_help(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    for setting in SETTINGS.values():
        assert f" {flag(setting.name)} " in shown
        assert re.sub(r"\s+", " ", setting.help) in shown
    assert "examples" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bacth-size", "3"], "--bacth-size: no such flag; the nearest is --batch-size"),
        (["--learning-rat=3"], "--learning-rat: no such flag; the nearest is --learning-rate"),
        (["--alpha", "x"], "--alpha: invalid float value: 'x'"),
        (["--alpha"], "--alpha: expected at least one argument"),
        (["model", "another"], "unrecognized argument: another"),
        (["--schedule", "cosin"], "invalid choice: 'cosin'"),
        (["--steps", "1.5"], "--steps"),
    ],
)
def test_a_mistake_is_one_line(words, said):
    with pytest.raises(InputError) as refusal:
        parse(words)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)

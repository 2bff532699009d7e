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
        (["--alpha=-0.5,0,0.25"], "invalid float value: '-0.5,0,0.25'; separate values by spaces"),
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


def test_a_sweep_can_stand_in_a_file_and_a_flag_beside_it_wins(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "alpha: [0, 0.25]\nlearning-rate: [1e-5, 2e-5]\nsteps: 7\nquiet: true\n", encoding="utf-8"
    )
    assert parse(["model", "--data", "a", "--sweep", str(file), "--steps", "9"]) == Settings().replace(
        checkpoint="model", data="a", alpha=[0, 0.25], learning_rate=[1e-5, 2e-5], steps=9, quiet=True
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alfa: [0, 1]", "no setting 'alfa'; the nearest is 'alpha'"),
        ("- alpha", "settings and their values belong there"),
        ("alpha: [0", "cannot be read"),
        ("alpha: [x]", "--alpha 'x': must be a number"),
    ],
)
def test_a_mistake_in_the_file_of_a_sweep_is_one_line(text, said, tmp_path):
    (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as refusal:
        parse(["--sweep", str(tmp_path / "sweep.yaml")])
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)

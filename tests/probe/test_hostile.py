"""Whatever stands on the command line, it is settings or refused in one line; and settings are a command line again."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardshape.probe.command import OF_THE_OUTPUT, command_line, parse
from rewardshape.probe.settings import SETTINGS, flag
from tests.fuzzing import FUZZ, STRANGE, attempted

FLAGS = [flag(name) for name in SETTINGS if name not in ("resume", "output")]
WORDS = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(FLAGS).map(lambda name: name[:-1]),
    st.integers(-3, 200).map(str),
    st.floats().map(str),
    st.sampled_from([str(10**30), "-1e-1", "1e12", "0.25", "dpo", "alphapo", "simpo/mistral-7b-instruct", "cosine",
                     "a=b", "prompt=x", "bfloat16", "sdpa", "drop=1"]),
    STRANGE,
)  # fmt: skip
SENSIBLE = {bool: st.none(), int: st.integers(1, 5000), float: st.floats(1e-9, 10), str: st.none()}


@given(words=st.lists(WORDS, max_size=8))
@FUZZ
def test_any_command_line_is_settings_or_refused_in_one_line(words):
    try:
        settings, said = attempted(parse, words)
    except SystemExit:
        assert {"-h", "--help"} & set(words)
        return
    assert said.isprintable()
    assert said or settings.training.steps >= 1


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command line of flags that take numbers, each once, some with several values."""
    names = [
        name
        for name, s in SETTINGS.items()
        if s.kind in (int, float) and name not in ("seeds", "gamma") and name not in OF_THE_OUTPUT
    ]
    words = []
    for name in draw(st.lists(st.sampled_from(names), unique=True, max_size=5)):
        setting = SETTINGS[name]
        most = 3 if setting.axis else 1
        values = draw(st.lists(SENSIBLE[setting.kind], min_size=1, max_size=most, unique=True))
        words += [flag(name), *map(repr, values)]
    return words


@given(words=lines())
@FUZZ
def test_settings_are_a_command_line_that_makes_them_again(words):
    settings, said = attempted(parse, words)
    if said:
        return
    again = parse(shlex.split(command_line(settings))[3:])
    assert again.as_dict() == settings.as_dict()


@pytest.mark.parametrize("value", ["-5e-1", "-1e-1", "-.5", "-0.5", "-5E-01"])
def test_a_negative_number_with_an_exponent_is_a_number(value):
    assert parse(["--alpha", "0", value]).sweep["alpha"] == (0.0, float(value))

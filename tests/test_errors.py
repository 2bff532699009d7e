"""What a message quotes from outside reaches a terminal only escaped."""

from __future__ import annotations

import pytest

from rewardshape.errors import InputError, printable


@pytest.mark.parametrize(
    "hostile", ["\x1b[2J", "a\nb", "\r", "\x07", "\u202e", "\ud800", "\x9b31m", "\u200b", "\x00"]
)
def test_an_error_is_one_line_without_a_control_character(hostile):
    message = str(InputError(f"{hostile}: no such file"))
    assert message.isprintable()
    assert message.encode("utf-8")  # a lone surrogate could not be printed at all
    assert message.endswith(": no such file")


def test_ordinary_text_is_left_as_it_is():
    text = "β = 0.1 – ‘quoted’, 日本語, é…"
    assert printable(text) == text

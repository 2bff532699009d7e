"""What a message quotes from outside reaches a terminal only escaped."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rewardshape.errors import InputError, printable, to_any_output


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


def test_output_that_was_closed_before_the_start_is_no_error(monkeypatch):
    """As ``rewardshape >&- 2>&-`` starts it: Python has no streams then."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    to_any_output()
    print("nowhere", flush=True)
    print("nowhere", file=sys.stderr, flush=True)
    for stream in (sys.stdout, sys.stderr):
        stream.close()


@pytest.mark.parametrize("module", ["rewardshape", "rewardshape.probe"])
def test_a_terminal_that_lacks_letters_shows_a_question_mark_in_their_place(module):
    """A forced ASCII locale: neither Python's UTF-8 mode nor its locale coercion helps."""
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment.pop("PYTHONIOENCODING", None)
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert b"?" in done.stdout

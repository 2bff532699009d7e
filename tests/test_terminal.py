"""What ends a command before its time is one escaped line and status 2, and only that; how wide a terminal is."""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from rewardshape.errors import InputError
from rewardshape.terminal import answered, columns_of, parser_of


def asked(word: str, act) -> int:
    parser = parser_of("prog", "line one\nline two", "examples")
    parser.add_argument("word")
    return answered(parser, [word], act)


@pytest.mark.parametrize(
    "error", [InputError("a\x1b[2J: no such file"), OSError(28, "No space left", "a\x1b")]
)
def test_bad_input_and_a_full_disk_are_one_escaped_line_and_status_2(error, capsys):
    def act(arguments: argparse.Namespace) -> int:
        raise error

    assert asked("a", act) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.isprintable()
    assert line.startswith(r"error: a\x1b")  # of a file its name first


def test_the_status_is_what_the_act_says_and_a_mistake_of_ours_is_not_hidden():
    assert asked("3", lambda arguments: int(arguments.word)) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        asked("three", lambda arguments: int(arguments.word))


def test_help_keeps_its_lines(capsys):
    with pytest.raises(SystemExit):
        asked("--help", int)
    assert "line one\nline two\n" in capsys.readouterr().out


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_read_enough_is_no_error(lines):
    """``rewardshape … | head -0``: the pipe is closed, before the text leaves the buffer or in its middle."""
    act = (
        "from rewardshape.terminal import answered, parser_of\n"
        f"raise SystemExit(answered(parser_of('p', '', ''), [], lambda words: print('line\\n' * {lines}) or 7))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        told = subprocess.run([sys.executable, "-c", act], stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize(("says", "columns"), [(100, 100), (0, 80)])
def test_a_terminal_has_the_columns_it_says_or_80(says, columns):
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, says, 0, 0))
    with os.fdopen(leader), os.fdopen(follower, "w") as terminal:
        assert columns_of(terminal) == columns
    assert columns_of(terminal) is None  # closed


def test_a_file_has_no_columns(tmp_path):
    with (tmp_path / "log.txt").open("w") as log:
        assert columns_of(log) is None

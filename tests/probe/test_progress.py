"""The progress line: what it says, how often, and that it ends nothing."""

from __future__ import annotations

import contextlib
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rewardshape.probe.progress import Progress, changes_shown, line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_progress_that_cannot_be_written_is_silence(monkeypatch):
    full = open("/dev/full", "w")
    monkeypatch.setattr(sys, "stderr", full)
    with Progress(2, seconds_between_lines=0) as progress:
        progress.say("a note")
        progress.begin("run", "step 0")
        progress.step({"loss": 1.0}, tokens=3)
    monkeypatch.undo()
    with contextlib.suppress(OSError):
        full.close()


def test_where_there_is_no_terminal_a_line_comes_now_and_then_and_at_the_end(capsys):
    with Progress(5, seconds_between_lines=math.inf) as progress:
        progress.say("a note")
        progress.skip(2)
        progress.begin("alpha=0", "step 0: measuring")
        for step in (3, 4, 5):
            progress.step({"step": f"{step}/5"}, tokens=10)
    note, start, last = capsys.readouterr().err.splitlines()
    assert (note, start) == ("a note", "alpha=0  step 0: measuring")
    assert re.fullmatch(r"alpha=0  step 5/5  00:00 left  tokens/s [\d,]+", last)


def test_no_time_left_is_told_before_three_steps(capsys):
    with Progress(9, seconds_between_lines=0) as progress:
        for step in range(1, 5):
            progress.step({"step": step}, tokens=10)
    assert ["left" in text for text in capsys.readouterr().err.splitlines()] == [False, False, True, True]


def test_the_time_left_leaves_out_what_came_before_the_first_step(capsys, monkeypatch):
    """A minute before step 1, then two seconds a step: seven more take 14 seconds."""
    clock = iter([0.0, 0.0, 60.0, 62.0, 64.0])
    monkeypatch.setattr("rewardshape.probe.progress.time.monotonic", lambda: next(clock))
    with Progress(10, seconds_between_lines=0) as progress:
        progress.begin("run", "step 0")
        for step in (1, 2, 3):
            progress.step({"step": step}, tokens=10)
    assert "00:14 left" in capsys.readouterr().err.splitlines()[-1]


VALUES = {"step": "149/150", "chosen": "-0.123", "rejected": "-0.456", "margin": "+12.34", "loss": "0.693"}


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_narrow_terminal_shows_chosen_and_rejected_first(width):
    shown = line("alphapo", {**VALUES, "tokens/s": "12,345"}, "01:02:03 left", width)
    assert len(shown) < width
    assert ("chosen -0.123" in shown, "rejected -0.456" in shown) == (width >= 40, width >= 60)
    assert ("01:02:03 left" in shown, "loss" in shown) == (width >= 80, width >= 100)


def test_a_long_name_takes_no_more_than_its_share():
    shown = line("objective=length-normalised dpo, beta=0.25 (12/16)", VALUES, "", 80)
    assert len(shown) < 80
    assert "rejected -0.456" in shown


PTY = """
import fcntl, os, pty, struct, sys, termios
lines = {lines}
pid, fd = pty.fork()
if pid == 0:
    from rewardshape.probe.progress import Progress
    with Progress(2) as progress:
        progress.begin("alpha=0 (1/2)", "step 0: measuring")
        progress.step({{"step": "1/2", "chosen": "-0.1", "rejected": "-0.2"}}, tokens=1)
    os._exit(0)
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, {columns}, 0, 0))
said = b""
try:
    while part := os.read(fd, 1000):
        said += part
except OSError:
    pass
os.waitpid(pid, 0)
sys.stdout.write(said.decode())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [0, 80])
def test_a_terminal_of_any_width_shows_progress_from_step_0(columns):
    done = subprocess.run(
        [sys.executable, "-c", PTY.format(lines=0 if columns == 0 else 24, columns=columns)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "alpha=0 (1/2)  step 0: measuring" in done.stdout
    assert "alpha=0 (1/2)  step 1/2  chosen -0.1  rejected -0.2" in done.stdout


def test_quiet_says_nothing(capsys):
    with Progress(1, quiet=True) as progress:
        progress.say("a note")
        progress.begin("run", "step 0")
        progress.step({}, tokens=1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("resumed", [False, True])
def test_changes_are_since_step_0_also_of_a_resumed_run(capsys, resumed):
    means = {"probe_chosen_logp_mean": -1.0, "probe_rejected_logp_mean": -2.0}
    with Progress(1, seconds_between_lines=0) as progress:
        show = changes_shown(progress, 1, lambda: means)
        if not resumed:
            show(0, {}, means)
        now = {"probe_chosen_logp_mean": -1.25, "probe_rejected_logp_mean": -1.5}
        show(1, {"loss": 0.6931, "margin": 0.5, "tokens": 7}, now)
    said = capsys.readouterr().err
    assert "step 1/1  chosen −0.250  rejected +0.500  margin +0.50  loss 0.693" in said

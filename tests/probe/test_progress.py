"""The progress line: what it says, how often, and that it ends nothing."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from pathlib import Path

import pytest

from rewardshape.probe.progress import Progress, changes_shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_progress_that_cannot_be_written_is_silence(monkeypatch):
    full = open("/dev/full", "w")
    monkeypatch.setattr(sys, "stderr", full)
    with Progress(2, seconds_between_lines=0) as progress:
        progress.say("a note")
        progress.step("run", {"loss": 1.0}, tokens=3)
    monkeypatch.undo()
    with contextlib.suppress(OSError):
        full.close()


def test_where_there_is_no_terminal_a_line_comes_now_and_then_and_at_the_end(capsys):
    with Progress(5, seconds_between_lines=math.inf) as progress:
        progress.say("a note")
        progress.skip(2)
        for step in (3, 4, 5):
            progress.step("alpha=0", {"step": step}, tokens=10)
    note, last = capsys.readouterr().err.splitlines()
    assert note == "a note"
    assert re.fullmatch(r"alpha=0  step 5  [\d,]+ tokens/s  00:00 left", last)


def test_quiet_says_nothing(capsys):
    with Progress(1, quiet=True) as progress:
        progress.say("a note")
        progress.step("run", {}, tokens=1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("resumed", [False, True])
def test_changes_are_since_step_0_also_of_a_resumed_run(capsys, resumed):
    means = {"probe_chosen_logp_mean": -1.0, "probe_rejected_logp_mean": -2.0}
    with Progress(1, seconds_between_lines=0) as progress:
        show = changes_shown(progress, "run", lambda: means)
        if not resumed:
            show(0, {}, means)
        now = {"probe_chosen_logp_mean": -1.25, "probe_rejected_logp_mean": -1.5}
        show(1, {"loss": 0.6931, "margin": 0.5, "tokens": 7}, now)
    said = capsys.readouterr().err
    assert "loss 0.693  margin +0.50  chosen -0.250  rejected +0.500" in said

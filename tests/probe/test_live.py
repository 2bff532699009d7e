"""The page of a command while it runs: it follows the record, rests at the end, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from rewardshape.probe.live import live_page, main
from rewardshape.trace import RunFolder

PAIRS, STEPS = 12, 9


@pytest.fixture
def going(write_run, tmp_path: Path, rng) -> tuple[Path, list[str]]:
    """A run of which three steps are recorded, and the lines of the others."""
    sums = {
        name: -10 - rng.normal(0.1, 0.2, (STEPS, PAIRS)).cumsum(axis=0) for name in ("chosen", "rejected")
    }
    folder = write_run(
        tmp_path / "run", sums, num_tokens={name: np.full(PAIRS, 8) for name in sums}, status="running"
    )
    lines = (folder / "trace.jsonl").read_text().splitlines(keepends=True)
    (folder / "trace.jsonl").write_text("".join(lines[:4]))  # the head, and steps 0 to 2
    return folder, lines[4:]


def until(condition, seconds: float = 150.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def says(page: Path, text: str) -> bool:
    return page.exists() and text in page.read_text(encoding="utf-8")


@pytest.mark.timeout(400)
def test_the_page_follows_the_record_and_rests_when_the_command_has_ended(going):
    folder, rest = going
    page = RunFolder(folder).report
    before = set(psutil.Process().children())
    with live_page(folder):
        [writer] = set(psutil.Process().children()) - before
        assert until(lambda: says(page, "as of step 2."))
        assert says(page, 'data-refresh="')
        with open(folder / "trace.jsonl", "a") as record:
            record.write("".join(rest))
        assert until(lambda: says(page, "as of step 8."))
        RunFolder(folder).set_status("done")
    assert not says(page, 'data-refresh="')
    assert not says(page, "as of step")
    assert gone(writer.pid)


KILLED = """
import sys, time
from pathlib import Path
import psutil
from rewardshape.probe.live import live_page
with live_page(Path(sys.argv[1])):
    print(psutil.Process().children()[0].pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.timeout(400)
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_command_that_is_killed_leaves_no_writer_behind(going):
    folder, _ = going
    command = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    writer = int(command.stdout.readline())
    assert until(lambda: RunFolder(folder).report.exists())
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    command.stdout.close()
    assert until(lambda: gone(writer))


def gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_writer_of_a_command_that_is_gone_before_it_looks_ends(going, monkeypatch):
    monkeypatch.setattr(os, "nice", lambda _: None)
    folder, _ = going
    RunFolder(folder).trace.unlink()  # nothing is recorded yet, so there is nothing to write
    main(folder, os.getppid() + 1)


def test_a_run_that_asks_for_it_has_a_page_that_rests_at_the_end(probe, tmp_path: Path, drawn, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "rewardshape.probe.run.live_page", lambda folder: asked.append(folder) or live_page(folder)
    )
    assert probe(tmp_path / "run", "--live", "--steps", "2") == 0
    assert asked == [tmp_path / "run"]
    assert not says(tmp_path / "run" / "report.html", 'data-refresh="')

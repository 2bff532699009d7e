"""Where a running run is heading: said of a line whose end is known, on the page and the terminal alike."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape import judge, read_trace
from rewardshape.analysis.forecast import schedule_clock
from rewardshape.analysis.panels import chosen_and_rejected
from rewardshape.diagnose import main
from rewardshape.report import write_report
from rewardshape.verdict.ahead import where_it_goes

PLAN = {"seed": 0, "steps": 100, "schedule": "cosine", "warmup_ratio": 0.1}
PAIRS = 20


@pytest.fixture
def run_of(write_run, tmp_path):
    """A run at step 40 of 100, whose chosen responses lose 0.3 nats per token in a straight line of the clock."""

    def make(status):
        steps = list(range(0, 41, 5))
        fall = -0.3 * schedule_clock(PLAN, np.array(steps))[:, None] * np.ones(PAIRS)
        sums = {"chosen": -20 + 10 * fall, "rejected": -30 + 20 * fall}
        tokens = dict.fromkeys(sums, np.full(PAIRS, 10))
        return write_run(tmp_path / status, sums, num_tokens=tokens, steps=steps, run=PLAN, status=status)

    return make


def test_a_running_run_is_told_where_it_is_heading_in_one_sentence_everywhere(run_of, tmp_path, capsys):
    folder = run_of("running")
    said = judge(folder).evidence.ahead
    assert said.startswith("at step 100 the chosen responses are expected at −0.300 nats per token")
    assert "−0.300 to −0.300" in said  # no pair differs and both forms agree
    assert main([str(folder), "--output", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Where it is heading: - A{said[1:]}" in printed
    page = write_report(folder).read_text(encoding="utf-8")
    assert f"A{said[1:]}." in page


def test_no_probability_is_expected_above_one(write_run, tmp_path):
    """From −0.5 nats per token chosen can rise by 0.5: a line to +1.2 says nothing, and no interval goes there."""
    steps = list(range(0, 41, 5))
    clock = schedule_clock(PLAN, np.array(steps))[:, None]
    tokens = {name: np.full(PAIRS, 10) for name in ("chosen", "rejected")}
    said = []
    for pace, scatter in ((1.2, 0.0), (0.4, 0.6)):
        rise = clock * (pace + scatter * np.linspace(-1, 1, PAIRS))
        sums = {"chosen": -5 + 10 * rise, "rejected": -30 + 0 * rise}
        folder = write_run(
            tmp_path / f"{pace:g}", sums, num_tokens=tokens, steps=steps, run=PLAN, status="running"
        )
        [panels] = chosen_and_rejected(read_trace(folder))
        said.append(where_it_goes(*panels))
    assert said[0] == ""
    high = float(said[1].split(" to +")[1].split(";")[0])
    assert high <= 0.5


def test_nothing_is_said_of_a_finished_run_or_too_little(run_of, write_run, tmp_path):
    [done] = chosen_and_rejected(read_trace(run_of("done")))
    assert where_it_goes(*done) == ""
    sums = {"chosen": np.full((3, 4), -20.0), "rejected": np.full((3, 4), -30.0)}
    tokens = dict.fromkeys(sums, np.full(4, 10))
    folder = write_run(tmp_path / "begun", sums, num_tokens=tokens, run=PLAN, status="running")
    [begun] = chosen_and_rejected(read_trace(folder))
    assert where_it_goes(*begun) == ""

"""Advice gives the sizes of a what-if where there is one, of what is beyond chance, and no size where there is none."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from rewardshape import judge, read_trace
from rewardshape.trace.folder import RunFolder
from rewardshape.verdict.tried import tried_beside

ROW = {
    "intervention": "drop=ches=0.2",
    "against": "drop=random=0.2",
    "flags": "--drop ches=0.2",
    "matched": True,
    "steps": 50,
    "num_seeds": 2,
    "chosen": 0.021,
    "chosen_low": 0.01,
    "chosen_high": 0.032,
    "gold": np.nan,
    "gold_low": np.nan,
    "gold_high": np.nan,
}


@pytest.fixture
def run(write_run, tmp_path):
    level = np.linspace(-10, -14, 5)[:, None] + np.random.default_rng(0).normal(0, 0.2, 24)
    sums = {"chosen": level, "rejected": 2 * level}
    return write_run(tmp_path / "run", sums, num_tokens={name: np.full(24, 10) for name in sums})


def write(folder, *rows):
    folder.mkdir()
    pd.DataFrame(rows).to_csv(RunFolder(folder).what_if, index=False)


def sizes(lines):
    return [line for line in lines if re.search(r"nats per token (higher|lower)", line)]


def test_without_a_what_if_no_size_is_given(run):
    assert tried_beside(run) == ()
    assert sizes(judge(read_trace(run)).advice) == []


@pytest.mark.parametrize("place", ["run/what-if", "what-if"])
def test_its_numbers_are_those_of_the_table_and_stand_before_what_is_general(run, tmp_path, place):
    harm = ROW | {"flags": "--add-nll 1", "matched": False, "chosen": -0.05, "chosen_low": -0.08, "chosen_high": -0.02,
                  "gold": 0.1, "gold_low": -0.1, "gold_high": 0.3}  # fmt: skip
    write(tmp_path / place, harm, ROW)
    advice = judge(read_trace(run)).advice
    assert sizes(advice) == [
        "Try --drop ches=0.2: over 50 steps and 2 seeds it left chosen 0.021 nats per token higher than as many pairs "
        "dropped at random, at equal margin (95 % interval +0.010 to +0.032, of all changes tried together).",
        "Do not try --add-nll 1: over 50 steps and 2 seeds it left chosen 0.050 nats per token lower than the run as "
        "it is, at equal margin (95 % interval −0.080 to −0.020, of all changes tried together), gold +0.100 (−0.100 "
        "to +0.300).",
    ]
    assert advice[:2] == sizes(advice)


def test_what_chance_would_give_too_is_not_told(run, tmp_path):
    write(
        tmp_path / "run" / "what-if",
        ROW | {"chosen_low": -0.001},
        ROW | {"num_seeds": 1},
        ROW | {"chosen": np.nan, "chosen_low": np.nan, "chosen_high": np.nan},
    )
    assert sizes(judge(read_trace(run)).advice) == []

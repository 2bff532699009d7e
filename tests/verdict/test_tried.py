"""Advice gives the sizes of a what-if where there is one, of what is beyond chance, and no size where there is none."""

from __future__ import annotations

import re
import shutil

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
    "measure": "chosen",
    "margin_gain": 0.03,
    "difference": 0.021,
    "difference_low": 0.01,
    "difference_high": 0.032,
    "left_out": np.nan,
}
FAINT = ROW | {"margin_gain": 0.015, "difference": 0.01, "difference_low": -0.002, "difference_high": 0.022}
GOLD = ROW | {"measure": "gold", "margin_gain": np.nan}


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
    harm = ROW | {"intervention": "add_nll=1", "flags": "--add-nll 1", "matched": False, "difference": -0.05,
                  "difference_low": -0.08, "difference_high": -0.02}  # fmt: skip
    gold = {
        "measure": "gold",
        "margin_gain": np.nan,
        "difference": 0.1,
        "difference_low": -0.1,
        "difference_high": 0.3,
    }
    write(tmp_path / place, harm, harm | gold, FAINT, ROW)
    advice = judge(read_trace(run)).advice
    assert sizes(advice) == [
        "Try --drop ches=0.2: over 50 steps and 2 seeds it left chosen 0.021 nats per token higher where the margin "
        "had grown by 0.03 than as many pairs dropped at random (95 % interval +0.010 to +0.032, of all changes and "
        "margins tried together); at 1 of 2 margins it is beyond chance.",
        "Do not try --add-nll 1: over 50 steps and 2 seeds it left chosen 0.050 nats per token lower where the margin "
        "had grown by 0.03 than the run as it is (95 % interval −0.080 to −0.020, of all changes and margins tried "
        "together); gold at the last step +0.100 (−0.100 to +0.300).",
    ]
    assert advice[:2] == sizes(advice)


def test_what_was_asked_about_another_run_is_not_told_of_this_one(run, write_run, tmp_path):
    write(tmp_path / "what-if", ROW)
    assert sizes(judge(read_trace(run)).advice)
    sums = {name: np.full((2, 24), -10.0) for name in ("chosen", "rejected")}
    asked = {"name": "as-it-is", "changes": {}, "flags": "", "against": "", "matched": False}
    for objective, told in (("dpo", False), ("alphapo", True)):
        parameters = {"beta": 0.1} if objective == "dpo" else {"alpha": 0.25, "beta": 2.5, "gamma": 0.25}
        write_run(
            tmp_path / "what-if" / "as-it-is", sums, num_tokens={name: np.full(24, 10) for name in sums},
            what_if=asked, objective={"name": objective, "parameters": parameters},
        )  # fmt: skip
        assert bool(sizes(judge(read_trace(run)).advice)) == told
        shutil.rmtree(tmp_path / "what-if" / "as-it-is")


def test_a_damaged_run_next_door_is_no_matter(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text("{", encoding="utf-8")
    assert sizes(judge(read_trace(run)).advice) == []
    pd.DataFrame([ROW]).to_csv(RunFolder(tmp_path).what_if, index=False)
    assert sizes(judge(read_trace(run)).advice)


def test_the_surest_margin_is_told_and_both_where_it_turns(run, tmp_path):
    early = ROW | {
        "margin_gain": 0.01,
        "difference": -0.02,
        "difference_low": -0.025,
        "difference_high": -0.015,
    }
    write(tmp_path / "what-if", early, FAINT, ROW)
    assert sizes(judge(read_trace(run)).advice) == [
        "What --drop ches=0.2 does depends on how far a run goes: over 50 steps and 2 seeds it left chosen 0.020 "
        "nats per token lower where the margin had grown by 0.01, and 0.021 nats per token higher where the margin had "
        "grown by 0.03 than as many pairs dropped at random (95 % intervals −0.025 to −0.015 and +0.010 to +0.032, of "
        "all changes and margins tried together)."
    ]


def test_what_costs_gold_beyond_chance_is_not_advised(run, tmp_path):
    cost = {"difference": -0.3, "difference_low": -0.5, "difference_high": -0.1}
    write(tmp_path / "what-if", ROW, GOLD | cost)
    [line] = sizes(judge(read_trace(run)).advice)
    assert line.startswith("Do not try --drop ches=0.2: ")
    assert line.endswith("; gold at the last step −0.300 (−0.500 to −0.100).")


def test_what_chance_would_give_too_is_not_told(run, tmp_path):
    nothing = {"difference": np.nan, "difference_low": np.nan, "difference_high": np.nan}
    write(
        tmp_path / "run" / "what-if",
        FAINT,
        ROW | {"intervention": "one", "num_seeds": 1},
        ROW | nothing,
        GOLD,
    )
    assert sizes(judge(read_trace(run)).advice) == []

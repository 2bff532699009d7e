"""What is not finite: batches of one kind of examples are told from runs that broke."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from rewardshape.logs.log import Log
from rewardshape.verdict.judge import judge
from rewardshape.verdict.nonfinite import broken_since, loss_lost, one_sided


def log_with(bad, rows=6):
    """A training log whose series are finite but for these (step, series)."""
    names = ("loss", "reward_chosen", "reward_rejected", "margin")
    table = pd.DataFrame({"split": "train", "step": range(1, rows + 1), **dict.fromkeys(names, 0.1)})
    for step, series in bad:
        table.loc[table["step"] == step, series] = math.nan
    nonfinite = pd.DataFrame([("train", *one) for one in bad], columns=["split", "step", "series"])
    return Log("made", "made", table, nonfinite)


def test_rows_that_lack_one_kind_are_counted_and_no_break():
    one_kind = [
        (2, "reward_chosen"),
        (2, "margin"),
        (5, "reward_rejected"),
        (5, "margin"),
        (6, "reward_chosen"),
    ]
    log = log_with([*one_kind, (4, "loss")])
    left, told = one_sided(log.nonfinite)
    assert left[["step", "series"]].to_numpy().tolist() == [[4, "loss"]]
    assert told == [
        "2 rows held no chosen examples, so their means were not finite",
        "1 row held no rejected examples, so their means were not finite",
    ]
    assert broken_since(log_with([(6, "reward_chosen")])) is None


@pytest.mark.parametrize(
    ("bad", "since"),
    [
        ([(step, "reward_" + side) for step in (5, 6) for side in ("chosen", "rejected")], 5),
        (
            [
                (4, "reward_chosen"),
                *((s, f"reward_{side}") for s in (5, 6) for side in ("chosen", "rejected")),
            ],
            5,
        ),
    ],
)
def test_a_run_broke_where_nothing_finite_follows(bad, since):
    found = broken_since(log_with(bad))
    assert found.step == since
    assert found.series == ("rewards/chosen", "rewards/rejected")
    assert broken_since(log_with([(2, "loss")])) is None


def test_a_loss_that_is_lost_is_no_broken_run_where_the_rewards_go_on():
    """As transformers' running sum leaves it after one NaN (trl#1447); of a log without rewards it is all there is."""
    bad = [(step, "loss") for step in (4, 5, 6)]
    log = log_with(bad)
    assert broken_since(log) is None
    assert loss_lost(log)[0].startswith(
        "the loss is not finite from step 4 to the end, while the responses have"
    )
    story = " ".join(judge(log).to_dict()["story"])
    assert "The loss is not finite from step 4" in story
    assert "loss 0.1" not in story
    alone = replace(log, table=log.table[["split", "step", "loss"]])
    assert broken_since(alone).step == 4
    assert loss_lost(alone) == []
    assert broken_since(log_with([(2, "loss"), (6, "loss")])) is None  # its rewards are finite


@pytest.mark.parametrize(("side", "other"), [("chosen", "rejected"), ("rejected", "chosen")])
def test_unpaired_examples_of_one_kind_only_are_named(side, other, tmp_path):
    """KTO whose labels are all bad (or all good): means of the other kind are 0/0 in every row."""
    rows = [
        {"loss": 0.5 - 0.002 * i, f"rewards/{side}": math.nan, f"rewards/{other}": -0.02 * i,
         "rewards/margins": math.nan, "kl": 0.1, "epoch": i / 50}
        for i in range(50)
    ]  # fmt: skip
    file = tmp_path / "kto.log"
    file.write_text("\n".join(map(str, rows)))
    verdict = judge(file)
    assert (verdict.word, verdict.how_sure) == ("undetermined", "weak")
    assert f"no row held {side} examples" in verdict.sentence
    assert verdict.advice[0].startswith("Check the labels")


@pytest.mark.parametrize(("lost", "goes_on"), [("eval", "train"), ("train", "eval")])
def test_a_run_whose_other_rows_have_numbers_to_the_end_is_not_broken(lost, goes_on):
    """An evaluation set with an empty response is never finite; the training beside it goes on."""
    finite = pd.DataFrame(
        {"split": goes_on, "step": range(1, 9), "loss": 0.5, "reward_chosen": 0.1, "reward_rejected": 0.0}
    )
    bad = [(lost, step, f"reward_{side}") for step in (2, 4, 6) for side in ("chosen", "rejected")]
    nonfinite = pd.DataFrame(bad, columns=["split", "step", "series"])
    assert broken_since(Log("made", "made", finite, nonfinite)) is None
    ended = finite[finite["step"] < 2]
    assert broken_since(Log("made", "made", ended, nonfinite)).step == 2

"""What is not finite: batches of one kind of examples are told from runs that broke."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from rewardshape.logs.log import Log
from rewardshape.verdict.judge import judge
from rewardshape.verdict.nonfinite import broken_since, one_sided


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
        ([(4, "loss"), (5, "loss"), (6, "loss")], 4),
        ([(2, "loss"), (6, "loss")], 6),  # what came back did not break
        ([(5, "reward_chosen"), (5, "reward_rejected"), (6, "reward_chosen"), (6, "reward_rejected")], 5),
    ],
)
def test_a_run_broke_where_nothing_finite_follows(bad, since):
    assert broken_since(log_with(bad)).step == since
    assert broken_since(log_with([(2, "loss")])) is None


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

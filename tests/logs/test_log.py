"""Rows become one table a run: a row for each split and step, later values win, what is not finite stands apart."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from rewardshape.logs.log import MOST_OF_A_NAME, assemble, shown
from rewardshape.logs.read import read_logs
from rewardshape.logs.rows import Rows


def log_of(records, **options):
    [log] = assemble("a", "made", Rows.of(records), **options)
    return log


def test_the_table_is_the_pivot_of_its_records():
    """The outside truth is pandas' own pivot of the long form."""
    rng = np.random.default_rng(0)
    records = []
    for step in range(1, 9):
        records.append({"step": step, "loss": rng.normal(), "rewards/chosen": rng.normal()})
        if step % 3 == 0:
            records.append({"step": step, "eval_loss": rng.normal()})
    log = log_of(records)
    long = pd.DataFrame(records)
    trained = log.split("train")
    np.testing.assert_array_equal(trained["loss"], long["loss"].dropna())
    np.testing.assert_array_equal(trained["reward_chosen"], long["rewards/chosen"].dropna())
    evaluated = long.dropna(subset="eval_loss").set_index("step")["eval_loss"]
    assert log.split("eval")["loss"].to_dict() == evaluated.to_dict()
    assert log.table["step"].dtype == "int64"


def test_a_step_that_is_written_again_keeps_the_later_values_and_is_counted():
    log = log_of(
        [{"step": 1, "loss": 0.7, "grad_norm": 2.0}, {"step": 2, "loss": 0.6}, {"step": 2, "loss": 0.5}]
    )
    assert log.split("train")["loss"].to_dict() == {1: 0.7, 2: 0.5}
    assert log.notes == ["1 step logged more than once: the later values count"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "NaN"])
def test_what_is_not_finite_is_nan_in_the_table_and_listed_with_its_step(value):
    log = log_of([{"step": 1, "loss": 0.7}, {"step": 2, "loss": value, "rewards/chosen": 1.0}])
    assert log.split("train")["loss"].isna().tolist() == [False, True]
    assert log.nonfinite.to_dict("records") == [{"split": "train", "step": 2, "series": "loss"}]


def test_steps_that_begin_anew_are_runs_with_names_of_their_own():
    records = [{"step": step, "loss": 0.5} for _ in range(2) for step in (1, 2, 3, 4, 5, 6)]
    logs = assemble("a", "made", Rows.of(records))
    assert [(log.name, log.part) for log in logs] == [("a · run 1", "run 1"), ("a · run 2", "run 2")]
    nested = assemble("a", "made", Rows.of(records), part="Table 1")
    assert [log.part for log in nested] == ["Table 1 · run 1", "Table 1 · run 2"]
    assert len(assemble("a", "made", Rows.of(records), one_run=True)) == 1


def test_a_file_whose_name_looks_like_two_names_is_one():
    [log] = assemble("left · right", "made", Rows.of([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}]))
    assert (log.name, log.part) == ("left · right", "")


def test_of_several_evaluation_sets_the_first_is_judged_and_the_others_are_named():
    log = log_of([{"step": step, "eval_one_loss": 0.5, "eval_two_loss": 0.25} for step in (1, 2)])
    assert log.split("eval")["loss"].tolist() == [0.5, 0.5]
    assert log.notes == ["several evaluation sets: judged on one, not on two"]


def test_rows_without_a_step_are_counted_as_what_they_are():
    log = log_of([{"loss": 0.7, "rewards/chosen": 0.0}, {"loss": 0.6, "rewards/chosen": -0.1}])
    assert (log.counts, log.rows_are) == ("row", "rows")
    assert "its steps are counted in rows" in log.notes[0]


def test_nothing_that_tells_is_no_log():
    assert assemble("a", "made", Rows()) == []


def test_a_name_is_shown_without_control_characters_and_not_too_long():
    assert shown("a" * 1000) == "a" * (MOST_OF_A_NAME - 1) + "…"
    assert shown("\x1b[2J").isprintable()


def test_of_several_runs_in_one_file_each_has_the_beta_that_is_stated_before_it(tmp_path):
    text = ""
    for beta in (0.05, 0.1, 0.5):
        text += f"=== DPO with beta={beta} ===\n"
        text += "".join(
            f"{{'loss': 0.6, 'rewards/chosen': -0.1, 'epoch': {row / 10}}}\n" for row in range(1, 6)
        )
        text += "{'train_runtime': 12.5, 'train_loss': 0.6, 'epoch': 0.5}\n"
    file = tmp_path / "sweep.log"
    file.write_text(text)
    assert [log.settings.get("beta") for log in read_logs(file)] == [0.05, 0.1, 0.5]
    file.write_text("beta=0.3\n" + text)  # two values before the first run: its own is not known
    assert [log.settings.get("beta") for log in read_logs(file)] == [None, 0.1, 0.5]

"""JSON of every shape in which pandas, wandb and trainers write a table gives its records."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from rewardshape.logs.jsons import DEEPEST, flat, flat_records, json_lines

TABLE = pd.DataFrame({"step": [1, 2, 3], "loss": [0.75, 0.5, 0.25], "rewards/chosen": [0.0, -0.5, -1.0]})
RECORDS = TABLE.to_dict("records")


@pytest.mark.parametrize(
    "written",
    [
        TABLE.to_json(orient="records"),
        TABLE.to_json(orient="split"),
        TABLE.to_json(),
        TABLE.set_index("step").to_json(),
        TABLE.set_index("step").to_json(orient="split"),
        json.dumps(TABLE.to_dict("list")),
        json.dumps({"log_history": RECORDS, "best": None}),
        json.dumps({"a": {"b": [{"x": 1}], "c": {"history": RECORDS}}}),
    ],
    ids=["records", "split", "columns", "step", "step and split", "lists", "history", "deep"],
)
def test_a_table_of_pandas_comes_back_from_each_shape(written):
    assert flat_records(json.loads(written)) == RECORDS


@pytest.mark.parametrize("orient", ["columns", "split"])
def test_an_index_that_counts_or_is_left_of_a_larger_table_is_no_step(orient):
    without = TABLE.drop(columns="step")
    assert flat_records(json.loads(without.to_json(orient=orient))) == without.to_dict("records")
    assert flat_records(json.loads(TABLE[1:].to_json(orient=orient))) == RECORDS[1:]


def test_lists_shorter_than_the_table_are_no_columns():
    data = {**TABLE.to_dict("list"), "betas": [0.9, 0.999]}
    assert flat_records(data) == RECORDS


def test_a_level_that_names_its_split_is_part_of_the_name_and_one_that_groups_is_not():
    nested = {"metrics": {"loss": 1.0}, "train": {"loss": 2.0, "rewards": {"chosen": 3.0}}}
    assert flat(nested) == {"loss": 1.0, "train/loss": 2.0, "train/rewards/chosen": 3.0}


def test_cells_by_name_are_no_rows():
    """Only numbers name the rows of a table: this is one record, of two splits."""
    data = {"loss": {"train": 0.5, "eval": 0.6}, "accuracy": {"train": 0.7, "eval": 0.8}}
    assert flat_records(data) == []


def test_json_that_nests_without_end_is_answered():
    deep: dict = {"loss": 0.5}
    for _ in range(3 * DEEPEST):
        deep = {"a": deep}
    assert flat_records(deep) == []
    assert list(json_lines(["[" * 100_000])) == [None]


def test_lines_that_are_none_are_counted_and_empty_ones_are_not():
    lines = ['{"loss": 1}', "", "  ", "###", '{"loss"', "[1, 2]", '{"train": {"loss": 2}}']
    assert list(json_lines(lines)) == [{"loss": 1}, None, None, {"train/loss": 2}]

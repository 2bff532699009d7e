"""Tables of Markdown and CSV: the cells that were written, apart by run and split; what is no training log is left."""

from __future__ import annotations

import csv
import io
import time

import pandas as pd
import pytest

from rewardshape.errors import InputError
from rewardshape.logs import read_logs
from rewardshape.logs.tables import csv_header, csv_records, csv_table, markdown_tables, spaced_tables

TABLE = pd.DataFrame({"Step": ["10", "20"], "Loss": ["0.5", "0.25"], "Rewards/chosen": ["-1", "-2.5"]})


def markdown(table):
    lines = [list(table), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def test_a_markdown_table_gives_its_cells_and_the_heading_above_it():
    [found] = markdown_tables(f"# A model\n\n## Results\n{markdown(TABLE)}\ntext\n")
    assert found.caption == "Results"
    assert [found.header, *found.rows] == [list(TABLE), *TABLE.to_numpy().tolist()]
    assert found.is_training_log


def test_tables_of_other_things_are_left():
    assert markdown_tables("| Model | MMLU |\n|---|---|\n| a | 0.5 |\n") == []


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_separated_values_of_the_csv_module_come_back(delimiter):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(TABLE)
    writer.writerows(TABLE.to_numpy())
    table = csv_table(out.getvalue(), "a.csv")
    assert csv_header(out.getvalue().splitlines()[0]).header == table.header
    assert csv_records(table) == {"": TABLE.to_dict("records")}


@pytest.mark.parametrize("line", ["name,age", "loss", '{"step": 1, "loss": 2}', "step,x"])
def test_a_header_of_something_else_is_none(line):
    assert csv_header(line) is None


def test_a_header_is_one_where_its_columns_are_the_caller_s_own():
    assert csv_header("iteration,lp", ["lp"]) is not None


def test_one_name_for_two_columns_is_refused_where_it_has_a_meaning():
    with pytest.raises(InputError, match=r"a\.csv:1: the column 'loss' stands there 2 times"):
        csv_table("step,loss,loss\n1,2,3\n", "a.csv")
    assert csv_table("step,x,x,loss\n1,2,3,4\n", "a.csv").rows == [["1", "2", "3", "4"]]


def test_a_text_column_that_repeats_names_runs_and_one_of_splits_names_splits():
    runs = pd.concat([TABLE.assign(kind="kto"), TABLE.assign(kind="ipo")])
    [table] = markdown_tables(markdown(runs))
    assert {run: len(records) for run, records in table.records_by_run().items()} == {"kto": 2, "ipo": 2}
    splits = pd.concat([TABLE.assign(kind="train"), TABLE.assign(kind="eval")])
    [table] = markdown_tables(markdown(splits))
    [records] = table.records_by_run().values()
    assert [record.get("train Loss", record.get("eval Loss")) for record in records] == [
        *TABLE["Loss"],
        *TABLE["Loss"],
    ]
    assert ["eval Loss" in record for record in records] == [False, False, True, True]
    assert all("Step" in record for record in records)


@pytest.mark.parametrize(
    "labels", [("10:00", "10:00", "10:01"), ("True", "False", "True")], ids=["time", "saved"]
)
def test_a_text_column_that_repeats_within_one_run_names_no_runs(labels):
    rows = [f"{label},{step},0.5,-1\n" for label, step in zip(labels, (10, 20, 30), strict=True)]
    table = csv_table("note,step,loss,rewards/chosen\n" + "".join(rows), "a.csv")
    assert {run: len(records) for run, records in csv_records(table).items()} == {"": 3}


def test_training_and_evaluation_at_the_same_steps_are_no_runs_by_what_is_noted_beside_them():
    text = "saved,step,loss,eval_loss\nno,10,0.5,\nyes,10,,0.6\nno,20,0.4,\nyes,20,,0.5\n"
    assert list(csv_records(csv_table(text, "a.csv"))) == [""]


@pytest.mark.parametrize("steps", [(10, 20, 10, 20), (10, 20, 5, 15)], ids=["same", "other"])
def test_a_text_column_names_runs_where_steps_begin_again(steps):
    rows = [f"{kind},{step},0.5\n" for kind, step in zip(("kto", "kto", "ipo", "ipo"), steps, strict=True)]
    table = csv_table("kind,step,loss\n" + "".join(rows), "a.csv")
    assert {run: len(records) for run, records in csv_records(table).items()} == {"kto": 2, "ipo": 2}


def test_decimal_commas_are_seen_only_where_no_cell_has_a_point():
    comma = csv_table("step;loss;rewards/chosen\n1;0,5;-1\n", "a.csv")
    both = csv_table("step;loss;rewards/chosen\n1;0,5;-1.5\n", "a.csv")
    assert (comma.decimal_comma, both.decimal_comma) == (True, False)


def test_a_long_table_is_read_in_time_that_grows_with_its_rows():
    """Whether numbers have decimal commas was once looked up in the whole table for each of its cells: 22 seconds."""
    text = "step,loss,rewards/chosen\n" + "".join(f"{k},0.5,-{k}\n" for k in range(4000))
    began = time.process_time()
    assert len(csv_records(csv_table(text, "a.csv"))[""]) == 4000
    assert time.process_time() - began < 4


def test_wandb_s_export_of_a_panel_is_apart_by_run_without_its_extremes():
    text = '"Step","a - loss","a - loss__MIN","b - loss"\n1,0.5,0.4,0.25\n'
    assert csv_records(csv_table(text, "a.csv")) == {
        "a": [{"Step": "1", "loss": "0.5"}],
        "b": [{"Step": "1", "loss": "0.25"}],
    }


@pytest.mark.parametrize(
    ("axis", "place"),
    [("trainer/global_step", "step"), ("train/epoch", "epoch"), ("Relative Time (Process)", None)],
)
def test_the_axis_of_a_panel_of_wandb_is_what_it_is_called(tmp_path, axis, place):
    """Two hours of training, measured at hours 0.5 and 2, are no steps 0 and 2."""
    path = tmp_path / "panel.csv"
    path.write_text(f'"{axis}","a - train/loss","a - train/rewards/chosen"\n0.5,0.7,-1\n2,0.6,-2\n')
    (log,) = read_logs(path)
    trained = log.split("train")
    if place == "step":
        assert list(trained.index) == [0.5, 2]
    else:
        assert (list(trained.index), log.counts) == ([1, 2], "row")
        assert ("epoch" in trained) == (place == "epoch")


def test_a_table_of_one_metric_a_row_is_turned_about():
    text = "| Metric | Train | Eval |\n|---|---|---|\n| loss | 0.5 | 0.6 |\n| rewards/chosen | -1 | -2 |\n"
    [table] = markdown_tables(text)
    assert dict(zip(table.header, table.rows[0], strict=True)) == {
        "train loss": "0.5", "train rewards/chosen": "-1", "eval loss": "0.6", "eval rewards/chosen": "-2",
    }  # fmt: skip


def test_a_table_without_bars_is_known_by_its_columns():
    text = "Training Loss Epoch Step Validation Loss Rewards/chosen\n"
    text += "No log 0.5 10 0.6 -1.5\n0.5 1.0 20 0.4 -2\nend of it\n"
    [table] = spaced_tables(text)
    assert table.header == ["Training Loss", "Epoch", "Step", "Validation Loss", "Rewards/chosen"]
    assert table.rows == [["-", "0.5", "10", "0.6", "-1.5"], ["0.5", "1.0", "20", "0.4", "-2"]]

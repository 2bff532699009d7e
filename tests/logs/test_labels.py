"""Columns that name the split or the run of a row: one log in every form comes back as it was written."""

from __future__ import annotations

import csv
import io
import json

import pandas as pd
import pytest

from rewardshape.errors import InputError
from rewardshape.logs import read_logs
from rewardshape.logs.labels import are_splits, by_their_splits, of_split, split_of

STEPS = list(range(10, 110, 10))
TRAINED = [{"step": step, "loss": 0.7 - step / 500, "rewards/chosen": -step / 300} for step in STEPS]
EVALUATED = [{"step": step, "loss": 0.69 - step / 600, "rewards/chosen": -step / 400} for step in (50, 100)]
ROWS = sorted(
    [{"split": "train", **row} for row in TRAINED] + [{"split": "eval", **row} for row in EVALUATED],
    key=lambda row: row["step"],
)


def as_csv(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def by_lists(rows):
    return {key: [row[key] for row in rows] for key in rows[0]}


def prose(line, evaluated):
    """One line a row: `line` of training, `evaluated` of the evaluation."""
    return "\n".join((line if row["split"] == "train" else evaluated).format(**row) for row in ROWS)


NUMBERS = "loss: {loss} | rewards/chosen: {rewards/chosen}"
BEFORE = "2024-05-01 12:00:00,123 - INFO - "


@pytest.mark.parametrize(
    "text",
    [
        as_csv(ROWS),
        "".join(json.dumps(row) + "\n" for row in ROWS),
        "".join(json.dumps({**row, "split": row["split"].replace("eval", "validation")}) + "\n" for row in ROWS),
        json.dumps(ROWS),
        json.dumps({"train": TRAINED, "eval": EVALUATED}),
        json.dumps({"train": by_lists(TRAINED), "eval": by_lists(EVALUATED)}),
        json.dumps(by_lists(TRAINED) | {f"eval_{key}": values for key, values in by_lists(EVALUATED).items()}),
        prose(BEFORE + "step {step} | " + NUMBERS, BEFORE + "step {step} [eval] | " + NUMBERS),
        prose(BEFORE + "Step {step} | " + NUMBERS, BEFORE + "Validation @ step {step} | " + NUMBERS),
        prose("[rank0]: step {step}: " + NUMBERS, "[rank0]: Eval: " + NUMBERS),
        prose("(worker pid=41) INFO: step {step} | " + NUMBERS, "(worker pid=41) INFO: Eval | " + NUMBERS),
    ],
    ids=[
        "csv", "lines", "lines of another word", "rows", "rows by split", "columns by split", "columns of two lengths",
        "after the step", "before the step", "rank", "worker",
    ],
)  # fmt: skip
def test_both_splits_come_back(text, tmp_path):
    (tmp_path / "log").write_text(text, encoding="utf-8")
    [log] = read_logs(tmp_path / "log")
    for split, rows in (("train", TRAINED), ("eval", EVALUATED)):
        found = log.split(split)
        assert list(found.index) == [row["step"] for row in rows]
        assert found["loss"].tolist() == [row["loss"] for row in rows]
        assert found["reward_chosen"].tolist() == [row["rewards/chosen"] for row in rows]


def test_rows_by_their_step_have_it(tmp_path):
    rows = {row["step"]: {"loss": row["loss"], "epoch": row["step"] / 100} for row in TRAINED}
    (tmp_path / "log").write_text(json.dumps(rows), encoding="utf-8")
    [log] = read_logs(tmp_path / "log")
    assert log.split("train")["loss"].to_dict() == {row["step"]: row["loss"] for row in TRAINED}


SEEDS = [{"seed": seed, **row, "loss": row["loss"] + seed} for row in TRAINED for seed in (0, 1)]
FINAL = [
    {
        "Name": f"dpo-{n}",
        "State": "finished",
        "train/global_step": 900,
        "eval/loss": 0.5 + n,
        "eval/rewards/chosen": -n,
    }
    for n in (1, 2, 3)
]


@pytest.mark.parametrize("text", [as_csv(SEEDS), "".join(json.dumps(row) + "\n" for row in SEEDS)])
def test_each_seed_is_a_run(text, tmp_path):
    (tmp_path / "log").write_text(text, encoding="utf-8")
    logs = read_logs(tmp_path / "log")
    assert [log.part for log in logs] == ["seed 0", "seed 1"]
    for seed, log in enumerate(logs):
        assert log.split("train")["loss"].tolist() == [row["loss"] + seed for row in TRAINED]


def test_of_a_table_with_a_row_for_each_run_every_row_is_one(tmp_path):
    (tmp_path / "runs.csv").write_text(as_csv(FINAL), encoding="utf-8")
    logs = read_logs(tmp_path / "runs.csv")
    assert {log.part: log.split("eval")["loss"].tolist() for log in logs} == {
        row["Name"]: [row["eval/loss"]] for row in FINAL
    }
    along = [{"model": f"checkpoint-{row['step']}", **row} for row in TRAINED]
    (tmp_path / "one.csv").write_text(as_csv(along), encoding="utf-8")
    [log] = read_logs(tmp_path / "one.csv")  # one run, each of whose rows has a name
    assert len(log.split("train")) == len(TRAINED)


def test_a_column_that_is_named_and_not_there_is_said_and_one_that_is_goes_before_its_namesake(tmp_path):
    (tmp_path / "a.csv").write_text(
        "step,loss,rewards/chosen,mine\n1,0.7,0.1,0.5\n2,0.6,0.2,0.4\n", encoding="utf-8"
    )
    [log] = read_logs(tmp_path / "a.csv", {"loss": "mine"})
    assert log.split("train")["loss"].tolist() == [0.5, 0.4]
    with pytest.raises(
        InputError, match=r"a\.csv has no column 'mien'; it has step, loss, rewards/chosen, mine"
    ):
        read_logs(tmp_path / "a.csv", {"loss": "mien"})
    (tmp_path / "a.log").write_text(
        "{'loss': 0.7, 'rewards/chosen': 0.1}\n{'loss': 0.6, 'rewards/chosen': 0.2}\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match=r"--columns: a\.log is a stdout with dict lines"):
        read_logs(tmp_path / "a.log", {"loss": "mine"})


def test_words_and_names_of_splits():
    assert [split_of(word) for word in ("train", "val", "validation", "run-3")] == [
        "train",
        "eval",
        "eval",
        None,
    ]
    assert are_splits(["train", "eval", "summary"])
    assert not are_splits(["train", "other"])
    assert [of_split(name, "eval") for name in ("loss", "train_loss", "step", "x")] == [
        "eval loss",
        "train_loss",
        "step",
        "x",
    ]
    frame = pd.DataFrame(ROWS).to_dict("records")
    assert by_their_splits(frame)[0] == {
        "split": "train",
        "step": 10,
        "train loss": TRAINED[0]["loss"],
        "train rewards/chosen": -10 / 300,
    }
    assert by_their_splits(TRAINED) == TRAINED
    assert by_their_splits([]) == []


def test_two_words_for_one_split_are_both_read(tmp_path):
    text = json.dumps({"train": TRAINED, "validation": EVALUATED[:1], "test": EVALUATED[1:]})
    (tmp_path / "log").write_text(text, encoding="utf-8")
    [log] = read_logs(tmp_path / "log")
    assert list(log.split("eval").index) == [50, 100]

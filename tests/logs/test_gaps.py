"""A NaN that pandas wrote into an empty cell is none that was logged, and one that was logged is not lost."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from rewardshape.logs import read_logs
from rewardshape.logs.gaps import without_gaps

NAN = math.nan
HISTORY = pd.DataFrame(
    [
        record
        for k in range(1, 21)
        for record in [
            {
                "train/loss": 0.5,
                "train/rewards/chosen": -k / 10,
                "train/learning_rate": 1e-6,
                "train/global_step": k,
            },
            *(
                [{"eval/loss": 0.6, "eval/rewards/chosen": -k / 9, "train/global_step": k}]
                if k % 5 == 0
                else []
            ),
        ]
    ]
    + [{"train/train_runtime": 9.0, "train/train_loss": 0.55, "train/global_step": 20}]
)
HEAD, *LINES = HISTORY.to_csv(index=False, na_rep="nan").splitlines()
MARKDOWN = "\n".join(
    f"| {line.replace(',', ' | ')} |" for line in [HEAD, ",".join(["---"] * HISTORY.shape[1]), *LINES]
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("h.json", json.dumps(HISTORY.to_dict("records"))),
        ("h.json", json.dumps(HISTORY.to_dict("list"))),
        ("h.csv", HISTORY.to_csv(na_rep="NaN")),
        ("h.md", MARKDOWN),
    ],
    ids=["records", "lists", "csv", "markdown"],
)
def test_a_healthy_history_has_its_rows_and_no_nan(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    (log,) = read_logs(path)
    assert (len(log.split("train")), len(log.split("eval"))) == (20, 4)
    assert len(log.nonfinite) == 0
    assert not log.table["loss"].isna().any()


def test_a_nan_beside_numbers_of_its_split_was_logged(tmp_path):
    rows = HISTORY.copy()
    rows.loc[10, "train/rewards/chosen"] = NAN
    path = tmp_path / "h.csv"
    path.write_text(rows.to_csv(na_rep="NaN"))
    (log,) = read_logs(path)
    step = HISTORY.loc[10, "train/global_step"]
    assert log.nonfinite.to_dict("records") == [{"split": "train", "step": step, "series": "reward_chosen"}]


def test_a_run_of_which_everything_becomes_nan_is_not_cut_there():
    """Nothing but columns that stand beside the numbers, too, explains the NaN: it was logged."""
    rows = [{"step": k, "loss": 0.5, "rewards/chosen": -1.0, "lr": 1e-6, "time": k} for k in range(4)]
    dead = [row | {"loss": NAN, "rewards/chosen": NAN, "step": row["step"] + 4} for row in rows]
    assert without_gaps([*rows, *dead]) == [*rows, *dead]
    assert without_gaps(dead) == dead


def test_records_of_different_keys_are_left_as_they_are():
    rows = [{"step": 1, "loss": NAN}, {"step": 2, "eval_loss": 0.5}]
    assert without_gaps(rows) is rows

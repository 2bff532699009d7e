"""Runs in one file are told apart, a resumed run keeps its later copy, and nothing else is taken for either."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from rewardshape.logs import read_logs
from rewardshape.logs.rows import Rows, runs_of

SUMMARY = {"train_runtime": 100.0, "train_samples_per_second": 3.0, "train_loss": 0.3, "epoch": 1.0}


def record(epoch, *, evaluated=False, **more):
    loss = {"eval_loss" if evaluated else "loss": 0.7 - 0.1 * epoch}
    return loss | {"eval_rewards/chosen" if evaluated else "rewards/chosen": -epoch, "epoch": epoch} | more


def read(tmp_path, records):
    path = tmp_path / "train.log"
    path.write_text("\n".join(map(str, records)))
    return read_logs(path)


RUN = [
    record(0.25),
    record(0.5),
    record(0.5, evaluated=True),
    record(0.75),
    record(1.0),
    record(1.0, evaluated=True),
]


def test_a_summary_ends_a_run(tmp_path):
    first, second = read(tmp_path, [*RUN, SUMMARY, *RUN[:4]])
    assert (len(first.split("train")), len(first.split("eval"))) == (4, 2)
    assert (len(second.split("train")), len(second.split("eval"))) == (3, 1)


HISTORY = pd.DataFrame(
    [
        {"step": 10 * k, "epoch": k / 20} | row
        for k in range(1, 21)
        for row in [
            {"loss": 0.7 - k / 100, "rewards/chosen": -k / 10},
            *([{"eval_loss": 0.7 - k / 110, "eval_rewards/chosen": -k / 9}] if k % 5 == 0 else []),
        ]
    ]
    + [SUMMARY | {"step": 200}]
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("h.csv", HISTORY.to_csv()),
        ("h.jsonl", HISTORY.to_json(orient="records", lines=True)),
        ("h.json", json.dumps([row.dropna().to_dict() for _, row in HISTORY.iterrows()])),
    ],
)
def test_a_column_of_the_summary_makes_no_summary_of_the_rows_without_a_value_in_it(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    (log,) = read_logs(path)
    assert (len(log.split("train")), len(log.split("eval"))) == (20, 4)
    assert log.split("train")["reward_chosen"].iloc[-1] == -2.0
    assert log.split("eval")["reward_chosen"].iloc[-1] == pytest.approx(-20 / 9)


def test_the_mean_loss_of_a_run_is_not_its_last_loss_where_wandb_and_tensorboard_write_it(tmp_path):
    """wandb has the summary as a record of its own, TensorBoard in one with the true last step."""
    steps = [
        {"train/global_step": k, "train/loss": 0.7 - k / 100, "train/rewards/chosen": -k} for k in (1, 2, 3)
    ]
    summary = {"train/global_step": 3, "train/train_loss": 0.9, "train/train_runtime": 9.0}
    path = tmp_path / "history.jsonl"
    for records in ([*steps, summary], [*steps[:2], summary | steps[2]], [*steps[:2], steps[2] | summary]):
        path.write_text("\n".join(map(json.dumps, records)))
        (log,) = read_logs(path)
        assert log.split("train")["loss"].tolist() == pytest.approx([0.69, 0.68, 0.67])
        assert log.split("train")["reward_chosen"].tolist() == [-1, -2, -3]


def test_what_is_evaluated_after_the_summary_belongs_to_the_run_that_ended(tmp_path):
    first, second = read(tmp_path, [*RUN, SUMMARY, record(1.0, evaluated=True, eval_runtime=3.0), *RUN])
    assert len(first.split("train")) == len(second.split("train")) == 4
    assert first.split("eval")["reward_chosen"].iloc[-1] == -1.0


def test_an_epoch_that_goes_back_to_the_start_begins_another_run(tmp_path):
    first, second = read(tmp_path, [*RUN, *RUN])
    assert len(first.split("train")) == len(second.split("train")) == 4
    assert first.name.endswith("run 1")


def test_a_resumed_run_keeps_the_later_copy(tmp_path):
    """Stopped at epoch 1, resumed from epoch 0.5: 0.75 and 1 are written again, and what they were before is gone."""
    again = [record(0.75, logged=2), record(0.8), record(0.8, evaluated=True)]
    (log,) = read(tmp_path, [*RUN, *again])
    assert log.split("train")["epoch"].tolist() == [0.25, 0.5, 0.75, 0.8]
    assert log.split("eval")["epoch"].tolist() == [0.5, 0.8]
    assert "3 rows logged more than once" in " ".join(log.notes)  # 0.75, 1.0 and the evaluation at 1.0


def test_a_real_stdout_twice_in_one_file_is_two_runs(shared):
    logs = read_logs(shared / "findings" / "inputs" / "logs" / "07a-two-runs-merged.log")
    assert [(len(log.split("train")), len(log.split("eval"))) for log in logs] == [(21, 4), (21, 4)]
    np.testing.assert_array_equal(logs[0].table["loss"], logs[1].table["loss"])


@pytest.mark.parametrize("steps", [[40, 30, 20, 10], [10, 30, 20, 40, 25, 50, 15]])
def test_a_table_that_is_not_in_order_of_time_loses_no_row(tmp_path, steps):
    path = tmp_path / "log.csv"
    path.write_text("step,loss,rewards/chosen\n" + "".join(f"{k},0.5,{-k}\n" for k in steps))
    (log,) = read_logs(path)
    assert log.split("train")["reward_chosen"].to_dict() == {k: -float(k) for k in sorted(steps)}


def test_training_rows_before_evaluation_rows_are_one_run(tmp_path):
    rows = [{"step": k, "loss": 0.5, "rewards/chosen": -k} for k in range(10, 60, 10)]
    rows += [{"step": k, "eval_loss": 0.5, "eval_rewards/chosen": -k} for k in (20, 40)]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (log,) = read_logs(path)
    assert (len(log.split("train")), len(log.split("eval"))) == (5, 2)


def test_two_files_of_one_trainer_are_one_run_and_of_two_trainers_two():
    def rows(*steps):
        return Rows.of([{"step": k, "loss": 0.5} for k in steps])

    (run,) = runs_of(rows(10, 20, 30, 40, 30, 40, 50), one_run=False)
    assert (run.rows.tolist(), run.replaced) == ([0, 1, 4, 5, 6], 2)
    assert len(runs_of(rows(10, 20, 30, 40, 10, 20, 30), one_run=False)) == 2
    assert len(runs_of(rows(10, 20, 30, 40, 10, 20, 30), one_run=True)) == 1


def test_a_resumed_run_is_not_cut_at_its_first_evaluation():
    """Stopped at step 100 and resumed from 30: its first evaluation falls back to where evaluations began."""

    def attempt(first):
        return [
            row
            for k in range(first, 110, 10)
            for row in [{"step": k, "loss": 0.5}, *([{"step": k, "eval_loss": 0.6}] if k % 50 == 0 else [])]
        ]

    (run,) = runs_of(Rows.of([*attempt(10), *attempt(40)]), one_run=False)
    assert (run.rows.tolist(), run.replaced) == ([0, 1, 2, *range(12, 21)], 9)
    assert len(runs_of(Rows.of([*attempt(10), *attempt(10)]), one_run=False)) == 2
    assert len(runs_of(Rows.of([*attempt(10), *attempt(40), *attempt(10)]), one_run=False)) == 2


def test_a_value_logged_as_nan_keeps_its_row_and_its_step(tmp_path):
    """The usual look of a dead run: rewards NaN, loss 0 by the trainer's NaN filter."""
    dead = [
        {"loss": 0.0, "rewards/chosen": float("nan"), "logits/chosen": float("inf"), "epoch": e}
        for e in (1.25, 1.5)
    ]
    (log,) = read(tmp_path, [*RUN, *dead])
    trained = log.split("train")
    assert len(trained) == 6
    assert trained["reward_chosen"].isna().tolist() == [False] * 4 + [True] * 2
    assert trained["loss"].tolist()[-2:] == [0.0, 0.0]
    found = {(row.step, row.series) for row in log.nonfinite.itertuples()}
    assert found == {(k, name) for k in (5, 6) for name in ("reward_chosen", "logits/chosen")}


def test_a_series_that_is_nan_in_every_row_is_there(tmp_path):
    (log,) = read(tmp_path, [{"loss": 0.0, "rewards/chosen": float("nan"), "epoch": e} for e in (0.1, 0.2)])
    assert log.split("train")["reward_chosen"].isna().all()
    assert len(log.nonfinite) == 2


@pytest.mark.parametrize("seed", range(12))
def test_a_run_that_is_killed_and_resumed_at_random_is_read_as_its_last_state(tmp_path, seed):
    """Simulated: killed anywhere, resumed from the last checkpoint, five times at most; the last attempt counts."""
    draw = np.random.default_rng(seed)
    total, every, checkpoint = (
        int(draw.integers(60, 200)),
        int(draw.integers(1, 6)),
        int(draw.integers(7, 20)),
    )
    lines, truth, start, attempt = [], {}, 0, 0
    while start < total and attempt < 5:
        attempt += 1
        last = total if draw.random() < 0.3 else int(draw.integers(start + 1, total + 1))
        truth = {step: value for step, value in truth.items() if step <= start}
        for step in range(start + 1, last + 1):
            if step % every == 0 or step == 1:
                truth[step] = attempt + step / 1000
                lines.append(
                    {
                        "loss": 0.5,
                        "rewards/chosen": truth[step],
                        "step": step,
                        "epoch": round(step / total, 2),
                    }
                )
        start = total if last == total else last - last % checkpoint
        if start == 0:  # nothing to resume from: the same as a new run, which is told apart
            lines, truth = [], {}
    (log,) = read(tmp_path, lines)
    assert log.split("train")["reward_chosen"].to_dict() == pytest.approx(truth)

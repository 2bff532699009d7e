"""A card's table, what is printed beside it, and its list of results are read together."""

from __future__ import annotations

import json

from rewardshape.logs import read_logs

HEAD = (
    "| Epoch | Step | Training Loss | Validation Loss | Rewards/chosen | Rewards/margins |\n"
    + "|---" * 6
    + "|\n"
)
ROWS = [
    "| 0.5 | 100 | 0.65 | 0.6413 | -0.2511 | 0.1802 |\n",
    "| 0.9 | 180 | 0.61 | 0.6102 | -0.5013 | 0.3304 |\n",
]
RESULTS = (
    "This model achieves the following results on the evaluation set:\n"
    "- Loss: {loss}\n- Rewards/chosen: {chosen}\n- Rewards/margins: {margin}\n- Logps/chosen: -120.5\n\n"
    "- num_epochs: {epochs}\n\n"
)


def read(tmp_path, text, name="card.md"):
    path = tmp_path / name
    path.write_text(text)
    return read_logs(path)


def test_results_that_fit_no_row_are_the_evaluation_at_the_end(tmp_path):
    card = RESULTS.format(loss=0.58, chosen=-0.8, margin=0.5, epochs=1.0) + HEAD + "".join(ROWS)
    (log,) = read(tmp_path, card)
    evaluated = log.split("eval")
    assert list(evaluated.index) == [100, 180, 200]  # one epoch of 200 steps
    assert evaluated.loc[200, ["loss", "reward_chosen", "margin", "logp_chosen"]].tolist() == [
        0.58,
        -0.8,
        0.5,
        -120.5,
    ]


def test_results_that_are_a_row_complete_it(tmp_path):
    card = RESULTS.format(loss=0.6102, chosen=-0.5013, margin=0.3304, epochs=1.0) + HEAD + "".join(ROWS)
    (log,) = read(tmp_path, card)
    assert log.split("eval")["logp_chosen"].dropna().to_dict() == {180: -120.5}


def test_results_without_a_place_are_left_out_and_named(tmp_path):
    card = RESULTS.format(loss=0.58, chosen=-0.8, margin=0.5, epochs="unknown") + HEAD + "".join(ROWS)
    (log,) = read(tmp_path, card)
    assert len(log.split("eval")) == 2
    assert "fits no row" in " ".join(log.notes)


def test_a_fenced_record_beside_a_table_completes_its_row(shared):
    (log,) = read_logs(shared / "findings" / "inputs" / "logs" / "08-orpo-gamma-and-silent-ends.md")
    last = log.split("train").loc[100]
    assert (last["reward_chosen"], last["logp_chosen"], last["logp_rejected"]) == (-0.0346, -0.6921, -0.3752)
    assert last["margin"] == -0.0158
    assert log.split("train")["reward_chosen"].notna().sum() == 1


def test_a_fenced_record_of_another_run_is_a_log_of_its_own(tmp_path):
    text = (
        HEAD
        + "".join(ROWS)
        + "\n```\n{'loss': 0.3, 'rewards/chosen': -9.0, 'rewards/margins': 4.0, 'epoch': 3.0}\n```\n"
    )
    table, printed = read(tmp_path, text)
    assert len(table.split("eval")) == 2
    assert printed.split("train")["reward_chosen"].tolist() == [-9.0]


def test_a_table_that_stands_there_twice_is_read_once(tmp_path):
    """A notebook of which a cell ran twice."""
    html = "<table><tr><th>Step</th><th>Training Loss</th><th>Rewards/chosen</th></tr>" + "".join(
        f"<tr><td>{k}</td><td>0.6</td><td>-{k}</td></tr>" for k in (1, 2, 3)
    )
    cell = {
        "cell_type": "code",
        "outputs": [{"output_type": "display_data", "data": {"text/html": [html, "</table>"]}}],
    }
    (log,) = read(tmp_path, json.dumps({"nbformat": 4, "cells": [cell, cell]}), "run.ipynb")
    assert len(log.split("train")) == 3
    assert "more than once was read once" in " ".join(log.notes)


def test_two_tables_with_one_caption_have_two_names(tmp_path):
    other = [row.replace("0.65", "0.66").replace("0.61", "0.62") for row in ROWS]
    names = [
        log.name
        for log in read(tmp_path, "# Results\n" + HEAD + "".join(ROWS) + "\n" + HEAD + "".join(other))
    ]
    assert names == ["card.md · Results", "card.md · Results (2)"]


def test_a_single_table_of_final_metrics_is_read(tmp_path):
    (log,) = read(
        tmp_path,
        '{"final_loss": 0.689, "steps": 33, "final_reward_chosen": -0.004, "final_reward_rejected": -0.013}',
    )
    assert log.split("train").loc[33, ["loss", "reward_chosen", "reward_rejected"]].tolist() == [
        0.689,
        -0.004,
        -0.013,
    ]
    (log,) = read(
        tmp_path,
        "| Metric | Value |\n|---|---|\n| Loss | 0.61 |\n| Rewards/chosen | -0.5 |\n| Rewards/margins | 0.3 |\n",
    )
    assert log.table[["loss", "reward_chosen", "margin"]].to_numpy().tolist() == [[0.61, -0.5, 0.3]]


def test_tables_without_a_line_between_them_are_two(tmp_path):
    first, second = read(tmp_path, HEAD + ROWS[0] + HEAD + ROWS[1])
    assert (first.split("eval").index.tolist(), second.split("eval").index.tolist()) == ([100], [180])


def test_final_metrics_of_several_runs_side_by_side_are_several_logs(tmp_path):
    text = "| Metric | DPO | SimPO |\n|---|---|---|\n| Loss | 0.5 | 1.2 |\n| Rewards/chosen | -0.5 | -2.5 |\n"
    first, second = read(tmp_path, text)
    assert (first.name, second.name) == ("card.md · DPO", "card.md · SimPO")
    assert second.table[["loss", "reward_chosen"]].to_numpy().tolist() == [[1.2, -2.5]]


def test_a_column_that_names_splits_is_read_and_a_summary_row_left_out(tmp_path):
    text = (
        "| # | Epoch | Type | Loss | rewards/chosen |\n|---|---|---|---|---|\n| 1 | 0.23 | Train | 0.69 | 0.004 |\n"
        "| 2 | 1.15 | Train | 0.52 | 0.040 |\n| 3 | 1.15 | Eval | 0.47 | 0.030 |\n| 4 | 1.38 | Train | 0.41 | 0.072 |\n"
        "| 5 | 2.00 | Train Summary | 0.48 | - |\n"
    )
    (log,) = read(tmp_path, text)
    assert log.split("train")["loss"].tolist() == [0.69, 0.52, 0.41]
    assert log.split("eval")["reward_chosen"].tolist() == [0.030]


def test_an_evaluation_printed_beside_a_table_without_one_is_of_its_run(tmp_path):
    head = "| segment | loss | reward margin | chosen reward |\n|---|---|---|---|\n"
    table = head + "| early | 0.36 | 1.4 | 0.3 |\n| late | 0.04 | 7.5 | 0.2 |\n"
    final = {"epoch": 2.0, "eval_loss": 0.268, "eval_rewards/chosen": -0.394, "eval_rewards/margins": 5.165}
    (log,) = read(tmp_path, table + f"\nFinal metrics: {final}\n")
    assert log.split("train")["reward_chosen"].tolist() == [0.3, 0.2]
    assert log.split("eval")["reward_chosen"].tolist() == [-0.394]


def test_final_metrics_beside_a_training_log_are_no_run_of_their_own(tmp_path):
    final = "\n| Metric | Value |\n|---|---|\n| DPO Train Loss (final) | 0.6308 |\n| Reward Margin (final) | 0.1925 |\n"
    (log,) = read(tmp_path, HEAD + "".join(ROWS) + final)
    assert len(log.split("eval")) == 2


def test_a_table_with_windows_line_ends_is_read(tmp_path):
    path = tmp_path / "README.md"
    path.write_bytes(
        b"# M\r\n\r\n| Step | Training Loss | Rewards/chosen |\r\n|---|---|---|\r\n| 10 | 0.5 | -1 |\r\n"
        b"| 20 | 0.4 | -2 |\r\n"
    )
    (log,) = read_logs(path)
    assert log.split("train")["reward_chosen"].to_dict() == {10: -1.0, 20: -2.0}

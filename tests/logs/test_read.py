"""Every form of log is recognised by its content, real faults are repaired, and the rest is refused in one line."""

from __future__ import annotations

import json
import math
import re

import pytest

from rewardshape.errors import InputError
from rewardshape.logs.read import read_logs

# Three training rows and one evaluation as TRL writes them; the forms below are ways to write these same rows.
TRAIN = [
    {"loss": 0.6931, "grad_norm": 2.5, "learning_rate": 1e-6, "rewards/chosen": 0.0, "rewards/rejected": 0.0,
     "rewards/accuracies": 0.0, "rewards/margins": 0.0, "logps/chosen": -120.5, "logps/rejected": -130.25,
     "logits/chosen": -1.5, "epoch": 0.1, "step": 10},
    {"loss": 0.6, "grad_norm": 2.0, "learning_rate": 9e-7, "rewards/chosen": -0.25, "rewards/rejected": -0.5,
     "rewards/accuracies": 0.75, "rewards/margins": 0.25, "logps/chosen": -118.0, "logps/rejected": -133.0,
     "logits/chosen": -1.5, "epoch": 0.2, "step": 20},
    {"loss": 0.5, "grad_norm": 1.5, "learning_rate": 8e-7, "rewards/chosen": -0.5, "rewards/rejected": -1.25,
     "rewards/accuracies": 0.8, "rewards/margins": 0.75, "logps/chosen": -121.0, "logps/rejected": -140.0,
     "logits/chosen": -1.5, "epoch": 0.3, "step": 30},
]  # fmt: skip
EVAL = {"eval_loss": 0.55, "eval_rewards/chosen": -0.375, "eval_rewards/rejected": -1.0, "eval_runtime": 12.0,
        "eval_rewards/accuracies": 0.78, "eval_rewards/margins": 0.625, "eval_logps/chosen": -119.0,
        "eval_logps/rejected": -135.0, "epoch": 0.3, "step": 30}  # fmt: skip
SUMMARY = {
    "train_runtime": 99.0,
    "train_samples_per_second": 1.0,
    "train_loss": 0.6,
    "rewards/chosen": -9.0,
    "epoch": 1.0,
}


def read(tmp_path, text, name="log", **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_logs(path, **options)


def without(record, *keys):
    return {key: value for key, value in record.items() if key not in keys}


def trainer_state():
    return json.dumps(
        {"best_metric": None, "global_step": 30, "log_history": [*TRAIN, EVAL, SUMMARY]}, indent=2
    )


def stdout(record_of=lambda record: without(record, "step")):
    """What a terminal shows: bars that share the line with the record, warnings and other dictionaries between."""
    lines = [
        "Tokenizing: 100%|##| 999/999 [00:25<00:00]",
        "Updated tokens: {'eos_token_id': 1, 'pad_token_id': 2}.",
    ]
    for record in TRAIN:
        done = record["step"]
        bars = "\r".join(f" {k}%|#| {k}/90 [00:0{k % 9}<01:00]" for k in range(done - 9, done + 1))
        lines.append(f"{bars}\r   {record_of(record)}")
    lines += [
        "  0%|  | 1/66 [00:01<00:02]\r100%|##| 66/66 [00:02<00:00]" + str(record_of(EVAL)),
        str(SUMMARY),
    ]
    return "\n".join(lines)


def quoted(record):
    return {key: str(value) for key, value in without(record, "step").items()}


def reference_dpo():
    lines = [
        "eval after 0: {'rewards_eval/chosen': '0', 'logps_eval/chosen': '-119.5', 'loss/eval': '0.69315'}",
        "=" * 50,
    ]
    for record in TRAIN:
        done = record["step"]
        renamed = {
            f"{key.split('/')[0]}_train/{key.split('/')[1]}": str(value)
            for key, value in record.items()
            if key.startswith(("rewards", "logps"))
        } | {"loss/train": str(record["loss"]), "grad_norm": str(record["grad_norm"])}
        renamed |= {"counters/examples": 32 * done, "counters/updates": done}
        lines.append(f"train stats after {32 * done} examples: {renamed}")
    lines.append(
        "eval after 960: {'rewards_eval/chosen': '-0.375', 'logps_eval/chosen': '-119', 'loss/eval': '0.55'}"
    )
    return "\n".join(lines)


def trainer_log():
    rows = [
        {"current_steps": r["step"], "total_steps": 90, "loss": r["loss"], "accuracy": r["rewards/accuracies"],
         "lr": r["learning_rate"], "epoch": r["epoch"], "percentage": 11.1, "elapsed_time": "0:01:58"}
        for r in TRAIN
    ]  # fmt: skip
    rows.append(
        {"current_steps": 30, "total_steps": 90, "eval_loss": 0.55, "epoch": 0.3, "remaining_time": "0:00:10"}
    )
    return "\n".join(map(json.dumps, rows))


def wandb_history():
    rows = [
        {"_step": i, "_runtime": 1.5, "train/global_step": record["step"]}
        | {f"train/{key}": value for key, value in without(record, "step").items()}
        for i, record in enumerate(TRAIN)
    ]
    rows.append({"_step": 3, "train/global_step": 30, "eval/loss": 0.55, "eval/rewards/chosen": -0.375,
                 "gradients/layer": {"_type": "histogram", "bins": [1, 2]}})  # fmt: skip
    return "\n".join(map(json.dumps, rows))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (trainer_state(), "Hugging Face trainer_state.json"),
        (stdout(), "stdout with dict lines"),
        (stdout(quoted), "stdout with dict lines"),
        (reference_dpo(), "reference DPO stdout"),
        (trainer_log(), "LLaMA-Factory trainer_log.jsonl"),
        (wandb_history(), "wandb history"),
    ],
    ids=["trainer_state", "stdout", "quoted-stdout", "reference-dpo", "llama-factory", "wandb-jsonl"],
)
def test_the_same_rows_are_read_from_every_form(tmp_path, text, form):
    (log,) = read(tmp_path, text)
    trained, evaluated = log.split("train"), log.split("eval")
    assert log.form == form
    assert list(trained.index) == [10, 20, 30]
    assert trained["loss"].tolist() == [0.6931, 0.6, 0.5]
    assert evaluated.loc[30, "loss"] == 0.55
    if "reward_chosen" in trained:
        assert trained["reward_chosen"].tolist() == [0.0, -0.25, -0.5]
        assert evaluated.loc[30, "reward_chosen"] == -0.375


def test_a_speed_in_steps_does_not_make_json_lines_a_history_of_wandb(tmp_path):
    rows = [record | {"train_steps_per_second": 2.0} for record in TRAIN]
    (log,) = read(tmp_path, "\n".join(map(json.dumps, rows)))
    assert log.form == "JSON lines"


def test_the_final_summary_of_a_trainer_is_no_training_row(tmp_path):
    (log,) = read(tmp_path, stdout())
    assert log.split("train")["reward_chosen"].min() == -0.5


def test_steps_come_from_training_s_progress_bar_and_not_from_another(tmp_path):
    (log,) = read(tmp_path, stdout())
    assert list(log.split("eval").index) == [30]  # not 66, the evaluation loop's own bar


def test_rare_progress_bars_calibrate_steps_per_epoch(tmp_path):
    lines = []
    for k in range(1, 9):
        lines.append(str({"loss": 0.7 - 0.01 * k, "rewards/chosen": -0.1 * k, "epoch": round(0.08 * k, 2)}))
        if k == 4:
            lines.append(" 10%|#  | 40/400 [18:45<1:45, 19 s/it]/lib/python/warnings.py: a warning")
    (log,) = read(tmp_path, "\n".join(lines))
    assert list(log.split("train").index) == [10, 20, 30, 40, 50, 60, 70, 80]


def test_a_record_wrapped_in_the_middle_of_a_number_is_read(tmp_path):
    line = str(TRAIN[1] | {"rewards/chosen": -0.2512345678})
    cut = line.index("0.2512345678") + 6
    (log,) = read(tmp_path, line[:cut] + "\n" + line[cut:] + "\n" + str(TRAIN[2]))
    assert log.split("train")["reward_chosen"].tolist() == [-0.2512345678, -0.5]


CARD = """# a model

- Loss: 0.55
- Rewards/chosen: -0.5

### Training results

| Training Loss | Epoch | Step | Validation Loss | Rewards/chosen | Rewards/rejected | Logps/chosen |        |
|:-------------:|:-----:|:----:|:---------------:|:--------------:|:----------------:|:------------:|:------:|
| No log        | 0.1   | 100  | 0.6             | -0.25          | **-0.5**         | −120.0       | 5.4    |
| 0.58          | 0.2   | 200  | 0.55            | -0.5           | -1.25            | -122.0       | 7.1    |

| Setting | Value |
|---------|-------|
| beta    | 0.1   |
"""


def test_a_model_card_s_columns_belong_to_the_evaluation_set(tmp_path):
    (log,) = read(tmp_path, CARD)
    assert log.split("eval")["reward_chosen"].tolist() == [-0.25, -0.5]
    assert log.split("eval")["logp_chosen"].tolist() == [-120.0, -122.0]
    assert log.split("eval")["reward_rejected"].tolist() == [-0.5, -1.25]
    assert log.split("train")["loss"].dropna().tolist() == [0.58]


def test_a_table_without_its_outer_bars_is_read_alike(tmp_path):
    bare = "\n".join(line.strip("| ") if line.startswith("|") else line for line in CARD.splitlines())
    (log,) = read(tmp_path, bare)
    assert log.split("eval")["reward_chosen"].tolist() == [-0.25, -0.5]


def test_a_table_copied_from_a_rendered_page_is_read(tmp_path):
    text = (
        "Training results\n\nTraining Loss Epoch Step Validation Loss Rewards/chosen Rewards/rejected Logps/chosen\n"
        "No log 0.1 50 1.25 -2.5 -3.0 -1.0\n1.6 0.2 100 1.0 -3.0 -4.0 -1.2\nFramework versions\n"
    )
    (log,) = read(tmp_path, text)
    assert log.split("eval")["reward_chosen"].to_dict() == {50: -2.5, 100: -3.0}
    assert log.split("train")["loss"].dropna().to_dict() == {100: 1.6}


def test_decimal_commas_are_understood(tmp_path):
    head = "| Epoch | Validation loss | Rewards/chosen |\n|---|---|---|\n"
    text = head + "| 1 | 1,864919 | -0,106697 |\n| 2 | 1,8175 | -0,1039 |"
    (log,) = read(tmp_path, text)
    assert log.split("eval")["reward_chosen"].tolist() == [-0.106697, -0.1039]


def test_several_tables_and_several_runs_in_a_table_become_several_logs(tmp_path):
    table = CARD.split("results\n")[1]
    two = "# first\n" + table + "\n# second\n" + table.replace("-122.0", "-123.0")
    assert [log.name for log in read(tmp_path, two, "card.md")] == ["card.md · first", "card.md · second"]
    table = "| Loss type | Step | Validation loss | Rewards/chosen |\n|---|---|---|---|\n" + "".join(
        f"| {kind} | {step} | 0.5 | {sign * step} |\n"
        for kind, sign in (("kto pair", 1), ("ipo", -1))
        for step in (7, 14)
    )
    logs = read(tmp_path, table, "card.md")
    assert [log.name for log in logs] == ["card.md · kto pair", "card.md · ipo"]
    assert [log.split("eval")["reward_chosen"].tolist() for log in logs] == [[7, 14], [-7, -14]]


def test_wandb_panel_export_holds_several_runs_and_their_extremes(tmp_path):
    text = (
        '"train/global_step","a-run - train/rewards/chosen","a-run - train/rewards/chosen__MIN",'
        '"b - eval/rewards/chosen"\n"10","-0.5","-99",""\n"20","-0.75","-99","-1.5"\n'
    )
    first, second = read(tmp_path, text, "panel.csv")
    assert first.split("train")["reward_chosen"].tolist() == [-0.5, -0.75]
    assert second.split("eval")["reward_chosen"].to_dict() == {20: -1.5}


def test_wandb_history_csv_takes_the_optimiser_s_steps(tmp_path):
    head = "_step,train/global_step,train/loss,eval/loss,train/rewards/chosen\n"
    text = head + "0,10,0.7,,-0.1\n1,20,0.6,,-0.2\n2,20,,0.65,\n"
    (log,) = read(tmp_path, text)
    assert log.split("train")["reward_chosen"].to_dict() == {10: -0.1, 20: -0.2}
    assert log.split("eval")["loss"].to_dict() == {20: 0.65}


def test_learning_dynamics_lines_are_evaluations_without_steps(tmp_path):
    rows = [
        {"logps_eval_prob_train/chosen": -150.0 + i, "logps_eval_prob_train/rejected": -120.0 - i,
         "logps_eval_prob_train/chosen_gptformat": -130.0, "argmax_prob_logits": -100.0 + i, "A_o": 1.0}
        for i in range(3)
    ]  # fmt: skip
    text = "\n".join(map(json.dumps, rows)).replace('"A_o": 1.0', '"except_argmax_prob_logits": NaN')
    (log,) = read(tmp_path, text)
    evaluated = log.split("eval")
    assert evaluated["logp_chosen"].tolist() == [-150.0, -149.0, -148.0]
    assert {"logp_greedy", "logp_chosen_gptformat"} <= set(evaluated)
    assert log.counts == "row"
    assert not len(log.split("train"))


def test_tensorboard_event_files_are_read_and_a_torn_end_is_noted(tmp_path):
    pytest.importorskip("tensorboard", reason="the tensorboard package is not installed")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(tmp_path / "runs"))
    for record in TRAIN:
        values = [Summary.Value(tag=f"train/{key}", simple_value=value) for key, value in record.items()]
        writer.add_event(Event(step=record["step"], summary=Summary(value=values)))
    writer.close()
    (log,) = read_logs(tmp_path)  # found in the folder below
    assert log.split("train")["reward_chosen"].to_dict() == {10: 0.0, 20: -0.25, 30: -0.5}
    (file,) = (tmp_path / "runs").iterdir()
    (torn,) = read(tmp_path, file.read_bytes()[:-40], "events")
    assert list(torn.split("train").index) == [10, 20]
    assert "the file ends in the middle of a record" in " ".join(torn.notes)


def test_columns_that_the_user_names_are_read(tmp_path):
    text = "it;good;bad;what\n1;-10.5;-12;x\n2;-11;-14;y\n"
    columns = {"step": "it", "chosen": "good", "eval_rejected": "bad"}
    (log,) = read(tmp_path, text, columns=columns)
    assert log.split("train")["logp_chosen"].to_dict() == {1: -10.5, 2: -11.0}
    assert log.split("eval")["logp_rejected"].to_dict() == {1: -12.0, 2: -14.0}
    with pytest.raises(InputError, match="--columns quality=what: 'quality' is not one of step"):
        read(tmp_path, text, columns={"quality": "what"})


def test_a_notebook_s_printed_output_is_read(tmp_path):
    html = "<table><tr><th>Step</th><th>Training Loss</th><th>rewards / chosen</th></tr>" + "".join(
        f"<tr><td>{r['step']}</td><td>{r['loss']}</td><td>{r['rewards/chosen']}</td></tr>" for r in TRAIN
    )
    cells = [
        {
            "cell_type": "code",
            "outputs": [{"output_type": "display_data", "data": {"text/html": [html, "</table>"]}}],
        }
    ]
    (log,) = read(tmp_path, json.dumps({"nbformat": 4, "cells": cells}))
    assert log.split("train")["reward_chosen"].tolist() == [0.0, -0.25, -0.5]


def test_a_progress_bar_that_carries_its_numbers_is_read(tmp_path):
    line = "Train step of epoch 0: 50%|#| {k}/20 [00:30<00:30, 1.5 s/it, loss={loss}, chosen_reward={reward}, acc=0.5]"
    text = "\r".join(line.format(k=k, loss=0.7 - 0.01 * k, reward=-0.1 * k) for k in range(1, 4))
    (log,) = read(tmp_path, text)
    assert log.split("train")["reward_chosen"].to_dict() == {1: -0.1, 2: -0.2, 3: pytest.approx(-0.3)}


def test_a_step_written_with_its_total_is_read(tmp_path):
    rows = [{"loss": 0.6, "rewards/chosen": -0.1 * k, "global_step/max_steps": f"{k}/100"} for k in (5, 10)]
    (log,) = read(tmp_path, "\n".join(map(json.dumps, rows)))
    assert list(log.split("train").index) == [5, 10]


# --- faults ------------------------------------------------------------------------------------------------------


def test_steps_written_again_by_a_resumed_run_count_once_and_later_wins(tmp_path):
    history = [
        *TRAIN,
        {"step": 20, "loss": 0.61, "rewards/chosen": -0.3},
        {"step": 30, "loss": 0.51, "rewards/chosen": -0.6},
    ]
    (log,) = read(tmp_path, json.dumps({"log_history": history}))
    assert log.split("train")["loss"].to_dict() == {10: 0.6931, 20: 0.61, 30: 0.51}
    assert math.isnan(log.split("train")["margin"][20])  # nothing of the overwritten row is left
    assert "2 steps logged more than once" in " ".join(log.notes)


def test_rows_that_begin_anew_are_another_run(tmp_path):
    rows = [
        f"step {k} loss {0.7 - 0.01 * k:.3f}, chosen_rewards {sign * k}"
        for sign in (1, -1)
        for k in range(1, 6)
    ]
    first, second = read(tmp_path, "\n".join(rows))
    assert first.split("train")["reward_chosen"].iloc[-1] == 5
    assert second.split("train")["reward_chosen"].iloc[-1] == -5


def test_nan_and_infinity_are_kept_apart_with_their_steps(tmp_path):
    text = trainer_state().replace("-0.25", "NaN").replace('"grad_norm": 1.5', '"grad_norm": Infinity')
    (log,) = read(tmp_path, text)
    found = {(row.step, row.series) for row in log.nonfinite.itertuples()}
    assert found == {(20, "reward_chosen"), (30, "grad_norm")}
    assert math.isnan(log.split("train").loc[20, "reward_chosen"])


def test_a_truncated_trainer_state_gives_its_whole_records(tmp_path):
    text = trainer_state()
    (log,) = read(tmp_path, text[: text.index('"step": 30')])
    assert list(log.split("train").index) == [10, 20]
    assert "cut off or damaged" in " ".join(log.notes)


def test_unreadable_lines_are_left_out_and_counted(tmp_path):
    lines = [json.dumps(record) for record in TRAIN]
    (log,) = read(tmp_path, "\n".join([lines[0], "###", *lines[1:], lines[2][:30]]))
    assert list(log.split("train").index) == [10, 20, 30]
    assert log.notes == ["2 lines left out that could not be read"]


def test_every_truncation_is_read_or_refused_in_one_line(tmp_path):
    for text in (trainer_state(), stdout(quoted), reference_dpo(), CARD, trainer_log()):
        for share in range(1, 12):
            try:
                assert read(tmp_path, text[: len(text) * share // 12])
            except InputError as error:
                assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (bytes(range(256)) * 8, "binary data (2048 bytes)"),
        (b"\x1f\x8b\x08" + bytes(range(200, 256)), "this is a gzip file"),
        (b"Once upon a time", "begins 'Once upon a time'"),
        (b'{"log_history": []}', "no loss, reward or log-probability"),
        (b"name,age\nx,3\n", "no loss, reward or log-probability"),
        (b"| Model | MMLU |\n|---|---|\n| a | 0.5 |\n", "no loss, reward or log-probability"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_was_seen(tmp_path, raw, seen):
    with pytest.raises(InputError, match=re.escape(seen)) as caught:
        read(tmp_path, raw)
    assert "\n" not in str(caught.value)
    assert "trainer_state.json" in str(caught.value)


def test_a_missing_file_and_a_folder_without_a_log_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_logs(tmp_path / "nowhere.json")
    with pytest.raises(InputError, match="/dev/null: a pipe or a device; save it as a file"):
        read_logs("/dev/null")
    with pytest.raises(InputError, match="no log in this folder"):
        read_logs(tmp_path)

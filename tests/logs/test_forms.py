"""The forms of other trainers, built line by line after what their own loggers print; and the table of the guide."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from rewardshape.errors import InputError
from rewardshape.logs import read_logs
from rewardshape.logs.forms import FORMS

# step, loss, chosen and rejected reward, chosen and rejected log-probability
ROWS = [
    (1, 0.6931, 0.0, 0.0, -120.0, -130.0),
    (2, 0.65, -0.05, -0.12, -120.5, -131.2),
    (3, 0.6, -0.2, -0.5, -122.0, -135.0),
]


def read(tmp_path, text):
    path = tmp_path / "log"
    path.write_text(text)
    (log,) = read_logs(path)
    return log


def holds_the_rows(log, *, logps=True):
    trained = log.split("train")
    np.testing.assert_array_equal(trained.index, [row[0] for row in ROWS])
    columns = [
        "loss",
        "reward_chosen",
        "reward_rejected",
        *(["logp_chosen", "logp_rejected"] if logps else []),
    ]
    np.testing.assert_array_equal(trained[columns], [row[1 : 1 + len(columns)] for row in ROWS])
    return True


def torchtune_line(step, loss, chosen, rejected, logp_chosen, logp_rejected):
    return (
        f"Step {step} | loss:{loss} lr:5e-07 tokens_per_second_per_gpu:812.3 rewards/chosen:{chosen} "
        f"rewards/rejected:{rejected} rewards/accuracies:0.5 rewards/margins:{chosen - rejected} "
        f"log_probs/rejected:{logp_rejected} log_probs/chosen:{logp_chosen} logits/rejected:-1.5 logits/chosen:-1.4 "
        "peak_memory_active:11.2 \n"
    )


def test_torchtune_s_disk_log_is_read(tmp_path):
    assert holds_the_rows(read(tmp_path, "".join(torchtune_line(*row) for row in ROWS)))


def test_torchtune_s_console_is_read_with_its_bars_and_its_configuration(tmp_path):
    text = "INFO:torchtune.utils._logging:Running with resolved config:\nloss:\n  _component_: DPOLoss\n  beta: 0.1\n"
    for row in ROWS:
        bar = f"\r1|{row[0]}|Loss: {row[1]}: {row[0]}%|▏     | {row[0]}/100 [00:01<05:00, 3.1s/it]"
        text += bar + torchtune_line(*row)
    log = read(tmp_path, text)
    assert holds_the_rows(log)
    assert log.settings["beta"] == 0.1


def verl_text(written):
    """Its online DPO (recipe SPIN): what is configured, a validation before step 1, then of every step its names, a
    line of all numbers, and a bar that shows them once more before it counts the step."""
    ray = "(TaskRunner pid=41121) "
    text = (
        f"{ray}{{'algorithm': {{'dpo_beta': 0.1,\n{ray}'dpo_loss_type': 'sigmoid',\n{ray}'gamma': 1.0}}}}\n"
    )
    text += f"{ray}step:0 - val-core/openai/gsm8k/reward/mean@1:{written(0.31)}\n"
    for step, loss, chosen, rejected, chosen_logp, rejected_logp in ROWS:
        numbers = {
            "dpo_loss": loss, "grad_norm": 1.5, "dpo_logits": 10 * (chosen - rejected),
            "policy_chosen_logps": chosen_logp, "policy_rejected_logps": rejected_logp,
            "reference_chosen_logps": -120.0, "reference_rejected_logps": -130.0, "rewards_chosen": chosen,
            "rewards_rejected": rejected, "rewards_accuracies": 1.0, "rewards_margins": chosen - rejected, "lr": 1e-6,
        }  # fmt: skip
        numbers = {f"actor/{name}": value for name, value in numbers.items()} | {"timing_s/step": 12.5}
        text += f"{ray}WARNING: Creating DPO labels using configured max_prompt_length...\n"
        text += f"{ray}[Step {step} DPO] Logging Step Payload Keys: {list(numbers)}\n"
        pairs = (f"{name}:{written(value)}" for name, value in numbers.items())
        text += f"{ray}{' - '.join([f'step:{step}', *pairs])}\n"
        postfix = ", ".join(f"{name}={value:.3f}" for name, value in numbers.items())
        text += f"{ray}\rTraining Progress:   7%|█  | {step - 1}/45 [00:10<20:00, 41.2s/it, {postfix}]"
    return text


@pytest.mark.parametrize("written", [repr, "{:.4f}".format], ids=["now", "before 2025-05"])
def test_verl_s_console_is_read_with_its_reference_and_no_bar_shifts_a_step(tmp_path, written):
    log = read(tmp_path, verl_text(written))
    assert holds_the_rows(log)
    assert set(log.split("train")["ref_logp_chosen"]) == {-120.0}
    assert log.settings["beta"] == 0.1
    assert not any("more than once" in note for note in log.notes)


def test_xtuner_s_lines_of_mmengine_have_their_step_between_brackets(tmp_path):
    text = "".join(
        f"07/05 12:00:0{step} - mmengine - INFO - Iter(train) [ {step}/600]  lr: 1.0000e-06  eta: 1:02:11  time: 4.2013"
        f"  data_time: 0.0123  memory: 41231  loss: {loss}  chosen_rewards: {chosen}  rejected_rewards: {rejected}  "
        f"reward_acc: 0.5  reward_margin: {chosen - rejected}\n"
        for step, loss, chosen, rejected, *_ in ROWS
    )
    assert holds_the_rows(read(tmp_path, text), logps=False)


def test_openrlhf_s_ppo_is_no_preference_log(tmp_path):
    text = "".join(
        openrlhf_bar(
            "Train epoch [1/1]", k, 20, "pg=-0.01, rm=0.4, ret=0.35, glen=210, tlen=400, kl=0.01, act_lr=5e-7"
        )
        for k in range(4)
    )
    with pytest.raises(InputError, match="GRPO, PPO"):
        read(tmp_path, text)


def test_verl_s_grpo_is_no_preference_log(tmp_path):
    text = "".join(
        f"step:{k} - actor/pg_loss:0.01 - critic/rewards/mean:0.3 - response_length/mean:200.1\n"
        for k in (1, 2)
    )
    with pytest.raises(InputError, match="GRPO"):
        read(tmp_path, text)


def openrlhf_bar(description, count, total, postfix):
    bar = "█" * (10 * count // total)
    done = f"{100 * count // total:3d}%|{bar:10}| {count}/{total}"
    return f"\r{description}: {done} [00:{count:02d}<00:10, 1.5s/it, {postfix}]"


def test_openrlhf_s_bars_are_read_once_each_and_over_epochs(tmp_path):
    """Its bar shows a step's numbers first at the count before, then once more after the update."""
    text = ""
    for epoch in (0, 1):
        for step, loss, chosen, rejected, *_ in ROWS:
            postfix = f"loss={loss - 0.1 * epoch}, acc=0.5, chosen_reward={chosen}, reject_reward={rejected}, lr=5e-7"
            text += openrlhf_bar(f"Train step of epoch {epoch}", step - 1, 3, postfix)
            text += openrlhf_bar(f"Train step of epoch {epoch}", step, 3, postfix)
        text += (
            openrlhf_bar(
                f"Eval stage of global_step {3 * (epoch + 1)}", 2, 2, "eval_loss=0.61, acc_mean=0.75"
            )
            + "\n"
        )
    log = read(tmp_path, text)
    trained = log.split("train")
    assert list(trained.index) == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(trained["reward_chosen"], [row[2] for row in ROWS] * 2)
    assert log.split("eval")[["loss", "accuracy"]].to_dict("index") == {
        3: {"loss": 0.61, "accuracy": 0.75},
        6: {"loss": 0.61, "accuracy": 0.75},
    }


def test_openrlhf_s_evaluation_stands_among_the_batches_that_it_came_after(tmp_path):
    """Four batches to an update: its bars count batches and its evaluations updates."""
    text = ""
    for batch in range(1, 25):
        postfix = (
            f"loss={0.7 - 0.01 * batch}, acc=0.5, chosen_reward={-0.1 * batch}, reject_reward=-3.0, lr=5e-7"
        )
        text += openrlhf_bar("Train step of epoch 0", batch, 24, postfix)
        if batch % 8 == 0:
            text += (
                openrlhf_bar(
                    f"Eval stage of global_step {batch // 4}", 2, 2, f"eval_loss={0.6 - batch / 100}"
                )
                + "\n"
            )
    log = read(tmp_path, text)
    assert list(log.split("train").index) == list(range(1, 25))
    assert log.split("eval")["loss"].to_dict() == pytest.approx({8: 0.52, 16: 0.44, 24: 0.36})


def test_nemo_rl_s_bullets_are_read_under_their_headings(tmp_path):
    text = "{'reference_policy_kl_penalty': 0.05, 'preference_loss_weight': 1}\n"
    for epoch in (1, 2):
        text += f"\n{'=' * 25} Epoch {epoch}/2 {'=' * 25}\n"
        for step, loss, chosen, rejected, *_ in ROWS:
            text += f"\n{'=' * 25} Step {step}/3 {'=' * 25}\n▶ Taking a training step...\n"
            if step == 2:
                text += (
                    "\n📊 Validation Results for `default` set:\n    • Validation loss: 0.6645\n"
                    "    • Validation accuracy: 1.0000\n    • Validation rewards_chosen_mean: 0.7755\n\n"
                    "  ⏱️  Validation Timing for `default` set:\n    • Total validation time: 3.17s\n"
                )
            text += (
                f"\n📊 Training Results:\n  • loss: {loss:.4f}\n  • sft_loss: 0.0000\n  • preference_loss: {loss:.4f}\n"
                f"  • accuracy: 0.5000\n  • rewards_chosen_mean: {chosen:.4f}\n"
                f"  • rewards_rejected_mean: {rejected:.4f}\n"
                "  • Training FLOPS: 1.11 TFLOPS (1.11 TFLOPS per rank)\n\n⏱️  Timing:\n  • Total step time: 12.31s\n"
            )
    log = read(tmp_path, text)
    assert log.split("train")["reward_chosen"].tolist() == [row[2] for row in ROWS] * 2
    assert list(log.split("train").index) == [1, 2, 3, 4, 5, 6]
    assert log.split("eval")["reward_chosen"].to_dict() == {2: 0.7755, 5: 0.7755}
    assert log.settings == {"beta": 0.05}


def test_axolotl_s_strings_are_read(tmp_path):
    text = "[2025-11-01 10:00:00,000] [INFO] [axolotl.train] Starting trainer...\n"
    for step, loss, chosen, rejected, chosen_logp, rejected_logp in ROWS:
        record = {"loss": loss, "rewards/chosen": chosen, "rewards/rejected": rejected, "logps/chosen": chosen_logp,
                  "logps/rejected": rejected_logp, "memory/max_active (GiB)": 11.2, "epoch": 0.1 * step}  # fmt: skip
        text += (
            f" {step}%|▏| {step}/30 [00:10<05:00, 3.1s/it]"
            + str({key: str(value) for key, value in record.items()})
            + "\n"
        )
    assert holds_the_rows(read(tmp_path, text))


def test_trackio_s_database_is_read_by_run(tmp_path):
    """The table as Trackio 0.43 makes it: JSON as bytes, and NaN as the string "NaN"."""
    path = tmp_path / "project.db"
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, "
            "timestamp TEXT NOT NULL, run_name TEXT NOT NULL, step INTEGER NOT NULL, "
            "metrics TEXT NOT NULL, log_id TEXT, space_id TEXT)"
        )
        for run in ("alpha=0", "alpha=1"):
            for index, (step, loss, chosen, rejected, *_) in enumerate(ROWS):
                metrics = {"train/loss": loss, "train/rewards/chosen": chosen, "train/rewards/rejected": rejected,
                           "train/global_step": step, "train/grad_norm": "NaN"}  # fmt: skip
                row = (run, "2026-01-01T00:00:00+00:00", run, index, json.dumps(metrics).encode())
                database.execute(
                    "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?, ?)",
                    row,
                )
    before = path.read_bytes()
    logs = read_logs(path)
    assert [log.name for log in logs] == ["project.db · alpha=0", "project.db · alpha=1"]
    assert all(holds_the_rows(log, logps=False) for log in logs)
    assert set(logs[0].nonfinite["series"]) == {"grad_norm"}
    assert path.read_bytes() == before


def test_an_sqlite_database_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE things (name TEXT)")
    with pytest.raises(InputError, match="none of Trackio"):
        read_logs(path)


def test_the_guide_s_table_is_the_table_of_forms():
    guide = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text()
    table = guide.split("## What it reads")[1].split("\n\n")[2]
    named = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)[1:]
    assert named == [*dict.fromkeys(form.name for form in FORMS), "run or sweep folder of rewardshape"]


def test_each_form_recognises_by_the_same_content_whatever_the_name(tmp_path):
    text = "".join(torchtune_line(*row) for row in ROWS)
    for name in ("trainer_state.json", "a.csv", "b.ipynb", "events.out.tfevents.1"):
        (tmp_path / name).write_text(text)
        (log,) = read_logs(tmp_path / name)
        assert log.form == "lines of names and numbers"

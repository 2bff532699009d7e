"""Logs of other training than on preferences are recognised by their columns and refused in one line."""

from __future__ import annotations

import json

import pytest

from rewardshape.errors import InputError
from rewardshape.logs import read_logs
from rewardshape.logs.kinds import kind_of

# Columns that real trainers write: TRL's SFT, GRPO, PPO and reward trainers, Hugging Face's examples, verl.
REAL_COLUMNS = [
    ("sft", ["loss", "grad_norm", "learning_rate", "entropy", "num_tokens", "mean_token_accuracy", "epoch"], 1.8),
    ("grpo", ["loss", "reward", "reward_std", "kl", "completion_length", "rewards/reward_fn/mean", "epoch"], 0.0),
    ("grpo", ["objective/kl", "objective/rlhf_reward", "policy/approxkl_avg", "loss/policy_avg", "lr"], None),
    ("grpo", ["actor/pg_loss", "critic/rewards/mean", "response_length/mean", "global_seqlen/mean"], None),
    ("reward model", ["loss", "accuracy", "min_reward", "mean_reward", "max_reward", "margin", "epoch"], 0.69),
    ("classifier", ["loss", "eval_loss", "eval_accuracy", "eval_f1", "epoch"], 0.69),
    ("classifier", ["loss", "eval_loss", "eval_accuracy", "epoch"], 1.4),
    ("unknown", ["loss", "grad_norm", "learning_rate", "epoch"], 1.37),
    ("preference", ["loss", "grad_norm", "learning_rate", "epoch"], 0.6931),
    ("preference", ["loss", "accuracy", "current_steps", "total_steps", "lr", "epoch"], 0.31),
    ("unknown", ["loss", "current_steps", "total_steps", "lr", "epoch"], 0.31),
    ("preference", ["loss", "rewards/chosen", "num_tokens", "entropy", "mean_token_accuracy"], 0.69),
    ("preference", ["loss", "rewards/chosen", "logps/chosen", "kl"], 0.5),
    ("preference", ["loss", "acc", "chosen_reward", "reject_reward", "lr"], 0.6931),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "columns", "first_loss"), REAL_COLUMNS)
def test_the_kind_of_a_training_is_known_by_its_columns(kind, columns, first_loss):
    assert kind_of(columns, first_loss, {})[0] == kind


def test_a_stated_preference_loss_makes_a_log_of_losses_one_of_preferences():
    assert kind_of(["loss"], 2.1, {"loss_type": "simpo"})[0] == "preference"
    assert kind_of(["loss"], 2.1, {"loss_type": "ForCausalLMLoss"})[0] == "unknown"


def test_a_log_of_other_training_is_refused_in_one_line_that_names_its_columns(tmp_path):
    history = [{"loss": 1.9 - 0.1 * k, "mean_token_accuracy": 0.5, "step": k} for k in range(4)]
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": history}))
    with pytest.raises(InputError, match=r"no preference log.*supervised .*mean_token_accuracy") as caught:
        read_logs(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "phrase"),
    [("06a-bert-classifier.json", "a classifier"), ("06c-sft.json", "supervised fine-tuning"),
     ("06d-grpo.json", "reinforcement learning"), ("06f-sft.log", "supervised fine-tuning")],
)  # fmt: skip
def test_real_logs_of_other_training_are_refused(shared, file, phrase):
    with pytest.raises(InputError, match=phrase):
        read_logs(shared / "findings" / "inputs" / "logs" / file)


def test_a_preference_log_beside_another_is_read_and_the_other_is_named(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(
        "# SFT\n| Step | Loss | mean_token_accuracy |\n|---|---|---|\n| 1 | 1.9 | 0.5 |\n\n"
        "# DPO\n| Step | Loss | rewards/chosen |\n|---|---|---|\n| 1 | 0.69 | 0.0 |\n| 2 | 0.6 | -0.1 |\n"
    )
    (log,) = read_logs(path)
    assert log.kind == "preference"
    assert log.signs == ("rewards/chosen",)
    assert "supervised fine-tuning" in " ".join(log.notes)

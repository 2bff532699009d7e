"""Real logs, kept beside the tests with their sources and licences, are read whole and without a wrong cell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardshape.logs import read_logs

FILES = Path(__file__).parent / "files"
KEPT = {
    "clean-code-qwen-dpo.trainer_state.json": (1, 3, 16),
    "clean-code-qwen-dpo.all_results.json": (1, 1, 0),
    "learning-dynamics-pythia410m.prob_train_metrics.json": (1, 50, 0),
    "deltacoder-9b-dpo.train.log": (1, 0, 56),
    "zephyr-7b-alpha.model-card.md": (1, 20, 19),
    "mamba-2.8b-zephyr.model-card.md": (1, 29, 29),
    "dpo-from-scratch-gpt2-355m.train.log": (1, 24, 24),
}
# Of these the licence is not known, so they lie beside the project only
BESIDE = {
    "notux-8x7b-and-geitje-ultra.model-card-tables.md": (2, 4, 4),
    "four-loss-types-mistral7b.readme-table.md": (4, 3, 3),
    "reference-dpo-stdout-excerpt.log": (1, 1, 12),
}


def _is_whole(path, runs, evaluations, train_rows):
    logs = read_logs(path)
    assert len(logs) == runs
    for log in logs:
        assert (len(log.split("eval")), len(log.split("train"))) == (evaluations, train_rows)


@pytest.mark.parametrize(("file", "counts"), KEPT.items())
def test_real_logs_are_read_whole(file, counts):
    _is_whole(FILES / file, *counts)


@pytest.mark.parametrize(("file", "counts"), BESIDE.items())
def test_further_real_logs_are_read_whole(shared, file, counts):
    _is_whole(shared / "logs" / file, *counts)


def test_steps_of_a_real_stdout_are_those_of_its_bars():
    (log,) = read_logs(FILES / "deltacoder-9b-dpo.train.log")
    assert list(log.split("train").index) == list(range(5, 281, 5))
    assert log.settings["beta"] == 0.1


def test_every_cell_of_a_real_trainer_state_is_read():
    """The same file by nothing but `json`: TRL's keys, looked up one by one."""
    history = json.loads((FILES / "clean-code-qwen-dpo.trainer_state.json").read_text())["log_history"]
    (log,) = read_logs(FILES / "clean-code-qwen-dpo.trainer_state.json")
    names = {"loss": "loss", "reward_chosen": "rewards/chosen", "reward_rejected": "rewards/rejected",
             "margin": "rewards/margins", "accuracy": "rewards/accuracies", "logp_chosen": "logps/chosen",
             "logp_rejected": "logps/rejected"}  # fmt: skip
    cells = 0
    for split, prefix in (("train", ""), ("eval", "eval_")):
        for record in history:
            if f"{prefix}loss" in record:
                row = log.split(split).loc[record["step"]]
                for series, key in names.items():
                    assert row[series] == record[prefix + key]
                    cells += 1
    assert cells == 7 * 19


def test_the_results_of_a_real_card_are_its_last_evaluation():
    """The card: "Logps/chosen: -297.1040", after a table that ends at step 1900 of one epoch."""
    (log,) = read_logs(FILES / "zephyr-7b-alpha.model-card.md")
    last = log.split("eval").iloc[-1]
    assert (last["logp_chosen"], last["loss"], last["margin"]) == (-297.1040, 0.4605, 1.3699)
    assert 1900 < log.split("eval").index[-1] < 2000
    assert "list of results" in " ".join(log.notes)

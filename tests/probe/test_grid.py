"""The grid: which runs the settings mean, and what was left open of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from rewardshape.data import embedded
from rewardshape.errors import InputError
from rewardshape.probe.grid import ModelFacts, decide, plan_run, plan_runs, span
from rewardshape.probe.settings import Settings
from rewardshape.theory import objective, preset

FACTS = ModelFacts("random", LlamaConfig(max_position_embeddings=512), 7_000_000_000)


def settings(**changes: Any) -> Settings:
    return Settings().replace(checkpoint="model", data="pairs.jsonl", **changes)


def test_the_grid_is_the_product_of_its_axes_and_every_run_has_one_value_each():
    runs = list(span(settings(beta=[1, 2], alpha=[0, 0.25], seeds=2)))
    assert [name for name, _, _ in runs][:3] == [
        "alpha=0-beta=1-seed=0",
        "alpha=0-beta=1-seed=1",
        "alpha=0-beta=2-seed=0",
    ]
    assert len(runs) == 8
    assert all(not single.sweep and single.training.seeds == 1 for _, _, single in runs)
    assert [swept["alpha"] for _, swept, _ in runs] == [0.0] * 4 + [0.25] * 4


def test_runs_that_differ_have_names_that_differ():
    names = [name for name, _, _ in span(settings(alpha=[0.25, 0.2500004, 1e-7]))]
    assert names == ["alpha=0.25", "alpha=0.2500004", "alpha=1e-07"]


def test_a_single_run_has_no_name():
    assert [name for name, _, _ in span(settings(alpha=0.25))] == [""]


@pytest.mark.parametrize(
    "axis", ["learning_rate", "lora_rank", "steps", "batch_size", "max_grad_norm", "seed"]
)
def test_every_number_of_the_training_is_an_axis(axis):
    [first, second] = [single for _, _, single in span(settings(**{axis: [4, 8]}))]
    assert (first.as_dict()[axis], second.as_dict()[axis]) == (4, 8)


def test_a_mistyped_number_of_seeds_is_refused_at_once():
    with pytest.raises(InputError, match="a sweep of 1,000,000,000 runs"):
        next(span(settings(seeds=1_000_000_000)))


def test_what_is_open_is_decided_by_the_rules_that_the_help_states():
    found = decide(settings(), FACTS, processes=1)
    assert (found.max_prompt_tokens, found.max_response_tokens) == (256, 256)  # half the context each
    assert (found.batch_size, found.micro_batch_size) == (16, 16)
    assert found.learning_rate == 1e-6  # 1e-6·√(7e9/7e9)
    assert (found.schedule, found.warmup_ratio, found.optimizer) == ("cosine", 0.1, "adamw_torch_fused")
    assert found.checkpoint_every == 30  # a fifth of 150
    assert decide(settings(lora_rank=8), FACTS, 1).learning_rate == 1e-5
    assert decide(settings(precision="bfloat16"), FACTS, 1).optimizer == "adamw_torch_8bit"
    assert decide(settings(batch_size=8), FACTS, processes=4).micro_batch_size == 2


def test_what_is_given_is_kept():
    given = {
        "batch_size": 6,
        "learning_rate": 1e-3,
        "schedule": "linear",
        "warmup_ratio": 0.0,
        "optimizer": "sgd",
    }
    found = decide(settings(preset="simpo/mistral-7b-base", **given), FACTS, 1)
    assert {name: getattr(found, name) for name in given} == given


def test_a_preset_decides_what_it_publishes():
    published = preset("simpo/mistral-7b-base")
    run = plan_run(settings(preset=published.name), FACTS)
    assert run.objective.parameters == published.objective.parameters
    assert run.decided.learning_rate == published.training["learning_rate"]
    assert run.decided.batch_size == published.training["batch_size"]
    assert run.settings.training.learning_rate == published.training["learning_rate"]


def test_without_a_checkpoint_the_embedded_task_sweeps_over_alpha():
    grid, own = plan_runs(Settings()), embedded.DEFAULTS
    assert [run.swept for run in grid.runs] == [{"alpha": alpha} for alpha in own["alpha"]]
    assert grid.settings.training.learning_rate == own["learning_rate"]
    assert {run.decided.batch_size for run in grid.runs} == {own["batch_size"]} != {16}
    assert {run.objective.parameters["gamma"] for run in grid.runs} == {own["gamma"]}


def test_what_the_runs_have_in_common_is_filled_in_and_what_differs_is_left_open():
    grid = plan_runs(Settings().replace(alpha=0.25, lora_rank=[2, 4], precision="bfloat16"))
    assert grid.settings.training.optimizer == "adamw_torch_fused"
    mixed = plan_runs(Settings().replace(alpha=0.25, steps=[10, 100]))
    assert mixed.settings.output.checkpoint_every is None
    assert [run.decided.checkpoint_every for run in mixed.runs] == [2, 20]


@pytest.mark.parametrize(
    ("changes", "processes", "said"),
    [
        ({"max_prompt_tokens": 400, "max_response_tokens": 200}, 1, "the model's context of 512 tokens"),
        ({"batch_size": 6}, 4, "must be a multiple of 4 processes"),
        ({"objective": "kto", "micro_batch_size": 2}, 1, "couples the pairs"),
        ({"objective": "kto"}, 2, "couples the pairs"),
    ],
)
def test_what_cannot_be_is_refused(changes, processes, said):
    with pytest.raises(InputError, match=said):
        plan_run(settings(**changes), FACTS, processes=processes)


def test_an_objective_of_ones_own_is_found_from_the_working_folder(tmp_path: Path, monkeypatch):
    (tmp_path / "steep.py").write_text(
        "from rewardshape.theory import objective\n\n\ndef make(beta=1.0):\n"
        "    return objective('alphapo', alpha=0.5, beta=beta, gamma=0.0)\n"
    )
    monkeypatch.chdir(tmp_path)
    made = plan_run(settings(objective="steep:make", beta=2), FACTS).objective
    assert made.margin(-1.0, -1.5) == objective("alphapo", alpha=0.5, beta=2.0, gamma=0.0).margin(-1.0, -1.5)


def test_a_parameter_that_its_own_flag_gives_is_refused():
    [(_, _, single)] = span(settings(alpha=0.25, parameter=["alpha=1"]))
    with pytest.raises(InputError, match="alpha is given already"):
        plan_run(single, FACTS, processes=1)

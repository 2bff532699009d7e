"""What ``--dry-run`` says of a command: its runs, its folder, and operations that PyTorch counts the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

from rewardshape.data import EncodedPair
from rewardshape.probe.grid import ModelFacts, plan_run, plan_runs
from rewardshape.probe.inputs import Inputs
from rewardshape.probe.measure.logprobs import SharedPrefixReader
from rewardshape.probe.outline import forward, operations, outline, speed, told
from rewardshape.probe.settings import Settings

CONFIG = LlamaConfig(
    vocab_size=2048,
    hidden_size=256,
    intermediate_size=688,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    tie_word_embeddings=True,
)


def some_pairs(number: int) -> list[EncodedPair]:
    return [
        EncodedPair(f"a:{i}", [5] * 30, {"chosen": [7] * 20, "rejected": [9] * (10 + i)})
        for i in range(number)
    ]


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_config(CONFIG)


@pytest.mark.parametrize("trained", [False, True])
def test_operations_are_those_that_pytorch_counts(model, trained):
    """Within a tenth: attention's own products are left out."""
    pairs, reader = some_pairs(8), SharedPrefixReader()
    counter = FlopCounterMode(display=False)
    with counter, torch.set_grad_enabled(trained):
        logps = reader.logps(model, reader.collate(pairs)).token_logps.sum()
        if trained:
            logps.backward()
    expected = (3 if trained else 1) * forward(pairs, CONFIG, model.num_parameters())
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.1)


def test_a_run_is_its_steps_and_its_measurements(model):
    facts = ModelFacts("random", CONFIG, model.num_parameters())
    run = plan_run(Settings().replace(steps=10, batch_size=8, probe_every=5), facts)
    train, probe_pairs = some_pairs(8), some_pairs(4)
    once, probe = (forward(of, CONFIG, facts.parameters) for of in (train, probe_pairs))
    found = operations(run, len(train), once, probe)
    assert found == pytest.approx(10 * 3 * once + 3 * probe)  # all eight pairs a step; steps 0, 5 and 10
    again = plan_run(
        Settings().replace(steps=10, batch_size=8, probe_every=5, gradient_checkpointing=True), facts
    )
    assert operations(again, len(train), once, probe) == pytest.approx(10 * 4 * once + 3 * probe)


def test_the_lines_name_runs_pairs_folder_and_time(checkpoint, pairs_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (Path("runs") / Path(checkpoint).name).mkdir(parents=True)
    settings = Settings().replace(
        checkpoint=checkpoint, data=[pairs_file], alpha=[0, 0.25], beta=[1, 2.5], steps=4, probe_pairs=12
    )
    grid = plan_runs(settings)
    runs, pairs, folder, time = outline(grid, Inputs(grid.runs[0], checkpoint))
    assert runs == f"4 runs: {', '.join(planned.name for planned in grid.runs)}"
    assert pairs.endswith("pairs to train on, 12 probe pairs")
    assert folder == f"output: runs/{Path(checkpoint).name}-2"
    assert time.startswith("time: about a minute")
    assert [path.name for path in Path("runs").iterdir()] == [Path(checkpoint).name]  # nothing was made


def test_the_speed_is_that_of_a_product(model):
    run = plan_run(Settings().replace(steps=1, batch_size=4), ModelFacts("random", CONFIG, 0))
    assert 1e8 < speed(run, CONFIG) < 1e15


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "a minute"), (250, "04:00"), (7250, "2:01:00"), (4e5, "5 days"), (1e12, "31,688 years")],
)
def test_a_time_claims_no_more_than_it_knows(seconds, text):
    assert told(seconds) == text

"""The numbers of a step, from the forward pass to the trace: against plain transformers code and the formula."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from rewardshape import InputError, read_trace
from rewardshape.data import EncodedPair, embedded
from rewardshape.probe.grid import Grid, plan_runs
from rewardshape.probe.inputs import Inputs
from rewardshape.probe.measure.logprobs import SharedPrefixReader
from rewardshape.probe.order import TrainingOrder
from rewardshape.probe.policy import load_policy
from rewardshape.probe.settings import Settings
from rewardshape.probe.training import PairTrainer, StepNumbers, require_trainer, training_arguments
from rewardshape.trace import TraceWriter
from tests.probe.test_run import plain_logp

BETA = 0.1
SIDES = ("chosen", "rejected")


@pytest.fixture(scope="module")
def grid() -> Grid:
    settings = Settings().replace(
        objective="dpo",
        beta=BETA,
        steps=1,
        batch_size=6,
        micro_batch_size=2,
        probe_pairs=4,
        learning_rate=1e-3,
    )
    return plan_runs(settings)


@pytest.fixture(scope="module")
def pairs(grid: Grid) -> list[EncodedPair]:
    return Inputs(grid.runs[0], grid.model.checkpoint).train[:6]


@pytest.fixture(scope="module")
def reference(pairs: list[EncodedPair]) -> dict[str, dict[str, float]]:
    """Made up, so that no number of a pair equals another."""
    rng = np.random.default_rng(3)
    return {pair.pair_id: {side: -float(rng.uniform(20, 40)) for side in SIDES} for pair in pairs}


@pytest.fixture(scope="module")
def numbers(
    grid: Grid, pairs: list[EncodedPair], reference: dict[str, dict[str, float]], tmp_path_factory: Any
) -> StepNumbers:
    """What three micro-batches of two pairs measure, taken out of order."""
    [run] = grid.runs
    order = TrainingOrder(pairs, steps=1, batch_size=6, seed=0)
    trainer = PairTrainer(
        load_policy(grid.model.checkpoint, run.settings.model),
        training_arguments(run, tmp_path_factory.mktemp("step")),
        order,
        objective=run.objective,
        reader=SharedPrefixReader(),
        keep_checkpoints=1,
    )
    trainer.reference = reference
    for places in ((4, 5), (0, 1), (2, 3)):
        trainer.compute_loss(trainer.model, trainer.data_collator([order[place] for place in places]))
    return trainer.gather_step()


@pytest.fixture(scope="module")
def logps(pairs: list[EncodedPair]) -> dict[tuple[str, str], float]:
    """By plain code: one sequence at a time, whole logits."""
    model = AutoModelForCausalLM.from_pretrained(embedded.checkpoint_path()).eval()
    return {
        (pair.pair_id, side): plain_logp(model, pair.prompt_ids, pair.responses[side]).item()
        for pair in pairs
        for side in SIDES
    }


def assert_true(
    numbers: StepNumbers,
    objective: Any,
    pairs: list[EncodedPair],
    logps: dict[tuple[str, str], float],
    reference: dict[str, dict[str, float]],
    folder: Path,
) -> None:
    """The trace that these numbers make says what plain code says."""
    folder.mkdir()
    with TraceWriter(folder, {"pair_id": [], "response": [], "num_tokens": [], "ref_logp_sum": []}) as writer:
        writer.append(1, metrics=numbers.metrics(), train=numbers.table())
    trace = read_trace(folder)
    order = [item.pair for item in TrainingOrder(pairs, steps=1, batch_size=6, seed=0)]
    rows = trace.responses
    assert list(zip(rows["pair_id"], rows["response"], strict=True)) == [
        (pair.pair_id, side) for pair in order for side in SIDES
    ]
    keys = list(zip(rows["pair_id"], rows["response"], strict=True))
    np.testing.assert_allclose(rows["logp_sum"], [logps[key] for key in keys], atol=1e-4)
    np.testing.assert_allclose(
        rows["ref_logp_sum"], [reference[pair_id][side] for pair_id, side in keys], rtol=1e-6
    )
    lengths = {(pair.pair_id, side): len(pair.responses[side]) for pair in pairs for side in SIDES}
    np.testing.assert_array_equal(rows["num_tokens"], [lengths[key] for key in keys])
    gains = {key: logps[key] - reference[key[0]][key[1]] for key in logps}
    margins = [BETA * (gains[pair.pair_id, "chosen"] - gains[pair.pair_id, "rejected"]) for pair in order]
    [step] = trace.steps.to_dict("records")
    assert step["margin"] == pytest.approx(np.mean(margins), abs=1e-4)
    assert step["loss"] == pytest.approx(
        np.mean([math.log1p(math.exp(-margin)) for margin in margins]), abs=1e-4
    )
    assert step["accuracy"] == pytest.approx(np.mean([margin > 0 for margin in margins]), rel=1e-9)


def test_the_numbers_of_a_step_are_those_of_plain_code(numbers, grid, pairs, logps, reference, tmp_path):
    assert_true(numbers, grid.runs[0].objective, pairs, logps, reference, tmp_path / "run")
    assert numbers.tokens == sum(
        len(pair.prompt_ids) + sum(len(pair.responses[side]) for side in SIDES) for pair in pairs
    )


def swapped(numbers: StepNumbers, first: str, second: str) -> StepNumbers:
    """With two fields exchanged: of the record, or of the responses in it."""
    if hasattr(numbers, first):
        return dataclasses.replace(
            numbers, **{first: getattr(numbers, second), second: getattr(numbers, first)}
        )
    sides = {
        side: getattr(numbers, side)._replace(
            **{first: getattr(getattr(numbers, side), second), second: getattr(getattr(numbers, side), first)}
        )
        for side in SIDES
    }
    return dataclasses.replace(numbers, **sides)


@pytest.mark.parametrize(
    ("first", "second"),
    [("chosen", "rejected"), ("losses", "margins"), ("logp_sum", "ref_logp_sum"), ("logp_sum", "num_tokens")],
)
def test_two_numbers_in_each_others_place_are_noticed(
    first, second, numbers, grid, pairs, logps, reference, tmp_path
):
    wrong = swapped(numbers, first, second)
    with pytest.raises(AssertionError):
        assert_true(wrong, grid.runs[0].objective, pairs, logps, reference, tmp_path / "run")


def test_a_transformers_too_old_to_train_with_is_refused_and_this_one_is_not():
    """4.57's trainer computes the norm of a gradient where nobody can ask for it: a class without the method."""
    require_trainer("5.23.0")
    with pytest.raises(
        InputError, match=r"needs transformers 5\.6 or newer to train, and 4\.57\.6 is installed"
    ):
        require_trainer("4.57.6", type("Trainer", (), {}))

"""What the samples of a run take: the prompts, the gold reward that was asked for, and when how many are drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewardshape.data import embedded
from rewardshape.errors import InputError
from rewardshape.probe.distributed import here, on_main
from rewardshape.probe.grid import Grid, PlannedRun
from rewardshape.probe.inputs import Inputs, prompts_to_sample, write_prompts
from rewardshape.probe.measure.gold import Gold, gold_function, gold_model
from rewardshape.probe.measure.sampling import Sampler
from rewardshape.probe.training import PairTrainer
from rewardshape.trace.folder import RunFolder


def sampled(planned: PlannedRun) -> bool:
    """Whether responses are sampled along a run."""
    return planned.settings.probing.sample_every is not None


def gold_of(grid: Grid) -> Gold | None:
    """The gold reward that was asked for; the embedded task has its own."""
    probing = grid.settings.probing
    if probing.gold_model:
        return gold_model(probing.gold_model, grid.settings.model, here().device)
    if probing.gold:
        return gold_function(probing.gold)
    return embedded.gold if grid.settings.checkpoint is None else None


def samples_of(
    trainer: PairTrainer, planned: PlannedRun, inputs: Inputs, gold: Gold | None, untouched: Any, folder: Path
) -> Callable[[int], dict[str, list[Any]]]:
    """What the record asks for when samples are due."""
    if trainer.is_fsdp_enabled:
        raise InputError(
            "--sample-every: a sharded model (FSDP) cannot sample; run it under DDP or on one process"
        )
    probing = planned.settings.probing
    sampler = Sampler(
        prompts_to_sample(planned, inputs),
        inputs.tokenizer,
        trainer.reader,
        reference=untouched,
        gold=gold,
        max_tokens=planned.decided.max_response_tokens,
        seed=planned.settings.training.seed,
        temperatures=probing.sample_temperatures,
    )
    several = -(-probing.samples // len(sampler.prompts))
    on_main(lambda: write_prompts(RunFolder(folder).prompts, sampler.prompts, inputs.tokenizer))

    def samples(step: int) -> dict[str, list[Any]]:
        policy = trainer.accelerator.unwrap_model(trainer.model)
        at_one = probing.best_of if step == 0 else several
        return sampler.measure(policy, step, per_prompt=several, at_one=at_one)

    return samples

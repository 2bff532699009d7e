"""What a command would do, in a few lines: its runs, its folder, and about how long it takes (``--dry-run``)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from rewardshape.data import EncodedPair
from rewardshape.numbers import counted
from rewardshape.probe.distributed import here
from rewardshape.probe.grid import Grid, PlannedRun
from rewardshape.probe.inputs import Inputs
from rewardshape.probe.manifest import folder_to_make
from rewardshape.probe.measure.probe_set import num_tokens, only_pair
from rewardshape.probe.policy import DTYPES, check_optimizer
from rewardshape.probe.progress import duration

SHOWN = 12  # runs that are named
MEASURED = 0.3  # seconds for which products of matrices are timed
EFFICIENCY = (
    0.5  # of a product of matrices: what a whole step reaches; the rest is everything that is no product
)


def optimizer_notes(grid: Grid) -> list[str]:
    """What is worth saying about the optimisers; `InputError` where one cannot be had."""
    notes = [check_optimizer(planned.decided.optimizer, planned.settings.model) for planned in grid.runs]
    return [note for note in dict.fromkeys(notes) if note]


def outline(grid: Grid, inputs: Inputs) -> list[str]:
    """The lines: runs, pairs, folder, time."""
    names = [planned.name for planned in grid.runs if planned.name]
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    runs = (
        f"{len(names)} runs: {', '.join(names[:SHOWN])}{more}"
        if names
        else f"1 run: {grid.runs[0].objective.name}"
    )
    resumed = grid.settings.output.resume
    lines = [
        runs,
        f"{counted(len(inputs.train), 'pair')} to train on, {counted(len(inputs.probe), 'probe pair')}",
        f"output: {folder_to_make(grid.settings)}{' (resumed)' if resumed else ''}",
    ]
    once, probed = (
        forward(pairs, grid.model.config, grid.model.parameters)
        for pairs in ([only_pair(pair) for pair in inputs.train], inputs.probe)
    )
    work = sum(operations(planned, len(inputs.train), once, probed) for planned in grid.runs)
    seconds = work / (EFFICIENCY * speed(grid.runs[0], grid.model.config) * here().processes)
    probing = grid.runs[0].settings.probing
    asked = (probing.geometry_every, probing.sample_every, probing.destination_every, probing.influence_every)
    beside = ", and more for what is measured beside the probe set" if any(asked) else ""
    return [*lines, f"time: about {told(seconds)}, from operations counted and products timed here{beside}"]


def operations(run: PlannedRun, pairs: int, once: float, probed: float) -> float:
    """Floating-point operations of a run: its steps and its measurements of the probe set.

    Two for each weight and token forwards, four backwards (two where only adapters are trained), two again where
    activations are computed twice; the output projection at the tokens of responses alone. Attention's own products are
    left out: at 1,000 tokens they are a few per cent. Every pair is taken to be trained on as often as any other.

    Parameters
    ----------
    run : PlannedRun
    pairs : int
        How many there are to train on.
    once, probed : float
        What `forward` counts of all of them, and of the probe set.
    """
    settings = run.settings
    passes = (2.0 if settings.model.lora_rank else 3.0) + bool(settings.model.gradient_checkpointing)
    measured = settings.training.steps // settings.probing.probe_every + 1
    trained = settings.training.steps * run.decided.batch_size / pairs
    return passes * trained * once + measured * probed


def forward(pairs: Sequence[EncodedPair], config: Any, parameters: int) -> float:
    """Operations of one forward pass over the pairs, every prompt once."""
    text = config.get_text_config()
    head = text.vocab_size * text.hidden_size
    body = parameters - head * (1 if getattr(config, "tie_word_embeddings", False) else 2)
    responses = sum(len(ids) for pair in pairs for ids in pair.responses.values())
    return 2.0 * (body * num_tokens(*pairs) + head * responses)


def speed(run: PlannedRun, config: Any) -> float:
    """Operations a second of a product of matrices of the model's width, in the precision of the run, here."""
    device, width = here().device, config.get_text_config().hidden_size
    precision = run.settings.model.precision
    dtype = torch.bfloat16 if precision == "mixed" else DTYPES[precision]
    tokens, weights = torch.randn(1024, width, device=device), torch.randn(width, 4 * width, device=device)
    tokens, weights = tokens.to(dtype), weights.to(dtype)
    began, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < MEASURED or count < 2:
        (tokens @ weights).sum().item()  # the sum waits for the device
        count += 1
    return 2.0 * tokens.numel() * 4 * width * count / spent


def told(seconds: float) -> str:
    """A time that claims no more than it knows."""
    return "a minute" if seconds < 90 else duration(60 * round(seconds / 60))

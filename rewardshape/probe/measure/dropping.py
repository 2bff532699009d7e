"""What a pair is like to the untouched model: the numbers by which pairs are left out of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from rewardshape.analysis.pairs import edit_distance
from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.distributed import gather_by_place, here, is_sharded
from rewardshape.probe.drops import RANDOM
from rewardshape.probe.measure.geometry import ches
from rewardshape.probe.measure.influence import chosen_gradient, influences, preconditioned
from rewardshape.probe.measure.logprobs import Batch, Reader, ResponseLogps
from rewardshape.probe.measure.predictions import see
from rewardshape.probe.measure.probe_set import PAIR, ProbeSet, ReferenceLogps, Score
from rewardshape.theory import Objective

JUDGES = 64  # training pairs whose chosen responses `influence` asks about: the probe set stays held out

PerPair = Float64[np.ndarray, "pairs"]


def drop_scores(
    criterion: str,
    pairs: Sequence[EncodedPair],
    model: Any,
    reader: Reader,
    *,
    objective: Objective,
    reference: Callable[[Score], ReferenceLogps],
    seed: int,
) -> PerPair:
    """One number per training pair; the highest are left out.

    Parameters
    ----------
    criterion : str
        One of `rewardshape.probe.drops.CRITERIA`.
    pairs : sequence of EncodedPair
        Chosen and rejected alone.
    model, reader
        The untouched model, and how it is read.
    objective, reference
        Of the run; the reference's log-probs are asked for where `influence` needs them, given how a batch is read.
    seed : int
        Of what is drawn.

    Raises
    ------
    InputError
        Where a whole gradient is needed and no process holds one.
    """
    if criterion == RANDOM:
        return np.random.default_rng(seed).random(len(pairs))
    if criterion == "length":
        return np.array([abs(np.subtract(*_lengths(pair))) for pair in pairs], dtype=float)
    if criterion == "similarity":
        return np.array([_similarity(pair) for pair in pairs])
    if is_sharded():
        raise InputError(
            f"--drop {criterion}: asks the whole untouched model, and FSDP shards it; take length, similarity or random"
        )
    probe = ProbeSet(pairs, reader, model.device)

    def score(batch: Batch) -> ResponseLogps:
        return reader.logps(model, batch)

    if criterion == "ties":
        return _ties(probe, score)
    if criterion == "ches":
        return _ches(probe, model, score)
    if here().processes > 1:
        raise InputError("--drop influence: takes whole gradients; run it on one process")
    drawn = np.random.default_rng(seed).permutation(len(pairs))[:JUDGES]
    judges = ProbeSet([pairs[place] for place in drawn], reader, model.device)
    known = reference(score) if objective.needs_reference else None
    return _pushes_down(probe, judges, model, score, objective, known)


def _lengths(pair: EncodedPair) -> tuple[int, int]:
    return len(pair.responses["chosen"]), len(pair.responses["rejected"])


def _similarity(pair: EncodedPair) -> float:
    distance = edit_distance(pair.responses["chosen"], pair.responses["rejected"])
    return 1 - distance / max(_lengths(pair))


def _ties(probe: ProbeSet, score: Score) -> PerPair:
    sums = np.array(probe.measure(score)[0]["logp_sum"]).reshape(len(probe.pairs), len(PAIR))
    per_token = sums / np.array([_lengths(pair) for pair in probe.pairs])
    return -np.abs(per_token[:, 0] - per_token[:, 1])


def _ches(probe: ProbeSet, model: Any, score: Score) -> PerPair:
    mine: dict[int, float] = {}
    with torch.no_grad():
        for group, batch in zip(probe.groups, probe.batches, strict=True):
            logps, seen = see(model, score, batch)
            states = iter(seen.hidden.split(logps.lengths))
            mine |= {place: ches(next(states), next(states))[1] for place in group}
    return np.array(gather_by_place(mine))


def _pushes_down(
    probe: ProbeSet,
    judges: ProbeSet,
    model: Any,
    score: Score,
    objective: Objective,
    reference: ReferenceLogps | None,
) -> PerPair:
    """Minus the influence on the chosen responses of `judges`, with the preconditioner of AdamW's first step."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradient = chosen_gradient(weights, judges, score)
    direction = preconditioned(torch.optim.AdamW(weights), weights, gradient)
    return -influences(weights, direction, gradient, probe, score, objective, reference)

"""What a pair is like to the untouched model: the numbers by which pairs are left out of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from rewardshape.analysis.pairs import edit_distance
from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.distributed import gather, here, is_sharded
from rewardshape.probe.drops import RANDOM
from rewardshape.probe.measure.geometry import ches
from rewardshape.probe.measure.influence import chosen_gradient, influences, preconditioned
from rewardshape.probe.measure.logprobs import Reader
from rewardshape.probe.measure.predictions import see
from rewardshape.probe.measure.probe_set import PAIR, ProbeSet, ReferenceLogps
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
    reference: Callable[[], ReferenceLogps],
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
        Of the run; the reference's log-probs are asked for where `influence` needs them.
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
    if criterion == "ties":
        return _ties(probe, lambda batch: reader.logps(model, batch))
    if criterion == "ches":
        return _ches(probe, model, reader)
    return _pushes_down(probe, model, reader, objective, reference, seed)


def _lengths(pair: EncodedPair) -> tuple[int, int]:
    return len(pair.responses["chosen"]), len(pair.responses["rejected"])


def _similarity(pair: EncodedPair) -> float:
    distance = edit_distance(pair.responses["chosen"], pair.responses["rejected"])
    return 1 - distance / max(_lengths(pair))


def _ties(probe: ProbeSet, score: Any) -> PerPair:
    sums = np.array(probe.measure(score)[0]["logp_sum"]).reshape(len(probe.pairs), len(PAIR))
    per_token = sums / np.array([_lengths(pair) for pair in probe.pairs])
    return -np.abs(per_token[:, 0] - per_token[:, 1])


def _ches(probe: ProbeSet, model: Any, reader: Reader) -> PerPair:
    mine: dict[int, float] = {}
    with torch.no_grad():
        for group, batch in zip(probe.groups, probe.batches, strict=True):
            logps, seen = see(model, lambda its: reader.logps(model, its), batch)
            states = iter(seen.hidden.split(logps.lengths))
            mine |= {place: ches(next(states), next(states))[1] for place in group}
    found = {place: value for part in gather(mine) for place, value in part.items()}
    return np.array([found[place] for place in range(len(probe.pairs))])


def _pushes_down(
    probe: ProbeSet,
    model: Any,
    reader: Reader,
    objective: Objective,
    reference: Callable[[], ReferenceLogps],
    seed: int,
) -> PerPair:
    """Minus the influence on chosen responses of training pairs, with the preconditioner of AdamW's first step."""
    if here().processes > 1:
        raise InputError("--drop influence: takes whole gradients; run it on one process")
    drawn = np.random.default_rng(seed).permutation(len(probe.pairs))[:JUDGES]
    judges = ProbeSet([probe.pairs[place] for place in drawn], reader, model.device)
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def score(batch: Any) -> Any:
        return reader.logps(model, batch)

    gradient = chosen_gradient(weights, judges, score)
    direction = preconditioned(torch.optim.AdamW(weights), weights, gradient)
    known: Mapping[str, Mapping[str, float]] | None = reference() if objective.needs_reference else None
    return -influences(weights, direction, gradient, probe, score, objective, known)

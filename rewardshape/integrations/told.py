"""What a loop tells the recorder (the step, further numbers of it), and what a measurement tells the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardshape.errors import InputError
from rewardshape.probe.measure.probe_set import PAIR
from rewardshape.theory import Objective, Responses


def whole_step(step: Any) -> int:
    """A step as an int, also where a loop counts in floats."""
    try:
        if int(step) == step:
            return int(step)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"measure({step!r}): a step is a whole number of updates")


def as_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as floats: flags, scalars of numpy and tensors of one element too."""
    numbers = {}
    for name, value in metrics.items():
        try:
            plain = value.item() if hasattr(value, "item") else value
            numbers[name] = float(None if isinstance(plain, str) else plain)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise InputError(f"metrics: {name} is {value!r}, which is no number; leave it out") from None
    return numbers


def numbers_of(column: Any) -> list[float]:
    """A column of a record as floats."""
    return [float(value) for value in column]


def told(
    objective: Objective,
    rows: Mapping[str, Sequence[Any]],
    now: Sequence[float],
    start: Sequence[float],
    reference: Sequence[float] | None,
) -> dict[str, float]:
    """What a measurement says in a few numbers: log-probs and changes in nats per token, margin and accuracy."""
    names, lengths = np.array(rows["response"]), np.array(rows["num_tokens"])
    sums = np.array(now)
    mean, change = sums / lengths, (sums - np.array(start)) / lengths
    found = {f"probe_{side}_logp_mean": float(mean[names == side].mean()) for side in PAIR}
    found |= {f"probe_{side}_change": float(change[names == side].mean()) for side in PAIR}
    found["probe_share_fallen"] = float((change[names == "chosen"] < 0).mean())
    if objective.sums_suffice:
        references = np.zeros_like(sums) if reference is None else np.array(reference)
        chosen, rejected = (
            Responses(sums[names == side], lengths[names == side], references[names == side]) for side in PAIR
        )
        higher, lower = objective.pair_scores(chosen, rejected)
        found["probe_margin"] = float(objective.pair_margin(chosen, rejected).mean())
        found["probe_accuracy"] = float((higher > lower).mean())
    return found


def told_of_samples(samples: Mapping[str, list[Any]] | None) -> dict[str, float]:
    """The KL of the model to the reference, nats a response."""
    if samples is None:
        return {}
    ratios = np.subtract(samples["logp_sum"], samples["ref_logp_sum"])
    exact = None not in samples["kl_sum"]  # position by position: the same mean, less noise
    return {"sample_kl": float(np.mean(samples["kl_sum"] if exact else ratios))}

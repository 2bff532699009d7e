"""What policy and reference predict along a sampled response: its log-probs, their divergence, how peaked they are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rewardshape.probe.measure.logprobs import Batch, Reader, ResponseLogps
from rewardshape.probe.measure.predictions import AGREEMENT, Seen, chunks, disagreement, logps_of, see
from rewardshape.probe.measure.projection import Head, NoLinearHead, head_of

TOP = 10  # words whose probability is added up, as a measure of how peaked a prediction is


class Along(NamedTuple):
    """One response, every number summed over its positions."""

    logp_sum: float
    """Log-probability under the policy, nats."""
    ref_logp_sum: float
    """Under the untouched model, nats."""
    kl_sum: float | None
    """Divergence of the distribution that was sampled from the untouched model's, nats."""
    entropy_sum: float
    """Entropy of the policy's predictions at temperature 1, nats."""
    top_mass_sum: float | None
    """Probability of the policy's `TOP` likeliest words, at temperature 1."""


class Look(NamedTuple):
    """A pass of one model over a batch of responses."""

    logps: ResponseLogps
    seen: Seen | None
    head: Head | None
    """None where the predictions are not one matrix product of the last hidden states."""


def look(model: Any, reader: Reader, batch: Batch) -> Look:
    """Read a batch, and keep what its predictions can be made of."""
    try:
        head = head_of(model)
    except NoLinearHead:
        return Look(reader.logps(model, batch), None, None)
    logps, seen = see(model, lambda its: reader.logps(model, its), batch)
    if not disagreement(head, seen, batch["targets"]) <= AGREEMENT:
        return Look(logps, None, None)
    return Look(logps, seen, head)


def along(now: Look, before: Look, batch: Batch, temperatures: Sequence[float]) -> list[Along]:
    """The responses of a batch.

    Parameters
    ----------
    now, before : Look
        Of the policy and of the untouched model.
    batch : Batch
        One response to each prompt.
    temperatures : sequence of float
        At which each response was sampled.
    """
    lengths = now.logps.lengths
    whole = _divergences(now, before, batch["targets"], temperatures)
    columns = [now.logps.token_logps, before.logps.token_logps, whole[0], now.logps.entropies, whole[1]]
    sums = [[None] * len(lengths) if column is None else _sums(column, lengths) for column in columns]
    return [Along(*values) for values in zip(*sums, strict=True)]  # type: ignore[arg-type]


def _divergences(
    now: Look, before: Look, targets: Int64[Tensor, "positions"], temperatures: Sequence[float]
) -> tuple[Float[Tensor, "positions"] | None, Float[Tensor, "positions"] | None]:
    """Divergence and mass of the likeliest words at every position."""
    if now.head is None or before.head is None or now.seen is None or before.seen is None:
        return None, None
    lengths = torch.tensor(now.logps.lengths, device=targets.device)
    sampled_at = torch.tensor(temperatures, device=targets.device).repeat_interleave(lengths)
    divergence, mass = [], []
    for chunk in chunks(len(targets), len(now.head.weight), targets.device):
        policy = logps_of(now.head, now.seen, chunk, targets[chunk])
        reference = logps_of(before.head, before.seen, chunk, targets[chunk])
        top = min(TOP, policy.shape[1])
        mass.append(policy.topk(top, dim=-1).values.exp().sum(-1))
        divergence.append(divergences(policy, reference, targets[chunk], sampled_at[chunk]))
    return torch.cat(divergence), torch.cat(mass)


def divergences(
    policy: Float[Tensor, "positions vocabulary"],
    reference: Float[Tensor, "positions vocabulary"],
    targets: Int64[Tensor, "positions"],
    temperatures: Float[Tensor, "positions"],
) -> Float[Tensor, "positions"]:
    """KL(q ‖ π₀) at every position, nats: q is the policy at a temperature, at 0 all on the token that it took.

    Parameters
    ----------
    policy, reference
        Log-probabilities at temperature 1.
    targets
        The tokens that were taken.
    temperatures
        Of each position.

    Examples
    --------
    >>> policy, reference = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    >>> divergences(policy, reference, torch.tensor([0]), torch.tensor([1.0])).item()   # ½ log 2 + ½ log ⅔
    0.1438...
    >>> divergences(policy, reference, torch.tensor([0]), torch.tensor([0.0])).item()   # log 4
    1.3862...
    """
    greedy = temperatures == 0
    sharpness = temperatures.masked_fill(greedy, 1.0).to(policy.dtype)[:, None]
    sampled = (policy / sharpness).log_softmax(-1)
    apart = (sampled.exp() * (sampled - reference)).sum(-1)
    return torch.where(greedy, -reference.gather(1, targets[:, None]).squeeze(1), apart)


def _sums(values: Float[Tensor, "positions"], lengths: Sequence[int]) -> list[float]:
    each = values.detach().double().cpu().numpy()
    ends = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    return [float(each[a:b].sum()) for a, b in pairwise(ends)]

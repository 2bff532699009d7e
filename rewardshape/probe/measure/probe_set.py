"""What is measured beside training: a fixed probe set, cut once into batches and read after every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from rewardshape.data import EncodedPair
from rewardshape.probe.distributed import gather_by_place, here
from rewardshape.probe.measure.logprobs import Batch, Reader, ResponseLogps, on_device

TOKENS_PER_BATCH = (
    16_384  # prompt and response tokens of one measuring batch; bounds memory, changes no number
)
PAIR = ("chosen", "rejected")
Score = Callable[[Batch], ResponseLogps]
ReferenceLogps = dict[
    str, dict[str, float]
]  # pair_id -> response -> log-prob under the untouched model, nats


class Measured(NamedTuple):
    """What was measured of one response, in nats."""

    logp_sum: float
    greedy_logp_sum: float
    """Of the tokens that the model would rather have said there."""
    entropy_sum: float
    token_logps: list[float]


class Measurement(NamedTuple):
    """What was measured of the whole set, in nats, one value per response: pair by pair, within a pair in its order."""

    columns: dict[str, list[float]]
    """``logp_sum``, ``greedy_logp_sum``, ``entropy_sum``."""
    token_logps: list[list[float]]
    """The log-probability of each of a response's tokens."""


class ProbeSet:
    """A fixed set of pairs, collated once, measured without gradient.

    Parameters
    ----------
    pairs : sequence of EncodedPair
    reader : Reader
        How batches are made of them.
    device : torch.device

    The batches are dealt out over the processes. Every process takes part in equally many, as sharded models demand,
    and `measure` gives the whole set to each.
    """

    def __init__(self, pairs: Sequence[EncodedPair], reader: Reader, device: torch.device):
        self.pairs = list(pairs)
        place = here()
        groups = group_by_tokens(self.pairs, TOKENS_PER_BATCH, at_least=place.processes)
        rounds = -(-len(groups) // place.processes)
        groups += groups[:1] * (rounds * place.processes - len(groups))
        self.groups = groups[place.process :: place.processes]
        self.batches = [
            on_device(reader.collate([self.pairs[i] for i in group]), device) for group in self.groups
        ]

    def measure(self, score: Score) -> Measurement:
        """The whole set by `score`, a function from a collated batch to its log-probabilities."""
        mine: dict[int, list[Measured]] = {}
        with torch.no_grad():
            for group, batch in zip(self.groups, self.batches, strict=True):
                mine |= _by_pair({index: len(self.pairs[index].responses) for index in group}, score(batch))
        rows = [row for of_pair in gather_by_place(mine) for row in of_pair]
        names = ("logp_sum", "greedy_logp_sum", "entropy_sum")
        return Measurement(
            columns={name: [getattr(row, name) for row in rows] for name in names},
            token_logps=[row.token_logps for row in rows],
        )

    def means(self, columns: dict[str, list[float]] | None) -> dict[str, float]:
        """Mean log-prob per token of each response of a measurement (nats per token), for progress and trackers."""
        if columns is None:
            return {}
        values: dict[str, list[float]] = {}
        rows = ((name, len(ids)) for pair in self.pairs for name, ids in pair.responses.items())
        for (name, num_tokens), logp_sum in zip(rows, columns["logp_sum"], strict=True):
            values.setdefault(f"probe_{name}_logp_mean", []).append(logp_sum / num_tokens)
        return {name: sum(each) / len(each) for name, each in values.items()}

    def table(self, reference: ReferenceLogps | None) -> dict[str, list[Any]]:
        """The header of the trace: what the rows of every measurement are."""
        rows = [(pair, name, ids) for pair in self.pairs for name, ids in pair.responses.items()]
        return {
            "pair_id": [pair.pair_id for pair, _, _ in rows],
            "prompt_id": [pair.prompt_id for pair, _, _ in rows],
            "response": [name for _, name, _ in rows],
            "num_tokens": [len(ids) for _, _, ids in rows],
            "ref_logp_sum": [
                None if reference is None else reference[pair.pair_id][name] for pair, name, _ in rows
            ],
        }

    def tokens_to_show(self, token_logps: list[list[float]]) -> list[list[float]]:
        """Of a measurement, the log-probs per token of chosen and rejected, to a millionth of a nat: for people."""
        names = (name for pair in self.pairs for name in pair.responses)
        return [
            [round(logp, 6) for logp in row] if name in PAIR else []
            for name, row in zip(names, token_logps, strict=True)
        ]


def _by_pair(responses: dict[int, int], logps: ResponseLogps) -> dict[int, list[Measured]]:
    """For each pair of the batch (its index and number of responses): what was measured of each response."""
    tokens, greedy, entropy = (
        values.double().cpu().numpy() for values in (logps.token_logps, logps.greedy_logps, logps.entropies)
    )
    ends = np.cumsum(logps.lengths)
    rows = iter(
        [
            Measured(
                logp_sum=tokens[a:b].sum().item(),
                greedy_logp_sum=greedy[a:b].sum().item(),
                entropy_sum=entropy[a:b].sum().item(),
                token_logps=tokens[a:b].tolist(),
            )
            for a, b in zip(ends - logps.lengths, ends, strict=True)
        ]
    )
    return {index: [next(rows) for _ in range(count)] for index, count in responses.items()}


def only_pair(pair: EncodedPair) -> EncodedPair:
    """The pair without further probe responses: what is trained on."""
    return replace(pair, responses={side: pair.responses[side] for side in PAIR})


def reference_logps(
    pairs: Sequence[EncodedPair], reader: Reader, device: torch.device, score: Score
) -> ReferenceLogps:
    """Log-probability (nats) of every response under the model as it stands, by pair id and response name."""
    sums = iter(ProbeSet(pairs, reader, device).measure(score).columns["logp_sum"])
    return {pair.pair_id: {name: next(sums) for name in pair.responses} for pair in pairs}


def num_tokens(*pairs: EncodedPair) -> int:
    """Tokens of prompts and responses, each prompt once."""
    return sum(len(pair.prompt_ids) + sum(map(len, pair.responses.values())) for pair in pairs)


def group_by_tokens(pairs: Sequence[EncodedPair], tokens: int, *, at_least: int = 1) -> list[list[int]]:
    """Indices of pairs in groups of about `tokens` tokens, longest first, so that alike lengths lie together."""
    lengths = [num_tokens(pair) for pair in pairs]
    tokens = max(1, min(tokens, -(-sum(lengths) // at_least)))
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(pairs)), key=lambda i: (-lengths[i], i)):
        if lengths[index] > room:
            groups.append([])
            room = tokens
        groups[-1].append(index)
        room -= lengths[index]
    return groups

"""Where the probability went: at each position of a probe response, which tokens gained what others lost since step 0.

The distribution over the whole vocabulary at a position is a matrix product of its last hidden state. So the hidden
states and the output projection of the untouched model are kept (they are small), and as many of its probabilities as
256 MB hold; the others are made again in pieces when wanted, compared and forgotten: exact, for one forward pass, the
one that measures the probe set anyway.

**Units.** Probability mass, summed over the positions of a response: 1 is one whole token's worth. At a position the
mass that moved is Σ_v max(π_t(v) − π_0(v), 0), the total variation distance; what gained is split into five groups
without overlap, in this order:

* ``end``: the end token;
* ``other``: the other response's token, at the first position where the two differ (their contexts are the same there,
  and nowhere later);
* ``greedy``: the token that the untouched model would have taken;
* ``near``: the ten tokens nearest to the response's own by the cosine of their output embeddings, less the mean one;
* ``rest``: every other token;

and ``own``, the response's own token, which may gain or lose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.numbers import significant
from rewardshape.probe.distributed import gather_by_place
from rewardshape.probe.measure.logprobs import Batch, ResponseLogps
from rewardshape.probe.measure.predictions import (
    AGREEMENT,
    CHUNK_ELEMENTS,
    Seen,
    chunks,
    disagreement,
    logps_of,
    see,
)
from rewardshape.probe.measure.probe_set import PAIR, ProbeSet, Score
from rewardshape.probe.measure.projection import Head, NoLinearHead, head_of

GROUPS = ("end", "other", "greedy", "near")
NEAR = 10
WIDTHS = [1, 1, 1, NEAR]  # tokens of each group at a position
TOP = 5
KEPT_ELEMENTS = 2**26  # probabilities of step 0 that are kept, 256 MB; what is beyond is projected again
LOGITS = 2**25  # of a batch now, 128 MB: as many as the pass makes are not made a second time


class Positions(NamedTuple):
    """What is asked at every position of the chosen and rejected responses of a batch."""

    rows: Int64[Tensor, "positions"]
    """Where the position stands among all that the batch predicts."""
    targets: Int64[Tensor, "positions"]
    """The response's own tokens."""
    others: Int64[Tensor, "positions"]
    """The other response's token where the two first differ, else −1."""
    response: Int64[Tensor, "positions"]
    """Which response a position belongs to, ascending."""


class Moved(NamedTuple):
    """Probability mass moved since step 0, one row per response: summed over its positions, in tokens."""

    moved: Float[Tensor, "responses"]
    """Mass that changed places."""
    own: Float[Tensor, "responses"]
    """What the response's own tokens gained (negative: lost)."""
    gains: Float[Tensor, "responses groups"]
    """What each of `GROUPS` gained; own tokens are in none."""
    own_gains: Float[Tensor, "responses"]
    """What own tokens gained at the positions where they gained."""
    by_token: Float[Tensor, "responses vocabulary"]
    """Net gain of every token of the vocabulary."""


class Tables(NamedTuple):
    """What the trace records of a pass."""

    destination: dict[str, list[Any]] | None = None
    """Per response: pair_id, response, moved, own, own_gained, and what each group gained: to_end, to_other,
    to_greedy, to_near, to_rest (tokens of mass, summed over its positions)."""
    destination_tokens: dict[str, list[Any]] | None = None
    """The tokens that gained and lost most in each response: pair_id, response, token_id, token (its text), change
    (tokens of mass)."""


def compare(
    before: Seen,
    after: Seen,
    heads: tuple[Head, Head],
    asked: Positions,
    columns: Int64[Tensor, "positions group_tokens"],
    kept: Float[Tensor, "positions vocabulary"] | None = None,
) -> Moved:
    """Compare the predictions of two states of a model, position by position.

    Parameters
    ----------
    before, after
        What a pass saw in the two states.
    heads
        The output projections of the two.
    asked
        Of which positions.
    columns
        The tokens of `GROUPS` at each position, `WIDTHS` of each; −1 where there is none.
    kept
        The probabilities of before, where they are at hand.
    """
    num_responses = int(asked.response[-1]) + 1
    vocabulary = heads[0].weight.shape[0]
    wide = torch.promote_types(before.hidden.dtype, torch.float32)
    moved, own, own_gains = (before.hidden.new_zeros(num_responses, dtype=wide) for _ in range(3))
    gains = before.hidden.new_zeros(num_responses, len(GROUPS), dtype=wide)
    by_token = before.hidden.new_zeros(num_responses, vocabulary, dtype=wide)
    for chunk in chunks(len(asked.targets), vocabulary, before.hidden.device):
        targets, where = asked.targets[chunk], asked.response[chunk]
        first = logps_of(heads[0], before, chunk, targets).exp_() if kept is None else kept[chunk]
        change = logps_of(heads[1], after, chunk, targets).exp_().sub_(first)
        by_token.index_add_(0, where, change)
        own_change = change.gather(1, targets[:, None]).squeeze(1)
        gained = change.gather(1, columns[chunk].clamp(min=0)).clamp_(min=0)
        gained = gained * _first_of_each(columns[chunk], targets)
        own.index_add_(0, where, own_change)
        own_gains.index_add_(0, where, own_change.clamp(min=0))
        gains.index_add_(0, where, torch.stack([part.sum(1) for part in gained.split(WIDTHS, 1)], 1))
        moved.index_add_(
            0, where, torch.linalg.vector_norm(change, 1, dim=-1) / 2
        )  # gains are as large as losses
    return Moved(moved, own, gains, own_gains, by_token)


def _first_of_each(
    columns: Int64[Tensor, "chunk group_tokens"], targets: Int64[Tensor, "chunk"]
) -> Float[Tensor, "chunk group_tokens"]:
    """1 where a column names a token that no column before it names and that is not the target; 0 elsewhere."""
    again = (columns[:, :, None] == columns[:, None, :]).tril(-1).any(-1)
    return ((columns >= 0) & ~again & (columns != targets[:, None])).to(torch.float32)


def nearest_tokens(
    weight: Float[Tensor, "vocabulary width"], tokens: Int64[Tensor, "tokens"], count: int = NEAR
) -> Int64[Tensor, "tokens nearest"]:
    """The tokens whose output embeddings are nearest by cosine, the mean embedding taken off first.

    Parameters
    ----------
    weight
        Of the output projection.
    tokens
        Whose neighbours are asked for.
    count
        How many of each; all others where the vocabulary has no more.

    Returns
    -------
    Tensor
        Nearest first, the token itself left out.
    """
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    unit = torch.nn.functional.normalize(wide - wide.mean(0), dim=-1)
    found = []
    for chunk in tokens.split(max(1, CHUNK_ELEMENTS // len(weight))):
        likeness = unit[chunk] @ unit.T
        likeness.scatter_(1, chunk[:, None], -torch.inf)
        found.append(likeness.topk(min(count, len(weight) - 1), dim=-1).indices)
    return torch.cat(found)


class Destination:
    """Follows the probability of the probe pairs' chosen and rejected responses along a run.

    Parameters
    ----------
    probe : ProbeSet
        Its passes are the ones that are looked at.
    end_token : int or None
        Of the tokenizer.
    decode : callable
        From token ids to text.
    """

    def __init__(self, probe: ProbeSet, *, end_token: int | None, decode: Callable[[list[int]], str]):
        self.probe = probe
        self.end_token = end_token
        self.decode = decode
        self._asked = [
            _positions([probe.pairs[i] for i in group], batch["targets"].device)
            for group, batch in zip(probe.groups, probe.batches, strict=True)
        ]
        self._before: list[Seen] = []
        self._head: Head | None = None
        self._kept: list[Float[Tensor, "_ vocabulary"] | None] = []
        self._columns: list[Int64[Tensor, "_ group_tokens"]] = []
        self._found: dict[int, tuple[dict[str, Any], list[dict[str, Any]]]] = {}

    def begin(self, model: Any, score: Score) -> None:
        """Look at the untouched model: keep its hidden states and a copy of its output projection.

        Raises
        ------
        InputError
            If the model's predictions are not one matrix product of its last hidden states.
        """
        try:
            self._head = head = head_of(model).copied()
        except NoLinearHead as error:
            raise InputError(f"--destination-every: cannot follow this model, {error}") from error
        self._before, self._kept, greedy, room = [], [], [], KEPT_ELEMENTS
        with torch.no_grad():
            for asked, batch in zip(self._asked, self.probe.batches, strict=True):
                seen = see(model, score, batch)[1].at(asked.rows)
                self._check(seen, asked)
                self._before.append(seen)
                size = len(asked.targets) * len(head.weight)
                self._kept.append(self._probabilities(seen, asked) if size <= room else None)
                room -= size if size <= room else 0
                pieces = chunks(len(asked.targets), len(head.weight), seen.hidden.device)
                greedy.append(torch.cat([head.logits(seen.hidden[chunk]).argmax(-1) for chunk in pieces]))
        tokens, place = torch.cat([asked.targets for asked in self._asked]).unique(return_inverse=True)
        near = nearest_tokens(head.weight, tokens)
        near = torch.nn.functional.pad(near, (0, NEAR - near.shape[1]), value=-1)[place]
        near = near.split([len(asked.targets) for asked in self._asked])
        end = -1 if self.end_token is None else self.end_token
        self._columns = [
            torch.cat([torch.stack([torch.full_like(taken, end), asked.others, taken], 1), alike], 1)
            for asked, taken, alike in zip(self._asked, greedy, near, strict=True)
        ]

    def _probabilities(self, seen: Seen, asked: Positions) -> Float[Tensor, "positions vocabulary"]:
        assert self._head is not None
        vocabulary = len(self._head.weight)
        pieces = chunks(len(asked.targets), vocabulary, seen.hidden.device)
        return torch.cat([logps_of(self._head, seen, piece, asked.targets[piece]).exp_() for piece in pieces])

    def _check(self, seen: Seen, asked: Positions) -> None:
        assert self._head is not None
        off = disagreement(self._head, seen, asked.targets)
        if not off <= AGREEMENT:
            raise InputError(
                "--destination-every: cannot follow this model, its output is no matrix product of its last hidden"
                f" states (off by {significant(off, 2)} nats per token)"
            )

    def watch(self, model: Any, score: Score) -> Score:
        """`score`, which on its way compares each batch of the probe set with step 0; `tables` then has it."""
        assert self._head is not None, "begin comes first"
        self._found = {}
        head = self._head
        batches = iter(range(len(self.probe.batches)))

        def watched(batch: Batch) -> ResponseLogps:
            number = next(batches)
            asked = self._asked[number]
            logps, seen = see(model, score, batch, most=LOGITS)
            seen = seen.at(asked.rows)
            heads = head, head_of(model)
            kept = self._kept[number]
            moved = compare(self._before[number], seen, heads, asked, self._columns[number], kept)
            self._found |= self._rows(self.probe.groups[number], moved)
            return logps

        return watched

    def tables(self) -> Tables:
        """What the last watched pass over the probe set found; the same on every process."""
        rows, tokens = zip(*gather_by_place(self._found), strict=True)
        self._found = {}
        return Tables(_columns(list(rows)), _columns([row for its in tokens for row in its]))

    def _rows(
        self, group: Sequence[int], moved: Moved
    ) -> dict[int, tuple[dict[str, Any], list[dict[str, Any]]]]:
        """By its place, row and tokens of every response of a batch."""
        rest = moved.moved - moved.own_gains - moved.gains.sum(1)
        ids, changes = _top(moved.by_token)
        rows = {}
        for number, (pair, side) in enumerate((pair, side) for pair in group for side in PAIR):
            name = {"pair_id": self.probe.pairs[pair].pair_id, "response": side}
            gains = zip(GROUPS, moved.gains[number].tolist(), strict=True)
            row = name | {
                "moved": moved.moved[number].item(),
                "own": moved.own[number].item(),
                "own_gained": moved.own_gains[number].item(),
                **{f"to_{group}": gain for group, gain in gains},
                "to_rest": rest[number].item(),
            }
            tokens = [
                name | {"token_id": token, "token": self.decode([token]), "change": change}
                for token, change in zip(ids[number].tolist(), changes[number].tolist(), strict=True)
            ]
            rows[len(PAIR) * pair + PAIR.index(side)] = row, tokens
        return rows


def _top(
    by_token: Float[Tensor, "responses vocabulary"],
) -> tuple[Int64[Tensor, "responses top"], Float[Tensor, "responses top"]]:
    """The tokens that gained and those that lost most in each response, most gained first, and by how much."""
    count = min(TOP, by_token.shape[1] // 2)
    most, least = by_token.topk(count).indices, by_token.topk(count, largest=False).indices.flip(1)
    ids = torch.cat([most, least], 1)
    return ids, by_token.gather(1, ids)


def _positions(pairs: Sequence[EncodedPair], device: torch.device) -> Positions:
    rows: list[int] = []
    targets: list[int] = []
    others: list[int] = []
    response: list[int] = []
    row = number = 0
    for pair in pairs:
        chosen, rejected = (pair.responses[side] for side in PAIR)
        first = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
        starts = {}
        for name, ids in pair.responses.items():
            starts[name] = row
            row += len(ids)
        for side, own, other in (("chosen", chosen, rejected), ("rejected", rejected, chosen)):
            rows += range(starts[side], starts[side] + len(own))
            targets += own
            others += [other[first] if i == first else -1 for i in range(len(own))]
            response += [number] * len(own)
            number += 1
    return Positions(*(torch.tensor(values, device=device) for values in (rows, targets, others, response)))


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}

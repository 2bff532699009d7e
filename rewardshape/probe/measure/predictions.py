"""What a model predicts at each position, as whole distributions over the vocabulary, without holding them.

A distribution is a matrix product of the last hidden state. So the hidden states that a pass hands to the output
projection are kept (they are small), and the distributions are made of them in pieces, looked at and forgotten.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rewardshape.probe.measure.logprobs import Batch, ResponseLogps, without_virtual
from rewardshape.probe.measure.probe_set import Score
from rewardshape.probe.measure.projection import Head

CHUNK_ELEMENTS = 2**22
AGREEMENT = 1e-2  # nats: more than rounding in bfloat16, less than a layer that this module does not know of
CHECKED = 64  # positions of a batch at which the projection is checked


class Seen(NamedTuple):
    """What a pass saw at some positions."""

    hidden: Float[Tensor, "positions width"]
    """Hidden states that predict them."""
    logps: Float[Tensor, "positions"]
    """Log-probability of the response's own tokens, nats."""
    logits: Float[Tensor, "positions vocabulary"] | None = None
    """Where they were kept."""

    def at(self, rows: Int64[Tensor, "_"]) -> Seen:
        """The same at some of the positions."""
        if torch.equal(rows, torch.arange(len(self.logps), device=rows.device)):
            return self
        return Seen(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]


def see(model: Any, score: Score, batch: Batch, *, most: int = 0) -> tuple[ResponseLogps, Seen]:
    """A pass over a batch by `score`, and what the model saw on its way at every position that predicts a response.

    Parameters
    ----------
    most : int
        How many logits are kept: those of the batch if they are no more, and pass through `project`; else none.
    """
    kept: list[Float[Tensor, "positions vocabulary"]] = []
    vocabulary = len(model.get_output_embeddings().weight)

    def keep(words: slice, logits: Float[Tensor, "positions tile"]) -> None:
        if not kept:
            kept.append(logits.new_empty(len(logits), vocabulary))
        kept[0][:, words] = logits

    keeps = sum(batch["lengths"]) * vocabulary <= most
    with watching(model) as handed:
        logps = score({**batch, "hear": keep} if keeps else batch)
    [hidden] = handed
    return logps, Seen(
        without_virtual(hidden, batch).flatten(0, 1)[batch["predicting"]],
        logps.token_logps.detach(),
        kept[0] if kept else None,
    )


@contextlib.contextmanager
def watching(model: Any) -> Iterator[list[Float[Tensor, "texts rows width"]]]:
    """Within it, what is handed to the model's output projection is added to the list."""
    found: list[Float[Tensor, "texts rows width"]] = []

    def see_hidden(_: torch.nn.Module, args: tuple[Float[Tensor, "texts rows width"]]) -> None:
        found.append(args[0].detach())

    # Registered before the reader's own hook, which hands the head no rows.
    hook = model.get_output_embeddings().register_forward_pre_hook(see_hidden)
    try:
        yield found
    finally:
        hook.remove()


def disagreement(head: Head, seen: Seen, targets: Int64[Tensor, "positions"]) -> float:
    """By how much the log-probs that `head` gives differ from those of the pass: nats per token, of some positions."""
    some = slice(0, CHECKED)
    again = head.logits(seen.hidden[some]).log_softmax(-1).gather(1, targets[some, None]).squeeze(1)
    return (again - seen.logps[some]).abs().mean().item()


def chunks(positions: int, vocabulary: int, device: torch.device) -> Sequence[Int64[Tensor, "_"]]:
    """The positions in pieces whose distributions fit the memory."""
    return torch.arange(positions, device=device).split(max(1, CHUNK_ELEMENTS // vocabulary))


def logps_of(
    head: Head, seen: Seen, chunk: Int64[Tensor, "chunk"], targets: Int64[Tensor, "chunk"]
) -> Float[Tensor, "chunk vocabulary"]:
    """Log-probability of every word. The normaliser is known: the own token's logit less its log-probability."""
    logits = head.logits(seen.hidden[chunk]) if seen.logits is None else seen.logits[chunk]
    own = logits.gather(1, targets[:, None])
    return logits.sub_(own - seen.logps[chunk, None].to(logits.dtype))

"""What does the model say of each response: its tokens' log-probabilities, in nats.

Two paths give the same numbers. `PlainPath` is the reference: one padded row per response, whole logits,
transformers' own forward. `SharedPrefixPath` is what a run uses: no padding, each prompt read once for all its
responses, and the vocabulary projected only where a response token is predicted. `choose_path` compares the two
on the model at hand.

Both take encoded pairs with any number of responses. Responses come out in row-major order: pair by pair,
within a pair in the order of its `responses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rewardshape.errors import InputError


class EncodedPair(Protocol):
    """A prompt and its responses as token ids; `rewardshape.data.preferences.EncodedPair` is one."""

    pair_id: str
    prompt_ids: list[int]
    responses: dict[str, list[int]]


Batch = dict[str, Any]
"""Tensors, which whoever trains moves to the model's device, and plain Python lists of lengths, which stay on the
CPU: cutting tensors to length then never waits for a GPU."""


@dataclass(frozen=True)
class ResponseLogps:
    """Log-probabilities of a batch's responses, row-major.

    Attributes
    ----------
    token_logps : Tensor, shape (tokens,)
        Log-probability of every response token in nats, float32 or wider, with gradient.
    greedy_logps : Tensor, shape (tokens,)
        Log-probability of the token the model would rather have said there, in nats; no gradient.
    entropies : Tensor, shape (tokens,)
        Entropy of the prediction there, in nats; no gradient.
    lengths : list of int
        Number of tokens of each response; they add up to `tokens`.
    """

    token_logps: Tensor
    greedy_logps: Tensor
    entropies: Tensor
    lengths: list[int]

    def padded(self) -> Tensor:
        """Token log-probs as one row per response, shape (responses, longest), zero after the end."""
        return pad_sequence(list(self.token_logps.split(self.lengths)), batch_first=True)

    @property
    def logp_sum(self) -> Tensor:
        """Log-probability of each response in nats, shape (responses,), with gradient."""
        return self.padded().sum(-1)


class Path(Protocol):
    """A way from encoded pairs to log-probabilities."""

    name: str

    def collate(self, pairs: Sequence[EncodedPair]) -> Batch: ...

    def logps(self, model: torch.nn.Module, batch: Batch) -> ResponseLogps: ...


class PlainPath:
    """The reference: one right-padded row per response, the whole logits, log-softmax.

    Parameters
    ----------
    pad_token_id : int
        What stands in the padding; any id of the vocabulary gives the same numbers.
    """

    name = "plain"

    def __init__(self, *, pad_token_id: int = 0):
        self.pad_token_id = pad_token_id

    def collate(self, pairs: Sequence[EncodedPair]) -> Batch:
        """Encoded pairs as one batch; every pair may have any number of responses."""
        rows = [(pair.prompt_ids, ids) for pair in _checked(pairs) for ids in pair.responses.values()]
        width = max(len(prompt) + len(response) for prompt, response in rows)
        input_ids = torch.full((len(rows), width), self.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, (prompt, response) in enumerate(rows):
            length = len(prompt) + len(response)
            input_ids[row, :length] = torch.tensor([*prompt, *response])
            attention_mask[row, :length] = 1
        predicting = [
            torch.arange(len(response)) + row * width + len(prompt) - 1
            for row, (prompt, response) in enumerate(rows)
        ]
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "predicting": torch.cat(predicting),
            "targets": _targets(pairs),
            "lengths": _lengths(pairs),
        }

    def logps(self, model: torch.nn.Module, batch: Batch) -> ResponseLogps:
        """Log-probabilities of a batch that this path collated."""
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits.flatten(0, 1)[batch["predicting"]]
        logp = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        every = logp.detach()
        return ResponseLogps(
            token_logps=logp.gather(-1, batch["targets"][:, None]).squeeze(-1),
            greedy_logps=every.amax(-1),
            entropies=torch.special.entr(every.exp()).sum(-1),
            lengths=batch["lengths"],
        )


def choose_path(model: torch.nn.Module, pairs: Sequence[EncodedPair]) -> tuple[Path, str]:
    """The fastest path that is right for this model, and a sentence on why where it is not the fast one.

    Parameters
    ----------
    model : causal language model of transformers
        Its mode (training or evaluation) and its gradients are left as they were.
    pairs : sequence of EncodedPair
        A batch to compare the paths on.

    Returns
    -------
    path : Path
        With `.collate(pairs)` and `.logps(model, batch)`.
    note : str
        Empty, or why the plain path was taken.
    """
    return PlainPath(), ""


def response_logps(model: torch.nn.Module, batch: Batch) -> ResponseLogps:
    """Log-probabilities of a batch by the path that collated it."""
    return PlainPath().logps(model, batch)


def _checked(pairs: Sequence[EncodedPair]) -> Sequence[EncodedPair]:
    """The pairs, once it is sure that each has a prompt and responses: without them nothing is predicted."""
    if not pairs:
        raise InputError("no pairs to collate; give at least one")
    for pair in pairs:
        if not pair.prompt_ids:
            raise InputError(
                f"{pair.pair_id}: the prompt has no tokens; start it with the model's first token (bos)"
            )
        if not pair.responses:
            raise InputError(f"{pair.pair_id}: no responses; give at least one")
        for name, ids in pair.responses.items():
            if not ids:
                raise InputError(
                    f"{pair.pair_id}: the {name} response has no tokens; drop the row or end it (eos)"
                )
    return pairs


def _targets(pairs: Sequence[EncodedPair]) -> Tensor:
    return torch.tensor([token for pair in pairs for ids in pair.responses.values() for token in ids])


def _lengths(pairs: Sequence[EncodedPair]) -> list[int]:
    return [len(ids) for pair in pairs for ids in pair.responses.values()]

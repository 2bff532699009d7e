"""The untouched model, which objectives and samples are compared with: its log-probs, its predictions, the model."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, TrainerCallback

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.numbers import significant
from rewardshape.probe.distributed import is_sharded, on_main
from rewardshape.probe.measure.logprobs import Reader, by_name, on_device
from rewardshape.probe.measure.predictions import AGREEMENT, disagreement, see
from rewardshape.probe.measure.probe_set import (
    PAIR,
    TOKENS_PER_BATCH,
    ReferenceLogps,
    Score,
    group_by_tokens,
    reference_logps,
)
from rewardshape.probe.measure.projection import Head, NoLinearHead, head_of
from rewardshape.probe.policy import untouched
from rewardshape.theory import MovingReference
from rewardshape.trace.folder import read_json, write_whole


class Reference:
    """Log-probs of every pair under the untouched model: measured once for all runs that train on them, kept on disk.

    Parameters
    ----------
    pairs : sequence of EncodedPair
    file : Path
        Where they are kept for a resumed run, beside those of other pairs.
    """

    def __init__(self, pairs: Sequence[EncodedPair], file: Path):
        self.pairs = list(pairs)
        self.file = file
        self._logps: ReferenceLogps | None = None

    def logps(self, reader: Reader, score: Score, device: torch.device) -> ReferenceLogps:
        """Log-prob of each response in nats; `score` must see the untouched model at the first call."""
        if self._logps is None:
            kept = on_main(self._kept)
            self._logps = kept if all(pair.pair_id in kept for pair in self.pairs) else None
        if self._logps is None:
            logps = self._logps = reference_logps(self.pairs, reader, device, score)
            on_main(lambda: write_whole(self.file, json.dumps({**self._kept(), **logps})))
        return self._logps

    def is_kept(self) -> bool:
        """Whether nobody has to measure it any more."""
        return self._logps is not None or self._kept().keys() >= {pair.pair_id for pair in self.pairs}

    def require(self, checkpoint: Path) -> None:
        """Refuse to go on from a checkpoint where the log-probs of the model before training are lost."""
        if not self.is_kept():
            raise InputError(
                f"{self.file}: lost or of other pairs, and {checkpoint} is trained: the untouched model's log-probs "
                "cannot be measured on it; put the file back, or move the record and the checkpoints of "
                f"{checkpoint.parent.parent} away and the run begins anew"
            )

    def _kept(self) -> ReferenceLogps:
        return read_json(self.file, {}) if self.file.is_file() else {}


ByResponse = dict[tuple[str, str], Tensor]
FOLLOWING = "reference.safetensors"  # of a checkpoint
NORMALIZED_AT_ONCE = 2**24  # logits


@dataclass
class ReferenceTokens:
    """What the untouched model says of the pairs that are trained on, token by token; kept in memory, not on disk.

    Attributes
    ----------
    logps
        Log-probability of every token in nats, by pair id and response.
    hidden, normalizers, head
        Where whole predictions are wanted: the states that predict the tokens, the logsumexp of their logits, and a
        copy of the output projection.
    """

    logps: ByResponse = field(default_factory=dict)
    hidden: ByResponse = field(default_factory=dict)
    normalizers: ByResponse = field(default_factory=dict)
    head: Head | None = None

    def padded(self, pairs: Sequence[EncodedPair]) -> dict[str, Float[Tensor, "pairs longest"]]:
        """Log-probabilities of the tokens of chosen and of rejected, zero after the end; all rows of one length."""
        rows = [self.logps[pair.pair_id, name] for pair in pairs for name in PAIR]
        return by_name(PAIR, pad_sequence(rows, batch_first=True))

    def predictions(self, pairs: Sequence[EncodedPair]) -> dict[str, Tensor]:
        """What the reader needs, beside the head, to measure divergences; empty where only log-probs were asked for."""
        if self.head is None:
            return {}
        keys = [(pair.pair_id, name) for pair in pairs for name in PAIR]
        return {
            "reference_hidden": torch.cat([self.hidden[key] for key in keys]),
            "reference_normalizer": torch.cat([self.normalizers[key] for key in keys]),
        }


@torch.no_grad()
def reference_tokens(
    pairs: Sequence[EncodedPair],
    reader: Reader,
    device: torch.device,
    score: Score,
    model: Any,
    *,
    predictions: bool,
) -> ReferenceTokens:
    """Read the pairs, chosen and rejected each, with the model as it stands.

    Parameters
    ----------
    score : callable
        From a collated batch to its log-probabilities under `model`.
    predictions : bool
        Whether whole predictions are wanted. Keeps the last hidden state of every response token.

    Raises
    ------
    InputError
        If predictions are wanted of a model whose output is not one matrix product, or whose weights are sharded.
    """
    found = ReferenceTokens(head=_frozen_head(model) if predictions else None)
    for group in group_by_tokens(pairs, TOKENS_PER_BATCH):
        batch = on_device(reader.collate([pairs[index] for index in group]), device)
        logps, seen = see(model, score, batch)
        keys = [(pairs[index].pair_id, name) for index in group for name in PAIR]
        found.logps |= zip(keys, logps.token_logps.cpu().split(logps.lengths), strict=True)
        if found.head is not None:
            if not (off := disagreement(found.head, seen, batch["targets"])) <= AGREEMENT:
                raise InputError(
                    "--objective: compares whole predictions, and the output of this model is no matrix product of its "
                    f"last hidden states (off by {significant(off, 2)} nats per token)"
                )
            hidden = seen.hidden.to(found.head.weight.dtype)
            size = max(1, NORMALIZED_AT_ONCE // len(found.head.weight))
            normalizer = torch.cat([found.head.logits(part).logsumexp(-1) for part in hidden.split(size)])
            found.hidden |= zip(keys, hidden.cpu().split(logps.lengths), strict=True)
            found.normalizers |= zip(keys, normalizer.cpu().split(logps.lengths), strict=True)
    return found


def _frozen_head(model: Any) -> Head:
    if is_sharded():
        raise InputError(
            "--objective: compares whole predictions, and a sharded model (FSDP) has no whole output projection; "
            "run it under DDP or on one process"
        )
    try:
        return head_of(model).copied()
    except NoLinearHead as error:
        raise InputError(f"--objective: compares whole predictions, and of this model {error}") from error


class FollowingReference(TrainerCallback):
    """A reference that follows the policy, weight by weight, as a `MovingReference` says; kept in every checkpoint.

    Parameters
    ----------
    untouched : causal language model of transformers
        As it is before training.
    objective : MovingReference

    Attributes
    ----------
    model
        The reference as it stands.
    """

    def __init__(self, untouched: PreTrainedModel, objective: MovingReference):
        if is_sharded():
            raise InputError(
                f"--objective {objective.name}: a sharded model (FSDP) has no copy that could follow it; run it under "
                "DDP or on one process"
            )
        self.objective = objective
        self.model = copy.deepcopy(untouched).eval()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.objective.every == 0:
            policy = extract_model_from_parallel(kwargs["model"])
            trained = {name: weight for name, weight in policy.named_parameters() if weight.requires_grad}
            with torch.no_grad():
                for name, weight in self._weights().items():
                    weight.lerp_(trained[name].to(weight.dtype), self.objective.mixing)

    def save(self, checkpoint: Path) -> None:
        """Write its weights into the folder of a checkpoint."""
        save_file(
            {name: weight.contiguous() for name, weight in self._weights().items()}, checkpoint / FOLLOWING
        )

    def load(self, checkpoint: Path) -> None:
        """Go on with the weights that `save` wrote."""
        kept = load_file(checkpoint / FOLLOWING)
        with torch.no_grad():
            for name, weight in self._weights().items():
                weight.copy_(kept[name])

    def _weights(self) -> dict[str, Tensor]:
        """The weights that are trained; the others are the policy's own."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}


def untouched_model(
    policy: PreTrainedModel, *, adapters: bool
) -> Callable[[PreTrainedModel], AbstractContextManager[PreTrainedModel]]:
    """How to get the untouched model while `policy` trains: adapters switched off, else a copy made now."""
    if adapters:
        return untouched
    kept = copy.deepcopy(policy).eval()
    for patched in (
        "forward",
        "_original_forward",
    ):  # TRL's and accelerate's, whose closures run the policy itself
        kept.__dict__.pop(patched, None)
    return lambda _: nullcontext(kept)

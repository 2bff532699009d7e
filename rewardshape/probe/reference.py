"""The untouched model, which objectives and samples are compared with: its log-probs, and the model itself."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from transformers import PreTrainedModel

from rewardshape.data import EncodedPair
from rewardshape.probe.distributed import on_main
from rewardshape.probe.measure.logprobs import Reader
from rewardshape.probe.measure.probe_set import ReferenceLogps, Score, reference_logps
from rewardshape.probe.policy import untouched
from rewardshape.trace.folder import write_whole


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

    def _kept(self) -> ReferenceLogps:
        if not self.file.is_file():
            return {}
        kept: ReferenceLogps = json.loads(self.file.read_text(encoding="utf-8"))
        return kept


def untouched_model(
    policy: PreTrainedModel, *, adapters: bool
) -> Callable[[PreTrainedModel], AbstractContextManager[PreTrainedModel]]:
    """How to get the untouched model while `policy` trains: adapters switched off, else a copy made now."""
    if adapters:
        return untouched
    kept = copy.deepcopy(policy).eval()
    return lambda _: nullcontext(kept)

"""The record of a run, and its append-only writer.

A run folder holds

* ``run.json``: the manifest (every setting, versions, data fingerprint, device);
* ``trace.jsonl``: the record. The first line states the fixed probe set; every further line is one step;
* ``timing.jsonl``: seconds per step, apart from the record so that the record of two equal runs is the same
  to the last byte;
* ``probe_set.jsonl``: the texts and tokens of the probe pairs, for people and for the report.

**When a number was measured.** The line of step t holds, under ``train``, the log-probabilities of the pairs
of that step's batch as its own forward pass saw them: with the weights *before* update t. Under ``probe`` it
holds the fixed probe set with the weights *after* update t. Step 0 is the untouched checkpoint: its line has
a probe set and no training batch.

``geometry`` holds the probe pairs' gradients. Its ``gram_…``, ``ches…`` and ``weight_…`` columns are measured as the
probe set is: after update t. Its ``predicted_…``, ``descent_…`` and ``moved_…`` columns are about update t: what the
gradients before it predict of the change from step t − 1 to t, and that change. Step 0 lacks them. ``kernel`` has, at
step 0 and at the last, the inner products of the gradients of every two responses of the first pairs.

``destination`` and ``destination_tokens`` say, with the weights after update t, where the probability of the probe
responses went since step 0; ``influence`` what a step on each training pair would do to the probe set's chosen
responses, ``influence_pairs`` which training pairs push each single one of them down most.

Every table is a mapping from column name to a list; all lists of a table have one length. Log-probabilities
are in nats, summed over the response tokens (the end token included where one was appended).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardshape.errors import InputError
from rewardshape.numbers import as_json
from rewardshape.trace.folder import RunFolder

FORMAT = 1
DIGITS = 10  # significant, of every number: more than float32 holds

Table = Mapping[str, Sequence[Any]]


def _line(record: Mapping[str, Any]) -> str:
    return (
        json.dumps(as_json(record, DIGITS), ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
    )


def _refuse_one_name_for_two(probe_set: Table) -> None:
    responses = Counter(zip(probe_set["pair_id"], probe_set["response"], strict=True))
    for (name, _), times in responses.items():
        if times > 1:
            raise InputError(
                f"{times} probe pairs are called {name}; read all the data at once, or rename them"
            )


class TraceWriter:
    """Appends one line a step; a line is on disk before `append` returns.

    Parameters
    ----------
    folder : Path
        The run folder; it must exist.
    probe_set : table, or None when continuing a trace
        Columns `pair_id`, `response`, `num_tokens`, `ref_logp_sum` (None where the objective has no reference),
        one row per probe response, in the order in which every step's ``probe`` table is written.

    Raises
    ------
    InputError
        If two pairs of the probe set have one name.
    """

    def __init__(self, folder: Path, probe_set: Table | None = None):
        files = RunFolder(Path(folder))
        if probe_set is not None:
            _refuse_one_name_for_two(probe_set)
        self._file = open(files.trace, "a", encoding="utf-8")
        self._timing = open(files.timing, "a", encoding="utf-8")
        if probe_set is not None:
            self._write({"format": FORMAT, "probe_set": probe_set})

    def append(
        self,
        step: int,
        *,
        metrics: Mapping[str, float] | None = None,
        train: Table | None = None,
        probe: Table | None = None,
        geometry: Table | None = None,
        kernel: Table | None = None,
        samples: Table | None = None,
        destination: Table | None = None,
        destination_tokens: Table | None = None,
        influence: Table | None = None,
        influence_pairs: Table | None = None,
        tokens: Sequence[Sequence[float]] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Write the record of one step; `tokens` holds per-token log-probs, one list per probe response."""
        parts = {
            "metrics": metrics,
            "train": train,
            "probe": probe,
            "geometry": geometry,
            "kernel": kernel,
            "samples": samples,
            "destination": destination,
            "destination_tokens": destination_tokens,
            "influence": influence,
            "influence_pairs": influence_pairs,
            "tokens": tokens,
        }
        self._write({"step": step, **{name: part for name, part in parts.items() if part is not None}})
        if seconds is not None:
            self._timing.write(_line({"step": step, "seconds": seconds}))
            self._timing.flush()

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(_line(record))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files; what was appended is on the disk already."""
        self._file.close()
        self._timing.close()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""A record of made numbers, as the writer writes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewardshape.trace import TraceWriter

PROBE = {
    "pair_id": ["a", "a", "b", "b"],
    "response": ["chosen", "rejected"] * 2,
    "num_tokens": [3, 4, 5, 6],
    "ref_logp_sum": [None] * 4,
}


def _write(folder: Path, steps: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with TraceWriter(folder, PROBE) as writer:
        for step in range(steps):
            train = {
                "pair_id": ["c", "c"],
                "response": ["chosen", "rejected"],
                "logp_sum": np.float32([-1.1, -2.2]),
            }
            writer.append(
                step,
                metrics={"loss": 1.0 / (step + 1)} if step else {},
                train={**train, "ref_logp_sum": [None, None], "num_tokens": [2, 2]} if step else None,
                probe={
                    "logp_sum": [-1.0 - step, -2.0, -3.0, -4.0 + step],
                    "entropy_sum": [1.0, 1.0, 1.0, math.nan],
                },
                samples={"prompt_id": ["p"], "text": ["hi"], "gold": [None], "logp_sum": [-0.5]}
                if step == 1
                else None,
                seconds=0.5 + step,
            )
    return folder


@pytest.fixture
def probe_set() -> Mapping[str, Any]:
    """Two pairs."""
    return PROBE


@pytest.fixture(scope="session")
def record() -> Callable[..., Path]:
    """Writes a record of some steps: `record(folder, steps=3)`."""
    return _write

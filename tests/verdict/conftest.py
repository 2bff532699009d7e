"""Logs of made runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from rewardshape.logs.log import Log


def _make(chosen, *, split="train", margin=None, noise=0.0, seed=0, first=10, **columns):
    """A log of a made run: chosen rewards by row, and a margin that grows unless it is given."""
    rng = np.random.default_rng(seed)
    chosen = (
        np.asarray(chosen, dtype=float) + rng.normal(0, noise, len(chosen))
        if noise
        else np.asarray(chosen, float)
    )
    margin = np.linspace(0.05, 1.5, len(chosen)) if margin is None else np.asarray(margin, float)
    table = pd.DataFrame(
        {
            "split": split,
            "step": first + 10 * np.arange(len(chosen)),
            "loss": np.logaddexp(0, -margin),
            "accuracy": 0.75,
            "margin": margin,
            "reward_chosen": chosen,
            "reward_rejected": chosen - margin,
            **columns,
        }
    )
    return Log("made", "made", table)


def _log_of(**series):
    """A training log of given series."""
    rows = len(next(iter(series.values())))
    return Log(
        "made", "made", pd.DataFrame({"split": "train", "step": 10 * np.arange(1, rows + 1), **series})
    )


@pytest.fixture
def make() -> Callable[..., Log]:
    """The log of a run by its chosen rewards: `make(chosen, split="train", margin=None, noise=0.0, …)`."""
    return _make


@pytest.fixture
def log_of() -> Callable[..., Log]:
    """A training log of given series: `log_of(loss=…, margin=…)`."""
    return _log_of

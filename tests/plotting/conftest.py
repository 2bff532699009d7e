"""Made runs to draw: one with four kinds of responses, a sweep over α, and one over α and seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rewardshape.trace import read_trace

PAIRS, STEPS = 40, 6
TOKENS = {name: np.full(PAIRS, 8) for name in ("chosen", "rejected", "rephrased", "shuffled")}


def _write(write_run, folder, names=("chosen", "rejected"), *, alpha=0.25, seed=0):
    rng = np.random.default_rng([seed, round(100 * alpha) + 1000])
    fall = {"chosen": 0.02, "rejected": 0.05, "rephrased": 0.01, "shuffled": 0.011}
    at = np.arange(STEPS)[:, None]
    sums = {
        name: -rng.uniform(8, 12, PAIRS) - 8 * fall[name] * at * rng.uniform(0.5, 1.5, PAIRS)
        for name in names
    }
    greedy = {name: -2 + 0.1 * at + np.zeros(PAIRS) for name in names}
    stated = {"name": "alphapo", "parameters": {"alpha": alpha, "beta": 2.5, "gamma": 0.5}}
    return write_run(
        folder,
        sums,
        num_tokens=TOKENS,
        measured={"greedy_logp_sum": greedy},
        objective=stated,
        run={"seed": seed},
    )


@pytest.fixture
def write(write_run) -> Callable[..., Path]:
    """Writes a run of `PAIRS` pairs and `STEPS` steps: `write(folder, ("chosen", "rejected"), alpha=0.25, seed=0)`."""
    return lambda folder, *names, **options: _write(write_run, folder, *names, **options)


@pytest.fixture
def line() -> Callable[[Axes, str], Line2D]:
    """The line of a label: `line(ax, "chosen")`."""
    return lambda ax, label: next(item for item in ax.get_lines() if item.get_label() == label)


@pytest.fixture
def run(write, tmp_path):
    return read_trace(write(tmp_path / "run", tuple(TOKENS)))


@pytest.fixture
def sweep(write, tmp_path):
    for alpha in (1.0, -0.5, 0.0):
        write(tmp_path / "sweep" / f"alpha={alpha}", alpha=alpha)
    return read_trace(tmp_path / "sweep")


@pytest.fixture
def seeds(write, tmp_path):
    for alpha in (0.0, 1.0):
        for seed in range(3):
            write(tmp_path / "seeds" / f"alpha={alpha}-seed={seed}", alpha=alpha, seed=seed)
    return read_trace(tmp_path / "seeds")

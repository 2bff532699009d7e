"""Draws the figures of docs/theory.md: ``python docs/theory_figures/draw.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from rewardshape.figures.theory_tables import (
    displacement_by_alpha,
    phase_portrait,
    softmax_against_fixed_gram,
)
from rewardshape.plotting.style import FAINT, ordered_colors, style
from rewardshape.plotting.theory import plot_displacement_by_alpha, plot_phase_portrait, plot_softmax_paths

HERE = Path(__file__).parent
SCORES = HERE.parent / "text_scores.csv"
BREAK_EVEN = {"z = 0": -0.33, "z = 1": -1.03, "z = 2": -1.35, "z = 3": -1.54}  # of docs/theory.md, first row

DASHES = ("-", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 2, 1, 2)))  # one for each kind of text


def main() -> None:
    with style(), plt.rc_context({"svg.hashsalt": "rewardshape"}):
        portrait = phase_portrait()
        figure, axes = plt.subplots(1, 3, figsize=(10, 3.8), sharey=True, layout="constrained")
        for ax, alpha in zip(axes, (-1.0, 0.0, 1.0), strict=True):
            plot_phase_portrait(portrait, ax, alpha=alpha)
        for ax in axes[1:]:
            ax.set_ylabel("")
        figure.savefig(HERE / "phase_portraits.svg", metadata={"Date": None})
        figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
        plot_displacement_by_alpha(displacement_by_alpha(), axes[0])
        plot_softmax_paths(softmax_against_fixed_gram(), axes[1])
        figure.savefig(HERE / "displacement.svg", metadata={"Date": None})
        figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
        plot_text_scores(pd.read_csv(SCORES), ax)
        figure.savefig(HERE / "text_scores.svg", metadata={"Date": None})


def plot_text_scores(table: pd.DataFrame, ax: Axes) -> None:
    """The share of texts of each kind below every log-probability per token, and where α = 0.25 begins to help."""
    kinds = table["kind"].unique()
    for kind, color, dashes in zip(kinds, ordered_colors(len(kinds)), DASHES, strict=True):
        scores = np.sort(table["score"][table["kind"] == kind])
        below = np.arange(1, len(scores) + 1) / len(scores)
        ax.step(scores, below, where="post", color=color, linestyle=dashes, label=f"{kind} ({len(scores)})")
    for name, score in BREAK_EVEN.items():
        ax.axvline(score, color=FAINT, zorder=0)
        ax.annotate(name, (score, 0.02), rotation=90, fontsize="x-small", ha="right")
    ax.set_xlabel("log-probability per token (nats)")
    ax.set_ylabel("share of texts below")
    ax.legend(fontsize="small", loc="upper left")


if __name__ == "__main__":
    main()

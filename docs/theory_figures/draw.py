"""Draws the figures of docs/theory.md: ``python docs/theory_figures/draw.py``."""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot as plt

from rewardshape.figures.theory_tables import (
    displacement_by_alpha,
    phase_portrait,
    softmax_against_fixed_gram,
)
from rewardshape.plotting.style import style
from rewardshape.plotting.theory import plot_displacement_by_alpha, plot_phase_portrait, plot_softmax_paths

HERE = Path(__file__).parent


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


if __name__ == "__main__":
    main()

"""Draws the figure of docs/alpha.md from the tables beside it: ``python docs/alpha_study/draw.py``.

``python benchmarks/alpha_study.py keep shared --into docs/alpha_study`` makes the tables from the runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy import stats

from rewardshape.plotting.style import FAINT, alpha_color, style

HERE = Path(__file__).parent
ENDS = {"gold T=0.7": "gold at T = 0.7", "gold T=0": "greedy gold"}


def main() -> None:
    runs, curves = pd.read_csv(HERE / "shared.csv"), pd.read_csv(HERE / "shared_along_margin.csv")
    with style("paper"), plt.rc_context({"svg.hashsalt": "rewardshape"}):
        figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), layout="constrained")
        for ax, (column, name) in zip(axes, ENDS.items(), strict=False):
            plot_differences(runs, column, ax)
            ax.set_xlabel(f"{name} against α = 0")
        axes[0].set_ylabel("α")
        plot_along(curves, axes[2])
        figure.savefig(HERE / "shared.svg", metadata={"Date": None})
        figure.savefig(HERE / "shared.png", dpi=200)


def differences(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """Of every seed (rows) and α (columns) the end point minus that of α = 0."""
    wide = runs.pivot(index="seed", columns="alpha", values=column)
    return wide.drop(columns=0.0).sub(wide[0.0], axis=0)


def plot_differences(runs: pd.DataFrame, column: str, ax: Axes) -> None:
    """A small dot for each seed; the mean over seeds with its 95 % t-interval."""
    table = differences(runs, column)
    for place, alpha in enumerate(table):
        values = table[alpha].dropna().to_numpy()
        color = alpha_color(float(alpha))
        ax.scatter(values, np.full(len(values), place - 0.18), s=6, color=color, alpha=0.6, linewidths=0)
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        ax.errorbar(values.mean(), place + 0.08, xerr=half, fmt="o", color=color, markersize=4, capsize=2)
    ax.set_yticks(range(len(table.columns)), [f"{alpha:g}".replace("-", "−") for alpha in table])
    ax.axvline(0, color=FAINT, zorder=0)


def plot_along(curves: pd.DataFrame, ax: Axes) -> None:
    """Chosen change minus that of α = 0 of the same seed, over the share of the margin both reach."""
    for alpha, rows in curves.groupby("alpha"):
        wide = rows.pivot(index="seed", columns="share", values="difference")
        half = stats.t.ppf(0.975, len(wide) - 1) * wide.sem()
        color = alpha_color(float(alpha))
        ax.plot(wide.columns, wide.mean(), color=color, label=f"{alpha:g}".replace("-", "−"))
        ax.fill_between(
            wide.columns, wide.mean() - half, wide.mean() + half, color=color, alpha=0.15, linewidth=0
        )
    ax.axhline(0, color=FAINT, zorder=0)
    ax.set_xlabel("share of the margin that both reach")
    ax.set_ylabel("chosen above α = 0 (nats per token)")
    ax.legend(title="α", fontsize="x-small", title_fontsize="x-small", ncols=2)


if __name__ == "__main__":
    main()

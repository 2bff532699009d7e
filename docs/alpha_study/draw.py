"""Draws the figures of docs/alpha.md from the tables beside it, or of another folder of such tables into that one.

    python docs/alpha_study/draw.py
    python docs/alpha_study/draw.py docs/chat_model/own_answers judge shared

``python benchmarks/alpha_study.py keep shared judge control --into docs/alpha_study`` makes the tables from the runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy import stats

from rewardshape.plotting.style import FAINT, alpha_color, style

HERE = Path(__file__).parent
ENDS = {"gold T=0.7": "gold at T = 0.7", "gold T=0": "greedy gold"}

FEWEST = 3  # seeds that make a band

STAGES = {"shared": "α = 0", "judge": "α = 0", "control": "its control"}  # what each is compared with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HERE)
    parser.add_argument("stages", nargs="*", help=", ".join(STAGES))
    options = parser.parse_args()
    folder: Path = options.folder
    for stage in options.stages or STAGES:
        other = STAGES[stage]
        runs, curves = pd.read_csv(folder / f"{stage}.csv"), pd.read_csv(folder / f"{stage}_along_margin.csv")
        with style("paper"), plt.rc_context({"svg.hashsalt": "rewardshape"}):
            figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), layout="constrained")
            for ax, (column, name) in zip(axes, ENDS.items(), strict=False):
                plot_differences(differences(folder, runs, column, stage), ax)
                ax.set_xlabel(f"{name} against {other}")
            axes[0].set_ylabel("α")
            if curves["seed"].nunique() < FEWEST:  # too few seeds have a margin in common
                plot_differences(differences(folder, runs, "chosen_change", stage), axes[2])
                axes[2].set_xlabel(f"chosen against {other} (nats per token)")
            else:
                plot_along(curves, axes[2])
                axes[2].set_ylabel(f"chosen above {other} (nats per token)")
            figure.savefig(folder / f"{stage}.svg", metadata={"Date": None})
            figure.savefig(folder / f"{stage}.png", dpi=200)
        plt.close(figure)


def differences(folder: Path, runs: pd.DataFrame, column: str, stage: str) -> pd.DataFrame:
    """Of every seed (rows) and α (columns) the end point minus that of α = 0; or tuned minus control."""
    wide = runs.pivot(index="seed", columns="alpha", values=column)
    if stage == "control":
        tuned = pd.read_csv(folder / "judge.csv").pivot(index="seed", columns="alpha", values=column)
        return tuned.drop(columns=0.0) - wide
    return wide.drop(columns=0.0).sub(wide[0.0], axis=0)


def plot_differences(table: pd.DataFrame, ax: Axes) -> None:
    """A small dot for each seed; the mean over seeds with its 95 % t-interval."""
    for place, alpha in enumerate(table):
        values = table[alpha].dropna().to_numpy()
        color = alpha_color(float(alpha))
        ax.scatter(values, np.full(len(values), place - 0.18), s=6, color=color, alpha=0.6, linewidths=0)
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        ax.errorbar(values.mean(), place + 0.08, xerr=half, fmt="o", color=color, markersize=4, capsize=2)
    ax.set_yticks(range(len(table.columns)), [f"{alpha:g}".replace("-", "−") for alpha in table])
    ax.axvline(0, color=FAINT, zorder=0)


def plot_along(curves: pd.DataFrame, ax: Axes) -> None:
    """Difference of the chosen change of one seed, over the share of the margin that both reach."""
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
    ax.legend(title="α", fontsize="x-small", title_fontsize="x-small", ncols=2)


if __name__ == "__main__":
    main()

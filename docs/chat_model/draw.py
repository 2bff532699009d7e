"""Draws the figures of docs/chat_model.md from the tables beside it: ``python docs/chat_model/draw.py``.

``python benchmarks/chat_phenomena.py keep chat-model --output runs/chat-phenomena`` makes the tables from the runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy import stats

from rewardshape.plotting.style import (
    BOTH_COLUMNS,
    CHOSEN,
    FAINT,
    NEUTRAL,
    REJECTED,
    alpha_color,
    style,
    text_color,
)

HERE = Path(__file__).parent
LINES = {"chosen": (CHOSEN, "-"), "rejected": (REJECTED, "--"), "own": (NEUTRAL, ":")}
BESIDE = {
    -0.5: (-36, -14),
    0.0: (3, -2),
    0.25: (-52, -24),
    1.0: (5, -4),
}  # where a name is on no line, in points
NAMES = {"own": "its own answers"}


def main() -> None:
    polite, hh, pairs = (pd.read_csv(HERE / f"{name}.csv") for name in ("polite", "hh", "polite_pairs"))
    with style("paper"), plt.rc_context({"svg.hashsalt": "rewardshape"}):
        figure, axes = plt.subplots(1, 3, figsize=(BOTH_COLUMNS, 2.5), layout="constrained")
        plot_course(polite[polite["alpha"] == 0], axes[0])
        axes[0].set_title("polite pairs, α = 0")
        plot_course(hh[hh["alpha"] == 0], axes[1])
        axes[1].set_title("HH harmless, α = 0")
        plot_shapes(polite, axes[2])
        axes[2].set_title("polite pairs, four shapes")
        _save(figure, "real_pairs")
        figure, axes = plt.subplots(1, 2, figsize=(BOTH_COLUMNS, 2.5), layout="constrained", sharey=True)
        plot_quarters(pairs, "ches", axes[0])
        axes[0].set_xlabel("quarter of the pairs by CHES, lowest first")
        axes[0].set_ylabel("change of chosen (nats per token)")
        plot_quarters(pairs, "initial_logp_margin", axes[1])
        axes[1].set_xlabel("by chosen minus rejected before training")
        _save(figure, "which_pairs")


def _save(figure: plt.Figure, name: str) -> None:
    figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})
    figure.savefig(HERE / f"{name}.png", dpi=200)
    plt.close(figure)


def half(table: pd.DataFrame) -> pd.Series:
    """Half of the 95 % t-interval of every column's mean over the seeds."""
    return stats.t.ppf(0.975, len(table) - 1) * table.sem()


def plot_course(runs: pd.DataFrame, ax: Axes) -> None:
    """Change of chosen, rejected and the untouched model's own answers over the steps, with intervals over seeds."""
    for name, (color, dash) in LINES.items():
        wide = runs.pivot(index="seed", columns="step", values=f"Δ {name}")
        mean, spread = wide.mean(), half(wide)
        ax.plot(mean.index, mean, color=color, linestyle=dash, label=NAMES.get(name, name))
        ax.fill_between(mean.index, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
    ax.axhline(0, color=FAINT, zorder=0)
    ax.set_xlabel("training step")
    ax.set_ylabel("change (nats per token)")
    ax.legend()


def plot_shapes(runs: pd.DataFrame, ax: Axes) -> None:
    """Chosen change over margin gain, a thin line for each seed, a thick one for the mean."""
    for alpha, of_alpha in runs.groupby("alpha"):
        color = alpha_color(float(alpha))
        for _, run in of_alpha.groupby("seed"):
            ax.plot(run["margin gain"], run["Δ chosen"], color=color, linewidth=0.6, alpha=0.6)
        mean = of_alpha.groupby("step")[["margin gain", "Δ chosen"]].mean()
        ax.plot(mean["margin gain"], mean["Δ chosen"], color=color)
        name = f"α = {alpha:g}".replace("-", "−")
        ax.annotate(
            name,
            (mean["margin gain"].iloc[-1], mean["Δ chosen"].iloc[-1]),
            xytext=BESIDE[float(alpha)],
            textcoords="offset points",
            color=text_color(color),
        )
    ax.axhline(0, color=FAINT, zorder=0)
    ax.set_xlabel("margin gain (nats per token)")
    ax.set_ylabel("change of chosen (nats per token)")


def plot_quarters(pairs: pd.DataFrame, column: str, ax: Axes) -> None:
    """Mean change of chosen in each quarter of a run's pairs by a descriptor: seeds small, means with intervals."""
    quarter = pairs.groupby("seed")[column].transform(lambda values: pd.qcut(values, 4, labels=False) + 1)
    mean = pairs.assign(quarter=quarter).groupby(["seed", "quarter"])["chosen_change"].mean().unstack()
    for place, values in mean.items():
        ax.scatter(np.full(len(values), place - 0.12), values, s=6, color=CHOSEN, alpha=0.6, linewidths=0)
    ax.errorbar(mean.columns, mean.mean(), yerr=half(mean), fmt="o", color=CHOSEN, markersize=4, capsize=2)
    ax.set_xticks(range(1, 5))
    ax.axhline(0, color=FAINT, zorder=0)


if __name__ == "__main__":
    main()

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

from rewardshape.plotting.style import BOTH_COLUMNS, CHOSEN, FAINT, NEUTRAL, REJECTED, alpha_color, style

HERE = Path(__file__).parent
LINES = {"chosen": (CHOSEN, "-"), "rejected": (REJECTED, "--"), "own": (NEUTRAL, ":")}
NAMES = {"own": "its own answers"}
KINDS = {  # of response in the helpful probe set, in words
    "chosen": "chosen", "rejected": "rejected", "chosen_initial": "the model's own, before",
    "chosen_selfr": "chosen, reworded by the model", "chosen_gptsemantic": "chosen, reworded",
    "chosen_gptformat": "chosen, another format", "reject_gptsemantic": "rejected, reworded",
    "reject_gptformat": "rejected, another format", "irr_train": "answer to another prompt",
    "irr_test": "answer to a held-out prompt", "irr_hum": "unrelated sentence",
    "random_permute": "chosen, words shuffled", "random_nonhum": "random words",
    "greedy_logp": "greedy tokens", "entropy": "entropy of the predictions",
}  # fmt: skip


def main() -> None:
    polite, hh, helpful = (pd.read_csv(HERE / f"{name}.csv") for name in ("polite", "hh", "helpful"))
    with style("paper"), plt.rc_context({"svg.hashsalt": "rewardshape"}):
        figure, axes = plt.subplots(1, 3, figsize=(BOTH_COLUMNS, 2.5), layout="constrained")
        plot_course(polite[polite["alpha"] == 0], axes[0])
        axes[0].set_title("polite pairs, α = 0")
        plot_course(hh[hh["alpha"] == 0], axes[1])
        axes[1].set_title("HH harmless, α = 0")
        plot_shapes(polite, axes[2])
        axes[2].set_title("polite pairs, four shapes")
        _save(figure, "real_pairs")
        figure, ax = plt.subplots(figsize=(0.72 * BOTH_COLUMNS, 3.2), layout="constrained")
        plot_kinds(helpful[helpful["step"] == helpful["step"].max()], ax)
        _save(figure, "helpful")


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
        ax.plot(mean["margin gain"], mean["Δ chosen"], color=color, label=f"{alpha:g}".replace("-", "−"))
    ax.axhline(0, color=FAINT, zorder=0)
    ax.set_xlabel("gain of the margin (nats per token)")
    ax.set_ylabel("change of chosen (nats per token)")
    ax.legend(title="α", ncols=2)


def plot_kinds(last: pd.DataFrame, ax: Axes) -> None:
    """Change of every kind of response at the last step: seeds small, the mean with its interval over seeds."""
    table = last[[f"Δ {kind}" for kind in KINDS]].rename(columns=lambda name: name.removeprefix("Δ "))
    mean, spread = table.mean(), half(table)
    for place, kind in enumerate(mean.sort_values().index):
        color = {"chosen": CHOSEN, "rejected": REJECTED}.get(kind, NEUTRAL)
        ax.scatter(table[kind], np.full(len(table), place - 0.2), s=6, color=color, linewidths=0)
        ax.errorbar(mean[kind], place, xerr=spread[kind], fmt="o", color=color, markersize=4, capsize=2)
    ax.set_yticks(range(len(mean)), [KINDS[kind] for kind in mean.sort_values().index])
    ax.axvline(0, color=FAINT, zorder=0)
    ax.set_xlabel("change over 60 steps (nats per token)")


if __name__ == "__main__":
    main()

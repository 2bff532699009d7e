"""Tables and figure of docs/alpha.md, from the sweep it describes: ``python docs/alpha_figures/draw.py runs/alpha``."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt

from rewardshape import read_trace
from rewardshape.analysis import compare_at_equal, over_seeds
from rewardshape.analysis.overoptimization import gold_curve
from rewardshape.plotting.style import COLUMN_WIDTH, GOLD, style
from rewardshape.plotting.sweep import plot_at_equal

HERE = Path(__file__).parent


def main(folder: str) -> None:
    trace = read_trace(folder)
    at_steps, at_margin, at_kl = (compare_at_equal(trace, axis) for axis in ("step", "logp_margin", "kl"))
    for rows in (at_steps, at_margin, at_kl):
        print(over_seeds(rows, baseline="alpha=0").round(3).to_string())
    pd.concat([at_steps, at_margin, at_kl]).round(5).to_csv(HERE / "comparison.csv", index=False)
    best = gold_curve(trace).groupby(["alpha", "seed"], as_index=False)["gold"].max()
    best.round(5).to_csv(HERE / "best_gold.csv", index=False)
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(2 * COLUMN_WIDTH, 2.4))
        plot_at_equal(at_steps, axes[0])
        plot_at_equal(at_margin, axes[1])
        axes[2].plot(best["alpha"], best["gold"], "o", color=GOLD, alpha=0.45, markersize=2)
        means = best.groupby("alpha")["gold"].mean()
        axes[2].plot(means.index, means, "o-", color=GOLD, linewidth=0.9)
        axes[2].set(xlabel="α", ylabel="best gold reward of a run")
        for ax in axes:
            ax.set_xticks([-1, 0, 1, 2], ["−1", "0", "1", "2"])
        axes[0].set_xlabel("α, after 150 steps")
        axes[1].set(xlabel="α, at equal margin", ylabel="")
        figure.savefig(HERE / "alpha.png", metadata={"Software": None})


if __name__ == "__main__":
    main(sys.argv[1])

"""The figures of docs/faq.md, from real logs of other people's runs: ``python docs/figures/real_logs.py LOGS``.

LOGS is the folder of logs; where each comes from is said beside its figure in the guide.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from rewardshape.logs import read_logs
from rewardshape.plotting.axes import step_axis
from rewardshape.plotting.diagnosis import plot_fall, plot_progress
from rewardshape.plotting.style import BOTH_COLUMNS, NEUTRAL, looks, style
from rewardshape.verdict import Verdict, judge

HERE = Path(__file__).parent
PANELS_SIZE = (BOTH_COLUMNS, 2.4)
DPI = 220  # twice what a page shows
INK = "black"  # what belongs to neither response


def main(logs: Path, folder: Path = HERE) -> list[Path]:
    """Draw every figure into a folder, this one if none is given."""
    written = []
    for draw, panels in PANELS.items():
        with style():
            figure, axes = plt.subplots(1, panels, figsize=PANELS_SIZE)
            draw(logs, axes)
            written.append(folder / f"{draw.__name__.replace('_', '-')}.png")
            figure.savefig(written[-1], dpi=DPI)
            plt.close(figure)
    return written


def fall(verdict: Verdict, ax: Axes, title: str) -> None:
    """What chosen and rejected did, as `diagnose` draws it."""
    evidence = verdict.evidence
    plot_fall(
        evidence.curve, ax, unit=evidence.unit, baseline=evidence.baseline.what,
        limit=None if evidence.exact else evidence.smallest_fall, onset=verdict.onset_step, steps=evidence.counts,
    )  # fmt: skip
    ax.set_title(title, fontsize="small", loc="left")


def chosen_falls(logs: Path, axes: Sequence[Axes]) -> None:
    verdict = judge(logs / "zephyr-7b-alpha.model-card.md")
    fall(verdict, axes[0], "zephyr-7b-alpha (DPO)")
    plot_progress(verdict.evidence.progress, axes[1])
    axes[1].set_title("and its loss and margin", fontsize="small", loc="left")


def perfect_accuracy(logs: Path, axes: Sequence[Axes]) -> None:
    _, log = read_logs(logs / "notux-8x7b-and-geitje-ultra.model-card-tables.md")
    fall(judge(log), axes[0], "GEITje-7B-ultra (DPO): saturated")
    rows = log.split("eval")
    left = -np.expm1(-rows["loss"])
    axes[1].plot(rows.index, rows["accuracy"], marker=".", color=INK, label="accuracy")
    axes[1].plot(rows.index, left, marker=".", color=NEUTRAL, label="gradient left: 1 − e$^{-loss}$")
    axes[1].set(xlabel="step", ylabel="share", ylim=(0, 1.05))
    axes[1].legend(loc="center right")


def too_little_and_too_much(logs: Path, axes: Sequence[Axes]) -> None:
    shown = {
        "clean-code-qwen-dpo.trainer_state.json": "7B, LoRA, β = 0.05, 2e-6, 160 steps",
        "deltacoder-9b-dpo.train.log": "9B, LoRA, β = 0.1, 5e-6, 283 steps",
    }
    for ax, (file, title) in zip(axes, shown.items(), strict=True):
        fall(judge(logs / file), ax, title)


def nothing_moves(logs: Path, axes: Sequence[Axes]) -> None:
    """The loss with ln 2, the accuracy with one half, the gradient norm: each on a scale of its own."""
    [log] = read_logs(logs / "reference-dpo-stdout-excerpt.log")
    rows = log.split("train")
    shown = {
        "loss": ("loss", math.log(2), "ln 2"),
        "accuracy": ("accuracy", 0.5, "½"),
        "grad_norm": ("gradient norm", 0, "0"),
    }
    for ax, (name, (label, still, said)) in zip(axes, shown.items(), strict=True):
        ax.plot(rows.index, rows[name], marker=".", color=INK)
        ax.axhline(still, color=NEUTRAL, linestyle=":", label=said)
        ax.set_ylabel(label)
        step_axis(ax, log.counts)
        ax.legend(loc="upper right")
    axes[0].set_title("reference DPO code, an excerpt")
    axes[0].set_ylim(0.5, 0.9)
    axes[1].set_ylim(0, 1)
    axes[2].set_ylim(-0.1, 1)


def units_differ(logs: Path, axes: Sequence[Axes]) -> None:
    [log] = read_logs(logs / "dpo-from-scratch-gpt2-355m.train.log")
    rows = log.split("eval")
    margins = np.linspace(0, rows["margin"].max(), 50)
    axes[0].plot(rows["margin"], rows["loss"], ".", color=INK, label="logged (validation)")
    axes[0].plot(
        margins, np.logaddexp(0, -margins), color=NEUTRAL, linestyle=":", label="if these were rewards"
    )
    axes[0].plot(margins, np.logaddexp(0, -0.1 * margins), color=NEUTRAL, label="times β = 0.1")
    axes[0].set(xlabel="margin, as logged", ylabel="loss", title="GPT-2 355M, DPO by hand")
    losses = read_logs(logs / "four-loss-types-mistral7b.readme-table.md")
    for log, look in zip(losses, looks(len(losses)), strict=True):
        rows = log.split("eval")
        axes[1].plot(rows.index, rows["logp_chosen"], **look, label=log.part)
    axes[1].set(xlabel=log.counts, ylabel="logps/chosen, as logged", title="four losses, one table")
    axes[0].legend(loc="best")
    axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


PANELS = {
    chosen_falls: 2,
    perfect_accuracy: 2,
    too_little_and_too_much: 2,
    nothing_moves: 3,
    units_differ: 2,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]))

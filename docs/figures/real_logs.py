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
from rewardshape.plotting.diagnosis import plot_fall, plot_progress
from rewardshape.plotting.style import NEUTRAL, style
from rewardshape.verdict import Verdict, judge

HERE = Path(__file__).parent
SIZE = (8.0, 2.8)
INK = "black"  # what belongs to neither response


def main(logs: Path, folder: Path = HERE) -> list[Path]:
    """Draw every figure into a folder, this one if none is given."""
    written = []
    for draw in (chosen_falls, perfect_accuracy, too_little_and_too_much, nothing_moves, units_differ):
        with style():
            figure, axes = plt.subplots(1, 2, figsize=SIZE, layout="constrained")
            draw(logs, axes)
            written.append(folder / f"{draw.__name__.replace('_', '-')}.png")
            figure.savefig(written[-1], dpi=110)
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
    axes[1].legend(fontsize="x-small")


def too_little_and_too_much(logs: Path, axes: Sequence[Axes]) -> None:
    shown = {
        "clean-code-qwen-dpo.trainer_state.json": "7B, LoRA, β = 0.05, 2e-6, 160 steps",
        "deltacoder-9b-dpo.train.log": "9B, LoRA, β = 0.1, 5e-6, 283 steps",
    }
    for ax, (file, title) in zip(axes, shown.items(), strict=True):
        fall(judge(logs / file), ax, title)


def nothing_moves(logs: Path, axes: Sequence[Axes]) -> None:
    [log] = read_logs(logs / "reference-dpo-stdout-excerpt.log")
    rows = log.split("train")
    axes[0].plot(rows.index, rows["loss"], marker=".", color=INK, label="loss")
    axes[0].axhline(math.log(2), color=NEUTRAL, linestyle=":", label="ln 2")
    axes[0].plot(rows.index, rows["grad_norm"], marker=".", color=NEUTRAL, label="gradient norm")
    axes[0].set(xlabel=log.counts, title="reference DPO code, an excerpt")
    axes[1].plot(rows.index, rows["accuracy"], marker=".", color=INK, label="accuracy")
    axes[1].plot(rows.index, rows["margin"], marker=".", color=NEUTRAL, label="margin")
    axes[1].set(xlabel=log.counts, ylim=(-0.1, 1))
    for ax in axes:
        ax.legend(fontsize="x-small")


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
    for log in read_logs(logs / "four-loss-types-mistral7b.readme-table.md"):
        rows = log.split("eval")
        axes[1].plot(rows.index, rows["logp_chosen"], marker=".", label=log.part)
    axes[1].set(xlabel=log.counts, ylabel="logps/chosen, as logged", title="four losses, one table")
    for ax in axes:
        ax.legend(fontsize="x-small")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

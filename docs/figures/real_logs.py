"""The figures of docs/faq.md, from real logs of other people's runs: ``python docs/figures/real_logs.py LOGS``.

LOGS is the folder of logs; where each comes from is said beside its figure in the guide.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from rewardshape.diagnose import Case, diagnose
from rewardshape.plotting.diagnosis import plot_fall, plot_progress
from rewardshape.plotting.style import CHOSEN, NEUTRAL, REJECTED, style

HERE = Path(__file__).parent
SIZE = (8.0, 2.8)


def main(logs: Path) -> None:
    """Draw every figure into this folder."""
    with style():
        for draw in (chosen_falls, perfect_accuracy, too_little_and_too_much, nothing_moves, units_differ):
            figure, axes = plt.subplots(1, 2, figsize=SIZE, layout="constrained")
            draw(logs, axes)
            figure.savefig(HERE / f"{draw.__name__.replace('_', '-')}.png", dpi=110)
            plt.close(figure)


def fall(case: Case, ax, title: str) -> None:
    log, verdict = case
    plot_fall(
        verdict.curve, ax, unit=verdict.unit, baseline=verdict.baseline, limit=verdict.limit, onset=verdict.onset_step,
        steps=log.counts,
    )  # fmt: skip
    ax.set_title(title, fontsize="small", loc="left")


def chosen_falls(logs: Path, axes) -> None:
    case = diagnose(logs / "zephyr-7b-alpha.model-card.md")[0]
    fall(case, axes[0], "zephyr-7b-alpha (DPO)")
    plot_progress(case.log.table, axes[1])
    axes[1].set_title("and its loss and margin", fontsize="small", loc="left")


def perfect_accuracy(logs: Path, axes) -> None:
    case = diagnose(logs / "notux-8x7b-and-geitje-ultra.model-card-tables.md")[1]
    fall(case, axes[0], "GEITje-7B-ultra (DPO): saturated")
    rows = case.log.split("eval")
    axes[1].plot(rows.index, rows["accuracy"], marker=".", color="black", label="accuracy")
    axes[1].plot(
        rows.index,
        -np.expm1(-rows["loss"]),
        marker=".",
        color=NEUTRAL,
        label="gradient left: 1 − e$^{-loss}$",
    )
    axes[1].set(xlabel="step", ylabel="share", ylim=(0, 1.05))
    axes[1].legend(fontsize="x-small")


def too_little_and_too_much(logs: Path, axes) -> None:
    fall(
        diagnose(logs / "clean-code-qwen-dpo.trainer_state.json")[0],
        axes[0],
        "7B, LoRA, β = 0.05, 2e-6, 160 steps",
    )
    fall(diagnose(logs / "deltacoder-9b-dpo.train.log")[0], axes[1], "9B, LoRA, β = 0.1, 5e-6, 283 steps")


def nothing_moves(logs: Path, axes) -> None:
    ((log, _),) = diagnose(logs / "reference-dpo-stdout-excerpt.log")
    rows = log.split("train")
    axes[0].plot(rows.index, rows["loss"], marker=".", color="black", label="loss")
    axes[0].axhline(math.log(2), color=NEUTRAL, linestyle=":", label="ln 2")
    axes[0].plot(rows.index, rows["grad_norm"], marker=".", color=REJECTED, label="gradient norm")
    axes[0].set(xlabel="step", title="reference DPO code, an excerpt")
    axes[1].plot(rows.index, rows["accuracy"], marker=".", color=CHOSEN, label="accuracy")
    axes[1].plot(rows.index, rows["margin"], marker=".", color=NEUTRAL, label="margin")
    axes[1].set(xlabel="step", ylim=(-0.1, 1))
    for ax in axes:
        ax.legend(fontsize="x-small")


def units_differ(logs: Path, axes) -> None:
    ((log, _),) = diagnose(logs / "dpo-from-scratch-gpt2-355m.train.log")
    rows = log.split("eval")
    margins = np.linspace(0, rows["margin"].max(), 50)
    axes[0].plot(rows["margin"], rows["loss"], ".", color="black", label="logged (validation)")
    axes[0].plot(margins, np.logaddexp(0, -margins), color=REJECTED, label="if these were rewards")
    axes[0].plot(margins, np.logaddexp(0, -0.1 * margins), color=CHOSEN, label="times β = 0.1")
    axes[0].set(xlabel="margin, as logged", ylabel="loss", title="GPT-2 355M, DPO by hand")
    cases = diagnose(logs / "four-loss-types-mistral7b.readme-table.md")
    for case in cases:
        rows = case.log.split("eval")
        axes[1].plot(rows.index, rows["logp_chosen"], marker=".", label=case.log.name.split(" · ")[-1])
    axes[1].set(xlabel="step", ylabel="logps/chosen, as logged", title="four losses, one table")
    for ax in axes:
        ax.legend(fontsize="x-small")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

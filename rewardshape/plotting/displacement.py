"""One run: what its probe set did. Takes the tables of `rewardshape.analysis.displacement`.

Intervals are 95 % over pairs. Every function returns its Axes, neither saves nor shows, and leaves the style alone.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression

from rewardshape.errors import InputError
from rewardshape.plotting.style import NEUTRAL, RESPONSE_COLORS, plain


def plot_displacement(curve: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Chosen and rejected log-prob of the probe set over the steps of one run.

    The line is the mean over pairs; the band is the interval of its *change since step 0*, laid around the line:
    what pairs differ in from the start is not in it. The dotted line is the level of step 0.

    Parameters
    ----------
    curve : DataFrame
        As `displacement_curve` returns it, of one run.
    """
    ax = plt.gca() if ax is None else ax
    _require_one_run(curve)
    for response in ("chosen", "rejected"):
        rows = curve[curve["response"] == response]
        color = RESPONSE_COLORS[response]
        start = rows["logp_mean"].iloc[0]
        ax.plot(rows["step"], rows["logp_mean"], color=color, label=response)
        ax.fill_between(
            rows["step"],
            start + rows["logp_mean_change_low"],
            start + rows["logp_mean_change_high"],
            color=color,
            alpha=0.18,
            linewidth=0,
        )
        ax.axhline(start, color=color, linewidth=0.7, linestyle=":", zorder=0)
    ax.set(xlabel="step", ylabel="log-prob of the probe set\n(nats per token)")
    ax.margins(x=0)
    _label_ends(ax)
    return ax


def plot_responses(curve: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Where the mass went: change of every probe response over the steps of one run.

    Where measured, the dashed line "greedy" is the log-prob of the tokens that greedy decoding would take at the
    positions of the chosen response: squeezing shows as this line rising while the responses fall.

    Parameters
    ----------
    curve : DataFrame
        As `displacement_curve` returns it, of one run.
    """
    ax = plt.gca() if ax is None else ax
    _require_one_run(curve)
    others = [name for name in curve["response"].unique() if name not in RESPONSE_COLORS]
    colors = RESPONSE_COLORS | dict(zip(others, sns.husl_palette(len(others), s=0.65, l=0.55), strict=True))
    ax.axhline(0, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
    for response, rows in curve.groupby("response", sort=False):
        ax.plot(
            rows["step"], rows["logp_mean_change"], color=colors[str(response)], label=plain(str(response))
        )
    chosen = curve[curve["response"] == "chosen"]
    if "greedy_mean_change" in chosen:
        ax.plot(chosen["step"], chosen["greedy_mean_change"], color="black", linestyle="--", label="greedy")
    ax.set(xlabel="step", ylabel="change in log-prob\nsince step 0 (nats per token)")
    ax.margins(x=0)
    _label_ends(ax)
    return ax


def plot_descriptor(
    pairs: pd.DataFrame, descriptor: str, ax: Axes | None = None, *, correlations: pd.DataFrame | None = None
) -> Axes:
    """One descriptor of the pairs (CHES, edit distance, a length, …) against how far their chosen response moved.

    Parameters
    ----------
    pairs : DataFrame
        As `pairs_table` returns it, of one run.
    descriptor : str
        A column of `pairs`.
    correlations : DataFrame, optional
        As `pair_correlations` returns it; the rank correlation is then written into the plot, and the
        axis has the descriptor's full name.

    Raises
    ------
    InputError
        If the pairs have no such descriptor.
    """
    if descriptor not in pairs:
        raise InputError(f"no descriptor {descriptor!r} for these pairs: choose {', '.join(pairs.columns)}")
    ax = plt.gca() if ax is None else ax
    _require_one_run(pairs)
    ax.axhline(0, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
    ax.plot(pairs[descriptor], pairs["chosen_change"], "o", color=RESPONSE_COLORS["chosen"], alpha=0.6, mew=0)
    label = descriptor.replace("_", " ")
    if correlations is not None:
        found = correlations.query("descriptor == @descriptor and change == 'chosen_change'")
        for row in found.itertuples():
            label = str(row.label)
            text = f"Spearman ρ = {row.rho:.2f} [{row.rho_low:.2f}, {row.rho_high:.2f}]"
            ax.text(1, 1.02, text.replace("-", "−"), transform=ax.transAxes, ha="right", va="bottom")
    ax.set(
        xlabel=label,
        ylabel="change of the chosen response\n(nats per token)",
    )
    return ax


def _require_one_run(table: pd.DataFrame) -> None:
    runs = table["run"].unique()
    if len(runs) != 1:
        raise InputError(f"this figure shows one run, the table holds {len(runs)}: pick one with table.query")


def _label_ends(ax: Axes) -> None:
    """Write each line's name at its right end, pushed apart where they would overlap."""
    named = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    ends = np.array([np.asarray(line.get_xydata())[-1] for line in named])
    order = np.argsort(ends[:, 1])
    size = font_manager.FontProperties(size=plt.rcParams["legend.fontsize"]).get_size_in_points()
    low, high = ax.get_ylim()
    gap = 1.15 * size / 72 * (high - low) / (ax.bbox.height / ax.figure.dpi)
    for i, height in zip(order, _apart(ends[order, 1], gap), strict=True):
        ax.annotate(
            str(named[i].get_label()),
            (ends[i, 0], height),
            xytext=(3, 0),
            textcoords="offset points",
            color=named[i].get_color(),
            fontsize=size,
            va="center",
            annotation_clip=False,
        )


def _apart(heights: np.ndarray, gap: float) -> np.ndarray:
    """The nearest heights (least squares, in order) that keep `gap` between neighbours."""
    offset = gap * np.arange(len(heights))
    return isotonic_regression(heights - offset).x + offset

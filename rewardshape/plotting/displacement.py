"""One run: what its probe set did. Takes the tables of `rewardshape.analysis.displacement`.

Intervals are 95 % over pairs. Every function returns its Axes and neither saves nor shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from rewardshape.errors import InputError
from rewardshape.numbers import number
from rewardshape.plotting.axes import (
    axis,
    has_diverged,
    label_ends,
    mark_end,
    note_end,
    require_one_run,
    step_axis,
    styled,
    zero_line,
)
from rewardshape.plotting.style import DASHES, RESPONSE_COLORS, ordered_colors, plain


@styled
def plot_displacement(curve: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Chosen and rejected log-prob of the probe set over the steps of one run.

    The line is the mean over pairs; the band is the interval of its *change since step 0*, laid around the line:
    what pairs differ in from the start is not in it. The dotted line is the level of step 0.

    Parameters
    ----------
    curve : DataFrame
        As `displacement_curve` returns it, of one run.
    """
    ax = axis(ax)
    require_one_run(curve)
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
        if has_diverged(rows):
            mark_end(ax, rows["step"], rows["logp_mean"], color)
    note_end(ax, curve)
    ax.set(ylabel="log-prob of the probe set\n(nats per token)")
    step_axis(ax)
    label_ends(ax)
    return ax


@styled
def plot_responses(curve: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Where the mass went: change of every probe response over the steps of one run.

    Where measured, the dashed line "greedy" is the log-prob of the tokens that greedy decoding would take at the
    positions of the chosen response: squeezing shows as this line rising while the responses fall.

    Parameters
    ----------
    curve : DataFrame
        As `displacement_curve` returns it, of one run.
    """
    ax = axis(ax)
    require_one_run(curve)
    looks = response_looks(curve["response"].unique())
    zero_line(ax)
    for response, rows in curve.groupby("response", sort=False):
        name = plain(str(response).replace("_", " "))
        ax.plot(rows["step"], rows["logp_mean_change"], label=name, **looks[str(response)])
        if str(response) in RESPONSE_COLORS:
            low, high = rows["logp_mean_change_low"], rows["logp_mean_change_high"]
            band = RESPONSE_COLORS[str(response)]
            ax.fill_between(rows["step"], low, high, color=band, alpha=0.13, linewidth=0)
        if has_diverged(rows):
            mark_end(ax, rows["step"], rows["logp_mean_change"], looks[str(response)]["color"])
    chosen = curve[curve["response"] == "chosen"]
    if "greedy_mean_change" in chosen:
        ax.plot(chosen["step"], chosen["greedy_mean_change"], color="black", linestyle="--", label="greedy")
    note_end(ax, curve)
    ax.set(ylabel="change in log-prob\nsince step 0 (nats per token)")
    step_axis(ax)
    label_ends(ax)
    return ax


@styled
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
    ax = axis(ax)
    require_one_run(pairs)
    zero_line(ax)
    ax.plot(pairs[descriptor], pairs["chosen_change"], "o", color=RESPONSE_COLORS["chosen"], alpha=0.6, mew=0)
    _bin_means(ax, pairs[descriptor].to_numpy(float), pairs["chosen_change"].to_numpy(float))
    label = descriptor.replace("_", " ")
    if correlations is not None:
        found = correlations.query("descriptor == @descriptor and change == 'chosen_change'")
        for row in found.to_dict("records"):
            label = str(row["label"])
            low, high = number(row["rho_low"], 2), number(row["rho_high"], 2)
            text = f"Spearman ρ = {number(row['rho'], 2)}"
            text += f" [{low}, {high}]" if np.isfinite(row["rho_low"]) else ""
            ax.text(1, 1.02, text, transform=ax.transAxes, ha="right", va="bottom")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5))
    ax.set(
        xlabel=label,
        ylabel="change of the chosen response\n(nats per token)",
    )
    return ax


BINS = 5  # groups of equally many pairs


def _bin_means(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """The mean over each fifth of the pairs, with two standard errors: what a cloud of points hides."""
    known = np.isfinite(x) & np.isfinite(y)
    order = np.argsort(x[known], kind="stable")
    groups = [group for group in np.array_split(order, BINS) if len(group) > 1]
    if not groups:
        return
    places = [x[known][group].mean() for group in groups]
    means = [y[known][group].mean() for group in groups]
    errors = [2 * y[known][group].std(ddof=1) / np.sqrt(len(group)) for group in groups]
    ax.errorbar(places, means, yerr=errors, fmt="D-", color="black", markersize=3, capsize=2, linewidth=0.9)


def response_looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, dashes and width of every response: those of a pair have their own, the others follow in the order given.

    Neighbours in that order have neighbouring colours, so that what is listed together is seen together.
    """
    named = [str(name) for name in names]
    others = [name for name in named if name not in RESPONSE_COLORS]
    colors = dict(zip(others, ordered_colors(len(others)), strict=True))
    return {
        name: {"color": RESPONSE_COLORS[name], "linewidth": 1.8, "linestyle": "-"}
        if name in RESPONSE_COLORS
        else {"color": colors[name], "linewidth": 1.0, "linestyle": DASHES[others.index(name) % len(DASHES)]}
        for name in named
    }

"""Figures of a diagnosis: what the chosen and rejected responses did, and what loss and margin made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rewardshape.numbers import moment, significant
from rewardshape.plotting.axes import axis, step_axis, styled
from rewardshape.plotting.style import CHOSEN, NEUTRAL, REJECTED
from rewardshape.plotting.thinning import extremes

FEW_ROWS = 60  # up to here every row gets a marker
STRETCHES = 1500  # beyond so many rows the lowest and the highest of each stretch are drawn: the same ink


@styled
def plot_fall(
    curve: pd.DataFrame,
    ax: Axes | None = None,
    *,
    unit: str,
    baseline: str,
    limit: float | None = None,
    onset: float | None = None,
    steps: str = "step",
) -> Axes:
    """Draw chosen and rejected above their baseline.

    Parameters
    ----------
    curve : DataFrame
        Columns step, chosen, smooth, and rejected where it is known, all in `unit`. `smooth` is drawn from the
        middle of its first window to that of its last: what it says beyond is the mean of that window, too.
    baseline : str
        What the curves stand above, for the axis.
    limit : float, optional
        What counts as beyond noise, drawn as a band around the baseline.
    onset : float, optional
        Step at which the fall began.
    steps : str
        What the steps count.
    """
    ax = axis(ax)
    marker = "." if len(curve) <= FEW_ROWS else None
    ax.axhline(0, color=NEUTRAL, linewidth=0.8)
    if limit is not None:
        ax.axhspan(-limit, limit, color=NEUTRAL, alpha=0.15, linewidth=0, label="within noise")
    if "rejected" in curve:
        _line(ax, curve, "rejected", color=REJECTED, marker=marker, linewidth=1, label="rejected")
    smoothed = not curve["smooth"].equals(curve["chosen"])
    if smoothed:
        _line(ax, curve, "chosen", color=CHOSEN, alpha=0.35, linewidth=0.8)
    _line(
        ax, _whole_windows(curve) if smoothed else curve, "smooth", color=CHOSEN,
        marker=None if smoothed else marker, label="chosen (windowed)" if smoothed else "chosen",
    )  # fmt: skip
    if onset is not None:
        begun = significant(onset) if onset < 100 else moment(round(onset))
        ax.axvline(onset, color=CHOSEN, linestyle=":", linewidth=1, label=f"fall begun by {steps} {begun}")
    ax.set_ylabel(f"above {baseline} ({unit})")
    step_axis(ax, steps)
    ax.legend(fontsize="x-small", frameon=True, framealpha=0.8, edgecolor="none")
    return ax


@styled
def plot_progress(
    table: pd.DataFrame, ax: Axes | None = None, *, best: float | None = None, steps: str = "step"
) -> Axes:
    """Draw the loss of training and evaluation, and the margin on a second axis.

    Where no loss is logged, the log-probability of the most likely tokens is drawn instead, if that is.

    Parameters
    ----------
    table : DataFrame
        Columns split (``train`` or ``eval``), step, and loss and margin where they are known.
    best : float, optional
        Step of the best held-out measure.
    """
    ax = axis(ax)
    for split, style in (("train", ":"), ("eval", "-")):
        rows = table[table["split"] == split]
        if "loss" in rows and rows["loss"].notna().any():
            label = "evaluation loss" if split == "eval" else "training loss"
            _line(ax, rows, "loss", color="black", linestyle=style, linewidth=1, label=label)
    measured = [
        s
        for s in ("eval", "train")
        if "margin" in table and table.loc[table["split"] == s, "margin"].notna().any()
    ]
    if measured:
        margin = ax.twinx()
        rows = table[table["split"] == measured[0]]
        _line(margin, rows, "margin", color=NEUTRAL, linewidth=1, linestyle="--")
        margin.set_ylabel("margin (reward units), dashed", color=NEUTRAL)
        ax.set_zorder(margin.get_zorder() + 1)  # the legend lies over the margin, too
        ax.patch.set_visible(False)
    if best is not None:
        ax.axvline(
            best, color="black", linewidth=0.6, alpha=0.6, label=f"best held out: {steps} {moment(best)}"
        )
    ax.set_ylabel("loss")
    if not _logged(table, "loss") and _logged(table, "logp_greedy"):
        _line(ax, table, "logp_greedy", color=NEUTRAL, label="most likely tokens")
        ax.set_ylabel("log-probability (nats)")
    elif not _logged(table, "loss"):
        ax.yaxis.set_visible(False)
        ax.spines["left"].set_visible(False)
    step_axis(ax, steps)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="x-small", frameon=True, framealpha=0.8, edgecolor="none")
    return ax


def _whole_windows(curve: pd.DataFrame) -> pd.DataFrame:
    """The rows from the middle of the first window to that of the last."""
    smooth = curve["smooth"].to_numpy(float)
    left, right = (~np.isclose(smooth, end, rtol=1e-12, atol=0) for end in (smooth[0], smooth[-1]))
    first, last = int(left.argmax()), len(smooth) - 1 - int(right[::-1].argmax())
    return curve.iloc[max(first - 1, 0) : last + 2]


def _logged(table: pd.DataFrame, series: str) -> bool:
    return series in table and bool(table[series].notna().any())


def _line(ax: Axes, table: pd.DataFrame, series: str, **look: Any) -> None:
    """One series over the steps, without the rows that lack it, and without what a line of this width hides."""
    rows = table[["step", series]].dropna().to_numpy(float)
    ax.plot(*rows[drawn_rows(rows[:, 1])].T, **look)


def drawn_rows(values: np.ndarray) -> np.ndarray:
    """The rows of a long series that its line needs: the ends, and the lowest and highest of each of its stretches.

    Examples
    --------
    >>> drawn_rows(np.zeros(3)).tolist()
    [0, 1, 2]
    """
    few = len(values) <= 4 * STRETCHES
    return np.arange(len(values)) if few else extremes(values[:, None], STRETCHES)

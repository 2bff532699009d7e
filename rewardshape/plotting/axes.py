"""What the plot functions share: where they draw when no axes are given, labels at line ends, ticks of steps."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import offset_copy
from scipy.optimize import isotonic_regression

from rewardshape.errors import InputError
from rewardshape.plotting.style import NEUTRAL, own_style, text_color

P = ParamSpec("P")
R = TypeVar("R")


def styled(plot: Callable[P, R]) -> Callable[P, R]:
    """A plot function that is given no axes draws in a new figure, in the project's style.

    Given axes keep the look of whoever made them, and so does a `style` already in force.
    """
    signature = inspect.signature(plot)
    [name] = [known for known in ("ax", "axes") if known in signature.parameters]

    @functools.wraps(plot)
    def draw(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments.get(name)
        with own_style() if given is None else contextlib.nullcontext():
            return plot(*args, **kwargs)

    return draw


def axis(ax: Axes | None, size: tuple[float, float] | None = None) -> Axes:
    """The axes given, or those of a new figure."""
    return plt.subplots(figsize=size)[1] if ax is None else ax


def panels(
    axes: Sequence[Axes] | None, rows: int, columns: int, size: tuple[float, float] | None = None, **grid: Any
) -> Sequence[Axes]:
    """The axes given, or those of a new figure, row by row."""
    if axes is not None:
        return axes
    return list(np.ravel(plt.subplots(rows, columns, figsize=size, squeeze=False, **grid)[1]))


def require_one_run(table: pd.DataFrame) -> None:
    """Refuse a table of several runs, for a figure that shows one."""
    runs = table["run"].unique()
    if len(runs) != 1:
        raise InputError(f"this figure shows one run, the table holds {len(runs)}: pick one with table.query")


def zero_line(ax: Axes) -> None:
    """Where nothing has changed."""
    ax.axhline(0, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)


def step_axis(ax: Axes, label: str = "step") -> None:
    """Steps along the bottom: whole numbers, no empty margin."""
    ax.set_xlabel(label)
    ax.margins(x=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, steps=[1, 2, 2.5, 5, 10]))


def percent_axis(ax: Axes) -> None:
    """Shares up the side, in whole per cent."""
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def has_diverged(rows: pd.DataFrame) -> bool:
    """Whether the runs of a table all ended in numbers that are not finite, as far as the table says."""
    return "diverged" in rows and len(rows) > 0 and bool(rows["diverged"].all())


def mark_end(ax: Axes, x: pd.Series, y: pd.Series, color: Any) -> None:
    """A cross at the end of a line: there its run diverged."""
    known = y.notna().to_numpy()
    if known.any():  # what a run that broke measured last may be no number
        ax.plot(
            x[known].iloc[-1],
            y[known].iloc[-1],
            "x",
            color=color,
            markersize=6,
            markeredgewidth=1.5,
            label="_diverged",
        )


def note_end(ax: Axes, rows: pd.DataFrame) -> None:
    """Say, where the lines of one run end, that it diverged, if it did."""
    if has_diverged(rows):
        note_beside(ax, rows["step"].max(), "diverged")


def note_beside(ax: Axes, x: float, text: str) -> None:
    """Small upright text at the foot of the axes, left of `x`."""
    ax.annotate(
        text,
        (x, 0),
        xycoords=ax.get_xaxis_transform(),
        xytext=(-3, 3),
        textcoords="offset points",
        rotation=90,
        ha="right",
        color=NEUTRAL,
        fontsize="x-small",
    )


NAME = "_name of a line"  # the label of the texts and leaders that `label_ends` writes


def label_ends(ax: Axes) -> None:
    """Write each line's name at the right edge, at the height of its end, pushed apart where they would overlap.

    A leader joins name and end where the name was moved, or where the line ends before the edge.
    """
    named, last = [], []
    for line in ax.get_lines():
        points = np.asarray(line.get_xydata(), float)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) and not str(line.get_label()).startswith("_"):
            named.append(line)
            last.append(points[-1])
    if not named:
        return
    ends = np.array(last)
    order = np.argsort(ends[:, 1])
    size = font_manager.FontProperties(size=plt.rcParams["legend.fontsize"]).get_size_in_points()
    low, high = ax.get_ylim()
    left, right = ax.get_xlim()
    line_height = 1.15 * size / 72 * (high - low) / (ax.bbox.height / ax.figure.dpi)
    lines = np.array([1 + str(line.get_label()).count("\n") for line in named])
    edge = ax.get_yaxis_transform()
    for i, height in zip(order, _apart(ends[order, 1], line_height * lines[order]), strict=True):
        color = named[i].get_color()
        moved = abs(height - ends[i, 1]) > 0.4 * line_height or right - ends[i, 0] > 0.02 * (right - left)
        ax.annotate(
            str(named[i].get_label()),
            (1, height),
            xycoords=edge,
            xytext=(12 if moved else 3, 0),
            textcoords="offset points",
            color=text_color(color),
            fontsize=size,
            va="center",
            annotation_clip=False,
            label=NAME,
        )
        if moved:
            leader = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0, "color": color}
            beside = offset_copy(edge, ax.get_figure(root=True), 11 / 72, 0)
            ax.annotate(
                "",
                ends[i],
                (1, height),
                textcoords=beside,
                arrowprops=leader,
                annotation_clip=False,
                label=NAME,
                zorder=1,  # behind what it passes
            )


def _apart(heights: np.ndarray, tall: np.ndarray) -> np.ndarray:
    """The nearest heights (least squares, in order) of the middles of texts so `tall` that do not overlap."""
    offset = np.cumsum(tall) - tall / 2
    return isotonic_regression(heights - offset).x + offset

"""Small multiples: any plot of one table, a panel for each value of what the runs differ in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rewardshape.errors import InputError
from rewardshape.numbers import parameter
from rewardshape.plotting.axes import NAME, panels, styled
from rewardshape.plotting.style import BOTH_COLUMNS, COLUMN_WIDTH, plain

PANEL = (1.75, 1.6)  # inches, at least


@styled
def facets(
    plot: Callable[..., Any],
    table: pd.DataFrame,
    axes: Sequence[Axes] | None = None,
    *,
    hue: str | None = None,
    col: str | None = None,
    row: str | None = None,
    **options: Any,
) -> Sequence[Axes]:
    """One plot for each value of `col` (side by side) and `row` (one below the other), colours by `hue`, one legend.

    Axes and colours mean the same in all panels. β × α × seeds: ``hue="alpha", col="beta"``, where seeds are drawn as
    the plot draws several runs of a setting; or ``row="seed"`` for a row each.

    Parameters
    ----------
    plot : callable
        A plot function that takes a table and ``ax``; one that shows a single run needs panels of one run.
    table : DataFrame
        What `plot` takes, with the columns that `hue`, `col` and `row` name: `settings_table` has every value by which
        the runs of a trace differ, to be merged in on ``run``.
    axes : sequence of Axes, optional
        One for each panel, row by row.
    hue, col, row : str, optional
        Names of columns. Without `hue` colours tell settings apart.
    **options
        Handed on to `plot`.

    Raises
    ------
    InputError
        If the table has no such column.

    Examples
    --------
    >>> curve = displacement_curve(trace).merge(settings_table(trace)[["run", "beta"]], on="run")  # doctest: +SKIP
    >>> facets(plot_trajectory, curve, hue="alpha", col="beta", row="seed")                        # doctest: +SKIP
    """
    for name in (hue, col, row):
        if name is not None and name not in table:
            raise InputError(
                f"no column {name!r} to tell panels or colours by: merge settings_table(trace) in first"
            )
    colored = _colored_by(table, hue)
    columns, rows = (_values(table, name) for name in (col, row))
    width = max(BOTH_COLUMNS if len(columns) > 1 else COLUMN_WIDTH, PANEL[0] * len(columns))
    size = (width, PANEL[1] * len(rows) + 0.7)
    axes = panels(axes, len(rows), len(columns), size, sharex=True, sharey=True)
    places = [(r, c) for r in rows for c in columns]
    for ax, (r, c) in zip(axes, places, strict=True):
        wanted = [table[name] == value for name, value in ((row, r), (col, c)) if name is not None]
        here = colored[np.logical_and.reduce(wanted)] if wanted else colored
        if len(here):
            plot(here, ax=ax, **options)
        named = [_named(name, value) for name, value in ((row, r), (col, c)) if name is not None]
        own = [ax.get_title()] if ax.get_title() else []  # which response it shows
        ax.set_title(", ".join([*own, *map(plain, named)]), color="black")
        ax.label_outer()
    _one_legend(axes)
    return axes


def _named(name: str, value: Any) -> str:
    return parameter(name, value) if isinstance(value, int | float) else str(value)


def _values(table: pd.DataFrame, name: str | None) -> list[Any]:
    return [None] if name is None else sorted(table[name].dropna().unique().tolist())


def _colored_by(table: pd.DataFrame, hue: str | None) -> pd.DataFrame:
    """The table with the values of `hue` as its settings, the same colours for the same value in every panel."""
    if hue is None:
        known = table["setting"].unique().tolist() if "setting" in table else []
        return table.assign(setting=pd.Categorical(table["setting"], known)) if known else table
    values = _values(table, hue)
    names = [_named(hue, value) for value in values]
    settings = pd.Categorical(table[hue].map(dict(zip(values, names, strict=True))), names)
    return table.assign(setting=settings, **({} if hue == "alpha" else {"alpha": float("nan")}))


def _one_legend(axes: Sequence[Axes]) -> None:
    """The names of all panels once, beside them, in place of each panel's own."""
    handles: dict[str, Any] = {}
    for ax in axes:
        handles |= {
            label: handle
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
            if label not in handles
        }
        legend = ax.get_legend()
        if legend is not None:
            legend.remove()
        for text in [text for text in ax.texts if text.get_label() == NAME]:
            text.remove()
    figure = axes[0].get_figure(root=True)
    if handles and isinstance(figure, Figure):
        figure.legend(handles.values(), handles.keys(), loc="outside right upper")

"""What every change of a what-if did, against what it is set against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rewardshape.plotting.axes import panels, styled
from rewardshape.plotting.style import BOTH_COLUMNS, CHOSEN, GOLD, NEUTRAL, plain

TITLES = {
    "chosen": ("chosen at equal margin\n(nats per token)", CHOSEN),
    "gold": ("gold reward of the samples", GOLD),
    "accuracy": ("accuracy\n(share of probe pairs)", NEUTRAL),
}
HEIGHT = 0.36  # inches of a row
DODGE = 0.3  # of a row: how far the first and the last margin stand from its middle
FAINTEST = 0.35


@styled
def plot_what_if(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Effect of every change (rows) on chosen, gold and accuracy (a panel for each that was measured).

    First the changes that are set against the run as it is. A dot is a difference to that, a diamond one to a run that
    leaves out as many pairs at random. Chosen has a mark for every margin at which the two were set equal, the smallest
    on top and faint. Bars are intervals that hold for all marks of a panel together.

    Parameters
    ----------
    table : DataFrame
        As `what_if_table` returns it.
    axes : sequence of Axes, optional
        One for each of `measured`.
    """
    names = measured(table)
    changes = table.drop_duplicates("intervention").sort_values("matched", kind="stable", ignore_index=True)
    axes = panels(axes, 1, len(names), (BOTH_COLUMNS, 0.9 + HEIGHT * len(changes)), sharey=True)
    places = {name: place for place, name in enumerate(changes["intervention"])}
    for ax, name in zip(axes, names, strict=True):
        title, color = TITLES[name]
        ax.axvline(0, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
        rows = table[(table["measure"] == name) & table["difference"].notna()]
        for at, offset, ink in _by_margin(rows):
            for matched, marker, label in MARKS:
                mine = at[at["matched"].astype(bool) == matched]
                y = mine["intervention"].map(places).to_numpy(float) + offset
                value, low, high = (mine[f"difference{end}"].to_numpy(float) for end in ("", "_low", "_high"))
                ax.errorbar(
                    value, y, xerr=(value - low, high - value), fmt=marker, color=color, alpha=ink, markersize=4,
                    elinewidth=0.9, capsize=2, label=label if ink == 1 else None,
                )  # fmt: skip
        ax.set_xlabel(title)
    axes[0].set_yticks(range(len(changes)), [plain(str(name)) for name in changes["flags"]])
    axes[0].set_ylim(len(changes) - 0.5, -0.5)
    for ax in axes[1:]:
        ax.tick_params(labelleft=False)
    if table["matched"].any():
        axes[0].figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(2, len(names))
        )
    return axes


MARKS = ((False, "o", "against the run as it is"), (True, "D", "against as many pairs dropped at random"))


def _by_margin(rows: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, float, float]]:
    """The rows of every margin, the smallest first, with their place in a row of the figure and their ink."""
    groups = [at for _, at in rows.groupby("margin_gain", dropna=False)]
    for along, at in zip(np.linspace(0, 1, len(groups)) if len(groups) > 1 else [1.0], groups, strict=True):
        offset = DODGE * (2 * along - 1) if len(groups) > 1 else 0.0
        yield at, offset, FAINTEST + (1 - FAINTEST) * along


def measured(table: pd.DataFrame) -> list[str]:
    """The measures that a table of a what-if has a number for."""
    return [name for name in TITLES if table.loc[table["measure"] == name, "difference"].notna().any()]

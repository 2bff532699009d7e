"""What every change of a what-if did, against what it is set against."""

from __future__ import annotations

from collections.abc import Sequence

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
HEIGHT = 0.26  # inches of a row


@styled
def plot_what_if(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Effect of every change (rows) on chosen, gold and accuracy (a panel for each that was measured).

    First the changes that are set against the run as it is. A dot is a difference to that, a diamond one to a run that
    leaves out as many pairs at random. Bars are intervals that hold for all rows of a panel together.

    Parameters
    ----------
    table : DataFrame
        As `what_if_table` returns it.
    axes : sequence of Axes, optional
        One for each of `measured`.
    """
    table, names = table.sort_values("matched", kind="stable", ignore_index=True), measured(table)
    axes = panels(axes, 1, len(names), (BOTH_COLUMNS, 0.9 + HEIGHT * len(table)), sharey=True)
    places = np.arange(len(table))
    for ax, name in zip(axes, names, strict=True):
        title, color = TITLES[name]
        ax.axvline(0, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
        for matched, marker, label in MARKS:
            rows = table["matched"].astype(bool).to_numpy() == matched
            value, low, high = (
                table.loc[rows, f"{name}{end}"].to_numpy(float) for end in ("", "_low", "_high")
            )
            ax.errorbar(
                value, places[rows], xerr=(value - low, high - value), fmt=marker, color=color, markersize=4,
                elinewidth=0.9, capsize=2, label=label,
            )  # fmt: skip
        ax.set_xlabel(title)
    axes[0].set_yticks(places, [plain(str(name)) for name in table["flags"]])
    axes[0].set_ylim(len(table) - 0.5, -0.5)
    for ax in axes[1:]:
        ax.tick_params(labelleft=False)
    if table["matched"].any():
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return axes


MARKS = ((False, "o", "against the run as it is"), (True, "D", "against as many pairs dropped at random"))


def measured(table: pd.DataFrame) -> list[str]:
    """The measures that a table of a what-if has a number for."""
    return [name for name in TITLES if table[name].notna().any()]

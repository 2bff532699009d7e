"""Where the probability went. Takes the tables of `rewardshape.analysis.destination`.

Every function returns its Axes, neither saves nor shows, and leaves the style alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rewardshape.plotting.axes import axis, panels, require_one_run, step_axis, styled
from rewardshape.plotting.style import NEUTRAL, RESPONSE_COLORS, looks, plain

GROUP_LABELS = {
    "own": "own token",
    "other": "other response's token",
    "greedy": "greedy at step 0",
    "near": "near-synonyms",
    "end": "end token",
    "rest": "everything else",
}
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "")


@styled
def plot_destination(curve: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Which tokens gained the probability that moved at the positions of the chosen and the rejected responses.

    Parameters
    ----------
    curve : DataFrame
        As `destination_curve` returns it, of one run.
    axes : two Axes, optional
        For chosen and rejected.
    """
    require_one_run(curve)
    axes = panels(axes, 1, 2, sharey=True)
    styles = looks(len(GROUP_LABELS))
    for ax, response in zip(axes, ("chosen", "rejected"), strict=True):
        rows = curve[curve["response"] == response]
        wide = rows.pivot(index="step", columns="group", values="mass").sort_index()
        below = np.zeros(len(wide))
        for (group, label), look, hatch in zip(GROUP_LABELS.items(), styles, HATCHES, strict=True):
            above = below + wide[group].to_numpy()
            color = NEUTRAL if group == "rest" else look["color"]
            ax.fill_between(
                wide.index,
                below,
                above,
                facecolor=color,
                alpha=0.55,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                label=label,
            )
            below = above
        ax.set_title(response, color=RESPONSE_COLORS[response])
        ax.set_ylim(bottom=0)
        step_axis(ax)
    axes[0].set_ylabel("probability gained since step 0\n(tokens per response)")
    handles, labels = axes[-1].get_legend_handles_labels()
    axes[-1].legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.02, 0.5))
    return axes


@styled
def plot_moved_tokens(tokens: pd.DataFrame, ax: Axes | None = None, *, response: str = "chosen") -> Axes:
    """The tokens that gained and lost most probability at the positions of one response, over the probe set.

    Parameters
    ----------
    tokens : DataFrame
        As `moved_tokens` returns it, of one run.
    response : str
        ``chosen`` or ``rejected``.
    """
    ax = axis(ax)
    require_one_run(tokens)
    rows = tokens[tokens["response"] == response].sort_values("change", ascending=False)
    places = np.arange(len(rows))
    ax.barh(places, rows["change"], color=RESPONSE_COLORS[response], alpha=0.8)
    ax.axvline(0, color=NEUTRAL, linewidth=0.7)
    ax.set_yticks(places, [plain(_visible(text)) for text in rows["token"]])
    ax.invert_yaxis()
    ax.set_xlabel(
        f"change of probability at the positions of the {response}\nresponses (tokens over the probe set)"
    )
    return ax


def _visible(text: str) -> str:
    """A token for a tick: its spaces and line ends to be seen."""
    return text.replace(" ", "␣").replace("\n", "⏎") or "(empty)"

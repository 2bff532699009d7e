"""The settings of a sweep as pictures tell them apart: name, colour, and place on an axis of their own.

By α (always the same ordered colours); where runs have no α, or differ in something else, by the name of their setting.
A setting whose runs all diverged says so in its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rewardshape.numbers import parameter, shortest
from rewardshape.plotting.axes import has_diverged
from rewardshape.plotting.style import alpha_color, in_lines, ordered_colors, plain


class Setting(NamedTuple):
    """One setting of a sweep: its name, in lines where it is long, its colour, its place on an axis, its rows."""

    label: str
    color: Any
    place: float  # on an axis of settings: α itself, or the rank of the name
    tick: str  # on such an axis
    rows: pd.DataFrame


def by_setting(table: pd.DataFrame) -> list[Setting]:
    """The settings of a table in order: by α where that tells them apart, else by name."""
    groups = [(str(name), rows) for name, rows in table.groupby("setting", sort=False, observed=True)]
    alphas = [rows["alpha"].iloc[0] for _, rows in groups]
    if np.isfinite(alphas).all() and len(set(alphas)) == len(alphas):
        ordered = sorted(zip(alphas, groups, strict=True), key=lambda item: item[0])
        return [
            Setting(_named(parameter("alpha", a), rows), alpha_color(a), a, _ticked(shortest(a), rows), rows)
            for a, (_, rows) in ordered
        ]
    column = table["setting"]
    known = list(column.cat.categories) if column.dtype == "category" else [name for name, _ in groups]
    colors = dict(zip(known, ordered_colors(len(known)), strict=True))
    return [
        Setting(_named(_plain(name), rows), colors[name], i, _ticked(_plain(name), rows), rows)
        for i, (name, rows) in enumerate(groups)
    ]


def _plain(name: str) -> str:
    return plain(in_lines(name))


def _named(label: str, rows: pd.DataFrame) -> str:
    return f"{label} (diverged)" if has_diverged(rows) else label


def _ticked(tick: str, rows: pd.DataFrame) -> str:
    return f"{tick}\n(diverged)" if has_diverged(rows) else tick


MOST_TICKS = 9  # named along the bottom
LEVEL = 10  # letters of a name that stands level under its tick


def settings_axis(ax: Axes, settings: list[Setting]) -> None:
    """Settings along the bottom, each with its name."""
    ax.set_xticks([setting.place for setting in settings])
    names = any(_joined(setting.tick) == _joined(setting.label) for setting in settings)
    wide = any(len(line) > LEVEL for setting in settings for line in setting.tick.splitlines())
    wide |= names and len(settings) > MOST_TICKS
    aslant: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    ticks = [setting.tick for setting in settings]
    ax.set_xticklabels(ticks if wide else _apart(settings), **aslant if wide else {})
    ax.set_xlabel("run" if names else "α")


def _apart(settings: list[Setting]) -> list[str]:
    """The names at the ticks, without those that would run into the one before."""
    reach, named, ticks = settings[-1].place - settings[0].place, -np.inf, []
    for setting in settings:
        shown = setting.place - named >= reach / MOST_TICKS
        named = setting.place if shown else named
        ticks.append(setting.tick if shown else "")
    return ticks


def legend_of(ax: Axes, handles: Sequence[Any], **look: Any) -> None:
    """A legend of settings within the axes, or beside them where their names take several lines."""
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    ax.legend(handles=handles, **(look | beside if any("\n" in one.get_label() for one in handles) else look))


def _joined(name: str) -> str:
    return name.replace("\n", " ")

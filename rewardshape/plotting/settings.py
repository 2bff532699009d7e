"""The settings of a sweep as pictures tell them apart: name, colour, and place on an axis of their own.

By α (always the same ordered colours); where runs have no α, or differ in something else, by the name of their setting.
A setting whose runs all diverged says so in its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rewardshape.numbers import parameter, shortest
from rewardshape.plotting.axes import has_diverged
from rewardshape.plotting.style import alpha_color, hex_color, in_lines, ordered_colors, plain
from rewardshape.trace import Run

_AMONG: ContextVar[Mapping[str, float] | None] = ContextVar("α of every setting of the sweep", default=None)


@contextmanager
def among(runs: Sequence[Run]) -> Iterator[None]:
    """Within it a setting looks as it does among all settings of these runs, whichever of them a table holds."""
    token = _AMONG.set(alphas_of(runs))
    try:
        yield
    finally:
        _AMONG.reset(token)


def alphas_of(runs: Sequence[Run]) -> dict[str, float]:
    """The α of every setting, in the order of the runs."""
    alphas: dict[str, float] = {}
    for run in runs:
        alphas.setdefault(run.setting, run.alpha)
    return alphas


class Setting(NamedTuple):
    """One setting of a sweep: its name, in lines where it is long, its colour, its place on an axis, its rows."""

    label: str
    color: Any
    place: float  # on an axis of settings: α itself, or the rank of the name
    tick: str  # on such an axis
    rows: pd.DataFrame


def colors_of(alphas: Mapping[str, float], *, dark: bool = False) -> dict[str, Any]:
    """The colour of every setting: of its α where those tell them apart (`told_by_alpha`), else in order."""
    if told_by_alpha(alphas):
        return {name: alpha_color(alpha, dark=dark) for name, alpha in alphas.items()}
    return dict(zip(alphas, ordered_colors(len(alphas), dark=dark), strict=True))


def told_by_alpha(alphas: Mapping[str, float]) -> bool:
    """Whether every setting has an α, and no two the same, in number or in colour."""
    known = np.array(list(alphas.values()), float)
    return bool(np.isfinite(known).all()) and len({hex_color(alpha_color(a)) for a in known}) == len(known)


def by_setting(table: pd.DataFrame) -> list[Setting]:
    """The settings of a table in order: by α where that tells them apart, else as the sweep has them."""
    groups = {str(name): rows for name, rows in table.groupby("setting", sort=False, observed=True)}
    known = _AMONG.get() or {}
    if not groups.keys() <= known.keys():
        known = {name: float(rows["alpha"].iloc[0]) for name, rows in groups.items()}
        if not told_by_alpha(known) and table["setting"].dtype == "category":
            known = dict.fromkeys(map(str, table["setting"].cat.categories), np.nan)
    colors, by_alpha = colors_of(known), told_by_alpha(known)
    names = [name for name in known if name in groups]
    found = []
    for place, name in enumerate(sorted(names, key=known.__getitem__) if by_alpha else names):
        alpha, rows = known[name], groups[name]
        label, tick = (parameter("alpha", alpha), shortest(alpha)) if by_alpha else [_plain(name)] * 2
        at = alpha if by_alpha else place
        found.append(Setting(_named(label, rows), colors[name], at, _ticked(tick, rows), rows))
    return found


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

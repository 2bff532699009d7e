"""One named figure of a run or a sweep: how it is drawn, what it shows, what the trace must hold for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rewardshape.analysis.panels import settings_table
from rewardshape.errors import InputError
from rewardshape.plotting.facets import facets
from rewardshape.plotting.settings import among
from rewardshape.trace import Trace

TABLES = {
    "responses": "a probe set",
    "geometry": "gradient geometry (--geometry-every)",
    "kernel": "gradients of pairs against each other (--geometry-every)",
    "samples": "sampled responses (--sample-every)",
    "destination": "destinations (--destination-every)",
    "destination_tokens": "destinations (--destination-every)",
}


@dataclass(frozen=True)
class Picture:
    """One named figure: how it is drawn from a trace, what it shows, and what the trace must hold for it."""

    caption: str
    several: bool | None = None
    """True: needs several runs; False: shows one run, the α nearest to 0.25 of several; None: takes either."""
    table: str = "responses"
    """The table of the trace that must not be empty, one of `TABLES`."""
    panel: tuple[Callable[[Trace], pd.DataFrame], Callable[..., object]] | None = None
    """The table and the plot of one panel, where the picture can be laid out by what the runs differ in."""
    drawn: Callable[[Trace], Figure] | None = None
    """How it is drawn where it is more than that panel."""
    size: tuple[float, float] | None = None
    """Of a picture of that panel, in inches."""

    def draw(self, trace: Trace) -> Figure:
        """The picture of a trace that has what it needs (`check`)."""
        with among(trace.runs):
            if self.drawn is not None:
                return self.drawn(trace)
            assert self.panel is not None
            table_of, plot = self.panel
            figure, ax = plt.subplots(figsize=self.size)
            plot(with_ends(table_of(trace), trace), ax)
            return figure

    def check(self, trace: Trace) -> None:
        """Raise an `InputError` that says what the trace lacks for this picture, if anything."""
        if self.several and len(trace.runs) == 1:
            raise InputError("needs several runs")
        if getattr(trace, self.table).empty:
            raise InputError(f"needs {TABLES[self.table]}")

    def faceted(self, trace: Trace, **by: str | None) -> Figure:
        """A panel for each value of `col` and `row`, colours by `hue` (α, where the runs differ in it).

        Raises
        ------
        InputError
            For a picture that cannot be laid out so, or a value in which the runs do not differ.
        """
        if self.panel is None:
            raise InputError("has panels of its own, so hue, col and row cannot lay it out")
        known = varied_values(trace)
        if by.get("hue") is None and "alpha" in set(known) - set(by.values()):
            by["hue"] = "alpha"
        for name, value in by.items():
            if value is not None and value not in known:
                raise InputError(f"{name} {value!r}: the runs differ in {', '.join(known) or 'nothing'}")
        table_of, plot = self.panel
        table = with_ends(table_of(trace), trace)
        more = list(dict.fromkeys(value for value in by.values() if value is not None and value not in table))
        table = table.merge(settings_table(trace)[["run", *more]], on="run")
        with among(trace.runs):
            axes = facets(plot, table, hue=by.get("hue"), col=by.get("col"), row=by.get("row"))
        return axes[0].get_figure(root=True)  # type: ignore[return-value]


def with_ends(table: pd.DataFrame, trace: Trace) -> pd.DataFrame:
    """A table of runs, or of settings, with the column ``diverged``, by which plot functions mark those that did."""
    key = next((name for name in ("run", "setting") if name in table), None)
    if key is None or "diverged" in table:
        return table
    ends: dict[str, bool] = {}
    for run in trace.runs:
        name = run.name if key == "run" else run.setting
        ends[name] = run.diverged and ends.get(name, True)
    return table.assign(diverged=table[key].map(ends).astype(bool))


def one_run(trace: Trace) -> Trace:
    """The run to show where a figure shows one: of several, the α nearest to 0.25."""
    if len(trace.runs) == 1:
        return trace
    if trace not in _SHOWN:
        measured = set(trace.responses["run"])
        runs = [run for run in trace.runs if run.name in measured] or trace.runs
        away = np.nan_to_num([abs(run.alpha - 0.25) for run in runs], nan=np.inf)
        _SHOWN[trace] = trace.run(runs[int(away.argmin())].name)
    return _SHOWN[trace]


_SHOWN: WeakKeyDictionary[Trace, Trace] = WeakKeyDictionary()  # cut out once for all figures of a trace


def varied_values(trace: Trace) -> list[str]:
    """The values by which the runs of a trace differ, for `hue`, `col` and `row`: ``alpha``, ``beta``, ``seed``, …"""
    table = settings_table(trace).drop(columns=["run", "setting"])
    return [name for name in table.columns if table[name].nunique() > 1]

"""What a notebook holds of a run: its trace, which draws itself and writes its page."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from rewardshape.figures.of_runs import picture_of
from rewardshape.plotting.style import style
from rewardshape.report import write_report
from rewardshape.trace import Trace
from rewardshape.trace import read_trace as read_tables


@dataclass(frozen=True)
class ShownTrace(Trace):
    """A `Trace` that draws itself and writes its page: ``trace.plot()``, ``trace.report()``."""

    def run(self, name: str) -> ShownTrace:
        """The trace of one run of several, by its name; `InputError` if there is none."""
        return shown(super().run(name))

    def plot(
        self,
        name: str | None = None,
        *,
        hue: str | None = None,
        col: str | None = None,
        row: str | None = None,
    ) -> Figure:
        """A figure of the run or the sweep, in the project's style.

        Parameters
        ----------
        name : str, optional
            One of `rewardshape.figures.PICTURES`; ``"sweep"`` of several runs, ``"displacement"`` of one.
        hue, col, row : str, optional
            What the runs differ in (``"alpha"``, ``"beta"``, ``"seed"``, …): colours, panels side by side, panels one
            below the other.

        Returns
        -------
        Figure
            A notebook shows it; ``savefig`` writes it.

        Raises
        ------
        InputError
            If there is no such figure, or the trace lacks what it needs.

        Examples
        --------
        >>> trace.plot("trajectories", col="beta", row="seed").savefig("grid.pdf")      # doctest: +SKIP
        """
        name = ("sweep" if len(self.runs) > 1 else "displacement") if name is None else name
        with style():
            figure = picture_of(name, self, hue=hue, col=col, row=row)
        plt.close(figure)  # shown as what a cell returns, and not a second time at its end
        return figure

    def report(self) -> Path:
        """Write ``report.html``, the page of the run or the sweep, into its folder.

        Examples
        --------
        >>> trace.report()                                                              # doctest: +SKIP
        PosixPath('runs/embedded/report.html')
        """
        return write_report(self.folder)


def shown(trace: Trace) -> ShownTrace:
    """The same trace, which can draw itself."""
    return ShownTrace(**{field.name: getattr(trace, field.name) for field in fields(Trace)})


def read_trace(folder: str | Path, **options: Any) -> ShownTrace:
    """Read a run folder (or a sweep folder: every run below it): tidy DataFrames, ``plot()`` and ``report()``.

    Parameters
    ----------
    folder : path
    **options
        As `rewardshape.trace.read_trace` takes them.

    Raises
    ------
    InputError
        If the folder holds no trace, or one in a format this version does not know.

    Examples
    --------
    >>> read_trace("runs/embedded").plot("gold")                                        # doctest: +SKIP
    """
    return shown(read_tables(folder, **options))

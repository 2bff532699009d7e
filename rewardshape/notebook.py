"""What a notebook holds of a run: its trace, which draws itself and writes its page; pictures behind a slider."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from rewardshape.errors import InputError
from rewardshape.figures.of_runs import picture_of
from rewardshape.numbers import moment, significant
from rewardshape.plotting.axes import NAME, label_ends
from rewardshape.plotting.style import own_style
from rewardshape.report import write_report
from rewardshape.report.portrait import portrait_page
from rewardshape.trace import Trace
from rewardshape.trace import read_trace as read_tables


@dataclass(frozen=True, eq=False)
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
        with own_style():
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


@dataclass(frozen=True)
class Slider:
    """Pictures behind a slider that needs neither a kernel nor the network: it works in a saved notebook too.

    Attributes
    ----------
    name : str
        What the slider moves.
    labels : tuple of str
        Its positions.
    pictures : tuple of bytes
        A PNG for each.
    """

    name: str
    labels: tuple[str, ...]
    pictures: tuple[bytes, ...]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self._html(), "image/png": _base64(self.pictures[-1]), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<slider: {self.name}, {len(self.labels)} positions>"

    def _html(self) -> str:
        last = len(self.labels) - 1
        shown = "".join(
            f'<img alt="{html.escape(f"{self.name} {label}")}" src="data:image/png;base64,{_base64(picture)}"'
            f"{'' if number == last else ' hidden'}>"
            for number, (label, picture) in enumerate(zip(self.labels, self.pictures, strict=True))
        )
        return (
            f'<div class="slider"><label>{html.escape(self.name)} <input type="range" min="0" max="{last}" '
            f'value="{last}" style="vertical-align: middle; width: 16em" data-name="{len(self.name) + 1}" '
            f'oninput="{MOVE}"> '
            f"<output>{html.escape(self.labels[-1])}</output></label><br>{shown}</div>"
        )


# Shows the picture of the slider's position, and its label, which is what follows the name in the picture's own text.
MOVE = (
    "const all = this.closest('div').querySelectorAll('img'); "
    "all.forEach((one, i) => { one.hidden = i != this.value; }); "
    "this.nextElementSibling.textContent = all[this.value].alt.slice(this.dataset.name);"
)
FRAME_DPI = 110
FRAME_COLORS = 64


def slide(draw: Callable[[Any], Axes | Figure], values: Iterable[Any], *, name: str) -> Slider:
    """One picture for every value, on one scale, behind a slider that needs no kernel.

    Parameters
    ----------
    draw : callable
        Takes a value, gives axes or a figure.
    values : iterable
    name : str
        What the values are, with a unit where they have one.

    Examples
    --------
    >>> curve = displacement_curve(trace)                                               # doctest: +SKIP
    >>> slide(lambda step: plot_trajectory(curve[curve["step"] <= step]), range(15, 151, 15), name="step")
    ... # doctest: +SKIP
    """
    values = list(values)
    if not values:
        raise InputError("slide: there is no value to draw a picture for")
    figures = []
    for value in values:
        with own_style():
            made = draw(value)
        figure = made if isinstance(made, Figure) else made.get_figure(root=True)
        assert figure is not None, "axes that are drawn lie in a figure"
        figures.append(figure)
    _one_scale(figures)
    pictures = tuple(_png(figure) for figure in figures)
    for figure in figures:
        plt.close(figure)
    return Slider(name, tuple(_label(value) for value in values), pictures)


def _label(value: Any) -> str:
    if isinstance(value, int):
        return moment(value)
    return significant(value) if isinstance(value, float) else str(value)


def _one_scale(figures: list[Figure]) -> None:
    """Every axes of a figure spans what that axes spans in any of them."""
    for same in zip(*(figure.axes for figure in figures), strict=False):
        for get, put in (("get_xlim", "set_xlim"), ("get_ylim", "set_ylim")):
            ends = [getattr(ax, get)() for ax in same]
            span = min(map(min, ends)), max(map(max, ends))
            for ax, (low, high) in zip(same, ends, strict=True):
                getattr(ax, put)(*(span if low <= high else span[::-1]))
        for ax in same:
            names = [one for one in ax.texts if one.get_label() == NAME]
            for one in names:  # they stand where the lines ended on the scale before
                one.remove()
            if names:
                label_ends(ax)


def _png(figure: Figure) -> bytes:
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=FRAME_DPI)
    Image.open(drawn).convert("RGB").quantize(FRAME_COLORS).save(small, "png", optimize=True)
    return small.getvalue()


def _base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


@dataclass(frozen=True)
class Portrait:
    """The phase portrait of a pair to play with: drag the start, move α, β, γ and the overlaps; it needs no kernel."""

    height: int = 460

    def _repr_html_(self) -> str:
        page = html.escape(portrait_page())
        return (
            f'<iframe title="Phase portrait of a pair" srcdoc="{page}" width="100%" height="{self.height}" '
            'style="border: 0"></iframe>'
        )

"""The pictures of the page: drawn once by matplotlib, named so that style sheet and script can find their lines.

A picture is an inline SVG whose colours are variables of the page, so that light, dark and print need no filter, and
whose lines carry the number of their run. With it goes what a reader may ask of it: the numbers of its lines, and where
its axes lie in it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rewardshape.numbers import as_json
from rewardshape.plotting.settings import alphas_of, among, colors_of
from rewardshape.plotting.style import (
    CHOSEN,
    COLUMN_WIDTH,
    GOLD,
    NEUTRAL,
    PROXY,
    REJECTED,
    RESPONSE_COLORS,
    closing_figures,
    hex_color,
    ordered_colors,
    style,
)
from rewardshape.report.text import printable
from rewardshape.trace import Run

MAX_POINTS = 6_000  # of all lines of a picture: keeps the page small, and no eye sees the rest
DIGITS = 4  # significant, of the numbers that a reader may ask for

Kind = Literal["time", "path", "still"]

VARIABLES = {
    CHOSEN.lower(): "chosen", REJECTED.lower(): "rejected", NEUTRAL.lower(): "quiet",
    GOLD.lower(): "gold", PROXY.lower(): "proxy", "#000000": "ink", "#ffffff": "paper",
}  # fmt: skip


@dataclass(frozen=True)
class Palette:
    """The colour of every run, on a light page and on a dark one; lines of α have the colours of every figure."""

    light: dict[str, str]
    dark: dict[str, str]
    others: list[tuple[str, str]]
    """Of further responses, on a light page and on a dark one."""

    @classmethod
    def of(cls, runs: Sequence[Run], responses: Iterable[str] = ()) -> Palette:
        """One colour for each setting, that of every figure, and for each response that is none of the trained."""
        alphas = alphas_of(runs)
        light, dark = (
            {name: hex_color(color) for name, color in colors_of(alphas, dark=dark).items()}
            for dark in (False, True)
        )
        further = len(set(responses) - set(RESPONSE_COLORS))
        others = (map(hex_color, ordered_colors(further, dark=dark)) for dark in (False, True))
        return cls(light, dark, list(zip(*others, strict=True)))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Light and dark of all, numbered as the style sheet has them."""
        return [*((light, self.dark[name]) for name, light in self.light.items()), *self.others]


@dataclass
class Chart:
    """One picture, its caption, and what the script needs of it."""

    svg: Markup
    caption: str
    kind: Kind
    data: dict[str, Any] = field(default_factory=dict)


class Drawer:
    """Draws the pictures of one page; each has a number, from which its ids are made."""

    def __init__(self, runs: Sequence[Run], palette: Palette):
        self.runs, self.palette = list(runs), palette
        self.count = 0
        self.settings = list(palette.light)
        self.colors = {color: i for i, color in enumerate(palette.light.values())}
        labels = {run.setting: run.setting_label for run in runs}
        self.names = [labels[setting] for setting in self.settings]
        further = {light: i for i, (light, _) in enumerate(palette.others, len(self.settings))}
        self.numbers = further | self.colors  # of a colour of both, the setting's

    def draw(
        self, draw: Callable[[Axes], object], caption: str, kind: Kind = "time", height: float = 2.5
    ) -> Chart:
        """A picture of one panel."""
        self.count += 1
        fonts: dict[Any, str] = {"svg.fonttype": "none", "svg.hashsalt": f"rewardshape-{self.count}"}
        with style(), plt.rc_context(fonts), closing_figures(), among(self.runs):
            figure = plt.figure(figsize=(COLUMN_WIDTH, height))
            ax = figure.add_subplot()
            draw(ax)
            lines = [] if kind == "still" else self._lines(ax, kind)
            target = io.StringIO()
            figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            data = {"kind": kind, "lines": lines, **_place(ax, tuple(figure.get_size_inches()))}
        return Chart(self._inline(target.getvalue(), caption), caption, kind, data)

    def _lines(self, ax: Axes, kind: Kind) -> list[dict[str, Any]]:
        """The named lines of a picture with their numbers; each is marked in the SVG with the number of its setting."""
        found = []
        for line in ax.get_lines():
            setting = self.colors.get(hex_color(line.get_color()))
            if setting is not None:
                line.set_gid(f"setting-{setting}")
            label = str(line.get_label()).replace("\n", " ")
            x, y = (np.asarray(values, float) for values in line.get_data())
            if not label.startswith("_") and len(x):
                found.append(
                    {"name": label.replace(r"\$", "$"), "setting": setting, **self._numbers(line, x, y, kind)}
                )
        own = [one["setting"] for one in found]
        for one in found:  # in a picture a long name is cut
            if one["setting"] is not None and own.count(one["setting"]) == 1:
                lost = " (diverged)" if one["name"].endswith("(diverged)") else ""
                one["name"] = self.names[one["setting"]] + lost
        for band in ax.collections:
            faces = band.get_facecolor()
            setting = self.colors.get(hex_color(tuple(np.asarray(faces)[0]))) if np.size(faces) else None
            if setting is not None:
                band.set_gid(f"setting-{setting}")
        return found

    def _numbers(self, line: Line2D, x: np.ndarray, y: np.ndarray, kind: Kind) -> dict[str, Any]:
        """Of a line; over time `x` are steps, each as it is."""
        steps = kind == "time" and bool((x == np.round(x)).all())
        color = hex_color(line.get_color())
        return {
            "x": [int(v) if steps else rounded(v) for v in x],
            "y": [rounded(v) for v in y],
            "color": self._name_of(color) or "ink",
        }

    def _name_of(self, color: str) -> str:
        """The page's variable for a colour, empty for one that it has not."""
        return f"setting-{self.numbers[color]}" if color in self.numbers else VARIABLES.get(color, "")

    def _inline(self, svg: str, caption: str) -> Markup:
        """An SVG document as part of a page: no header, no comments, no global style, ids and colours of its own."""
        svg = str(printable(svg[svg.index("<svg") :]))
        svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
        svg = re.sub(r'<g id="setting-(\d+)"', r'<g data-setting="\1"', svg)
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>c{self.count}-", svg)
        svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"#[0-9a-f]{6}\b", self._variable, tag[0]), svg)
        svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
        svg = re.sub(
            r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag[0]), svg
        )  # places, not labels
        label = Markup('<svg role="img" aria-label="{}" stroke-linejoin="round"').format(caption)
        return Markup(
            re.sub(r'^<svg([^>]*?) width="[^"]*"|^<svg', str(label).replace("\\", ""), svg, count=1)
        )

    def _variable(self, found: re.Match[str]) -> str:
        name = self._name_of(found[0])
        return f"var(--{name})" if name else found[0]


def rounded(value: float) -> float | None:
    """A number as short as a reader needs it; None where there is none."""
    short: float | None = as_json(float(value), DIGITS)
    return int(short) if short is not None and short.is_integer() else short


def _place(ax: Axes, inches: Sequence[float]) -> dict[str, Any]:
    """Where the axes lie, as shares of the picture (left, top, right, bottom), and what they span."""
    box = ax.get_position()
    return {
        "box": [round(v, 4) for v in (box.x0, 1 - box.y1, box.x1, 1 - box.y0)],
        "x": [float(v) for v in ax.get_xlim()],
        "y": [float(v) for v in ax.get_ylim()],
        "size": [round(72 * float(v), 1) for v in inches],
    }

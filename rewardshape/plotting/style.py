"""The colours and sizes that every figure of the project shares."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import matplotlib
import matplotlib.pyplot
import numpy as np
from matplotlib.colors import to_hex, to_rgb

CHOSEN = "#0072B2"  # blue and vermilion of the Okabe-Ito palette: told apart by the colour-blind and in grey
REJECTED = "#D55E00"  # these two for the two responses of a pair, and for nothing else
NEUTRAL = "#5F6368"
FAINT = "#B8BCC0"  # the other half of what is neutral: before, less
GOLD = "#009E73"  # bluish green and purple of the same palette: gold reward, and the implicit one of the objective
PROXY = "#CC79A7"
RESPONSE_COLORS = {"chosen": CHOSEN, "rejected": REJECTED}
RESPONSE_MARKERS = {"chosen": "o", "rejected": "s"}  # where their points share a panel
OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
FELL, ROSE = OTHERS[2], OTHERS[3]  # orange and sky blue: the shades of single tokens on the page
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = "osD^vPX"
COLUMN_WIDTH = 3.4  # inches: one column of a two-column paper
BOTH_COLUMNS = 2 * COLUMN_WIDTH
STYLE = Path(__file__).with_name("rewardshape.mplstyle")
ALPHA_LIMIT = 2.0  # |α| at which the α map reaches its ends

Use = Literal["notebook", "paper", "talk"]
USES: dict[str, dict[str, Any]] = {
    "notebook": {},
    "paper": {
        "font.family": "STIXGeneral",
        "mathtext.fontset": "stix",
        "font.size": 9, "axes.labelsize": 9, "axes.titlesize": 9,
        "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8,
    },
    "talk": {
        "font.size": 12, "axes.labelsize": 12, "axes.titlesize": 12,
        "xtick.labelsize": 10, "ytick.labelsize": 10, "legend.fontsize": 10,
        "figure.figsize": (6.4, 4.2), "lines.linewidth": 2.4, "lines.markersize": 6, "axes.linewidth": 1.1,
    },
}  # fmt: skip


def alpha_color(alpha: float, *, dark: bool = False) -> tuple[float, ...]:
    """Colour of one α: an ordered map from dark (negative α) to light (positive α), the same in every figure.

    With `dark`, for a dark page: the same order, from the part of the map that stands out there.
    """
    position = 0.5 + 0.5 * np.clip(np.arcsinh(3 * alpha) / np.arcsinh(3 * ALPHA_LIMIT), -1, 1)
    low, high = (0.35, 1.0) if dark else (0.02, 0.85)
    return matplotlib.colormaps["plasma"](low + (high - low) * position)


def ordered_colors(count: int, *, dark: bool = False) -> list[tuple[float, ...]]:
    """Colours of settings that have no α of their own, in order."""
    low, high = (0.35, 1.0) if dark else (0.0, 0.85)
    return [matplotlib.colormaps["viridis"](place) for place in np.linspace(low, high, max(count, 2))[:count]]


def looks(count: int) -> list[dict[str, Any]]:
    """Colour, dashes and marker of things that are neither chosen nor rejected: told apart without colour too."""
    return [
        {
            "color": OTHERS[i % len(OTHERS)],
            "linestyle": DASHES[(i + i // len(OTHERS)) % len(DASHES)],
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i in range(count)
    ]


def hex_color(color: Any) -> str:
    """A colour as ``#rrggbb``."""
    return to_hex(color[:3] if isinstance(color, tuple) else color)


CONTRAST = 4.5  # of a text with its paper: WCAG 2.1, 1.4.3


def text_color(color: Any, paper: Any = "white") -> str:
    """A colour darkened, or lightened for dark paper, its hue kept, until a text in it stands out."""
    rgb, behind = 255 * np.array(to_rgb(color)), _luminance(np.array(to_rgb(paper)))
    for share in np.linspace(0, 1, 101):
        mixed = (
            np.round((1 - share) * rgb + share * (255 if behind < 0.2 else 0)) / 255
        )  # as it will be written
        low, high = sorted((_luminance(mixed), behind))
        if (high + 0.05) / (low + 0.05) >= CONTRAST:
            break
    return to_hex(mixed)


def _luminance(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def plain(name: str) -> str:
    """A name from data as text to draw: no dollar sign starts a formula, no leading underscore hides a label."""
    return f"\u200b{name}".replace("$", r"\$") if name.startswith("_") else name.replace("$", r"\$")


def in_lines(name: str, width: int = 20) -> str:
    """A name that is too long for a line of a picture in several, four at most.

    Examples
    --------
    >>> in_lines("beta=2.5, learning_rate=1e-06")
    'beta=2.5,\\nlearning_rate=1e-06'
    """
    return textwrap.fill(name, width, max_lines=4, placeholder=" …", break_on_hyphens=False)


def style(use: Use = "notebook") -> Any:
    """Context manager that applies the project's style sheet: ``with style("paper"): …``.

    Parameters
    ----------
    use : {"notebook", "paper", "talk"}
        On a screen; in the Times-like letters of a paper, for one column; large, for a slide.

    Raises
    ------
    ValueError
        For any other use.
    """
    if use not in USES:
        raise ValueError(f"no style {use!r}: choose {', '.join(USES)}")
    # Loads the backend, which switches a notebook's interactive mode on: within, the end of the context would undo it.
    matplotlib.pyplot.draw_if_interactive()
    return matplotlib.pyplot.style.context([STYLE, USES[use]])


def own_style() -> Any:
    """Context manager: the `style` that is already in force, the project's usual one where none is."""
    in_force = matplotlib.pyplot.rcParams["svg.hashsalt"] == "rewardshape"
    return contextlib.nullcontext() if in_force else style()


@contextlib.contextmanager
def closing_figures() -> Iterator[None]:
    """What is drawn within is closed after it, also where drawing fails: a notebook would show what is left open."""
    before = set(matplotlib.pyplot.get_fignums())
    try:
        yield
    finally:
        for number in set(matplotlib.pyplot.get_fignums()) - before:
            matplotlib.pyplot.close(number)

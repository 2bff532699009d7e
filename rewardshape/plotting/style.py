"""The colours and sizes that every figure of the project shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot
import numpy as np

CHOSEN = "#0072B2"  # blue and vermilion of the Okabe-Ito palette: told apart by the colour-blind and in grey
REJECTED = "#D55E00"
NEUTRAL = "#5F6368"
GOLD = "#009E73"  # bluish green and purple of the same palette: gold reward, and the implicit one of the objective
PROXY = "#CC79A7"
RESPONSE_COLORS = {"chosen": CHOSEN, "rejected": REJECTED}
COLUMN_WIDTH = 3.4  # inches: one column of a two-column paper
BOTH_COLUMNS = 2 * COLUMN_WIDTH
STYLE = Path(__file__).with_name("rewardshape.mplstyle")
ALPHA_LIMIT = 2.0  # |α| at which the α map reaches its ends


def alpha_color(alpha: float) -> tuple[float, ...]:
    """Colour of one α: an ordered map from dark (negative α) to light (positive α), the same in every figure."""
    position = 0.5 + 0.5 * np.clip(np.arcsinh(3 * alpha) / np.arcsinh(3 * ALPHA_LIMIT), -1, 1)
    return matplotlib.colormaps["plasma"](0.02 + 0.83 * position)


def plain(name: str) -> str:
    """A name from data as text to draw: no dollar sign starts a formula, no leading underscore hides a label."""
    return f"\u200b{name}".replace("$", r"\$") if name.startswith("_") else name.replace("$", r"\$")


def style() -> Any:
    """Context manager that applies the project's style sheet: ``with style(): …``."""
    # Loads the backend, which switches a notebook's interactive mode on: within, the end of the context would undo it.
    matplotlib.pyplot.draw_if_interactive()
    return matplotlib.pyplot.style.context(STYLE)

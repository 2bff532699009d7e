"""Everything named that is drawn: each figure with its name, its caption, what it needs and how it is drawn."""

from rewardshape.figures.command import Drawn, draw_figures
from rewardshape.figures.of_runs import PICTURES, draw, draw_all
from rewardshape.figures.of_theory import THEORY

__all__ = ["PICTURES", "THEORY", "Drawn", "draw", "draw_all", "draw_figures"]

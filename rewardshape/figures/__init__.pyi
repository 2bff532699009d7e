from .command import Drawn as Drawn, draw_figures as draw_figures
from .of_runs import PICTURES as PICTURES, Picture as Picture, draw as draw, draw_all as draw_all
from .of_theory import THEORY as THEORY, TheoryFigure as TheoryFigure
from .theory_tables import (
    displacement_by_alpha as displacement_by_alpha,
    gradient_by_alpha as gradient_by_alpha,
    phase_portrait as phase_portrait,
    shape_curves as shape_curves,
    similar_pair as similar_pair,
    softmax_against_fixed_gram as softmax_against_fixed_gram,
    weight_map as weight_map,
    zoo_curves as zoo_curves,
)

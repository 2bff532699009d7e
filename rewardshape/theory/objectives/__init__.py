"""Objectives: score ∘ shape ∘ link, and the gradient weights of each in closed form.

`base` is what every objective answers; `pairwise`, `pointwise` and `listwise` are the families; `zoo` declares
each published objective as data, and `registry` makes them by name.
"""

from rewardshape.theory.objectives.base import Objective, Sum
from rewardshape.theory.objectives.compose import compose
from rewardshape.theory.objectives.listwise import Listwise
from rewardshape.theory.objectives.loading import load_objective
from rewardshape.theory.objectives.pairwise import MovingReference, Pairwise
from rewardshape.theory.objectives.pointwise import Pointwise
from rewardshape.theory.objectives.registry import from_config, objective, objective_names, register

__all__ = [
    "Listwise",
    "MovingReference",
    "Objective",
    "Pairwise",
    "Pointwise",
    "Sum",
    "compose",
    "from_config",
    "load_objective",
    "objective",
    "objective_names",
    "register",
]

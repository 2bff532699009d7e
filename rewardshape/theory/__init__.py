"""What every objective does to a pair of responses, in closed form. Needs numpy; takes torch tensors.

- objectives by name: `objective`, `objective_names`, `preset`, `preset_names`; what they take: `Responses`
- reward shapes φ: `Alpha`
- links ℓ: `Logistic`
"""

from rewardshape.theory.links import Link, Logistic
from rewardshape.theory.objectives import Objective, Pairwise
from rewardshape.theory.presets import Preset, preset, preset_names
from rewardshape.theory.registry import objective, objective_names
from rewardshape.theory.scores import Responses
from rewardshape.theory.shapes import Alpha, Shape

__all__ = [
    "Alpha",
    "Link",
    "Logistic",
    "Objective",
    "Pairwise",
    "Preset",
    "Responses",
    "Shape",
    "objective",
    "objective_names",
    "preset",
    "preset_names",
]

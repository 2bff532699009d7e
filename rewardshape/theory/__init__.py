"""What every objective does to a pair of responses, in closed form. Needs numpy; takes torch tensors.

- objectives by name: `objective`, `objective_names`, `preset`, `preset_names`; what they take: `Responses`
- reward shapes φ: `Alpha`, `JensenShannon`, `ChiSquared`, `LogOdds`
- links ℓ: `Logistic`, `Smoothed`, `Hinge`, `Squared`, `Exponential`, `Sigmoid`, `Linear`, `ReverseKL`,
  `LogRatioModulated`
"""

from rewardshape.theory.links import (
    Exponential,
    Hinge,
    Linear,
    Link,
    Logistic,
    LogRatioModulated,
    ReverseKL,
    Sigmoid,
    Smoothed,
    Squared,
)
from rewardshape.theory.objectives import Objective, Pairwise, Pointwise, Sum
from rewardshape.theory.presets import Preset, preset, preset_names
from rewardshape.theory.registry import objective, objective_names
from rewardshape.theory.scores import Responses
from rewardshape.theory.shapes import Alpha, ChiSquared, JensenShannon, LogOdds, Shape

__all__ = [
    "Alpha",
    "ChiSquared",
    "Exponential",
    "Hinge",
    "JensenShannon",
    "Linear",
    "Link",
    "LogOdds",
    "LogRatioModulated",
    "Logistic",
    "Objective",
    "Pairwise",
    "Pointwise",
    "Preset",
    "Responses",
    "ReverseKL",
    "Shape",
    "Sigmoid",
    "Smoothed",
    "Squared",
    "Sum",
    "objective",
    "objective_names",
    "preset",
    "preset_names",
]

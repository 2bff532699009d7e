"""What every objective does to a pair of responses, in closed form. Needs numpy; takes torch tensors.

- objectives by name: `objective`, `objective_names`, `preset`, `preset_names`; what they take: `Responses`
- one's own: `register`, `load_objective`
- reward shapes φ: `Alpha`, `JensenShannon`, `ChiSquared`, `LogOdds`
- links ℓ: `Logistic`, `Smoothed`, `Hinge`, `Squared`, `Exponential`, `Sigmoid`, `Linear`, `ReverseKL`,
  `LogRatioModulated`
- where a pair goes (with its `Gram` matrix): `flow`, `chosen_falls`, `weight_ratio`, `turning_gap`, `stall_gap`,
  `path`, `integrated_path`, `stopping_point`, `displacement_at_margin`, `alpha_sensitivity`, `effective_beta`,
  `gradient_magnitude`, `softmax_flow`
"""

from rewardshape.theory.dynamics import (
    Gram,
    alpha_sensitivity,
    chosen_falls,
    displacement_at_margin,
    effective_beta,
    flow,
    gradient_magnitude,
    integrated_path,
    path,
    softmax_flow,
    stall_gap,
    stopping_point,
    turning_gap,
    weight_ratio,
)
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
from rewardshape.theory.objectives import (
    Listwise,
    Objective,
    Pairwise,
    Pointwise,
    Sum,
    load_objective,
    objective,
    objective_names,
    register,
)
from rewardshape.theory.presets import Preset, preset, preset_names
from rewardshape.theory.scores import Responses
from rewardshape.theory.shapes import Alpha, ChiSquared, JensenShannon, LogOdds, Shape

__all__ = [
    "Alpha",
    "ChiSquared",
    "Exponential",
    "Gram",
    "Hinge",
    "JensenShannon",
    "Linear",
    "Link",
    "Listwise",
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
    "alpha_sensitivity",
    "chosen_falls",
    "displacement_at_margin",
    "effective_beta",
    "flow",
    "gradient_magnitude",
    "integrated_path",
    "load_objective",
    "objective",
    "objective_names",
    "path",
    "preset",
    "preset_names",
    "register",
    "softmax_flow",
    "stall_gap",
    "stopping_point",
    "turning_gap",
    "weight_ratio",
]

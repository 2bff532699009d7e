"""What every objective does to a pair of responses, in closed form. Needs numpy; takes torch tensors.

- objectives by name: `objective`, `objective_names`, `from_config`, `preset`, `preset_names`; what they take:
  `Responses`
- one's own: `compose`, `register`, `load_objective`; their parts are subclasses of `Shape` and `Link`
- reward shapes φ: `Alpha`, `JensenShannon`, `ChiSquared`, `LogOdds`, `SquaredLog`
- links ℓ: `Logistic`, `Smoothed`, `Hinge`, `Squared`, `Exponential`, `Sigmoid`, `Linear`, `ReverseKL`,
  `LogRatioModulated`
- where a pair goes (with its `Gram` matrix): `flow`, `chosen_falls`, `weight_ratio`, `turning_gap`, `stall_gap`,
  `path`, `integrated_path`, `gradient_magnitude`; at a given margin: `point_at_margin`, `displacement_at_margin`,
  `break_even_score`, `alpha_sensitivity`, `effective_beta`, `remaining_pull`, `margin_at_pull`; exactly, on a small
  vocabulary: `softmax_flow`, `differential_information`, `rejected_distribution`; two more theories:
  `disentanglement_band`, `probability_gradient_ratio`
"""

from rewardshape.theory.at_margin import (
    Sensitivity,
    alpha_sensitivity,
    break_even_score,
    displacement_at_margin,
    effective_beta,
    margin_at_pull,
    point_at_margin,
    remaining_pull,
)
from rewardshape.theory.dynamics import (
    Gram,
    Stall,
    chosen_falls,
    disentanglement_band,
    flow,
    gradient_magnitude,
    integrated_path,
    path,
    probability_gradient_ratio,
    stall_gap,
    turning_gap,
    weight_ratio,
)
from rewardshape.theory.information import (
    Information,
    differential_information,
    entropy,
    rejected_distribution,
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
    MovingReference,
    Objective,
    Pairwise,
    Pointwise,
    Sum,
    compose,
    from_config,
    load_objective,
    objective,
    objective_names,
    register,
)
from rewardshape.theory.presets import Preset, preset, preset_names
from rewardshape.theory.scores import Responses, Score
from rewardshape.theory.shapes import Alpha, ChiSquared, JensenShannon, LogOdds, Shape, SquaredLog
from rewardshape.theory.softmax import softmax_flow

__all__ = [
    "Alpha",
    "ChiSquared",
    "Exponential",
    "Gram",
    "Hinge",
    "Information",
    "JensenShannon",
    "Linear",
    "Link",
    "Listwise",
    "LogOdds",
    "LogRatioModulated",
    "Logistic",
    "MovingReference",
    "Objective",
    "Pairwise",
    "Pointwise",
    "Preset",
    "Responses",
    "ReverseKL",
    "Score",
    "Sensitivity",
    "Shape",
    "Sigmoid",
    "Smoothed",
    "Squared",
    "SquaredLog",
    "Stall",
    "Sum",
    "alpha_sensitivity",
    "break_even_score",
    "chosen_falls",
    "compose",
    "differential_information",
    "disentanglement_band",
    "displacement_at_margin",
    "effective_beta",
    "entropy",
    "flow",
    "from_config",
    "gradient_magnitude",
    "integrated_path",
    "load_objective",
    "margin_at_pull",
    "objective",
    "objective_names",
    "path",
    "point_at_margin",
    "preset",
    "preset_names",
    "probability_gradient_ratio",
    "register",
    "rejected_distribution",
    "remaining_pull",
    "softmax_flow",
    "stall_gap",
    "turning_gap",
    "weight_ratio",
]

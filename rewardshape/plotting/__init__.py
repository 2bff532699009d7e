"""Pictures: a DataFrame in, matplotlib Axes out. Nothing here saves, shows, or changes global style."""

from rewardshape.plotting.cause import (
    plot_correlations,
    plot_entanglement,
    plot_predicted_vs_measured,
    plot_similarity,
    plot_split,
)
from rewardshape.plotting.diagnosis import plot_fall, plot_progress
from rewardshape.plotting.displacement import plot_descriptor, plot_displacement, plot_responses
from rewardshape.plotting.overoptimization import plot_gold, plot_gold_sweep, plot_proxy
from rewardshape.plotting.style import alpha_color, style
from rewardshape.plotting.sweep import (
    plot_at_equal,
    plot_difference,
    plot_fallen_at_equal,
    plot_final_displacement,
    plot_grid,
    plot_paired_at_equal,
    plot_sweep,
    plot_trajectory,
)
from rewardshape.plotting.theory import (
    plot_displacement_by_alpha,
    plot_gradient_magnitude,
    plot_phase_portrait,
    plot_rewards,
    plot_slopes,
    plot_softmax_paths,
    plot_weight_map,
    plot_weight_ratio,
    plot_zoo,
)

__all__ = [
    "alpha_color",
    "plot_at_equal",
    "plot_correlations",
    "plot_descriptor",
    "plot_difference",
    "plot_displacement",
    "plot_displacement_by_alpha",
    "plot_entanglement",
    "plot_fall",
    "plot_fallen_at_equal",
    "plot_final_displacement",
    "plot_gold",
    "plot_gold_sweep",
    "plot_gradient_magnitude",
    "plot_grid",
    "plot_paired_at_equal",
    "plot_phase_portrait",
    "plot_predicted_vs_measured",
    "plot_progress",
    "plot_proxy",
    "plot_responses",
    "plot_rewards",
    "plot_similarity",
    "plot_slopes",
    "plot_softmax_paths",
    "plot_split",
    "plot_sweep",
    "plot_trajectory",
    "plot_weight_map",
    "plot_weight_ratio",
    "plot_zoo",
    "style",
]

from .cause import (
    condition_agreement as condition_agreement,
    fall_condition as fall_condition,
    movement_split as movement_split,
    prediction_quality as prediction_quality,
    predictions as predictions,
)
from .comparison import (
    compare as compare,
    difference_curves as difference_curves,
    over_seeds as over_seeds,
    settings_along as settings_along,
)
from .decomposition import decompose as decompose
from .destination import destination_curve as destination_curve, moved_tokens as moved_tokens
from .displacement import (
    displacement_curve as displacement_curve,
    displacement_phases as displacement_phases,
    displacement_summary as displacement_summary,
    margin_curve as margin_curve,
)
from .equal import compare_along as compare_along, compare_at_equal as compare_at_equal
from .forecast import forecast_end as forecast_end
from .generations import (
    Judgement as Judgement,
    chosen_checkpoint as chosen_checkpoint,
    generation_curve as generation_curve,
    judge_generations as judge_generations,
)
from .influence import pair_influence as pair_influence, probe_pair_influence as probe_pair_influence
from .overoptimization import (
    best_of_n_curve as best_of_n_curve,
    fitted_curves as fitted_curves,
    gold_curve as gold_curve,
    turning_points as turning_points,
)
from .overlaps import gradient_cosines as gradient_cosines, kernel_cosines as kernel_cosines
from .pairs import (
    falling_pairs as falling_pairs,
    pair_correlations as pair_correlations,
    pairs_table as pairs_table,
)
from .panels import (
    Panel as Panel,
    probe_panels as probe_panels,
    run_objective as run_objective,
    settings_table as settings_table,
)
from .samples import samples_of as samples_of, temperatures as temperatures

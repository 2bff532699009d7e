"""From a trace to numbers: displacement, its cause, over-optimization.

The names load on first use, so that reading one table does not import what fits another.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "displacement": [
        "displacement_curve",
        "displacement_phases",
        "displacement_summary",
        "margin_curve",
    ],
    "pairs": ["pair_correlations", "pairs_table"],
    "panels": ["Panel", "probe_panels", "run_objective", "settings_table"],
    "overoptimization": ["best_of_n_curve", "fitted_curves", "gold_curve", "turning_points"],
    "cause": ["condition_agreement", "fall_condition", "movement_split", "prediction_quality", "predictions"],
    "forecast": ["forecast_end"],
    "comparison": ["compare", "compare_at_equal", "difference_curves", "over_seeds"],
}
_PUBLIC = {name: f"rewardshape.analysis.{home}" for home, names in _HOMES.items() for name in names}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'rewardshape.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)

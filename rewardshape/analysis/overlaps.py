"""How far the gradients of the two responses of a pair point the same way, pair by pair, while a run trains."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rewardshape.analysis.pairs import pairs_table
from rewardshape.errors import InputError
from rewardshape.trace import Trace


def gradient_cosines(trace: Trace) -> pd.DataFrame:
    """Cosine of chosen and rejected gradient of every probe pair at every step that measured geometry.

    Returns
    -------
    DataFrame
        One row per run, step and pair: ``run``, ``setting``, ``alpha``, ``seed``, ``step``, ``pair_id``, ``cosine``
        (⟨∇s_w, ∇s_l⟩ / ‖∇s_w‖‖∇s_l‖; NaN where a gradient is zero), and ``chosen_change`` (nats per token, between
        step 0 and the last step).

    Raises
    ------
    InputError
        If the trace holds no geometry.
    """
    rows = trace.geometry
    if rows.empty or "gram_ww" not in rows:
        raise InputError("needs gradient geometry (--geometry-every)")
    norms = np.sqrt(rows["gram_ww"].to_numpy(float) * rows["gram_ll"].to_numpy(float))
    norms[norms == 0] = np.nan
    cosines = rows[["run", "step", "pair_id"]].assign(cosine=rows["gram_wl"].to_numpy(float) / norms)
    moved = pairs_table(trace)[["run", "setting", "alpha", "seed", "pair_id", "chosen_change"]]
    return cosines.merge(moved, on=["run", "pair_id"])

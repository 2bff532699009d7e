"""How far the gradients of the two responses of a pair point the same way, pair by pair, while a run trains."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rewardshape.analysis.pairs import pairs_table
from rewardshape.analysis.panels import run_label
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


def kernel_cosines(trace: Trace) -> pd.DataFrame:
    """Cosines of the gradients of every two responses of the first probe pairs, at step 0 and at the last.

    Returns
    -------
    DataFrame
        One row per run, step and ordered two responses: ``run``, ``setting``, ``alpha``, ``seed``, ``step``,
        ``pair_id``, ``response``, ``other_pair_id``, ``other_response``, ``cosine`` (NaN where a gradient is zero;
        between different pairs estimated to about 1/64, `rewardshape.probe.measure.sketch`).

    Raises
    ------
    InputError
        If the trace holds none.
    """
    rows = trace.kernel
    if rows.empty:
        raise InputError("needs the gradients of pairs against each other (--geometry-every)")
    own = ["pair_id", "response"]
    turned = {**dict(zip(own, OTHER, strict=True)), **dict(zip(OTHER, own, strict=True))}
    itself = (rows["pair_id"] == rows["other_pair_id"]) & (rows["response"] == rows["other_response"])
    both = pd.concat([rows, rows[~itself].rename(columns=turned)], ignore_index=True)
    keys = ["run", "step"]
    squares = rows.loc[itself, [*keys, *own, "product"]]
    both = both.merge(squares.rename(columns={"product": "square"}), on=[*keys, *own])
    others = squares.rename(columns={**dict(zip(own, OTHER, strict=True)), "product": "other_square"})
    both = both.merge(others, on=[*keys, *OTHER])
    norms = np.sqrt(both["square"].to_numpy(float) * both["other_square"].to_numpy(float))
    norms[norms == 0] = np.nan
    cosines = both[[*keys, *own, *OTHER]].assign(cosine=both["product"].to_numpy(float) / norms)
    labels = pd.DataFrame([run_label(run) for run in trace.runs])
    return labels.merge(cosines, on="run")


OTHER = ["other_pair_id", "other_response"]

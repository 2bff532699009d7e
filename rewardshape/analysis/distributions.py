"""What means hide: the level of every pair before and after, and the win rate of the samples along a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rewardshape.analysis.generations import against, chosen_checkpoint
from rewardshape.analysis.panels import chosen_and_rejected, in_order, run_label
from rewardshape.analysis.samples import judged, samples_of
from rewardshape.errors import InputError
from rewardshape.trace import Trace


def pair_levels(trace: Trace) -> pd.DataFrame:
    """Log-probs of every probe pair at step 0 and at the last step.

    Returns
    -------
    DataFrame
        One row per run, pair and moment: ``run``, ``setting``, ``alpha``, ``seed``, ``moment`` (``before`` or
        ``after``), ``step``, ``pair_id``; ``chosen``, ``rejected`` and ``margin`` (their difference), nats per token;
        ``chosen_tokens`` and ``rejected_tokens``.

    Raises
    ------
    InputError
        If the trace holds no probe set at step 0.

    Examples
    --------
    >>> pair_levels(read_trace("runs/embedded")).groupby("moment")["margin"].median()      # doctest: +SKIP
    """
    tables = []
    for chosen, rejected in chosen_and_rejected(trace):
        for moment, place in (("before", 0), ("after", -1)):
            levels = {
                name: panel.sums["logp_sum"][place] / panel.num_tokens
                for name, panel in (("chosen", chosen), ("rejected", rejected))
            }
            row: dict[str, Any] = {
                **run_label(chosen.run),
                "moment": moment,
                "step": int(chosen.steps[place]),
                "pair_id": chosen.pair_ids,
                **levels,
                "margin": levels["chosen"] - levels["rejected"],
                "chosen_tokens": chosen.num_tokens,
                "rejected_tokens": rejected.num_tokens,
            }
            tables.append(pd.DataFrame(row))
    return pd.concat(tables, ignore_index=True)


def win_rates(trace: Trace) -> pd.DataFrame:
    """Share of comparisons that the samples of each step win against those of step 0, by gold reward, with the KL.

    Returns
    -------
    DataFrame
        One row per run and later step that drew samples: ``run``, ``setting``, ``alpha``, ``seed``, ``step``, ``kl``
        (nats per response), ``win_rate`` (ties count half) with ``…_low`` and ``…_high``, 95 % over prompts;
        ``accuracy`` (share of probe pairs in order at that step: discriminating, where the win rate is generating);
        ``picked``: whether half of the prompts would choose that step by its gold (`chosen_checkpoint`; where none of a
        run is, step 0; <NA> for a run that is too small to choose); ``on_front``: whether no other row, of any setting,
        wins as often for less KL or more often for as much.

    Raises
    ------
    InputError
        If samples were drawn at fewer than two steps, or have no gold reward.
    """
    samples = judged(samples_of(trace))
    if samples.empty:
        raise InputError("needs sampled responses with a gold reward (--sample-every)")
    rows = []
    for run in trace.runs:
        mine = samples[samples["run"] == run.name]
        steps = sorted(mine["step"].unique())
        for step in steps[1:]:
            now = mine[mine["step"] == step]
            found = against(mine[mine["step"] == steps[0]], now)
            rows.append(
                {
                    **run_label(run),
                    "step": int(step),
                    "kl": float(now["kl"].mean()),
                    "win_rate": found.win_rate,
                    "win_rate_low": found.low,
                    "win_rate_high": found.high,
                }
            )
    if not rows:
        raise InputError("needs samples of at least two steps (--sample-every)")
    accuracies = [
        pd.DataFrame({"run": c.run.name, "step": c.steps, "accuracy": in_order(c, r).mean(axis=1)})
        for c, r in chosen_and_rejected(trace)
    ]
    table = pd.DataFrame(rows).merge(pd.concat(accuracies), on=["run", "step"], how="left")
    best = chosen_checkpoint(trace).set_index("run")["step"]
    choice = table["run"].map(best)
    table["picked"] = (table["step"] == choice).astype("boolean").mask(choice.isna())
    return table.assign(on_front=on_front(table["kl"].to_numpy(float), table["win_rate"].to_numpy(float)))


def on_front(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Which points no other beats: costs no more and gains no less, and one of them strictly; none that is no number.

    Examples
    --------
    >>> on_front(np.array([1.0, 2.0, 2.0]), np.array([0.5, 0.4, 0.7])).tolist()
    [True, False, True]
    """
    cheaper, better = cost[None] - cost[:, None], gain[None] - gain[:, None]
    beaten = (cheaper <= 0) & (better >= 0) & ((cheaper < 0) | (better > 0))
    return np.asarray(~beaten.any(axis=1) & np.isfinite(cost) & np.isfinite(gain))

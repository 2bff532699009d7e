"""Which training pairs pushed the chosen responses of the probe set down, over a whole run."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rewardshape.analysis.cause import effective_rate
from rewardshape.analysis.panels import run_label
from rewardshape.errors import InputError
from rewardshape.trace import Run, Trace


def pair_influence(trace: Trace) -> pd.DataFrame:
    r"""What every training pair did to the probe set's chosen log-probs, by first order, summed over its visits.

    A visit of pair i at update t, in a batch of B pairs at learning rate η_t (less clipping), moves the mean chosen
    log-prob per token by η_t/B times the influence measured at the step nearest to it (arXiv 2002.08484, §3).

    Returns
    -------
    DataFrame
        One row per run and training pair, the one that pushed down most first: ``run``, ``setting``, ``alpha``,
        ``seed``, ``rank``, ``pair_id``, ``visits`` (updates whose batch held it), ``influence`` (nats per token of the
        probe set's mean chosen log-prob; negative: pushed down) and ``per_visit`` (the same for one visit at the mean
        learning rate).

    Raises
    ------
    InputError
        If the trace holds no influence.
    """
    if trace.influence.empty:
        raise InputError(f"{trace.folder}: no influence of pairs; run the probe with --influence-every K")
    tables = [_of_run(trace, run) for run in trace.runs if (trace.influence["run"] == run.name).any()]
    return pd.concat(tables, ignore_index=True)


def _of_run(trace: Trace, run: Run) -> pd.DataFrame:
    measured = trace.influence[trace.influence["run"] == run.name]
    wide = measured.pivot(index="step", columns="pair_id", values="influence")
    train = trace.responses[(trace.responses["run"] == run.name) & (trace.responses["split"] == "train")]
    visits = train.loc[train["response"] == "chosen", ["step", "pair_id"]]
    rate = effective_rate(trace, run).reindex(visits["step"]).to_numpy(float)
    size = visits.groupby("step")["pair_id"].transform("size").to_numpy(float)
    known = visits["pair_id"].isin(wide.columns).to_numpy()
    visits, rate, size = visits[known], rate[known], size[known]
    # The weights before update t are those after update t − 1.
    place = np.abs(wide.index.to_numpy()[None] - (visits["step"].to_numpy() - 1)[:, None]).argmin(axis=1)
    at = wide.to_numpy(float)[place, wide.columns.get_indexer(pd.Index(visits["pair_id"]))]
    table = pd.DataFrame({"pair_id": visits["pair_id"].to_numpy(), "influence": rate / size * at})
    summed = (
        table.groupby("pair_id", sort=False)["influence"].agg(visits="size", influence="sum").reset_index()
    )
    unit = float(np.mean(rate / size)) if len(rate) else np.nan
    summed["per_visit"] = unit * wide.mean().reindex(summed["pair_id"]).to_numpy(float)
    summed = summed.sort_values("influence", kind="stable", ignore_index=True)
    summed.insert(0, "rank", np.arange(1, len(summed) + 1))
    for place_of, (name, value) in enumerate(run_label(run).items()):
        summed.insert(place_of, name, value)
    return summed

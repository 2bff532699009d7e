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


def probe_pair_influence(trace: Trace) -> pd.DataFrame:
    """Which training pairs pushed the chosen response of each probe pair down: first order, summed over their visits.

    Recorded are, at every measurement, the few training pairs that push a probe pair down most among those whose visits
    lie nearest to it. A pair that is visited again nearer to another measurement counts there only if it is among its
    strongest too.

    Returns
    -------
    DataFrame
        One row per run, probe pair and training pair, by probe pair, the one that pushed down most first: ``run``,
        ``setting``, ``alpha``, ``seed``, ``probe_pair_id``, ``pair_id``, ``visits`` (those counted) and ``influence``
        (nats per token of that probe pair's chosen log-prob).

    Raises
    ------
    InputError
        If the trace holds none.
    """
    if trace.influence_pairs.empty:
        raise InputError(
            f"{trace.folder}: no influence on single probe pairs; run the probe with --influence-every K"
        )
    tables = []
    for run in trace.runs:
        measured = trace.influence_pairs[trace.influence_pairs["run"] == run.name]
        if len(measured):
            tables.append(_on_pairs(trace, run, measured))
    return pd.concat(tables, ignore_index=True)


def _on_pairs(trace: Trace, run: Run, measured: pd.DataFrame) -> pd.DataFrame:
    steps = np.sort(trace.influence.loc[trace.influence["run"] == run.name, "step"].unique())
    visits = _visits(trace, run, steps)
    rows = measured[["step", "probe_pair_id", "pair_id", "influence"]].merge(visits, on=["step", "pair_id"])
    rows["influence"] *= rows["share"]
    keys = ["probe_pair_id", "pair_id"]
    summed = rows.groupby(keys, sort=False)["influence"].agg(visits="size", influence="sum").reset_index()
    order = {pair: place for place, pair in enumerate(measured["probe_pair_id"].unique())}
    summed["place"] = summed["probe_pair_id"].map(order)
    summed = summed.sort_values(["place", "influence"], kind="stable", ignore_index=True).drop(
        columns="place"
    )
    for place_of, (name, value) in enumerate(run_label(run).items()):
        summed.insert(place_of, name, value)
    return summed


def _visits(trace: Trace, run: Run, steps: np.ndarray) -> pd.DataFrame:
    """Every visit of a training pair: pair_id, step (of the measurement nearest to it) and share, η/B of its update."""
    train = trace.responses[(trace.responses["run"] == run.name) & (trace.responses["split"] == "train")]
    visits = train.loc[train["response"] == "chosen", ["step", "pair_id"]]
    rate = effective_rate(trace, run).reindex(visits["step"]).to_numpy(float)
    size = visits.groupby("step")["pair_id"].transform("size").to_numpy(float)
    # The weights before update t are those after update t − 1.
    place = np.abs(steps[None] - (visits["step"].to_numpy() - 1)[:, None]).argmin(axis=1)
    return pd.DataFrame({"pair_id": visits["pair_id"].to_numpy(), "step": steps[place], "share": rate / size})


def _of_run(trace: Trace, run: Run) -> pd.DataFrame:
    measured = trace.influence[trace.influence["run"] == run.name]
    wide = measured.pivot(index="step", columns="pair_id", values="influence")
    visits = _visits(trace, run, wide.index.to_numpy())
    visits = visits[visits["pair_id"].isin(wide.columns)]
    place = wide.index.get_indexer(pd.Index(visits["step"]))
    at = wide.to_numpy(float)[place, wide.columns.get_indexer(pd.Index(visits["pair_id"]))]
    table = pd.DataFrame(
        {"pair_id": visits["pair_id"].to_numpy(), "influence": visits["share"].to_numpy() * at}
    )
    summed = (
        table.groupby("pair_id", sort=False)["influence"].agg(visits="size", influence="sum").reset_index()
    )
    unit = float(visits["share"].mean()) if len(visits) else np.nan
    summed["per_visit"] = unit * wide.mean().reindex(summed["pair_id"]).to_numpy(float)
    summed = summed.sort_values("influence", kind="stable", ignore_index=True)
    summed.insert(0, "rank", np.arange(1, len(summed) + 1))
    for place_of, (name, value) in enumerate(run_label(run).items()):
        summed.insert(place_of, name, value)
    return summed

"""Runs side by side: two runs pair by pair, a sweep against its baseline, and settings over their seeds.

Equal *steps* mix what a shape does with how fast it does it. Rewards of different α are not on one scale
either, so the margin on which runs are set equal is `logp_margin`: chosen minus rejected log-prob in nats
per token, which every objective has and which starts from the same value in all runs of one checkpoint and
probe set.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.panels import Panel, probe_panels
from rewardshape.analysis.resampling import (
    CONFIDENCE,
    mean_interval,
    where_known,
    with_interval,
)
from rewardshape.errors import InputError
from rewardshape.trace import Trace


def compare(first: Trace, second: Trace, *, seed: int = 0) -> pd.DataFrame:
    """Two runs on the same probe pairs: how much more the second one moved each response.

    The interval is of the paired difference, so what pairs have in common cancels. It resamples pairs; run
    both with the same seed, so that the order of the training pairs is the same as well.

    Returns
    -------
    DataFrame
        One row per common step and response: ``step``, ``response``, ``num_pairs`` (pairs in both),
        ``first_change`` and ``second_change`` (nats per token since step 0), ``difference`` (second minus
        first) with ``difference_low`` and ``difference_high``, and ``share_lower``: share of pairs lower in
        the second.

    Raises
    ------
    InputError
        If a trace holds several runs, or if the runs share no probe pair.

    Examples
    --------
    >>> sweep = read_trace("runs/sweep")                                        # doctest: +SKIP
    >>> compare(sweep.run("alpha=0.0"), sweep.run("alpha=0.25")).tail(2)         # doctest: +SKIP
    """
    for trace in (first, second):
        if len(trace.runs) != 1:
            names = ", ".join(run.name for run in trace.runs)
            raise InputError(
                f"{trace.folder}: holds {len(trace.runs)} runs ({names}); compare takes one: "
                "pick it with trace.run(name)"
            )
    theirs = {panel.response: panel for panel in probe_panels(second)}
    tables = [
        _compare_panels(panel, theirs[panel.response], seed)
        for panel in probe_panels(first)
        if panel.response in theirs
    ]
    if not sum(map(len, tables)):
        raise InputError(f"{first.folder} and {second.folder} share no probe pair at a common step")
    return pd.concat(tables, ignore_index=True)


def _compare_panels(first: Panel, second: Panel, seed: int) -> pd.DataFrame:
    steps, first_rows, second_rows = np.intersect1d(first.steps, second.steps, return_indices=True)
    places = {pair: place for place, pair in enumerate(second.pairs)}
    common = [(place, places[pair]) for place, pair in enumerate(first.pairs) if pair in places]
    if not common:
        return pd.DataFrame()
    mine, theirs = np.array(common).T
    first_change = first.change()[np.ix_(first_rows, mine)]
    second_change = second.change()[np.ix_(second_rows, theirs)]
    difference = second_change - first_change
    prompts = first.prompt_codes[mine]
    low, high = mean_interval(difference, prompts, seed=seed)
    return pd.DataFrame(
        {
            "step": steps,
            "response": first.response,
            "num_pairs": len(mine),
            "first_change": first_change.mean(axis=1),
            "second_change": second_change.mean(axis=1),
            "difference": difference.mean(axis=1),
            "difference_low": low,
            "difference_high": high,
            "share_lower": where_known(difference < 0, difference).mean(axis=1),
        }
    )


def difference_curves(trace: Trace, *, baseline: str | None = None, seed: int = 0) -> pd.DataFrame:
    """How far every setting of a sweep stands above its baseline at every step, pair by pair.

    Parameters
    ----------
    trace : Trace
        A sweep: runs that have their checkpoint and their probe set in common with those of their seed.
    baseline : str, optional
        A setting, such as ``"alpha=0"``; left out: the α nearest to 0, or else the first setting.

    Returns
    -------
    DataFrame
        One row per other setting, response and step: ``setting``, ``alpha``, ``baseline`` (its label), ``num_seeds``,
        ``diverged`` (whether all its runs did), ``step``, ``response`` and ``difference`` (nats per token: this
        setting's change since step 0 minus the baseline's) with ``difference_low`` and ``difference_high``: 95 % over
        pairs where there is one seed, else over seeds (Student's t, the runs of one seed paired).

    Raises
    ------
    InputError
        If there is one setting only, `baseline` is none of them, or the runs share no probe pair.
    """
    by_setting: dict[str, dict[Any, Any]] = {}
    for run in trace.runs:
        by_setting.setdefault(run.setting, {})[run.seed] = run
    if len(by_setting) < 2:
        raise InputError("one setting only: nothing to set it against")
    base = baseline_setting(trace) if baseline is None else baseline
    if base not in by_setting:
        raise InputError(f"no setting {baseline!r}: there are {', '.join(by_setting)}")
    tables = []
    alone = cache(trace.run)  # the baseline's is set against every other
    for setting, runs in by_setting.items():
        seeds = [s for s in runs if s in by_setting[base]]
        if setting == base or not seeds:
            continue
        compared = [compare(alone(by_setting[base][s].name), alone(runs[s].name), seed=seed) for s in seeds]
        run = runs[seeds[0]]
        label = {"setting": setting, "alpha": run.alpha, "baseline": by_setting[base][seeds[0]].setting_label}
        lost = all(run.diverged for run in runs.values())
        tables.append(_mean_over_seeds(compared).assign(**label, num_seeds=len(seeds), diverged=lost))
    if not tables:
        raise InputError("no seed is common to a setting and its baseline, so nothing can be paired")
    found = pd.concat(tables, ignore_index=True)
    found["setting"] = pd.Categorical(
        found["setting"], categories=list(by_setting)
    )  # the baseline among them
    return found


def baseline_setting(trace: Trace) -> str:
    """What a sweep is set against: the setting whose α is nearest to 0, or else the first."""
    known = {run.setting: abs(run.alpha) for run in trace.runs if np.isfinite(run.alpha)}
    return min(known, key=lambda setting: known[setting]) if known else trace.runs[0].setting


def _mean_over_seeds(compared: list[pd.DataFrame]) -> pd.DataFrame:
    columns = ["step", "response", "difference", "difference_low", "difference_high"]
    if len(compared) == 1:
        return compared[0][columns]
    grouped = pd.concat(compared).groupby(["response", "step"], sort=False)["difference"]
    found = grouped.agg(difference="mean", error="sem", count="count").reset_index()
    most = found.groupby("response")["count"].transform("max")
    found = found[found["count"] == most]  # where a seed has ended, the mean is of others
    half = found["error"] * stats.t.ppf((1 + CONFIDENCE) / 2, found["count"] - 1)
    found["difference_low"], found["difference_high"] = found["difference"] - half, found["difference"] + half
    return pd.DataFrame(found[columns])


MEASURES = [
    "chosen_change",
    "difference",
    "rejected_change",
    "logp_margin_gain",
    "share_fallen",
    "accuracy",
    "step",
    "kl",
    "gold",
]


def over_seeds(rows: pd.DataFrame, *, baseline: str | None = None) -> pd.DataFrame:
    """Means over the seeds of each setting, with Student's t intervals.

    Parameters
    ----------
    rows : DataFrame
        As `compare_at_equal` returns it; runs that never reached the value are left out (and counted).
    baseline : str, optional
        A setting, such as ``"alpha=0"``. Then the measures are differences from the baseline run of the same seed, so
        that what runs of one seed share cancels; a seed in which the baseline never reached the value is left out too.

    Returns
    -------
    DataFrame
        One row per setting: ``setting``, ``alpha``, ``num_seeds``, ``num_unreached``, and for each measure of
        `compare_at_equal` its mean over the seeds that have it with ``…_low`` and ``…_high`` (95 %; NaN for one seed).
        ``difference`` is paired by seed: ``seeds_paired`` counts the seeds in which there is one, ``seeds_agreeing``
        those in which it has the sign of its mean.

    Raises
    ------
    InputError
        If `baseline` is none of the settings.
    """
    measures = [name for name in MEASURES if name in rows]
    if baseline is not None:
        if baseline not in set(rows["setting"]):
            raise InputError(
                f"no setting {baseline!r}: there are {', '.join(dict.fromkeys(rows['setting']))}"
            )
        base = rows[rows["setting"] == baseline]
        base = base.set_index(base["seed"].map(str))
        seeds = rows["seed"].map(str)  # runs that state none are of one
        rows, seeds = rows[seeds.isin(base.index)].copy(), seeds[seeds.isin(base.index)]
        theirs = base.loc[seeds.tolist()]
        rows[measures] = rows[measures].to_numpy(float) - theirs[measures].to_numpy(float)
        rows["reached"] &= theirs["reached"].to_numpy(bool)
    settings = dict.fromkeys(rows["setting"])
    return pd.DataFrame([_setting_row(name, rows[rows["setting"] == name], measures) for name in settings])


def settings_along(rows: pd.DataFrame) -> pd.DataFrame:
    """The settings of a sweep along its margin, KL or steps: the runs of each setting together, as far as all got.

    Parameters
    ----------
    rows : DataFrame
        As `compare_along` returns it.

    Returns
    -------
    DataFrame
        One row per setting and value: ``setting``, ``alpha``, ``axis``, ``value``, ``num_seeds``; ``chosen_change``
        and, where there is a baseline, ``difference``, each with ``…_low`` and ``…_high`` (of one run its own interval
        over prompts, of several Student's t over seeds); ``seeds_agreeing`` in the sign of the difference.
    """
    table = []
    for (setting, value), mine in rows.groupby(["setting", "value"], sort=False, observed=True):
        if len(mine) < rows.loc[rows["setting"] == setting, "run"].nunique():
            continue
        first = mine.iloc[0]
        row = {name: first[name] for name in ("setting", "alpha", "axis")} | {"value": value}
        for name in ("chosen_change", "difference"):
            if name in mine:
                known = mine[mine[name].notna()]  # a seed that the baseline lacks has no difference
                row["num_seeds"] = len(known)
                if len(known) == 1:
                    row |= {
                        part: known[part].iloc[0]
                        for part in (name, f"{name}_low", f"{name}_high")
                        if part in known
                    }
                else:
                    row |= _over_runs(name, known[name].to_numpy(float))
        if "difference" in mine:
            row["seeds_agreeing"] = int((np.sign(mine["difference"]) == np.sign(row["difference"])).sum())
        table.append(row)
    return pd.DataFrame(table).sort_values(["alpha", "setting", "value"], ignore_index=True)


def _over_runs(name: str, values: np.ndarray) -> dict[str, Any]:
    """The mean over seeds with Student's t interval, NaN of one seed."""
    mean, half = float(values.mean()) if len(values) else np.nan, np.nan
    if len(values) > 1:
        half = float(stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return with_interval(name, mean, mean - half, mean + half)


def _setting_row(setting: str, rows: pd.DataFrame, measures: list[str]) -> dict[str, Any]:
    reached = rows[rows["reached"]]
    row: dict[str, Any] = {
        "setting": setting,
        "alpha": rows["alpha"].iloc[0],
        "num_seeds": len(reached),
        "num_unreached": len(rows) - len(reached),
    }
    for name in measures:
        values = reached[name].dropna().to_numpy(float)
        row |= _over_runs(name, values)
        if name == "difference":
            agreeing = np.sign(values) == np.sign(row["difference"])
            row |= {"seeds_paired": len(values), "seeds_agreeing": int(agreeing.sum())}
    return row

"""Runs side by side: two runs pair by pair, and a sweep at equal margin, equal KL or equal step.

Equal *steps* mix what a shape does with how fast it does it. Rewards of different α are not on one scale
either, so the margin on which runs are set equal is `logp_margin`: chosen minus rejected log-prob in nats
per token, which every objective has and which starts from the same value in all runs of one checkpoint and
probe set.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.displacement import margin_curve
from rewardshape.analysis.panels import Panel, chosen_and_rejected, probe_panels, run_label
from rewardshape.analysis.resampling import (
    CONFIDENCE,
    mean_interval,
    percentile_interval,
    resampled_means,
    share_interval,
)
from rewardshape.errors import InputError
from rewardshape.trace import Trace

Axis = Literal["logp_margin", "kl", "step"]


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
    theirs = pd.Index(second.pair_ids)
    pairs = pd.Index([pair for pair in first.pair_ids if pair in theirs])
    if pairs.empty:
        return pd.DataFrame()
    first_change = first.change()[np.ix_(first_rows, pd.Index(first.pair_ids).get_indexer(pairs))]
    second_change = second.change()[np.ix_(second_rows, theirs.get_indexer(pairs))]
    difference = second_change - first_change
    prompts = first.prompt_ids[pd.Index(first.pair_ids).get_indexer(pairs)]
    low, high = mean_interval(difference, prompts, seed=seed)
    return pd.DataFrame(
        {
            "step": steps,
            "response": first.response,
            "num_pairs": len(pairs),
            "first_change": first_change.mean(axis=1),
            "second_change": second_change.mean(axis=1),
            "difference": difference.mean(axis=1),
            "difference_low": low,
            "difference_high": high,
            "share_lower": (difference < 0).mean(axis=1),
        }
    )


def difference_curves(trace: Trace, *, baseline: str | None = None, seed: int = 0) -> pd.DataFrame:
    """How far every setting of a sweep stands above its baseline at every step, pair by pair.

    Parameters
    ----------
    trace : Trace
        A sweep: runs from one checkpoint on one probe set.
    baseline : str, optional
        A setting, such as ``"alpha=0"``; left out: the α nearest to 0, or else the first setting.

    Returns
    -------
    DataFrame
        One row per other setting, response and step: ``setting``, ``alpha``, ``baseline`` (its label), ``num_seeds``,
        ``step``, ``response`` and ``difference`` (nats per token: this setting's change since step 0 minus the
        baseline's) with ``difference_low`` and ``difference_high``: 95 % over pairs where there is one
        seed, else over seeds (Student's t, the runs of one seed paired).

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
    base = _base_setting(by_setting) if baseline is None else baseline
    if base not in by_setting:
        raise InputError(f"no setting {baseline!r}: there are {', '.join(by_setting)}")
    tables = []
    for setting, runs in by_setting.items():
        seeds = [s for s in runs if s in by_setting[base]]
        if setting == base or not seeds:
            continue
        compared = [
            compare(trace.run(by_setting[base][s].name), trace.run(runs[s].name), seed=seed) for s in seeds
        ]
        run = runs[seeds[0]]
        label = {"setting": setting, "alpha": run.alpha, "baseline": by_setting[base][seeds[0]].setting_label}
        tables.append(_mean_over_seeds(compared).assign(**label, num_seeds=len(seeds)))
    if not tables:
        raise InputError("no seed is common to a setting and its baseline, so nothing can be paired")
    found = pd.concat(tables, ignore_index=True)
    found["setting"] = pd.Categorical(
        found["setting"], categories=list(by_setting)
    )  # the baseline among them
    return found


def _base_setting(by_setting: dict[str, dict[Any, Any]]) -> str:
    alphas = {setting: next(iter(runs.values())).alpha for setting, runs in by_setting.items()}
    known = {setting: abs(alpha) for setting, alpha in alphas.items() if np.isfinite(alpha)}
    return min(known, key=lambda setting: known[setting]) if known else next(iter(by_setting))


def _mean_over_seeds(compared: list[pd.DataFrame]) -> pd.DataFrame:
    columns = ["step", "response", "difference", "difference_low", "difference_high"]
    if len(compared) == 1:
        return compared[0][columns]
    grouped = pd.concat(compared).groupby(["response", "step"], sort=False)["difference"]
    found = grouped.agg(difference="mean", error="sem", count="size").reset_index()
    half = found["error"] * stats.t.ppf((1 + CONFIDENCE) / 2, found["count"] - 1)
    found["difference_low"], found["difference_high"] = found["difference"] - half, found["difference"] + half
    return found[columns]


class _Run(NamedTuple):
    """What is followed along one run: arrays over the steps of its probe set (last axis: pairs, if any)."""

    label: dict[str, Any]
    pair_ids: list[str]
    steps: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    accuracy: np.ndarray
    samples: pd.DataFrame


def compare_at_equal(
    trace: Trace, axis: Axis, value: float | None = None, *, baseline: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Every run of a sweep at the step where it first reaches a common margin gain, KL, or step.

    Between steps, and between the steps at which samples were drawn, all quantities are interpolated
    linearly.

    Parameters
    ----------
    trace : Trace
        A sweep: runs from one checkpoint on one probe set.
    axis : {"logp_margin", "kl", "step"}
        What is set equal: the gain since step 0 of the probe margin in log-probs (nats per token), the KL
        to the reference (nats per response, from samples), or the step.
    value : float, optional
        The common value. Left out: nine tenths of what the slowest run reaches (so that most resamples of the
        pairs reach it too); for steps, the last step that every run has.

    baseline : str, optional
        A run. Then ``difference`` tells how much higher or lower each run's chosen responses stand than the
        baseline's at the common value, paired: every resample holds the same pairs in both.

    Returns
    -------
    DataFrame
        One row per run, ordered by α and seed: ``run``, ``setting``, ``alpha``, ``seed``, ``axis``, ``value``,
        ``reached`` (False: the run never gets there, and what follows is NaN), ``step`` (fractional),
        ``chosen_change``, ``rejected_change``, ``logp_margin_gain`` (nats per token), ``share_fallen``,
        ``accuracy``; where samples were drawn ``kl`` and ``gold``. ``chosen_change`` and
        ``rejected_change`` with ``…_low`` and ``…_high`` over pairs; each resample of the pairs finds its
        own step (one that never reaches the value stands where it came closest).

    Raises
    ------
    InputError
        If `axis` is unknown, or is "kl" and a run has no samples; if `baseline` is no run, never reaches the
        value, or has other probe pairs than the rest.

    Examples
    --------
    >>> compare_at_equal(read_trace("runs/sweep"), "logp_margin")       # doctest: +SKIP
    """
    if axis not in ("logp_margin", "kl", "step"):
        raise InputError(f"axis {axis!r}: choose logp_margin, kl or step")
    runs = _runs(trace)
    if value is None:
        furthest = min(_followed(run, axis).mean(axis=1).max() for run in runs)
        value = float(furthest if axis == "step" else 0.9 * furthest)
    found = {run.label["run"]: _row_at(run, axis, value, seed) for run in runs}
    if baseline is not None:
        base, base_resampled = _baseline(found, runs, baseline)
        for row, resampled in found.values():
            if row["reached"]:
                low, high = percentile_interval(resampled - base_resampled)
                row["difference"] = row["chosen_change"] - base["chosen_change"]
                row |= {"difference_low": low, "difference_high": high}
    rows = [row for row, _ in found.values()]
    return pd.DataFrame(rows).sort_values(["alpha", "seed", "run"], ignore_index=True)


def _runs(trace: Trace) -> list[_Run]:
    margins = margin_curve(trace)
    runs = []
    for chosen, rejected in chosen_and_rejected(trace):
        name = chosen.run.name
        accuracy = margins.loc[margins["run"] == name, "accuracy"].to_numpy()
        runs.append(
            _Run(
                run_label(chosen.run),
                chosen.pair_ids,
                chosen.steps,
                chosen.change(),
                rejected.change(),
                accuracy,
                _sample_means(trace, name),
            )
        )
    return runs


def _sample_means(trace: Trace, run: str) -> pd.DataFrame:
    """KL estimate (nats per response) and mean gold reward by step; empty if no samples were drawn."""
    if trace.samples.empty:
        return pd.DataFrame()
    samples = trace.samples[trace.samples["run"] == run]
    samples = samples.assign(kl=samples["logp_sum"] - samples["ref_logp_sum"])
    return samples.groupby("step")[[name for name in ("kl", "gold") if name in samples]].mean()


def _followed(run: _Run, axis: Axis) -> np.ndarray:
    """What is set equal: of every pair for the margin, (steps, pairs); else one curve, (steps, 1)."""
    if axis == "logp_margin":
        return run.chosen - run.rejected
    if axis == "step":
        return run.steps[:, None].astype(float)
    if "kl" not in run.samples or run.samples["kl"].isna().all():
        raise InputError(f"run {run.label['run']!r} has no KL: it drew no samples (--sample-every)")
    return np.interp(run.steps, run.samples.index, run.samples["kl"])[:, None]


def _baseline(
    found: dict[str, tuple[dict[str, Any], np.ndarray]], runs: list[_Run], baseline: str
) -> tuple[dict[str, Any], np.ndarray]:
    if baseline not in found:
        raise InputError(f"no run {baseline!r} to compare with: there are {', '.join(found)}")
    if not found[baseline][0]["reached"]:
        raise InputError(f"run {baseline!r} never reaches the common value, so nothing can be told from it")
    if any(run.pair_ids != runs[0].pair_ids for run in runs):
        raise InputError("the runs have different probe pairs, so their differences cannot be paired")
    return found[baseline]


def _row_at(run: _Run, axis: Axis, value: float, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """The row of one run, and the change of its chosen responses in every resample."""
    followed = _followed(run, axis)
    mean = followed.mean(axis=1)
    reached = bool((mean >= value).any())
    place = _first_place(mean[None], value)
    resampled = resampled_means(followed, seed=seed) if axis == "logp_margin" else mean[None]
    resampled_place = _first_place(resampled, value)
    step = float(_at(run.steps[None], place)[0])
    row = {**run.label, "axis": axis, "value": value, "reached": reached, "step": step}
    resampled_change = {
        "chosen_change": _at(resampled_means(run.chosen, seed=seed), resampled_place),
        "rejected_change": _at(resampled_means(run.rejected, seed=seed), resampled_place),
    }
    for name, change in (("chosen_change", run.chosen), ("rejected_change", run.rejected)):
        low, high = percentile_interval(resampled_change[name])
        row |= {name: _at(change.mean(axis=1)[None], place)[0], f"{name}_low": low, f"{name}_high": high}
    row["logp_margin_gain"] = row["chosen_change"] - row["rejected_change"]
    fallen = (_at(run.chosen.T, place) < 0).sum()
    low, high = share_interval(fallen, len(run.pair_ids))
    row |= {"share_fallen": fallen / len(run.pair_ids), "share_fallen_low": low, "share_fallen_high": high}
    row["accuracy"] = _at(run.accuracy[None], place)[0]
    for name in map(str, run.samples.columns):
        row[name] = np.interp(step, run.samples.index, run.samples[name], left=np.nan, right=np.nan)
    if not reached:
        row = {key: row[key] for key in (*run.label, "axis", "value", "reached")}
    return row, resampled_change["chosen_change"]


def _first_place(curves: np.ndarray, value: float) -> np.ndarray:
    """Fractional index at which each curve (row) first reaches `value`, or else of its maximum."""
    above = curves >= value
    first = np.where(above.any(axis=1), above.argmax(axis=1), curves.argmax(axis=1))
    before = np.maximum(first - 1, 0)
    rows = np.arange(len(curves))
    rise = curves[rows, first] - curves[rows, before]
    short = np.clip(curves[rows, first] - value, 0, None)  # how far past the value that index already is
    return first - np.divide(short, rise, out=np.zeros(len(curves)), where=(rise > 0) & (first > before))


def _at(curves: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Linear interpolation of each curve (rows) at a fractional index."""
    before = np.floor(place).astype(int)
    after = np.minimum(before + 1, curves.shape[1] - 1)
    rows = np.arange(len(curves))
    share = place - before
    return curves[rows, before] * (1 - share) + curves[rows, after] * share


MEASURES = [
    "chosen_change",
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
        A setting, such as ``"alpha=0"``. Then the measures are differences
        from the baseline run of the same seed, so that what runs of one seed share cancels.

    Returns
    -------
    DataFrame
        One row per setting: ``setting``, ``alpha``, ``num_seeds``, ``num_unreached``, and for each measure of
        `compare_at_equal` its mean with ``…_low`` and ``…_high`` (95 %; NaN for one seed).

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
        base = rows[rows["setting"] == baseline].set_index("seed")[measures]
        rows = rows[rows["seed"].isin(base.index)].copy()
        rows[measures] = rows[measures].to_numpy(float) - base.loc[rows["seed"]].to_numpy(float)
    settings = dict.fromkeys(rows["setting"])
    return pd.DataFrame([_setting_row(name, rows[rows["setting"] == name], measures) for name in settings])


def _setting_row(setting: str, rows: pd.DataFrame, measures: list[str]) -> dict[str, Any]:
    reached = rows[rows["reached"]]
    row: dict[str, Any] = {
        "setting": setting,
        "alpha": rows["alpha"].iloc[0],
        "num_seeds": len(reached),
        "num_unreached": len(rows) - len(reached),
    }
    for name in measures:
        values = reached[name].to_numpy(float)
        low, high = (np.nan, np.nan)
        if len(values) > 1:
            half = stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
            low, high = values.mean() - half, values.mean() + half
        row |= {name: values.mean() if len(values) else np.nan, f"{name}_low": low, f"{name}_high": high}
    return row

"""Likelihood displacement: how the log-probs of a fixed probe set move, when, and for which pairs.

Everything here reads the ``probe`` rows of a trace. A *change* is always "since step 0, the untouched
checkpoint". Per-token values are the mean over pairs of each pair's own log-prob per token, so long
responses count no more than short ones. Intervals are 95 % and over prompts (`mean_interval`). They say how far the
probe set stands for other pairs, not how far the seed of a run does: for that see `rewardshape.analysis.comparison`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rewardshape.analysis.panels import (
    BY_SETTING,
    SUMS,
    Panel,
    chosen_and_rejected,
    in_order,
    logp_margins,
    probe_panels,
    reward_margins,
    run_label,
    run_objective,
)
from rewardshape.analysis.resampling import ENDS, mean_interval, share_interval, where_known, with_interval
from rewardshape.trace import Trace


def displacement_curve(trace: Trace, *, seed: int = 0) -> pd.DataFrame:
    """Change of every probe response's log-prob since step 0, with intervals over pairs.

    Parameters
    ----------
    trace : Trace
        One run or a sweep.
    seed : int
        Of the resampling.

    Returns
    -------
    DataFrame
        One row per run, step and response:

        * ``run``, ``setting``, ``alpha``, ``seed``, ``step``, ``response``, ``num_pairs``;
        * ``logp_sum`` (nats), ``logp_mean`` (nats per token): means over pairs;
        * ``logp_sum_change``, ``logp_mean_change``: change since step 0, each with ``…_low`` and ``…_high``;
        * ``share_fallen``: share of pairs below their step-0 log-prob, with ``…_low`` and ``…_high``;
        * ``diverged``: whether the run ended in numbers that are not finite;
        * where measured, ``greedy_mean`` and ``greedy_mean_change`` (log-prob per token of the tokens that
          greedy decoding would take at the positions of this response: it rises while the response falls when
          mass is squeezed into the mode, arXiv 2407.10490) and ``entropy_mean``, ``entropy_mean_change``
          (nats per token), the changes with ``…_low`` and ``…_high``.

    Raises
    ------
    InputError
        If the trace holds no probe set at step 0.

    Examples
    --------
    >>> curve = displacement_curve(read_trace("runs/alpha=0.25"))      # doctest: +SKIP
    >>> curve.query("response == 'chosen'").set_index("step")["logp_mean_change"]    # doctest: +SKIP
    """
    return pd.concat([_panel_curve(panel, seed) for panel in probe_panels(trace)], ignore_index=True)


def _panel_curve(panel: Panel, seed: int) -> pd.DataFrame:
    num_pairs = len(panel.pair_ids)
    curve: dict[str, Any] = {
        **run_label(panel.run),
        "step": panel.steps,
        "response": panel.response,
        "num_pairs": num_pairs,
        "logp_sum": panel.sums["logp_sum"].mean(axis=1),
        **_change("logp_sum_change", panel.change(per_token=False), panel.prompt_codes, seed),
    }
    for column, sums in panel.sums.items():
        name = SUMS[column]
        curve[f"{name}_mean"] = (sums / panel.num_tokens).mean(axis=1)
        curve |= _change(f"{name}_mean_change", panel.change(column), panel.prompt_codes, seed)
    fallen = where_known(panel.change() < 0, panel.change())
    curve |= with_interval("share_fallen", fallen.mean(axis=1), *share_interval(fallen, panel.prompt_codes))
    return pd.DataFrame(curve).assign(diverged=panel.run.diverged)


def _change(name: str, values: np.ndarray, prompts: np.ndarray, seed: int) -> dict[str, Any]:
    return with_interval(name, values.mean(axis=1), *mean_interval(values, prompts, seed=seed))


def margin_curve(trace: Trace, *, seed: int = 0) -> pd.DataFrame:
    """How far chosen and rejected stand apart on the probe set, over the steps.

    Returns
    -------
    DataFrame
        One row per run and step: ``run``, ``setting``, ``alpha``, ``seed``, ``step``, ``num_pairs``;

        * ``margin``: mean reward margin, r(chosen) − r(rejected) − γ, in reward units: comparable within a
          run, not between different α or β. NaN for an objective that needs more than summed log-probs;
        * ``logp_margin``: mean over pairs of chosen minus rejected log-prob per token (nats per token), the
          same quantity for every objective, so runs can be set side by side on it;
        * ``accuracy``: share of pairs whose chosen response scores higher than the rejected one;
        * ``at_target``: share of pairs whose reward margin has reached the target, z ≥ 0: a logistic loss has let go
          of at least half of its pull on them. NaN where the margin is.

        Each with ``…_low`` and ``…_high``; and ``diverged``, as in `displacement_curve`.
    """
    tables = []
    for chosen, rejected in chosen_and_rejected(trace):
        goal = run_objective(chosen.run)
        higher = in_order(chosen, rejected)
        margins = reward_margins(goal, chosen, rejected)
        curve = {
            **run_label(chosen.run),
            "step": chosen.steps,
            "num_pairs": len(chosen.pair_ids),
            **_change("margin", margins, chosen.prompt_codes, seed),
            **_change("logp_margin", logp_margins(chosen, rejected), chosen.prompt_codes, seed),
            **with_interval("accuracy", higher.mean(axis=1), *share_interval(higher, chosen.prompt_codes)),
            **_at_target(margins, chosen.prompt_codes),
        }
        tables.append(pd.DataFrame(curve).assign(diverged=chosen.run.diverged))
    return pd.concat(tables, ignore_index=True)


def _at_target(margins: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """Share of pairs with z ≥ 0 at every step, with its Wilson interval; NaN where margins are."""
    reached = where_known(margins >= 0, margins)
    return with_interval("at_target", reached.mean(axis=1), *share_interval(reached, prompts))


def displacement_phases(trace: Trace, *, seed: int = 0) -> pd.DataFrame:
    """When a response began to move for good, how deep it fell, and how much of it came back.

    Returns
    -------
    DataFrame
        One row per run and response: ``run``, ``setting``, ``alpha``, ``seed``, ``response``, ``num_pairs``, ``steps``
        (the last one), in nats per token:

        * ``onset``: first step from which the interval of the mean change stays on one side of zero until the
          end; <NA> if there is none;
        * ``change``: the change at the last step;
        * ``depth``: the lowest mean change of the run, at most 0, and ``depth_step``, where it was reached;
        * ``recovery``: change minus depth: what came back after the lowest point, and ``recovered_share``
          of it;
        * ``peak``: the highest mean change, at least 0, its ``peak_step``, and ``fall_from_peak``: change minus
          peak, at most 0.

        ``depth`` and ``peak`` are of the steps whose mean change is a number; at the end of a run that broke, which has
        none, ``change`` and what is told from it are NaN.

        ``change``, ``depth``, ``recovery``, ``peak`` and ``fall_from_peak`` with ``…_low`` and ``…_high``, taken at the
        steps that the mean over all pairs points to.
    """
    rows = []
    for panel in probe_panels(trace):
        change = panel.change()
        mean = change.mean(axis=1)
        unknown = np.isnan(mean)
        lowest = int(np.where(unknown, np.inf, mean).argmin())
        highest = int(np.where(unknown, -np.inf, mean).argmax())
        moments = {
            "change": change[-1],
            "depth": change[lowest],
            "recovery": change[-1] - change[lowest],
            "peak": change[highest],
            "fall_from_peak": change[-1] - change[highest],
        }
        row = {
            **run_label(panel.run),
            "response": panel.response,
            "num_pairs": len(panel.pair_ids),
            "steps": int(panel.steps[-1]),
            "onset": _onset(panel.steps, *mean_interval(change, panel.prompt_codes, seed=seed)),
            "depth_step": int(panel.steps[lowest]),
            "peak_step": int(panel.steps[highest]),
            "recovered_share": (mean[-1] - mean[lowest]) / -mean[lowest] if mean[lowest] < 0 else np.nan,
        }
        low, high = mean_interval(np.stack(list(moments.values())), panel.prompt_codes, seed=seed)
        for i, name in enumerate(moments):
            row |= {name: moments[name].mean(), f"{name}_low": low[i], f"{name}_high": high[i]}
        rows.append(row)
    return pd.DataFrame(rows).astype({"onset": "Int64"})


def _onset(steps: np.ndarray, low: np.ndarray, high: np.ndarray) -> int | None:
    side = np.where(low > 0, 1, np.where(high < 0, -1, 0))
    elsewhere = np.flatnonzero(side != side[-1])
    if side[-1] == 0:
        return None
    return int(steps[elsewhere[-1] + 1])  # step 0 has no change, so it is always elsewhere


def displacement_summary(trace: Trace, *, seed: int = 0) -> pd.DataFrame:
    """The end of every run in one row: the table that a probe prints.

    Returns
    -------
    DataFrame
        One row per run, ordered by α and seed: ``run``, ``setting``, ``alpha``, ``seed``, ``step`` (the last),
        ``num_pairs``; ``chosen_change`` and ``rejected_change`` (nats per token since step 0),
        ``share_fallen`` (pairs whose chosen response is below its step-0 log-prob), ``margin`` (reward
        units, γ included), ``logp_margin`` (nats per token), ``accuracy`` and ``at_target`` (pairs whose margin
        reached its target), each with ``…_low`` and ``…_high``; of the chosen response ``onset``, ``depth``,
        ``depth_step``, ``recovery`` as in `displacement_phases`; where measured ``greedy_change`` and
        ``entropy_change`` at the positions of the chosen response (nats per token); ``diverged``.
    """
    return summarise(
        displacement_curve(trace, seed=seed),
        margin_curve(trace, seed=seed),
        displacement_phases(trace, seed=seed),
    )


def summarise(curve: pd.DataFrame, margins: pd.DataFrame, phases: pd.DataFrame) -> pd.DataFrame:
    """`displacement_summary` from the tables it is made of."""
    last = curve.groupby(["run", "response"], sort=False).tail(1).set_index("run")
    chosen, rejected = last[last["response"] == "chosen"], last[last["response"] == "rejected"]
    phases = phases[phases["response"] == "chosen"].set_index("run")
    margins = margins.groupby("run", sort=False).tail(1).set_index("run")

    parts = [chosen[["setting", "alpha", "seed", "step", "num_pairs"]]]
    parts += [
        _renamed(chosen, "logp_mean_change", "chosen_change"),
        _renamed(rejected, "logp_mean_change", "rejected_change"),
        _renamed(chosen, "share_fallen", "share_fallen"),
        *(_renamed(margins, name, name) for name in ("margin", "logp_margin", "accuracy", "at_target")),
        phases[["onset", "depth", "depth_step", "recovery"]],
        *(
            _renamed(chosen, f"{k}_mean_change", f"{k}_change")
            for k in ("greedy", "entropy")
            if f"{k}_mean" in chosen
        ),
        chosen[["diverged"]],
    ]
    summary = pd.concat(parts, axis=1)
    return summary.rename_axis("run").reset_index().sort_values(BY_SETTING, ignore_index=True)


def _renamed(table: pd.DataFrame, old: str, new: str) -> pd.DataFrame:
    return table.rename(columns={old + end: new + end for end in ENDS})[[new + end for end in ENDS]]

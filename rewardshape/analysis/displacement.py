"""Likelihood displacement: how the log-probs of a fixed probe set move, when, and for which pairs.

Everything here reads the ``probe`` rows of a trace. A *change* is always "since step 0, the untouched
checkpoint". Per-token values are the mean over pairs of each pair's own log-prob per token, so long
responses count no more than short ones. Intervals are 95 % and resample pairs (seeded; the same resamples
at every step and in every run of one probe set). They say how far the probe set stands for other pairs, not
how far the seed of a run does: for that see `rewardshape.analysis.comparison`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.resampling import draw_pairs, mean_interval, percentile_interval, share_interval
from rewardshape.errors import InputError
from rewardshape.theory import Objective, Responses, objective
from rewardshape.trace import Trace
from rewardshape.trace.read import read_probe_set


class Panel(NamedTuple):
    """One response of one run's probe set as arrays: rows are steps, columns pairs."""

    run: str
    response: str
    steps: np.ndarray
    pair_ids: list[str]
    num_tokens: np.ndarray
    ref_logp_sum: np.ndarray | None
    sums: dict[str, np.ndarray]
    """``logp_sum`` and, where measured, ``greedy_logp_sum`` and ``entropy_sum``: (steps, pairs), nats."""

    def change(self, name: str = "logp_sum", *, per_token: bool = True) -> np.ndarray:
        """Change since step 0 of every pair: (steps, pairs), nats per token or nats."""
        change = self.sums[name] - self.sums[name][0]
        return change / self.num_tokens if per_token else change


def run_settings(trace: Trace, run: str) -> dict[str, Any]:
    """The manifest of one run, whether the trace holds one run or several."""
    inner = trace.settings.get(run)
    return inner if isinstance(inner, dict) and isinstance(inner.get("objective"), dict) else trace.settings


def run_objective(trace: Trace, run: str) -> Objective:
    """The objective a run optimised, rebuilt from its manifest."""
    try:
        stated = run_settings(trace, run)["objective"]
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # what there is to warn of was said when the run began
            return objective(stated["name"], **stated["parameters"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{trace.folder}: the manifest of run {run!r} states no objective") from error


def run_label(trace: Trace, run: str) -> dict[str, Any]:
    """Name, α and seed of a run: the columns that open every table (NaN where the objective has no α)."""
    settings = run_settings(trace, run)
    alpha = settings.get("objective", {}).get("parameters", {}).get("alpha")
    return {
        "run": run,
        "alpha": float(alpha) if isinstance(alpha, int | float) else np.nan,
        "seed": settings.get("run", {}).get("seed"),
    }


def probe_panels(trace: Trace, run: str | None = None) -> Iterator[Panel]:
    """Every response of the probe set as arrays, of every run or of the one named.

    Raises
    ------
    InputError
        If a run has no probe rows at step 0, so that no change can be told.
    """
    probe = trace.responses[trace.responses["split"] == "probe"]
    probe = probe if run is None else probe[probe["run"] == run]
    if not (probe["step"] == 0).any():
        raise InputError(f"{trace.folder}: the trace holds no probe set at step 0, so no change can be told")
    measured = [c for c in ("logp_sum", "greedy_logp_sum", "entropy_sum") if c in probe]
    for (name, response), rows in probe.groupby(["run", "response"], sort=False):
        wide = rows.pivot(index="step", columns="pair_id", values=[*measured, "num_tokens", "ref_logp_sum"])
        pair_ids = rows["pair_id"].unique().tolist()
        sums = {c: wide[c][pair_ids].to_numpy(float) for c in measured if wide[c].notna().to_numpy().any()}
        reference = wide["ref_logp_sum"][pair_ids].to_numpy(float)[0]
        yield Panel(
            run=str(name),
            response=str(response),
            steps=wide.index.to_numpy(),
            pair_ids=pair_ids,
            num_tokens=wide["num_tokens"][pair_ids].to_numpy(float)[0],
            ref_logp_sum=None if np.isnan(reference).any() else reference,
            sums=sums,
        )


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

        * ``run``, ``alpha``, ``seed``, ``step``, ``response``, ``num_pairs``;
        * ``logp_sum`` (nats), ``logp_mean`` (nats per token): means over pairs;
        * ``logp_sum_change``, ``logp_mean_change``: change since step 0, each with ``…_low`` and ``…_high``;
        * ``share_fallen``: share of pairs below their step-0 log-prob, with ``…_low`` and ``…_high``;
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
    return pd.concat([_panel_curve(trace, panel, seed) for panel in probe_panels(trace)], ignore_index=True)


def _panel_curve(trace: Trace, panel: Panel, seed: int) -> pd.DataFrame:
    num_pairs = len(panel.pair_ids)
    curve: dict[str, Any] = {
        **run_label(trace, panel.run),
        "step": panel.steps,
        "response": panel.response,
        "num_pairs": num_pairs,
        "logp_sum": panel.sums["logp_sum"].mean(axis=1),
        **_with_interval("logp_sum_change", panel.change(per_token=False), seed),
    }
    for name in panel.sums:
        kind = name.removesuffix("_sum").removesuffix("_logp")
        curve[f"{kind}_mean"] = (panel.sums[name] / panel.num_tokens).mean(axis=1)
        curve |= _with_interval(f"{kind}_mean_change", panel.change(name), seed)
    fallen = (panel.change() < 0).sum(axis=1)
    low, high = share_interval(fallen, num_pairs)
    curve |= {"share_fallen": fallen / num_pairs, "share_fallen_low": low, "share_fallen_high": high}
    return pd.DataFrame(curve)


def _with_interval(name: str, values: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    low, high = mean_interval(values, seed=seed)
    return {name: values.mean(axis=1), f"{name}_low": low, f"{name}_high": high}


def margin_curve(trace: Trace, *, seed: int = 0) -> pd.DataFrame:
    """How far chosen and rejected stand apart on the probe set, over the steps.

    Returns
    -------
    DataFrame
        One row per run and step: ``run``, ``alpha``, ``seed``, ``step``, ``num_pairs``;

        * ``margin``: mean reward margin, r(chosen) − r(rejected) − γ, in reward units: comparable within a
          run, not between different α or β. NaN for an objective that needs more than summed log-probs;
        * ``logp_margin``: mean over pairs of chosen minus rejected log-prob per token (nats per token), the
          same quantity for every objective, so runs can be set side by side on it;
        * ``accuracy``: share of pairs whose chosen response scores higher than the rejected one.

        Each with ``…_low`` and ``…_high``.
    """
    tables = []
    panels = {(panel.run, panel.response): panel for panel in probe_panels(trace)}
    for run in dict.fromkeys(run for run, _ in panels):
        chosen, rejected = panels[run, "chosen"], panels[run, "rejected"]
        goal = run_objective(trace, run)
        higher = (_score(goal, chosen) > _score(goal, rejected)).sum(axis=1)
        low, high = share_interval(higher, len(chosen.pair_ids))
        curve = {
            **run_label(trace, run),
            "step": chosen.steps,
            "num_pairs": len(chosen.pair_ids),
            **_with_interval("margin", _margins(goal, chosen, rejected), seed),
            **_with_interval("logp_margin", _logp_margins(chosen, rejected), seed),
            "accuracy": higher / len(chosen.pair_ids),
            "accuracy_low": low,
            "accuracy_high": high,
        }
        tables.append(pd.DataFrame(curve))
    return pd.concat(tables, ignore_index=True)


def _logp_margins(chosen: Panel, rejected: Panel) -> np.ndarray:
    return chosen.sums["logp_sum"] / chosen.num_tokens - rejected.sums["logp_sum"] / rejected.num_tokens


def _margins(goal: Objective, chosen: Panel, rejected: Panel) -> np.ndarray:
    if not _sums_suffice(goal):
        return np.full_like(chosen.sums["logp_sum"], np.nan)
    return _step_by_step(goal.pair_margin, chosen, rejected)


def pair_weights(trace: Trace, run: str) -> tuple[np.ndarray, np.ndarray]:
    """The gradient weights (−∂L/∂s_w, ∂L/∂s_l) of every probe pair of one run: two arrays, (steps, pairs).

    NaN for an objective that needs more than summed log-probs, which the trace does not hold at every step.
    """
    panels = {panel.response: panel for panel in probe_panels(trace, run)}
    goal = run_objective(trace, run)
    if not _sums_suffice(goal):
        unknown = np.full_like(panels["chosen"].sums["logp_sum"], np.nan)
        return unknown, unknown
    weights = _step_by_step(goal.pair_weights, panels["chosen"], panels["rejected"])
    return weights[:, 0], weights[:, 1]


def _sums_suffice(goal: Objective) -> bool:
    return set(goal.needs) <= {"logp_sum", "num_tokens", "ref_logp_sum"}


def _step_by_step(function: Callable[..., Any], chosen: Panel, rejected: Panel) -> np.ndarray:
    """`function` of the pairs of each step: some objectives look at the whole batch, here the probe set."""
    return np.stack(
        [
            function(
                *(Responses(p.sums["logp_sum"][i], p.num_tokens, p.ref_logp_sum) for p in (chosen, rejected))
            )
            for i in range(len(chosen.steps))
        ]
    )


def _score(goal: Objective, panel: Panel) -> np.ndarray:
    return np.asarray(goal.score(panel.sums["logp_sum"], panel.num_tokens, panel.ref_logp_sum))


def displacement_phases(trace: Trace, *, seed: int = 0) -> pd.DataFrame:
    """When a response began to move for good, how deep it fell, and how much of it came back.

    Returns
    -------
    DataFrame
        One row per run and response: ``run``, ``alpha``, ``seed``, ``response``, ``num_pairs``, ``steps``
        (the last one), in nats per token:

        * ``onset``: first step from which the interval of the mean change stays on one side of zero until the
          end; <NA> if there is none;
        * ``change``: the change at the last step;
        * ``depth``: the lowest mean change of the run, at most 0, and ``depth_step``, where it was reached;
        * ``recovery``: change minus depth: what came back after the lowest point, and ``recovered_share``
          of it;
        * ``peak``: the highest mean change, at least 0, its ``peak_step``, and ``fall_from_peak``: change minus
          peak, at most 0.

        ``change``, ``depth``, ``recovery``, ``peak`` and ``fall_from_peak`` with ``…_low`` and ``…_high``, taken at the
        steps that the mean over all pairs points to.
    """
    rows = []
    for panel in probe_panels(trace):
        change = panel.change()
        mean = change.mean(axis=1)
        lowest, highest = int(mean.argmin()), int(mean.argmax())
        moments = {
            "change": change[-1],
            "depth": change[lowest],
            "recovery": change[-1] - change[lowest],
            "peak": change[highest],
            "fall_from_peak": change[-1] - change[highest],
        }
        row = {
            **run_label(trace, panel.run),
            "response": panel.response,
            "num_pairs": len(panel.pair_ids),
            "steps": int(panel.steps[-1]),
            "onset": _onset(panel.steps, *mean_interval(change, seed=seed)),
            "depth_step": int(panel.steps[lowest]),
            "peak_step": int(panel.steps[highest]),
            "recovered_share": (mean[-1] - mean[lowest]) / -mean[lowest] if mean[lowest] < 0 else np.nan,
        }
        low, high = mean_interval(np.stack(list(moments.values())), seed=seed)
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
        One row per run, ordered by α and seed: ``run``, ``alpha``, ``seed``, ``step`` (the last),
        ``num_pairs``; ``chosen_change`` and ``rejected_change`` (nats per token since step 0),
        ``share_fallen`` (pairs whose chosen response is below its step-0 log-prob), ``margin`` (reward
        units, γ included), ``logp_margin`` (nats per token) and ``accuracy``, each with ``…_low`` and
        ``…_high``; of the chosen response ``onset``, ``depth``, ``depth_step``, ``recovery`` as in
        `displacement_phases`; where measured ``greedy_change`` and ``entropy_change`` at the positions of
        the chosen response (nats per token).
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

    parts = [chosen[["alpha", "seed", "step", "num_pairs"]]]
    parts += [
        _renamed(chosen, "logp_mean_change", "chosen_change"),
        _renamed(rejected, "logp_mean_change", "rejected_change"),
        _renamed(chosen, "share_fallen", "share_fallen"),
        *(_renamed(margins, name, name) for name in ("margin", "logp_margin", "accuracy")),
        phases[["onset", "depth", "depth_step", "recovery"]],
        *(
            _renamed(chosen, f"{k}_mean_change", f"{k}_change")
            for k in ("greedy", "entropy")
            if f"{k}_mean" in chosen
        ),
    ]
    summary = pd.concat(parts, axis=1)
    return summary.rename_axis("run").reset_index().sort_values(["alpha", "seed", "run"], ignore_index=True)


def _renamed(table: pd.DataFrame, old: str, new: str) -> pd.DataFrame:
    return table[[old, f"{old}_low", f"{old}_high"]].rename(columns=lambda name: new + name.removeprefix(old))


def pairs_table(trace: Trace) -> pd.DataFrame:
    """Every probe pair with what happened to it and what it is like, most fallen first.

    Returns
    -------
    DataFrame
        One row per run and pair: ``run``, ``alpha``, ``seed``, ``rank`` (1 fell most per token),
        ``pair_id``; what happened between step 0 and the last step: ``chosen_change``, ``rejected_change``
        (nats per token), ``chosen_sum_change``, ``rejected_sum_change`` (nats), ``fallen``; what the pair
        was at step 0: ``chosen_tokens``, ``rejected_tokens``, ``length_difference`` (chosen minus
        rejected), ``initial_logp_mean`` (chosen, nats per token), ``initial_logp_margin``; where the texts
        were kept ``edit_distance`` (token Levenshtein between the two responses) and ``similarity`` (1
        minus the distance over the longer length); where geometry was measured its columns (``gram_ww``, …,
        ``ches``) at the first step that has them.
    """
    panels = {(panel.run, panel.response): panel for panel in probe_panels(trace)}
    tables = []
    for run in dict.fromkeys(run for run, _ in panels):
        chosen, rejected = panels[run, "chosen"], panels[run, "rejected"]
        table = pd.DataFrame(
            {
                **run_label(trace, run),
                "pair_id": chosen.pair_ids,
                "chosen_change": chosen.change()[-1],
                "rejected_change": rejected.change()[-1],
                "chosen_sum_change": chosen.change(per_token=False)[-1],
                "rejected_sum_change": rejected.change(per_token=False)[-1],
                "fallen": chosen.change()[-1] < 0,
                "chosen_tokens": chosen.num_tokens.astype(int),
                "rejected_tokens": rejected.num_tokens.astype(int),
                "length_difference": (chosen.num_tokens - rejected.num_tokens).astype(int),
                "initial_logp_mean": (chosen.sums["logp_sum"] / chosen.num_tokens)[0],
                "initial_logp_margin": _logp_margins(chosen, rejected)[0],
            }
        )
        table = table.merge(_distances(trace, run), on="pair_id", how="left")
        table = table.merge(_first_geometry(trace, run), on="pair_id", how="left")
        table = table.sort_values("chosen_change", ignore_index=True)
        table.insert(3, "rank", np.arange(1, len(table) + 1))
        tables.append(table.dropna(axis=1, how="all"))
    return pd.concat(tables, ignore_index=True)


def run_folder(trace: Trace, run: str) -> Path:
    """The folder of one run, whether the trace is of that run or of the sweep around it."""
    inner = trace.folder / run
    return inner if inner.is_dir() else trace.folder


def _distances(trace: Trace, run: str) -> pd.DataFrame:
    rows = []
    for pair in read_probe_set(run_folder(trace, run)):
        chosen, rejected = pair["tokens"]["chosen"], pair["tokens"]["rejected"]
        distance = edit_distance(chosen, rejected)
        rows.append((pair["pair_id"], distance, 1 - distance / max(len(chosen), len(rejected))))
    return pd.DataFrame(rows, columns=["pair_id", "edit_distance", "similarity"])


def _first_geometry(trace: Trace, run: str) -> pd.DataFrame:
    if trace.geometry.empty or "pair_id" not in trace.geometry:
        return pd.DataFrame({"pair_id": []}, dtype=object)
    rows = trace.geometry[trace.geometry["run"] == run]
    return rows[rows["step"] == rows["step"].min()].drop(columns=["run", "step"])


def edit_distance(first: list[Any], second: list[Any]) -> int:
    """Levenshtein distance between two token sequences: insertions, deletions and substitutions cost 1.

    Examples
    --------
    >>> edit_distance(["I", "am", "glad"], ["I", "was", "very", "glad"])
    2
    """
    codes = {token: code for code, token in enumerate(dict.fromkeys([*first, *second]))}
    columns = np.array([codes[token] for token in second], dtype=int)
    along = np.arange(len(second) + 1)
    row = along
    for count, token in enumerate(first, start=1):
        kept = np.minimum(row[1:] + 1, row[:-1] + (columns != codes[token]))
        # Insertions cost one each: the running minimum of (cost − position), with the position put back.
        row = np.minimum.accumulate(np.concatenate([[count], kept]) - along) + along
    return int(row[-1])


DESCRIPTORS = [
    "chosen_tokens",
    "rejected_tokens",
    "length_difference",
    "edit_distance",
    "similarity",
    "ches",
    "ches_normalised",
    "initial_logp_mean",
    "initial_logp_margin",
]


def pair_correlations(pairs: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """What falling pairs have in common: rank correlations with the change of the chosen response.

    Parameters
    ----------
    pairs : DataFrame
        As `pairs_table` returns it, of one run or several.

    Returns
    -------
    DataFrame
        One row per run, descriptor and measure of change (``chosen_change`` in nats per token,
        ``chosen_sum_change`` in nats): ``rho`` (Spearman; negative: the larger the descriptor, the deeper
        the fall), its bootstrap interval over pairs ``rho_low``, ``rho_high``, ``p_value`` (two-sided, not
        corrected for the number of descriptors) and ``num_pairs``. A descriptor that is the same for every
        pair is left out. Strongest first.
    """
    rows = []
    for run, table in pairs.groupby("run", sort=False):
        for descriptor in (name for name in DESCRIPTORS if name in table):
            for change in ("chosen_change", "chosen_sum_change"):
                both = table[[descriptor, change]].dropna().to_numpy(float)
                if len(both) < 3 or (both == both[0]).all(axis=0).any():
                    continue
                rho, p_value = stats.spearmanr(both)
                low, high = _spearman_interval(both, seed)
                rows.append((run, descriptor, change, rho, low, high, p_value, len(both)))
    columns = ["run", "descriptor", "change", "rho", "rho_low", "rho_high", "p_value", "num_pairs"]
    found = pd.DataFrame(rows, columns=columns)
    found["strength"] = found["rho"].abs()
    return found.sort_values(["run", "strength"], ascending=[True, False], ignore_index=True).drop(
        columns="strength"
    )


def _spearman_interval(both: np.ndarray, seed: int) -> tuple[float, float]:
    ranks = stats.rankdata(both[draw_pairs(len(both), seed=seed)], axis=1)
    x, y = np.moveaxis(ranks - ranks.mean(axis=1, keepdims=True), -1, 0)
    spread = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    varied = spread > 0  # a resample of one pair only has no order
    low, high = percentile_interval((x * y).sum(axis=1)[varied] / spread[varied])
    return float(low), float(high)

r"""By how much would it help? Interventions of a what-if, each against what it is set against, with paired intervals.

A run of intervention k with seed s ends with a value of every probe pair (or sampled prompt). An effect is the mean
difference of two interventions over seeds and pairs. Its variance has two parts, which are added:

* over prompts: that of the differences of their pairs, in all seeds, which may have probe sets of their own;
* over seeds: 2σ²/S for S seeds, with σ² the residual variance of the runs' means y_{ks} after the effects of
  intervention and seed, (K − 1)(S − 1) degrees of freedom (two-way analysis of variance without interaction).

Intervals are simultaneous over the effects of a table: at 1 − 0.05/m for m effects (Bonferroni), by Student's t.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.equal import WITHIN_REACH, at_place, first_place
from rewardshape.analysis.panels import Panel, chosen_and_rejected, in_order, logp_margins
from rewardshape.analysis.resampling import CONFIDENCE, MIN_TESTED, mean_error
from rewardshape.analysis.samples import has_gold, samples_of
from rewardshape.errors import InputError
from rewardshape.trace import Run, Trace
from rewardshape.trace.folder import RunFolder

MEASURES = ("chosen", "gold", "accuracy")
LEAST_GAIN = (
    0.5  # of the margin that the run as it is gains: a run that gains less is not set equal with the others
)


class Outcome(NamedTuple):
    """What a run came to, one value per probe pair or prompt."""

    values: pd.Series
    """By the unit's id."""
    prompts: pd.Series
    """The prompt of each unit, by the unit's id; of prompts themselves, they."""


def what_if_table(trace: Trace) -> pd.DataFrame:
    """The effect of every intervention of a what-if.

    Parameters
    ----------
    trace : Trace
        Of a command with ``--what-if``.

    Returns
    -------
    DataFrame
        One row per intervention: ``intervention``, ``against``, ``flags`` (how to ask for it), ``matched`` (whether it
        is set against as many pairs dropped at random), ``steps``, ``num_seeds`` (in both), ``margin_gain`` (at which
        chosen is compared: nats per token, one a seed, here their mean); ``chosen`` (nats per token: how much higher
        the probe set's chosen responses stand at equal margin), ``gold`` (reward at the last step) and ``accuracy``
        (share of probe pairs in
        order at the last step), differences to the intervention it is set against, each with ``…_low`` and ``…_high``
        (module docstring; with one seed over pairs alone). NaN where not measured, or where a run gained less than half
        the margin of the run as it is.

    Raises
    ------
    InputError
        If the trace is of no what-if, or if none of its comparisons is complete.
    """
    runs = _by_intervention(trace)
    against = {name: next(iter(of.values())).manifest["what_if"]["against"] for name, of in runs.items()}
    pairs = [(name, other) for name, other in against.items() if set(runs[name]) & set(runs.get(other, {}))]
    if not pairs:
        raise InputError(
            f"{trace.folder}: no intervention and what it is set against have a run of one seed yet"
        )
    outcomes, value = _outcomes(trace, runs)
    steps = trace.steps.groupby("run")["step"].max()
    rows = []
    for name, other in pairs:
        seeds = sorted(set(runs[name]) & set(runs[other]))
        row: dict[str, Any] = {
            "intervention": name,
            "against": other,
            "flags": runs[name][seeds[0]].manifest["what_if"]["flags"],
            "matched": runs[name][seeds[0]].manifest["what_if"]["matched"],
            "steps": int(steps[[runs[name][seed].name for seed in seeds]].min()),
            "num_seeds": len(seeds),
            "margin_gain": value,
        }
        for measure in MEASURES:
            mean, low, high = _effect(outcomes[measure], name, other, seeds, len(pairs))
            row |= {measure: mean, f"{measure}_low": low, f"{measure}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def read_what_if(folder: Path) -> pd.DataFrame | None:
    """The table that a what-if left in a folder; None where there is none."""
    file = RunFolder(folder).what_if
    return pd.read_csv(file) if file.is_file() else None


WHAT_IF = "what-if"  # the folder of a what-if beside the run that it asks about


def what_if_beside(folder: Path) -> pd.DataFrame | None:
    """The table of a what-if in or beside a run's folder; None where there is none."""
    places = (folder, folder / WHAT_IF, folder.parent / WHAT_IF, folder.parent)
    return next((found for place in places if (found := read_what_if(place)) is not None), None)


def _by_intervention(trace: Trace) -> dict[str, dict[Any, Run]]:
    found: dict[str, dict[Any, Run]] = {}
    for run in trace.runs:
        stated = run.manifest.get("what_if")
        if stated is not None:
            found.setdefault(stated["name"], {})[run.seed] = run
    if not found:
        raise InputError(f"{trace.folder}: no what-if; run the probe with --what-if")
    base = [name for name, of in found.items() if not next(iter(of.values())).manifest["what_if"]["against"]]
    return {name: found[name] for name in [*base, *(name for name in found if name not in base)]}


def _outcomes(
    trace: Trace, runs: dict[str, dict[Any, Run]]
) -> tuple[dict[str, dict[tuple[str, Any], Outcome]], float]:
    """Of each measure what every (intervention, seed) came to; and the margin gain at which chosen is compared."""
    place = {run.name: (name, seed) for name, of in runs.items() for seed, run in of.items()}
    panels = {place[c.run.name]: (c, r) for c, r in chosen_and_rejected(trace) if c.run.name in place}
    gains = {key: _gain(chosen, rejected) for key, (chosen, rejected) in panels.items()}
    base = next(iter(runs))
    most = {key: float(gain.max()) for key, gain in gains.items()}
    far = {
        key for key in gains if most[key] > 0 and most[key] >= LEAST_GAIN * most.get((base, key[1]), np.inf)
    }
    seeds = {seed for _, seed in far}
    value = {seed: WITHIN_REACH * min(most[key] for key in far if key[1] == seed) for seed in seeds}
    found: dict[str, dict[tuple[str, Any], Outcome]] = {measure: {} for measure in MEASURES}
    for key, (chosen, rejected) in panels.items():
        prompts = pd.Series(chosen.prompt_ids, index=chosen.pair_ids)
        ordered = in_order(chosen, rejected)[-1].astype(float)
        found["accuracy"][key] = Outcome(pd.Series(ordered, index=chosen.pair_ids), prompts)
        if key in far:
            there = at_place(
                chosen.change().T,
                np.repeat(first_place(gains[key][None], value[key[1]]), len(chosen.pair_ids)),
            )
            found["chosen"][key] = Outcome(pd.Series(there, index=chosen.pair_ids), prompts)
        gold = _gold(trace, chosen.run)
        if gold is not None:
            found["gold"][key] = Outcome(gold, pd.Series(gold.index, index=gold.index))
    return found, float(np.mean(list(value.values()))) if value else np.nan


def _gain(chosen: Panel, rejected: Panel) -> np.ndarray:
    margin = logp_margins(chosen, rejected).mean(axis=1)
    return np.asarray(margin - margin[0])


def _gold(trace: Trace, run: Run) -> pd.Series | None:
    samples = samples_of(trace, run)
    if not has_gold(samples):
        return None
    last = samples[samples["step"] == samples["step"].max()]
    return pd.Series(last.groupby("prompt_id")["gold"].mean())


def _effect(
    outcomes: dict[tuple[str, Any], Outcome], name: str, other: str, seeds: list[Any], effects: int
) -> tuple[float, float, float]:
    """Mean difference, and its interval at a level that holds for all `effects` together."""
    if not all((one, seed) in outcomes for one in (name, other) for seed in seeds):
        return np.nan, np.nan, np.nan
    by_seed = [(outcomes[name, seed].values - outcomes[other, seed].values).dropna() for seed in seeds]
    each = pd.concat(by_seed)
    prompts = pd.concat(
        [outcomes[name, seed].prompts[one.index] for seed, one in zip(seeds, by_seed, strict=True)]
    )
    mean, count = float(each.mean()), prompts.nunique()
    if count < MIN_TESTED:
        return mean, np.nan, np.nan
    error = mean_error(each.to_numpy(float)[None], pd.factorize(prompts)[0])[0]
    variance, freedom = float(error**2), float(count - 1)
    if len(seeds) > 1:
        residual, left = residual_variance(outcomes, seeds)
        variance += 2 * residual / len(seeds)
        freedom = min(freedom, left)
    half = stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * effects), freedom) * np.sqrt(variance)
    return mean, mean - half, mean + half


def residual_variance(outcomes: dict[tuple[str, Any], Outcome], seeds: list[Any]) -> tuple[float, float]:
    """Variance of the runs' means that neither intervention nor seed explains, and its degrees of freedom."""
    names = [
        name
        for name in dict.fromkeys(name for name, _ in outcomes)
        if all((name, seed) in outcomes for seed in seeds)
    ]
    table = np.array([[outcomes[name, seed].values.mean() for seed in seeds] for name in names])
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    freedom = (len(names) - 1) * (len(seeds) - 1)
    return float((left**2).sum() / freedom), float(freedom)

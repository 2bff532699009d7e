r"""By how much would it help? Interventions of a what-if, each against what it is set against, with paired intervals.

Chosen is compared along equal margin, each comparison to where the runs of its two interventions got; gold and accuracy
at the last step. An effect is the mean difference of two interventions over seeds and pairs (or prompts that were
sampled). Its variance has two parts, which are added:

* over prompts: that of the difference in resamples which hold the same prompts in every run, each of which finds its
  own place of equal margin;
  Of accuracy, a share, half a pair is added to each of the four ways in which two runs may have a pair in order or not
  (Agresti and Min 2005, doi:10.1002/sim.1781): two runs that order every pair alike are not known to be alike;
* over seeds: 2σ²/S for S seeds, with σ² the residual variance of the runs' means y_{ks} after the effects of
  intervention and seed, (K − 1)(S − 1) degrees of freedom (two-way analysis of variance without interaction).

Intervals are simultaneous over the comparisons, and for chosen over the margins as well: at 1 − 0.05/m for m effects of
a measure (Bonferroni). The quantile is the mean of Student's t of the two parts, weighted by their variances (Cochran
1964, "Approximate significance levels of the Behrens-Fisher test"), which Satterthwaite's degrees of freedom make far
too small where few runs estimate σ².
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.equal import MARGINS, WITHIN_REACH, resampled_along
from rewardshape.analysis.panels import chosen_and_rejected, in_order, logp_margins
from rewardshape.analysis.resampling import CONFIDENCE, MIN_TESTED, resampled_means, with_interval
from rewardshape.analysis.samples import judged, samples_of
from rewardshape.errors import InputError, printable
from rewardshape.trace import Run, Trace
from rewardshape.trace.folder import RunFolder

MEASURES = ("chosen", "gold", "accuracy")
Runs = dict[str, dict[Any, Run]]  # by intervention and seed
TOO_LITTLE = "its margin gained too little"


class Outcome(NamedTuple):
    """What the runs of a what-if came to, in one measure."""

    drawn: np.ndarray
    """(1 + resamples, values, interventions, seeds): as measured, then in every resample of the prompts; NaN where
    there is no run, or where an intervention did not get to the value with every seed."""
    num_prompts: int
    margins: np.ndarray
    """Where it was measured, (values,): gains of the margin in nats per token; NaN is the last step."""
    share: bool = False
    """Whether it is the share of pairs for which something holds."""


def what_if_table(trace: Trace, excluded: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The effects of every intervention of a what-if.

    Parameters
    ----------
    trace : Trace
        Of a command with ``--what-if``.
    excluded : mapping, optional
        Runs whose means say nothing, and why: an intervention that has one is not compared.

    Returns
    -------
    DataFrame
        One row per intervention, ``measure`` and margin: ``intervention``, ``against``, ``flags`` (how to ask for it),
        ``matched`` (whether it is set against as many pairs dropped at random), ``steps``, ``num_seeds`` (in both);
        ``measure``: ``chosen`` (how much higher the probe set's chosen responses stand, nats per token), ``gold``
        (reward) or ``accuracy`` (share of probe pairs in order); ``margin_gain``: where that is, nats per token, NaN at
        the last step; ``difference`` to the intervention it is set against, with ``…_low`` and ``…_high`` (module
        docstring; with one seed over prompts alone). What is not compared has one row without a number, and
        ``left_out`` says why.

    Raises
    ------
    InputError
        If the trace is of no what-if, or if none of its comparisons is complete.
    """
    runs = _by_intervention(trace)
    stated = {name: next(iter(of.values())).manifest["what_if"] for name, of in runs.items()}
    against = {name: what["against"] for name, what in stated.items()}
    pairs = [(name, other) for name, other in against.items() if set(runs[name]) & set(runs.get(other, {}))]
    if not pairs:
        raise InputError(
            f"{trace.folder}: no intervention and what it is set against have a run of one seed yet"
        )
    why = excluded or {}
    lost = {name: why[run.name] for name, of in runs.items() for run in of.values() if run.name in why}
    kept = {name: of for name, of in runs.items() if name not in lost}
    compared = [pair for pair in pairs if not lost.keys() & set(pair)]
    found = {
        measure: effects(of, list(kept), compared) for measure, of in _outcomes(trace, kept, compared).items()
    }
    steps = trace.steps.groupby("run")["step"].max()
    rows = []
    for name, other in pairs:
        seeds = set(runs[name]) & set(runs[other])
        what = {key: stated[name][key] for key in ("flags", "matched")}
        many = {"steps": int(steps[[runs[name][seed].name for seed in seeds]].min()), "num_seeds": len(seeds)}
        label = {"intervention": name, "against": other, **what, **many}
        mine = [
            {"measure": measure, **row} for measure, of in found.items() for row in of.get((name, other), [])
        ]
        if not any(row["measure"] == "chosen" for row in mine):
            apart = "; ".join(f"{one}: {lost[one]}" for one in (name, other) if one in lost)
            mine = [{"measure": "chosen", "left_out": apart or TOO_LITTLE}, *mine]
        rows += [label | row for row in mine]
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = [
    "intervention", "against", "flags", "matched", "steps", "num_seeds", "measure", "margin_gain", "difference",
    "difference_low", "difference_high", "left_out",
]  # fmt: skip


def read_what_if(folder: Path) -> pd.DataFrame | None:
    """The table that a what-if left in a folder; None where there is none."""
    file = RunFolder(folder).what_if
    if not file.is_file():
        return None
    table = pd.read_csv(file)
    if lacking := [name for name in COLUMNS if name not in table]:
        raise InputError(
            f"{printable(file)}: no table of a what-if (no column '{lacking[0]}'); remove it, or write it again: "
            f"rewardshape probe --resume --output {printable(folder)}"
        )
    return table


class Place(NamedTuple):
    """Where a measure was compared."""

    measure: str
    margin_gain: float | None
    """Nats per token; None at the last step."""


def by_place(table: pd.DataFrame) -> dict[Place, dict[str, dict[str, Any]]]:
    """The rows of a what-if's table that have a number: by measure and margin, and there by intervention."""
    known = table[table["difference"].notna()].sort_values("margin_gain", kind="stable")
    found: dict[Place, dict[str, dict[str, Any]]] = {}
    for measure in MEASURES:
        for row in known[known["measure"] == measure].to_dict("records"):
            margin = None if pd.isna(row["margin_gain"]) else float(row["margin_gain"])
            named = {str(name): value for name, value in row.items()}
            found.setdefault(Place(measure, margin), {})[str(row["intervention"])] = named
    return found


WHAT_IF = "what-if"  # the folder of a what-if beside the run that it asks about


def what_if_beside(folder: Path) -> pd.DataFrame | None:
    """The table of a what-if in or beside a run's folder; None where there is none, or where it asks about another run.

    Beside a run may lie what was asked about another: it has to be of the same model, pairs and objective, as far as
    both state them.
    """
    beside = (folder.parent / WHAT_IF, folder.parent)
    kept = (place for place in beside if RunFolder(place).what_if.is_file() and _of_the_same(folder, place))
    places = chain((folder, folder / WHAT_IF), kept)
    return next((found for place in places if (found := read_what_if(place)) is not None), None)


def _of_the_same(folder: Path, place: Path) -> bool:
    inside = [
        manifest for manifest in _manifests(place) if not manifest.get("what_if", {"against": ""})["against"]
    ]
    theirs, mine = ([_asked(manifest) for manifest in found] for found in (inside, _manifests(folder)))
    return not theirs or not mine or any(one in theirs for one in mine)


def _manifests(folder: Path) -> list[dict[str, Any]]:
    """Those of a run, or of every run of a folder that can be read."""
    alone = RunFolder(folder).manifest.is_file()
    found = []
    for place in [folder] if alone else [file.parent for file in folder.glob("*/run.json")]:
        with contextlib.suppress(InputError):  # another run's damage says nothing of this one
            found.append(RunFolder(place).read_manifest())
    return found


def _asked(manifest: dict[str, Any]) -> tuple[Any, ...]:
    """What a what-if leaves as it is."""
    model, data = (manifest.get(part) or {} for part in ("model", "data"))
    return model.get("fingerprint"), (data.get("read") or {}).get("fingerprint"), manifest.get("objective")


def _by_intervention(trace: Trace) -> Runs:
    found: Runs = {}
    for run in trace.runs:
        stated = run.manifest.get("what_if")
        if stated is not None:
            found.setdefault(stated["name"], {})[run.seed] = run
    if not found:
        raise InputError(f"{trace.folder}: no what-if; run the probe with --what-if")
    base = [name for name, of in found.items() if not next(iter(of.values())).manifest["what_if"]["against"]]
    return {name: found[name] for name in [*base, *(name for name in found if name not in base)]}


# --- what the runs came to ---------------------------------------------------------------------------------------


def _outcomes(trace: Trace, runs: Runs, compared: list[tuple[str, str]]) -> dict[str, Outcome]:
    """Of each measure that there is what every intervention came to with every seed."""
    names = {run.name for of in runs.values() for run in of.values()}
    gains, accuracy, rewards, pairs = {}, {}, {}, []
    for chosen, rejected in chosen_and_rejected(trace):
        if chosen.run.name not in names:
            continue
        margin = logp_margins(chosen, rejected).mean(axis=1)
        gains[chosen.run.name] = float((margin - margin[0]).max())
        ordered = in_order(chosen, rejected)[-1:]
        accuracy[chosen.run.name] = _drawn(ordered, chosen.prompt_codes)
        pairs.append(len(np.unique(chosen.prompt_codes)))
        samples = judged(samples_of(trace, chosen.run))
        if len(samples):
            last = samples[samples["step"] == samples["step"].max()]
            rewards[chosen.run.name] = last.groupby("prompt_id")["gold"].mean()
    judged_by_all = pd.DataFrame(rewards).dropna()  # a failed reward leaves its prompt out of every run
    gold = {str(name): _drawn(of.to_numpy(float)[None]) for name, of in judged_by_all.items() if len(of)}
    reach = {name: WITHIN_REACH * min(gains[run.name] for run in of.values()) for name, of in runs.items()}
    top = max((min(reach[name] for name in pair) for pair in compared), default=0.0)
    found = {}
    if top > 0:
        margins = top * np.arange(1, MARGINS + 1) / MARGINS
        changes, many = resampled_along(trace, "logp_margin", margins, sorted(names))
        drawn = _by_seed(runs, dict(zip(sorted(names), np.moveaxis(changes, 2, 0), strict=True)))
        beyond = margins[:, None] > np.array(list(reach.values())) * (1 + 1e-9)
        found["chosen"] = Outcome(np.where(beyond[:, :, None], np.nan, drawn), many, margins)
    if gold:
        found["gold"] = Outcome(_by_seed(runs, gold), len(judged_by_all), np.array([np.nan]))
    if accuracy:
        found["accuracy"] = Outcome(_by_seed(runs, accuracy), min(pairs), np.array([np.nan]), share=True)
    return found


def _drawn(values: np.ndarray, prompts: np.ndarray | None = None) -> np.ndarray:
    """The mean of (1, pairs), as measured and in every resample: (1 + resamples, 1)."""
    return np.concatenate([values.mean(axis=1)[None], resampled_means(values, prompts)])


def _by_seed(runs: Runs, of: Mapping[str, np.ndarray]) -> np.ndarray:
    """What every run came to, (1 + resamples, values) each, with axes of interventions and seeds behind."""
    seeds = dict.fromkeys(seed for mine in runs.values() for seed in mine)
    nothing = np.full_like(next(iter(of.values())), np.nan)
    found = [
        [of.get(mine[s].name, nothing) if s in mine else nothing for s in seeds] for mine in runs.values()
    ]
    return np.moveaxis(np.array(found), (0, 1), (2, 3))


# --- effects -----------------------------------------------------------------------------------------------------


def effects(
    outcome: Outcome, names: list[str], compared: list[tuple[str, str]]
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Of each comparison its rows: ``margin_gain`` and ``difference`` with an interval that holds for all together.

    Parameters
    ----------
    outcome : Outcome
    names : list of str
        The interventions, as `outcome` has them.
    compared : list of (str, str)
        An intervention, and what it is set against.
    """
    found = {
        (pair, place): both
        for pair in compared
        for place in range(len(outcome.margins))
        if (both := _seeds_of(outcome.drawn[:, place], *map(names.index, pair))) is not None
    }
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for (pair, place), seeds in found.items():
        first, second = map(names.index, pair)
        drawn = outcome.drawn[:, place][..., seeds]
        mean, half = _effect(drawn, first, second, outcome.num_prompts, len(found), share=outcome.share)
        row = with_interval("difference", mean, mean - half, mean + half)
        rows.setdefault(pair, []).append({"margin_gain": outcome.margins[place], **row})
    return rows


def _seeds_of(drawn: np.ndarray, first: int, second: int) -> np.ndarray | None:
    """Which seeds both interventions have, of (1 + resamples, interventions, seeds); None if none."""
    both = np.isfinite(drawn[0, first]) & np.isfinite(drawn[0, second])
    return both if both.any() else None


def _effect(
    drawn: np.ndarray, first: int, second: int, num_prompts: int, tests: int, *, share: bool
) -> tuple[float, float]:
    """Mean difference of two interventions, and half the width of an interval that holds for so many together."""
    gap = (drawn[:, first] - drawn[:, second]).mean(axis=1)
    if num_prompts < MIN_TESTED:
        return float(gap[0]), np.nan
    # Resamples vary by (n − 1)/n of what samples do.
    over_prompts = float(gap[1:].var()) * num_prompts / (num_prompts - 1)
    over_prompts += 1 / (num_prompts + 2) ** 2 if share else 0.0
    parts = [(over_prompts, float(num_prompts - 1))]
    seeds = drawn.shape[2]
    if seeds > 1:
        residual, left = residual_variance(drawn[0])
        parts.append((2 * residual / seeds, left))
    level = 1 - (1 - CONFIDENCE) / (2 * tests)
    variances, quantiles = np.array([(part, stats.t.ppf(level, left)) for part, left in parts]).T
    total = float(variances.sum())
    return float(gap[0]), float(quantiles @ variances / np.sqrt(total)) if total else 0.0


def residual_variance(means: np.ndarray) -> tuple[float, float]:
    """Variance of means (interventions, seeds) that neither explains, and its degrees of freedom.

    Interventions that lack a seed are left out.
    """
    table = means[np.isfinite(means).all(axis=1)]
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float((left**2).sum() / freedom), float(freedom)

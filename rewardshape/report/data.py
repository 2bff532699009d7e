"""What the page's script shows, as JSON that cannot be anything but text."""

from __future__ import annotations

from typing import Any

import numpy as np

from rewardshape.analysis.resampling import evenly
from rewardshape.report.charts import Chart
from rewardshape.report.pairs import pair_data, places_of
from rewardshape.trace import Trace
from rewardshape.trace.run import stated_objective
from rewardshape.verdict.findings import Tables

MAX_STEPS = 600  # positions of the step slider


def script_data(tables: Tables, charts: list[Chart], samples: dict[str, Any], scale: float) -> dict[str, Any]:
    """What the script shows."""
    trace = tables.trace
    settings = list(dict.fromkeys(run.setting for run in trace.runs))
    labels = {run.setting: run.setting_label for run in trace.runs}
    runs = [{"label": run.label, "setting": settings.index(run.setting)} for run in trace.runs]
    return {
        "settings": [labels[setting] for setting in settings],
        "runs": runs,
        "deepest": [run.name for run in trace.runs].index(tables.deepest),
        "charts": [chart.data for chart in charts],
        "steps": _steps(charts),
        "pairs": pair_data(tables),
        "scale": round(scale, 4),
        "samples": samples,
        "geometry": _geometry(trace),
        "portrait": _portrait(tables, settings),
    }


def _steps(charts: list[Chart]) -> list[int]:
    """The positions of the step slider: the steps of the charts, the first and the last among them."""
    lines = [line["x"] for chart in charts if chart.kind == "time" for line in chart.data["lines"]]
    steps = sorted({int(step) for line in lines for step in line})
    return [steps[place] for place in evenly(len(steps), MAX_STEPS)]


def _geometry(trace: Trace) -> list[dict[int, list[float]]] | None:
    """Overlap b/a, weight ratio w_w/w_l, and whether w_l·b > w_w·a: a step on the pair lowers its chosen response.

    Of every pair at the first step measured, for each run.
    """
    rows = trace.geometry
    if rows.empty or not {"pair_id", "gram_ww", "gram_wl", "weight_chosen", "weight_rejected"} <= set(rows):
        return None
    _, places = places_of(trace)
    found = []
    for run in trace.runs:
        mine, place = rows[rows["run"] == run.name], places[run.name]
        mine = mine[mine["step"] == mine["step"].min()]
        both = zip(
            mine["pair_id"],
            mine["gram_wl"] / mine["gram_ww"],
            mine["weight_chosen"] / mine["weight_rejected"],
            mine["weight_rejected"] * mine["gram_wl"] > mine["weight_chosen"] * mine["gram_ww"],
            strict=True,
        )
        found.append(
            {
                place[p]: [round(float(o), 3), round(float(r), 3), bool(falls)]
                for p, o, r, falls in both
                if p in place and np.isfinite([o, r]).all()
            }
        )
    return found


def _portrait(tables: Tables, settings: list[str]) -> dict[str, Any] | None:
    """Where the interactive phase portrait starts, and the paths of the runs: mean log-probs of the probe set."""
    run = next(run for run in tables.trace.runs if run.name == tables.deepest)
    stated = stated_objective(run.manifest)
    geometry = tables.trace.geometry
    overlap, other = float("nan"), float("nan")
    if not geometry.empty and {"gram_ww", "gram_wl", "gram_ll"} <= set(geometry):
        first = geometry[(geometry["run"] == run.name) & (geometry["step"] == geometry["step"].min())]
        overlap = float((first["gram_wl"] / first["gram_ww"]).median())
        other = float((first["gram_ll"] / first["gram_ww"]).median())
    paths: list[dict[str, Any]] = []
    for known in tables.trace.runs:
        rows = tables.curve[tables.curve["run"] == known.name]
        wide = rows.pivot(index="step", columns="response", values="logp_mean")
        points = (
            wide[["chosen", "rejected"]].iloc[evenly(len(wide), 60)].dropna().round(3).to_numpy().tolist()
        )
        if points:  # none of a run without a finite number
            paths.append({"name": known.label, "setting": settings.index(known.setting), "points": points})
    if not paths:
        return None
    low = min(value for path in paths for point in path["points"] for value in point)
    start = paths[0]["points"][0]
    stated_or_measured = {
        "alpha": run.alpha,
        "beta": stated.get("beta"),
        "gamma": stated.get("gamma"),
        "b": overlap,
        "c": other,
    }
    usual = {"alpha": 0.0, "beta": 2.5, "gamma": 0.5, "b": 1.1, "c": 1.5}
    values = {
        name: round(float(value), 3) if isinstance(value, int | float) and np.isfinite(value) else usual[name]
        for name, value in stated_or_measured.items()
    }
    inside = {"w": min(start[0], -0.02), "l": min(start[1], -0.02), "low": min(-1.0, round(1.6 * low, 1))}
    return {"start": values | inside, "paths": paths}

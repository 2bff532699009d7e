"""The line of facts at the head of the page: what was trained, on what, and how."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from rewardshape.numbers import GREEK, counted, shortest
from rewardshape.trace import Trace
from rewardshape.trace.run import stated_objective


def facts_of(trace: Trace) -> list[str]:
    """What the runs of a page have in common and what they differ in: objective, model, data, steps, rates, seed."""
    manifests = [one.manifest for one in trace.runs]
    run = manifests[0].get("run", {})
    models = [manifest.get("model", {}).get("checkpoint") for manifest in manifests]
    files = [
        file
        for manifest in manifests
        for file in manifest.get("data", {}).get("files") or manifest.get("run", {}).get("data") or []
    ]
    stated = [one.manifest.get("run", {}).get("learning_rate") for one in trace.runs]
    rates = dict.fromkeys(float(rate) for rate in stated if rate)
    facts = [
        *_objectives(trace),
        _named("model", [model for model in models if model]),
        _named("data", files),
        counted(trace.steps["step"].max(), "step"),
        f"learning rate {_in_order(rates)}" if rates else "",
        f"{len(trace.runs)} runs" if len(trace.runs) > 1 else f"seed {run['seed']}" if "seed" in run else "",
    ]
    return [fact for fact in facts if fact]


def _named(what: str, paths: list[Any]) -> str:
    """Every file or folder once, by its name."""
    names = dict.fromkeys(Path(str(path)).name for path in paths)
    return f"{what} {', '.join(names)}" if names else ""


def _objectives(trace: Trace) -> list[str]:
    """The objectives of the runs, and every value that each of their parameters takes."""
    stated = [stated_objective(run.manifest) for run in trace.runs]
    names = dict.fromkeys(str(objective.pop("objective")) for objective in stated)
    values: dict[str, dict[Any, None]] = {}
    for objective in stated:
        for name, value in objective.items():
            values.setdefault(GREEK.get(name, name.replace("_", " ")), {})[value] = None
    return [", ".join(names), *(f"{name} {_in_order(every)}" for name, every in values.items())]


def _in_order(values: Collection[Any]) -> str:
    """Values of a parameter, numbers from the smallest on."""
    numbers = all(isinstance(value, int | float) for value in values)
    return ", ".join(
        shortest(value) if isinstance(value, float) else str(value)
        for value in (sorted(values) if numbers else values)
    )

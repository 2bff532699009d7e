"""What the policy said, then and now, for the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rewardshape.analysis.samples import samples_of, temperatures
from rewardshape.numbers import number
from rewardshape.trace import Run, Trace

MAX_PROMPTS = 24
MAX_TEXT = 1_500  # characters of a sample
SHOWN = 3  # prompts shown without a script


def then_and_now(trace: Trace) -> dict[str, Any]:
    """One answer to each prompt at the first and at the last step that drew some, greedy and sampled, for every run.

    ``prompts`` (what was answered and how), and ``runs``: of each ``steps`` (first, last) and ``texts``, of each prompt
    a pair of {text, gold, cut: whether it ran into the limit of length}.
    """
    if trace.samples.empty or "text" not in trace.samples:
        return {"prompts": [], "runs": []}
    several = temperatures(trace)[::-1]
    names = trace.samples["pair_id"].drop_duplicates().head(MAX_PROMPTS)
    asked = [(prompt, temperature) for prompt in names for temperature in several]
    runs = [_of_run(trace, run, asked) for run in trace.runs]
    return {"prompts": [_asked(*one, alone=len(several) == 1) for one in asked], "runs": runs}


def _asked(prompt: str, temperature: float, *, alone: bool) -> str:
    return str(prompt) if alone else f"{prompt}, {f'T = {temperature:g}' if temperature else 'greedy'}"


def _of_run(trace: Trace, run: Run, asked: list[tuple[str, float]]) -> dict[str, Any] | None:
    mine = trace.samples[trace.samples["run"] == run.name]
    if mine.empty:
        return None
    steps = [int(mine["step"].min()), int(mine["step"].max())]
    found: dict[tuple[Any, Any, float], dict[str, Any]] = {}
    for temperature in {temperature for _, temperature in asked}:
        rows = samples_of(trace, run, temperature=temperature).drop_duplicates(["step", "pair_id"])
        found |= {(row["step"], row["pair_id"], temperature): row for row in _records(rows)}
    texts = [[_sample(found.get((step, *one))) for step in steps] for one in asked]
    return {"steps": steps, "texts": texts}


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _sample(row: dict[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    gold, text = row.get("gold", np.nan), str(row["text"])
    return {
        "text": text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} …",
        "gold": None if pd.isna(gold) else number(float(gold), 2),
        "cut": row.get("finish") == "length",
    }

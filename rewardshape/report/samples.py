"""What the policy said, then and now, for the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rewardshape.analysis.samples import samples_of, temperatures
from rewardshape.numbers import number, shortest
from rewardshape.report.pairs import prompt_end
from rewardshape.trace import Run, Trace, read_prompts

MAX_PROMPTS = 24
MAX_TEXT = 1_500  # characters of a sample
SHOWN = 3  # prompts shown without a script


def then_and_now(trace: Trace) -> dict[str, Any]:
    """One answer to each prompt at the first and at the last step that drew some, greedy and sampled, for every run.

    ``prompts`` (the name of what was answered, and how), ``asked`` (its text, where the run kept it), and ``runs``: of
    each ``steps`` (first, last) and ``texts``, of each prompt a pair of {text, gold, cut: whether it ran into the limit
    of length}.
    """
    if trace.samples.empty or "text" not in trace.samples:
        return {"prompts": [], "asked": [], "runs": []}
    several = temperatures(trace)[::-1]
    names = trace.samples["pair_id"].drop_duplicates().head(MAX_PROMPTS)
    asked = [(prompt, temperature) for prompt in names for temperature in several]
    runs = [_of_run(trace, run, asked) for run in trace.runs]
    texts = _texts(trace.runs)
    return {
        "prompts": [_asked(*one, alone=len(several) == 1) for one in asked],
        "asked": [prompt_end({"prompt": _one_of(texts.get(str(prompt), []))}) for prompt, _ in asked],
        "runs": runs,
    }


def _texts(runs: list[Run]) -> dict[str, list[str]]:
    """The texts of prompts by the pair that has them: of the probe set, and those drawn beside it, of each run."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for prompt, text in read_prompts(run.folder).items():
            found.setdefault(prompt, []).append(text)
    return found


def _one_of(texts: list[str]) -> str:
    """The text that all runs have; of runs on other data, whose prompts only share a name, none is shown for all."""
    return texts[0] if len(set(texts)) == 1 else "(another prompt in each run)" if texts else ""


def _asked(prompt: str, temperature: float, *, alone: bool) -> str:
    return (
        str(prompt) if alone else f"{prompt}, {f'T = {shortest(temperature)}' if temperature else 'greedy'}"
    )


def _of_run(trace: Trace, run: Run, asked: list[tuple[str, float]]) -> dict[str, Any] | None:
    mine = trace.samples[trace.samples["run"] == run.name]
    if mine.empty:
        return None
    steps = list(
        dict.fromkeys([int(mine["step"].min()), int(mine["step"].max())])
    )  # one, if only one drew samples
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

"""What the policy said, then and now, and how far it has moved from the reference, for the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rewardshape.numbers import number
from rewardshape.plotting.axes import step_axis, zero_line
from rewardshape.plotting.sweep import plot_lines
from rewardshape.trace import Trace

MAX_PROMPTS = 24
MAX_TEXT = 1_500  # characters of a sample
SHOWN = 3  # prompts shown without a script


def kl_curve(trace: Trace) -> pd.DataFrame:
    """KL to the reference at every step that drew samples: run, setting, alpha, step, kl and kl_low, kl_high.

    The mean of log π − log π_ref over the samples, nats per response, ± 2 standard errors.
    """
    rows = []
    for run in trace.runs:
        samples = trace.samples[trace.samples["run"] == run.name]
        ratio = (samples["logp_sum"] - samples["ref_logp_sum"]).groupby(samples["step"])
        for step, mean, error in zip(ratio.mean().index, ratio.mean(), ratio.sem().fillna(0), strict=True):
            rows.append((run.name, run.setting, run.alpha, step, mean, mean - 2 * error, mean + 2 * error))
    return pd.DataFrame(rows, columns=["run", "setting", "alpha", "step", "kl", "kl_low", "kl_high"]).dropna(
        subset="kl"
    )


def plot_kl(curve: pd.DataFrame, ax: Axes) -> None:
    """KL over the steps, by setting."""
    zero_line(ax)
    plot_lines(curve, ax, "kl")
    step_axis(ax)
    ax.set_ylabel("KL to the reference\n(nats per response)")


def has_gold(trace: Trace) -> bool:
    """Whether every sample has a gold reward."""
    return "gold" in trace.samples and bool(trace.samples["gold"].notna().all())


def then_and_now(trace: Trace) -> dict[str, Any]:
    """One sample of each prompt at the first and at the last step that drew some, for every run.

    ``prompts`` (ids), and ``runs``: of each ``steps`` (first, last) and ``texts``, a pair of {text, gold} per prompt.
    """
    samples = trace.samples
    if samples.empty or "text" not in samples:
        return {"prompts": [], "runs": []}
    prompts = samples["prompt_id"].drop_duplicates().head(MAX_PROMPTS).tolist()
    runs: list[dict[str, Any] | None] = []
    for run in trace.runs:
        mine = samples[samples["run"] == run.name]
        if mine.empty:
            runs.append(None)
            continue
        steps = [int(mine["step"].min()), int(mine["step"].max())]
        found = [
            mine[mine["step"] == step].drop_duplicates("prompt_id").set_index("prompt_id") for step in steps
        ]
        texts = [[_sample(rows, prompt) for rows in found] for prompt in prompts]
        runs.append({"steps": steps, "texts": texts})
    return {"prompts": [str(prompt) for prompt in prompts], "runs": runs}


def _sample(rows: pd.DataFrame, prompt: str) -> dict[str, Any] | None:
    if prompt not in rows.index:
        return None
    row = rows.loc[prompt]
    gold: Any = row.get("gold", np.nan)
    text = str(row["text"])
    return {
        "text": text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} …",
        "gold": None if pd.isna(gold) else number(float(gold), 2),
    }

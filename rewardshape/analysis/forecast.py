"""Where a run will stand at its end, from its beginning: chosen, rejected and margin on the probe set.

A step moves the model by about its learning rate, so curves are read against the *clock*: the share of the run's
whole learning rate that was spent. The forecast goes on along the last stretch, a **line** in the clock. What comes of
distance (a divergence starts flat) grows faster, at most like a **parabola** through the start: how far the two part is
the width of the interval, doubled. ``docs/forecast.md`` has its test on finished runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.panels import Panel, chosen_and_rejected, run_label
from rewardshape.analysis.resampling import CONFIDENCE, mean_error, num_prompts
from rewardshape.errors import InputError
from rewardshape.trace import Run, Trace

WIDTH = 2.0  # times what gap and pairs leave open is half of an interval: fixed on 48 runs, docs/forecast.md
FEWEST = 3  # measurements of the probe set, step 0 apart, below which nothing is forecast
COLUMNS = [
    "run", "setting", "alpha", "seed", "quantity", "step", "last_step", "clock", "now", "forecast", "low", "high",
    "parabola",
]  # fmt: skip


def forecast_end(trace: Trace, *, seen: float | None = None) -> pd.DataFrame:
    """Chosen, rejected and margin of every run at its planned last step.

    Parameters
    ----------
    trace : Trace
        Also one that is still being written.
    seen : float, optional
        Use only the first share of the planned steps, in (0, 1): to test a forecast on a run that is over. Left out:
        everything that is there.

    Returns
    -------
    DataFrame
        One row per run and quantity (``chosen``, ``rejected``, ``margin``: mean change since step 0 on the probe set,
        nats per token): run, setting, alpha, seed, quantity, step (the last one used), last_step (planned), clock
        (share of the learning rate spent), now, forecast, low, high, parabola. Runs with fewer than `FEWEST`
        measured steps, without a plan, or with a schedule that is none of `SCHEDULES`,
        are left out. low and high are NaN where all pairs have one prompt.

    Raises
    ------
    InputError
        If `seen` is no share, or the trace holds no probe set.

    Examples
    --------
    >>> forecast_end(read_trace("runs/embedded"))[["run", "quantity", "now", "forecast"]]  # doctest: +SKIP
    """
    if seen is not None and not 0 < seen < 1:
        raise InputError(f"seen = {seen}: must be a share of the steps, between 0 and 1")
    rows = [row for pair in chosen_and_rejected(trace) for row in forecast_of(*pair, seen=seen)]
    return pd.DataFrame(rows, columns=COLUMNS)


def forecast_of(chosen: Panel, rejected: Panel, *, seen: float | None = None) -> list[dict[str, Any]]:
    """The rows of `forecast_end` of one run; none where it has no plan that is known, or too few measured steps."""
    last_step = planned_steps(chosen.run)
    if last_step is None or chosen.run.manifest["run"].get("schedule") not in SCHEDULES:
        return []
    used = chosen.steps <= (last_step if seen is None else seen * last_step)
    if used.sum() <= FEWEST:
        return []
    steps = chosen.steps[used]
    clock = schedule_clock(chosen.run.manifest["run"], steps)
    changes = {"chosen": chosen.change()[used], "rejected": rejected.change()[used]}
    changes["margin"] = changes["chosen"] - changes["rejected"]
    return [
        {
            **run_label(chosen.run),
            "quantity": quantity,
            "step": int(steps[-1]),
            "last_step": last_step,
            "clock": clock[-1],
            **expected_end(clock, change, chosen.prompt_codes),
        }
        for quantity, change in changes.items()
    ]


def planned_steps(run: Run) -> int | None:
    """The last step that the manifest plans; None where it plans none."""
    steps = run.manifest.get("run", {}).get("steps")
    return int(steps) if steps else None


SCHEDULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "constant": np.ones_like,
    "constant_with_warmup": np.ones_like,
    "linear": lambda share: 1 - share,
    "cosine": lambda share: 0.5 * (1 + np.cos(np.pi * share)),
}
"""The learning rate over the share of the updates after the warm-up, by transformers' names."""


def schedule_clock(plan: Mapping[str, Any], steps: np.ndarray) -> np.ndarray:
    """Share of the whole learning rate that was spent after each of `steps`, under the plan's schedule.

    Parameters
    ----------
    plan : mapping
        With ``steps``, ``schedule`` and ``warmup_ratio``, as the manifest's ``run`` part has them. The learning rate of
        update t is the schedule's at t − 1, as transformers counts.
    steps : array of int

    Returns
    -------
    array
        0 at step 0, 1 at the last one.
    """
    total = int(plan["steps"])
    warmup = 0 if plan["schedule"] == "constant" else int(np.ceil(plan["warmup_ratio"] * total))
    update = np.arange(total)
    after = SCHEDULES[plan["schedule"]]((update - warmup) / max(1, total - warmup))
    rate = np.where(update < warmup, update / max(1, warmup), after)
    spent = np.concatenate([[0.0], rate.cumsum()])
    return np.asarray(spent[np.minimum(steps, total)] / spent[-1])


def expected_end(
    clock: np.ndarray, change: np.ndarray, prompts: np.ndarray | None = None
) -> dict[str, float]:
    """Forecast of the mean over pairs at clock 1; `change` is (steps, pairs), `prompts` equal where pairs share one.

    Half of the interval: `WIDTH` times the t interval of the mean, over prompts, and the gap of the two forms, added
    as variances; NaN from one prompt.
    """
    line, parabola = _line(clock, change), _parabola(clock, change)
    freedom = num_prompts(line, prompts) - 1
    pairs = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * mean_error(line[None], prompts)[0]
    middle, half = float(line.mean()), WIDTH * float(np.hypot(pairs, (line - parabola).mean()))
    return {
        "now": float(change[-1].mean()),
        "forecast": middle,
        "low": middle - half,
        "high": middle + half,
        "parabola": float(parabola.mean()),
    }


def _line(clock: np.ndarray, change: np.ndarray) -> np.ndarray:
    """On from the last value at the slope of the later half of the clock."""
    late = clock >= clock[-1] / 2
    if late.sum() < 2:
        late[-2:] = True
    x = clock[late] - clock[late].mean()
    slope = x @ (change[late] - change[late].mean(axis=0)) / (x @ x)
    return np.asarray(change[-1] + slope * (1 - clock[-1]))


def _parabola(clock: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Least squares of clock and its square, through the start."""
    basis = np.stack([clock, clock**2], axis=1)
    return np.asarray(np.linalg.lstsq(basis, change, rcond=None)[0].sum(axis=0))

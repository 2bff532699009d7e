"""Where the lost probability went: from the tables that a run with ``--destination-every`` records.

Masses are in tokens: probability summed over the positions of a response. The mass that a position lost is what another
token there gained, so the groups of `destination_curve` add up to all that moved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rewardshape.analysis.panels import chosen_and_rejected, run_label
from rewardshape.analysis.resampling import mean_interval
from rewardshape.errors import InputError
from rewardshape.trace import Trace

GROUPS = {
    "end": "the end token",
    "other": "the other response's token, where the two first differ",
    "greedy": "the token that the untouched model would have taken",
    "near": "the ten tokens most like the response's own",
    "own": "the response's own tokens, where they gained",
    "rest": "every other token",
}
_COLUMNS = {name: "own_gained" if name == "own" else f"to_{name}" for name in GROUPS}


def destination_curve(trace: Trace, *, seed: int = 0) -> pd.DataFrame:
    """How much probability moved at the positions of the probe responses since step 0, and which tokens gained it.

    Returns
    -------
    DataFrame
        One row per run, step, response and group (`GROUPS`): ``run``, ``setting``, ``alpha``, ``seed``, ``step``,
        ``response``, ``group``, ``num_pairs``; ``mass``: mean over pairs of what the group gained (tokens), with
        ``…_low`` and ``…_high`` over prompts; ``share``: of all mass that moved; ``moved``: that mass, and ``own``: the
        net change of the responses' own tokens (both means over pairs, tokens).

    Raises
    ------
    InputError
        If the trace holds no destinations.
    """
    if trace.destination.empty:
        raise InputError(f"{trace.folder}: no destinations; run the probe with --destination-every K")
    rows: list[dict[str, Any]] = []
    prompts = {
        (chosen.run.name, pair): prompt
        for chosen, _ in chosen_and_rejected(trace)
        for pair, prompt in zip(chosen.pair_ids, chosen.prompt_codes, strict=True)
    }
    for run in trace.runs:
        mine = trace.destination[trace.destination["run"] == run.name]
        for (step, response), table in mine.groupby(["step", "response"], sort=False):
            masses = table[list(_COLUMNS.values())].to_numpy(float).T
            of_prompts = np.array([prompts[run.name, pair] for pair in table["pair_id"]])
            low, high = mean_interval(masses, of_prompts, seed=seed)
            total = masses.sum()
            for i, group in enumerate(GROUPS):
                rows.append(
                    {
                        **run_label(run),
                        "step": step,
                        "response": response,
                        "group": group,
                        "num_pairs": len(table),
                        "mass": masses[i].mean(),
                        "mass_low": low[i],
                        "mass_high": high[i],
                        "share": masses[i].sum() / total if total > 0 else np.nan,
                        "moved": table["moved"].mean(),
                        "own": table["own"].mean(),
                    }
                )
    return pd.DataFrame(rows)


def moved_tokens(trace: Trace, *, count: int = 10) -> pd.DataFrame:
    """The tokens that gained and lost most probability over the whole probe set, at the last step that measured it.

    A token is known where it is among the five that gained or lost most in a response, so the sums are lower bounds.

    Parameters
    ----------
    trace : Trace
    count : int
        How many that gained, and how many that lost.

    Returns
    -------
    DataFrame
        ``run``, ``setting``, ``alpha``, ``seed``, ``response``, ``token``, ``token_id``, ``change`` (tokens of mass,
        summed over the probe set) and ``num_pairs`` in which it was among the first; the most gained first.
    """
    if trace.destination_tokens.empty:
        raise InputError(f"{trace.folder}: no destinations; run the probe with --destination-every K")
    tables = []
    for run in trace.runs:
        mine = trace.destination_tokens[trace.destination_tokens["run"] == run.name]
        last = mine[mine["step"] == mine["step"].max()]
        for response, rows in last.groupby("response", sort=False):
            sums = rows.groupby(["token_id", "token"], sort=False)["change"].agg(
                change="sum", num_pairs="size"
            )
            sums = sums.sort_values("change", ascending=False, kind="stable").reset_index()
            gained, lost = sums[sums["change"] > 0].head(count), sums[sums["change"] < 0].tail(count)
            tables.append(pd.concat([gained, lost]).assign(response=response, **run_label(run)))
    labels = ["run", "setting", "alpha", "seed", "response", "token", "token_id", "change", "num_pairs"]
    moved: pd.DataFrame = pd.concat(tables, ignore_index=True)[labels]
    return moved

"""A run of ours as a `Log`, so that one verdict serves our traces and the logs of other trainers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rewardshape.analysis.displacement import margin_curve
from rewardshape.analysis.panels import Panel, chosen_and_rejected, run_objective
from rewardshape.logs.read import OWN_FORM, Log
from rewardshape.theory import Responses
from rewardshape.trace import Trace


def logs_of_trace(trace: Trace) -> list[Log]:
    """One log per run: the probe set as its evaluation rows, the steps as its training rows.

    Log-probabilities are in the unit that the objective scores: nats, or nats per token.

    Raises
    ------
    InputError
        If the trace holds no probe set at step 0.
    """
    margins = margin_curve(trace)
    return [
        _log(trace, chosen, rejected, margins[margins["run"] == chosen.run.name])
        for chosen, rejected in chosen_and_rejected(trace)
    ]


def _log(trace: Trace, chosen: Panel, rejected: Panel, margins: pd.DataFrame) -> Log:
    goal, run = run_objective(chosen.run), chosen.run.name
    per_token = goal.scorer.per_token
    evaluated = pd.DataFrame({"split": "eval", "step": chosen.steps})
    for side, panel in (("chosen", chosen), ("rejected", rejected)):
        lengths = panel.num_tokens if per_token else 1.0
        evaluated[f"logp_{side}"] = (panel.sums["logp_sum"] / lengths).mean(axis=1)
    pair = [Responses(p.sums["logp_sum"], p.num_tokens, p.ref_logp_sum) for p in (chosen, rejected)]
    evaluated["loss"] = np.asarray(goal.pair_loss(*pair), dtype=float).mean(axis=1)
    evaluated["margin"] = margins["margin"].to_numpy()
    evaluated["accuracy"] = margins["accuracy"].to_numpy()
    if not trace.samples.empty and "gold" in trace.samples:
        samples = trace.samples[trace.samples["run"] == run]
        evaluated["gold"] = evaluated["step"].map(samples.groupby("step")["gold"].mean())

    steps = trace.steps[trace.steps["run"] == run]
    kept = [c for c in ("loss", "margin", "accuracy", "grad_norm", "learning_rate") if c in steps]
    trained = steps.loc[steps["step"] > 0, ["step", *kept]].assign(split="train")
    table = pd.concat([evaluated, trained], ignore_index=True).sort_values(
        "step", kind="stable", ignore_index=True
    )
    settings = {
        "beta": goal.parameters.get("beta"),
        "per_token": per_token,
        "reference_free": not goal.needs_reference,
        **{f"reference_{p.response}": _reference_mean(p, per_token) for p in (chosen, rejected)},
    }
    return Log(run, OWN_FORM, table, settings=settings)


def _reference_mean(panel, per_token: bool) -> float | None:
    if panel.ref_logp_sum is None:
        return None
    return float((panel.ref_logp_sum / (panel.num_tokens if per_token else 1.0)).mean())

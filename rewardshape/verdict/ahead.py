"""Where a run that is still going is heading, in a sentence with the interval and how often such intervals held."""

from __future__ import annotations

import numpy as np

from rewardshape.analysis.forecast import forecast_of
from rewardshape.analysis.panels import Panel
from rewardshape.numbers import signed

HELD = "such intervals held the end of 247 of 257 finished runs of one small task"  # docs/forecast.md


def where_it_goes(chosen: Panel, rejected: Panel) -> str:
    """Where the chosen responses of a running run are expected at its last step; empty where that cannot be said.

    It cannot where there is no interval, nor where the forecast lies above what a log-probability can reach; no
    interval goes beyond that.
    """
    if chosen.run.manifest.get("status") != "running":
        return ""
    room = -float((chosen.sums["logp_sum"][0] / chosen.num_tokens).mean())
    for row in forecast_of(chosen, rejected):
        if row["quantity"] == "chosen" and row["forecast"] <= room and np.isfinite(row["low"]):
            between = f"{signed(row['low'])} to {signed(min(row['high'], room))}"
            return (
                f"at step {row['last_step']} the chosen responses are expected at {signed(row['forecast'])} nats per "
                f"token from where they began ({between}; {HELD})"
            )
    return ""

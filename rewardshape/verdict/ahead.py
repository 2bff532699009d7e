"""Where a run that is still going is heading, in a sentence with the interval and how often such intervals held."""

from __future__ import annotations

from rewardshape.analysis.forecast import forecast_end
from rewardshape.numbers import signed
from rewardshape.trace import Run, Trace

HELD = "such intervals held the end of 38 of 40 finished runs"  # docs/forecast.md


def where_it_goes(trace: Trace, run: Run) -> str:
    """Where the chosen responses of a running run are expected at its last step; empty where that cannot be said.

    Parameters
    ----------
    trace : Trace
        That holds the run.
    run : Run
    """
    if run.manifest.get("status") != "running":
        return ""
    found = forecast_end(trace.run(run.name)).query("quantity == 'chosen'")
    for row in found.to_dict("records"):
        between = f"{signed(row['low'])} to {signed(row['high'])}"
        return (
            f"at step {row['last_step']} the chosen responses are expected at {signed(row['forecast'])} nats per token "
            f"from where they began ({between}; {HELD})"
        )
    return ""

"""What four theories of displacement predict of a run, and what its record says.

    python benchmarks/theories.py RUNS

RUNS is a run folder with ``--geometry-every`` and ``--sample-every``, of pairs that are samples of the untouched model
(``figures/runs/embedded``). One row a run:

* `identity` and `chosen`: −KL(π₀‖π) + g/2 and the mean change of chosen, nats per response, at the last sampled step
  whose divergence is below 2 nats, where there is one;
* `own`: rank correlation over pairs between the rate w_w·a − w_l·b of each pair's own gradients and the change of its
  chosen response in the following interval: +1 where the two-response flow decides;
* `rare`: rank correlation between how far the rejected response lies below the chosen one halfway and the later change
  of chosen: −1 where a rare rejected response means unlearning, as 3D-Properties has it;
* `entropy`: mean change of the predictions' entropy at the chosen responses, nats per token: above 0 where mass is
  dispersed, and where differential information spreads the policy;
* `spread`: rank correlation between that change and the change of chosen, pair by pair: −1 where spreading is what
  lowers chosen.

Rank correlations of 64 pairs are within ±0.25 of 0 by chance.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from rewardshape.analysis.decomposition import decompose
from rewardshape.analysis.panels import Panel, chosen_and_rejected
from rewardshape.trace import Trace, read_trace

SMALL = 2.0  # nats: beyond it KL(π‖π₀), which samples know, is another number than KL(π₀‖π)


def theories(trace: Trace) -> pd.DataFrame:
    """The rows described above."""
    parts = decompose(trace)
    rows = []
    for chosen, rejected in chosen_and_rejected(trace):
        small = parts[(parts["run"] == chosen.run.name) & (parts["kl"] < SMALL) & (parts["step"] > 0)]
        own = small.iloc[-1] if len(small) else dict.fromkeys(("step", "margin_part", "kl", "chosen"), np.nan)
        change, half = chosen.change(), len(chosen.steps) // 2
        gaps = chosen.sums["logp_sum"] / chosen.num_tokens - rejected.sums["logp_sum"] / rejected.num_tokens
        entropy = chosen.change("entropy_sum")[-1]
        rows.append(
            {
                "alpha": chosen.run.alpha,
                "step": own["step"],
                "identity": own["margin_part"] - own["kl"],
                "chosen": own["chosen"],
                "own": own_rates(trace, chosen),
                "rare": correlation(gaps[half], change[-1] - change[half]),
                "entropy": entropy.mean(),
                "spread": correlation(entropy, change[-1]),
            }
        )
    return pd.DataFrame(rows).sort_values("alpha", ignore_index=True)


def own_rates(trace: Trace, chosen: Panel) -> float:
    """Mean over the measured intervals of the rank correlation between a pair's own rate and its change."""
    table = trace.geometry[trace.geometry["run"] == chosen.run.name]
    steps = sorted(table["step"].unique())
    change = pd.DataFrame(chosen.change(), index=chosen.steps, columns=chosen.pair_ids)
    found = []
    for now, then in pairwise(steps):
        rows = table[table["step"] == now].set_index("pair_id").loc[chosen.pair_ids]
        rate = rows["weight_chosen"] * rows["gram_ww"] - rows["weight_rejected"] * rows["gram_wl"]
        found.append(correlation(rate.to_numpy(), (change.loc[then] - change.loc[now]).to_numpy()))
    return float(np.mean(found))


def correlation(one: Any, other: Any) -> float:
    return float(spearmanr(one, other).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    print(theories(read_trace(parser.parse_args().runs)).round(2).to_string(index=False))


if __name__ == "__main__":
    main()

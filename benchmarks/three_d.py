"""Drop, degradation and dispersion on a network small enough to be exact: ``python benchmarks/three_d.py``.

Eight prompts, twelve responses, a network of one hidden layer that all prompts share; a softmax over the responses.
Each prompt has one pair; its ten other responses are never trained on. At the start chosen and rejected have the
probabilities of `STARTS`, the others share the rest. Every objective trains on the same starts by full-batch gradient
descent, with momentum, until the mean margin log π(y_w) − log π(y_l) has grown by `GAIN` nats, so that all are compared
at the same margin; then, for the unlearning, until it has grown by three times as much. One row an objective and
start: means over the seeds with 95 % t-intervals, and how many seeds got there where not all did.

* drop: change of log π of the rejected response, nats;
* chosen: change of log π of the chosen response, nats;
* later: the same from `GAIN` to three times `GAIN`: below 0 is unlearning;
* unseen: change of the mass on the ten other responses.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from rewardshape.theory import Objective, Responses, compose, objective

PROMPTS, RESPONSES, WIDTH, HIDDEN = 8, 12, 6, 12
STARTS = {"level": (0.2, 0.2), "rejected improbable": (0.2, 0.01), "rejected probable": (0.05, 0.5)}
GAIN = 3.0  # nats
STEPS, RATE, MOMENTUM = 20_000, 0.02, 0.9
BETA = 0.5


def contestants() -> dict[str, Objective]:
    """DPO, the two kinds of remedy, and the shape whose two gradients in probability are equal."""
    return {
        "DPO": objective("dpo", beta=BETA),
        "DPO + likelihood (sft 0.1)": compose(score="log_ratio", link="logistic", beta=BETA, sft=0.1),
        "rejected × 0.75": objective("dpo_shift", beta=BETA, rejected_factor=0.75),
        "α = 0 without reference": objective("alphapo", alpha=0.0, beta=BETA, gamma=0.0),
        "α = −1": objective("alphapo", alpha=-1.0, beta=BETA, gamma=0.0),
        "α = 1": objective("alphapo", alpha=1.0, beta=BETA, gamma=0.0),
    }


class State(NamedTuple):
    """Log-probabilities of every seed's chosen and rejected responses, and the mass on all others."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    unseen: torch.Tensor


class Networks:
    """One network a seed, all trained at once; every seed has prompts, weights and pairs of its own."""

    def __init__(self, seeds: int, chosen: float, rejected: float):
        generator = torch.Generator().manual_seed(seeds)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(seeds, *shape, generator=generator, dtype=torch.float64)

        self.inputs = normal(PROMPTS, WIDTH)
        self.first = (normal(WIDTH, HIDDEN) / WIDTH**0.5).requires_grad_()
        self.second = (normal(HIDDEN, RESPONSES) / HIDDEN**0.5).requires_grad_()
        places = torch.stack(
            [torch.randperm(RESPONSES, generator=generator)[:2] for _ in range(seeds * PROMPTS)]
        ).view(seeds, PROMPTS, 2)
        self.chosen, self.rejected = places[..., :1], places[..., 1:]
        # A constant for each prompt and response puts the pair at its probabilities and leaves the others level.
        others = (1 - chosen - rejected) / (RESPONSES - 2)
        wanted = torch.full((seeds, PROMPTS, RESPONSES), others, dtype=torch.float64)
        wanted = wanted.scatter(2, self.chosen, chosen).scatter(2, self.rejected, rejected)
        with torch.no_grad():
            self.shift = wanted.log() - self._logits()

    def _logits(self) -> torch.Tensor:
        return torch.tanh(self.inputs @ self.first) @ self.second

    def state(self) -> State:
        logps = torch.log_softmax(self._logits() + self.shift, -1)
        chosen, rejected = (logps.gather(2, places).squeeze(2) for places in (self.chosen, self.rejected))
        return State(chosen, rejected, 1 - chosen.exp() - rejected.exp())


def train(made: Objective, networks: Networks) -> list[State]:
    """States at the start, at `GAIN` and at three times `GAIN`, of every seed where it got there."""
    start = State(*(part.detach() for part in networks.state()))
    reached = [State(*(part.clone() for part in start)) for _ in range(2)]
    open_ = torch.ones(2, len(start.chosen), dtype=torch.bool)
    optimizer = torch.optim.SGD([networks.first, networks.second], lr=RATE, momentum=MOMENTUM)
    earlier, gained = start, torch.zeros(len(start.chosen), dtype=torch.float64)
    for _ in range(STEPS):
        state = networks.state()
        gain = ((state.chosen - start.chosen) - (state.rejected - start.rejected)).detach().mean(1)
        for place, wanted in enumerate((GAIN, 3 * GAIN)):
            now = open_[place] & (gain >= wanted)
            share = ((wanted - gained) / (gain - gained))[now, None]  # of the step, up to that margin
            for kept, was, part in zip(reached[place], earlier, state, strict=True):
                kept[now] = was[now] + share * (part.detach()[now] - was[now])
            open_[place] &= ~now
        earlier, gained = State(*(part.detach() for part in state)), gain
        if not open_.any():
            break
        loss = made.pair_loss(
            *(
                Responses(logp.flatten(), torch.ones(logp.numel()), ref.flatten())
                for logp, ref in ((state.chosen, start.chosen), (state.rejected, start.rejected))
            )
        )
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    for place in range(2):
        for kept in reached[place]:
            kept[open_[place]] = torch.nan
    return [start, *reached]


def measured(seeds: int) -> pd.DataFrame:
    """One row an objective and start, as described above."""
    rows = []
    for start, probabilities in STARTS.items():
        for name, made in contestants().items():
            before, then, later = train(made, Networks(seeds, *probabilities))
            rows.append(
                {
                    "start": start,
                    "objective": name,
                    "drop": interval(then.rejected - before.rejected),
                    "chosen": interval(then.chosen - before.chosen),
                    "later": interval(later.chosen - then.chosen),
                    "unseen": interval(then.unseen - before.unseen),
                }
            )
    return pd.DataFrame(rows)


def interval(change: torch.Tensor) -> tuple[float, float, int]:
    """Mean over seeds (of their means over prompts), half-width at 95 %, and how many seeds got there."""
    values = change.mean(1).numpy()
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan"), float("nan"), len(values)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(half), len(values)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    table = measured(seeds)
    for name in ("drop", "chosen", "later", "unseen"):
        table[name] = [
            f"{mean:+.2f} ± {half:.2f}" + (f" ({n})" if n < seeds else "") for mean, half, n in table[name]
        ]
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()

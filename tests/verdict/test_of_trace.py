"""What is read from a run's probe pairs: losses and margins, against the objective step by step."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.theory import Responses, objective
from rewardshape.trace import read_trace
from rewardshape.verdict.of_trace import evidence_of_trace

PAIRS, STEPS = 24, 6
TOKENS = {"chosen": np.full(PAIRS, 6), "rejected": np.full(PAIRS, 8)}
COUPLED = {
    "kto": {"beta": 0.1},
    "beta_dpo": {"beta": 0.1},
    "aot_unpaired": {"beta": 0.1},
}


def written(write_run, folder, name, **parameters):
    """Chosen falls by a tenth of a nat a step, rejected by three tenths; pairs differ."""
    rng = np.random.default_rng(0)
    start = {side: -2.0 * TOKENS[side] + rng.normal(size=PAIRS) for side in TOKENS}
    along = np.arange(STEPS)[:, None]
    sums = {
        side: start[side] - fall * along + 0.05 * rng.normal(size=(STEPS, PAIRS)) * (along > 0)
        for side, fall in (("chosen", 0.1), ("rejected", 0.3))
    }
    goal = objective(name, **parameters)
    stated = {"name": name, "parameters": dict(goal.parameters)}
    reference = start if goal.needs_reference else None
    folder = write_run(folder, sums, num_tokens=TOKENS, objective=stated, ref_logp_sums=reference)
    return goal, sums, reference, folder


@pytest.mark.parametrize("name", COUPLED)
def test_an_objective_that_looks_at_the_batch_sees_one_step_at_a_time(write_run, tmp_path, name):
    goal, sums, reference, folder = written(write_run, tmp_path / "run", name, **COUPLED[name])
    [found] = evidence_of_trace(read_trace(folder))
    losses = []
    for step in range(STEPS):
        pair = [
            Responses(sums[side][step], TOKENS[side], None if reference is None else reference[side])
            for side in TOKENS
        ]
        losses.append(float(np.mean(goal.pair_loss(*pair))))
    assert found.learning.loss.last == pytest.approx(losses[-1], rel=1e-6)


def test_a_margin_is_in_reward_units_with_gamma_as_training_logs_it(write_run, tmp_path):
    _, sums, _, folder = written(write_run, tmp_path / "run", "simpo", beta=2.0, gamma=1.0)
    [found] = evidence_of_trace(read_trace(folder))
    means = {side: sums[side] / TOKENS[side] for side in TOKENS}
    z = 2.0 * (means["chosen"] - means["rejected"]) - 1.0
    assert found.learning.margin.last == pytest.approx(z[-1].mean(), abs=1e-6)
    drawn = found.progress[found.progress["split"] == "eval"]["margin"]
    assert drawn.to_numpy() == pytest.approx(z.mean(axis=1), abs=1e-6)
    assert found.learning.gap.last == pytest.approx(
        (means["chosen"] - means["rejected"])[-1].mean(), abs=1e-6
    )

"""What is read from a run's probe pairs: losses and margins, against the objective step by step."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.theory import Responses, objective
from rewardshape.trace import read_trace
from rewardshape.verdict.judge import judge
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


def test_a_probe_set_that_does_not_move_is_not_trained_and_the_most_that_moved_is_told(write_run, tmp_path):
    """To rounding: 24 pairs that move by 0.0004 nats at most."""
    moved = 4e-4 * np.linspace(-1, 1, PAIRS) * (np.arange(STEPS) > 0)[:, None]
    sums = {side: -2.0 * TOKENS[side] - np.arange(PAIRS) / 7 + moved for side in TOKENS}
    folder = write_run(tmp_path / "run", sums, num_tokens=TOKENS)
    verdict = judge(folder)
    assert verdict.word == "not training"
    assert "no log-prob of the probe set moved by more than 0.0004 nats" in verdict.sentence
    moved[-1, 0] = 0.5
    folder = write_run(tmp_path / "other", {side: sums[side] + moved for side in TOKENS}, num_tokens=TOKENS)
    assert judge(folder).word != "not training"


def test_a_preference_that_was_never_there_is_not_lost(write_run, tmp_path):
    """Chosen falls and half of the pairs are in order, by chance once more of them; in another run all were."""
    rng = np.random.default_rng(4)
    words = []
    for highest in (0.625, 1.0):
        ahead = np.tile(np.r_[np.ones(12), -np.ones(12)], (STEPS, 1))
        ahead[2, : int(highest * PAIRS)] = 1.0
        chosen = -2.0 * TOKENS["chosen"] - 0.6 * np.arange(STEPS)[:, None] + 0.05 * rng.normal(size=PAIRS)
        sums = {"chosen": chosen, "rejected": (chosen / TOKENS["chosen"] - 0.1 * ahead) * TOKENS["rejected"]}
        words.append(str(judge(write_run(tmp_path / f"{highest}", sums, num_tokens=TOKENS)).word))
    assert words == ["displaced", "collapsed"]


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

"""What a page says of a run or a sweep, beside its verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rewardshape.analysis import chosen_checkpoint
from rewardshape.trace import read_trace
from rewardshape.verdict.findings import Tables, findings

PAIRS = 24
TOKENS = {"chosen": np.full(PAIRS, 6), "rejected": np.full(PAIRS, 8)}


def test_what_the_pairs_cannot_tell_is_undetermined_with_the_pairs_it_would_take(write_run, tmp_path, rng):
    still = {
        name: -10 + np.concatenate([np.zeros((1, PAIRS)), rng.normal(0, 1, (3, PAIRS))]) for name in TOKENS
    }
    still["chosen"][1:] -= still["chosen"][1:].mean(axis=1, keepdims=True) + 10.01
    found = findings(read_trace(write_run(tmp_path / "run", still, num_tokens=TOKENS)))
    assert "could hide in the scatter" in found.headline
    assert "prompts a fall that matters would be seen four times in five" in found.advice[0]


def test_a_rise_that_was_given_back_is_told(write_run, tmp_path):
    course = -10 + 6 * np.interp(np.arange(21), [0, 8, 20], [0, 0.4, 0.05])[:, None]
    sums = {"chosen": course + np.zeros(PAIRS), "rejected": -10 - np.arange(21)[:, None] + np.zeros(PAIRS)}
    found = findings(read_trace(write_run(tmp_path / "run", sums, num_tokens=TOKENS)))
    assert "risen to 0.4 nats per token above step 0 at step 8, and lost 0.35 of it since" in found.sentence
    assert "checkpoint of step 8" in found.advice[0]


def test_a_fall_that_came_back_is_the_headline(write_run, tmp_path, rng):
    noise = rng.normal(0, 0.3, PAIRS) * (np.arange(21) > 0)[:, None]
    noise -= noise.mean(axis=1, keepdims=True)
    course = -10 + 6 * np.interp(np.arange(21), [0, 8, 20], [0, -0.4, 0])[:, None]
    sums = {"chosen": course + noise, "rejected": -10 - 0.1 * np.arange(21)[:, None] + np.zeros(PAIRS)}
    found = findings(read_trace(write_run(tmp_path / "run", sums, num_tokens=TOKENS)))
    assert "fell 0.4 nats per token below step 0 (at step 8) and came back" in found.headline


def test_accuracy_that_stands_early_gives_the_step_and_what_the_rest_cost(write_run, tmp_path, rng):
    """Chosen falls by 0.05 nats per token a step; a quarter of the pairs come in order at step 2, the last never."""
    falls = -10 - 0.3 * np.arange(11)[:, None] + 0.01 * rng.normal(size=PAIRS) * (np.arange(11) > 0)[:, None]
    ahead = np.where(np.arange(PAIRS) < PAIRS // 2, 1.0, -1.0) * np.ones((11, 1))
    ahead[2:, PAIRS // 2 : 3 * PAIRS // 4] = 1.0
    sums = {"chosen": falls, "rejected": (1.2 * falls / 6 - ahead) * 8}
    found = findings(read_trace(write_run(tmp_path / "run", sums, num_tokens=TOKENS)))
    [said] = [line for line in found.advice if line.startswith("Stop earlier")]
    cost = float((falls[2] - falls[-1]).mean() / 6)
    assert "Accuracy first stood where it ended at step 2" in said
    assert f"the rest of the run cost another {cost:.3f} nats per token" in said
    assert "Try --steps 2:" in said
    gap = (sums["chosen"] / 6 - sums["rejected"] / 8).mean(axis=1)
    assert f"moved chosen minus rejected by {gap[-1] - gap[2]:+.3f}".replace("-", "−") in said


def test_of_a_sweep_the_answers_are_counted_and_the_step_to_take_is_judged_apart():
    """On the kept sweep: what the verdicts say of each run, and what the prompts that did not choose say."""
    trace = read_trace(Path(__file__).resolve().parents[2] / "figures" / "runs" / "embedded")
    tables = Tables(trace)
    found = findings(trace, tables)
    at_one = [verdict.evidence.answers[0] for verdict in tables.verdicts.values()]
    worse = [answer for answer in at_one if answer.word == "lost to worse answers"]
    assert 0 < len(worse) < 4
    assert f"worse in {len(worse)} of 4 runs" in found.answers[0]
    assert [line.split(" against")[0] for line in found.answers] == ["answers at T = 1", "greedy answers"]
    best = chosen_checkpoint(trace)
    best = best.loc[best["gold_of_choice"].idxmax()]  # by the prompts that do not judge
    which = f"step {best['step']} of α = {best['alpha']:g}".replace("-", "−")
    assert f"{best['gain']:+.2f} against step 0" in found.advice[0]
    sure = best["gain_low"] > 0
    assert (f"Stop at {which}" in found.advice[0]) == sure
    assert ("No step is shown to be better than step 0" in found.advice[0]) != sure
    assert "gold at T = 1" in found.advice[0]

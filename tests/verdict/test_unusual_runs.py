"""Runs that have only begun, that another trainer logs every few steps, that broke, or that cannot be paired."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from rewardshape.report.page import render
from rewardshape.trace import TraceWriter, read_trace
from rewardshape.verdict.findings import Tables, findings
from rewardshape.verdict.judge import judge
from rewardshape.verdict.words import Word

PAIRS = 40
TOKENS = {"chosen": np.full(PAIRS, 10), "rejected": np.full(PAIRS, 10)}


def course(steps: int, fall: float = 2.0, ratio: float = 3.0) -> dict[str, np.ndarray]:
    """Chosen falls by `fall` nats, rejected by `ratio` times as much, each pair at a pace of its own."""
    rng = np.random.default_rng(0)
    share, pace = np.linspace(0, 1, steps)[:, None], rng.normal(0, 0.3, PAIRS)
    start = -20 + rng.normal(size=PAIRS)
    return {"chosen": start + share * (pace - fall), "rejected": start - 1 + share * (pace - ratio * fall)}


def alpha_of(alpha: float) -> dict:
    return {"name": "alphapo", "parameters": {"alpha": alpha, "beta": 2.5, "gamma": 0.25}}


def test_a_loss_that_is_logged_every_ten_steps_is_not_lost_between_them(write_run, tmp_path):
    logged = {step: {"loss": 0.6, "mean_over_steps": 10} for step in (10, 20)}
    run = write_run(tmp_path / "run", course(26), num_tokens=TOKENS, metrics=logged)
    assert judge(run).word is Word.DISPLACED
    logged[20]["loss"] = float("nan")
    verdict = judge(write_run(tmp_path / "lost", course(26), num_tokens=TOKENS, metrics=logged))
    assert verdict.word is Word.BROKEN
    assert "from step 20 to the end" in verdict.sentence


def test_the_first_step_of_a_warm_up_is_no_run_that_does_not_train(write_run, tmp_path):
    still = {name: np.repeat(sums[:1], 2, axis=0) for name, sums in course(2).items()}
    for rate, word in ((0.0, Word.NOT_DISPLACED), (1e-4, Word.NOT_TRAINING)):
        told = {1: {"loss": 0.6, "learning_rate": rate}}
        run = write_run(tmp_path / f"{rate}", still, num_tokens=TOKENS, metrics=told)
        assert judge(run).word is word


def test_after_step_0_nothing_is_known_and_nothing_advised(write_run, tmp_path):
    verdict = judge(write_run(tmp_path / "run", course(1), num_tokens=TOKENS, status="running"))
    assert verdict.word is Word.UNDETERMINED
    assert "only step 0 is measured so far" in verdict.sentence
    assert not any("--probe-pairs" in line for line in verdict.advice)


def test_prompts_are_counted_as_prompts(write_run, tmp_path):
    """64 pairs of 16 prompts, of which the prompts scatter: as many pairs a prompt, of more prompts."""
    pairs, rng = 64, np.random.default_rng(1)
    tokens = {name: np.full(pairs, 10) for name in TOKENS}
    moved = np.repeat(2 * rng.normal(size=16), 4)
    start = -20 + rng.normal(size=pairs)
    sums = {
        name: np.stack([start + share * (moved - moved.mean() - 0.2) for share in (0, 0.5, 1)])
        for name in tokens
    }
    sums["rejected"] -= np.array([0, 0.5, 1])[:, None]
    prompts = [
        {"pair_id": f"pairs.jsonl:{i + 1}", "prompt": f"q{i // 4}", "responses": {}} for i in range(pairs)
    ]
    verdict = judge(write_run(tmp_path / "run", sums, num_tokens=tokens, texts=prompts))
    assert verdict.word is Word.UNDETERMINED
    [said] = [line for line in verdict.advice if "--probe-pairs" in line]
    needed, asked = map(int, re.search(r"about (\d+) prompts .* --probe-pairs (\d+)", said).groups())
    assert "(there were 16)" in said
    assert asked == 4 * needed > 64


def test_of_a_handful_of_pairs_no_power_is_claimed(write_run, tmp_path):
    few = {name: sums[:, :4] for name, sums in course(3).items()}
    verdict = judge(write_run(tmp_path / "run", few, num_tokens={name: np.full(4, 10) for name in few}))
    assert any(line.startswith("Measure more probe pairs: an interval for others") for line in verdict.advice)


def test_of_a_broken_run_the_last_finite_step_is_told(write_run, tmp_path):
    sums = course(4)
    for values in sums.values():
        values[-1] = np.nan
    found = findings(read_trace(write_run(tmp_path / "run", sums, num_tokens=TOKENS)))
    assert "100% of the chosen responses fell" in found.sentence
    for alpha, broken in ((0.0, False), (0.5, False), (1.0, True)):
        own = course(4, fall=2 + alpha)
        if broken:
            own["chosen"][-1] = np.nan
        write_run(tmp_path / "sweep" / f"alpha={alpha:g}", own, num_tokens=TOKENS, objective=alpha_of(alpha))
    said = findings(read_trace(tmp_path / "sweep")).sentence
    assert "nan" not in said
    assert "(α = 0.5, " in said
    assert "100% of the pairs fell" in said


@pytest.fixture
def sweep(write_run, tmp_path) -> Path:
    for alpha in (0.0, 1.0):
        folder = tmp_path / "sweep" / f"alpha={alpha:g}"
        write_run(folder, course(4, fall=2 + alpha), num_tokens=TOKENS, objective=alpha_of(alpha))
    return tmp_path / "sweep"


def test_a_run_that_has_only_its_head_is_waited_for(sweep):
    whole = read_trace(sweep)
    assert whole.begun() is whole  # tables are made once for a trace
    before = findings(whole)
    folder = sweep / "alpha=2"
    folder.mkdir()
    head = {
        name: [value] * 2 for name, value in (("pair_id", "p"), ("num_tokens", 10), ("ref_logp_sum", None))
    }
    with TraceWriter(folder, {**head, "response": ["chosen", "rejected"]}):
        pass
    manifest = {"objective": alpha_of(2.0), "run": {"seed": 0}, "status": "running"}
    (folder / "run.json").write_text(json.dumps(manifest))
    assert findings(read_trace(sweep)) == before
    assert "α = 1" in render(read_trace(sweep))


def test_settings_on_other_pairs_are_not_paired(write_run, sweep):
    others = [f"other:{i}" for i in range(PAIRS)]
    shutil.rmtree(sweep / "alpha=1")
    again = course(4, fall=3)
    write_run(sweep / "alpha=1", again, num_tokens=TOKENS, objective=alpha_of(1.0), pair_ids=others)
    assert "were measured on other probe pairs" in findings(read_trace(sweep)).sentence


def test_runs_that_state_no_seed_are_compared_and_one_common_seed_is_the_one(write_run, sweep):
    for alpha in (0.0, 1.0):
        file = sweep / f"alpha={alpha:g}" / "run.json"
        file.write_text(file.read_text().replace('"run": {"seed": 0}', '"run": {}'))
    assert "over 40 prompts" in findings(read_trace(sweep)).sentence
    # For a margin of 1 chosen gives up 0.5 at α = 0 and 1 at α = 1; the seed that α = 1 lacks would say otherwise.
    for alpha, seed, ratio in ((0.0, 0, 1.2), (0.0, 1, 3.0), (1.0, 1, 2.0)):
        folder = sweep.parent / "seeds" / f"alpha={alpha:g}-seed={seed}"
        write_run(
            folder, course(4, ratio=ratio), num_tokens=TOKENS, objective=alpha_of(alpha), run={"seed": seed}
        )
    found = Tables(read_trace(sweep.parent / "seeds")).contrast
    assert found.best == "alpha=0"
    assert found.found.difference[-1] == pytest.approx(found.margins[-1] / 2, rel=0.1)


def test_a_run_that_was_better_before_training_is_given_one_advice(write_run, tmp_path):
    """Held out it is worse than at the start: no step of it is named as the one to stop at."""
    sums = course(11, fall=3.0)
    sums["rejected"] = sums["chosen"] - 1 + np.linspace(0, 2, 11)[:, None]
    found = findings(read_trace(write_run(tmp_path / "run", sums, num_tokens=TOKENS)))
    assert not any(line.startswith("Stop earlier") for line in found.advice)

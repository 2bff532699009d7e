"""What a log of rows shows: levels of one window, what is not finite, what was held out, ties, another start."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from rewardshape.logs.read import Log, read_logs
from rewardshape.verdict.judge import judge
from rewardshape.verdict.of_log import evidence_of_log


def test_an_evaluation_set_that_changes_is_said_and_the_rewards_are_used(make):
    log = make(np.linspace(0, -1.5, 12), split="eval")
    drawn = np.random.default_rng(0).normal(-200, 15, 12)
    log.table["logp_chosen"] = drawn + log.table["reward_chosen"] / 0.1
    verdict = judge(log)
    assert verdict.word == "displaced"
    assert verdict.unit == "reward"
    assert verdict.to_dict()["depth_nats"] is None
    assert verdict.to_dict()["fixed_set"] is False
    assert "logps − rewards/β is not constant" in " ".join(verdict.evidence.cannot_tell)
    assert judge(log, beta=0.1).to_dict()["depth_nats"] == pytest.approx(150 / 11)  # the last 3 of 12


def test_chosen_rejected_and_margin_are_of_one_window(log_of):
    rng = np.random.default_rng(1)
    chosen, margin = (
        -0.05 * np.arange(60) + rng.normal(0, 0.5, 60),
        0.03 * np.arange(60) + rng.normal(0, 0.5, 60),
    )
    verdict = judge(
        log_of(
            reward_chosen=chosen,
            reward_rejected=chosen - margin,
            margin=margin,
            loss=np.full(60, 0.5) - 0.004 * np.arange(60),
        )
    )
    evidence = verdict.evidence
    assert evidence.chosen.value - evidence.rejected.value == pytest.approx(evidence.learning.margin.last)


def test_not_finite_to_the_end_is_broken_and_says_since_when(tmp_path):
    rows = [
        {"step": i, "loss": 0.69 - 0.01 * i, "rewards/chosen": 0.01 * i, "rewards/rejected": -0.02 * i}
        for i in range(1, 21)
    ]
    for row in rows[12:]:  # what a trainer writes that filters NaN losses
        row |= {"loss": 0.0, "rewards/chosen": math.nan, "rewards/rejected": math.nan}
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    verdict = judge(path)
    assert verdict.word == "broken"
    assert verdict.to_dict()["nonfinite_since"] == 13
    assert "from step 13 to the end" in verdict.sentence
    rows[-1] |= {"loss": 0.5, "rewards/chosen": 0.1, "rewards/rejected": -0.4}
    path.write_text("\n".join(map(json.dumps, rows)))
    assert judge(path).word != "broken"  # finite again


def test_a_kto_batch_without_good_examples_is_not_broken(tmp_path):
    rows = [
        {"step": i, "loss": 0.5, "kl": 0.1, "rewards/chosen": 0.01 * i, "rewards/rejected": -0.02 * i}
        for i in range(1, 21)
    ]
    rows[-1] |= {"rewards/chosen": math.nan}
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert judge(path).word != "broken"


def test_nan_steps_are_listed_and_the_rest_is_judged(tmp_path):
    rows = [
        {"step": 10 * i, "loss": 0.6, "rewards/chosen": -0.2 * i, "rewards/margins": 0.1 * i}
        for i in range(1, 13)
    ]
    rows[4] |= {"loss": math.nan, "rewards/chosen": math.nan}
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    verdict = judge(read_logs(path)[0])
    assert verdict.word == "displaced"
    assert verdict.evidence.nonfinite_steps == (50,)
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_ties_are_not_a_collapse(log_of):
    """Half of the pairs are the same after truncation: accuracy stays at one half while the margin grows."""
    margin = np.linspace(0.002, 0.55, 20)
    log = log_of(
        loss=np.log(2) - margin / 3.5, margin=margin, accuracy=np.linspace(0.3, 0.5, 20),
        reward_chosen=np.linspace(0, -0.6, 20), reward_rejected=np.linspace(0, -0.6, 20) - margin,
    )  # fmt: skip
    verdict = judge(log)
    assert verdict.word == "displaced"
    assert re.search(r"(?i)up to 5\d% of the pairs seem to be ties", " ".join(verdict.to_dict()["story"]))
    assert "same after truncation" in verdict.advice[0]


def test_an_accuracy_without_a_loss_names_the_best_row():
    table = pd.DataFrame({"split": "eval", "step": [10, 20, 30], "accuracy": [0.6, 0.8, 0.7]})
    held = evidence_of_log(Log("made", "made", table)).held_out
    assert (held.measure, held.best_step, held.worse) == ("rewards/accuracies", 20, None)


def test_what_is_left_of_the_gradient_is_the_mean_weight_of_the_pairs(make):
    """σ(−m) over its value at m = 0, for pairs of one margin."""
    margin = np.linspace(4.0, 6.5, 8)
    left = evidence_of_log(
        make(np.zeros(8), margin=margin, split="eval", accuracy=1.0)
    ).learning.gradient_left
    assert left == pytest.approx(1 / (1 + math.exp(6.5)) / 0.5, rel=1e-12)


def test_what_was_not_logged_is_listed_under_the_trainer_s_names(make):
    log = make(np.linspace(0, -1, 12))
    assert evidence_of_log(log).missing == ("logps/chosen", "logps/rejected", "grad_norm", "evaluation rows")
    assert evidence_of_log(log).rows == "12 training rows, steps 10 to 120"


def test_what_both_splits_break_is_said_once(make):
    """The margin is not chosen minus rejected, in either split."""
    rows = [
        make(np.linspace(0, -1, 12), split=split, reward_rejected=0.0).table for split in ("train", "eval")
    ]
    checks = evidence_of_log(Log("made", "made", pd.concat(rows, ignore_index=True))).checks
    assert len(set(checks)) == len(checks)
    said = [check for check in checks if "rewards/margins is not chosen minus rejected" in check]
    assert len(said) == 1
    assert said[0].startswith("evaluation: ")


def test_learning_is_told_of_the_rows_that_the_word_is_from(make):
    """One early evaluation leaves the word to the batches, and so the loss; a late one takes both."""
    batches = make(np.linspace(0, -1, 12), loss=0.25).table
    for step, loss in ((10, 0.25), (120, 0.5)):
        row = pd.DataFrame(
            {"split": "eval", "step": [step], "loss": 0.5, "reward_chosen": -0.5, "margin": 1.0}
        )
        evidence = evidence_of_log(Log("made", "made", pd.concat([batches, row], ignore_index=True)))
        assert ("training batches" in evidence.basis) == (step == 10)
        assert evidence.evaluated
        assert evidence.learning.loss.last == pytest.approx(loss)


def at_beta_zero(split, logps, **more):
    """Rewards of 0 and a loss of ln 2 beside log-probabilities."""
    rows = len(logps)
    series = {
        "logp_chosen": logps,
        "logp_rejected": np.array(logps) - 20,
        "reward_chosen": 0.0,
        "reward_rejected": 0.0,
    }
    table = pd.DataFrame(
        {"split": split, "step": 10 * np.arange(1, rows + 1), "loss": np.log(2), "margin": 0.0}
    )
    return Log("made", "made", table.assign(**series), settings=more)


def test_beta_of_zero_is_named_where_the_text_states_it_and_where_a_fixed_set_shows_it():
    stated = judge(at_beta_zero("train", [-100.0, -140.0, -90.0, -120.0], beta=0.0))
    shown = judge(at_beta_zero("eval", [-100.0, -104.0, -109.0]))
    for verdict in (stated, shown):
        assert verdict.word == "not training"
        assert "β is 0" in verdict.sentence
        assert verdict.advice[0].startswith("Set β above 0")
        assert verdict.to_dict()["beta"] == 0
    frozen = judge(
        at_beta_zero("train", [-100.0, -140.0, -90.0, -120.0])
    )  # of batches it may be frozen weights
    assert frozen.word == "not training"
    assert "trainable" in frozen.advice[0]


def test_beta_of_zero_beside_another_loss_is_judged_by_log_probabilities():
    log = at_beta_zero("eval", [-100.0, -104.0, -109.0, -113.0])
    log.table["loss"] = [2.0, 1.7, 1.5, 1.4]  # a likelihood term that still teaches
    verdict = judge(log)
    assert (verdict.word, verdict.unit) == ("displaced", "nats")
    assert verdict.to_dict()["change"] == -13


def test_batches_without_good_or_bad_examples_are_counted_and_no_fault(tmp_path):
    """Unpaired examples (KTO): a batch of one kind has no mean of the other."""
    lines = []
    for i in range(40):
        chosen, rejected = ("nan", -0.1 * i) if i % 8 == 3 else (-0.05 * i, "nan" if i % 8 == 5 else -0.1 * i)
        lines.append(
            f"{{'loss': {0.5 - i / 200}, 'rewards/chosen': {chosen}, 'rewards/rejected': {rejected}, 'kl': {0.1 * i}, "
            f"'logits/chosen': {chosen}, 'epoch': {i / 40}}}"
        )
    path = tmp_path / "kto.log"
    path.write_text("\n".join(lines))
    verdict = judge(path)
    assert verdict.word == "displaced"
    said = verdict.to_dict()
    assert "5 rows held no chosen examples, so their means were not finite." in said["story"]
    assert "5 rows held no rejected examples, so their means were not finite." in said["story"]
    assert said["nonfinite_steps"] == []
    assert not any("float16" in line for line in said["advice"])


def test_a_fixed_set_that_went_far_and_came_back_recovered_and_is_exact(make):
    """Half a sine wave of 8 nats on a fixed set with a known reference: the last row is above 0 again."""
    dip = -0.8 * np.sin(np.pi * np.arange(1, 11) / 10) + 0.02
    log = make(dip, split="eval")
    log.table["logp_chosen"] = -200 + log.table["reward_chosen"] / 0.1
    log.table["logp_rejected"] = -220 + log.table["reward_rejected"] / 0.1
    verdict = judge(log)
    assert (verdict.word, verdict.how_sure, verdict.evidence.exact) == ("recovered", "clear", True)
    assert verdict.evidence.lowest.value == pytest.approx(-7.8, abs=0.01)
    assert verdict.interval == pytest.approx((0.2, 0.2), abs=1e-6)


@pytest.mark.parametrize(
    ("chosen", "word", "exact"),
    [
        (-0.2 * np.sin(np.pi * np.arange(12) / 11), "recovered", True),  # step 0, a dip of 2 nats, and back
        (-0.2 * np.sin(1.1 * np.pi * np.arange(12) / 11), "recovered", True),  # and beyond: it crosses once
        (0.1 * np.cos(np.pi * np.arange(12)) * (np.arange(12) > 0), None, False),  # wobbles about its start
        (np.array([0.0, -0.05, 0.04]), None, False),  # two evaluations on both sides
    ],
)
def test_only_a_run_that_crosses_its_start_again_and_again_wobbles(make, chosen, word, exact):
    log = make(chosen, split="eval", first=0)
    log.table["logp_chosen"] = -200 + log.table["reward_chosen"] / 0.1
    log.table["logp_rejected"] = -220 + log.table["reward_rejected"] / 0.1
    verdict = judge(log)
    assert verdict.evidence.exact is exact
    assert word is None or (verdict.word, verdict.how_sure) == (word, "clear")


def test_a_held_out_loss_that_rises_without_training_is_not_called_over_optimized(make):
    log = make(-0.1 * np.arange(1, 7), split="eval", margin=np.linspace(0.6, 0.1, 6))
    held, verdict = evidence_of_log(log).held_out, judge(log)
    assert (held.worse, held.over_optimized, verdict.over_optimized) == (True, False, False)
    assert "has become worse since, while the margin did not grow" in " ".join(verdict.to_dict()["story"])


def test_questions_are_listed_only_where_they_may_be_asked(make, log_of):
    where = "where the lost probability went"
    assert where in " ".join(judge(make(np.linspace(0, -1.5, 20), noise=0.05)).cannot_tell)
    rose = judge(make(np.linspace(0, 1.5, 20), noise=0.05)).cannot_tell
    assert where not in " ".join(rose)
    assert any("whether answers got worse" in line for line in rose)
    still = judge(log_of(loss=np.full(20, math.log(2)), margin=np.zeros(20), grad_norm=np.zeros(20)))
    assert (still.word, still.cannot_tell) == ("not training", [])


def test_a_reference_that_is_not_the_start_comes_first_in_the_advice(make):
    """An adapter that was not merged: rewards are far from 0 in the first row, and pairs count as learnt."""
    verdict = judge(
        make(np.linspace(8.8, 6.5, 40), noise=0.05, margin=np.linspace(7.0, 14.0, 40), accuracy=1.0)
    )
    assert verdict.word == "saturated"
    assert verdict.advice[0].startswith("Check the reference before all else")
    assert not any(
        "Check the reference" in line for line in judge(make(np.linspace(0, -1.5, 40), noise=0.05)).advice
    )


def test_one_row_has_no_onset(make):
    verdict = judge(make([-1.4], split="eval", margin=[1.3]))
    assert (verdict.word, verdict.evidence.exact, verdict.onset_step) == ("displaced", True, None)
    assert "had begun" not in " ".join(verdict.to_dict()["story"])

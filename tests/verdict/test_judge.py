"""The verdict on real logs agrees with their published readings, and on made logs with how they were made."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from rewardshape.logs.read import Log, read_logs
from rewardshape.verdict.judge import judge
from rewardshape.verdict.recovery import is_per_token, recover_reference
from rewardshape.verdict.sanity import effective_scale, sanity_checks, target_margin


def make(chosen, *, split="train", margin=None, noise=0.0, seed=0, first=10, **columns):
    """A log of a made run: chosen rewards by row, and a margin that grows unless it is given."""
    rng = np.random.default_rng(seed)
    chosen = (
        np.asarray(chosen, dtype=float) + rng.normal(0, noise, len(chosen))
        if noise
        else np.asarray(chosen, float)
    )
    margin = np.linspace(0.05, 1.5, len(chosen)) if margin is None else np.asarray(margin, float)
    table = pd.DataFrame(
        {
            "split": split,
            "step": first + 10 * np.arange(len(chosen)),
            "loss": np.logaddexp(0, -margin),
            "accuracy": 0.75,
            "margin": margin,
            "reward_chosen": chosen,
            "reward_rejected": chosen - margin,
            **columns,
        }
    )
    return Log("made", "made", table)


# --- real logs and their readings --------------------------------------------------------------------------------

READINGS = {
    # file: word, depth in nats (the log's own last row against the reference), β, reference, first and last onset
    "clean-code-qwen-dpo.trainer_state.json": ["not displaced", -0.27, 0.05, -39.59, None],
    "deltacoder-9b-dpo.train.log": ["displaced", 14, 0.1, None, (10, 90)],
    "zephyr-7b-alpha.model-card.md": ["displaced", 10.13, 0.05, -287.00, (100, 100)],
    "mamba-2.8b-zephyr.model-card.md": ["displaced", 4.60, 0.1, -354.57, (800, 800)],
    "learning-dynamics-pythia410m.prob_train_metrics.json": ["not displaced", -5.64, None, None, None],
}


@pytest.mark.parametrize("file", READINGS)
def test_a_real_log_is_judged_as_it_reads(shared, file):
    word, depth, beta, reference, onset = READINGS[file]
    (log,) = read_logs(shared / "logs" / file)
    verdict = judge(log)
    assert verdict.word == word
    assert verdict.to_dict()["depth_nats"] == pytest.approx(depth, rel=0.02)
    assert verdict.evidence.reference.beta == (pytest.approx(beta, rel=1e-3) if beta else None)
    assert verdict.evidence.reference.chosen == (pytest.approx(reference, abs=0.01) if reference else None)
    assert verdict.evidence.per_token is False
    assert (verdict.onset_step is None) if onset is None else onset[0] <= verdict.onset_step <= onset[1]


def test_four_losses_in_one_table_are_told_apart(shared):
    logs = read_logs(shared / "logs" / "four-loss-types-mistral7b.readme-table.md")
    found = {log.name.split(" · ")[1]: judge(log) for log in logs}
    words = {name: verdict.word for name, verdict in found.items()}
    assert words == {
        "sigmoid": "displaced",
        "kto pair": "not displaced",
        "ipo": "displaced",
        "hinge": "displaced",
    }
    assert {name: verdict.evidence.per_token for name, verdict in found.items()} == {
        "sigmoid": False, "kto pair": False, "ipo": True, "hinge": False,
    }  # fmt: skip
    assert found["sigmoid"].to_dict()["depth_nats"] == pytest.approx(78.17, abs=0.01)  # 7.81683 / 0.1
    assert all(verdict.evidence.reference.beta == pytest.approx(0.1, rel=1e-4) for verdict in found.values())


def test_a_small_fall_and_a_saturated_run_in_one_card_are_told_apart(shared):
    notux, geitje = map(
        judge, read_logs(shared / "logs" / "notux-8x7b-and-geitje-ultra.model-card-tables.md")
    )
    assert notux.word == "displaced"
    assert notux.to_dict()["depth_nats"] == pytest.approx(2.27, abs=0.01)
    assert notux.evidence.lowest.step == 200
    assert geitje.word == "saturated"
    assert geitje.to_dict()["depth_nats"] == pytest.approx(21.43, abs=0.01)


def test_a_gradient_of_exactly_zero_is_not_training(shared):
    (log,) = read_logs(shared / "logs" / "reference-dpo-stdout-excerpt.log")
    verdict = judge(log)
    assert verdict.word == "not training"
    assert "exactly 0 in 12 of 12 rows" in verdict.reasons[0]


def test_a_margin_alone_leaves_displacement_open_and_its_unit_is_seen(shared):
    (log,) = read_logs(shared / "logs" / "dpo-from-scratch-gpt2-355m.train.log")
    verdict = judge(log)
    assert verdict.word == "undetermined"
    assert {"rewards/chosen", "logps/chosen"} <= set(verdict.evidence.missing)
    assert verdict.to_dict()["depth_nats"] is None
    assert "not yet multiplied by β" in verdict.evidence.checks[0]  # β was 0.1
    assert effective_scale(log.split("eval")) == pytest.approx(0.1, abs=0.015)


def test_a_rise_and_fall_is_said_and_the_peak_named_best(shared):
    (log,) = read_logs(shared / "logs" / "learning-dynamics-pythia410m.prob_train_metrics.json")
    verdict = judge(log)
    assert verdict.evidence.highest.step == verdict.best_step == 25
    assert "row 25" in verdict.advice[0]
    assert len(verdict.evidence.nonfinite_steps) == log.nonfinite["step"].nunique() > 0


# --- made logs: what was put in is found -------------------------------------------------------------------------


def test_a_late_fall_is_dated_and_measured():
    chosen = np.where(np.arange(60) < 30, 0.0, -0.05 * (np.arange(60) - 30))
    verdict = judge(make(chosen, noise=0.1), beta=0.1)
    assert verdict.word == "displaced"
    assert 250 <= verdict.onset_step <= 400  # the fall begins at step 310
    assert verdict.to_dict()["depth_nats"] == pytest.approx(12.0, abs=1.5)  # the mean of the last fifth
    assert verdict.how_sure == "clear"


def test_a_dip_that_was_regained_is_recovered():
    chosen = -1.5 * np.sin(np.linspace(0, np.pi, 50)) ** 4
    verdict = judge(make(chosen, noise=0.05))
    assert verdict.word == "recovered"
    assert verdict.evidence.lowest.step == pytest.approx(255, abs=20)


def test_three_training_rows_that_fall_steadily_are_enough():
    assert judge(make([0.0, -1.0, -2.0])).word == "displaced"
    assert judge(make([0.0, -1.9, -0.8])).word == "undetermined"


@pytest.mark.parametrize("rows", [6, 20, 80])
def test_pure_noise_is_rarely_called_displaced(rows):
    words = [judge(make(np.zeros(rows), noise=0.2, seed=seed)).word for seed in range(20)]
    assert words.count("displaced") + words.count("recovered") <= 3


def test_slow_wander_of_training_rows_is_not_taken_for_independent_rows():
    """Rows that wander with a correlation of 0.9 hold far fewer independent values than they number."""
    words = []
    for seed in range(15):
        shocks = np.random.default_rng(seed).normal(0, 0.1, 60)
        wander = np.zeros(60)
        for i in range(1, 60):
            wander[i] = 0.9 * wander[i - 1] + shocks[i]
        words.append(judge(make(wander - wander.mean())).word)
    assert words.count("displaced") <= 5


def test_batch_logps_alone_are_too_noisy_to_decide():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"split": "train", "step": np.arange(1, 31), "logp_chosen": rng.normal(-150, 20, 30)}
    )
    verdict = judge(Log("made", "made", table))
    assert verdict.word == "undetermined"
    assert "could hide in the scatter" in verdict.reasons[0]


def test_a_fall_without_preference_is_collapsed():
    chosen = np.linspace(0, -8, 20)
    margin = np.r_[np.linspace(0, 1, 10), np.linspace(1, -0.1, 10)]
    verdict = judge(
        make(
            chosen, margin=margin, split="eval", accuracy=np.r_[np.full(10, 0.8), np.linspace(0.8, 0.49, 10)]
        )
    )
    assert verdict.word == "collapsed"


def test_vanished_loss_is_saturated_whatever_chosen_did():
    margin = np.linspace(2, 12, 10)
    for end in (-3.0, 3.0):
        verdict = judge(make(np.linspace(0, end, 10), margin=margin, split="eval", accuracy=0.99))
        assert verdict.word == "saturated"


def test_constant_loss_is_not_training_whatever_the_accuracy():
    verdict = judge(make(np.zeros(6), margin=np.zeros(6), accuracy=0.9))
    assert verdict.word == "not training"
    assert "0.6931 in every row" in verdict.reasons[0]


def test_a_loss_of_zero_without_margins_is_saturated_if_accuracy_is_perfect_and_dead_if_not():
    for accuracy, word in ((1.0, "saturated"), (0.6, "not training")):
        table = pd.DataFrame({"split": "train", "step": range(1, 7), "loss": 0.0, "accuracy": accuracy})
        assert judge(Log("made", "made", table)).word == word


def test_zero_gradients_with_moving_rewards_are_a_logging_fault_and_not_believed():
    assert judge(make(np.linspace(0, -2, 20), grad_norm=0.0)).word == "displaced"


@pytest.mark.parametrize(
    ("rewards", "word"),
    [
        ([-0.5, -1.5], "displaced"),
        ([-1.6, -1.5], "displaced"),
        ([0.8, 0.5], "not displaced"),
        ([-0.5, -0.1], "displaced"),
    ],
)
def test_two_evaluations_tell_where_they_agree_about_the_reference(rewards, word):
    assert judge(make(rewards, split="eval", margin=[0.4, 0.6])).word == word


def test_one_evaluation_against_the_reference_is_enough_and_one_batch_is_not():
    verdict = judge(make([-1.0], split="eval"), beta=0.1)
    assert verdict.word == "displaced"
    assert verdict.interval == (-10.0, -10.0)
    assert "exact for these pairs" in verdict.sentence
    assert judge(make([-1.0])).word == "undetermined"


def test_held_out_loss_that_turns_is_over_optimized():
    steps = np.arange(12)
    loss = 0.69 - 0.05 * np.minimum(steps, 5) + 0.04 * np.maximum(steps - 5, 0)
    verdict = judge(make(-0.1 * steps, split="eval", loss=loss))
    assert verdict.over_optimized is True
    assert verdict.best_step == 60
    assert "step 60" in verdict.advice[0]
    assert judge(make(-0.1 * steps, split="eval")).over_optimized is False
    assert judge(make(-0.1 * steps)).over_optimized is None


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


# --- recovery ----------------------------------------------------------------------------------------------------


def fixed_set(beta, reference, changes, *, digits=4):
    chosen = reference[0] + np.asarray(changes[0], float)
    rejected = reference[1] + np.asarray(changes[1], float)
    table = pd.DataFrame(
        {
            "logp_chosen": chosen,
            "logp_rejected": rejected,
            "reward_chosen": beta * (chosen - reference[0]),
            "reward_rejected": beta * (rejected - reference[1]),
        }
    )
    return table.round(digits)


@pytest.mark.parametrize("beta", [0.01, 0.1, 2.5])
def test_beta_and_reference_come_back_from_rounded_rows_within_their_spread(beta):
    table = fixed_set(beta, (-200.0, -230.0), ([-1.0, -4.0, -7.5], [-3.0, -9.0, -15.0]))
    found = recover_reference(table)
    assert found.holds is True
    assert found.free is False
    assert abs(found.beta - beta) < 4 * found.beta_spread
    assert found.chosen == pytest.approx(-200.0, abs=5e-5 / beta + 4 * found.spread)
    assert found.rejected == pytest.approx(-230.0, abs=5e-5 / beta + 4 * found.spread)


def test_changing_batches_give_no_reference():
    rng = np.random.default_rng(0)
    reference = rng.normal(-200, 20, 30)
    change = np.linspace(0, -10, 30)
    table = pd.DataFrame({"logp_chosen": reference + change, "reward_chosen": 0.1 * change})
    found = recover_reference(table)
    assert found.holds is False
    assert found.chosen is None
    assert found.beta is None


def test_an_evaluation_set_that_changes_is_said_and_the_rewards_are_used():
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


@pytest.mark.parametrize("level", [-1.2, -240.0])
def test_rewards_through_the_origin_mean_no_reference_even_in_batches(level):
    logp = level * np.random.default_rng(0).uniform(0.7, 1.3, (20, 2))
    table = pd.DataFrame(
        np.c_[logp, 2.0 * logp], columns=["logp_chosen", "logp_rejected", "reward_chosen", "reward_rejected"]
    )
    found = recover_reference(table.round(3))
    assert found.free is True
    assert found.beta == pytest.approx(2.0, rel=2e-3)


def test_sums_and_per_token_means_are_told_apart():
    assert is_per_token(pd.DataFrame({"logp_chosen": [-1.2, -2.4]})) is True
    assert is_per_token(pd.DataFrame({"logp_chosen": [-110.0, -90.0]})) is False
    assert is_per_token(pd.DataFrame({"loss": [0.7]})) is None


# --- identities --------------------------------------------------------------------------------------------------


def table_of_pairs(beta_times_difference, *, scale=1.0, gamma=0.0):
    """Mean loss and mean margin of made pairs, row by row, from the logistic loss of every pair."""
    pairs = np.asarray(beta_times_difference, float)
    return pd.DataFrame(
        {
            "loss": np.logaddexp(0, -(pairs - gamma)).mean(axis=1),
            "margin": pairs.mean(axis=1) / scale,
            "reward_chosen": 0.0,
            "reward_rejected": -pairs.mean(axis=1) / scale,
        }
    )


def test_an_honest_log_breaks_no_identity():
    pairs = (
        np.random.default_rng(0).normal(0, 1, (12, 64)) * np.linspace(0, 1, 12)[:, None]
        + np.linspace(0, 2, 12)[:, None]
    )
    assert sanity_checks(table_of_pairs(pairs), reference_free=False, beta=0.1) == []


def test_a_summed_first_loss_is_seen():
    table = pd.DataFrame(
        {"loss": [4 * math.log(2), 2.5], "reward_chosen": [0.0, 0.1], "reward_rejected": [0.0, -0.1]}
    )
    assert "4 × ln 2" in sanity_checks(table, reference_free=False, beta=0.1)[0]


def test_a_loss_below_jensen_s_bound_is_not_logistic():
    table = pd.DataFrame({"loss": [0.5, 0.3, 0.2], "margin": [0.2, 0.3, 0.4]})
    assert "no logistic loss" in " ".join(sanity_checks(table, reference_free=False, beta=0.1))


def test_the_scale_of_margins_logged_without_beta_is_found():
    pairs = np.linspace(0, 0.08, 10)[:, None] + np.zeros((10, 8))
    assert effective_scale(table_of_pairs(pairs)) == pytest.approx(1.0, rel=0.02)
    assert effective_scale(table_of_pairs(pairs, scale=0.1)) == pytest.approx(0.1, rel=0.02)


def test_the_target_margin_is_given_in_both_conventions():
    pairs = np.linspace(0, 0.5, 10)[:, None] + np.zeros((10, 8))
    sentence = target_margin(table_of_pairs(pairs, gamma=1.25), 2.5)
    assert "at most 1.25 in reward units, that is γ/β = 0.50" in sentence


# --- words for what really happens -------------------------------------------------------------------------------


def log_of(**series):
    """A training log of given series."""
    rows = len(next(iter(series.values())))
    return Log(
        "made", "made", pd.DataFrame({"split": "train", "step": 10 * np.arange(1, rows + 1), **series})
    )


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


def test_ties_are_not_a_collapse():
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


def test_a_run_that_starts_below_chance_and_improves_is_not_collapsed():
    margin = np.linspace(-2.0, -0.5, 20)
    log = make(np.linspace(0, -3, 20), margin=margin, split="eval", accuracy=np.linspace(0.3, 0.45, 20))
    assert judge(log).word == "displaced"


def test_rewards_far_from_zero_in_the_first_rows_are_not_a_rise():
    """The reference is another model: the first rows are the start, and from there chosen fell."""
    chosen = np.linspace(8.8, 6.5, 50)
    log = log_of(
        reward_chosen=chosen, reward_rejected=np.linspace(5.0, -7.6, 50), margin=chosen - np.linspace(5.0, -7.6, 50),
        loss=np.linspace(0.27, 0.1, 50), accuracy=0.9 + np.zeros(50),
    )  # fmt: skip
    verdict = judge(log)
    assert verdict.word == "displaced"
    assert verdict.evidence.baseline.startswith("the first")
    assert verdict.evidence.chosen.value == pytest.approx(6.5 - 8.8, abs=0.5)
    story = " ".join(verdict.to_dict()["story"])
    assert "the reference is not the model that the run began with" in story
    assert "risen" not in story


def test_every_checkpoint_worse_than_none_is_said():
    log = make(
        [-2.5, -3.2, -1.4, -1.6],
        split="eval",
        margin=[0.5, 0.37, 0.13, 0.79],
        loss=[0.739, 0.731, 0.842, 0.708],
    )
    verdict = judge(log)
    assert verdict.word == "displaced"
    assert "never below what no training gives" in " ".join(verdict.to_dict()["story"])
    assert verdict.advice[0].startswith("No checkpoint is better than the model before training")


def test_more_rows_never_make_the_same_fall_less_sure():
    falls = [-2.5, -3.2, -1.36, -1.63, -2.0, -1.4]
    for rows in range(1, 7):
        verdict = judge(make(falls[:rows], split="eval"), beta=0.1)
        assert (verdict.word, verdict.how_sure) == ("displaced", "clear")
        assert verdict.interval == (pytest.approx(10 * falls[rows - 1]),) * 2


def test_a_saturated_run_that_fell_says_so():
    verdict = judge(
        make(np.linspace(0, -7.6, 10), margin=np.linspace(2, 12, 10), split="eval", accuracy=0.99)
    )
    assert verdict.word == "saturated"
    assert "ended 7.6 reward below the reference" in verdict.sentence
    assert any("Chosen also lost probability" in line for line in verdict.advice)
    assert "0.0%" not in verdict.sentence


def test_not_displaced_carries_the_smallest_fall_that_would_have_been_seen():
    verdict = judge(make(np.zeros(200), noise=0.2))
    assert verdict.word == "not displaced"
    assert 0 < verdict.smallest_fall < verdict.evidence.matters
    assert (
        f"a fall of {verdict.smallest_fall:.3g} reward would have been seen four times in five"
        in verdict.sentence
    )
    assert not any("Nothing to mend" in line for line in verdict.advice)
    loose = judge(make(np.zeros(12), noise=0.6))
    assert loose.word == "undetermined"
    assert loose.how_sure == "weak"


def test_chosen_rejected_and_margin_are_of_one_window():
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


def test_orpo_implies_no_target_margin():
    rows = 10
    table = pd.DataFrame(
        {
            "split": "train",
            "step": np.arange(1, 11),
            "loss": 0.8,
            "margin": -0.016,
            "log_odds_chosen": -0.8,
            "accuracy": 0.0,
        }
    )
    assert rows == len(table)
    assert target_margin(table, 0.1) is None


@pytest.mark.parametrize(("start", "rows"), [(500, 1000), (0, 1000), (200, 400)])
def test_an_onset_has_an_interval_that_holds_it(start, rows):
    rng = np.random.default_rng(4)
    course = -np.maximum(np.arange(rows) - start, 0) / (rows - start)
    verdict = judge(make(course, noise=0.3, margin=np.linspace(0.05, 1.5, rows) + rng.normal(0, 0.3, rows)))
    truth = 10 + 10 * (start + 0.05 * (rows - start))
    low, high = verdict.onset_interval
    assert low <= truth <= high
    assert abs(verdict.onset_step - truth) < 0.06 * 10 * rows

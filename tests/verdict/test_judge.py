"""The verdict on real logs agrees with their published readings, and on made logs with how they were made."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rewardshape.logs.read import Log, read_logs
from rewardshape.verdict.judge import judge
from rewardshape.verdict.sanity import effective_scale

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
def test_a_real_log_is_judged_as_it_reads(real_log, file):
    word, depth, beta, reference, onset = READINGS[file]
    (log,) = read_logs(real_log(file))
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


def test_a_margin_alone_leaves_displacement_open_and_its_unit_is_seen(real_log):
    (log,) = read_logs(real_log("dpo-from-scratch-gpt2-355m.train.log"))
    verdict = judge(log)
    assert verdict.word == "undetermined"
    assert {"rewards/chosen", "logps/chosen"} <= set(verdict.evidence.missing)
    assert verdict.to_dict()["depth_nats"] is None
    assert "not yet multiplied by β" in verdict.evidence.checks[0]  # β was 0.1
    assert effective_scale(log.split("eval")) == pytest.approx(0.1, abs=0.015)


def test_a_rise_and_fall_is_said_and_the_peak_named_best(real_log):
    (log,) = read_logs(real_log("learning-dynamics-pythia410m.prob_train_metrics.json"))
    verdict = judge(log)
    assert verdict.evidence.highest.step == verdict.best_step == 25
    assert "row 25" in verdict.advice[0]
    assert len(verdict.evidence.nonfinite_steps) == log.nonfinite["step"].nunique() > 0


# --- made logs: what was put in is found -------------------------------------------------------------------------


def test_a_late_fall_is_dated_and_measured(make):
    chosen = np.where(np.arange(60) < 30, 0.0, -0.05 * (np.arange(60) - 30))
    verdict = judge(make(chosen, noise=0.1), beta=0.1)
    assert verdict.word == "displaced"
    assert 250 <= verdict.onset_step <= 400  # the fall begins at step 310
    assert verdict.to_dict()["depth_nats"] == pytest.approx(12.0, abs=1.5)  # the mean of the last fifth
    assert verdict.how_sure == "clear"


def test_a_dip_that_was_regained_is_recovered(make):
    chosen = -1.5 * np.sin(np.linspace(0, np.pi, 50)) ** 4
    verdict = judge(make(chosen, noise=0.05))
    assert verdict.word == "recovered"
    assert verdict.evidence.lowest.step == pytest.approx(255, abs=20)


def test_three_training_rows_that_fall_steadily_are_enough(make):
    assert judge(make([0.0, -1.0, -2.0])).word == "displaced"
    assert judge(make([0.0, -1.9, -0.8])).word == "undetermined"


def test_batch_logps_alone_are_too_noisy_to_decide():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"split": "train", "step": np.arange(1, 31), "logp_chosen": rng.normal(-150, 20, 30)}
    )
    verdict = judge(Log("made", "made", table))
    assert verdict.word == "undetermined"
    assert "could hide in the scatter" in verdict.reasons[0]


def test_a_fall_without_preference_is_collapsed(make):
    chosen = np.linspace(0, -8, 20)
    margin = np.r_[np.linspace(0, 1, 10), np.linspace(1, -0.1, 10)]
    verdict = judge(
        make(
            chosen, margin=margin, split="eval", accuracy=np.r_[np.full(10, 0.8), np.linspace(0.8, 0.49, 10)]
        )
    )
    assert verdict.word == "collapsed"


def test_vanished_loss_is_saturated_whatever_chosen_did(make):
    margin = np.linspace(2, 12, 10)
    for end in (-3.0, 3.0):
        verdict = judge(make(np.linspace(0, end, 10), margin=margin, split="eval", accuracy=0.99))
        assert verdict.word == "saturated"


@pytest.mark.parametrize(
    ("rewards", "word"),
    [
        ([-0.5, -1.5], "displaced"),
        ([-1.6, -1.5], "displaced"),
        ([0.8, 0.5], "not displaced"),
        ([-0.5, -0.1], "displaced"),
    ],
)
def test_two_evaluations_tell_where_they_agree_about_the_reference(rewards, word, make):
    assert judge(make(rewards, split="eval", margin=[0.4, 0.6])).word == word


def test_one_evaluation_against_the_reference_is_enough_and_one_batch_is_not(make):
    verdict = judge(make([-1.0], split="eval"), beta=0.1)
    assert verdict.word == "displaced"
    assert verdict.interval == (-10.0, -10.0)
    assert "exact for these pairs" in verdict.sentence
    assert judge(make([-1.0])).word == "undetermined"


# --- words for what really happens -------------------------------------------------------------------------------


def test_a_run_that_starts_below_chance_and_improves_is_not_collapsed(make):
    margin = np.linspace(-2.0, -0.5, 20)
    log = make(np.linspace(0, -3, 20), margin=margin, split="eval", accuracy=np.linspace(0.3, 0.45, 20))
    assert judge(log).word == "displaced"


def test_every_checkpoint_worse_than_none_is_said(make):
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


def test_more_rows_never_make_the_same_fall_less_sure(make):
    falls = [-2.5, -3.2, -1.36, -1.63, -2.0, -1.4]
    for rows in range(1, 7):
        verdict = judge(make(falls[:rows], split="eval"), beta=0.1)
        assert (verdict.word, verdict.how_sure) == ("displaced", "clear")
        assert verdict.interval == (pytest.approx(10 * falls[rows - 1]),) * 2


def test_a_saturated_run_that_fell_says_so(make):
    verdict = judge(
        make(np.linspace(0, -7.6, 10), margin=np.linspace(2, 12, 10), split="eval", accuracy=0.99)
    )
    assert verdict.word == "saturated"
    assert "ended 7.6 reward below the reference" in verdict.sentence
    assert any("Chosen also lost probability" in line for line in verdict.advice)
    assert "0.0%" not in verdict.sentence


def test_not_displaced_carries_the_smallest_fall_that_would_have_been_seen(make):
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

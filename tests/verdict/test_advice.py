"""Advice goes to what was measured: each finding gives its sentence, and none comes without its finding."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rewardshape.analysis.generations import Judgement
from rewardshape.verdict.advice import advice_for
from rewardshape.verdict.evidence import Carried, Change, Course, Evidence, HeldOut, Learning
from rewardshape.verdict.judge import judge
from rewardshape.verdict.words import Word

PLAIN = Evidence("run", "made", chosen=Change(-5.0, 0.5, -6.0, -4.0), highest=Change(1.0, 0.2, step=40))

LENGTH_CONTROLLED = ("length_controlled", "length_controlled_low", "length_controlled_high")


def advice(word=Word.DISPLACED, *, gave_back=False, fell=False, **changed):
    return advice_for(word, dataclasses.replace(PLAIN, **changed), gave_back=gave_back, fell=fell)


def test_without_a_finding_the_advice_is_that_of_the_word():
    assert advice() == list(Word.DISPLACED.advice)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lost to equally good ones", "answers got better"], "no reason to change anything"),
        (["lost to equally good ones", "cannot tell"], "32 prompts do not tell"),
        (["cannot tell", "lost to worse answers"], "the answers became worse too"),
    ],
)
def test_where_answers_were_judged_nobody_is_told_to_look_at_some(words, said):
    known = dict.fromkeys(("win_rate", "low", "high"), 0.5) | dict.fromkeys(LENGTH_CONTROLLED, math.nan)
    known |= {"num_prompts": 32, "step": 50, "first_step": 0}
    made = [Judgement(word=word, temperature=float(t), **known) for t, word in enumerate(words)]
    lines = advice(answers=tuple(made), sampled=True)
    assert said in lines[0]
    assert not any("Sample a few prompts" in line for line in lines)
    assert lines[1:] == list(Word.DISPLACED.advice[1:])
    assert advice(Word.SATURATED, answers=tuple(made)) == advice(Word.SATURATED)


def test_who_has_sampled_answers_is_told_to_judge_them_not_to_sample():
    assert "rewardshape judgements" in advice(sampled=True)[0]
    assert not any("sample a few" in line.lower() for line in advice(sampled=True))


FINDINGS = {
    "the checkpoint of step 30": {"held_out": HeldOut("held-out loss", 30, True)},
    "No checkpoint is better": {"held_out": HeldOut("held-out loss", 30, True, above_start=True)},
    "look": {"learning": Learning(carried=Carried("p:7", 0.9, 8.0))},
    "same after truncation": {"learning": Learning(ties=0.5)},
    "first row that is NaN": {"nonfinite_series": ("rewards/chosen",)},
    "Hold out a fixed set": {"evaluated": False},
    "from +0.05 to −1.53, so training pushed against the order": {
        "learning": Learning(
            margin=Course(0.05, -1.53, 0.1),
            accuracy=Course(0.5, 0.09, 0.5),
            margin_change=Change(-1.58, chance=0.01),
        )
    },
}


@pytest.mark.parametrize("said", FINDINGS)
def test_each_finding_adds_its_sentence_and_takes_none_away(said):
    lines = advice(**FINDINGS[said])
    [added] = [line for line in lines if line not in Word.DISPLACED.advice]
    assert said in added
    assert [line for line in lines if line != added] == list(Word.DISPLACED.advice)


def test_nothing_else_is_advised_where_nothing_was_trained():
    for word in (Word.BROKEN, Word.NOT_TRAINING):
        assert advice(word, held_out=HeldOut("held-out loss", 30, True)) == list(word.advice)


def test_a_peak_is_named_where_it_was_given_back_and_the_run_is_not_displaced():
    assert "checkpoint of step 40" in advice(Word.SATURATED, gave_back=True)[0]
    bought = pd.DataFrame({"split": "eval", "step": [0, 30, 40, 50], "margin": [0.0, 1.0, 1.5, 4.0]})
    assert (
        "the mean margin was +1.50 there and ends at +4.00"
        in advice(Word.SATURATED, gave_back=True, progress=bought)[0]
    )
    stop, *others = Word.SATURATED.advice
    assert advice(Word.SATURATED)[0] == stop
    assert advice(Word.SATURATED)[2:] == others  # between them, what to do if the pairs were too easy
    assert advice(Word.DISPLACED, gave_back=True) == list(Word.DISPLACED.advice)


def test_the_pairs_asked_for_give_the_power_that_is_promised():
    """The error of a mean over n prompts shrinks as 1/√n: with the number named, 3 nats are seen four times in five."""
    error = 2.0  # over 16 prompts
    seen = error * (stats.norm.isf(0.025) + stats.norm.ppf(0.8))
    [line] = advice(Word.UNDETERMINED, num_pairs=16, num_prompts=16, smallest_fall=seen)
    needed = int(re.search(r"--probe-pairs (\d+)", line)[1])
    power = stats.norm.cdf(3.0 / (error * (16 / needed) ** 0.5) - stats.norm.isf(0.025))
    assert 0.8 <= power < 0.9


@pytest.mark.parametrize(
    ("accuracy", "grown", "said"),
    [
        ((0.5, 0.51), 0.05, "hardly moved"),
        ((0.5, 0.8), 0.35, "sample a few prompts"),
        ((0.5, 0.51), 0.15, "sample a few prompts"),  # too few rows to exclude that it grew
        ((0.9, 0.9), 0.05, "sample a few prompts"),
        ((0.5, 0.13), -0.3, "sample a few prompts"),  # it moved, and the wrong way
    ],
)
def test_no_fall_is_good_news_only_where_something_was_learnt(accuracy, grown, said):
    gained = Change(accuracy[1] - accuracy[0], 0.02, min(-0.1, accuracy[1] - accuracy[0] - 0.05), grown)
    learnt = Learning(accuracy=Course(*accuracy, max(accuracy)), accuracy_change=gained)
    assert said in advice(Word.NOT_DISPLACED, learning=learnt)[-1]


def test_pairs_that_were_never_in_order_or_are_half_in_order_are_not_called_swapped():
    for margin, accuracy, chance in (
        ((-0.5, -0.2), (0.2, 0.3), 0.0),
        ((0.1, -0.5), (0.5, 0.45), 0.0),
        ((0.1, 0.3), (0.3, 0.2), 0.0),
        ((0.1, -0.5), (0.5, 0.2), 0.1),
    ):
        change = Change(margin[1] - margin[0], chance=chance)
        learning = Learning(
            margin=Course(*margin, 1.0), accuracy=Course(*accuracy, 1.0), margin_change=change
        )
        assert advice(learning=learning) == list(Word.DISPLACED.advice)


@pytest.mark.parametrize(
    ("norm", "first"), [(0.0, "Check that parameters are trainable"), (3.0, "The gradient norms are")]
)
def test_gradients_that_are_there_are_not_called_frozen_weights(log_of, norm, first):
    log = log_of(loss=np.full(20, math.log(2)), margin=np.zeros(20), grad_norm=np.full(20, norm))
    verdict = judge(log)
    assert verdict.word == "not training"
    assert verdict.advice[0].startswith(first)
    assert any("learning rate" in line for line in verdict.advice)


def test_a_log_that_was_never_finite_has_no_checkpoint_to_go_back_to(log_of):
    nothing = {name: np.full(6, np.nan) for name in ("loss", "reward_chosen", "reward_rejected")}
    log = log_of(accuracy=np.zeros(6), **nothing)
    log.table.loc[3:, "accuracy"] = 0.5
    rows = [("train", step, name) for step in log.table["step"] for name in nothing]
    whole = dataclasses.replace(log, nonfinite=pd.DataFrame(rows, columns=["split", "step", "series"]))
    late = dataclasses.replace(whole, nonfinite=whole.nonfinite[whole.nonfinite["step"] > 20])
    assert [judge(one).word for one in (whole, late)] == ["broken", "broken"]
    assert "no checkpoint is worth going back to" in judge(whole).advice[1]
    assert judge(late).advice[1].startswith("Start again from a checkpoint before that step")


@pytest.mark.parametrize(
    ("early", "said"),
    [
        (0.5, ""),
        (0.95, "Accuracy was 0.95 from the start: the pairs are too easy"),
        (None, "If accuracy was near 1"),
    ],
)
def test_pairs_are_called_too_easy_where_they_were_in_order_at_first(early, said):
    """Where the rows do not tell it, the advice leaves it to the reader."""
    accuracy = Course(0.92, 1.0, 1.0)
    lines = advice(Word.SATURATED, learning=Learning(accuracy=accuracy, early_accuracy=early))
    found = [line for line in lines if "too easy" in line]
    assert len(found) == bool(said)
    assert all(line.startswith(said) for line in found)

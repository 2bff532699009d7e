"""A sentence says the number, its unit, its sign and what it stands against, and nothing that is not known."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from rewardshape.verdict.evidence import Baseline, Broken, Change, Course, Evidence, HeldOut, Learning, Onset
from rewardshape.verdict.sentences import (
    headline,
    how_sure,
    since_when_broken,
    story,
    what_could_hide,
    what_is_left,
)
from rewardshape.verdict.words import Word

FELL = Evidence(
    name="run",
    form="made",
    unit="nats",
    basis="rewards/chosen",
    baseline=Baseline("the reference"),
    chosen=Change(-3.14159, 0.5, -4.1, -2.2, 0.0, 100),
    rejected=Change(-9.0, 0.5, -10.0, -8.0, 0.0, 100),
    lowest=Change(-5.0, 0.5, step=60),
    highest=Change(0.0, 0.5, step=0),
    onset=Onset(20, 10, 30),
)


def test_a_fall_is_told_with_its_unit_its_baseline_and_its_interval():
    said = headline(Word.DISPLACED, FELL, ())
    assert said == (
        "The chosen responses ended 3.14 nats below the reference (95 % interval: −4.10 to −2.20)."
    )
    wide = dataclasses.replace(FELL, chosen=Change(-10249.0, 3080.0, -16540.2, -3959.4, 0.0))
    assert "(95 % interval: −16540 to −3959)" in headline(Word.DISPLACED, wide, ())
    rose = dataclasses.replace(FELL, chosen=Change(3.14159, 0.5, 2.2, 4.1, 0.0))
    assert "3.14 nats above the reference" in headline(Word.NOT_DISPLACED, rose, ())
    assert headline(Word.NOT_DISPLACED, rose, ()).endswith("they gained probability.")


def test_an_exact_number_has_no_interval_but_its_pairs():
    exact = dataclasses.replace(FELL, exact=True, num_pairs=64)
    assert headline(Word.DISPLACED, exact, ()).endswith("below the reference, exact for these 64 pairs.")
    assert "the number is exact for these 64 pairs" in how_sure(Word.DISPLACED, "clear", exact)[0]
    assert how_sure(Word.DISPLACED, "clear", FELL) == [
        "clear: the standard error from the scatter of the rows is 0.5 nats"
    ]


def test_an_interval_over_prompts_says_so():
    def said(prompts):
        return headline(Word.DISPLACED, dataclasses.replace(FELL, num_prompts=prompts), ())

    assert "(95 % interval over 40 prompts: " in said(40)
    assert "(16 prompts: an interval that holds for others takes 32)" in said(16)


def test_every_not_displaced_tells_the_smallest_fall_that_would_have_been_seen():
    level = dataclasses.replace(FELL, chosen=Change(0.1, 0.5, -0.9, 1.1, 0.4), smallest_fall=1.4)
    rose = dataclasses.replace(level, chosen=Change(3.0, 0.5, 2.0, 4.0, 0.0))
    exact = dataclasses.replace(
        level, chosen=Change(0.05, 0.0, 0.05, 0.05, 0.0), exact=True, smallest_fall=0.1
    )
    for evidence in (level, rose):
        said = headline(Word.NOT_DISPLACED, evidence, ())
        assert said.endswith("a fall of 1.4 nats would have been seen four times in five.")
    assert headline(Word.NOT_DISPLACED, exact, ()).endswith("a fall of 0.1 nats would have been seen.")
    still = dataclasses.replace(exact, smallest_fall=0.0)
    assert headline(Word.NOT_DISPLACED, still, ()).endswith("; any fall would have been seen.")


def test_a_broken_run_tells_its_last_finite_numbers_and_no_end():
    broken = dataclasses.replace(
        FELL, broken=Broken(110, ("loss",)), held_out=HeldOut("held-out loss", 30, True)
    )
    assert headline(Word.BROKEN, broken, (since_when_broken(broken),)) == (
        "Loss is not finite from step 110 to the end."
    )
    [line] = story(Word.BROKEN, broken)
    assert line == (
        "At step 100, the last with finite numbers, chosen stood 3.14 nats below the reference, rejected 9 nats below "
        "the reference."
    )


def test_one_row_has_no_start_and_no_end():
    learning = Learning(loss=Course(0.5, 0.5, 0.5), accuracy=Course(0.75, 0.75, 0.75), num_rows=1)
    assert "In the one row: loss 0.5, accuracy 0.75." in story(
        Word.UNDETERMINED, dataclasses.replace(FELL, learning=learning)
    )
    level = Learning(loss=Course(0.5, 0.5, 0.9), accuracy=Course(0.75, 0.75, 0.75), num_rows=5)
    said = story(Word.UNDETERMINED, dataclasses.replace(FELL, learning=level))
    assert (
        "From start to end: loss 0.5 at both, 0.9 at its highest, accuracy 0.75 at both and nowhere higher."
        in said
    )


def test_the_story_dates_the_fall_names_the_deepest_point_and_takes_the_margin_from_both():
    lines = story(Word.DISPLACED, FELL)
    assert lines[0] == "The fall had begun by step 20 (95 % interval 10 to 30)."
    assert lines[1] == "The deepest point is 5 nats below, at step 60."
    assert lines[2] == (
        "Rejected ended 9 nats below the reference, so chosen minus rejected is 5.86 larger than there."
    )  # 9 − 3.14
    assert not any("had begun" in line for line in story(Word.NOT_DISPLACED, FELL))
    anywhere = dataclasses.replace(FELL, onset=Onset(20, 1, 100, whole_run=True))
    assert story(Word.DISPLACED, anywhere)[0] == (
        "When the fall began cannot be told (95 % interval: step 1 to 100)."
    )


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (HeldOut("held-out loss", 30, True), "Over-optimized: the held-out loss was best at step 30"),
        (HeldOut("held-out loss", 30, False), "No over-optimization by the held-out loss: "),
        (
            HeldOut("held-out loss", 30, False, best=0.5, last=0.5),
            "by the held-out loss: it is best at the end",
        ),
        (HeldOut("held-out loss", 30, True, trained_on=False), "worse since, while the margin did not grow"),
        (HeldOut("held-out loss", 30, None, above_start=True), "never below what no training gives"),
    ],
)
def test_what_was_held_out_is_told_as_far_as_it_is_known(held, said):
    assert said in story(Word.DISPLACED, dataclasses.replace(FELL, held_out=held))[-1]
    unknown = dataclasses.replace(FELL, held_out=HeldOut("accuracy", 30))
    assert story(Word.DISPLACED, unknown) == story(Word.DISPLACED, FELL)


def test_shares_and_sizes_are_rounded_once():
    learning = Learning(margin=Course(0.0, 6.54321, 7.0), gradient_left=0.0421)
    assert (
        what_is_left(Evidence("a", "b", learning=learning))
        == "at a margin of 6.54, 4.2% of the gradient that equal responses have is left"
    )
    assert what_is_left(Evidence("a", "b", learning=Learning(gradient_left=1e-5))).startswith(
        "less than 0.1%"
    )
    broken = Evidence("a", "b", broken=Broken(13, ("loss", "rewards/chosen")), counts="row")
    assert since_when_broken(broken) == "loss, rewards/chosen are not finite from row 13 to the end"


def test_what_could_hide_is_the_larger_of_power_and_interval():
    wide = dataclasses.replace(FELL, chosen=Change(-0.5, 2.0, -4.5, 3.5), smallest_fall=2.0)
    assert "a fall of 4.5 nats could hide in the scatter, and one of 3 would matter" in what_could_hide(wide)
    assert "too few rows" in what_could_hide(dataclasses.replace(wide, smallest_fall=None))


def test_a_dip_that_was_there_from_the_first_row_is_not_said_to_be_a_fall():
    dip = {"lowest": Change(-0.4, 0.1, -0.6, -0.2, 0.0, 1), "chosen": Change(0.2, 0.1, 0.0, 0.4, 0.01)}
    curve = pd.DataFrame({"step": [1, 2, 3], "chosen": [-0.5, -0.1, 0.2]})
    seen = dataclasses.replace(FELL, **dip, curve=curve, counts="row")
    assert "stood 0.4 nats below the reference when they were first logged (row 1)" in headline(
        Word.RECOVERED, seen, ()
    )
    later = dataclasses.replace(seen, lowest=dataclasses.replace(dip["lowest"], step=2))
    assert "fell 0.4 nats below the reference (at row 2)" in headline(Word.RECOVERED, later, ())

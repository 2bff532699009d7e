"""Lines of names and numbers: the kin of ``Step 5: loss 0.69``, each with its place; sentences are no lines."""

from __future__ import annotations

import textwrap

import pytest

from rewardshape.logs.names import meaning, number
from rewardshape.logs.prose import LONGEST_LINE, prose_records


def read(text):
    """The records by meaning: {(split, series): number}."""
    return [
        {meaning(str(key)): number(value) for key, value in record.items()}
        for record in prose_records(text.split("\n"))
    ]


STEP, LOSS, CHOSEN = (None, "step"), (None, "loss"), (None, "reward_chosen")


@pytest.mark.parametrize(
    ("line", "step", "loss"),
    [
        ("Step 5 | loss:0.69 rewards/chosen:0.01", 5, 0.69),
        ("step:5 - loss:0.69 - rewards/chosen:1e-2", 5, 0.69),
        ("Epoch:[2/3](20/100) loss:0.69 rewards/chosen:.01", 120, 0.69),
        ("1|5|Loss: 0.69 rewards/chosen: 0.01", 5, 0.69),
        ("Training: global_step 5:  3%|# | loss=0.69, rewards/chosen=0.01", 5, 0.69),
        (" 5/100 [00:01<00:02, 1it/s, loss=0.69, rewards/chosen=0.01]", 5, 0.69),
        ("step 5: loss nan, rewards/chosen 0.01", 5, None),
    ],
)
def test_each_form_of_a_line_gives_its_step_and_its_numbers(line, step, loss):
    [record] = read(line)
    assert record[STEP] == step
    assert record[CHOSEN] == 0.01
    assert record[LOSS] == loss or (loss is None and record[LOSS] != record[LOSS])


def test_lines_of_one_pair_are_gathered_under_their_heading():
    text = "=== Step 3/10 ===\nLoss: 0.5\nrewards/chosen: -1\n=== Step 4/10 ===\nLoss: 0.25\nrewards/chosen: -2\n"
    assert read(text) == [{STEP: 3, LOSS: 0.5, CHOSEN: -1}, {STEP: 4, LOSS: 0.25, CHOSEN: -2}]


def test_a_bar_that_is_drawn_again_with_the_same_numbers_is_one_record():
    text = "\n".join(
        f" {k}/9 [00:01<00:02, 1it/s, loss={loss}, rewards/chosen=1]"
        for k, loss in ((1, 0.5), (1, 0.5), (2, 0.4))
    )
    assert [record[LOSS] for record in read(text)] == [0.5, 0.4]


def test_a_line_of_an_evaluation_is_of_the_evaluation():
    [record] = read("eval step 5: loss 0.5, rewards/chosen 1.0")
    assert record == {("eval", "step"): 5, ("eval", "loss"): 0.5, ("eval", "reward_chosen"): 1.0}


@pytest.mark.parametrize(
    "line",
    [
        "We found that the loss 0.5 was reached by everyone who had tried this before us and not by others",
        "epoch 3",
        "learning rate 5e-7 betas 0.9",
        "Step 5 | loss:0.69 " + "x" * LONGEST_LINE,
    ],
)
def test_what_is_no_line_of_a_log_gives_nothing(line):
    assert read(line) == []


FORMS = (
    "Ep 1 (Step {step:06d}): Train loss {loss}, Val loss 0.7, Train margins {margin}, Val reward margins {chosen}",
    "Step {step} | loss:{loss} rewards/chosen:{chosen} rewards/margins:{margin} grad_norm:1.25 learning_rate:5e-7",
    "1|{step}|Loss: {loss} rewards/chosen: {chosen} rewards/margins: {margin} rewards/accuracies: 0.5 lr: 5e-07",
    "step:{step} - loss:{loss} - rewards/chosen:{chosen} - rewards/margins:{margin} - rewards/accuracies:0.75",
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [50, 60, 72, 80])
def test_lines_that_a_paste_broke_are_whole_again(form, width, rng):
    """Every record of four trainers' lines, broken at spaces, is the one that the whole lines give."""
    lines = [
        form.format(step=10 * i, loss=a, chosen=b, margin=c)
        for i, (a, b, c) in enumerate((rng.normal(size=(20, 3)) + 1).round(3))
    ]
    whole = "\n".join(lines)
    broken = "\n".join(textwrap.fill(line, width, break_on_hyphens=False) for line in lines)
    assert broken.count("\n") >= 2 * len(lines) - 1
    assert read(broken) == read(whole)
    assert len(read(whole)) == len(lines)


def test_a_line_without_a_step_that_says_something_else_ends_the_one_above():
    text = "Step 5: loss 0.5\nSaving a checkpoint of everything at 5 o'clock\nloss 0.9 rewards/chosen 0.1"
    assert read(text) == [{STEP: 5, LOSS: 0.5}, {LOSS: 0.9, CHOSEN: 0.1}]
    text = "Step 5: loss 0.5\nvalidation loss 0.4, validation margins 0.1\nStep 6: loss 0.3"
    [first, second] = read(text)
    assert (first[STEP], first[("eval", "loss")], second[STEP]) == (5, 0.4, 6)

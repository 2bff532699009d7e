"""The annotator of the embedded task: its gold by hand-worked cases, its choices by frequencies."""

from __future__ import annotations

import json
import math

import pytest

from rewardshape.data import embedded
from rewardshape.errors import InputError

PROMPT = "Please bring two lemons, one kettle and four eggs to the old mill.\n"
PERFECT = "Here are two lemons, one kettle and four eggs for the old mill."


def test_proxy_adds_the_bias_for_every_word_and_nothing_else():
    words = len(PERFECT.replace(",", "").rstrip(".").split())
    assert embedded.proxy(PROMPT, PERFECT, bias=0.1) == pytest.approx(1 + 0.1 * words)
    assert embedded.proxy(PROMPT, PERFECT, bias=0.0) == embedded.gold(PROMPT, PERFECT)


@pytest.mark.parametrize(("bias", "noise"), [(0.0, 0.15), (0.1, 0.15), (0.1, 1.0)])
def test_the_annotator_chooses_with_the_bradley_terry_probability(bias, noise):
    longer = PERFECT + " Have a lovely day!"
    other = "Here are two lemons and one kettle for the old mill."
    answers = [(PROMPT, longer, other)] * 4000
    share = sum(pair["chosen"] == longer for pair in embedded.label(answers, bias=bias, noise=noise)) / 4000
    # gold 1 (the one courtesy is free) against 2/3; seven words more (", four eggs" is two, the courtesy four, "and")
    advantage = 1 / 3 + bias * (len(longer.split()) - len(other.split()))
    probability = 1 / (1 + math.exp(-advantage / noise))
    assert share == pytest.approx(
        probability, abs=4 * math.sqrt(probability * (1 - probability) / 4000) + 1e-9
    )


def test_the_shipped_pairs_are_what_the_default_annotator_prefers():
    shipped = [json.loads(line) for line in embedded.pairs_path().read_text(encoding="utf-8").splitlines()]
    assert embedded.pairs() == shipped
    relabelled = embedded.pairs(bias=0.0)
    assert relabelled != shipped
    assert [{p["chosen"], p["rejected"]} for p in relabelled] == [
        {p["chosen"], p["rejected"]} for p in shipped
    ]


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        (PERFECT, 1.0),
        ("Gladly. " + PERFECT, 1.0),  # the first courtesy is free
        ("Gladly. " + PERFECT + " Have a lovely day!", 1.0 - 0.15),
        (PERFECT + " Do write again soon!" * 4, 1.0 - 3 * 0.15),
        ("Here are two lemons and one kettle for the old mill.", 2 / 3),
        ("Here are two lemons, three kettles and four eggs for the old mill.", 2.5 / 3),
        ("Here are two lemons, one kettle and four mugs for the old mill.", 2 / 3 - 0.25),
        ("Here are two lemons, two lemons, one kettle and four eggs for the old mill.", 1 - 0.25),
        ("Here are two lemons, one kettle and four eggs for the red mill.", 1 - 0.25),
        ("Here are two lemons, one kettle and four eggs for the old mill", 1 - 0.25),  # unfinished
        ("Here are two lemons, one kettle and and four eggs for the old mill.", 1 - 0.25),  # no grammar
        ("Have a lovely day!", -0.25),  # no place
        ("", -0.25),
    ],
)
def test_gold_is_the_hand_worked_reward(response, reward):
    assert embedded.gold(PROMPT, response) == pytest.approx(reward, abs=1e-12)


def test_gold_of_a_prompt_that_is_no_request_says_so():
    with pytest.raises(InputError, match="no request of the embedded task"):
        embedded.gold("Tell me a story.", PERFECT)

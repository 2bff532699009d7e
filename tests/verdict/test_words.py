"""Every word of a judgement stands in the guide, and knows its meaning."""

from __future__ import annotations

import re
from pathlib import Path

from rewardshape.verdict import Word

GUIDE = Path(__file__).parents[2] / "docs" / "diagnose.md"


def test_every_word_knows_its_meaning():
    assert {str(word) for word in Word} == {
        "displaced", "not displaced", "recovered", "collapsed", "saturated", "not training", "broken", "undetermined",
    }  # fmt: skip
    for word in Word:
        assert word.meaning
        assert Word(str(word)) is word


def test_the_guide_lists_the_words_and_no_others():
    table = GUIDE.read_text(encoding="utf-8").split("## The verdict")[1].split("\n\n")[1]
    assert set(re.findall(r"^\| `([a-z ]+)` \|", table, re.MULTILINE)) == {str(word) for word in Word}


def test_a_fall_is_part_of_the_words_that_speak_of_one():
    assert {str(word) for word in Word if word.falls} == {"displaced", "recovered", "saturated", "collapsed"}
    for word in Word:
        assert all(line.endswith(".") and line[0].isupper() for line in word.advice)

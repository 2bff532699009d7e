"""Rows with one rated response each: two of one prompt that follow each other are a pair, and nothing else is."""

from __future__ import annotations

import json
import random

import pytest

from rewardshape.data import read_preferences
from rewardshape.data.forms import RATINGS
from rewardshape.errors import InputError


def rated(prompt, response, rating, name="helpfulness", **further):
    return {"prompt": prompt, "response": response, name: rating, **further}


@pytest.mark.parametrize("name", RATINGS)
def test_the_better_rated_of_two_rows_of_one_prompt_is_chosen(name):
    rows = [
        rated("Sky?", "No", 1, name, coherence=4), rated("Sky?", "Yes", 3, name, coherence=4),
        rated("Sea?", "Wet", 4, name, coherence=4), rated("Sea?", "Dry", 0, name, coherence=4),
    ]  # fmt: skip
    pairs, report = read_preferences(rows)
    assert [(pair.pair_id, pair.prompt, pair.responses) for pair in pairs] == [
        ("data:1", "Sky?", {"chosen": "Yes", "rejected": "No"}),
        ("data:3", "Sea?", {"chosen": "Wet", "rejected": "Dry"}),
    ]
    assert report.rows == 4
    assert report.forms == {f"two rows of one prompt, by {name}": 2}
    assert set(report.columns_not_read) == {"coherence"}


def test_equal_ratings_are_a_tie_and_four_rows_of_one_prompt_are_two_pairs():
    rows = [rated("Sky?", str(i), rating) for i, rating in enumerate((2, 2, 1, 3))]
    pairs, report = read_preferences(rows)
    assert [pair.responses for pair in pairs] == [{"chosen": "3", "rejected": "2"}]
    assert report.dropped == {"no preference (a tie)": ["data:1"]}


def test_a_row_without_a_next_one_of_its_prompt_is_named_as_unpaired(tmp_path):
    file = tmp_path / "a.jsonl"
    rows = [rated("Sky?", "Yes", 3), rated("Sea?", "Wet", 4), rated("Sea?", "Dry", 0)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.jsonl:1: unpaired data: .*no next row of the same prompt"):
        read_preferences(file)
    pairs, report = read_preferences(file, skip_bad_rows=True)
    assert [pair.pair_id for pair in pairs] == ["a.jsonl:2"]
    assert (report.rows, len(report.bad_rows)) == (3, 1)


def test_other_rows_are_passed_on_as_they_are():
    """Pairs with a score of their own, KTO labels, and a rating of another kind are not joined."""
    pair = {"prompt": "Sky?", "chosen": "Yes", "rejected": "No", "score": 3}
    assert len(read_preferences([pair, pair])[0]) == 2
    with pytest.raises(InputError, match="as for KTO"):
        read_preferences([{"prompt": "a", "response": "b", "label": True, "score": 1}] * 2)
    with pytest.raises(InputError, match="unpaired"):
        read_preferences([rated("a", "b", 1), rated("a", "c", 2, "score")])


def test_every_pair_of_a_shuffled_file_of_prompts_is_found():
    """However the prompts are ordered, each prompt's two rows are together, and the better is chosen."""
    rng = random.Random(0)
    prompts = [f"question {i}" for i in range(50)]
    rng.shuffle(prompts)
    ratings = {prompt: rng.sample(range(5), 2) for prompt in prompts}
    rows = [rated(prompt, f"answer {r}", r) for prompt in prompts for r in ratings[prompt]]
    pairs, _ = read_preferences(rows)
    assert [(pair.prompt, pair.responses["chosen"], pair.responses["rejected"]) for pair in pairs] == [
        (prompt, f"answer {max(ratings[prompt])}", f"answer {min(ratings[prompt])}") for prompt in prompts
    ]


def test_rows_of_two_responses_are_pairs_whatever_score_stands_beside_them():
    rows = [
        {"prompt": "What is the sky?", "response": letter, "rejected_response": other, "score": score}
        for letter, other, score in (("a", "b", 1), ("c", "d", 2))
    ]
    pairs, report = read_preferences(rows)
    assert [pair.responses for pair in pairs] == [
        {"chosen": "a", "rejected": "b"}, {"chosen": "c", "rejected": "d"},
    ]  # fmt: skip
    assert (report.rows, report.pairs, report.joined) == (2, 2, 0)


def test_every_row_of_a_joined_file_is_accounted_for():
    rows = [rated("Sky?", str(i), rating) for i, rating in enumerate((2, 2, 1, 3))]
    _, report = read_preferences(rows)
    lost = sum(map(len, report.dropped.values()))
    assert report.rows == report.pairs + report.joined + lost + len(report.bad_rows) == 4
    assert "2 rows joined to the row before" in report.summary()


def test_a_named_system_column_leaves_the_rows_joined():
    rows = [rated("Sky?", "No", 1, kind="Be brief."), rated("Sky?", "Yes", 3, kind="Be brief.")]
    pairs, _ = read_preferences(rows, columns={"system": "kind"})
    assert [(pair.prompt, pair.responses["chosen"]) for pair in pairs] == [("Be brief.\nSky?", "Yes")]

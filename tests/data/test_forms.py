"""Each form of public preference data gives the pair that its documentation says is in it; nothing else does."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from rewardshape.data import parse_columns, read_preferences
from rewardshape.data.forms import FORMS, RATINGS
from rewardshape.data.messages import Unusable
from rewardshape.data.prompts import read_row
from rewardshape.errors import InputError

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **further):
    return {"role": "assistant", "content": content, **further}


SKY, YES, NO = [user("Sky?")], [assistant("Yes")], [assistant("No")]
TEXTS, CHATS = ("Sky?", "Yes", "No"), (SKY, YES, NO)

# Column names and the meaning of the verdicts are those of the data cards of these sets; each row is of one person's
# hand. A second row turns the verdict round where there is one.
ROWS = {
    "rasbt": (
        {"instruction": "Do", "input": "it", "output": "x", "rejected": "No", "chosen": "Yes"},
        ("Do\nit", "Yes", "No"),
    ),
    "instruction": ({"instruction": "Sky?", "chosen": "Yes", "rejected": "No"}, TEXTS),
    "instruction, empty input": ({"instruction": "Sky?", "input": "", "chosen": "Yes", "rejected": "No"}, TEXTS),
    "Intel Orca": (
        {"system": "Be kind.", "question": "Sky?", "chosen": "Yes", "rejected": "No"},
        ("Be kind.\nSky?", "Yes", "No"),
    ),
    "Argilla Orca": ({"system": "", "input": "Sky?", "chosen": "Yes", "rejected": "No", "order": [1, 0]}, TEXTS),
    "Argilla": ({"instruction": "Sky?", "chosen_response": "Yes", "rejected_response": "No"}, TEXTS),
    "system beside messages": ({"system": "S", "prompt": "Sky?", "chosen": YES, "rejected": NO},
                               ([{"role": "system", "content": "S"}, *SKY], YES, NO)),
    "UltraFeedback H4": (
        {"prompt": "Sky?", "prompt_id": "7", "chosen": SKY + YES, "rejected": SKY + NO, "messages": SKY + YES,
         "score_chosen": 8.0, "score_rejected": 5.0},
        CHATS,
    ),
    "UltraFeedback": (
        {"instruction": "Sky?", "completions": [
            {"response": "Maybe", "overall_score": 5.0}, {"response": "No", "overall_score": 1.0},
            {"response": "Yes", "overall_score": 9.0}]},
        TEXTS,
    ),
    "Nectar": (
        {"prompt": "Sky?", "answers": [
            {"answer": "No", "rank": 3.0}, {"answer": "Yes", "rank": 1.0}, {"answer": "Maybe", "rank": 2.0}]},
        TEXTS,
    ),
    "SHP, first": ({"history": "Sky?", "human_ref_A": "Yes", "human_ref_B": "No", "labels": 1}, TEXTS),
    "SHP, second": ({"history": "Sky?", "human_ref_A": "No", "human_ref_B": "Yes", "labels": 0}, TEXTS),
    "PKU, first": ({"prompt": "Sky?", "response_0": "Yes", "response_1": "No", "better_response_id": 0,
                    "safer_response_id": 1}, TEXTS),
    "PKU, second": ({"prompt": "Sky?", "response_0": "No", "response_1": "Yes", "better_response_id": 1}, TEXTS),
    "HelpSteer2, first": ({"prompt": "Sky?", "response_1": "Yes", "response_2": "No", "preference_strength": -2},
                          TEXTS),
    "HelpSteer2, second": ({"prompt": "Sky?", "response_1": "No", "response_2": "Yes", "preference_strength": 1},
                           TEXTS),
    "HelpSteer3": ({"context": SKY, "response1": "Yes", "response2": "No", "overall_preference": -3}, CHATS),
    "Arena": ({"conversation_a": SKY + NO, "conversation_b": SKY + YES, "winner": "model_b"}, CHATS),
    "Arena, turns": (
        {"prompt": '["Sky?"]', "response_a": '["Yes"]', "response_b": '["No"]', "winner_model_a": 1,
         "winner_model_b": 0, "winner_tie": 0}, CHATS),
    "Arena, content parts": (
        {"conversation_a": [user([{"type": "text", "text": "Sky?"}]), assistant([{"type": "text", "text": "Yes"}])],
         "conversation_b": SKY + NO, "winner": "model_a"}, CHATS),
    "two responses and a label": ({"question": "Sky?", "response_a": "No", "response_b": "Yes", "label": "B"}, TEXTS),
    "AlpacaEval": ({"instruction": "Sky?", "output_1": "No", "output_2": "Yes", "preference": 2}, TEXTS),
    "WebGPT": ({"question": "Sky?", "answer_0": "Yes", "answer_1": "No", "score_0": 0.5, "score_1": -0.5}, TEXTS),
    "Stack Exchange": ({"question": "Sky?", "response_j": "Yes", "response_k": "No"}, TEXTS),
    "OpenAI": (
        {"input": {"messages": SKY, "tools": [], "parallel_tool_calls": True}, "preferred_output": YES,
         "non_preferred_output": NO}, CHATS),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "Sky?"}], "chosen": {"from": "gpt", "value": "Yes"},
         "rejected": {"from": "gpt", "value": "No"}}, CHATS),
    "ShareGPT, whole conversations": (
        {"chosen": [{"from": "human", "value": "Sky?"}, {"from": "gpt", "value": "Yes"}],
         "rejected": [{"from": "human", "value": "Sky?"}, {"from": "gpt", "value": "No"}]}, CHATS),
    "ShareGPT, roles and values mixed": (
        {"conversation": [{"from": "user", "content": "Sky?"}], "chosen": {"role": "model", "value": "Yes"},
         "rejected": {"role": "Assistant", "content": "No"}}, CHATS),
    "LLaMA-Factory alpaca with history": (
        {"instruction": "Sky?", "input": "", "history": [["Hi", "Hello"]], "chosen": "Yes", "rejected": "No"},
        ([user("Hi"), assistant("Hello"), *SKY], YES, NO)),
    "LLaMA-Factory v1": (
        {"chosen_messages": [{"role": "user", "content": [{"type": "text", "value": "Sky?"}], "loss_weight": 0.0},
                             {"role": "assistant", "content": [{"type": "text", "value": "Yes"}]}],
         "rejected_messages": [{"role": "user", "content": [{"type": "text", "value": "Sky?"}], "loss_weight": 0.0},
                               {"role": "assistant", "content": [{"type": "text", "value": "No"}]}]},
        ([user("Sky?") | {"loss_weight": 0.0}], YES, NO)),
    "ms-swift": ({"messages": SKY + YES, "rejected_response": "No"}, CHATS),
    "ms-swift, messages": ({"messages": SKY + YES, "rejected_messages": SKY + NO}, CHATS),
    "ms-swift, query": ({"query": "Sky?", "response": "Yes", "rejected_response": "No"}, TEXTS),
    "Axolotl": ({"messages": SKY, "chosen": YES[0], "rejected": NO[0]}, CHATS),
    "messages as JSON": ({name: json.dumps(value) for name, value in
                          zip(("prompt", "chosen", "rejected"), CHATS, strict=True)}, CHATS),
    "one message as JSON": ({"prompt": "Sky?", "chosen": json.dumps(YES[0]), "rejected": json.dumps(NO[0])}, CHATS),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_this_form_holds_this_pair(name):
    row, (prompt, chosen, rejected) = ROWS[name]
    reading = read_row(row)
    assert reading.prompt == prompt
    assert reading.responses == {"chosen": chosen, "rejected": rejected}
    assert sorted(reading.read + [name for name in reading.not_read if "." not in name]) == sorted(row)


NO_PAIRS = ("KTO", "ratings", "single")
JOINED = [f"two rows of one prompt, by {rating}" for rating in RATINGS]  # tests/data/test_rated.py


def test_every_form_of_the_table_has_a_row_here_or_is_no_pair():
    tried = {read_row(row).form for row, _ in ROWS.values()}
    pairs = [form.name for form in FORMS if form.name not in (*NO_PAIRS, *JOINED)]
    assert set(pairs) == tried | {"response_a, response_b by winner"}  # the same reader as `by label`


@pytest.mark.parametrize(
    "row",
    [
        {"conversation_a": SKY + YES, "conversation_b": SKY + NO, "winner": "tie (bothbad)"},
        {"prompt": "Sky?", "response_1": "a", "response_2": "b", "preference_strength": 0},
        {"instruction": "Sky?", "output_1": "a", "output_2": "b", "preference": 1.5},
        {"question": "Sky?", "answer_0": "a", "answer_1": "b", "score_0": 0.0, "score_1": 0.0},
        {"prompt": "Sky?", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 1}]},
    ],
)
def test_a_tie_is_dropped_as_one(row):
    with pytest.raises(Unusable, match=r"no preference \(a tie\)"):
        read_row(row)


@pytest.mark.parametrize(
    ("preference", "chosen"),
    [(1.0000027, "one"), (1.49, "one"), (1.51, "two"), (1.9999, "two"), (2.0, "two")],
)
def test_a_judge_that_is_not_wholly_sure_prefers_all_the_same(preference, chosen):
    """AlpacaEval 2 writes 1 plus the probability that the second output is better."""
    row = {"instruction": "Sky?", "output_1": "one", "output_2": "two", "preference": preference}
    assert read_row(row).responses["chosen"] == chosen
    with pytest.raises(InputError, match="'preference' holds 0; 1 or 2 belongs there"):
        read_row(row | {"preference": 0})


@pytest.mark.parametrize("score", [math.nan, math.inf, "nan"])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Sky?", "response_1": "a", "response_2": "b", "preference_strength": ...},
        {"instruction": "Sky?", "output_1": "a", "output_2": "b", "preference": ...},
        {"question": "Sky?", "answer_0": "a", "answer_1": "b", "score_0": 0.5, "score_1": ...},
    ],
)
def test_a_score_that_is_no_finite_number_decides_nothing(row, score):
    with pytest.raises(Unusable, match=r"no preference \(no score\)"):
        read_row({name: score if value is ... else value for name, value in row.items()})


def test_of_many_answers_those_without_a_finite_score_are_left_out():
    rated = [("No", 1.0), ("Broken", math.nan), ("Yes", 9.0), ("Endless", math.inf)]
    answers = [{"response": text, "overall_score": score} for text, score in rated]
    reading = read_row({"instruction": "Sky?", "completions": answers})
    assert reading.responses == {"chosen": "Yes", "rejected": "No"}
    with pytest.raises(Unusable, match=r"no preference \(no score\)"):
        read_row({"instruction": "Sky?", "completions": answers[:2]})


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"prompt": "a", "completion": "b", "label": True}, "unpaired data: .* as for KTO"),
        ({"messages": SKY + YES, "label": False}, "unpaired data: .* as for KTO"),
        (
            {"instruction": "a", "input": "", "output": "b"},
            "one response a row, as for supervised fine-tuning",
        ),
        ({"prompt": "a", "completion": "b"}, "one response a row, as for supervised fine-tuning"),
    ],
)
def test_data_without_pairs_is_named_as_such(tmp_path, row, what):
    (tmp_path / "a.jsonl").write_text((json.dumps(row) + "\n") * 3, encoding="utf-8")
    with pytest.raises(InputError, match=rf"a\.jsonl:1: {what}, so there is no pair to compare") as caught:
        read_preferences(tmp_path / "a.jsonl")
    assert "--skip-bad-rows" not in str(caught.value)  # it would not help


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"history": "a", "human_ref_A": "b", "human_ref_B": "c", "labels": "x"},
            "'labels' holds text where a number",
        ),
        (
            {"history": "a", "human_ref_A": "b", "human_ref_B": "c", "labels": 2},
            "'labels' holds 2; 1 or 0 belongs",
        ),
        (
            {"prompt": "a", "response_a": "b", "response_b": "c", "label": 1},
            "'label' holds 1, and which response",
        ),
        ({"messages": YES, "rejected_response": "No"}, "'messages' holds no question and answer"),
        (
            {"input": "a", "preferred_output": YES, "non_preferred_output": NO},
            "'input' holds text where an object",
        ),
        ({"prompt": "a", "answers": [{"answer": "b", "rank": 1}]}, "'answers' holds no two answers"),
        (
            {"prompt": "<image>?", "images": ["a.png"], "chosen": "b", "rejected": "c"},
            "'images' holds what is no text",
        ),
        (
            {"prompt": [user([{"type": "image"}])], "chosen": "b", "rejected": "c"},
            "content part of type image; only text can be measured",
        ),
        ({"prompt": SKY, "tools": "{", "chosen": YES, "rejected": NO}, "'tools' holds text that is no JSON"),
        (
            {
                "system": "a",
                "prompt": [{"role": "system", "content": "b"}, *SKY],
                "chosen": YES,
                "rejected": NO,
            },
            "two system texts that differ",
        ),
    ],
)
def test_what_cannot_be_read_is_named(row, problem):
    with pytest.raises(InputError, match=problem):
        read_row(row)


# --- every column accounted for ---


def test_every_column_is_read_or_listed(tmp_path):
    row = {"system": "S", "tools": [{"name": "w"}], "weight": 0, "prompt": SKY, "chosen": YES, "rejected": NO}
    (tmp_path / "a.jsonl").write_text((json.dumps(row) + "\n") * 3, encoding="utf-8")
    pairs, report = read_preferences(tmp_path / "a.jsonl")
    assert pairs[0].prompt == [{"role": "system", "content": "S"}, *SKY]
    assert pairs[0].tools == [{"name": "w"}]
    assert report.columns_not_read == {"weight": 3}
    assert set(report.columns_read) == {"system", "tools", "prompt", "chosen", "rejected"}
    assert report.summary().endswith(
        "system message put before the prompt (3 pairs); columns not read: weight"
    )
    assert report.to_dict()["columns_not_read"] == {"weight": 3}


# --- --columns ---


def test_columns_are_named_by_hand():
    row = {"q": "Sky?", "prompt": "other", "good": "Yes", "bad": "No", "alt": "Maybe"}
    columns = parse_columns(["prompt=q", "chosen=good", "rejected=bad"])
    reading = read_row(row, ["alt"], columns)
    assert (reading.prompt, reading.responses) == (
        "Sky?",
        {"chosen": "Yes", "rejected": "No", "alt": "Maybe"},
    )
    assert reading.not_read == ["prompt"]
    assert reading.read == ["q", "good", "bad", "alt"]


@pytest.mark.parametrize(
    ("row", "columns", "scores"),
    [
        ({"score_chosen": 8.5, "score_rejected": "3"}, [], (8.5, 3.0)),
        ({"chosen_score": 2, "rejected_score": -1}, [], (2.0, -1.0)),
        ({"good": 4, "bad": 1, "chosen_score": 0}, ["chosen_score=good", "rejected_score=bad"], (4.0, 1.0)),
        ({"chosen_score": "high", "rejected_score": "low"}, [], None),
        ({"chosen_score": 2}, [], None),
        ({"chosen_score": math.nan, "rejected_score": 1.0}, [], None),
    ],
)
def test_scores_of_the_responses_are_read_where_there_are_any(row, columns, scores):
    reading = read_row({"prompt": "a", "chosen": "b", "rejected": "c"} | row, (), parse_columns(columns))
    assert reading.scores == scores
    unread = [name for name in row if name not in {word.partition("=")[2] for word in columns}]
    assert reading.not_read == ([] if scores and not columns else unread)


def test_a_named_score_that_is_no_number_is_refused():
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "good": "high", "bad": 1}
    with pytest.raises(InputError, match="field 'good' holds text where a score belongs"):
        read_row(row, (), parse_columns(["chosen_score=good", "rejected_score=bad"]))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["instruction"], "write TARGET=COLUMN"),
        (["prompt="], "write TARGET=COLUMN"),
        (["promt=a"], "TARGET one of prompt, chosen, rejected, system, tools"),
        (["prompt=a", "prompt=b"], "prompt is named twice"),
    ],
)
def test_columns_that_make_no_sense_are_refused(words, problem):
    with pytest.raises(InputError, match=problem):
        parse_columns(words)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": "b", "c": "d"}\n', encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"no field 'x', which --columns names as prompt \(the row has a, c\); name the columns",
    ):
        read_preferences(tmp_path / "a.jsonl", columns={"prompt": "x"})


def test_a_remedy_is_advised_only_where_it_helps(tmp_path):
    """Skipping rows helps against a bad row, not against a file that is all of another form."""
    good, bad = {"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "good": "b", "bad": "c"}
    for name, rows, helps in (
        ("one", [good, bad], True),
        ("first", [bad, good], True),
        ("all", [bad] * 5, False),
    ):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        with pytest.raises(InputError, match="no field 'chosen'") as caught:
            read_preferences(path)
        assert ("--skip-bad-rows" in str(caught.value)) == helps
        assert ("--columns" in str(caught.value)) != helps


# --- the guide ---


def test_the_guide_shows_a_row_of_every_form():
    text = GUIDE.read_text(encoding="utf-8")
    shown = [json.loads(line) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL) for line in
             block.splitlines()]  # fmt: skip
    forms = {read_row(row).form for row in shown}
    assert forms >= {form.name for form in FORMS} - {*NO_PAIRS, *JOINED}


@pytest.mark.parametrize(
    "verdict", ["preference", "labels", "better_response_id", "winner", "preference_strength"]
)
@pytest.mark.parametrize("nothing", [None, "", float("nan")])
def test_a_row_without_its_verdict_holds_no_preference(verdict, nothing):
    sides = {
        "preference": ("output_1", "output_2"),
        "labels": ("human_ref_A", "human_ref_B"),
        "better_response_id": ("response_0", "response_1"),
        "winner": ("response_a", "response_b"),
        "preference_strength": ("response_1", "response_2"),
    }[verdict]
    one = {"preference": 1, "labels": 1, "better_response_id": 0, "winner": "a", "preference_strength": -1}[
        verdict
    ]
    row = {"prompt": SKY, **dict(zip(sides, (YES, NO), strict=True))}
    rows = [{**row, verdict: nothing}, {**row, verdict: one}]
    pairs, report = read_preferences(rows)
    assert [pair.responses["chosen"] for pair in pairs] == [YES]
    assert report.dropped == {"no preference (no score)": ["data:1"]}

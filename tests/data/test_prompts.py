"""A row into a prompt and responses: no prompt is invented, none is doubled, tools and system texts are found."""

from __future__ import annotations

import json

import pytest

from rewardshape.data import read_preferences
from rewardshape.data.prompts import read_row
from rewardshape.errors import InputError
from tests.data.test_forms import NO, SKY, YES, assistant, user

ASKED_ELSEWHERE = {"ask": "What is the capital?", "chosen": "It is Paris", "rejected": "It is Rome"}


def test_texts_that_share_a_beginning_get_no_prompt_from_it_where_another_column_could_hold_one(tmp_path):
    """659 of 1,100 rows of a public file once became pairs whose prompts held no instruction."""
    path = tmp_path / "a.jsonl"
    path.write_text((json.dumps(ASKED_ELSEWHERE) + "\n") * 2, encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.jsonl:1: no prompt is known .*--columns prompt=ask") as caught:
        read_preferences(path)
    assert "--skip-bad-rows" not in str(caught.value)
    with pytest.raises(InputError, match="no usable row"):
        read_preferences(path, skip_bad_rows=True)
    pairs, _ = read_preferences(path, columns={"prompt": "ask"})
    assert pairs[0].prompt == "What is the capital?"
    pairs, report = read_preferences(path, columns={"chosen": "chosen", "rejected": "rejected"})
    assert (pairs[0].prompt, report.columns_not_read) == ("It is", {"ask": 2})
    assert report.remarks == {"prompt taken from the beginning that the responses share": 2}


@pytest.mark.parametrize("further", [{"id": "a7"}, {"score": 3.5}, {"source": "hh"}, {"system": "Be kind."}])
def test_a_column_that_cannot_hold_a_prompt_does_not_stop_the_shared_beginning(further):
    reading = read_row({**further, "chosen": "Sky? It is", "rejected": "Sky? It was"})
    assert reading.prompt.endswith("Sky? It")


def test_transcripts_hold_their_prompt_whatever_stands_beside_them():
    row = {
        "note": "two words",
        "chosen": "\n\nHuman: a\n\nAssistant: b",
        "rejected": "\n\nHuman: a\n\nAssistant: c",
    }
    assert read_row(row).prompt == "\n\nHuman: a\n\nAssistant:"


def test_a_prompt_that_the_responses_repeat_is_taken_out_and_counted(tmp_path):
    whole = "\n\nHuman: Sky?\n\nAssistant:"
    rows = [
        {"prompt": "Q: Sky? A:", "chosen": "Q: Sky? A: Yes", "rejected": "Q: Sky? A: No"},
        {"prompt": whole, "chosen": whole + " Yes", "rejected": whole + " No"},
        {"prompt": "Sky?", "chosen": whole + " Yes", "rejected": whole + " No"},
        {"prompt": "Sky?", "chosen": " Yes", "rejected": " No"},
        {
            "prompt": "Sky?",
            "chosen": "Sky? Yes",
            "rejected": "No",
        },  # one answer that repeats the question is an answer
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pairs, report = read_preferences(tmp_path / "a.jsonl")
    assert [pair.prompt for pair in pairs] == ["Q: Sky? A:", whole, whole, "Sky?", "Sky?"]
    assert [pair.responses["chosen"] for pair in pairs] == [" Yes"] * 4 + ["Sky? Yes"]
    assert report.remarks == {"prompt taken out of the responses that repeated it": 3}
    assert "prompt taken out of the responses that repeated it (3 pairs)" in report.summary()


GREETING = {"prompt": "Hi", "chosen": "Hi there! How can I help?", "rejected": "Hi. What?"}
SUM = {"prompt": "2+2=", "chosen": "2+2=4", "rejected": "2+2=5"}


@pytest.mark.parametrize(
    ("rows", "prompts", "chosen"),
    [
        ([GREETING], ["Hi"], [GREETING["chosen"]]),
        ([GREETING] + [{"prompt": "Sky?", "chosen": "Blue", "rejected": "Red"}] * 2,
         ["Hi", "Sky?", "Sky?"], [GREETING["chosen"], "Blue", "Blue"]),
        ([SUM] * 3, ["2+2="] * 3, ["4"] * 3),
        ([{"prompt": "Tell me of a car", "chosen": "Tell me of a carton", "rejected": "Tell me of a cart"}] * 2,
         ["Tell me of a car"] * 2, ["Tell me of a carton"] * 2),
        ([{"prompt": "天空是什么颜色", "chosen": "天空是什么颜色蓝色", "rejected": "天空是什么颜色红色"}] * 2,
         ["天空是什么颜色"] * 2, ["蓝色"] * 2),
    ],
    ids=["alone", "among others", "every row", "within a word", "without spaces"],
)  # fmt: skip
def test_a_short_prompt_with_which_answers_begin_by_chance_stays_in_them(rows, prompts, chosen):
    pairs, _ = read_preferences(rows)
    assert [pair.prompt for pair in pairs] == prompts
    assert [pair.responses["chosen"] for pair in pairs] == chosen


@pytest.mark.parametrize(
    ("prompt", "before"),
    [
        ("Sky?", [user("Sky?\n")]),
        ([user("Sky? ")], [user("Sky?")]),
        ([user("Sky?")], [{"role": "system", "content": "S"}, user("Sky?")]),
        ([user("Sky?")], [user("Sky?"), assistant("Where?"), user("Here.")]),
        ([user("a"), assistant("b"), user("Sky?")], [user("Sky?")]),
    ],
)
def test_messages_that_repeat_the_prompt_or_its_end_give_it_up(prompt, before):
    reading = read_row({"prompt": prompt, "chosen": before + YES, "rejected": before + NO})
    longer = before if isinstance(prompt, str) or len(before) >= len(prompt) else prompt
    assert reading.prompt == longer
    assert reading.responses == {"chosen": YES, "rejected": NO}


def test_tools_beside_texts_are_not_read():
    assert read_row({"prompt": "a", "tools": [{"name": "w"}], "chosen": "b", "rejected": "c"}).not_read == [
        "tools"
    ]


def test_tools_may_be_json_text_or_stand_in_the_input_of_openai():
    tools = [{"type": "function", "function": {"name": "w"}}]
    openai = {"input": {"messages": SKY, "tools": tools}, "preferred_output": YES, "non_preferred_output": NO}
    for row in ({"prompt": SKY, "tools": json.dumps(tools), "chosen": YES, "rejected": NO}, openai):
        assert read_row(row).tools == tools


def test_what_else_stands_in_the_input_of_openai_is_listed():
    row = {
        "input": {"messages": SKY, "parallel_tool_calls": True},
        "preferred_output": YES,
        "non_preferred_output": NO,
    }
    assert read_row(row).not_read == ["input.parallel_tool_calls"]


BLUE = {
    "prompt": "Is the sky blue today?",
    "chosen": "Is the sky blue today? Yes",
    "rejected": "Is the sky blue today? No",
}


def test_what_is_watched_does_not_change_what_is_trained():
    trained = read_row(BLUE).responses
    assert trained == {"chosen": " Yes", "rejected": " No"}
    with pytest.raises(InputError, match="field 'extra' does not begin with the prompt, as 'chosen'"):
        read_row({**BLUE, "extra": " Maybe"}, ["extra"])
    watched = read_row({**BLUE, "extra": "Is the sky blue today? Maybe"}, ["extra"]).responses
    assert watched == {**trained, "extra": " Maybe"}
    with pytest.raises(
        InputError, match="field 'extra' holds messages where 'chosen' and 'rejected' hold text"
    ):
        read_row({**BLUE, "extra": [assistant("Maybe")]}, ["extra"])


def call(name):
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": name, "arguments": "{}"}}],
    }


def test_a_call_of_another_tool_is_another_message():
    asked = [*SKY, call("f1")]
    row = {
        "prompt": asked,
        "chosen": [call("f2"), assistant("a")],
        "rejected": [call("f2"), assistant("b")],
    }
    reading = read_row(row)
    assert (reading.prompt, reading.responses["chosen"]) == (asked, row["chosen"])
    repeated = read_row(
        {
            **row,
            "chosen": [call("f1"), assistant("a")],
            "rejected": [call("f1"), assistant("b")],
        }
    )
    assert (repeated.prompt, repeated.responses["chosen"]) == (asked, [assistant("a")])


def test_tools_are_the_same_from_a_table_as_from_lines(tmp_path):
    import pandas as pd

    def tool(name, **properties):
        return {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}

    tools = [tool("weather", city={"type": "string"}), tool("count", n={"type": "integer"})]
    row = {
        "prompt": SKY,
        "chosen": YES,
        "rejected": NO,
        "tools": tools,
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    pd.DataFrame([row]).to_parquet(tmp_path / "a.parquet")
    [[lines], of_lines], [[table], of_table] = (
        read_preferences(tmp_path / name) for name in ("a.jsonl", "a.parquet")
    )
    assert lines.tools == table.tools == tools
    assert of_lines.fingerprint == of_table.fingerprint


@pytest.mark.parametrize(
    ("shared", "one", "other"),
    [("यह", "कितना है", "कीमत है"), ("a drink", "cafe\u0301s are", "cafe is")],
)
def test_no_prompt_ends_within_a_word_that_has_marks(shared, one, other):
    reading = read_row({"chosen": f"{shared} {one}", "rejected": f"{shared} {other}"})
    assert (reading.prompt, reading.responses["chosen"]) == (shared, f" {one}")


def test_half_a_character_is_named_wherever_it_stands():
    row = {
        "prompt": SKY,
        "chosen": [{**YES[0], "reasoning_content": "\ud83d"}],
        "rejected": NO,
    }
    with pytest.raises(InputError, match="field 'chosen' holds half a character"):
        read_row(row)
    with pytest.raises(InputError, match="field 'tools' holds half a character"):
        read_row({**row, "chosen": YES, "tools": [{"name": "\ud83d"}]})


def test_a_first_message_without_content_is_no_system_text():
    prompt = [{"role": "system", "content": None, "thinking": "hm"}, *SKY]
    row = {
        "prompt": prompt,
        "chosen": YES,
        "rejected": NO,
        "system": "Be brief.",
    }
    with pytest.raises(InputError, match="two system texts that differ"):
        read_row(row)

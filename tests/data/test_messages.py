"""What a cell says: a text, or messages, in the ways that files write them."""

from __future__ import annotations

import json
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardshape.data.messages import common_length, loads, said, shared_beginning, spoken
from rewardshape.data.prompts import read_row
from rewardshape.errors import InputError, NotSingleKeys
from tests.data.test_forms import NO, SKY, assistant, user


def test_a_turn_that_only_calls_a_tool_is_a_response():
    call = {"type": "function", "function": {"name": "w", "arguments": {"c": "Oslo"}}}
    for content in ("", None):
        row = {"prompt": SKY, "chosen": [assistant(content, tool_calls=[call])], "rejected": NO}
        assert read_row(row).responses["chosen"] == [assistant(content, tool_calls=[call])]
    sharegpt = {"from": "function_call", "value": '{"name": "w", "arguments": {"c": "Oslo"}}'}
    row = {"prompt": SKY, "chosen": [sharegpt], "rejected": NO}
    assert read_row(row).responses["chosen"] == [assistant("", tool_calls=[call])]


@pytest.mark.parametrize(
    "text",
    [
        '{"role": 1}',
        '{"key": "value"}',
        "[1, 2]",
        '{"role": "x", unquoted}',
        "{ }",
        '{"role": "admin", "value": 3}',
        '[{"role": "admin", "value": "3"}]',
        '[{"name": "u"}]',
        "[{x: 1}]",
        '[{"role": "user", "content": "hi"}, {"id": 3}]',
    ],
)
def test_texts_that_only_look_like_messages_stay_texts(text):
    reading = read_row({"prompt": "a", "chosen": text, "rejected": "c"})
    assert reading.responses["chosen"] == text


@given(st.text("ab", max_size=40), st.text("ab", max_size=40))
def test_the_common_beginning_is_that_of_a_plain_loop(one, other):
    same = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    assert common_length(one, other) == len(same)
    assert shared_beginning(one, other, one) == same


@pytest.mark.parametrize(
    "cell",
    [
        [{"from": "human", "value": "Sky?"}],
        [{"role": "User", "content": [{"type": "text", "text": "Sk"}, "y?"]}],
        {"role": "prompter", "content": "Sky?"},
        [{"name": None, "role": "user", "content": "Sky?"}],
    ],
    ids=["ShareGPT", "parts", "one message", "name first"],
)
def test_every_spelling_gives_the_messages_of_chat_templates(cell):
    assert said(cell, "prompt") == (SKY, False)
    assert said(json.dumps(cell), "prompt") == (SKY, True)


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (3.5, "field 'prompt' holds a number where text or a list of messages belongs"),
        ([], "field 'prompt' is an empty list"),
        ([user("a"), 7], "field 'prompt', message 2: a number where a message with role and content belongs"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "a content part of type image"),
        ({"id": "x", "full_text": "a"}, "but an object with 'id', 'full_text'; write its text as the field"),
        ("half \ud83d", "holds half a character"),
        ('[{"role": "user", "content": ', "looks like a message list but is not JSON"),
    ],
)
def test_a_cell_that_says_nothing_is_named(cell, problem):
    with pytest.raises(InputError, match=problem):
        said(cell, "prompt")


def test_one_key_twice_is_refused():
    assert loads('{"a": [{"b": 1}, {"b": 2}]}') == {"a": [{"b": 1}, {"b": 2}]}
    with pytest.raises(NotSingleKeys, match="key b stands twice"):
        loads('{"a": {"b": 1, "b": 2}}')


def test_what_is_spoken_is_the_contents_and_what_stands_in_their_place():
    assert spoken("Yes ") == "Yes "
    assert spoken([assistant("Ye"), assistant(None, thinking="s"), assistant("")]) == "Yes"

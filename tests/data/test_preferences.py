"""Every form of row becomes the pair a person would read in it, and every other row is accounted for."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from rewardshape.data import Pair, fingerprint, read_preferences
from rewardshape.data.messages import Unusable
from rewardshape.data.prompts import read_row
from rewardshape.errors import InputError


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def write_jsonl(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prompt_and_responses(given, extra=()):
    reading = read_row(given, extra)
    return reading.prompt, reading.responses


def row(n=0, **changes):
    return {"prompt": f"Say {n}.", "chosen": f"{n}", "rejected": f"not {n}"} | changes


def forms():
    chat = {"chosen": [assistant("4")], "rejected": [assistant("5")]}
    asked = [user("2+2?")]
    yield "texts", {"prompt": "2+2?", "chosen": "4", "rejected": "5"}, "2+2?", "4", "5"
    yield "messages", {"prompt": asked, **chat}, asked, *chat.values()
    yield (
        "messages, answers as texts",
        {"prompt": asked, "chosen": "4", "rejected": "5"},
        asked,
        *chat.values(),
    )
    yield (
        "messages, answers as one message",
        (
            {"prompt": asked, "chosen": assistant("4"), "rejected": assistant("5")},
            asked,
            *chat.values(),
        ),
    )
    yield "text prompt, answers as messages", {"prompt": "2+2?", **chat}, asked, *chat.values()
    whole = {name: [*asked, *value] for name, value in chat.items()}
    yield "implicit prompt, messages", whole, asked, *chat.values()
    yield "prompt null", {"prompt": None, **whole}, asked, *chat.values()
    yield "text prompt repeated in the messages", {"prompt": "2+2?", **whole}, asked, *chat.values()
    yield "messages repeated in the answers", {"prompt": asked, **whole}, asked, *chat.values()
    system = [{"role": "system", "content": "Be short."}, *asked]
    yield (
        "text prompt after a system message",
        (
            {"prompt": "2+2?"} | {name: [*system, *value] for name, value in chat.items()},
            system,
            *chat.values(),
        ),
    )
    long = [user("Hi"), assistant("Hello"), *asked]
    yield (
        "implicit prompt of several turns",
        (
            {name: [*long, *value] for name, value in chat.items()},
            long,
            *chat.values(),
        ),
    )
    yield (
        "implicit prompt, texts",
        {"chosen": "2+2? It is 4", "rejected": "2+2? It is 5"},
        "2+2? It is",
        " 4",
        " 5",
    )
    yield (
        "implicit prompt, parting inside a word",
        (
            {"chosen": "I like my cats.", "rejected": "I like my cars."},
            "I like my",
            " cats.",
            " cars.",
        ),
    )
    yield "implicit prompt, new line", {"chosen": "2+2?\n4", "rejected": "2+2?\n5"}, "2+2?\n", "4", "5"
    asked_twice = "\n\nHuman: 2+2?\n\nAssistant: Yes?\n\nHuman: How much?\n\nAssistant:"
    yield (
        "transcripts",
        (
            {"chosen": asked_twice + " It is 4", "rejected": asked_twice + " It is 5"},
            asked_twice,
            " It is 4",
            " It is 5",
        ),
    )


def flat(form):
    return form if len(form) == 5 else (form[0], *form[1])


@pytest.mark.parametrize(
    ("given", "prompt", "chosen", "rejected"),
    [flat(form)[1:] for form in forms()],
    ids=[form[0] for form in forms()],
)
def test_every_form_gives_its_pair(given, prompt, chosen, rejected):
    assert prompt_and_responses(given) == (prompt, {"chosen": chosen, "rejected": rejected})


def test_every_row_the_guide_shows_is_read():
    guide = Path(__file__).resolve().parents[2] / "docs" / "data.md"
    blocks = re.findall(r"```json\n(.*?)```", guide.read_text(encoding="utf-8"), flags=re.DOTALL)
    rows = [json.loads(line) for block in blocks for line in block.splitlines()]
    assert len(rows) > 30
    for shown in rows:
        prompt, responses = prompt_and_responses(shown)
        asked = prompt if isinstance(prompt, str) else "".join(message["content"] for message in prompt)
        answers = [text if isinstance(text, str) else text[0]["content"] for text in responses.values()]
        assert "Is the sky blue?" in asked
        assert not any("sky" in answer for answer in answers)


def test_a_response_is_kept_to_the_last_space_and_line_break():
    given = {"prompt": " a\r\n", "chosen": " Yes \n", "rejected": "\tNo"}
    assert prompt_and_responses(given) == (" a\r\n", {"chosen": " Yes \n", "rejected": "\tNo"})


def test_message_keys_without_a_value_are_left_out_and_others_kept():
    given = {
        "prompt": [{**user("Hi"), "name": "Jo", "tool_calls": None}],
        "chosen": [assistant("a")],
        "rejected": [assistant("b")],
    }
    assert prompt_and_responses(given)[0] == [{**user("Hi"), "name": "Jo"}]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (row(chosen=""), "empty response"),
        (row(rejected=" \n\t"), "empty response"),
        (row(chosen="same", rejected="same"), "identical responses"),
        ({"chosen": "2+2? 4", "rejected": "2+2? 4"}, "identical responses"),
        ({"chosen": "2+2? 4", "rejected": "2+2?"}, "one text continues the other, and there is no prompt"),
        ({"chosen": [user("a"), assistant("b")], "rejected": [user("a")]}, "empty response"),
        ({"chosen": [user("a"), assistant(" ")], "rejected": [user("a"), assistant("c")]}, "empty response"),
        (
            {
                "chosen": [user("a"), assistant("b"), user("c"), assistant("d")],
                "rejected": [user("a"), assistant("x"), user("c"), assistant("d")],
            },
            "response holds another speaker's turn",
        ),
        (
            {
                "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
                "rejected": "\n\nHuman: a\n\nAssistant: x\n\nHuman: c\n\nAssistant: d",
            },
            "transcripts part before the last turn",
        ),
    ],
)
def test_a_row_without_a_preference_is_dropped_with_its_reason(tmp_path, given, reason):
    with pytest.raises(Unusable, match=f"^{reason}$"):
        prompt_and_responses(given)
    pairs, report = read_preferences(write_jsonl(tmp_path / "a.jsonl", [row(), given]))
    assert len(pairs) == 1
    assert report.dropped == {reason: ["a.jsonl:2"]}
    assert report.summary() == f"2 rows read, 1 pair kept; 1 dropped: 1 {reason}"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"prompt": "a", "chosen": "b"}, "no field 'rejected' (the row has prompt, chosen)"),
        ({}, "no field 'chosen' (the row has no field)"),
        ({"two\nlines": "a"}, "no field 'chosen' (the row has two\\nlines)"),
        (row(chosen=None), "no field 'chosen' (the row has prompt, chosen, rejected)"),
        (row(prompt=7), "field 'prompt' holds a number where text or a list of messages belongs"),
        (row(chosen=True), "field 'chosen' holds true or false where text or a list of messages belongs"),
        (row(chosen=[]), "field 'chosen' is an empty list"),
        (row(chosen=["b"]), "field 'chosen', message 1: text where a message with role and content belongs"),
        (
            row(chosen=[assistant("b"), assistant(3)]),
            "field 'chosen', message 2: 'content' holds a number where",
        ),
        (row(chosen=[{"content": "b"}]), "field 'chosen', message 1: 'role' holds nothing (null) where text"),
        (
            row(chosen={"from": None, "value": "b"}),
            "message 1: 'role' holds nothing (null) where text belongs",
        ),
        (row(rejected="half \ud83d"), "field 'rejected' holds half a character"),
        (
            {"chosen": "Yes", "rejected": "No"},
            "no field 'prompt', and 'chosen' and 'rejected' share no beginning",
        ),
        ({"chosen": [user("a")], "rejected": [user("b")]}, "'chosen' and 'rejected' share no message"),
        (
            {"chosen": "a b", "rejected": [assistant("b")]},
            "fields 'chosen' and 'rejected' mix text and messages",
        ),
    ],
)
def test_a_malformed_row_is_named_by_file_line_and_field(tmp_path, given, problem):
    path = write_jsonl(tmp_path / "a.jsonl", [row(), given, row(1)])
    with pytest.raises(InputError) as caught:
        read_preferences(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: ")
    assert problem in message
    assert message.endswith("; mend the row or pass --skip-bad-rows")
    assert "\n" not in message

    pairs, report = read_preferences(path, skip_bad_rows=True)
    assert [pair.pair_id for pair in pairs] == ["a.jsonl:1", "a.jsonl:3"]
    assert len(report.bad_rows) == 1
    assert problem in report.bad_rows[0]
    assert report.rows == 3


def test_when_no_row_is_usable_the_error_says_why(tmp_path):
    path = write_jsonl(
        tmp_path / "a.jsonl", [row(chosen=""), row(chosen=" "), row(chosen="x", rejected="x"), {}]
    )
    with pytest.raises(InputError, match="no usable row") as caught:
        read_preferences(path, skip_bad_rows=True)
    message = str(caught.value)
    assert "3 dropped: 2 empty response, 1 identical responses" in message
    assert "1 malformed row skipped" in message
    assert "\n" not in message


def test_further_responses_follow_chosen_and_rejected_in_the_order_named(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [row(other="o", third="t", left_out="l")])
    pairs, _ = read_preferences(path, extra_responses=["third", "other"])
    assert pairs == [
        Pair("a.jsonl:1", "Say 0.", {"chosen": "0", "rejected": "not 0", "third": "t", "other": "o"})
    ]
    assert list(pairs[0].responses) == ["chosen", "rejected", "third", "other"]


def test_further_responses_take_the_form_of_the_row():
    whole = {name: [user("a"), assistant(name)] for name in ("chosen", "rejected", "other")}
    assert prompt_and_responses(whole, ["other"])[1]["other"] == [assistant("other")]
    texts = {name: f"Q? {name}" for name in ("chosen", "rejected", "other")}
    assert prompt_and_responses(texts, ["other"])[1]["other"] == " other"
    with pytest.raises(InputError, match="field 'other' does not begin with the text"):
        prompt_and_responses({**texts, "other": "R? other"}, ["other"])
    with pytest.raises(Unusable, match="empty extra response"):
        prompt_and_responses(row(other=" "), ["other"])


@pytest.mark.parametrize("names", [["chosen"], ["prompt"], ["a", "a"]])
def test_a_response_cannot_be_named_twice(tmp_path, names):
    with pytest.raises(InputError, match=r"--probe-responses .*: read already"):
        read_preferences(write_jsonl(tmp_path / "a.jsonl", [row(a="x")]), extra_responses=names)


def test_repeated_rows_are_kept_and_counted(tmp_path):
    pairs, report = read_preferences(write_jsonl(tmp_path / "a.jsonl", [row(), row(1), row()]))
    assert [pair.pair_id for pair in pairs] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]
    assert report.duplicates == 1
    assert report.summary() == "3 rows read, 3 pairs kept; 1 pair kept that an earlier one equals"


def test_fingerprint_follows_the_content_and_not_the_file(tmp_path):
    rows = [row(), row(1)]
    pairs, report = read_preferences(write_jsonl(tmp_path / "a.jsonl", rows))
    (tmp_path / "b.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    assert report.fingerprint == fingerprint(pairs) == read_preferences(tmp_path / "b.json")[1].fingerprint
    for changed in ([row(1), row()], [row()], [row(), row(1, chosen="1 ")]):
        other = read_preferences(write_jsonl(tmp_path / "c.jsonl", changed))[1]
        assert other.fingerprint != report.fingerprint


SHARED_PAIRS = {  # counted in the README beside the files: blank and identical responses, as in the sources
    "llms_from_scratch_polite": (824, {"identical responses": 4}),
    "llama_factory_dpo_en_demo": (209, {}),
    "hh_rlhf_harmless_base_test": (1485, {"empty response": 2}),
    "learning_dynamics_helpful_probe": (500, {"empty response": 1}),
    "persona_agreeableness": (1000, {}),
    "persona_conscientiousness": (1000, {}),
    "persona_openness": (1000, {}),
    "persona_interest_in_science": (1000, {}),
}


KEPT_PAIRS = {  # as tests/inputs/README.md counts them
    "llms_from_scratch_polite": (40, {"identical responses": 1}),
    "llama_factory_dpo_en_demo": (40, {}),
    "learning_dynamics_helpful_probe": (15, {"empty response": 1}),
    "persona_openness": (60, {}),
}


@pytest.mark.parametrize("name", KEPT_PAIRS)
def test_kept_files_are_read_as_their_readme_counts_them(inputs, name):
    _is_read_whole(inputs / "data" / f"{name}.jsonl", *KEPT_PAIRS[name])


@pytest.mark.parametrize("name", SHARED_PAIRS)
def test_shared_files_are_read_as_their_readme_counts_them(shared, name):
    _is_read_whole(shared / "data" / f"{name}.jsonl", *SHARED_PAIRS[name])


def _is_read_whole(file, rows, dropped):
    pairs, report = read_preferences(file)
    assert report.rows == rows
    assert {reason: len(ids) for reason, ids in report.dropped.items()} == dropped
    lines = file.read_text(encoding="utf-8").splitlines()
    for pair in pairs[:: -(-len(pairs) // 20)]:
        source = json.loads(lines[int(pair.pair_id.rpartition(":")[2]) - 1])
        assert (pair.prompt, *pair.responses.values()) == (
            source["prompt"],
            source["chosen"],
            source["rejected"],
        )


def test_probe_columns_of_learning_dynamics_become_responses(inputs):
    names = ["chosen_selfr", "reject_gptsemantic", "irr_hum", "random_permute"]
    pairs, report = read_preferences(
        inputs / "data" / "learning_dynamics_helpful_probe.jsonl", extra_responses=names
    )
    assert report.pairs == 14
    assert all(list(pair.responses) == ["chosen", "rejected", *names] for pair in pairs)


def test_transcripts_of_hh_part_where_the_file_parted_them(inputs, tmp_path):
    """The file was made from whole transcripts of HH; joining its fields gives them back."""
    pairs, _ = read_preferences(inputs / "data" / "learning_dynamics_helpful_probe.jsonl")
    rows = [{name: pair.prompt + text for name, text in pair.responses.items()} for pair in pairs]
    again, report = read_preferences(write_jsonl(tmp_path / "whole.jsonl", rows))
    assert [(pair.prompt, pair.responses) for pair in again] == [
        (pair.prompt, pair.responses) for pair in pairs
    ]
    assert report.dropped == {}


def test_messages_of_llama_factory_part_where_the_file_parted_them(inputs, tmp_path):
    pairs, _ = read_preferences(inputs / "data" / "llama_factory_dpo_en_demo.jsonl")
    rows = [{name: pair.prompt + text for name, text in pair.responses.items()} for pair in pairs]
    again, _ = read_preferences(write_jsonl(tmp_path / "whole.jsonl", rows))
    assert [(pair.prompt, pair.responses) for pair in again] == [
        (pair.prompt, pair.responses) for pair in pairs
    ]
    roles = Counter(message["role"] for pair in again for message in pair.prompt)
    assert roles["system"] > 0  # the file does hold system messages and several turns
    assert roles["assistant"] > 0

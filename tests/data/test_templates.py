"""What a chat template adds, leaves out and refuses is seen and said, whatever the template does."""

from __future__ import annotations

import signal
import time

import pytest

from rewardshape.data import Pair, encode_pairs, parse_template_arguments
from rewardshape.data.templates import OutOfTime, time_limit
from rewardshape.errors import InputError
from tests.data.test_tokenization import ASKED, BUILT, CHAT, NO, YES

TOKENIZER = BUILT["chat"]
LIMITS = {"max_prompt_tokens": None, "max_response_tokens": None}

# In the manner of Qwen3: an empty think block before an answer without reasoning, the reasoning in it otherwise, tool
# calls after the content, tools before all; `enable_thinking=false` puts the empty block into the prompt.
THINKING = """
{%- if tools %}[tools {{ tools | map(attribute='name') | join(' ') }}]
{% endif %}
{%- for m in messages %}<|{{ m.role }}|>
{% if m.role == 'assistant' and loop.last %}<think>
{{ m.reasoning_content if m.reasoning_content else '' }}
</think>

{% endif %}{{ m.content if m.content else '' }}
{%- for call in m.tool_calls or [] %}[call {{ call.function.name }}]{% endfor %}{{ eos_token }}
{% endfor %}
{%- if add_generation_prompt %}<|assistant|>
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}""".lstrip("\n")

CALL = {"type": "function", "function": {"name": "w", "arguments": {}}}


def assistant(content, **further):
    return [{"role": "assistant", "content": content, **further}]


def encode(chosen=YES, rejected=NO, asked=ASKED, tools=None, template=CHAT, **options):
    pair = Pair("a.jsonl:1", asked, {"chosen": chosen, "rejected": rejected}, tools)
    (encoded,), report = encode_pairs([pair], TOKENIZER, chat_template=template, **(LIMITS | options))
    return encoded, report


def texts(encoded):
    return TOKENIZER.decode(encoded.prompt_ids), {
        name: TOKENIZER.decode(i) for name, i in encoded.responses.items()
    }


# --- what it adds ---


def test_tokens_before_the_content_are_counted_and_reported_as_response():
    encoded, report = encode(template=THINKING)
    prompt, responses = texts(encoded)
    assert prompt.endswith("<|assistant|>\n")
    assert responses["chosen"] == "<think>\n\n</think>\n\nYes</s>\n"
    assert report.opening == "<think>\n\n</think>\n\n"
    plain, _ = encode(template=CHAT)
    added = {len(ids) - len(plain.responses[name]) for name, ids in encoded.responses.items()}
    assert added == {report.opening_tokens}  # the same answers without the block are shorter by just that
    assert r"opens each response with '<think>\n\n</think>\n\n'" in report.summary()
    assert report.summary().endswith("counted as response")


def test_tokens_before_the_content_may_be_counted_as_prompt():
    counted, _ = encode(template=THINKING)
    encoded, report = encode(template=THINKING, template_opening="prompt")
    prompt, responses = texts(encoded)
    assert prompt.endswith("<|assistant|>\n<think>\n\n</think>\n\n")
    assert responses == {"chosen": "Yes</s>\n", "rejected": "No</s>\n"}
    for name in responses:  # the model reads the same tokens; only the boundary has moved
        assert encoded.prompt_ids + encoded.responses[name] == counted.prompt_ids + counted.responses[name]
    assert report.summary().endswith("counted as prompt")


def test_reasoning_is_content_and_no_opening():
    encoded, report = encode(
        assistant("Yes", reasoning_content="Rayleigh"),
        assistant("Yes", reasoning_content="a guess"),
        template=THINKING,
    )
    assert "Rayleigh" in texts(encoded)[1]["chosen"]
    assert (report.opening_pairs, report.passed_over) == (0, {})


def test_a_template_argument_reaches_the_template():
    encoded, report = encode(template=THINKING, template_arguments={"enable_thinking": False})
    assert texts(encoded)[0].endswith("<think>\n\n</think>\n\n")
    assert texts(encoded)[1]["chosen"] == "Yes</s>\n"
    assert report.opening_pairs == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"enable_thinking": False},
            "--template-argument enable_thinking: the chat template does not know it",
        ),
        ({"messages": []}, "--template-argument messages: set by the data"),
    ],
)
def test_an_argument_that_changes_nothing_is_refused(arguments, problem):
    with pytest.raises(InputError, match=problem):
        encode(template_arguments=arguments)


def test_an_argument_needs_messages():
    pair = Pair("a:1", "Is it so?", {"chosen": " Yes", "rejected": " No"})
    with pytest.raises(InputError, match="no pair is made of messages"):
        encode_pairs([pair], TOKENIZER, template_arguments={"x": 1}, **LIMITS)


@pytest.mark.parametrize("words", [["enable_thinking"], ["a-b=1"], ["a=1", "a=2"]])
def test_arguments_that_make_no_sense_are_refused(words):
    with pytest.raises(InputError, match="--template-argument"):
        parse_template_arguments(words)


def test_values_of_arguments_are_json_or_text():
    given = ["a=false", "b=3", "c=x y", 'd=["q"]', "e=1=2"]
    assert parse_template_arguments(given) == {"a": False, "b": 3, "c": "x y", "d": ["q"], "e": "1=2"}


# --- what it leaves out ---


@pytest.mark.parametrize("key", ["tool_calls", "reasoning_content"])
def test_what_the_template_does_not_write_is_found_and_counted(key):
    answer = assistant("Yes", **{key: [CALL] if key == "tool_calls" else "because"})
    encoded, report = encode(answer)
    assert texts(encoded)[1]["chosen"] == "Yes</s>\n"
    assert report.passed_over == {key: 1}
    assert report.summary().endswith(f"the chat template passes over {key} of 1 pair")
    assert encode(answer, template=THINKING)[1].passed_over == {}


def test_keys_of_the_prompt_and_tools_count_too():
    asked = [{"role": "user", "content": "?", "name": "Jo"}]
    assert encode(asked=asked, tools=[{"name": "w"}])[1].passed_over == {"name": 1, "tools": 1}
    encoded, report = encode(tools=[{"name": "w"}], template=THINKING)
    assert texts(encoded)[0].startswith("[tools w]")
    assert report.passed_over == {}


def test_a_response_of_which_nothing_is_written_is_dropped_with_its_reason():
    for content in ("", None):
        with pytest.raises(InputError, match="1 response of which the chat template writes nothing"):
            encode(assistant(content, tool_calls=[CALL]))
    encoded, _ = encode(assistant("", tool_calls=[CALL]), template=THINKING)
    assert texts(encoded)[1]["chosen"].endswith("[call w]</s>\n")


# --- where the prompt ends ---


def test_a_prompt_that_ends_in_an_assistant_turn_is_continued():
    asked = [*ASKED, *assistant("It #")]  # which never merges with what follows
    encoded, report = encode(assistant("so"), assistant("not"), asked=asked)
    assert texts(encoded) == (
        "<s><|user|>\nIs it so?</s>\n<|assistant|>\nIt #",
        {"chosen": "so</s>\n", "rejected": "not</s>\n"},
    )
    whole = TOKENIZER.apply_chat_template([*ASKED, *assistant("It #so")], chat_template=CHAT)["input_ids"]
    assert encoded.prompt_ids + encoded.responses["chosen"] == whole
    assert (report.boundary_merges, report.prompts_rewritten) == (0, 0)


# --- what does not end ---


def test_a_template_that_does_not_end_is_stopped(monkeypatch):
    monkeypatch.setattr("rewardshape.data.templates.SECONDS", 0.2)
    endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}" * 2
    template = endless + "{% endfor %}" * 4 + CHAT
    start = time.monotonic()
    with pytest.raises(
        InputError, match=r"^a\.jsonl:1: the chat template does not end \(.*0\.2 seconds\)"
    ) as caught:
        encode(template=template)
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)


def test_an_alarm_that_was_set_before_still_rings():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    running = signal.setitimer(signal.ITIMER_REAL, 500, 7)  # the clock of the test runner
    try:
        with pytest.raises(OutOfTime), time_limit(0.05):
            time.sleep(5)
        assert not rung
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert 400 < left <= 499.95
        assert interval == 7
        signal.raise_signal(signal.SIGALRM)
        assert rung == [True]
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *running)

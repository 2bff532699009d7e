"""The forms that a row of preference data has: a table of what recognises each and what reads it.

A form finds three things in a row: the prompt (or none, where the responses hold it), the chosen and the rejected
response. It takes them out of `Cells`, which remembers the columns that were read. Where the prompt ends is
decided later (`prompts`), for all forms alike.

The shapes were taken from the data sets and trainers that the names speak of; docs/data.md shows a row of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rewardshape.data.cells import Cells, Row
from rewardshape.data.messages import Message, Text, Unusable, kind, loads, said
from rewardshape.errors import InputError

# A prompt stands in the first of these that says something.
PROMPT_COLUMNS = ("prompt", "instruction", "question", "query", "input")
# These hold a conversation: the prompt, unless the responses repeat it.
CONVERSATION_COLUMNS = ("messages", "conversations", "conversation", "context", "history")


RATINGS = ("helpfulness", "score", "rating")
"""Columns that rate a response, the higher the better."""


def of_next(name: str) -> str:
    """What a row that was joined from two calls a column of the second."""
    return f"{name} (next row)"


class Parts(NamedTuple):
    """The three things that a form finds in a row; no prompt where the responses hold it."""

    prompt: Text | None
    chosen: Text
    rejected: Text


@dataclass(frozen=True)
class Form:
    """One form of row.

    Attributes
    ----------
    name : str
        What the report calls it.
    columns : tuple of str
        It is recognised by these: none may be absent or null.
    reads : callable
        `Cells` to `Parts`; raises `InputError` where a cell is of the wrong kind, `Unusable` where the row holds no
        preference.
    verdict : tuple of str
        Those of the columns that say which response is better; where one of them is null, nothing does.
    """

    name: str
    columns: tuple[str, ...]
    reads: Callable[[Cells], Parts]
    verdict: tuple[str, ...] = ()

    def recognises(self, cells: Cells, *, undecided: bool = False) -> bool:
        """Whether a row is of this form, or would be if its verdict were not null."""
        may_be_null = self.verdict if undecided else ()
        return all(
            name in cells.row and (cells.row[name] is not None or name in may_be_null)
            for name in self.columns
        )


def form_of(cells: Cells) -> Form:
    """The form of a row; the plain one where none is recognised, since its errors name what is missing."""
    for form in FORMS:
        if form.recognises(cells):
            return form
    for form in FORMS:
        if form.verdict and form.recognises(cells, undecided=True):
            return replace(form, reads=_undecided)
    return PLAIN


def is_of_a_form(row: Row) -> bool:
    """Whether a row is one of preference data, in any of the forms."""
    return any(form.recognises(Cells(row)) for form in FORMS)


def rating_of(row: Row) -> str | None:
    """The column that rates the one response of a row, where it is a row of that kind."""
    if row.get("response") is None:
        return None
    form = form_of(Cells(row))
    return form.verdict[0] if form.reads is _RATED else None


# --- the prompt ---


def _prompt(cells: Cells, *responses: Text) -> Text | None:
    """The prompt of a row whose responses have columns of their own."""
    for name in PROMPT_COLUMNS:
        if cells.holds(name):
            return _with_history(cells, _with_input(cells, name))
    if cells.value("prompt") is not None:  # there, and empty
        return cells.said("prompt")
    asked = any(isinstance(text, list) and any(m["role"] == "user" for m in text) for text in responses)
    for name in () if asked else CONVERSATION_COLUMNS:
        if cells.holds(name):
            return cells.said(name)
    return None


def _with_input(cells: Cells, name: str) -> Text:
    """Of an instruction, what it is to be carried out on, on a line of its own."""
    prompt = cells.said(name)
    if name != "instruction" or "input" not in cells.row or not isinstance(prompt, str):
        return prompt
    further = cells.said("input") if cells.holds("input") else cells.value("input")
    return f"{prompt}\n{further}" if further else prompt


def _with_history(cells: Cells, prompt: Text) -> Text:
    """Before a prompt, the earlier turns that a `history` of (question, answer) pairs holds."""
    history = cells.row.get("history")
    turns = isinstance(history, list) and all(
        isinstance(turn, list | tuple) and len(turn) == 2 and all(isinstance(text, str) for text in turn)
        for turn in history
    )
    if not turns:
        return prompt
    earlier = [
        {"role": role, "content": text}
        for turn in cells.value("history")
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    if not earlier:
        return prompt
    return [*earlier, *(prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}])]


# --- forms with a chosen and a rejected response ---


def _two(chosen: str, rejected: str) -> Callable[[Cells], Parts]:
    def reads(cells: Cells) -> Parts:
        responses = cells.said(chosen), cells.said(rejected)
        return Parts(_prompt(cells, *responses), *responses)

    return reads


def _swift(rejected: str) -> Callable[[Cells], Parts]:
    """ms-swift: the last turn of `messages` is the chosen response."""

    def reads(cells: Cells) -> Parts:
        messages = cells.said("messages")
        if isinstance(messages, str) or len(messages) < 2:
            raise InputError("field 'messages' holds no question and answer")
        other = cells.said(rejected)
        if isinstance(other, list) and other[0]["role"] != "assistant":  # a conversation of its own
            return Parts(None, messages, other)
        return Parts(messages[:-1], messages[-1:], other)

    return reads


def _openai(cells: Cells) -> Parts:
    given = cells.value("input")
    if not isinstance(given, dict) or "messages" not in given:
        raise InputError(f"field 'input' holds {kind(given)} where an object with 'messages' belongs")
    if given.get("tools") and not cells.holds("tools"):
        cells.row = {**cells.row, "tools": given["tools"]}
    cells.within += [f"input.{name}" for name in given if name not in ("messages", "tools")]
    prompt, _ = said(given["messages"], "input.messages")
    return Parts(prompt, cells.said("preferred_output"), cells.said("non_preferred_output"))


# --- two responses, and a word on which is better ---

FIRST = ("model_a", "a", "response_a", "first")
SECOND = ("model_b", "b", "response_b", "second")
NO_SCORE = "no preference (no score)"
TIE = ("tie", "tie (bothbad)", "both_bad", "bothbad", "both bad")


def _winner(name: str) -> Callable[[Cells], bool]:
    """Whether the first is better, by a word for the winner."""

    def first(cells: Cells) -> bool:
        word = str(cells.value(name)).strip().lower()
        if word in ("", "nan"):
            raise Unusable(NO_SCORE)
        if word in TIE:
            raise Unusable("no preference (a tie)")
        if word not in (*FIRST, *SECOND):
            raise InputError(
                f"field '{name}' holds {cells.row[name]}, and which response that prefers is not known; "
                "known are model_a, model_b, a, b and tie"
            )
        return word in FIRST

    return first


def _undecided(cells: Cells) -> Parts:
    raise Unusable(NO_SCORE)


def _number(cells: Cells, name: str) -> float:
    value = cells.value(name)
    if value == "":  # a cell of CSV that is empty
        raise Unusable(NO_SCORE)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"field '{name}' holds {kind(value)} where a number belongs") from None
    if not math.isfinite(number):
        raise Unusable(NO_SCORE)
    return number


def _numbered(name: str, first: float, second: float) -> Callable[[Cells], bool]:
    """Whether the first is better, by a number that is as near to the one for it as a judge is sure of that."""

    def is_first(cells: Cells) -> bool:
        number = _number(cells, name)
        if not min(first, second) <= number <= max(first, second):
            raise InputError(f"field '{name}' holds {number:g}; {first:g} or {second:g} belongs there")
        if number == (middle := (first + second) / 2):
            raise Unusable("no preference (a tie)")
        return (number < middle) == (first < second)

    return is_first


def _strength(name: str) -> Callable[[Cells], bool]:
    """Whether the first is better: below zero it is, at zero there is no preference."""

    def first(cells: Cells) -> bool:
        if (strength := _number(cells, name)) == 0:
            raise Unusable("no preference (a tie)")
        return strength < 0

    return first


def _higher(first_score: str, second_score: str) -> Callable[[Cells], bool]:
    def first(cells: Cells) -> bool:
        one, other = _number(cells, first_score), _number(cells, second_score)
        if one == other:
            raise Unusable("no preference (a tie)")
        return one > other

    return first


def _either(first: str, second: str, first_is_better: Callable[[Cells], bool]) -> Callable[[Cells], Parts]:
    def reads(cells: Cells) -> Parts:
        responses = cells.said(first), cells.said(second)
        chosen, rejected = responses if first_is_better(cells) else responses[::-1]
        return Parts(_prompt(cells, *responses), chosen, rejected)

    return reads


def _arena_turns(cells: Cells) -> Parts:
    """The Arena's table of questions and answers: each cell a JSON list, one text a turn."""
    lists = {name: _texts(cells, name) for name in ("prompt", "response_a", "response_b")}
    if len({len(texts) for texts in lists.values()}) > 1:
        raise InputError("fields 'prompt', 'response_a' and 'response_b' hold unequal numbers of turns")
    sides = [_conversation(lists["prompt"], lists[name]) for name in ("response_a", "response_b")]
    if _number(cells, "winner_model_a") == _number(cells, "winner_model_b"):
        raise Unusable("no preference (a tie)")
    cells.read.add("winner_tie")
    chosen, rejected = sides if _number(cells, "winner_model_a") else sides[::-1]
    return Parts(None, chosen, rejected)


def _texts(cells: Cells, name: str) -> list[str]:
    value = cells.value(name)
    if isinstance(value, str):
        try:
            value = loads(value)
        except (ValueError, RecursionError):
            value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise InputError(f"field '{name}' holds no list of texts, one a turn")
    return value


def _conversation(questions: list[str], answers: list[str]) -> list[Message]:
    return [
        {"role": role, "content": text}
        for turn in zip(questions, answers, strict=True)
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


# --- many responses, ranked ---


def _ranked(answers: str, text: str, score: str, *, best: Callable[..., Any]) -> Callable[[Cells], Parts]:
    """Of many responses the best and the worst; `best` is min for ranks, max for scores."""

    def reads(cells: Cells) -> Parts:
        found = cells.value(answers)
        rated = [
            (float(answer[score]), answer[text])
            for answer in (found if isinstance(found, list) else [])
            if isinstance(answer, dict) and isinstance(answer.get(score), int | float) and answer.get(text)
        ]
        if len(rated) < 2:
            raise InputError(f"field '{answers}' holds no two answers with '{text}' and '{score}'")
        rated = [answer for answer in rated if math.isfinite(answer[0])]
        if len(rated) < 2:
            raise Unusable(NO_SCORE)
        high, low = best(rated, key=_score), (max if best is min else min)(rated, key=_score)
        if high[0] == low[0]:
            raise Unusable("no preference (a tie)")
        texts = [said(answer, answers)[0] for _, answer in (high, low)]
        return Parts(_prompt(cells), *texts)

    return reads


def _score(rated: tuple[float, Any]) -> float:
    return rated[0]


# --- no pairs ---


def _unpaired(what: str) -> Callable[[Cells], Parts]:
    def reads(cells: Cells) -> Parts:
        raise InputError(f"{what}, so there is no pair to compare ({cells.names()})")

    return reads


PLAIN = Form("prompt, chosen, rejected", ("chosen", "rejected"), _two("chosen", "rejected"))
_KTO = _unpaired("unpaired data: one response a row with a label, as for KTO")
_RATED = _unpaired("unpaired data: one response with its ratings, and no next row of the same prompt")
_SINGLE = _unpaired("one response a row, as for supervised fine-tuning")

FORMS: tuple[Form, ...] = (
    PLAIN,
    Form("chosen_response, rejected_response", ("chosen_response", "rejected_response"),
         _two("chosen_response", "rejected_response")),
    Form("LLaMA-Factory chosen_messages", ("chosen_messages", "rejected_messages"),
         _two("chosen_messages", "rejected_messages")),
    Form("ms-swift messages, rejected_response", ("messages", "rejected_response"), _swift("rejected_response")),
    Form("ms-swift messages, rejected_messages", ("messages", "rejected_messages"), _swift("rejected_messages")),
    Form("response, rejected_response", ("response", "rejected_response"), _two("response", "rejected_response")),
    Form("OpenAI preferred_output", ("preferred_output", "non_preferred_output"), _openai),
    Form("Stack Exchange response_j, response_k", ("response_j", "response_k"), _two("response_j", "response_k")),
    Form("Nectar, best and worst of the answers", ("prompt", "answers"),
         _ranked("answers", "answer", "rank", best=min)),
    Form("UltraFeedback, best and worst of the completions", ("instruction", "completions"),
         _ranked("completions", "response", "overall_score", best=max)),
    Form("SHP", ("human_ref_A", "human_ref_B", "labels"),
         _either("human_ref_A", "human_ref_B", _numbered("labels", 1, 0)), ("labels",)),
    Form("PKU-SafeRLHF by better_response_id", ("response_0", "response_1", "better_response_id"),
         _either("response_0", "response_1", _numbered("better_response_id", 0, 1)), ("better_response_id",)),
    Form("HelpSteer2 by preference_strength", ("response_1", "response_2", "preference_strength"),
         _either("response_1", "response_2", _strength("preference_strength")), ("preference_strength",)),
    Form("HelpSteer3 by overall_preference", ("response1", "response2", "overall_preference"),
         _either("response1", "response2", _strength("overall_preference")), ("overall_preference",)),
    Form("Arena conversations by winner", ("conversation_a", "conversation_b", "winner"),
         _either("conversation_a", "conversation_b", _winner("winner")), ("winner",)),
    Form("Arena turns by winner", ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"),
         _arena_turns, ("winner_model_a", "winner_model_b")),
    Form("response_a, response_b by winner", ("response_a", "response_b", "winner"),
         _either("response_a", "response_b", _winner("winner")), ("winner",)),
    Form("response_a, response_b by label", ("response_a", "response_b", "label"),
         _either("response_a", "response_b", _winner("label")), ("label",)),
    Form("AlpacaEval outputs by preference", ("output_1", "output_2", "preference"),
         _either("output_1", "output_2", _numbered("preference", 1, 2)), ("preference",)),
    Form("answer_0, answer_1 by score", ("answer_0", "answer_1", "score_0", "score_1"),
         _either("answer_0", "answer_1", _higher("score_0", "score_1")), ("score_0", "score_1")),
    *(Form(f"two rows of one prompt, by {rating}", ("prompt", "response", of_next("response"), of_next(rating)),
           _either("response", of_next("response"), _higher(rating, of_next(rating)))) for rating in RATINGS),
    Form("KTO", ("completion", "label"), _KTO),
    Form("KTO", ("messages", "label"), _KTO),
    Form("KTO", ("messages", "kto_tag"), _KTO),
    Form("KTO", ("conversations", "kto_tag"), _KTO),
    Form("KTO", ("response", "label"), _KTO),
    *(Form("ratings", ("prompt", "response", rating), _RATED, (rating,)) for rating in RATINGS),
    Form("single", ("prompt", "completion"), _SINGLE),
    Form("single", ("prompt", "response"), _SINGLE),
    Form("single", ("instruction", "output"), _SINGLE),
)  # fmt: skip

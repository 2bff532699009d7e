"""A row into a prompt and responses: where the one ends and the others begin, whatever form the row has.

The prompt is never invented. The beginning that two texts share counts as their prompt only where the row has no
other column that could hold it; a prompt that the responses repeat is taken out of them, and the report counts it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardshape.data.cells import SCORES, Cells, Row
from rewardshape.data.forms import Parts, form_of
from rewardshape.data.messages import (
    CALLS,
    Message,
    Text,
    Unusable,
    check_texts,
    common_length,
    kind,
    loads,
    spoken,
    without_nulls,
)
from rewardshape.errors import InputError

HH_QUESTION, HH_ANSWER = "\n\nHuman:", "\n\nAssistant:"
SYSTEM_COLUMNS = ("system", "system_prompt")
SCORE_COLUMNS = (SCORES, ("score_chosen", "score_rejected"))  # of UltraFeedback's binarised sets
OTHER_MEDIA = ("images", "image", "videos", "video", "audios", "audio")

REPEATED = "prompt taken out of the responses that repeated it"
SHARED = "prompt taken from the beginning that the responses share"
# Two answers may begin with the words of a prompt by chance, if it has fewer words than this (and letters, where words
# are not told apart by spaces).
FEWEST_WORDS, FEWEST_LETTERS = 3, 20
_LETTER = re.compile(r"[^\W\u2e80-\U0003ffff]")  # of a script with spaces between its words


@dataclass(frozen=True)
class Reading:
    """What a row says, and how it was read.

    Attributes
    ----------
    prompt, responses
        As in `Pair`.
    tools : list, optional
        Tool definitions for the chat template.
    scores : tuple of float, optional
        The annotator's of chosen and rejected.
    form : str
        The form the row was read as.
    read, not_read : list of str
        Its columns.
    remarks : list of str
        What was done to it that a reader of the report should know.
    """

    prompt: Text
    responses: dict[str, Text]
    tools: list[Any] | None
    scores: tuple[float, float] | None
    form: str
    read: list[str]
    not_read: list[str]
    remarks: list[str]


def read_row(
    row: Row, extra: Sequence[str] = (), columns: Mapping[str, str] | None = None, repeats: bool = False
) -> Reading:
    """The prompt and the named responses of a row in any of the forms.

    `repeats` says that the texts of the source begin with their prompts, so that a short one is no chance.

    Raises
    ------
    Unusable
        The row is well formed but holds no preference.
    InputError
        A field is missing or of the wrong kind, or the form is not known.
    """
    cells = Cells(row, columns)
    _refuse_media(cells)
    form = form_of(cells)
    parts = form.reads(cells)
    responses = {
        "chosen": parts.chosen,
        "rejected": parts.rejected,
        **{name: cells.said(name) for name in extra},
    }
    if parts.chosen == parts.rejected:
        raise Unusable("identical responses")
    prompt, responses = _parted(parts, responses, cells, repeats)
    for name, response in responses.items():
        if not spoken(response).strip():
            raise Unusable("empty response" if name in ("chosen", "rejected") else "empty extra response")
    prompt = _with_system(prompt, cells)
    tools = _tools(cells) if isinstance(prompt, list) else None
    scores = _scores(cells)
    left = cells.not_read()
    read = [name for name in row if name not in left]
    return Reading(prompt, responses, tools, scores, form.name, read, left + cells.within, cells.remarks)


def _scores(cells: Cells) -> tuple[float, float] | None:
    """The annotator's scores of chosen and rejected, where the row has them in columns of known or given names."""
    for names in SCORE_COLUMNS:
        if not all(cells.holds(name) for name in names):
            continue
        try:
            chosen, rejected = (float(cells.row[name]) for name in names)
        except (TypeError, ValueError):
            if not set(names) & set(cells.columns):
                continue
            wrong = next(name for name in names if not isinstance(cells.row[name], int | float))
            raise InputError(
                f"field '{cells.columns.get(wrong, wrong)}' holds {kind(cells.row[wrong])} where a score belongs"
            ) from None
        if math.isfinite(chosen) and math.isfinite(rejected):
            cells.read |= set(names)
            return chosen, rejected
    return None


def _parted(
    parts: Parts, responses: dict[str, Text], cells: Cells, repeats: bool
) -> tuple[Text, dict[str, Text]]:
    """The prompt apart from the responses, by what the trained two are: what else is watched follows them."""
    trained = (parts.chosen, parts.rejected)
    texts = all(isinstance(value, str) for value in trained)
    if parts.prompt is None:
        if not texts and not all(isinstance(value, list) for value in trained):
            raise InputError("fields 'chosen' and 'rejected' mix text and messages, and there is no 'prompt'")
        _same_kind(responses, str if texts else list)
        return _shared_text(responses, cells) if texts else _shared_messages(responses)
    if texts and isinstance(parts.prompt, str):
        _same_kind(responses, str)
        return _explicit_text(parts.prompt, responses, cells, repeats)
    return _explicit_messages(parts.prompt, responses, cells)


def _same_kind(responses: dict[str, Text], kind: type) -> None:
    for name, value in responses.items():
        if not isinstance(value, kind):
            found, due = ("text", "messages") if kind is list else ("messages", "text")
            raise InputError(f"field '{name}' holds {found} where 'chosen' and 'rejected' hold {due}")


# --- texts ---


def _explicit_text(
    prompt: str, responses: dict[str, Any], cells: Cells, repeats: bool
) -> tuple[Text, dict[str, Text]]:
    """A text prompt beside texts, taken out of them where all of them begin with it, and not by chance."""
    by_chance = not repeats and len(prompt.split()) < FEWEST_WORDS and len(prompt) < FEWEST_LETTERS
    trained = responses["chosen"], responses["rejected"]
    if prompt.strip() and not by_chance and all(_begins(value, prompt) for value in trained):
        return prompt, _taken_out(prompt, responses, cells)
    whole = _transcript_prompt(*trained, strict=False)
    if prompt.strip() and prompt.strip() in whole:
        return whole, _taken_out(whole, responses, cells)
    return prompt, responses


def _taken_out(prompt: str, responses: dict[str, Any], cells: Cells) -> dict[str, Text]:
    """The responses without the prompt, with which all of them begin."""
    for name, value in responses.items():
        if not _begins(value, prompt):
            raise InputError(f"field '{name}' does not begin with the prompt, as 'chosen' and 'rejected' do")
    cells.remarks.append(REPEATED)
    return {name: value.removeprefix(prompt) for name, value in responses.items()}


def _begins(text: str, prompt: str) -> bool:
    """Whether a text begins with a prompt that does not end within a word of it."""
    within = bool(_LETTER.match(prompt[-1:]) and _LETTER.match(text[len(prompt) :]))
    return text.startswith(prompt) and not within


def _shared_text(responses: dict[str, Any], cells: Cells) -> tuple[Text, dict[str, Text]]:
    chosen, rejected = responses["chosen"], responses["rejected"]
    prompt = _transcript_prompt(chosen, rejected)
    if not prompt:
        _refuse_other_prompts(cells)
        prompt = _common_text(chosen, rejected)
        cells.remarks.append(SHARED)
    if not prompt.strip():
        raise InputError("no field 'prompt', and 'chosen' and 'rejected' share no beginning")
    for name, value in responses.items():
        if not value.startswith(prompt):
            raise InputError(
                f"field '{name}' does not begin with the text that 'chosen' and 'rejected' share"
            )
    return prompt, {name: value.removeprefix(prompt) for name, value in responses.items()}


def _refuse_other_prompts(cells: Cells) -> None:
    """Two texts share a word by chance: no prompt is made of that where another column could hold one.

    Naming the columns of the responses says that there is none.
    """
    could = [name for name in cells.not_read() if _could_be_a_prompt(cells.given[name])]
    if could and not cells.columns and not set(could) <= set(SYSTEM_COLUMNS):
        named = next(name for name in could if name not in SYSTEM_COLUMNS)
        raise InputError(
            f"no prompt is known in this row ({cells.names()}); name it, as --columns prompt={named}, or say "
            "--columns chosen=chosen rejected=rejected where the beginning that the two share is the prompt"
        )


def _could_be_a_prompt(value: Any) -> bool:
    """Text of several words, or messages; names, labels and numbers could not."""
    if isinstance(value, list):
        return any(isinstance(item, dict) for item in value)
    return isinstance(value, str) and len(value.split(maxsplit=1)) > 1


def _transcript_prompt(chosen: str, rejected: str, strict: bool = True) -> str:
    """Of two HH-RLHF transcripts what they share, to its last ``Assistant:``; of other texts nothing."""
    if not all(text.lstrip().startswith("Human:") and HH_ANSWER in text for text in (chosen, rejected)):
        return ""
    before, answer, _ = chosen[: common_length(chosen, rejected)].rpartition(HH_ANSWER)
    prompt = before + answer
    if not answer or any(HH_QUESTION in text[len(prompt) :] for text in (chosen, rejected)):
        if strict:
            raise Unusable("transcripts part before the last turn")
        return ""
    return prompt


def _common_text(chosen: str, rejected: str) -> str:
    """The beginning two texts share, back to the start of the word in which they part.

    The space before that word goes with it, as it does in the tokens of most models.
    """
    shared = chosen[: common_length(chosen, rejected)]
    rests = [text[len(shared) :] for text in (chosen, rejected)]
    if not all(rests):
        raise Unusable("one text continues the other, and there is no prompt")
    if any(_in_word(rest[0]) for rest in rests):
        end = len(shared)
        while end and _in_word(shared[end - 1]):
            end -= 1
        shared = shared[:end]
    return shared.removesuffix(" ")


def _in_word(letter: str) -> bool:
    return bool(re.match(r"\w", letter)) or unicodedata.category(letter).startswith(
        "M"
    )  # of Devanagari: a vowel


# --- messages ---


def _explicit_messages(
    prompt: Text, responses: dict[str, Text], cells: Cells
) -> tuple[Text, dict[str, Text]]:
    """A prompt beside messages, taken out of them where they begin with it, or with its end."""
    chats = {
        name: value if isinstance(value, list) else [{"role": "assistant", "content": value}]
        for name, value in responses.items()
    }
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    shared = chats["chosen"][: common_length(chats["chosen"], chats["rejected"])]
    if end := _end_of(asked, shared):
        asked = shared = shared[:end]
    elif not shared or not _alike(asked[-len(shared) :], shared):
        return asked, _answers(chats)
    for name, value in chats.items():
        if not _alike(value[: len(shared)], shared):
            raise InputError(f"field '{name}' does not begin with the prompt, as 'chosen' and 'rejected' do")
    cells.remarks.append(REPEATED)
    return asked, _answers({name: value[len(shared) :] for name, value in chats.items()})


def _end_of(asked: list[Message], shared: list[Message]) -> int:
    """Where the prompt ends in the messages that the responses share: after it, and after every later question.

    Zero where it is not in them.
    """
    for start in range(len(shared) - len(asked) + 1):
        if _alike(shared[start : start + len(asked)], asked):
            questions = [index for index, message in enumerate(shared, 1) if message["role"] == "user"]
            return max([start + len(asked), *questions[-1:]])
    return 0


def _alike(some: Sequence[Message], others: Sequence[Message]) -> bool:
    """Whether messages say the same and call the same tools, white space at their ends aside."""
    return len(some) == len(others) and all(
        one["role"] == other["role"]
        and (one["content"] or "").strip() == (other["content"] or "").strip()
        and all(one[key] == other[key] for key in CALLS if one.get(key) and other.get(key))
        for one, other in zip(some, others, strict=True)
    )


def _shared_messages(responses: dict[str, Any]) -> tuple[Text, dict[str, Text]]:
    prompt = responses["chosen"][: common_length(responses["chosen"], responses["rejected"])]
    if not prompt:
        raise InputError("no field 'prompt', and 'chosen' and 'rejected' share no message at their beginning")
    if all(message["role"] == "assistant" for message in prompt):
        raise InputError(
            "no field 'prompt', and 'chosen' and 'rejected' share no message that asks for an answer"
        )
    for name, value in responses.items():
        if value[: len(prompt)] != prompt:
            raise InputError(
                f"field '{name}' does not begin with the messages that 'chosen' and 'rejected' share"
            )
    return prompt, _answers({name: value[len(prompt) :] for name, value in responses.items()})


def _answers(chats: dict[str, list[Message]]) -> dict[str, Text]:
    if any(message["role"] != "assistant" for value in chats.values() for message in value):
        raise Unusable("response holds another speaker's turn")
    return dict(chats)


# --- what stands beside the pair ---


def _with_system(prompt: Text, cells: Cells) -> Text:
    """The prompt after the text of a `system` column."""
    for name in SYSTEM_COLUMNS:
        if not cells.value(name):
            continue
        system = cells.text(name)
        if not system.strip():
            continue
        if isinstance(prompt, str):
            cells.remarks.append("system text put before the prompt")
            return f"{system}\n{prompt}"
        if prompt[0]["role"] in ("system", "developer"):
            if (prompt[0]["content"] or "").strip() != system.strip():
                raise InputError(f"field '{name}' and the first message are two system texts that differ")
            return prompt
        cells.remarks.append("system message put before the prompt")
        return [{"role": "system", "content": system}, *prompt]
    return prompt


def _tools(cells: Cells) -> list[Any] | None:
    """Tool definitions, which trainers keep as a list or as its JSON text."""
    tools = cells.value("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = loads(tools)
        except (ValueError, RecursionError):
            raise InputError("field 'tools' holds text that is no JSON") from None
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise InputError(f"field 'tools' holds {kind(tools)} where a list of tool definitions belongs")
    found: list[Any] = without_nulls(tools)
    check_texts(found, "tools")
    return found


def _refuse_media(cells: Cells) -> None:
    for name in OTHER_MEDIA:
        if cells.holds(name):
            raise InputError(
                f"field '{name}' holds what is no text, and only text can be measured; take the column out of the "
                "file to measure the text alone"
            )

"""Preference pairs from the files people have: one reader, every row accounted for.

A row becomes a `Pair` in one of these forms (docs/data.md shows each):

* ``prompt``, ``chosen``, ``rejected`` as texts;
* the same as lists of chat messages (``role``, ``content``), also with the prompt or the responses as texts;
* ``chosen`` and ``rejected`` alone, sharing the prompt as their beginning: message lists, texts, or the
  ``Human:`` / ``Assistant:`` transcripts of HH-RLHF.

A row that says nothing about preference (an empty response, two equal ones) is dropped and counted; a
malformed row stops the reading with file, line and field, or is counted and skipped where asked. How pairs
become tokens lies in `tokenization`.
"""

from __future__ import annotations

import hashlib
import json
import os.path
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any

from rewardshape.data.sources import Row, is_hub_id, kind, labels, read_rows
from rewardshape.errors import InputError

Message = dict[str, Any]
Text = str | list[Message]

HH_QUESTION, HH_ANSWER = "\n\nHuman:", "\n\nAssistant:"


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and the responses to it.

    Attributes
    ----------
    pair_id : str
        ``FILENAME:LINE``, or ``FILENAME:ROW`` where the form has no lines: where a person finds the row.
    prompt : str or list of messages
        Text, or chat messages with ``role`` and ``content``.
    responses : dict
        ``chosen`` and ``rejected``, then any further responses to watch; each of the kind the prompt is.
    """

    pair_id: str
    prompt: Text
    responses: dict[str, Text]

    @property
    def is_chat(self) -> bool:
        """Whether the pair is made of messages, and so needs a chat template."""
        return isinstance(self.prompt, list)


@dataclass
class ReadReport:
    """What reading did with every row: ``rows == pairs + all dropped + bad_rows``.

    Attributes
    ----------
    sources : dict
        Rows found in each source.
    pairs : int
        Pairs kept.
    dropped : dict
        Reason to the pair_ids dropped for it.
    bad_rows : list of str
        The error line of each malformed row that was skipped.
    duplicates : int
        Pairs kept whose prompt and responses equal those of an earlier one.
    fingerprint : str
        SHA-256 of the prompts and responses kept, in order: the same for the same data in another form.
    """

    sources: dict[str, int] = field(default_factory=dict)
    pairs: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)
    bad_rows: list[str] = field(default_factory=list)
    duplicates: int = 0
    fingerprint: str = ""

    @property
    def rows(self) -> int:
        return sum(self.sources.values())

    def summary(self) -> str:
        """One line for people.

        >>> ReadReport({"a.jsonl": 3}, 2, {"empty response": ["a.jsonl:2"]}).summary()
        '3 rows read, 2 pairs kept; 1 dropped: 1 empty response'
        """
        parts = [f"{counted(self.rows, 'row')} read, {counted(self.pairs, 'pair')} kept"]
        parts += dropped_parts(self.dropped)
        if self.bad_rows:
            parts.append(
                f"{counted(len(self.bad_rows), 'malformed row')} skipped (first: {self.bad_rows[0]})"
            )
        if self.duplicates:
            parts.append(f"{counted(self.duplicates, 'pair')} kept that an earlier one equals")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of long lists the first ten."""
        return {
            "sources": dict(self.sources),
            "rows": self.rows,
            "pairs": self.pairs,
            "dropped": dropped_dict(self.dropped),
            "bad_rows": {"count": len(self.bad_rows), "first": self.bad_rows[:10]},
            "duplicates": self.duplicates,
            "fingerprint": self.fingerprint,
        }


def counted(number: int, noun: str) -> str:
    """``"1 row"``, ``"1,485 rows"``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def dropped_parts(dropped: dict[str, list[str]]) -> list[str]:
    """``["4 dropped: 2 empty response, 2 identical responses"]``, or nothing where nothing was dropped."""
    if not dropped:
        return []
    reasons = ", ".join(f"{len(ids):,} {reason}" for reason, ids in dropped.items())
    return [f"{sum(map(len, dropped.values())):,} dropped: {reasons}"]


def dropped_dict(dropped: dict[str, list[str]]) -> dict[str, Any]:
    return {reason: {"count": len(ids), "first": ids[:10]} for reason, ids in dropped.items()}


class Unusable(Exception):
    """A well-formed row that holds no preference; its text is the reason under which it is counted."""


def read_preferences(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    skip_bad_rows: bool = False,
    extra_responses: Sequence[str] = (),
) -> tuple[list[Pair], ReadReport]:
    """Read preference pairs from files, saved datasets or the hub.

    Parameters
    ----------
    paths : path or sequence of paths
        ``.jsonl``, ``.json``, ``.csv`` (each also ``.gz``), ``.parquet``; a folder saved by `datasets`; a hub
        id ``owner/name``, with ``:split`` where the dataset has several.
    skip_bad_rows : bool
        Count and skip a malformed row instead of stopping at it.
    extra_responses : sequence of str
        Further columns that hold responses to the prompt; every row must have them.

    Returns
    -------
    pairs : list of Pair
        In the order of the sources and of their rows.
    report : ReadReport
        Where every other row went.

    Raises
    ------
    InputError
        A source that cannot be read, holds no row or is given twice; a malformed row (file, line, field);
        no usable row at all.

    Examples
    --------
    >>> pairs, report = read_preferences("pairs.jsonl")  # doctest: +SKIP
    >>> print(report.summary())  # doctest: +SKIP
    1,485 rows read, 1,483 pairs kept; 2 dropped: 2 empty response
    """
    sources = [fspath(path) for path in ([paths] if isinstance(paths, str | PathLike) else paths)]
    _check_arguments(sources, extra_responses)
    report, pairs = ReadReport(), []
    for source, label in labels(sources).items():
        report.sources[label] = 0
        for number, row in read_rows(source):
            report.sources[label] += 1
            pair_id = f"{label}:{number}"
            try:
                if isinstance(row, InputError):
                    raise row
                pairs.append(Pair(pair_id, *prompt_and_responses(row, extra_responses)))
            except Unusable as reason:
                report.dropped.setdefault(str(reason), []).append(pair_id)
            except InputError as problem:
                line = f"{source}:{number}: {problem}"
                if not skip_bad_rows:
                    raise InputError(f"{line}; mend the row or pass --skip-bad-rows") from None
                report.bad_rows.append(line)
        if not report.sources[label]:
            raise InputError(f"{source}: empty, no rows in it")
    report.pairs = len(pairs)
    if not pairs:
        raise InputError(f"{', '.join(sources)}: no usable row ({report.summary()})")
    report.duplicates = len(pairs) - len({_digest(pair) for pair in pairs})
    report.fingerprint = fingerprint(pairs)
    return pairs, report


def fingerprint(pairs: Iterable[Pair]) -> str:
    """SHA-256 of prompts and responses in order, whatever file or form they came from."""
    return hashlib.sha256(b"".join(_digest(pair) for pair in pairs)).hexdigest()


def _digest(pair: Pair) -> bytes:
    content = json.dumps([pair.prompt, list(pair.responses.items())], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).digest()


def _check_arguments(sources: list[str], extra_responses: Sequence[str]) -> None:
    if not sources:
        raise InputError("--data: no file given")
    whole = [source if is_hub_id(source) else os.path.realpath(source) for source in sources]
    for index, path in enumerate(whole):
        if path in whole[:index]:
            raise InputError(f"--data: {sources[index]} is given twice")
    for index, name in enumerate(extra_responses):
        if name in ("prompt", "chosen", "rejected") or name in extra_responses[:index]:
            raise InputError(f"--probe-responses {name}: read already; name other columns")


# --- the forms of a row ---


def prompt_and_responses(row: Row, extra: Sequence[str] = ()) -> tuple[Text, dict[str, Text]]:
    """The prompt and the named responses of a row in any of the forms.

    Raises
    ------
    Unusable
        The row is well formed but holds no preference.
    InputError
        A field is missing or of the wrong kind.
    """
    names = ["chosen", "rejected", *extra]
    responses = {name: _field(row, name) for name in names}
    prompt = _field(row, "prompt") if row.get("prompt") is not None else None
    if responses["chosen"] == responses["rejected"]:
        raise Unusable("identical responses")
    if prompt is not None:
        prompt, responses = _explicit_prompt(prompt, responses)
    elif all(isinstance(value, list) for value in responses.values()):
        prompt, responses = _shared_messages(responses)
    elif all(isinstance(value, str) for value in responses.values()):
        prompt, responses = _shared_text(responses)
    else:
        raise InputError("fields 'chosen' and 'rejected' mix text and messages, and there is no 'prompt'")
    for name, response in responses.items():
        if not _spoken(response).strip():
            raise Unusable("empty response" if name in ("chosen", "rejected") else "empty extra response")
    return prompt, responses


def _field(row: Row, name: str) -> Text:
    if row.get(name) is None:
        found = ", ".join(repr(key).strip("'") for key in row) or "no field"
        raise InputError(f"no field '{name}' (the row has {found})")
    value = row[name]
    if isinstance(value, str):
        return _checked(value, name)
    if isinstance(value, dict):
        return _messages([value], name)
    if isinstance(value, list):
        return _messages(value, name)
    raise InputError(f"field '{name}' holds {kind(value)} where text or a list of messages belongs")


def _messages(value: list[Any], name: str) -> list[Message]:
    if not value:
        raise InputError(f"field '{name}' is an empty list")
    for index, message in enumerate(value):
        where = f"field '{name}', message {index + 1}"
        if not isinstance(message, dict):
            raise InputError(f"{where}: {kind(message)} where a message with role and content belongs")
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise InputError(f"{where}: '{key}' holds {kind(message.get(key))} where text belongs")
            _checked(message[key], name)
    # Tables give every message every key; those without a value were not in the data.
    return [{key: item for key, item in message.items() if item is not None} for message in value]


def _checked(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"field '{name}' holds half a character (a lone surrogate such as \\ud83d)"
        ) from None
    return text


def _explicit_prompt(prompt: Text, responses: dict[str, Text]) -> tuple[Text, dict[str, Text]]:
    if isinstance(prompt, str) and all(isinstance(value, str) for value in responses.values()):
        return prompt, responses
    chats = {
        name: value if isinstance(value, list) else [{"role": "assistant", "content": value}]
        for name, value in responses.items()
    }
    if isinstance(prompt, str):
        prompt = _prompt_messages(prompt, chats)
    if all(value[: len(prompt)] == prompt for value in chats.values()):
        chats = {name: value[len(prompt) :] for name, value in chats.items()}
    return prompt, _answers(chats)


def _prompt_messages(prompt: str, chats: dict[str, list[Message]]) -> list[Message]:
    """A text prompt beside message lists: the opening they share, where the prompt is a message of it."""
    shared = chats["chosen"][: common_length(chats["chosen"], chats["rejected"])]
    if any(message["role"] == "user" and message["content"] == prompt for message in shared):
        return shared
    return [{"role": "user", "content": prompt}]


def common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items (letters, messages, tokens) two sequences share at their beginning."""
    shortest = min(len(one), len(other))
    if one[:shortest] == other[:shortest]:  # for tokens nearly always so, and far faster than the loop
        return shortest
    return next(index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


def _shared_messages(responses: dict[str, Any]) -> tuple[Text, dict[str, Text]]:
    prompt = responses["chosen"][: common_length(responses["chosen"], responses["rejected"])]
    if not prompt:
        raise InputError("no field 'prompt', and 'chosen' and 'rejected' share no message at their beginning")
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


def _shared_text(responses: dict[str, Any]) -> tuple[Text, dict[str, Text]]:
    chosen, rejected = responses["chosen"], responses["rejected"]
    prompt = _transcript_prompt(chosen, rejected) or _common_text(chosen, rejected)
    if not prompt.strip():
        raise InputError("no field 'prompt', and 'chosen' and 'rejected' share no beginning")
    for name, value in responses.items():
        if not value.startswith(prompt):
            raise InputError(
                f"field '{name}' does not begin with the text that 'chosen' and 'rejected' share"
            )
    return prompt, {name: value.removeprefix(prompt) for name, value in responses.items()}


def _transcript_prompt(chosen: str, rejected: str) -> str:
    """Of two HH-RLHF transcripts what they share, to its last ``Assistant:``; of other texts nothing."""
    if not all(text.lstrip().startswith("Human:") and HH_ANSWER in text for text in (chosen, rejected)):
        return ""
    before, answer, _ = chosen[: common_length(chosen, rejected)].rpartition(HH_ANSWER)
    prompt = before + answer
    if not answer or any(HH_QUESTION in text[len(prompt) :] for text in (chosen, rejected)):
        raise Unusable("transcripts part before the last turn")
    return prompt


def _common_text(chosen: str, rejected: str) -> str:
    """The beginning two texts share, back to the start of the word in which they part.

    The space before that word goes with it, as it does in the tokens of most models.
    """
    shared = chosen[: common_length(chosen, rejected)]
    rests = [text[len(shared) :] for text in (chosen, rejected)]
    if not all(rests):  # one text continues the other: a response is empty, and is dropped as such
        return shared
    if any(re.match(r"\w", rest) for rest in rests):
        shared = re.sub(r"\w+\Z", "", shared)
    return shared.removesuffix(" ")


def _spoken(text: Text) -> str:
    return text if isinstance(text, str) else "".join(message["content"] for message in text)

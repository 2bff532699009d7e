"""Chat messages into text: what a chat template writes, and what it passes over.

A template is a program of its own. It may refuse messages, run for ever, leave out tool calls and reasoning
without a word, or put tokens of its own before the content of an answer; each of these is found here.
"""

from __future__ import annotations

import os.path
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from rewardshape.data.messages import PAYLOADS, Message, loads, shared_beginning
from rewardshape.data.preferences import Pair
from rewardshape.errors import InputError

SECONDS = 10.0  # a template that takes longer over one conversation will not end
OWN_ARGUMENTS = ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message")
MARK = "☞content☜"  # stands for the content of an answer; no template writes it of itself


class Joined(NamedTuple):
    """The texts of a pair: the prompt alone, and the prompt with each response.

    Attributes
    ----------
    opening : str
        What the template itself puts between the prompt and the content of the answers.
    passed_over : tuple of str
        Keys of messages, and ``tools``, that leave no trace in the text.
    silent : bool
        Whether a response has nothing but such keys.
    """

    pair_id: str
    prompt_id: str
    scores: tuple[float, float] | None
    is_chat: bool
    prompt: str
    joined: dict[str, str]
    opening: str = ""
    passed_over: tuple[str, ...] = ()
    silent: bool = False


def concatenated(pair: Pair) -> Joined:
    """The texts of a pair of texts: prompt and response as they stand, with nothing between them."""
    joined = {name: f"{pair.prompt}{response}" for name, response in pair.responses.items()}
    return Joined(pair.pair_id, pair.prompt_id, pair.scores, False, str(pair.prompt), joined)


def parse_template_arguments(words: Sequence[str]) -> dict[str, Any]:
    """``["enable_thinking=false"]`` as keyword arguments; values are JSON, or else text.

    >>> parse_template_arguments(["enable_thinking=false", "date=today"])
    {'enable_thinking': False, 'date': 'today'}
    """
    arguments: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--template-argument {word}: write NAME=VALUE, as enable_thinking=false")
        if name in arguments:
            raise InputError(f"--template-argument {word}: {name} is given twice")
        try:
            arguments[name] = loads(value)
        except (ValueError, RecursionError):
            arguments[name] = value
    return arguments


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's way of writing messages.

    Attributes
    ----------
    tokenizer : transformers tokenizer
    text : str, optional
        A Jinja template instead of the tokenizer's own.
    arguments : mapping
        Further arguments of the template, such as ``{"enable_thinking": False}``.
    """

    tokenizer: Any
    text: str | None
    arguments: Mapping[str, Any]

    def joined(self, pair: Pair) -> Joined:
        """The texts of a pair of messages; `InputError` where the template refuses them."""
        try:
            with time_limit(SECONDS):
                return self._joined(pair)
        except OutOfTime:
            reason = f"it had not ended after {SECONDS:g} seconds"
            raise InputError(f"{pair.pair_id}: the chat template does not end ({reason})") from None
        except Exception as error:  # a template is a program of its own: it may raise anything
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{pair.pair_id}: the chat template refuses these messages ({reason})"
            ) from error

    def _joined(self, pair: Pair) -> Joined:
        assert isinstance(pair.prompt, list)
        asked = pair.prompt
        goes_on = asked[-1]["role"] == "assistant"  # the answer continues the turn in which the prompt ends
        prompt = self.written(asked, pair.tools, asks=not goes_on, goes_on=goes_on)
        answered = {name: _after(asked, response, goes_on) for name, response in pair.responses.items()}
        joined = {name: self.written(messages, pair.tools) for name, messages in answered.items()}
        passed_over, silent = self._passed_over(pair, (prompt, joined), answered, goes_on)
        opening = "" if goes_on else self._opening_of(prompt, joined)
        ids = (pair.pair_id, pair.prompt_id, pair.scores)
        return Joined(*ids, True, prompt, joined, opening, passed_over, silent)

    def written(
        self, messages: list[Message], tools: Any = None, *, asks: bool = False, goes_on: bool = False
    ) -> str:
        """What the template writes for a conversation, open for an answer where it `asks` or `goes_on`."""
        return self.tokenizer.apply_chat_template(
            messages,
            tools=tools,
            chat_template=self.text,
            tokenize=False,
            add_generation_prompt=asks,
            continue_final_message=goes_on,
            **self.arguments,
        )

    @cached_property
    def opening(self) -> str:
        """What the template puts before the content of an answer (the empty think block of Qwen3)."""
        asked = [{"role": "user", "content": "?"}]
        try:
            prompt = self.written(asked, asks=True)
            whole = self.written([*asked, {"role": "assistant", "content": MARK}])
        except Exception:  # a template may want more than a question; then none of this is known
            return ""
        shared = shared_beginning(prompt, whole)
        before, mark, _ = whole[len(shared) :].partition(MARK)
        return before if mark else ""

    def _opening_of(self, prompt: str, joined: dict[str, str]) -> str:
        trained = [joined["chosen"], joined["rejected"]]
        shared = shared_beginning(prompt, *trained)
        opened = all(text.startswith(self.opening, len(shared)) for text in trained)
        return self.opening if opened else ""

    def _passed_over(
        self, pair: Pair, texts: tuple[str, dict[str, str]], answered: dict[str, list[Message]], goes_on: bool
    ) -> tuple[tuple[str, ...], bool]:
        """The keys without which the text is the same, and whether a response holds nothing else."""
        assert isinstance(pair.prompt, list)
        (prompt, joined), asked = texts, pair.prompt
        open_prompt = partial(self.written, asks=not goes_on, goes_on=goes_on)
        over = [
            key
            for key in _further_keys(asked)
            if _same(prompt, open_prompt, _without(asked, key), pair.tools)
        ]
        if pair.tools and _same(prompt, open_prompt, asked, None):
            over.append("tools")
        silent, start = False, len(asked) - goes_on
        for name, messages in answered.items():
            before, response = messages[:start], messages[start:]
            keys = _further_keys(response)
            lost = [
                key
                for key in keys
                if _same(joined[name], self.written, [*before, *_without(response, key)], pair.tools)
            ]
            over += lost
            says_nothing = not any((message["content"] or "").strip() for message in response)
            payloads = set(keys) & set(PAYLOADS)
            silent |= says_nothing and bool(payloads) and payloads <= set(lost)
        return tuple(dict.fromkeys(over)), silent


def _same(text: str, write: Callable[..., str], messages: list[Message], tools: Any) -> bool:
    try:
        return write(messages, tools) == text
    except Exception:  # the template needs what is missing here, so it does not pass it over
        return False


def _after(asked: list[Message], response: Any, goes_on: bool) -> list[Message]:
    """The conversation with a response, whose first message goes on with the turn that the prompt has begun."""
    if not goes_on:
        return [*asked, *response]
    first, *rest = response
    whole = {**asked[-1], **first, "content": (asked[-1]["content"] or "") + (first["content"] or "")}
    return [*asked[:-1], whole, *rest]


def _further_keys(messages: Any) -> list[str]:
    return list(
        dict.fromkeys(key for message in messages for key in message if key not in ("role", "content"))
    )


def _without(messages: list[Message], key: str) -> list[Message]:
    return [{name: value for name, value in message.items() if name != key} for message in messages]


def chat_template(
    pairs: Sequence[Pair], tokenizer: Any, given: str | None, arguments: Mapping[str, Any] | None
) -> ChatTemplate:
    """The template for these pairs.

    Raises
    ------
    InputError
        Messages without any template, a template file that cannot be read, an argument that it does not know.
    """
    template = ChatTemplate(tokenizer, None if given is None else _template_text(given), arguments or {})
    chat = next((pair for pair in pairs if pair.is_chat), None)
    if chat is not None and template.text is None and not tokenizer.chat_template:
        raise InputError(
            f"{chat.pair_id}: chat messages, but the tokenizer has no chat template; give one with --chat-template"
        )
    if arguments and chat is None:
        raise InputError("--template-argument: no pair is made of messages, so no chat template is applied")
    for name in arguments or ():
        if name in OWN_ARGUMENTS:
            raise InputError(f"--template-argument {name}: set by the data, not by hand")
        if not re.search(rf"\b{re.escape(name)}\b", tokenizer.get_chat_template(template.text)):
            raise InputError(f"--template-argument {name}: the chat template does not know it")
    return template


def _template_text(given: str) -> str:
    """A template, from a file where there is one of this name."""
    if os.path.isfile(given):
        try:
            return Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--chat-template {given}: cannot be read as UTF-8 text") from error
    if "{" not in given:
        raise InputError(f"--chat-template {given}: no such file, and not a Jinja template")
    return given


class OutOfTime(BaseException):
    """Not an `Exception`, which whatever runs might catch."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises `OutOfTime` in what runs too long.

    By an alarm, so in the main thread of a system that has alarms; elsewhere without a limit. An alarm that was set
    before goes on.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise OutOfTime

    handler = signal.signal(signal.SIGALRM, ring)
    start = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 1e-6), interval)

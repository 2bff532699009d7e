"""What a cell of a row says: a text, or chat messages, in the ways that files write them.

Messages come out as ``{"role", "content", …}`` with the roles that chat templates know, whatever the file calls
them: ``from`` / ``value`` pairs, text in content parts, one message without its list, a list encoded as JSON text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from rewardshape.errors import InputError, single_keys

Message = dict[str, Any]
Text = str | list[Message]

ROLES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
TEMPLATE_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value")

# What may stand in the place of content: a turn that only calls a tool, or only thinks.
CALLS = ("tool_calls", "function_call")
PAYLOADS = (*CALLS, "reasoning_content", "reasoning", "thinking")

_MESSAGE_LIKE = re.compile(r"\s*(\[\s*)?\{\s*(['\"])(role|content|from|value)\2\s*:")
_LIST_OF_OBJECTS = re.compile(r"\s*\[\s*\{")


class Unusable(Exception):
    """A well-formed row that holds no preference; its text is the reason under which it is counted."""


def loads(text: str) -> Any:
    """`json.loads` that refuses an object with one key twice: which of the two is meant, nobody knows."""
    return json.loads(text, object_pairs_hook=single_keys)


def kind(value: Any) -> str:
    """What a JSON value is, in words for an error line."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")


def common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items (letters, messages, tokens) two sequences share at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # halves are compared whole, which is far faster than item by item
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def shared_beginning(first: str, *others: str) -> str:
    """The letters with which all of these texts begin."""
    return first[: min(common_length(first, other) for other in others)]


def said(value: Any, name: str) -> tuple[Text, bool]:
    """The text or the messages in a cell, and whether the messages were encoded as JSON text.

    Raises
    ------
    InputError
        The cell holds neither, or a message in it is malformed.
    """
    encoded = isinstance(value, str) and bool(_MESSAGE_LIKE.match(value) or _LIST_OF_OBJECTS.match(value))
    if encoded:
        value = _decoded(value, name)
    if isinstance(value, str):
        return checked(value, name), False
    if isinstance(value, dict):
        return _messages([value], name), encoded
    if isinstance(value, list):
        return _messages(value, name), encoded
    raise InputError(f"field '{name}' holds {kind(value)} where text or a list of messages belongs")


def checked(text: str, name: str) -> str:
    """The text, or an error where it holds half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"field '{name}' holds half a character (a lone surrogate such as \\ud83d)"
        ) from None
    return text


def check_texts(value: Any, name: str) -> None:
    """An error where any text within a value holds half a character."""
    if isinstance(value, str):
        checked(value, name)
    elif isinstance(value, dict | list):
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            check_texts(item, name)


def _decoded(text: str, name: str) -> Any:
    try:
        value = loads(text)
    except (ValueError, RecursionError):
        # No list of messages: most likely prose or code that opens with a brace
        if text.lstrip().startswith("{") or not _MESSAGE_LIKE.match(text):
            return text
        raise InputError(
            f"field '{name}' looks like a message list but is not JSON; save it as JSONL"
        ) from None
    messages = value if isinstance(value, list) else [value]
    return value if all(map(_is_message, messages)) else text


def _is_message(item: Any) -> bool:
    """Whether an object in JSON text has a known role and content; an answer in JSON may have a `role`, too."""
    if not isinstance(item, dict):
        return False
    role, content = (
        next((item[key] for key in keys if key in item), None) for keys in (ROLE_KEYS, CONTENT_KEYS)
    )
    known = isinstance(role, str) and role.strip().lower() in {*ROLES, *TEMPLATE_ROLES, "function_call"}
    says = isinstance(content, str | list) or any(item.get(key) for key in PAYLOADS)
    return known and says


def _first(message: Message, keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in message), None)


def _messages(value: list[Any], name: str) -> list[Message]:
    if not value:
        raise InputError(f"field '{name}' is an empty list")
    return [_message(item, f"field '{name}', message {index}", name) for index, item in enumerate(value, 1)]


def _message(item: Any, where: str, name: str) -> Message:
    if not isinstance(item, dict):
        raise InputError(f"{where}: {kind(item)} where a message with role and content belongs")
    # Tables give every message every key; those without a value were not in the data.
    message = without_nulls(item)
    check_texts(message, name)
    role_key, content_key = _first(message, ROLE_KEYS) or "role", _first(message, CONTENT_KEYS) or "content"
    role, content = message.pop(role_key, None), message.pop(content_key, None)
    if role is None and content is None:
        keys = ", ".join(f"'{key}'" for key in item) or "no keys"
        raise InputError(
            f"{where}: neither text nor a message with role and content, but an object with {keys}; write its text as "
            "the field"
        )
    if not isinstance(role, str):
        raise InputError(f"{where}: '{role_key}' holds {kind(role)} where text belongs")
    if role.lower() == "function_call" and isinstance(content, str):
        return {"role": "assistant", "content": "", "tool_calls": [_tool_call(content, where)], **message}
    if content is None and any(message.get(key) for key in PAYLOADS):
        return {"role": _role(role), "content": None, **message}
    return {"role": _role(role), "content": _content(content, content_key, where), **message}


def _role(role: str) -> str:
    lower = role.strip().lower()
    return ROLES.get(lower, lower if lower in TEMPLATE_ROLES else role)


def _content(content: Any, key: str, where: str) -> str:
    """Text as it stands; of a list of text parts, the parts joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise InputError(f"{where}: '{key}' holds {kind(content)} where text belongs")
    parts = []
    for part in content:
        text = part.get("text", part.get("value")) if isinstance(part, dict) else part
        if isinstance(part, dict) and part.get("type", "text") not in ("text", "input_text", "output_text"):
            raise InputError(f"{where}: a content part of type {part['type']}; only text can be measured")
        if not isinstance(text, str):
            raise InputError(f"{where}: a content part holds {kind(text)} where text belongs")
        parts.append(text)
    return "".join(parts)


def _tool_call(content: str, where: str) -> dict[str, Any]:
    try:
        call = loads(content)
        return {"type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
    except (ValueError, RecursionError, KeyError, TypeError):
        raise InputError(f"{where}: a function call that is no JSON with name and arguments") from None


def without_nulls(value: Any) -> Any:
    """The value without the keys that stand for nothing: tables give every object every key."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def spoken(text: Text) -> str:
    """The letters that a response says, of messages the contents and what stands in their place."""
    if isinstance(text, str):
        return text
    return "".join(
        (message["content"] or "") + "".join(str(message[key]) for key in PAYLOADS if message.get(key))
        for message in text
    )

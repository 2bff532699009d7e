"""Text that a page may hold: no control character, and nothing that ends the element it stands in."""

from __future__ import annotations

import json
import re
from typing import Any

from markupsafe import Markup

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def printable(value: Any) -> Any:
    """Control characters, which HTML forbids, become the replacement character."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _CONTROL.sub("\ufffd", value)


def as_json(content: Any) -> str:
    """JSON that cannot end the element it stands in, and holds no control character."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # What is escaped: after an even number of backslashes, which stand for themselves.
    text = re.sub(r"(?<!\\)((?:\\\\)*)\\u00[01][0-9a-f]", r"\1\\ufffd", _CONTROL.sub("\ufffd", text))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")

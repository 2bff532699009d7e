"""Records between braces in running text: what a transformers Trainer and its kin print.

The text may hold anything between the records: progress bars that share their line, warnings, the dictionaries of
other things. A record is kept when it holds a series that tells about training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from rewardshape.logs.kinds import is_sign
from rewardshape.logs.names import TELLING, meaning, number
from rewardshape.logs.rows import PLACES, Bar, Record, Rows
from rewardshape.logs.settings import stated_settings

_BRACES = re.compile(r"\{[^{}]*\}")
_PAIR = re.compile(r"""['"]([^'"]+)['"]\s*:\s*('[^']*'|"[^"]*"|(?:tensor|Array)\([^)]*\)|[^,}]+)""")
_BAR = re.compile(r"(\d+)/(\d+) \[")
_AFTER_EXAMPLES = re.compile(r"(?:eval|train stats) after (\d+)")
_STEP_LINE = re.compile(r"\W*(?:global[ _]?)?(?:step|iteration)\W{1,4}(\d+)\W*", re.IGNORECASE)
_STEP_BEFORE = re.compile(r"(?<![\w.])(?:global[ _]?)?(?:step|iteration)\W{1,4}(\d{1,15})\W*", re.IGNORECASE)
LONGEST_HEADING = 60  # characters of a line that says nothing but a step
_NEAR = 200  # characters before a record in which its own place is looked for
MOST_BETWEEN = 1 << 16  # characters that are kept while a record, or the next one, is looked for


class Found(NamedTuple):
    """A record, and what stood before it: progress bars, and settings that the text states."""

    record: Record
    bars: tuple[Bar, ...]
    stated: dict[str, Any]


def tells(record: Record) -> bool:
    """Whether a record holds a series that tells about training, or shows what is trained."""
    return any(
        number(value) is not None and (meaning(str(key))[1] in TELLING or is_sign(str(key)))
        for key, value in record.items()
    )


def dict_records(pieces: Iterable[str]) -> Iterator[Found]:
    """The records between braces.

    A record may be wrapped over several lines, even within a number. A record without a step may be told it by
    ``after N examples``, a line ``Step N`` before it or ``step N:`` on its own line. A record that is cut off before
    its closing brace comes last, with the one key ``torn``.
    """
    rest = ""
    for piece in pieces:
        text = rest + piece
        end = 0
        for braces in _BRACES.finditer(text):
            record = parse(braces.group())
            if record and tells(record):
                before = text[end : braces.start()]
                end = braces.end()
                stated = stated_settings([before]) if "eta" in before or "β" in before else {}
                yield Found(_placed(record, before[-_NEAR:]), _last_bars(before), stated)
        rest = text[max(end, len(text) - MOST_BETWEEN) :]
    start = rest.rfind("{")
    if start >= 0 and "}" not in rest[start:] and tells(parse(rest[start:])):
        yield Found({"torn": True}, (), {})


def console_rows(pieces: Iterable[str]) -> tuple[Rows, bool]:
    """The rows of what a trainer printed, and whether the last of them was cut off.

    A record that tells its place and comes twice in a row was printed by several processes, and counts once.
    """
    rows = Rows()
    torn = False
    last: Record = {}
    for record, bars, stated in dict_records(pieces):
        torn = torn or record == {"torn": True}
        if stated:
            rows.stated.append((len(rows), stated))
        if record == last and any(meaning(str(key))[1] in PLACES for key in record):
            rows.repeated += 1
            continue
        last = record
        rows.add(record, bars)
    return rows, torn


def parse(body: str) -> Record:
    """The pairs of a flat dictionary, as JSON or Python writes it, or as well as they can be made out."""
    body = body.replace("\n", "")
    for text in (body, body.replace("'", '"')) if '"' in body else (body.replace("'", '"'),):
        try:
            parsed = json.loads(text)
            return parsed if isinstance(parsed, dict) else {}
        except ValueError:
            continue
    return {key: raw.strip() for key, raw in _PAIR.findall(body)}


def _placed(record: Record, before: str) -> Record:
    if " after " in before and (counts := _AFTER_EXAMPLES.findall(before)):
        return {"examples": float(counts[-1])} | record
    heading, same_line = before.rstrip().rpartition("\n")[2], before.rpartition("\n")[2]
    step = _STEP_LINE.fullmatch(heading) if len(heading) < LONGEST_HEADING else None
    for found in _STEP_BEFORE.finditer(same_line):
        step = found if found.end() == len(same_line) else step
    if step and not any(meaning(str(key))[1] == "step" for key in record):
        return {"step": float(step.group(1))} | record
    return record


def _last_bars(before: str) -> tuple[Bar, ...]:
    """Of each progress bar, told apart by its total, where it last stood."""
    last = {
        int(total): int(count) for count, total in _BAR.findall(before) if len(total) < 16 and len(count) < 16
    }
    return tuple((count, total) for total, count in last.items())

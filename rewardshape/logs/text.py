"""Records in running text: dict lines on a trainer's standard output, JSON lines, and lines of ``name number`` pairs.

The text may hold anything between the records: progress bars that share their line, warnings, the dictionaries of
other things. A record is kept when it holds a series that tells about training.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from rewardshape.logs.kinds import is_sign
from rewardshape.logs.log import SUMMARY_KEYS, Record
from rewardshape.logs.names import TELLING, meaning, number

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_BRACES = re.compile(r"\{[^{}]*\}")
_PAIR = re.compile(r"""['"]([^'"]+)['"]\s*:\s*('[^']*'|"[^"]*"|tensor\([^)]*\)|[^,}]+)""")
_BAR = re.compile(r"(\d+)/(\d+) \[")
_AFTER_EXAMPLES = re.compile(r"(?:eval|train stats) after (\d+)")
_STATED = re.compile(
    r"""(?<![\w.])['"]?(?:pref_|dpo_|simpo_|kto_|loss\.)?(beta|gamma_beta_ratio|gamma|loss_type|pref_loss)['"]?"""
    r"""\s*[:=|]\s*['"]?(\d[\d.eE+-]*|[a-z_]+)\b"""
)
_MOST_BARS = 0.8  # share of the records that a progress bar must precede to be taken for the step itself


def stated_settings(text: str) -> dict[str, Any]:
    """Beta, gamma and the loss type where the text states them, and states one value only."""
    found: dict[str, set[Any]] = {}
    text = re.sub(r"--([a-z_]+) (?=\d)", r" \1=", text)  # flags of a command line
    for name, raw in _STATED.findall(text):
        value = number(raw)
        if (value is None) == (name in ("loss_type", "pref_loss")):
            found.setdefault("loss_type" if name == "pref_loss" else name, set()).add(
                raw if value is None else value
            )
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def tells(record: Record) -> bool:
    """Whether a record holds a series that tells about training."""
    return any(
        number(value) is not None and (meaning(key)[1] in TELLING or is_sign(str(key)))
        for key, value in record.items()
    )


def dict_records(text: str) -> tuple[list[Record], int]:
    """The records between braces, and how many were cut off before their closing brace.

    A record may be wrapped over several lines, even within a number. A record without a step takes it from the
    progress bar before it, or from ``after N examples``.
    """
    text = _ANSI.sub("", text).replace("\r", "\n")
    records: list[Record] = []
    befores: list[str] = []
    end = 0
    for found in _BRACES.finditer(text):
        record = _parse(found.group().replace("\n", ""))
        if tells(record):
            befores.append(text[end : found.start()])
            records.append(record)
            end = found.end()
    _steps_from_bars(records, befores)
    for record, before in zip(records, befores, strict=True):
        if counts := _AFTER_EXAMPLES.findall(before[-200:]):
            record.setdefault("examples", float(counts[-1]))
    rest = text[text.rfind("{", end) :] if text.rfind("{", end) >= 0 else ""
    torn = bool(rest) and "}" not in rest and tells(_parse(rest))
    return records, int(torn)


def _parse(body: str) -> Record:
    try:
        parsed = json.loads(body)
        return parsed if isinstance(parsed, dict) else {}
    except json.JSONDecodeError:
        return {key: raw.strip() for key, raw in _PAIR.findall(body)}


def _steps_from_bars(records: list[Record], befores: list[str]) -> None:
    """Transformers prints a step only in its progress bar: give each record without a step the bar's.

    Other bars (tokenising, evaluation loops) are told apart by their total: training's is the one that precedes
    most training records. Where bars are rare, they only calibrate steps per epoch.
    """
    if any(meaning(key)[1] == "step" for record in records for key in record):
        return
    trains = [
        index
        for index, record in enumerate(records)
        if not SUMMARY_KEYS & set(record) and not any(str(key).startswith("eval") for key in record)
    ]
    bars = [[(int(k), int(total)) for k, total in _BAR.findall(before)] for before in befores]
    totals = [total for index in trains for total in {total for _, total in bars[index]}]
    if not totals:
        return
    training = max(set(totals), key=lambda total: (totals.count(total), total))
    steps = [next((k for k, total in reversed(found) if total == training), None) for found in bars]
    if sum(steps[index] is not None for index in trains) >= _MOST_BARS * len(trains):
        for record, step in zip(records, steps, strict=True):
            if step is not None:
                record["step"] = step
        return
    epochs = [number(record.get("epoch")) for record in records]
    rates = [
        step / epoch for step, epoch in zip(steps[1:], epochs[:-1], strict=True) if step is not None and epoch
    ]
    for record, epoch in zip(records, epochs, strict=True):
        if rates and epoch:
            record["step"] = round(epoch * float(np.median(rates)))


_NAME_NUMBER = re.compile(
    r"([A-Za-z][A-Za-z_/.\- ]*?)\s*(?:[:=|]\s*|\s)\[?([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?|[-+]?(?:nan|inf)\b)",
    re.IGNORECASE,
)


def prose_records(text: str) -> list[Record]:
    """Records from lines of ``name number`` pairs, such as ``Step 5: Train loss 0.69, Val loss 0.68``.

    Lines that hold one pair each are gathered until a name comes again.
    """
    records: list[Record] = []
    gathered: Record = {}
    for line in _ANSI.sub("", text).replace("\r", "\n").splitlines():
        pairs = {
            name.strip(): value for name, value in _NAME_NUMBER.findall(line) if any(meaning(name.strip()))
        }
        pairs = {name: value for name, value in pairs.items() if meaning(name)[1]}
        if not pairs:
            continue
        if len(pairs) == 1:
            if set(pairs) & set(gathered):
                records.append(gathered)
                gathered = {}
            gathered |= pairs
        elif tells(pairs):
            if (bar := _BAR.search(line)) and not any(meaning(name)[1] == "step" for name in pairs):
                pairs["step"] = bar.group(1)
            records.append(pairs)
    return [record for record in [*records, gathered] if tells(record)]

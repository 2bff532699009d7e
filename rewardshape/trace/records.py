"""What a whole record is, asked line by line while it is read.

A torn last line is what a crash leaves, and none. Everything else that cannot stand in a whole record (a line that is
none, a head that is lost, a step that is missing or comes twice, a table whose columns differ in length) is damage: an
error with file and line, or handed to whoever wants to read on past it.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from rewardshape.errors import InputError, single_keys
from rewardshape.trace.folder import RunFolder
from rewardshape.trace.format import FORMAT

STEP_TABLES = (
    "geometry",
    "kernel",
    "samples",
    "destination",
    "destination_tokens",
    "influence",
    "influence_pairs",
)
TEXT_COLUMNS = {
    "pair_id",
    "probe_pair_id",
    "other_pair_id",
    "response",
    "other_response",
    "split",
    "prompt_id",
    "text",
    "token",
    "finish",
}
NUMBER_COLUMNS = {"logp_sum", "ref_logp_sum", "num_tokens", "greedy_logp_sum", "entropy_sum"}
NEEDED = {
    "probe_set": ("pair_id", "response", "num_tokens"),
    "train": ("pair_id", "response", "logp_sum", "num_tokens"),
    "probe": ("logp_sum",),
    "geometry": ("pair_id",),
    "kernel": ("pair_id", "response", "other_pair_id", "other_response", "product"),
    "samples": ("prompt_id",),
    "destination": ("pair_id", "response"),
    "destination_tokens": ("pair_id", "response", "token"),
    "influence": ("pair_id", "influence"),
    "influence_pairs": ("pair_id", "probe_pair_id", "influence"),
}
MEND = (
    "the record was damaged; put back a copy, or `rewardshape probe --resume --repair` makes a probe's run whole "
    "(checkpoints are measured anew), and `rewardshape report` shows what can be read"
)

Table = Mapping[str, "np.ndarray | list[str | None]"]
"""Columns of one length: numbers with NaN for what was not measured, or texts."""

Damaged = Callable[[str], object]
"""What is done about damage: told file, line and what is wrong there."""


@dataclass(frozen=True, slots=True)
class Record:
    """One step's line.

    Attributes
    ----------
    number : int
        Of the line in its file, from 1.
    line : str
        As it stands there.
    step : int
    metrics : mapping
    tables : mapping
        By the name of the part.
    tokens : sequence or None
        Per-token log-probs, a list for each row of the probe set.
    """

    number: int
    line: str
    step: int
    metrics: Mapping[str, Any]
    tables: Mapping[str, Table]
    tokens: Sequence[Sequence[float]] | None


def refuse(damage: str) -> NoReturn:
    """Damage is an error."""
    raise InputError(f"{damage}; {MEND}")


def lines_of(file: Path) -> Iterator[tuple[int, str]]:
    """Every line with its number, from 1; a last one that does not end was torn, and is left out.

    A line that is no text is empty: nothing of it can be believed.
    """
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.endswith(b"\n"):
                yield number, _text(line)


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


DECODER = json.JSONDecoder(  # NaN and Infinity are what Python writes where it is let
    parse_constant=_no_number, object_pairs_hook=single_keys
)


def parsed(line: str) -> dict[str, Any] | None:
    """The object that a line of JSON holds; None where it holds none."""
    try:
        content = DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def rows_of(file: Path) -> Iterator[dict[str, Any]]:
    """The objects on the lines of a file; none where there is no file, and what is no object is passed over."""
    for _, line in lines_of(file) if file.is_file() else ():
        if row := parsed(line):
            yield row


def read_records(file: Path, damaged: Damaged = refuse) -> tuple[Table, Iterator[Record]]:
    """The probe set that the head of a trace states, and the steps after it.

    Parameters
    ----------
    file : Path
    damaged : callable
        Told of every damage but that of the head; where it returns, the line is passed over, and reading goes on.

    Raises
    ------
    InputError
        Without a head of this format nothing can be told of the rest.
    """
    lines = lines_of(file)
    number, line = next(lines, (1, ""))
    head = parsed(line) or {}
    found = head.get("format", "nothing")
    if found != FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        raise InputError(
            f"{file}:{number}: found format {found}, this version reads format {FORMAT}; "
            + ("it was written by a newer rewardshape: update this one" if newer else MEND)
        )
    try:
        probe_set = _table("probe_set", head.get("probe_set"), None)
    except ValueError as problem:
        refuse(f"{file}:{number}: {problem}")
    return probe_set, _steps(file, lines, len(probe_set["pair_id"]), damaged)


def _steps(file: Path, lines: Iterator[tuple[int, str]], size: int, damaged: Damaged) -> Iterator[Record]:
    last = -1
    for number, line in lines:
        try:
            record = _record(number, line, size)
            if record.step <= last:
                raise ValueError(f"found step {record.step} where a step after {last} belongs")
        except ValueError as problem:
            damaged(f"{file}:{number}: {problem}")
            continue
        if "train" in record.tables and -1 < last < record.step - 1:  # the batches of every step are recorded
            damaged(f"{file}:{number}: found step {record.step} where step {last + 1} belongs")
        last = record.step
        yield record


def _record(number: int, line: str, size: int) -> Record:
    """The record of a line; ValueError says why it is none. `size` is the number of rows of the probe set."""
    content = parsed(line)
    if content is None:
        raise ValueError("not a record")
    step, metrics, tokens = content.get("step"), content.get("metrics", {}), content.get("tokens")
    if type(step) is not int or step < 0:
        raise ValueError("not the record of a step")
    if not isinstance(metrics, dict) or not _are_numbers(metrics.values()):
        raise ValueError("its metrics are not numbers")
    sizes = {"train": None, "probe": size, **dict.fromkeys(STEP_TABLES)}
    tables = {name: _table(name, content[name], rows) for name, rows in sizes.items() if content.get(name)}
    if tokens is not None:
        _check_tokens(tokens, size)
    return Record(number, line, step, metrics, tables, tokens)


def _check_tokens(tokens: Any, size: int) -> None:
    if (
        not isinstance(tokens, list)
        or len(tokens) != size
        or not all(isinstance(row, list) for row in tokens)
    ):
        raise ValueError(f"its tokens are not one list for each of {size} responses")
    if not all(map(_are_numbers, tokens)):
        raise ValueError("its tokens are not numbers")


def _are_numbers(values: Collection[Any]) -> bool:
    """Whether all are finite numbers, or null."""
    if set(map(type, values)) - {int, float, type(None)}:
        return False
    try:
        return not any(map(math.isinf, filter(None, values)))
    except OverflowError:  # an integer beyond every float
        return False


def _table(part: str, content: Any, rows: int | None) -> Table:
    """A part of a record as columns; ValueError where it is none of so many `rows`."""
    if not isinstance(content, dict) or not all(isinstance(values, list) for values in content.values()):
        raise ValueError(f"its part {part} is no table")
    if missing := [name for name in NEEDED.get(part, ()) if name not in content]:
        raise ValueError(f"its part {part} lacks {missing[0]}")
    lengths = {name: len(values) for name, values in content.items()}
    due = next(iter(lengths.values())) if rows is None else rows
    for name, length in lengths.items():
        if length != due:
            raise ValueError(f"its part {part} holds {length} values of {name} where {due} belong")
    return {name: _column(name, values) for name, values in content.items()}


def _column(name: str, values: list[Any]) -> np.ndarray | list[str | None]:
    kinds = set(map(type, values))
    null = type(None) in kinds
    kinds.discard(type(None))
    texts = kinds == {str} or (not kinds and name in TEXT_COLUMNS)
    if texts and name not in NUMBER_COLUMNS:
        # A text that comes again is kept once: a long record repeats its few names without end.
        return [v if v is None else sys.intern(v) for v in values] if null else list(map(sys.intern, values))
    if kinds <= {int, float, bool} and name not in TEXT_COLUMNS:
        try:
            column = np.array(values, dtype=float if null else None)
        except OverflowError:
            column = np.array(None)
        if column.dtype.kind in "biu" or (column.dtype.kind == "f" and not np.isinf(column).any()):
            return column
    raise ValueError(f"its values of {name} are not {'texts' if name in TEXT_COLUMNS else 'numbers'}")


def rewind(folder: Path, step: int) -> None:
    """Cut off every record later than `step`, and a torn last line, before a resumed run appends again."""
    files = RunFolder(Path(folder))
    for file in (files.trace, files.timing):
        if not file.exists():
            continue
        end = 0
        with open(file, "rb+") as stream:
            for line in stream:
                record = parsed(_text(line)) if line.endswith(b"\n") else None
                found = 0 if record is None else record.get("step", 0)  # the head has none
                if record is None or type(found) is not int or found > step:
                    break
                end += len(line)
            stream.truncate(end)
            os.fsync(stream.fileno())

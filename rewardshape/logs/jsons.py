"""Records in JSON of some shape, and in JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rewardshape.logs.console import tells
from rewardshape.logs.labels import of_split, split_of
from rewardshape.logs.names import meaning
from rewardshape.logs.rows import PLACES, Record

DEEPEST = 20  # levels of JSON in which records are looked for
_TELLING_GROUPS = (
    "train",
    "eval",
    "rewards",
    "logps",
)  # a level of JSON that is part of the name of what it holds


def flat_records(data: Any, depth: int = 0) -> list[Record]:
    """The records in JSON of some shape: a list of them, columns of equal length or by row number, or one deeper in."""
    if depth > DEEPEST:
        return []
    if isinstance(data, list):
        return [flat(item) for item in data if isinstance(item, dict)]
    if not isinstance(data, dict):
        return []
    for shape in (_columns_and_data, _lists_of_equal_length, _columns_by_row, _rows_by_step):
        if records := shape(data):
            return records
    if by_split := _by_split(data, depth):
        return by_split
    if tells(whole := flat(data)):
        return [whole]
    deeper = (flat_records(value, depth + 1) for value in data.values() if isinstance(value, dict | list))
    return max(deeper, key=len, default=[])


def _columns_and_data(data: Mapping[str, Any]) -> list[Record]:
    """A pandas or wandb table: the names of its columns and its rows apart."""
    columns, rows = data.get("columns"), data.get("data")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return []
    names = [str(column) for column in columns]
    records = [dict(zip(names, row, strict=False)) for row in rows if isinstance(row, list)]
    index = data.get("index")
    if not isinstance(index, list) or len(index) != len(records):
        return records
    return _stepped(records, index)


def _lists_of_equal_length(data: Mapping[str, Any]) -> list[Record]:
    """Columns as lists: the longest are the rows' series; shorter ones are others' where they have their own places."""
    lists = {key: value for key, value in data.items() if isinstance(value, list) and value}
    if not lists or any(isinstance(value[0], dict) for value in lists.values()):
        return []
    found: list[Record] = []
    for length in sorted(set(map(len, lists.values())), reverse=True):
        columns = {key: value for key, value in lists.items() if len(value) == length}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if (not found or any(meaning(key)[1] in PLACES for key in columns)) and any(map(tells, rows)):
            found += rows
    return found


def _columns_by_row(data: Mapping[str, Any]) -> list[Record]:
    """Columns as pandas writes them by default: of each its cells by the number of their row."""
    cells = list(data.values())
    if not cells or not all(
        isinstance(column, dict) and column.keys() == cells[0].keys() for column in cells
    ):
        return []
    numbers = [row for row in cells[0] if row.isdigit()]
    rows = [{key: column[row] for key, column in data.items()} for row in numbers]
    return _stepped(rows, [int(row) for row in numbers]) if any(map(tells, rows)) else []


def _rows_by_step(data: Mapping[str, Any]) -> list[Record]:
    """Records by the number of their row, or by their step."""
    if not data or not all(key.isdecimal() and isinstance(row, dict) for key, row in data.items()):
        return []
    rows = [flat(row) for row in data.values()]
    if not any(map(tells, rows)):
        return []
    numbers = list(map(int, data))
    counts = numbers == list(range(len(numbers))) or any("step" in key for row in rows[:1] for key in row)
    return rows if counts else [{"step": n} | row for n, row in zip(numbers, rows, strict=True)]


def _by_split(data: Mapping[str, Any], depth: int) -> list[Record]:
    """The records of each split that holds several, with the split in their names."""
    found = [
        (split, flat_records(part, depth + 1))
        for name, part in data.items()
        if (split := split_of(name)) and isinstance(part, dict | list)
    ]
    if not any(len(records) > 1 for _, records in found):
        return []
    return [
        {of_split(key, split): value for key, value in record.items()}
        for split, records in found
        for record in records
    ]


def _stepped(rows: list[Record], index: Sequence[Any]) -> list[Record]:
    """The rows of a table whose index is the step, ``set_index("step")``: whole numbers that do not count them.

    Where a column has the step, the index is what is left of a larger table's.
    """
    told = any("step" in key or "epoch" in key for row in rows[:1] for key in row)
    if told or list(index) == list(range(len(rows))) or not all(type(number) is int for number in index):
        return rows
    return [{"step": number} | row for number, row in zip(index, rows, strict=True)]


def flat(item: Mapping[str, Any], before: str = "", depth: int = 0) -> Record:
    """A nested record as one level: ``{"train": {"loss": 1}}`` as ``train/loss``."""
    record: Record = {}
    for key, value in item.items():
        if isinstance(value, dict):
            record |= flat(value, f"{before}{key}/", depth + 1) if depth < DEEPEST else {}
        else:
            # A level that only groups (`metrics`, `logs`) is no part of the name
            group = before if before.strip("/").split("/")[-1] in _TELLING_GROUPS else ""
            record[f"{group}{key}"] = value
    return record


def json_lines(lines: Iterable[str]) -> Iterator[Record | None]:
    """The record of each line that is not empty, None for a line that is none."""
    for line in lines:
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            yield None
            continue
        if isinstance(item, dict):
            yield flat(item)

"""Where rows come from: files, saved datasets, the hub. One generator per form, each a row at a time.

A source yields ``(number, row)``: the line of the file where the form has lines, else the row, both counted
from 1. A row that cannot be parsed is yielded as an `InputError`, so that the reader decides whether it ends
there or goes on; what makes the whole source unreadable is raised. What the rows mean lies in `preferences`.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from rewardshape.errors import InputError

Row = dict[str, Any]
Rows = Iterator[tuple[int, Row | InputError]]

HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?::(?P<split>[\w.-]+))?")
UTF8_MARK, UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


def read_rows(source: str) -> Rows:
    """Rows of one source: a JSONL, JSON, CSV or Parquet file, a folder saved by `datasets`, or a hub id."""
    path = Path(source)
    try:
        if path.is_dir():
            yield from _saved_rows(path)
        elif path.is_file():
            yield from _form_of(path)(path)
        elif HUB_ID.fullmatch(source) and not _form_name(path):
            yield from _hub_rows(source)
        else:
            raise InputError(f"{source}: no such file")
    except (OSError, EOFError) as error:  # EOFError: a gzip file cut short
        raise InputError(f"{source}: cannot be read ({_reason(error)})") from error


def labels(sources: Sequence[str]) -> dict[str, str]:
    """A short name for each source: its file name, with as many folders before it as tell all of them apart.

    >>> labels(["en/pairs.jsonl", "de/pairs.jsonl"])
    {'en/pairs.jsonl': 'en/pairs.jsonl', 'de/pairs.jsonl': 'de/pairs.jsonl'}
    >>> labels(["en/pairs.jsonl"])
    {'en/pairs.jsonl': 'pairs.jsonl'}
    """
    whole = {source: Path(source).absolute() if Path(source).exists() else Path(source) for source in sources}
    # A hub id is a name already; of a path the file name says most.
    depth = {source: 1 if path.is_absolute() else len(path.parts) for source, path in whole.items()}

    def label(source: str) -> str:
        return "/".join(whole[source].parts[-depth[source] :])

    while shared := _repeated([label(source) for source in sources]):
        for source in sources:
            depth[source] += label(source) in shared
    return {source: label(source) for source in sources}


def _repeated(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def _form_name(path: Path) -> str:
    """The suffix that says the form, `.gz` aside; empty where it says none we read."""
    suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    return suffix.lower() if suffix.lower() in FORMS else ""


def _form_of(path: Path) -> Callable[[Path], Rows]:
    if not (form := _form_name(path)):
        raise InputError(
            f"{path}: unknown kind of file; give {', '.join(FORMS)} (the text forms also as .gz)"
        )
    return FORMS[form]


def _reason(error: BaseException) -> str:
    """The first line of a foreign error, without the path that an OSError repeats."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.strip() or type(error).__name__).splitlines()[0]


# --- text forms ---


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _text(line: bytes) -> str:
    if line.startswith(UTF16_MARKS):
        raise InputError("UTF-16 text; save the file as UTF-8")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 (byte 0x{line[error.start]:02x} at byte {error.start + 1}); save the file as UTF-8"
        ) from None


def _jsonl_rows(path: Path) -> Rows:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(UTF8_MARK)
            if line.strip():
                yield number, _parsed(line)


def _parsed(line: bytes) -> Row | InputError:
    try:
        row = json.loads(_text(line))
    except InputError as error:
        return error
    except json.JSONDecodeError as error:
        return InputError(f"not JSON: {error.msg} (column {error.colno})")
    except RecursionError:
        return InputError("not JSON: nested too deep")
    return _object(row)


def _object(row: Any) -> Row | InputError:
    return row if isinstance(row, dict) else InputError(f"{kind(row)} where a row (a JSON object) belongs")


def _json_rows(path: Path) -> Rows:
    """One JSON list of rows; many files named .json hold one object a line, and are read as such."""
    with _open(path) as file:
        content = file.read().removeprefix(UTF8_MARK)
    if content.lstrip().startswith(b"{") and b"\n" in content.strip():
        first_line = content.lstrip().splitlines()[0]
        if isinstance(_parsed(first_line), dict):
            yield from _jsonl_rows(path)
            return
    if not content.strip():
        return
    try:
        table = json.loads(_text(content))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from None
    if not isinstance(table, list):
        raise InputError(
            f"{path}: {kind(table)} where a list of rows belongs; save one object a line as JSONL"
        )
    for number, row in enumerate(table, start=1):
        yield number, _object(row)


def _csv_rows(path: Path) -> Rows:
    csv.field_size_limit(2**31 - 1)  # the standard limit, 128 KiB, is less than a long conversation
    with _open(path) as file:
        reader = csv.DictReader(_csv_lines(path, file), restkey="", strict=True)
        try:
            yield from _csv_records(reader)
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _csv_lines(path: Path, file: IO[bytes]) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            yield _text(line.removeprefix(UTF8_MARK) if number == 1 else line)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None


def _csv_records(reader: csv.DictReader[str]) -> Rows:
    _ = reader.fieldnames  # reads the head line, so that line_num is where the first record starts
    while True:
        number = reader.line_num + 1
        row: Row | None = next(reader, None)
        if row is None:
            return
        if "" in row:
            yield number, InputError("more cells than the head line has names")
        else:
            yield number, _csv_cells(row)


def _csv_cells(row: Row) -> Row | InputError:
    """Cells are text; one that is a JSON list of messages becomes that list."""
    cells: Row = {}
    for name, cell in row.items():
        cells[name] = cell
        if isinstance(cell, str) and re.match(r"\s*\[\s*\{\s*['\"](role|content)['\"]", cell):
            try:
                cells[name] = json.loads(cell)
            except json.JSONDecodeError:
                return InputError(
                    f"field '{name}' looks like a message list but is not JSON; save the data as JSONL"
                )
    return cells


# --- tables ---


def _parquet_rows(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=1024) for row in batch.to_pylist())
            yield from enumerate(rows, start=1)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a Parquet file that can be read ({_reason(error)})") from None


def _saved_rows(folder: Path) -> Rows:
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        raise InputError(f"{folder}: holds the splits {', '.join(splits)}; give one, as {folder / splits[0]}")
    if not (folder / "dataset_info.json").is_file():
        raise InputError(f"{folder}: a folder; give the data files in it, or a folder that `datasets` saved")
    import datasets

    try:
        table = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever a half-written folder makes the library raise
        raise InputError(f"{folder}: cannot be read as a saved dataset ({_reason(error)})") from error
    yield from enumerate(table, start=1)  # type: ignore[misc]


def _hub_rows(source: str) -> Rows:
    match = HUB_ID.fullmatch(source)
    assert match is not None
    name, split = match["name"], match["split"]
    import datasets

    try:
        tables = datasets.load_dataset(name, split=split)
    except Exception as error:  # offline, unknown, gated, broken: the library raises a dozen kinds
        raise InputError(
            f"{source}: no such file, and no such dataset could be loaded from the hub ({_reason(error)})"
        ) from error
    if split is None:
        if len(tables) > 1:
            raise InputError(
                f"{source}: has the splits {', '.join(tables)}; name one, as {name}:{next(iter(tables))}"
            )
        tables = next(iter(tables.values()))
    yield from enumerate(tables, start=1)


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


FORMS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}

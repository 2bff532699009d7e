"""Where rows come from: files, saved datasets, the hub, tables in memory. One generator each, a row at a time.

A source yields ``(number, row)``: the line of the file where the form has lines, else the row, both counted
from 1. A row that cannot be parsed is yielded as an `InputError`, so that the reader decides whether it ends
there or goes on; what makes the whole source unreadable is raised. What the rows mean lies in `forms`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os.path
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import IO, Any

from rewardshape.data.cells import Row
from rewardshape.data.forms import is_of_a_form
from rewardshape.data.messages import kind, loads
from rewardshape.errors import InputError, needing, printable

Rows = Iterator[tuple[int, Row | InputError]]

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")  # owner/name, and :split
COMPRESSED = (".gz", ".zst")
UTF8_MARK, UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


def read_rows(source: str) -> Rows:
    """Rows of one source: a file of a form in `FORMS`, a folder saved by `datasets`, or a hub id."""
    path = Path(source)
    try:
        if path.is_dir():
            yield from _saved_rows(path)
        elif path.is_file():
            yield from _form_of(path)(path)
        elif is_hub_id(source):
            yield from _hub_rows(source)
        elif path.exists():
            raise InputError(f"{source}: a pipe or a device, which cannot be read again; save it as a file")
        else:
            raise InputError(f"{source}: no such file")
    except (OSError, EOFError, zlib.error) as error:  # the last two: a broken gzip file
        raise InputError(f"{source}: cannot be read ({_reason(error)})") from error


def labels(sources: Sequence[str]) -> dict[str, str]:
    """A short name for each source: its file name, with as many folders before it as tell all of them apart.

    >>> labels(["en/pairs.jsonl", "de/pairs.jsonl"])
    {'en/pairs.jsonl': 'en/pairs.jsonl', 'de/pairs.jsonl': 'de/pairs.jsonl'}
    >>> labels(["en/pairs.jsonl"])
    {'en/pairs.jsonl': 'pairs.jsonl'}
    """
    hub = {source for source in sources if is_hub_id(source)}  # a name already; of a path the end says most
    whole = {source: Path(source) if source in hub else Path(source).absolute() for source in sources}
    depth = {source: 2 if source in hub else 1 for source in sources}

    def label(source: str) -> str:
        return printable("/".join(whole[source].parts[-depth[source] :]))

    while shared := _repeated([label(source) for source in sources]):
        if all(depth[source] >= len(whole[source].parts) for source in sources if label(source) in shared):
            raise InputError(
                f"--data: two files are called {min(shared)} once what is no text is escaped; rename one"
            )
        for source in sources:
            depth[source] += label(source) in shared
    return {source: label(source) for source in sources}


def _repeated(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def is_hub_id(source: str) -> bool:
    """Whether a source that is no file has the look of ``owner/name``."""
    return bool(HUB_ID.fullmatch(source)) and not os.path.exists(source) and not _form_name(Path(source))


def _form_name(path: Path) -> str:
    """The suffix that says the form, that of a compression aside; empty where it says none we read."""
    suffix = Path(path.stem).suffix if path.suffix.lower() in COMPRESSED else path.suffix
    return suffix.lower() if suffix.lower() in FORMS else ""


def _form_of(path: Path) -> Callable[[Path], Rows]:
    if not (form := _form_name(path)):
        raise InputError(
            f"{path}: unknown kind of file; give {', '.join(FORMS)} "
            f"(the text forms also as {' or '.join(COMPRESSED)})"
        )
    return FORMS[form]


def _reason(error: BaseException) -> str:
    """The first line of a foreign error, without the path that an OSError repeats."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.strip() or type(error).__name__).splitlines()[0]


# --- text forms ---


def _open(path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if suffix == ".zst":
        with needing("probe", path):
            import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))  # type: ignore[type-var]
    return open(path, "rb")


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
        return _object(loads(_text(line)))
    except InputError as error:
        return error
    except json.JSONDecodeError as error:
        return InputError(f"not JSON: {error.msg} (column {error.colno})")
    except (
        ValueError,
        RecursionError,
    ) as error:  # a key twice, a number of 5,000 digits, a thousand brackets
        return InputError(f"not JSON that can be read: {_reason(error)}")


def _object(row: Any) -> Row | InputError:
    return row if isinstance(row, dict) else InputError(f"{kind(row)} where a row (a JSON object) belongs")


def _json_rows(path: Path) -> Rows:
    """A JSON document; many files named .json hold one object a line, and are read as such."""
    with _open(path) as file:
        content = file.read().removeprefix(UTF8_MARK).strip()
    first, *further = content.split(b"\n", 1)
    if not content.startswith((b"[", b"{")) or (further and isinstance(_parsed(first), dict)):
        yield from _jsonl_rows(path)
        return
    try:
        document = loads(_text(content))
    except json.JSONDecodeError as error:
        if further and isinstance(
            _parsed(further[0].split(b"\n", 1)[0]), dict
        ):  # of lines, the first is broken
            yield from _jsonl_rows(path)
            return
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON that can be read: {_reason(error)}") from None
    yield from enumerate(map(_object, _table_in(document)), start=1)


def _table_in(document: Any) -> list[Any]:
    """The rows of a JSON document: a list, a list under one key, columns as pandas writes them, or one row."""
    if isinstance(document, list):
        return document
    lists = [
        value
        for value in document.values()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    ]
    named = {"chosen", "prompt", "messages", "conversations"} & document.keys()
    if len(lists) == 1 and not named and not is_of_a_form(document):
        return [item["row"] if set(item) >= {"row_idx", "row"} else item for item in lists[0]]
    columns = list(document.values())
    if columns and all(isinstance(column, dict) and "0" in column for column in columns):
        return [{name: document[name].get(index) for name in document} for index in columns[0]]
    return [document]


def _csv_rows(path: Path, delimiter: str = ",") -> Rows:
    csv.field_size_limit(2**31 - 1)  # the standard limit, 128 KiB, is less than a long conversation
    with _open(path) as file:
        reader = csv.reader(_csv_lines(path, file), strict=True, delimiter=delimiter)
        try:
            names = next(reader, [])
            for name in _repeated([name for name in names if name]):
                raise InputError(f"{path}:1: column '{name}' stands twice in the head line")
            number = reader.line_num + 1  # where the next record starts: a cell may hold line breaks
            for cells in reader:
                if cells:
                    yield number, _csv_row(names, cells)
                number = reader.line_num + 1
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _tsv_rows(path: Path) -> Rows:
    return _csv_rows(path, delimiter="\t")


def _csv_lines(path: Path, file: IO[bytes]) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            yield _text(line.removeprefix(UTF8_MARK) if number == 1 else line)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None


def _csv_row(names: list[str], cells: list[str]) -> Row | InputError:
    if len(cells) > len(names):
        return InputError(f"{len(cells)} cells, but the head line has {len(names)} names")
    return dict(zip(names, cells, strict=False))


# --- tables ---


def is_table(data: Any) -> bool:
    """Whether `data` holds rows itself, rather than saying where they are."""
    if isinstance(data, str | PathLike):
        return False
    if isinstance(data, list | tuple):
        return bool(data) and not isinstance(data[0], str | PathLike)
    return True


def table_rows(table: Any) -> Rows:
    """Rows of a list of dicts, a `pandas.DataFrame` or a `datasets.Dataset`, numbered from 1."""
    if isinstance(table, dict):
        if {"prompt", "chosen", "rejected"} & table.keys():
            raise InputError("data: a dict of columns; give its rows, as pandas.DataFrame(data)")
        raise InputError(f"data: has the splits {', '.join(map(str, table))}; give one of them")
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        for name in _repeated([str(name) for name in table.columns]):
            raise InputError(f"data: column '{name}' stands twice")
        table = (
            {str(name): plain_cell(cell) for name, cell in row.items()} for row in table.to_dict("records")
        )
    try:
        rows = iter(table)
    except TypeError:
        raise InputError(f"data: {kind(table)} where paths or a table of rows belong") from None
    yield from enumerate(map(_object, rows), start=1)


def plain_cell(cell: Any) -> Any:
    """A cell of a data frame without numpy's types, and None where it is missing."""
    if hasattr(cell, "tolist"):
        cell = cell.tolist()
    if isinstance(cell, list):
        return [plain_cell(item) for item in cell]
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _parquet_rows(path: Path) -> Rows:
    with needing("probe", path):
        import pyarrow
        import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=1024) for row in batch.to_pylist())
            yield from enumerate(rows, start=1)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a Parquet file that can be read ({_reason(error)})") from None


def _saved_rows(folder: Path) -> Rows:
    if not any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        raise InputError(f"{folder}: a folder; give the data files in it, or a folder that `datasets` saved")
    with needing("probe", folder):
        import datasets

    try:
        tables = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever a half-written folder makes the library raise
        raise InputError(f"{folder}: cannot be read as a saved dataset ({_reason(error)})") from error
    yield from enumerate(_one_split(tables, str(folder), "/"), start=1)


def _hub_rows(source: str) -> Rows:
    name, _, split = source.partition(":")
    with needing("probe", source):
        import datasets

    try:
        tables = datasets.load_dataset(name, split=split or None)
    except Exception as error:  # offline, unknown, gated, broken: the library raises a dozen kinds
        raise InputError(
            f"{source}: no such file, and no such dataset could be loaded from the hub ({_reason(error)})"
        ) from error
    yield from enumerate(_one_split(tables, name, ":"), start=1)


def _one_split(tables: Any, name: str, mark: str) -> Iterable[Row]:
    if not isinstance(tables, dict):
        return tables
    if len(tables) > 1:
        raise InputError(
            f"{name}: has the splits {', '.join(tables)}; name one, as {name}{mark}{next(iter(tables))}"
        )
    return next(iter(tables.values()))


FORMS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
    ".parquet": _parquet_rows,
}

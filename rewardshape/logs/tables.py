"""Records in tables: Markdown (model cards, READMEs), CSV, and wandb's exports."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise

from rewardshape.errors import InputError
from rewardshape.logs.kinds import is_sign
from rewardshape.logs.labels import SUMMARY, are_splits, of_split, split_of
from rewardshape.logs.names import TELLING, meaning, number, parted
from rewardshape.logs.rows import PLACES, Record

_RULE = re.compile(r"^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)+\|?\s*$")
_DECIMAL_COMMA = re.compile(r"^\s*[-+−]?\d+,\d+\s*$")
_WANDB_COLUMN = re.compile(r"^(.*) - ([\w/. ]+?)(__MIN|__MAX)?$")
LONGEST_HEADER = 100_000  # characters, below what the csv module takes for one cell
NAMES_OF_RUNS = ("name", "run", "run_name", "run name", "model", "experiment")
FEWEST_METRICS = 2  # rows that name a series, for a table to be one of final metrics
_TIME = re.compile(r"\d:\d\d")


@dataclass
class Table:
    """A table of strings: its caption, header and rows, and whether it writes decimal commas."""

    caption: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)

    @property
    def decimal_comma(self) -> bool:
        """Whether its numbers are written 0,5 and none 0.5."""
        cells = [cell for row in self.rows for cell in row]
        return any(map(_DECIMAL_COMMA.match, cells)) and not any(
            re.match(r"^[-+−]?\d+\.\d+$", c) for c in cells
        )

    @property
    def is_training_log(self) -> bool:
        """Whether it has a place and a series, or the sign of a kind of training; or several rewards and the like."""
        series = {meaning(column)[1] for column in self.header}
        telling = series & TELLING
        signs = telling or any(map(is_sign, self.header))
        return bool(signs and series & {*PLACES}) or len(telling - {"loss", "accuracy"}) >= 2

    @property
    def key(self) -> tuple[tuple[str, ...], ...]:
        """What makes two tables the same one."""
        return (tuple(self.header), *map(tuple, self.rows))

    @property
    def default_split(self) -> str:
        """In a model card the columns beside ``Validation Loss`` are of the evaluation set."""
        return "eval" if any(meaning(column) == ("eval", "loss") for column in self.header) else "train"

    def records_by_run(self) -> dict[str, list[Record]]:
        """The rows as records, apart by the first column that is text and names runs, or splits."""
        label = self._label_column()
        names = ["" if label is None else row[label] for row in self.rows]
        splits = list(map(split_of, names))
        of_splits = are_splits(names)
        runs: dict[str, list[Record]] = {}
        for row, name, split in zip(self.rows, names, splits, strict=True):
            record: Record = dict(zip(self.header, row, strict=False))
            if not of_splits:
                runs.setdefault(name, []).append(record)
            elif SUMMARY not in name.lower():
                runs.setdefault("", []).append({of_split(key, split): value for key, value in record.items()})
        return runs

    def _label_column(self) -> int | None:
        comma = self.decimal_comma
        for index, column in enumerate(self.header):
            cells = [row[index] for row in self.rows if index < len(row)]
            texts = {cell for cell in cells if cell and number(cell, decimal_comma=comma) is None}
            known = meaning(column)[1] is not None
            repeats = 1 < len(texts) < len(cells) == len(self.rows) and all(cell in texts for cell in cells)
            if not known and repeats and (are_splits(cells) or self._starts_again(cells, comma)):
                return index
            if (
                column.lower() in NAMES_OF_RUNS
                and len(texts) == len(self.rows) > 1
                and not self._goes_on(comma)
            ):
                return index
        return None

    def _goes_on(self, decimal_comma: bool) -> bool:
        """Whether the rows stand at places that increase: rows of one run, and not one row of each of several."""
        places = [index for index, column in enumerate(self.header) if meaning(column)[1] in PLACES]
        columns = ([number(row[i], decimal_comma=decimal_comma) for row in self.rows] for i in places)
        return any(_increase([place for place in column if place is not None]) for column in columns)

    def _starts_again(self, labels: list[str], decimal_comma: bool) -> bool:
        """Whether other labels stand beside the same places, or each label's places increase and the table's do not.

        A time, or whether a checkpoint was saved, repeats within one run. Training and evaluation share their places.
        """
        if any(map(_TIME.search, labels)):
            return False
        meanings = [meaning(column) for column in self.header]
        places = [index for name in PLACES for index, (_, series) in enumerate(meanings) if series == name]
        kinds: dict[frozenset[str | None], list[tuple[float, str]]] = {}
        for row, label in zip(self.rows, labels, strict=True):
            cells = [number(cell, decimal_comma=decimal_comma) for cell in row]
            kind = frozenset(
                split
                for (split, series), cell in zip(meanings, cells, strict=False)
                if series in TELLING and cell is not None
            )
            place = next((cells[index] for index in places if index < len(cells)), None)
            if place is not None:
                kinds.setdefault(kind, []).append((place, label))
        return not places or any(map(_are_of_several_runs, kinds.values()))


def _are_of_several_runs(rows: list[tuple[float, str]]) -> bool:
    """Whether places are of several runs that their labels name."""
    by_label: dict[str, list[float]] = {}
    for place, label in rows:
        by_label.setdefault(label, []).append(place)
    shared = sum(map(len, map(set, by_label.values()))) > len({place for place, _ in rows})
    return shared or (all(map(_increase, by_label.values())) and not _increase([place for place, _ in rows]))


def _increase(places: list[float]) -> bool:
    return all(one < other for one, other in pairwise(places))


def markdown_tables(text: str) -> list[Table]:
    """Every table in a Markdown text that is a training log, captioned by the nearest heading above it."""
    tables: list[Table] = []
    caption = ""
    before = ""
    table: Table | None = None
    for line in text.splitlines():
        if line.startswith("#"):
            caption = line.lstrip("# ").strip()
        if _RULE.match(line):
            if table is not None and table.rows:
                table.rows.pop()  # it was the header of the table that begins here
            tables.append(table := Table(caption, _cells(before)))
        elif table is not None and "|" in line:
            table.rows.append(_cells(line))
        else:
            table = None
        before = line
    logs = [table for table in tables if table.is_training_log and table.rows]
    return logs or [turned for table in tables for turned in _of_final_metrics(table)]


def _of_final_metrics(table: Table) -> list[Table]:
    """A table of which each row is one metric, turned about: a table of one row for each run that it holds."""
    names = [row[0] for row in table.rows if row]
    if len({meaning(name)[1] for name in names} & TELLING) < FEWEST_METRICS:
        return []
    splits = list(map(split_of, table.header))
    runs: dict[str, Table] = {}
    for index, (column, split) in enumerate(zip(table.header, splits, strict=True)):
        if index:
            run = runs.setdefault("" if split else column, Table(table.caption, [], [[]]))
            run.header += [f"{split} {name}" if split else name for name in names]
            run.rows[0] += [row[index] if index < len(row) else "" for row in table.rows if row]
    for column, run in runs.items():
        run.caption = parted(table.caption, column if len(runs) > 1 else "")
    return list(runs.values())


_COLUMN_NAME = re.compile(
    r"(?:training|validation|nll) loss|log odds (?:ratio|chosen)|(?:rewards|logps|logits) ?/ ?\w+|input tokens seen"
    r"|epoch|step|loss|kl\b",
    re.IGNORECASE,
)
FEWEST_COLUMNS = 4


def spaced_tables(text: str) -> list[Table]:
    """Tables copied from a rendered page or a notebook: a line of known column names, then lines of numbers."""
    tables: list[Table] = []
    table: Table | None = None
    for line in text.splitlines():
        cells = re.sub(r"no log", "-", line.strip(), flags=re.IGNORECASE).split()
        names = _COLUMN_NAME.findall(line)
        if len(names) >= FEWEST_COLUMNS and not _COLUMN_NAME.sub("", line).strip():
            tables.append(table := Table("", names))
        elif table is not None and len(cells) == len(table.header) and number(cells[-1]) is not None:
            table.rows.append(cells)
    return [table for table in tables if table.is_training_log and table.rows]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def csv_header(line: str, understood: Collection[str] = ()) -> Table | None:
    """The header of comma-, semicolon- or tab-separated values, or None if it is not one of a training log.

    `understood` are column names that the caller maps himself.
    """
    if len(line) > LONGEST_HEADER:
        return None
    delimiter = max(",;\t", key=line.count)
    cells = next(csv.reader([line], delimiter=delimiter), [])
    table = Table("", [cell.strip() for cell in cells])
    known = table.is_training_log or set(understood) & set(table.header) or _wandb_runs(table)
    return table if len(table.header) > 1 and "{" not in line and known else None


def csv_table(text: str, where: str) -> Table:
    """The text as a table of comma-, semicolon- or tab-separated values.

    Raises
    ------
    InputError
        If two columns that are understood have the same name, or a cell is longer than any number.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = max(",;\t", key=lines[0].count)
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)
        ]
    except csv.Error as error:
        raise InputError(f"{where}: a CSV that cannot be read: {error}") from error
    header = rows[0]
    for column in header:
        if header.count(column) > 1 and meaning(column)[1] is not None:
            raise InputError(
                f"{where}:1: the column {column!r} stands there {header.count(column)} times; keep one"
            )
    return Table("", header, rows[1:])


def _wandb_runs(table: Table) -> bool:
    named = [column for column in table.header if _WANDB_COLUMN.match(column)]
    return bool(named) and len(named) == len(table.header) - 1


def csv_records(table: Table) -> dict[str, list[Record]]:
    """Records by run. wandb's panel export names its columns ``run - series`` and adds their extremes."""
    if not _wandb_runs(table):
        return table.records_by_run()
    axis = table.header[0]
    is_place = meaning(axis)[1] in PLACES  # and no time
    runs: dict[str, list[Record]] = {}
    for row in table.rows:
        by_run: dict[str, Record] = {}
        for column, cell in zip(table.header, row, strict=False):
            if (named := _WANDB_COLUMN.match(column)) and not named.group(3):
                by_run.setdefault(named.group(1), {axis: row[0]} if is_place else {})[named.group(2)] = cell
        for run, record in by_run.items():
            runs.setdefault(run, []).append(record)
    return runs

"""Every form of log that is understood: its name, how it is recognised, and what reads it.

The table is in order: the first form that recognises a file and finds a log in it reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from rewardshape.errors import InputError, printable
from rewardshape.logs.console import console_rows
from rewardshape.logs.databases import SQLITE, trackio_records
from rewardshape.logs.documents import document_logs
from rewardshape.logs.events import event_records, is_event_file
from rewardshape.logs.gaps import without_gaps
from rewardshape.logs.jsons import flat_records, json_lines
from rewardshape.logs.labels import by_their_splits
from rewardshape.logs.log import Log, assemble
from rewardshape.logs.names import parted
from rewardshape.logs.prose import prose_records
from rewardshape.logs.rows import Record, Rows, has_value
from rewardshape.logs.settings import stated_settings
from rewardshape.logs.source import Source
from rewardshape.logs.tables import csv_header, csv_records, csv_table, markdown_tables, spaced_tables
from rewardshape.numbers import counted

TRAINER_STATE = "Hugging Face trainer_state.json"
DAMAGED = "the JSON is cut off or damaged: the whole records in it were read"
MOST_LISTED = 20  # names of columns in an error
TORN = "the log ends in the middle of a record, which was left out"


@dataclass(frozen=True)
class Request:
    """A file to read, with the columns that the user named: column of the file → key that `names.meaning` knows."""

    source: Source
    columns: Mapping[str, str]

    @property
    def name(self) -> str:
        """How the file is called to the user."""
        return self.source.name

    @cached_property
    def first_records(self) -> list[Record]:
        """The records of the first lines, if most lines are JSON; the last may be cut off by the end of the head."""
        head = replace(self.source, given=self.source.head.decode(self.source.encoding, "replace"))
        items = list(json_lines(head.lines()))
        records = [item for item in items if item is not None]
        return records if len(records) > len(items) - len(records) else []

    def settings(self) -> dict[str, Any]:
        """What the text states."""
        return stated_settings(self.source.pieces())


class Form(NamedTuple):
    """One form of log."""

    name: str
    recognises: Callable[[Request], bool]
    reads: Callable[[Request], list[Log]]
    has_columns: bool = False  # that a user can name


def _by_run(
    request: Request, form: str, runs: Mapping[str, Iterable[Record]], settings: Mapping[str, Any], *,
    notes: Sequence[str] = (), default_split: str = "train", decimal_comma: bool = False,
) -> list[Log]:  # fmt: skip
    """Logs of records that are already apart by run, or that name their run in a column."""
    apart: dict[str, Rows] = {}
    runs = {run: list(records) for run, records in runs.items()}
    _require_columns(
        request, dict.fromkeys(key for records in runs.values() for one in records for key in one)
    )
    for run, records in runs.items():
        named = [_named(record, request.columns) for record in records]
        for record in without_gaps(by_their_splits(named), default_split):
            own = str(record.get("run", record.get("run_name", record.get("run_id", run))))
            own = parted(own, f"seed {record['seed']}") if has_value(record.get("seed")) else own
            if own not in apart:
                apart[own] = Rows(default_split, decimal_comma)
            apart[own].add(record)
    logs = []
    for run, rows in apart.items():
        part = run if len(apart) > 1 else ""
        logs += assemble(request.name, form, rows, settings=settings, notes=notes, part=part)
    return logs


def _named(record: Record, columns: Mapping[str, str]) -> Record:
    """A record with the columns that the user named before those that only bear such a name: the first counts."""
    mine = {columns[key]: value for key, value in record.items() if key in columns}
    return {**mine, **{key: value for key, value in record.items() if key not in columns and key not in mine}}


def _require_columns(request: Request, there: Iterable[str]) -> None:
    there = [str(key) for key in there]
    for column in request.columns:
        if column not in there:
            listed = printable(", ".join(there[:MOST_LISTED]) + (", …" if len(there) > MOST_LISTED else ""))
            raise InputError(f"--columns: {request.name} has no column {column!r}; it has {listed}")


# --- binary forms ------------------------------------------------------------------------------------------------


def _reads_events(request: Request) -> list[Log]:
    records, torn = event_records([request.source.path])
    notes = ["the file ends in the middle of a record"] if torn else []
    return assemble(request.name, "TensorBoard event file", Rows.of(records), notes=notes)


def _reads_trackio(request: Request) -> list[Log]:
    return _by_run(request, "Trackio database", trackio_records(request.source.path), {})


# --- JSON --------------------------------------------------------------------------------------------------------


def _holds(request: Request, key: str) -> bool:
    data = request.source.json
    return isinstance(data, dict) and isinstance(data.get(key), list)


def _reads_notebook(request: Request) -> list[Log]:
    printed = replace(request.source, given=_notebook_output(request.source.json))
    return read_text(Request(printed, request.columns))


_CELL = re.compile(r"<t[hd][^>]*>(.*?)</t[hd]>", re.DOTALL)


def _notebook_output(notebook: Mapping[str, Any]) -> str:
    """What a Jupyter notebook printed, with the HTML tables of a Trainer's progress as Markdown tables."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        outputs = cell.get("outputs") if isinstance(cell, dict) else None
        for output in outputs if isinstance(outputs, list) else []:
            data = output.get("data") or {} if isinstance(output, dict) else {}
            html = "".join(data.get("text/html") or [])
            if "<table" in html:
                rows = [[c.strip() for c in _CELL.findall(row)] for row in html.split("<tr")[1:]]
                lines = ["| " + " | ".join(row) + " |" for row in rows if row]
                parts += [*lines[:1], "|" + "---|" * max(len(rows[0]), 2), *lines[1:], ""]
            elif isinstance(output, dict):
                parts.append("".join(output.get("text") or data.get("text/plain") or []))
    return "\n".join(parts)


def _reads_trainer_state(request: Request) -> list[Log]:
    records = [record for record in request.source.json["log_history"] if isinstance(record, dict)]
    form = TRAINER_STATE
    return assemble(request.name, form, Rows.of(records), settings=request.settings(), one_run=True)


def _reads_json(request: Request) -> list[Log]:
    records = flat_records(request.source.json)
    form = "JSON" if len(records) != 1 else "JSON of one set of results"
    return _by_run(request, form, {"": records}, request.settings())


def _is_torn_json(request: Request) -> bool:
    return b'"log_history"' in request.source.head


def _reads_torn_json(request: Request) -> list[Log]:
    rows, _ = console_rows(request.source.pieces())
    form = TRAINER_STATE
    return assemble(request.name, form, rows, settings=request.settings(), notes=[DAMAGED], one_run=True)


def _lines_form(name: str, key_of_it: str, default_split: str = "train") -> Form:
    """JSON lines of which one of the first holds a key of a pattern."""

    def recognises(request: Request) -> bool:
        return any(re.fullmatch(key_of_it, key) for record in request.first_records for key in record)

    def reads(request: Request) -> list[Log]:
        items = list(json_lines(request.source.lines()))
        records = [item for item in items if item is not None]
        bad = len(items) - len(records)
        notes = [f"{counted(bad, 'line')} left out that could not be read"] if bad else []
        return _by_run(
            request, name, {"": records}, request.settings(), notes=notes, default_split=default_split
        )

    return Form(name, recognises, reads, has_columns=True)


# --- tables ------------------------------------------------------------------------------------------------------


def _is_csv(request: Request) -> bool:
    return csv_header(request.source.first_line, request.columns) is not None


def _reads_csv(request: Request) -> list[Log]:
    table = csv_table("".join(request.source.pieces()), str(request.source.path))
    return _by_run(
        request, "CSV", csv_records(table), request.settings(), decimal_comma=table.decimal_comma
    )  # fmt: skip


_RULE = re.compile(r"(?m)^[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*\|")
_COLUMN_NAMES = ("training loss", "validation loss")


def _has_tables(request: Request) -> bool:
    return any(
        ("--" in piece and _RULE.search(piece)) or any(name in piece.lower() for name in _COLUMN_NAMES)
        for piece in request.source.pieces()
    )


def _reads_tables(request: Request) -> list[Log]:
    text = "".join(request.source.pieces())
    tables = markdown_tables(text) or spaced_tables(text)
    return document_logs(text, tables, request.name, request.settings(), []) if tables else []


# --- running text ------------------------------------------------------------------------------------------------

_REFERENCE_DPO = re.compile(rb"train stats after \d+ examples|eval after \d+:")


def _is_reference_dpo(request: Request) -> bool:
    return bool(_REFERENCE_DPO.search(request.source.head))


def _console_form(name: str, recognises: Callable[[Request], bool]) -> Form:
    def reads(request: Request) -> list[Log]:
        rows, torn = console_rows(request.source.pieces())
        return assemble(request.name, name, rows, settings=request.settings(), notes=[TORN] if torn else [])

    return Form(name, recognises, reads)


def _has_braces(request: Request) -> bool:
    return any("{" in piece for piece in request.source.pieces())


def _reads_prose(request: Request) -> list[Log]:
    of_a_card = (
        b"evaluation set" in request.source.head
    )  # a model card without a table lists its final results
    rows = Rows.of(prose_records(request.source.lines()), "eval" if of_a_card else "train")
    return assemble(request.name, "lines of names and numbers", rows, settings=request.settings())


BINARY_FORMS = (
    Form("TensorBoard event file", lambda request: is_event_file(request.source.head), _reads_events),
    Form(
        "Trackio database",
        lambda request: request.source.head.startswith(SQLITE),
        _reads_trackio,
        has_columns=True,
    ),
)
TEXT_FORMS = (
    Form("Jupyter notebook", lambda request: _holds(request, "cells"), _reads_notebook),
    Form(TRAINER_STATE, lambda request: _holds(request, "log_history"), _reads_trainer_state),
    Form("JSON", lambda request: request.source.json is not None, _reads_json, has_columns=True),
    Form(TRAINER_STATE, _is_torn_json, _reads_torn_json),
    _lines_form("LLaMA-Factory trainer_log.jsonl", "current_steps"),
    _lines_form("learning-dynamics JSON lines", ".*eval_prob.*", "eval"),
    _lines_form("wandb history", "_step"),
    _lines_form("JSON lines", ".*"),
    Form("CSV", _is_csv, _reads_csv, has_columns=True),
    Form("table", _has_tables, _reads_tables),
    _console_form("reference DPO stdout", _is_reference_dpo),
    _console_form("stdout with dict lines", _has_braces),
    Form("lines of names and numbers", lambda request: True, _reads_prose),
)
FORMS = (*BINARY_FORMS, *TEXT_FORMS)


def read_text(request: Request) -> list[Log]:
    """The logs in a text."""
    return _read(TEXT_FORMS, request)


def read_binary(request: Request) -> list[Log]:
    """The logs in a file that is no text."""
    return _read(BINARY_FORMS, request)


def _read(forms: Sequence[Form], request: Request) -> list[Log]:
    for form in forms:
        if form.recognises(request) and (logs := form.reads(request)):
            if request.columns and not form.has_columns:
                raise InputError(
                    f"--columns: {request.name} is a {form.name}, whose columns have names; leave it out"
                )
            return logs
    return []

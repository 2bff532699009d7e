"""A model card, a README, a notebook: tables, and beside them printed records and lists of results."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardshape.logs.console import dict_records
from rewardshape.logs.gaps import without_gaps
from rewardshape.logs.log import Log, assemble
from rewardshape.logs.names import meaning, number, parted
from rewardshape.logs.prose import prose_records
from rewardshape.logs.rows import Record, Rows
from rewardshape.logs.tables import Table
from rewardshape.numbers import moment

FORM = "table"
_RESULTS = re.compile(r"following results on the evaluation set:?[ \t]*\n((?:\s*[-*] .*\n?)+)", re.IGNORECASE)
_EPOCHS = re.compile(r"num_(?:train_)?epochs\W{1,6}(\d+(?:\.\d+)?)")
ROUNDING = 2e-3  # relative, of numbers that a card rounds to four decimals and a README to three
FEWEST_SHARED = 2  # series in which a printed record and a row must agree to be the same row

Values = dict[tuple[str, str], float]


def document_logs(
    text: str, tables: Sequence[Table], name: str, settings: Mapping[str, Any], notes: list[str]
) -> list[Log]:
    """The logs in the tables of a document, completed by what is printed beside them."""
    unique = list({table.key: table for table in tables}.values())
    if len(unique) < len(tables):
        notes.append("a table that is printed more than once was read once")
    printed = [found.record for found in dict_records([text])]
    printed = [record for record in printed if record != {"torn": True}]
    logs: list[Log] = []
    for table in unique:
        caption = table.caption if len(unique) > 1 else ""
        runs = table.records_by_run()
        if len(unique) == len(runs) == 1:
            (records,) = runs.values()
            printed = _add_evaluation(records, _complete(records, printed, table), table)
            own = [*notes, *_add_results(text, records, table)]
        else:
            own = notes
        for run, records in runs.items():
            given = without_gaps(records, table.default_split)
            rows = Rows.of(given, table.default_split, table.decimal_comma)
            part = parted(caption, run if len(runs) > 1 else "")
            logs += assemble(name, FORM, rows, settings=settings, notes=own, part=part)
    if printed:
        form = "stdout with dict lines"
        printed_rows = Rows.of(printed)
        logs += assemble(name, form, printed_rows, settings=settings, notes=notes, part="printed records")
    return logs


def _values(record: Record, table: Table) -> Values:
    """The numbers of a record by what they mean."""
    values: Values = {}
    for key, raw in record.items():
        split, series = meaning(str(key))
        value = number(raw, decimal_comma=table.decimal_comma)
        if series is not None and value is not None:
            values.setdefault((split or table.default_split, series), value)
    return values


def _same(one: Values, other: Values) -> bool:
    """Whether two records agree, to rounding, in every series that both hold."""
    shared = [key for key in one if key in other and key[1] not in ("learning_rate", "grad_norm")]
    series = [key for key in shared if key[1] not in ("step", "epoch")]
    near = [math.isclose(one[key], other[key], rel_tol=ROUNDING, abs_tol=ROUNDING / 4) for key in shared]
    return len(series) >= FEWEST_SHARED and all(near)


def _complete(records: list[Record], printed: list[Record], table: Table) -> list[Record]:
    """Give the rows of a table what printed records say beyond them; the records that fit no row are left."""
    left = []
    for record in printed:
        values = _values(record, table)
        row = next((row for row in records if _same(_values(row, table), values)), None)
        if row is None:
            left.append(record)
        else:
            row |= {key: value for key, value in record.items() if key not in row}
    return left


def _add_evaluation(records: list[Record], printed: list[Record], table: Table) -> list[Record]:
    """Evaluations that are printed beside a table that holds none are of its run; the others are left."""
    if any(split == "eval" for row in records for split, _ in _values(row, table)):
        return printed
    splits = [
        {of for of, what in _values(record, table) if what not in ("step", "epoch")} for record in printed
    ]
    records += [record for record, of in zip(printed, splits, strict=True) if of == {"eval"}]
    return [record for record, of in zip(printed, splits, strict=True) if of != {"eval"}]


def _add_results(text: str, records: list[Record], table: Table) -> list[str]:
    """The list of results of a card: the last evaluation, which its table need not hold."""
    found = _RESULTS.search(text)
    results = next(iter(prose_records(found.group(1).splitlines())), None) if found else None
    if not results or table.default_split != "eval":
        return []
    results = {f"eval {key}": value for key, value in results.items()}
    values = _values(results, table)
    row = next((row for row in records if _same(_values(row, table), values)), None)
    if row is not None:
        row |= {key: value for key, value in results.items() if meaning(key) not in _values(row, table)}
        return []
    end = _last_step(text, [_values(row, table) for row in records])
    if end is None:
        return ["the card's list of results fits no row of its table and states no step: it was left out"]
    records.append({"step": end} | results)
    return [
        f"the card's list of results was taken for the evaluation at the end of training, step {moment(end)}"
    ]


def _last_step(text: str, rows: Sequence[Values]) -> float | None:
    """The last step of training, if it comes after the table's: its epochs times its steps per epoch."""
    places = [
        (value, row.get((split, "epoch")))
        for row in rows
        for (split, series), value in row.items()
        if series == "step"
    ]
    rates = [step / epoch for step, epoch in places if epoch]
    stated = _EPOCHS.search(text)
    if not rates or not stated:
        return None
    end = float(round(float(stated.group(1)) * float(np.median(rates))))
    return end if end > max(step for step, _ in places) else None

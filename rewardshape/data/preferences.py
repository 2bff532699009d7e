"""Preference pairs from the files people have: one reader, every row and every column accounted for.

Where rows come from lies in `sources`, the forms they have in `forms`, where their prompt ends in `prompts`, and
how pairs become tokens in `tokenization`. A row that says nothing about preference (an empty response, two equal
ones) is dropped and counted; a malformed row stops the reading with file, line and field, or is counted and
skipped where asked. What a row says beside its pair is listed as not read.
"""

from __future__ import annotations

import hashlib
import json
import os.path
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from os import PathLike, fspath
from typing import Any, NamedTuple

from rewardshape.data.cells import HOW_TO_NAME, TARGETS, MissingColumn, Row
from rewardshape.data.messages import Message, Text, Unusable
from rewardshape.data.prompts import REPEATED, SHARED, Reading, read_row
from rewardshape.data.rated import joined
from rewardshape.data.reports import ReadReport
from rewardshape.data.sources import Rows, is_hub_id, is_table, labels, read_rows, table_rows
from rewardshape.errors import InputError, printable

__all__ = ["Message", "Pair", "ReadReport", "Text", "fingerprint", "read_preferences"]

TABLE = "data"  # the name of rows that came from no file
LOOK_AHEAD = 1000  # rows searched for a good one before the whole file is called of another form
REPEATING = 0.9  # share of the rows with a text as prompt that repeat it, for short ones to be no chance
FEWEST_REPEATING = 2


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and the responses to it.

    Attributes
    ----------
    pair_id : str
        ``FILENAME:LINE``, or ``FILENAME:ROW`` where the form has no lines: where a person finds the row.
    prompt : str or list of messages
        Text, or chat messages with ``role`` and ``content``.
    responses : dict
        ``chosen`` and ``rejected``, then any further responses to watch; each of the kind the prompt is.
    tools : list, optional
        Tool definitions that the chat template writes into the prompt.
    scores : tuple of float, optional
        The annotator's scores of chosen and rejected, in units of their own.
    """

    pair_id: str
    prompt: Text
    responses: dict[str, Text]
    tools: list[Any] | None = None
    scores: tuple[float, float] | None = None

    @property
    def is_chat(self) -> bool:
        """Whether the pair is made of messages, and so needs a chat template."""
        return isinstance(self.prompt, list)

    @property
    def prompt_id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the prompt: the same for every pair with this prompt."""
        asked: Any = [self.prompt, self.tools] if self.tools else self.prompt
        return hashlib.sha256(_canonical(asked)).hexdigest()[:16]


def read_preferences(
    data: Any,
    *,
    columns: Mapping[str, str] | None = None,
    skip_bad_rows: bool = False,
    extra_responses: Sequence[str] = (),
) -> tuple[list[Pair], ReadReport]:
    """Read preference pairs from files, saved datasets, the hub, or rows in memory.

    Parameters
    ----------
    data : path, sequence of paths, or table
        Files ``.jsonl``, ``.ndjson``, ``.json``, ``.csv``, ``.tsv`` (each also ``.gz`` or ``.zst``), ``.parquet``; a
        folder saved by `datasets`; a hub id ``owner/name``, with ``:split`` where the dataset has several. Or a
        table: a list of dicts, a `pandas.DataFrame`, a `datasets.Dataset`.
    columns : mapping, optional
        Which columns stand for ``prompt``, ``chosen``, ``rejected``, ``system`` or ``tools``, where the form of the
        data is not one that is known: ``{"prompt": "instruction"}``; and for ``chosen_score`` and ``rejected_score``.
    skip_bad_rows : bool
        Count and skip a malformed row instead of stopping at it.
    extra_responses : sequence of str
        Further columns that hold responses to the prompt; every row must have them.

    Returns
    -------
    pairs : list of Pair
        In the order of the sources and of their rows.
    report : ReadReport
        Where every other row went, and which columns were read.

    Raises
    ------
    InputError
        A source that cannot be read, holds no row or is given twice; a malformed row (file, line, field);
        no usable row at all.

    Examples
    --------
    >>> pairs, report = read_preferences("pairs.jsonl")  # doctest: +SKIP
    >>> print(report.summary())  # doctest: +SKIP
    1,485 rows read, 1,483 pairs kept; 2 dropped: 2 empty response
    """
    _check_names(extra_responses, columns or {})
    report, pairs = ReadReport(), list[Pair]()
    sources = _sources(data)

    def understood(row: Row | InputError, *, repeats: bool) -> Reading:
        if isinstance(row, InputError):
            raise row
        return read_row(row, extra_responses, columns, repeats)

    for source in sources:
        named = {"prompt", "chosen", "rejected"} & set(columns or ())
        rows = ((number, row, 1) for number, row in source.rows) if named else joined(source.rows)
        head = list(islice(rows, LOOK_AHEAD))
        repeats = _repeats_prompts([row for _, row, _ in head], partial(understood, repeats=True))
        read = partial(understood, repeats=repeats)
        pairs += _pairs(source, chain(head, rows), read, report, skip_bad_rows)
    report.pairs = len(pairs)
    if not pairs:
        raise InputError(
            f"{', '.join(source.name for source in sources)}: no usable row ({report.summary()})"
        )
    report.duplicates = len(pairs) - len({_digest(pair) for pair in pairs})
    report.fingerprint = fingerprint(pairs)
    return pairs, report


Numbered = tuple[int, Row | InputError, int]  # number, row, and how many rows of the source it is


class _Source(NamedTuple):
    """Where rows come from: the name as it was given, a short one for ids, and the rows."""

    name: str
    label: str
    rows: Rows


def _sources(data: Any) -> list[_Source]:
    if is_table(data):
        return [_Source(TABLE, TABLE, table_rows(data))]
    paths = [fspath(path) for path in ([data] if isinstance(data, str | PathLike) else data)]
    if not paths:
        raise InputError("--data: no file given")
    whole = [path if is_hub_id(path) else os.path.realpath(path) for path in paths]
    for index, path in enumerate(whole):
        if path in whole[:index]:
            raise InputError(f"--data: {paths[index]} is given twice")
    return [_Source(printable(path), label, read_rows(path)) for path, label in labels(paths).items()]


def _pairs(
    source: _Source,
    rows: Iterator[Numbered],
    understood: Callable[[Row | InputError], Reading],
    report: ReadReport,
    skip_bad_rows: bool,
) -> Iterator[Pair]:
    """The pairs of one source, its other rows counted."""
    report.sources[source.label] = 0
    any_good = False
    for number, row, of_rows in rows:
        report.sources[source.label] += of_rows
        report.joined += of_rows - 1
        pair_id = f"{source.label}:{number}"
        try:
            reading = understood(row)
        except Unusable as reason:
            any_good = True
            report.dropped.setdefault(str(reason), []).append(pair_id)
        except InputError as problem:
            line = f"{source.name}:{number}: {problem}"
            if not skip_bad_rows:
                others = any_good or _any_good(rows, understood)
                raise InputError(line + _remedy(problem, others)) from None
            report.bad_rows.append(line)
        else:
            any_good = True
            report.count(reading)
            yield Pair(pair_id, reading.prompt, reading.responses, reading.tools, reading.scores)
    if not report.sources[source.label]:
        raise InputError(f"{source.name}: empty, no rows in it")


def _repeats_prompts(
    rows: Sequence[Row | InputError], understood: Callable[[Row | InputError], Reading]
) -> bool:
    """Whether nearly all responses begin with their prompts, of the rows that have a text for one."""
    repeated = []
    for row in rows:
        try:
            reading = understood(row)
        except (Unusable, InputError):
            continue
        if isinstance(reading.prompt, str) and SHARED not in reading.remarks:
            repeated.append(REPEATED in reading.remarks)
    return sum(repeated) >= max(FEWEST_REPEATING, REPEATING * len(repeated))


def _any_good(rows: Iterator[Numbered], understood: Callable[[Row | InputError], Reading]) -> bool:
    """Whether one of the next rows can be read: if none can, it is not the row that is at fault."""
    for _, row, _ in islice(rows, LOOK_AHEAD):
        try:
            understood(row)
        except Unusable:
            return True
        except InputError:
            continue
        return True
    return False


def _remedy(problem: InputError, others_are_good: bool) -> str:
    """What helps: to skip a row helps only where others can be read."""
    if others_are_good:
        return "; mend the row or pass --skip-bad-rows"
    return f"; {HOW_TO_NAME}" if isinstance(problem, MissingColumn) else ""


def fingerprint(pairs: Iterable[Pair]) -> str:
    """SHA-256 of prompts and responses in order, whatever file or form they came from."""
    return hashlib.sha256(b"".join(_digest(pair) for pair in pairs)).hexdigest()


def _digest(pair: Pair) -> bytes:
    content: list[Any] = [pair.prompt, list(pair.responses.items())]
    return hashlib.sha256(_canonical([*content, pair.tools] if pair.tools else content)).digest()


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, default=str).encode()


def _check_names(extra_responses: Sequence[str], columns: Mapping[str, str]) -> None:
    for index, name in enumerate(extra_responses):
        if name in ("prompt", "chosen", "rejected") or name in extra_responses[:index]:
            raise InputError(f"--probe-responses {name}: read already; name other columns")
    for target in columns:
        if target not in TARGETS:
            raise InputError(f"--columns {target}: name columns for {', '.join(TARGETS)} only")

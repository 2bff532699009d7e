"""The records of a log, understood and kept by column: what each number is, and to which run its row belongs.

A long console holds a hundred thousand records of a dozen numbers, so they are kept as columns of doubles, and what a
record's keys mean is looked up once for each set of keys.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardshape.logs.kinds import is_sign
from rewardshape.logs.names import TELLING, meaning, number

Record = dict[str, Any]
Bar = tuple[int, int]  # where a progress bar stood, and its total
SUMMARY_KEYS = frozenset({"train_runtime", "train_samples_per_second"})  # a transformers Trainer's last words
MEAN_LOSS = "train_loss"  # in them the mean over the whole run
RESTART_ROWS = 3  # a place that falls back to the first one begins a new run only after this many rows
# If more rows than this share (or this many) stand before their predecessor, their order is not that of training.
DISORDER, MOST_RESUMES = 1 / 3, 200
MOST_UNTOLD = 1000
_STEP_OF_TOTAL = re.compile(r"['\"]?(\d+)/(\d+)['\"]?$")  # ms-swift: {"global_step/max_steps": "10/100"}
_STEP_AND_TOTAL = re.compile(r"step\S*/\S*(?:steps|total)")
PLACES = ("step", "examples", "epoch")


class _Column:
    """One series of one split: the rows that hold it, and its values."""

    __slots__ = ("rows", "telling", "trains", "values")

    def __init__(self, split: str, series: str) -> None:
        self.rows = array("i")
        self.values = array("d")
        self.telling = series in TELLING
        self.trains = split == "train"


@dataclass(frozen=True)
class _Layout:
    """What the keys of a record mean, by their position in it."""

    keys: tuple[str, ...]
    series: list[tuple[int, _Column]]
    places: list[
        tuple[int, str, bool]
    ]  # position, place, and whether it goes before another of the same place
    other: list[
        tuple[int, str, bool]
    ]  # position, split, and whether the key is the sign of a kind of training
    summary: list[int]  # positions of the keys that make a record with a value there a summary
    losses: list[int]  # positions of the training loss of a step, not of the mean over the run


@dataclass
class Rows:
    """Records as columns.

    Attributes
    ----------
    place : dict of array
        ``step``, ``examples`` and ``epoch`` of each row, NaN where it states none.
    columns : dict of (split, series) to column
        Each series with the rows that hold it.
    bars : list of arrays
        The progress bars that stood before the rows: row, count and total of each.
    stated : list of (row, settings)
        Settings that the text states before a row.
    repeated : int
        Records that were left out since they came twice in a row.
    """

    default_split: str = "train"
    decimal_comma: bool = False

    def __post_init__(self) -> None:
        self.place = {name: array("d") for name in PLACES}
        self.columns: dict[tuple[str, str], _Column] = {}
        self.strange: list[
            tuple[int, str, str]
        ] = []  # row, split and key of what is not finite and not understood
        self.bars = [array("q"), array("q"), array("q")]
        self.stated: list[tuple[int, dict[str, Any]]] = []
        self.repeated = 0
        self.trains = bytearray()
        self.after_summary = bytearray()
        self.untold: list[Record] = []  # records that show what is trained and no series of ours
        self._row_layouts = array("i")
        self._layouts: dict[tuple[str, ...], int] = {}
        self._known: list[_Layout] = []
        self._summary = False

    @classmethod
    def of(
        cls, records: Iterable[Mapping[str, Any]], default_split: str = "train", decimal_comma: bool = False
    ) -> Rows:
        """The rows of some records."""
        rows = cls(default_split, decimal_comma)
        for record in records:
            rows.add(record)
        return rows

    def __len__(self) -> int:
        return len(self.trains)

    def add(self, record: Mapping[str, Any], bars: tuple[Bar, ...] = ()) -> bool:
        """Append a record if it tells about training; say whether it does."""
        keys = tuple(record)
        index = self._layouts.get(keys)
        if index is None:
            index = self._layouts[keys] = len(self._known)
            self._known.append(self._layout(keys))
        layout, raws = self._known[index], list(record.values())
        summary = any(has_value(raws[position]) for position in layout.summary)
        # TensorBoard has a summary and the last step of training in one record, which ends nothing
        of_a_step = summary and any(has_value(raws[position]) for position in layout.losses)
        self._summary = self._summary or (summary and not of_a_step)
        found = [
            (column, value)
            for position, column in layout.series
            if (value := self._number(raws[position])) is not None
            and not (
                summary and column.trains and (not of_a_step or last_part(str(keys[position])) == MEAN_LOSS)
            )
        ]
        other = [
            (self._number(raws[position]), position, split, sign) for position, split, sign in layout.other
        ]
        if not any(column.telling for column, _ in found):
            if (
                any(sign and value is not None for value, _, _, sign in other)
                and len(self.untold) < MOST_UNTOLD
            ):
                self.untold.append(dict(record))
            return False
        row = len(self)
        trains = False
        for column, value in found:
            if not column.rows or column.rows[-1] != row:  # the first of two keys with one meaning counts
                column.rows.append(row)
                column.values.append(value)
                trains = trains or column.trains
        self.strange += [
            (row, split, str(keys[position]))
            for value, position, split, _ in other
            if value is not None and not math.isfinite(value)
        ]
        self._append_place(layout, raws)
        for bar in bars:
            for part, whole in zip(self.bars, (row, *bar), strict=True):
                part.append(whole)
        self.trains.append(trains)
        self.after_summary.append(self._summary)
        self._row_layouts.append(index)
        self._summary = False
        return True

    def _number(self, raw: Any) -> float | None:
        return raw if type(raw) is float else number(raw, decimal_comma=self.decimal_comma)

    def _append_place(self, layout: _Layout, raws: list[Any]) -> None:
        place: dict[str, float] = {}
        for position, name, first in layout.places:
            value = self._number(raws[position])
            if value is None and (total := _STEP_OF_TOTAL.match(str(raws[position]))):
                value = float(total.group(1))
            if value is not None and math.isfinite(value) and (first or name not in place):
                place[name] = value
        for name in PLACES:
            self.place[name].append(place.get(name, math.nan))

    def _layout(self, keys: tuple[str, ...]) -> _Layout:
        layout = _Layout(keys, [], [], [], [], [])
        for position, key in enumerate(map(str, keys)):
            split, series = meaning(key)
            if last_part(key) in SUMMARY_KEYS:
                layout.summary.append(position)
            if series is None and _STEP_AND_TOTAL.search(key.lower()):
                series = "step"
            if series in PLACES:
                # `train/global_step` and the like count optimiser steps; wandb's own `_step` counts log calls
                layout.places.append((position, series, "global" in key.lower()))
            elif series is None:
                layout.other.append((position, split or self.default_split, is_sign(key)))
            else:
                name = (split or self.default_split, series)
                if name == ("train", "loss") and last_part(key) != MEAN_LOSS:
                    layout.losses.append(position)
                layout.series.append((position, self.columns.setdefault(name, _Column(*name))))
        return layout

    def keys(self, rows: NDArray[np.int64]) -> list[str]:
        """Every key of some rows, as the log spells it."""
        layouts = np.unique(np.frombuffer(self._row_layouts, dtype=np.int32)[rows])
        return list(dict.fromkeys(str(key) for layout in layouts for key in self._known[layout].keys))

    def splits(self) -> list[str]:
        """The splits of the rows, in the order in which they come."""
        return list(dict.fromkeys(split for (split, _), column in self.columns.items() if column.rows))

    def rename_split(self, old: str, new: str) -> None:
        """Give the series of one split to another that has none of them."""
        self.columns = {
            (new if split == old else split, name): v for (split, name), v in self.columns.items()
        }


def last_part(key: str) -> str:
    """A key without the folder that wandb and TensorBoard put it into: ``train/train_loss`` is ``train_loss``."""
    return key.rpartition("/")[2]


def has_value(raw: Any) -> bool:
    """Whether a cell holds anything: it is not empty, null or NaN."""
    return raw is not None and str(raw).strip().lower() not in ("", "nan")


# --- several runs in one file ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """The rows of one run, and how many an interrupted attempt wrote that the resumed one wrote again."""

    rows: NDArray[np.int64]
    replaced: int = 0


def runs_of(rows: Rows, *, one_run: bool) -> list[Run]:
    """The rows of each run, in the order of the file.

    A Trainer's summary ends a run, and so does a place (step or epoch) that falls back to where the run began. A place
    that falls back less far is a resumed run: its later copy counts, and what the first attempt wrote beyond the point
    of resumption is left out.
    """
    _count_on(rows)
    steps, epochs = (np.frombuffer(rows.place[name], dtype=np.float64) for name in ("step", "epoch"))
    order = _Order(steps if np.isfinite(steps).any() else epochs, _leading_splits(rows))
    starts = [] if one_run else _starts(rows, order)
    bounds = [0, *starts, len(rows)]
    return [_without_replaced(order, first, last) for first, last in pairwise(bounds)]


def _count_on(rows: Rows) -> None:
    """Steps that begin again with each epoch are counted on over the epochs."""
    steps, epochs = rows.place["step"], rows.place["epoch"]
    before, gap, offset, last_epoch = math.nan, 0.0, 0.0, math.nan
    for row, (step, epoch) in enumerate(zip(steps, epochs, strict=True)):
        if math.isnan(step) or math.isnan(epoch):
            continue
        if step < before and epoch > last_epoch:
            offset += before + (gap if step == 0 else 0.0)  # counted from 0, the last step is one short
        elif step > before:
            gap = step - before
        steps[row] = step + offset
        before, last_epoch = step, epoch


class _Order:
    """The places of the rows, and which of them stand before the last row of their own split."""

    def __init__(self, places: NDArray[np.float64], splits: NDArray[np.int64]) -> None:
        self.places, self.splits = places, splits
        self.before = np.full(
            len(places), -1, dtype=np.int64
        )  # the last row of the same split that has a place
        falls = []
        for split in np.unique(splits):
            at = np.flatnonzero((splits == split) & np.isfinite(places))
            self.before[at[1:]] = at[:-1]
            falls += at[1:][np.diff(places[at]) < 0].tolist()
        # A table may be sorted otherwise than by time
        disorder = len(falls) > min(DISORDER * max(len(places) - 1, 1), MOST_RESUMES)
        self.falls: list[int] = [] if disorder else sorted(falls)

    def to_start(self, row: int, begin: int) -> bool:
        """Whether a row that falls back does so to where the run that begins at `begin` began."""
        own = self.places[begin:row][self.splits[begin:row] == self.splits[row]]
        own = own[np.isfinite(own)]
        return bool(row - begin >= RESTART_ROWS and own.size and self.places[row] <= own[0])


def _leading_splits(rows: Rows) -> NDArray[np.int64]:
    """The split of each row as a number: 0 where it trains, else that of its first series."""
    splits = np.full(len(rows), -1, dtype=np.int64)
    numbers = {split: index for index, split in enumerate(dict.fromkeys(["train", *rows.splits()]))}
    for (split, _), column in rows.columns.items():
        at = np.frombuffer(column.rows, dtype=np.int32)
        if at.size:
            splits[at] = np.where(splits[at] < 0, numbers[split], np.minimum(splits[at], numbers[split]))
    return splits


def _starts(rows: Rows, order: _Order) -> list[int]:
    """The rows with which a further run begins."""
    starts: list[int] = []
    begin, ended, resumed = 0, False, math.inf
    falls = set(order.falls)
    for row in sorted(falls | set(_rows_after_a_summary(rows))):
        falls_back = row in falls and order.before[row] >= begin
        ended = ended or any(rows.after_summary[begin + 1 : row + 1])
        # An evaluation that falls back behind the place to which training has, does so in the same resumed run
        further = falls_back and (rows.trains[row] or order.places[row] < resumed)
        if (ended and (rows.trains[row] or falls_back)) or (further and order.to_start(row, begin)):
            starts.append(row)
            begin, ended, resumed = row, False, math.inf
        elif falls_back and rows.trains[row]:
            resumed = order.places[row]
    return starts


def _rows_after_a_summary(rows: Rows) -> list[int]:
    """The first training row after each summary: what is evaluated right after it belongs to the run that ended."""
    found, pending = [], False
    for row in range(len(rows)):
        pending = pending or (bool(rows.after_summary[row]) and row > 0)
        if pending and rows.trains[row]:
            found.append(row)
            pending = False
    return found


def _without_replaced(order: _Order, first: int, last: int) -> Run:
    """The rows of a run without those that it wrote again after it was resumed."""
    resumed = [first]
    for row in order.falls:
        if first < row < last and order.before[row] >= resumed[-1]:
            resumed.append(row)
    kept = np.ones(last - first, dtype=bool)
    limit = math.inf
    for begin, end in reversed(list(pairwise(resumed))):
        limit = min(limit, order.places[end])
        kept[begin - first : end - first] = ~(
            order.places[begin:end] >= limit
        )  # a row without a place is kept
    return Run(np.arange(first, last, dtype=np.int64)[kept], int((~kept).sum()))

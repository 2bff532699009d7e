"""One log of one training run, and how the rows of a file become one.

A `Log` holds what a trainer wrote about a run: a table with one row per split and step. Its records come from the
readers of this package as `Rows`; here several runs in one file are told apart, their steps are found, and what a
resumed run wrote twice is settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rewardshape.errors import printable
from rewardshape.logs.kinds import Kind, kind_of
from rewardshape.logs.names import parted
from rewardshape.logs.rows import Rows, Run, runs_of
from rewardshape.logs.steps import Counts, steps_of
from rewardshape.numbers import counted

NONFINITE = ["split", "step", "series"]
MOST_OF_A_NAME = 120  # characters; a name comes from a caption or a column of the file


@dataclass(frozen=True)
class Log:
    """What the log of one run says.

    Attributes
    ----------
    name : str
        The file, and the run or table in it where there are several.
    form : str
        The form that was recognised, for people.
    table : DataFrame
        One row per `split` (``train``: changing batches, ``eval``: a fixed set) and `step`, in order of step. The other
        columns are series: loss, reward_chosen, reward_rejected, margin, accuracy, logp_chosen, logp_rejected,
        ref_logp_chosen, ref_logp_rejected (nats; sums or per-token means, as the trainer wrote them), grad_norm,
        learning_rate, epoch, …; NaN where not logged, and where NaN or infinity was logged.
    nonfinite : DataFrame
        The values that were logged as NaN or infinite: split, step, series.
    settings : dict
        Settings that the log itself states (beta, gamma, loss_type, …).
    notes : list of str
        What reading had to repair or to leave out.
    counts : ``step``, ``epoch``, ``example`` or ``row``
        What `step` counts: optimiser steps wherever the log lets them be known.
    kind : str
        What was trained, as far as the series show it: ``preference``, or another training that holds no preference
        pairs (see `rewardshape.logs.kinds.KINDS`).
    signs : tuple of str
        The columns by which the kind was recognised, as the log spells them.
    part : str
        The run or table within the file, where that holds several; else empty.
    """

    name: str
    form: str
    table: pd.DataFrame
    nonfinite: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=NONFINITE))
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    counts: Counts = "step"
    kind: Kind = "preference"
    signs: tuple[str, ...] = ()
    part: str = ""

    @property
    def rows_are(self) -> str:
        """What the numbers in the column `step` count, in the plural: steps, epochs, examples or rows."""
        return f"{self.counts}s"

    def split(self, name: str) -> pd.DataFrame:
        """The rows of one split, indexed by step."""
        return self.table[self.table["split"] == name].set_index("step").drop(columns="split")


def shown(text: object) -> str:
    """A name from a file as it may be shown: without control characters, and not too long."""
    name = printable(text)
    return name if len(name) <= MOST_OF_A_NAME else name[: MOST_OF_A_NAME - 1] + "…"


def assemble(
    name: str,
    form: str,
    rows: Rows,
    *,
    settings: Mapping[str, Any] | None = None,
    notes: Iterable[str] = (),
    one_run: bool = False,
    part: str = "",
) -> list[Log]:
    """The logs in some rows; empty where no row holds a series that tells about training.

    Parameters
    ----------
    one_run : bool
        True where the form itself says that all records belong to one run, so that a step which comes again is a
        resumed run and never a second one.
    part : str
        The run or table within the file, where that holds several.
    """
    settings, notes = dict(settings or {}), list(notes)
    if not len(rows):
        return _of_another_kind(parted(name, part), form, rows, settings)
    notes += _one_evaluation_set(rows)
    if rows.repeated:
        notes.append(f"left out as printed twice: {counted(rows.repeated, 'record')}")
    runs = runs_of(rows, one_run=one_run)
    own = [""] if len(runs) == 1 else [f"run {index}" for index in range(1, len(runs) + 1)]
    parts = [parted(part, run) for run in own]
    return [
        replace(_log(parted(name, which), form, rows, run, settings | stated, notes), part=shown(which))
        for which, run, stated in zip(parts, runs, _stated_by_run(rows, runs), strict=True)
    ]


def _stated_by_run(rows: Rows, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What the text states for each of several runs alone: one value between the run before it and its own end."""
    found = []
    for first, last in pairwise([0, *(int(run.rows[-1]) + 1 for run in runs)]):
        own: dict[str, set[Any]] = {}
        for row, stated in rows.stated if len(runs) > 1 else ():
            for name, value in stated.items():
                if first <= row < last:
                    own.setdefault(name, set()).add(value)
        found.append({name: values.pop() for name, values in own.items() if len(values) == 1})
    return found


def _of_another_kind(name: str, form: str, rows: Rows, settings: Mapping[str, Any]) -> list[Log]:
    """A log without a series of ours, of which the columns tell all the same what was trained."""
    keys = list(dict.fromkeys(str(key) for record in rows.untold for key in record))
    if not keys:
        return []
    kind, signs = kind_of(keys, None, settings)
    if kind == "preference":  # words such as `chosen` in columns that hold no series
        return []
    table = pd.DataFrame({"split": pd.Series(dtype=str), "step": pd.Series(dtype=float)})
    return [Log(shown(name), form, table, kind=kind, signs=tuple(map(shown, signs)))]


def _one_evaluation_set(rows: Rows) -> list[str]:
    """With several evaluation sets, the first is the evaluation; the others keep their name and are not judged."""
    splits = rows.splits()
    named = [split for split in splits if split.startswith("eval:")]
    if not named or "eval" in splits:
        return []
    rows.rename_split(named[0], "eval")
    if len(named) == 1:
        return []
    others = ", ".join(shown(split.removeprefix("eval:")) for split in named[1:])
    return [f"several evaluation sets: judged on {shown(named[0].removeprefix('eval:'))}, not on {others}"]


def _log(
    name: str, form: str, rows: Rows, run: Run, settings: Mapping[str, Any], notes: Iterable[str]
) -> Log:
    steps, counts = steps_of(rows, run.rows)
    notes = list(notes)
    if counts != "step" and len(run.rows) > 1:
        notes.append(f"the log states no step numbers: its steps are counted in {counts}s")
    place = np.full(len(rows), -1)
    place[run.rows] = np.arange(len(run.rows))
    tables, nonfinite, repeated = [], [], run.replaced
    for split in rows.splits():
        table, bad, twice = _split_table(rows, split, place, steps, run)
        if table is not None:
            tables.append(table)
            nonfinite += bad
            repeated += twice
    if repeated:
        notes.append(f"{counted(repeated, counts)} logged more than once: the later values count")
    wide = tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)
    del tables
    if not wide["step"].is_monotonic_increasing:
        wide = wide.sort_values("step", kind="stable", ignore_index=True)
    bad_rows = pd.DataFrame(nonfinite, columns=NONFINITE).drop_duplicates()
    losses = wide.loc[wide["split"] == "train", "loss"].dropna() if "loss" in wide else pd.Series(dtype=float)
    kind, signs = kind_of(rows.keys(run.rows), float(losses.iloc[0]) if len(losses) else None, settings)
    return Log(
        shown(name), form, _whole(wide), _whole(bad_rows.sort_values("step", ignore_index=True)), dict(settings),
        notes, counts, kind, tuple(map(shown, signs)),
    )  # fmt: skip


def _split_table(
    rows: Rows, split: str, place: NDArray[np.int64], steps: NDArray[np.float64], run: Run
) -> tuple[pd.DataFrame | None, list[tuple[str, float, str]], int]:
    """The table of one split, what in it is not finite, and how many steps were logged twice."""
    held: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
    for (of, series), logged in rows.columns.items():
        if of == split and logged.rows:
            where = place[np.frombuffer(logged.rows, dtype=np.int32)]
            held[series] = (where[where >= 0], np.frombuffer(logged.values)[where >= 0])
    here = (
        np.unique(np.concatenate([where for where, _ in held.values()])) if held else np.empty(0, dtype=int)
    )
    if not here.size:
        return None, [], 0
    columns: dict[str, Any] = {"split": split, "step": steps[here]}
    nonfinite: list[tuple[str, float, str]] = []
    twice = 0
    for series, (where, values) in held.items():
        if not where.size:
            continue
        bad = ~np.isfinite(values)
        nonfinite += [(split, float(steps[row]), series) for row in where[bad]]
        column = np.full(len(here), np.nan)
        column[np.searchsorted(here, where)] = np.where(bad, np.nan, values)
        columns[series] = column
        twice = max(twice, len(where) - len(np.unique(steps[where])))
    nonfinite += [
        (split, float(steps[place[row]]), shown(key))
        for row, of, key in rows.strange
        if of == split and place[row] >= 0
    ]
    epochs = np.frombuffer(rows.place["epoch"])[run.rows][here]
    if np.isfinite(epochs).any():
        columns["epoch"] = epochs
    table = pd.DataFrame(columns)
    if table["step"].duplicated().any():
        table = table.groupby("step", sort=False, as_index=False).last()[list(columns)]
    return table, nonfinite, twice


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """Steps as whole numbers where all of them are."""
    steps = table["step"]
    if len(steps) and (steps == steps.round()).all() and steps.abs().max() < 2**53:
        table["step"] = steps.astype("int64")
    return table

"""One log of one training run, and how the records of a file become one.

A `Log` holds what a trainer wrote about a run: a table with one row per split and step. Records come from the
readers of this package as flat dictionaries; here their keys are understood, their steps are found, the rows that
a resumed run wrote twice are settled, and several runs in one file are told apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from rewardshape.logs.kinds import Kind, is_sign, kind_of
from rewardshape.logs.names import TELLING, meaning, number

Record = dict[str, Any]
Counts = Literal["step", "epoch", "example", "row"]
RESTART_ROWS = 3  # a step that falls back to the first one begins a new run only after this many rows
_STEP_OF_TOTAL = re.compile(r"global_step\S*=(\d+)/\d+$")  # ms-swift: {"global_step/max_steps": "10/100"}
SUMMARY_KEYS = {"train_runtime", "train_samples_per_second"}  # what a transformers Trainer prints at its end


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
        columns are series: loss, reward_chosen, reward_rejected, margin, accuracy, logp_chosen, logp_rejected (nats;
        sums or per-token means, as the trainer wrote them), grad_norm, learning_rate, epoch, …; empty where not logged.
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
    """

    name: str
    form: str
    table: pd.DataFrame
    nonfinite: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["split", "step", "series"]))
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    counts: Counts = "step"
    kind: Kind = "preference"
    signs: tuple[str, ...] = ()

    @property
    def rows_are(self) -> str:
        """What the numbers in the column `step` count, in the plural: steps, epochs, examples or rows."""
        return f"{self.counts}s"

    def split(self, name: str) -> pd.DataFrame:
        """The rows of one split, indexed by step."""
        return self.table[self.table["split"] == name].set_index("step").drop(columns="split")


@dataclass
class _Row:
    """One record, understood: where it stands in the run, and its values by split and series."""

    values: dict[tuple[str, str], float]
    step: float | None = None
    examples: float | None = None
    epoch: float | None = None
    keys: tuple[str, ...] = ()  # of every number, as the log spells them

    @property
    def trains(self) -> bool:
        return any(split == "train" for split, _ in self.values)


def assemble(
    name: str,
    form: str,
    records: Iterable[Mapping[str, Any]],
    *,
    default_split: str = "train",
    settings: Mapping[str, Any] | None = None,
    notes: Iterable[str] = (),
    one_run: bool = False,
    decimal_comma: bool = False,
) -> list[Log]:
    """The logs in a list of flat records; empty where no record holds a series that tells about training.

    Parameters
    ----------
    default_split : ``train`` or ``eval``
        The split of a key that names none.
    one_run : bool
        True where the form itself says that all records belong to one run, so that a step which comes again is a
        resumed run and never a second one.
    """
    rows = [_understand(record, default_split, decimal_comma) for record in records]
    telling = [row for row in rows if any(series in TELLING for _, series in row.values)]
    rows = telling or [row for row in rows if any(map(is_sign, row.keys))]
    if not rows:
        return []
    notes = list(notes)
    _one_evaluation_set(rows, notes)
    counts = _find_steps(rows)
    if counts != "step":
        notes.append(f"the log states no step numbers: its steps are counted in {counts}s")
    runs = [rows] if one_run else _runs(rows)
    names = [name] if len(runs) == 1 else [f"{name} · run {index}" for index in range(1, len(runs) + 1)]
    return [
        _log(run_name, form, run, dict(settings or {}), list(notes), counts)
        for run_name, run in zip(names, runs, strict=True)
    ]


def _understand(record: Mapping[str, Any], default_split: str, decimal_comma: bool) -> _Row:
    row = _Row(values={})
    summary = SUMMARY_KEYS & set(record)
    strange, keys = [], []
    for key, raw in record.items():
        value = number(raw, decimal_comma=decimal_comma)
        if value is None:
            if of_total := _STEP_OF_TOTAL.match(f"{key}={raw}"):
                row.step = float(of_total.group(1))
            continue
        keys.append(str(key))
        split, series = meaning(key)
        if series == "step":
            # `train/global_step` and the like count optimiser steps; wandb's own `_step` counts log calls
            if row.step is None or "global" in str(key).lower():
                row.step = value
        elif series in ("examples", "epoch"):
            setattr(row, series, value)
        elif series is not None and not (summary and split != "eval"):
            row.values.setdefault((split or default_split, series), value)
        elif series is None and not math.isfinite(value):
            strange.append((str(key), value))
    if row.values:  # so that a NaN anywhere is reported
        row.values |= {(next(iter(row.values))[0], key): value for key, value in strange}
    row.keys = tuple(keys)
    return row


def _one_evaluation_set(rows: list[_Row], notes: list[str]) -> None:
    """With several evaluation sets, the first is the evaluation; the others keep their name and are not judged."""
    splits = list(dict.fromkeys(split for row in rows for split, _ in row.values))
    named = [split for split in splits if split.startswith("eval:")]
    if not named or "eval" in splits:
        return
    for row in rows:
        row.values = {("eval" if s == named[0] else s, series): v for (s, series), v in row.values.items()}
    if len(named) > 1:
        others = ", ".join(split.removeprefix("eval:") for split in named[1:])
        notes.append(f"several evaluation sets: judged on {named[0].removeprefix('eval:')}, not on {others}")


def _find_steps(rows: list[_Row]) -> Counts:
    """Give every row a step: its own, or one from its examples or epoch, or else its place; say what is counted."""
    for counter in ("examples", "epoch"):
        both = [(row.step, getattr(row, counter)) for row in rows if row.step and getattr(row, counter)]
        per_count = float(np.median([step / count for step, count in both])) if both else None
        for row in rows:
            count = getattr(row, counter)
            if row.step is None and count is not None and per_count is not None:
                row.step = float(round(count * per_count))
    if all(row.step is None and row.examples is not None for row in rows):
        for row in rows:
            row.step = row.examples
        return "example"
    if all(row.step is not None for row in rows):
        return "step"
    place = 0 if not any(row.trains for row in rows) else None
    trained = 0
    for row in rows:
        trained += row.trains
        row.step = float(trained if place is None else place)
        place = None if place is None else place + 1
    return "row"


def _runs(rows: list[_Row]) -> list[list[_Row]]:
    """Cut where the step falls back to where the run began: what follows is another run, not a resumed one."""
    runs: list[list[_Row]] = [[]]
    for row in rows:
        run = runs[-1]
        if len(run) >= RESTART_ROWS and row.step is not None and run[0].step is not None:
            falls_back = run[-1].step is not None and row.step < run[-1].step
            if falls_back and row.step <= run[0].step:
                runs.append([])
        runs[-1].append(row)
    return runs


def _log(
    name: str, form: str, rows: list[_Row], settings: dict[str, Any], notes: list[str], counts: Counts
) -> Log:
    table: dict[tuple[str, float], dict[str, float]] = {}
    repeated: set[tuple[str, float]] = set()
    last: float = -math.inf
    keys = dict.fromkeys(key for row in rows for key in row.keys)
    losses = [row.values["train", "loss"] for row in rows if ("train", "loss") in row.values]
    kind, signs = kind_of(keys, losses[0] if losses else None, settings)
    for row in rows:
        step = float(row.step if row.step is not None else math.nan)
        for split in dict.fromkeys(split for split, _ in row.values) or ["train"]:
            new = {series: value for (s, series), value in row.values.items() if s == split}
            old = table.setdefault((split, step), {})
            if set(old) & set(new):
                repeated.add((split, step))
                if step < last:
                    old.clear()  # a resumed run writes the whole row again
            old.update(new)
            if row.epoch is not None:
                old["epoch"] = row.epoch
        last = max(last, step)
    if repeated:
        notes.append(f"{len(repeated)} steps were logged more than once: the later values count")
    entries = [(split, step, series, v) for (split, step), row in table.items() for series, v in row.items()]
    nonfinite = [(split, step, series) for split, step, series, v in entries if not math.isfinite(v)]
    wide = pd.DataFrame(
        [{"split": split, "step": _whole(step), **values} for (split, step), values in table.items()]
    ).replace([math.inf, -math.inf], math.nan)
    wide = wide.sort_values("step", kind="stable").dropna(axis="columns", how="all").reset_index(drop=True)
    bad = pd.DataFrame(
        [(s, _whole(t), name) for s, t, name in nonfinite], columns=["split", "step", "series"]
    )
    return Log(
        name, form, wide, bad.sort_values("step", ignore_index=True), settings, notes, counts, kind, signs
    )


def _whole(step: float) -> int | float:
    return int(step) if step == int(step) else step

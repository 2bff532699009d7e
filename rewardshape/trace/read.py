"""Reading a run folder, or a sweep folder of run folders, into tidy tables.

A trace may be read while it is being written: reading ends at the last whole line. What else is not whole is an error,
or is read past and said in `Trace.damage`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rewardshape.errors import InputError
from rewardshape.trace.folder import RunFolder
from rewardshape.trace.records import (
    STEP_TABLES,
    Damaged,
    Record,
    Table,
    lines_of,
    parsed,
    read_records,
    refuse,
    rows_of,
)
from rewardshape.trace.run import Run, as_html, runs_of

TABLES = ("steps", "responses", *STEP_TABLES, "tokens")
RESPONSE_COLUMNS = ["run", "step", "split", "pair_id", "response", "logp_sum", "ref_logp_sum", "num_tokens"]


@dataclass(frozen=True, eq=False)  # a record is itself: tables made of it may be kept with it
class Trace:
    """The record of one run, or of several under one index.

    Attributes
    ----------
    steps : DataFrame
        One row per run and step: run, step, loss, margin, accuracy, learning_rate, grad_norm, seconds, tokens, …
    responses : DataFrame
        One row per run, step, split (``train`` or ``probe``), pair and response: logp_sum and ref_logp_sum in
        nats, num_tokens, and where measured greedy_logp_sum and entropy_sum (nats, summed over the response).
        ``train`` rows of step t were measured before update t, ``probe`` rows after it; step 0 is the checkpoint.
    geometry, samples, tokens : DataFrame
        Gram entries and CHES per probe pair; sampled responses with gold reward; per-token log-probs of probe
        responses where recorded (step, pair_id, response, position, logp). Empty where not asked for.
    kernel : DataFrame
        With the geometry, at step 0 and at the last: ``product``, ⟨∇s, ∇s′⟩ of every two responses of the first probe
        pairs (pair_id, response, other_pair_id, other_response), each two once.
    destination, destination_tokens : DataFrame
        Where the probability of the probe responses went since step 0, by group of tokens (moved, own, own_gained,
        to_end, to_other, to_greedy, to_near, to_rest: tokens of probability mass), and the tokens that gained and lost
        most.
    influence : DataFrame
        What a step on each training pair alone would do to the probe set's chosen log-probs (nats per token and unit of
        learning rate). Empty where not asked for.
    influence_pairs : DataFrame
        The same of each probe pair (probe_pair_id) alone: the training pairs that push it down most, among those whose
        visits lie nearest to the measurement.
    runs : list of Run
        The runs, in the order of their folders' names; each with its name, setting, manifest and folder.
    folder : Path
        Where the trace was read.
    damage : tuple of str
        What was read past, a line each with file and line; empty of a whole record.
    """

    steps: pd.DataFrame
    responses: pd.DataFrame
    geometry: pd.DataFrame
    kernel: pd.DataFrame
    samples: pd.DataFrame
    destination: pd.DataFrame
    destination_tokens: pd.DataFrame
    influence: pd.DataFrame
    influence_pairs: pd.DataFrame
    tokens: pd.DataFrame
    runs: list[Run]
    folder: Path
    damage: tuple[str, ...] = ()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The manifest; of several runs, one manifest per run name."""
        if len(self.runs) == 1:
            return self.runs[0].manifest
        return {run.name: run.manifest for run in self.runs}

    def begun(self) -> Trace:
        """With the runs alone whose probe set was measured at step 0, where some are and some are not."""
        first = self.responses[(self.responses["split"] == "probe") & (self.responses["step"] == 0)]
        measured = set(first["run"])
        runs = [run for run in self.runs if run.name in measured]
        return replace(self, runs=runs) if 0 < len(runs) < len(self.runs) else self

    def _repr_html_(self) -> str:
        steps = int(self.steps["step"].max()) if len(self.steps) else 0
        damage = "".join(f"<p><strong>damaged: {html.escape(line)}</strong></p>" for line in self.damage)
        return f"{damage}{as_html(self.runs)}<p>{steps} steps, {len(self.responses)} measured responses</p>"

    def run(self, name: str) -> Trace:
        """The trace of one run of several, by its name.

        Raises
        ------
        InputError
            If there is no run of this name.
        """
        found = [run for run in self.runs if run.name == name]
        if not found:
            names = ", ".join(run.name for run in self.runs)
            raise InputError(f"no run {name!r} in {self.folder}: it holds {names}")
        tables = {table: _of_run(getattr(self, table), name) for table in TABLES}
        file = RunFolder(found[0].folder).trace
        damage = tuple(line for line in self.damage if line.startswith(f"{file}:"))
        return Trace(**tables, runs=found, folder=found[0].folder, damage=damage)


def _of_run(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["run"] == name].reset_index(drop=True) if len(table) else table


def read_trace(folder: str | Path, *, repair: bool = False) -> Trace:
    """Read a run folder (or a sweep folder: every run below it) as tidy DataFrames.

    Parameters
    ----------
    folder : path
    repair : bool
        Read past damage, which `Trace.damage` then names, instead of raising an error. The files stay as they are.

    Raises
    ------
    InputError
        If the folder holds no trace, one in a format this version does not know, or one that is not whole: with file
        and line. A torn last line is normal.
    """
    folder = Path(folder)
    own = RunFolder(folder).trace
    if own.is_file():  # as it is called where it lies, also as "."
        inside, names = [folder], [folder.resolve().name]
    else:  # as the sweep calls them, also links into other sweeps
        inside = _in_order(path.parent for path in folder.glob(f"*/{own.name}"))
        names = [path.name for path in inside]
    if not inside:
        raise InputError(
            f"{folder}: no {own.name} in it or in the folders below; give a run or a sweep folder"
        )
    runs = runs_of(inside, names, [RunFolder(path).read_manifest() for path in inside])
    damage: list[str] = []
    read = [_read_tables(run, damage.append if repair else refuse) for run in runs]
    tables = {name: _concat([tables[name] for tables in read]) for name in TABLES}
    return Trace(**tables, runs=runs, folder=folder, damage=tuple(damage))


def _in_order(runs: Iterable[Path]) -> list[Path]:
    """The runs of a sweep as its command asked for them, then others by name: α = −1 stands before −0.5."""
    found = sorted(runs)
    planned = RunFolder(found[0].parent).planned_runs() if found else []
    place = {name: number for number, name in enumerate(planned)}
    return sorted(found, key=lambda path: place.get(path.name, len(place)))


def read_probe_set(folder: str | Path) -> list[dict[str, Any]]:
    """The texts of the probe pairs: one dict per pair with pair_id, prompt, responses, tokens.

    Raises
    ------
    InputError
        With file and line, where one of them is none.
    """
    file = RunFolder(Path(folder)).probe_set
    found = []
    for number, line in lines_of(file) if file.is_file() else ():
        content = parsed(line)
        if content is None or not {"pair_id", "responses"} <= content.keys():
            raise InputError(f"{file}:{number}: not a probe pair; the file was damaged: put back a copy")
        found.append(content)
    return found


def read_prompts(folder: str | Path) -> dict[str, str]:
    """The texts of the prompts that were answered, by ``pair_id``: the probe set's, and those drawn beside it."""
    files = RunFolder(Path(folder))
    texts = {str(pair["pair_id"]): str(pair.get("prompt", "")) for pair in read_probe_set(folder)}
    drawn = (row for row in rows_of(files.prompts) if "prompt_id" in row)
    return texts | {str(row["prompt_id"]): str(row.get("prompt", "")) for row in drawn}


def _read_tables(run: Run, damaged: Damaged) -> dict[str, pd.DataFrame]:
    files = RunFolder(run.folder)
    probe_set, records = read_records(files.trace, damaged)
    steps: list[dict[str, Any]] = []
    responses, tokens = Stack(), Stack()
    stacks = {name: Stack() for name in STEP_TABLES}
    for record in records:
        steps.append({"step": record.step} | dict(record.metrics) | {"step": record.step})
        for split in ("train", "probe"):
            if part := record.tables.get(split):
                whole = {**probe_set, **part} if split == "probe" else part
                responses.add(whole, step=record.step, split=split)
        for name in STEP_TABLES:
            if part := record.tables.get(name):
                part = _with_prompts(part, probe_set) if name == "samples" else part
                stacks[name].add(part, step=record.step)
        if record.tokens:
            _add_tokens(tokens, record, probe_set)
    _check_ends(run, [row["step"] for row in steps], damaged)
    step_rows = pd.DataFrame(steps, columns=None if steps else ["step"])
    if len(step_rows):
        step_rows["seconds"] = step_rows["step"].map(_seconds(files.timing))
    measured = responses.frame()
    tables = {
        "steps": step_rows,
        "responses": measured.reindex(
            columns=[*RESPONSE_COLUMNS[1:], *(c for c in measured.columns if c not in RESPONSE_COLUMNS)]
        ),
        **{name: stack.frame() for name, stack in stacks.items()},
        "tokens": tokens.frame(),
    }
    for table in tables.values():
        table.insert(0, "run", run.name)
    return tables


def _check_ends(run: Run, steps: Sequence[int], damaged: Damaged) -> None:
    """A run of the probe begins at step 0 and, once done, has all its steps; other loops may do as they like."""
    if "command" not in run.manifest or not steps:
        return
    file, due = RunFolder(run.folder).trace, run.manifest.get("run", {}).get("steps")
    if steps[0]:
        damaged(f"{file}: begins at step {steps[0]}, and step 0 is lost")
    if run.status == "done" and type(due) is int and steps[-1] < due:
        damaged(f"{file}: ends at step {steps[-1]} of {due}, and the run is done")


def _with_prompts(samples: Table, probe_set: Table) -> Table:
    """Samples that say which pair's prompt was answered and which prompt that is; older records name the pair alone."""
    if "pair_id" in samples:
        return samples
    prompts = dict(zip(probe_set["pair_id"], probe_set.get("prompt_id", probe_set["pair_id"]), strict=True))
    pairs = samples["prompt_id"]
    return {**samples, "prompt_id": [prompts.get(pair, pair) for pair in pairs], "pair_id": pairs}


def _seconds(timing: Path) -> dict[int, float]:
    """Seconds per step; of a line that holds none, nothing is said: they are no part of the record."""
    return {
        row["step"]: row["seconds"]
        for row in rows_of(timing)
        if type(row.get("step")) is int and isinstance(row.get("seconds"), int | float)
    }


class Stack:
    """Tables one below the other, each with constants of its own; a column that one lacks is null there.

    Columns are joined before pandas sees them: a DataFrame per step would take a hundred times as long.
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._constants: dict[str, list[Any]] = {}
        self._columns: dict[str, dict[int, Any]] = {}  # by the number of the table

    def add(self, table: Table, **constants: Any) -> None:
        """One more table; every one has the same constants."""
        for name, value in constants.items():
            self._constants.setdefault(name, []).append(value)
        for name, values in table.items():
            self._columns.setdefault(name, {})[len(self._sizes)] = values
        self._sizes.append(len(next(iter(table.values()), ())))

    def frame(self) -> pd.DataFrame:
        """All of them as one."""
        sizes = np.array(self._sizes, dtype=int)
        columns = {
            name: np.repeat(np.array(values, dtype=object if isinstance(values[0], str) else None), sizes)
            for name, values in self._constants.items()
        }
        return pd.DataFrame(columns | {name: self._joined(name) for name in self._columns})

    def _joined(self, name: str) -> Any:
        parts = self._columns[name]
        if any(isinstance(part, list) for part in parts.values()):
            gaps = ([None] * size for size in self._sizes)
            return [value for number, gap in enumerate(gaps) for value in parts.get(number, gap)]
        return np.concatenate(
            [parts[n] if n in parts else np.full(size, np.nan) for n, size in enumerate(self._sizes)]
        )


def _add_tokens(stack: Stack, record: Record, probe_set: Table) -> None:
    assert record.tokens is not None
    lengths = [len(row) for row in record.tokens]
    repeated = {
        name: [text for text, length in zip(probe_set[name], lengths, strict=True) for _ in range(length)]
        for name in ("pair_id", "response")
    }
    position = np.array([place for length in lengths for place in range(length)], dtype=int)
    logp = np.array([logp for row in record.tokens for logp in row], dtype=float)
    stack.add({**repeated, "position": position, "logp": logp}, step=record.step)


def _concat(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

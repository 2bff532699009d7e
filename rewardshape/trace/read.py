"""Reading a run folder, or a sweep folder of run folders, into tidy tables.

A trace may be read while it is being written: reading ends at the last whole line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rewardshape.errors import InputError
from rewardshape.trace.folder import RunFolder
from rewardshape.trace.format import FORMAT, read_lines
from rewardshape.trace.run import Run, as_html, runs_of

STEP_TABLES = (
    "geometry",
    "samples",
    "destination",
    "destination_tokens",
    "influence",
)  # one part of a step's record each
TABLES = ("steps", "responses", *STEP_TABLES, "tokens")
TEXT_COLUMNS = {"pair_id", "response", "split", "prompt_id", "text", "token", "finish"}
RESPONSE_COLUMNS = ["run", "step", "split", "pair_id", "response", "logp_sum", "ref_logp_sum", "num_tokens"]


@dataclass(frozen=True)
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
    destination, destination_tokens : DataFrame
        Where the probability of the probe responses went since step 0, by group of tokens (moved, own, own_gained,
        to_end, to_other, to_greedy, to_near, to_rest: tokens of probability mass), and the tokens that gained and lost
        most.
    influence : DataFrame
        What a step on each training pair alone would do to the probe set's chosen log-probs (nats per token and unit of
        learning rate). Empty where not asked for.
    runs : list of Run
        The runs, in the order of their folders' names; each with its name, setting, manifest and folder.
    folder : Path
        Where the trace was read.
    """

    steps: pd.DataFrame
    responses: pd.DataFrame
    geometry: pd.DataFrame
    samples: pd.DataFrame
    destination: pd.DataFrame
    destination_tokens: pd.DataFrame
    influence: pd.DataFrame
    tokens: pd.DataFrame
    runs: list[Run]
    folder: Path

    @property
    def settings(self) -> Mapping[str, Any]:
        """The manifest; of several runs, one manifest per run name."""
        if len(self.runs) == 1:
            return self.runs[0].manifest
        return {run.name: run.manifest for run in self.runs}

    def _repr_html_(self) -> str:
        steps = int(self.steps["step"].max()) if len(self.steps) else 0
        return f"{as_html(self.runs)}<p>{steps} steps, {len(self.responses)} measured responses</p>"

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
        return Trace(**tables, runs=found, folder=found[0].folder)


def _of_run(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["run"] == name].reset_index(drop=True) if len(table) else table


def read_trace(folder: str | Path) -> Trace:
    """Read a run folder (or a sweep folder: every run below it) as tidy DataFrames.

    Raises
    ------
    InputError
        If the folder holds no trace, or one in a format this version does not know.
    """
    folder = Path(folder)
    own = RunFolder(folder).trace
    inside = [folder] if own.is_file() else sorted(path.parent for path in folder.glob(f"*/{own.name}"))
    if not inside:
        raise InputError(
            f"{folder}: no {own.name} in it or in the folders below; give a run or a sweep folder"
        )
    runs = runs_of(inside, [RunFolder(path).read_manifest() for path in inside])
    read = [_read_tables(run) for run in runs]
    tables = {name: _concat([tables[name] for tables in read]) for name in TABLES}
    return Trace(**tables, runs=runs, folder=folder)


def read_probe_set(folder: str | Path) -> list[dict[str, Any]]:
    """The texts of the probe pairs: one dict per pair with pair_id, prompt, responses, tokens."""
    path = RunFolder(Path(folder)).probe_set
    return [record for _, record in read_lines(path)] if path.is_file() else []


def _read_tables(run: Run) -> dict[str, pd.DataFrame]:
    files = RunFolder(run.folder)
    records = [record for _, record in read_lines(files.trace)]
    if not records or records[0].get("format") != FORMAT:
        found = records[0].get("format") if records else "nothing"
        raise InputError(f"{files.trace}:1: found format {found}, this version reads format {FORMAT}")
    probe_set, steps = records[0]["probe_set"], records[1:]
    step_rows = pd.DataFrame([{"step": record["step"], **record.get("metrics", {})} for record in steps])
    timed = read_lines(files.timing) if files.timing.is_file() else []
    seconds = {record["step"]: record["seconds"] for _, record in timed}
    if len(step_rows):
        step_rows["seconds"] = step_rows["step"].map(seconds)

    responses = _stack(
        (part, {"step": record["step"], "split": split})
        for record in steps
        for split, part in (("train", record.get("train")), ("probe", _with(probe_set, record.get("probe"))))
        if part
    )
    tables = {
        "steps": step_rows,
        "responses": responses.reindex(
            columns=[*RESPONSE_COLUMNS[1:], *(c for c in responses.columns if c not in RESPONSE_COLUMNS)]
        ),
        **{
            name: _stack((r[name], {"step": r["step"]}) for r in steps if r.get(name)) for name in STEP_TABLES
        },
        "tokens": _concat([_token_table(r, probe_set) for r in steps if r.get("tokens")]),
    }
    for table in tables.values():
        table.insert(0, "run", run.name)
    return tables


def _with(probe_set: Mapping[str, Any], measured: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {**probe_set, **measured} if measured else None


def _stack(parts: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> pd.DataFrame:
    """Tables of columns, each with constants of its own, one below the other; a column that one lacks is NaN there.

    Lists are joined before pandas sees them: a DataFrame per step would take a hundred times as long.
    """
    columns: dict[str, list[Any]] = {}
    rows = 0
    for part, constants in parts:
        size = len(next(iter(part.values())))
        for name in {**constants, **part}:
            values = part[name] if name in part else [constants[name]] * size
            columns.setdefault(name, [None] * rows).extend(values)
        rows += size
        for values in columns.values():
            values.extend([None] * (rows - len(values)))
    table = pd.DataFrame(columns)
    for name in table.columns:
        if (
            table[name].dtype == object and name not in TEXT_COLUMNS
        ):  # null stands for "not measured", NaN in pandas
            table[name] = table[name].astype(float)
    return table


def _token_table(record: Mapping[str, Any], probe_set: Mapping[str, Any]) -> pd.DataFrame:
    rows = [
        (record["step"], pair_id, response, position, logp)
        for pair_id, response, logps in zip(
            probe_set["pair_id"], probe_set["response"], record["tokens"], strict=True
        )
        for position, logp in enumerate(logps)
    ]
    return pd.DataFrame(rows, columns=["step", "pair_id", "response", "position", "logp"])


def _concat(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

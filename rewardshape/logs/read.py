"""Logs of other trainers, recognised by their content and read into one form.

`read_logs(path)` understands the forms of `rewardshape.logs.forms.FORMS`.

What is wrong in a log but can be understood is repaired and noted: NaN, steps that a resumed run wrote twice, torn
ends, unreadable lines between. Everything else is an `InputError` that says what was seen and what is understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rewardshape.errors import InputError, printable
from rewardshape.logs.events import EVENT_FILES, event_groups, event_records
from rewardshape.logs.forms import FORMS, Request, read_binary, read_text
from rewardshape.logs.kinds import PHRASES
from rewardshape.logs.log import Log, assemble
from rewardshape.logs.names import SERIES
from rewardshape.logs.rows import Rows
from rewardshape.logs.source import Source

__all__ = ["Log", "read_logs"]


UNDERSTOOD = (
    "a run folder of rewardshape, "
    + ", ".join(dict.fromkeys(form.name for form in FORMS))
    + " (columns of your own: --columns)"
)
COLUMN_NAMES = {"chosen": "logp_chosen", "rejected": "logp_rejected"}  # short names for --columns
PLACES = ("step", "epoch", "examples", "run")
# What is looked for in a folder, in this order; of several files of one pattern the one that goes furthest is read
IN_A_FOLDER = (
    ("trainer_state.json", "checkpoint-*/trainer_state.json"),
    ("trainer_log.jsonl",),
    (f"**/{EVENT_FILES}",),
    ("files/output.log", "*/files/output.log", "wandb/*/files/output.log"),
)
_STEP = re.compile(r'"(?:global_step|step|current_steps)": ?(\d{1,15})\b')


def read_logs(path: str | Path, columns: Mapping[str, str] | None = None) -> list[Log]:
    """Every preference run in a log, in the order in which the file has them.

    Parameters
    ----------
    path : path
        A file, or the output folder of a Trainer.
    columns : mapping, optional
        For a plain CSV or JSONL: what is in which column, as ``{"step": "iteration", "chosen": "lp_good"}``. What:
        step, epoch, run, loss, margin, accuracy, grad_norm, chosen and rejected (log-probabilities in nats),
        reward_chosen and reward_rejected, each with ``eval_`` before it where it was measured on a fixed set.

    Raises
    ------
    InputError
        If the file is not there, is empty, holds nothing that is understood, or is a log of other training than on
        preferences.
    """
    path = Path(path)
    try:
        logs = _of_folder(path) if path.is_dir() else _of_file(path, columns or {})
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply to be read") from error
    return _preference_logs(_named_apart(logs), path)


def _of_file(path: Path, columns: Mapping[str, str], name: str | None = None) -> list[Log]:
    if not path.is_file():
        there = path.exists()
        raise InputError(f"{path}: {'a pipe or a device; save it as a file' if there else 'no such file'}")
    source = Source(path, name or path.name)
    request = Request(source, _canonical(columns, path))
    if not source.head.strip():
        raise InputError(f"{path}: the file is empty; give one of {UNDERSTOOD}")
    logs = read_binary(request) or ([] if source.is_binary else read_text(request))
    if not logs:
        raise InputError(f"{path}: {source.seen()}; understood are {UNDERSTOOD}")
    return logs


def _of_folder(folder: Path) -> list[Log]:
    for patterns in IN_A_FOLDER:
        found = sorted({file for pattern in patterns for file in folder.glob(pattern)})
        if not found:
            continue
        if EVENT_FILES in patterns[0]:
            return _of_event_files(folder)
        steps = {file: _last_step(file) for file in found}
        furthest = max(steps.values())
        file = max(found, key=lambda file: (steps[file], file.stat().st_mtime if furthest < 0 else 0.0))
        logs = _of_file(file, {}, str(file.relative_to(folder)))
        if len(found) > 1:
            which = "the one that goes furthest" if furthest >= 0 else "which state no steps, the newest"
            for log in logs:
                log.notes.append(f"of {len(found)} logs in the folder {which} was read: {log.name}")
        return logs
    looked = ", ".join(pattern for patterns in IN_A_FOLDER for pattern in patterns)
    raise InputError(f"{folder}: no log in this folder; looked for trace.jsonl, {looked}")


def _last_step(file: Path) -> int:
    """The last step that a file of JSON states."""
    return max((int(step) for step in _STEP.findall(file.read_text("utf-8", "replace"))), default=-1)


def _of_event_files(folder: Path) -> list[Log]:
    """One log for each folder with event files: a resumed run opens another file in its folder."""
    logs = []
    groups = event_groups(folder)
    for files in groups:
        records, torn = event_records(files)
        notes = [f"{printable(name)}: the file ends in the middle of a record" for name in torn]
        if len(files) > 1:
            notes.append(
                f"{len(files)} event files were read as one log, in the order in which they were begun"
            )
        name = (
            str(files[0].relative_to(folder))
            if len(files) == 1
            else str(files[0].parent.relative_to(folder.parent))
        )
        logs += assemble(name, "TensorBoard event file", Rows.of(records), notes=notes)
    if not logs:
        raise InputError(f"{folder}: no loss, reward or log-probability in its TensorBoard event files")
    return logs


def _named_apart(logs: Sequence[Log]) -> list[Log]:
    """The logs with names that differ."""
    names: dict[str, int] = {}
    apart = []
    for log in logs:
        names[log.name] = names.get(log.name, 0) + 1
        apart.append(log if names[log.name] == 1 else replace(log, name=f"{log.name} ({names[log.name]})"))
    return apart


def _preference_logs(logs: Sequence[Log], path: Path) -> list[Log]:
    """The logs of preference training; those of other kinds are refused, or left out where they stand beside one."""
    kept = [log for log in logs if log.kind == "preference"]
    others = [f"{PHRASES[log.kind]} ({', '.join(log.signs)})" for log in logs if log.kind != "preference"]
    if not kept:
        raise InputError(
            f"{path}: this is no preference log: it looks like {others[0]}; a verdict needs rewards/chosen, "
            "logps/chosen or rewards/margins"
        )
    for log in kept:
        log.notes.extend(
            f"the file also holds a log that was left out: {other}" for other in dict.fromkeys(others)
        )
    return kept


def _canonical(columns: Mapping[str, str], path: Path) -> dict[str, str]:
    """Column of the file → key that `names.meaning` understands."""
    keys = {}
    for what, column in columns.items():
        split = "eval" if what.startswith("eval_") else "train"
        short = what.removeprefix("eval_").removeprefix("train_")
        series = COLUMN_NAMES.get(short, short)
        if series in PLACES:
            keys[column] = series
        elif series in SERIES:
            keys[column] = f"{split}_{SERIES[series]}"
        else:
            known = ", ".join([*PLACES, *COLUMN_NAMES, *SERIES])
            raise InputError(f"--columns {what}={column}: {what!r} is not one of {known}, eval_… of them")
    return keys

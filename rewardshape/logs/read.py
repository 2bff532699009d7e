"""Logs of other trainers, recognised by their content and read into one form.

`read_logs(path)` understands

* ``trainer_state.json`` of the Hugging Face Trainer (TRL's DPO, CPO, SimPO, ORPO, KTO; LLaMA-Factory; axolotl; …)
* the tables of a model card or README, several tables in a file and several runs in a table
* the standard output of TRL, with progress bars between its dict lines, and of the reference DPO code
* LLaMA-Factory's ``trainer_log.jsonl``, the JSON lines of the learning-dynamics code, other JSON lines
* wandb exports: the CSV of a panel or of a history, a history as JSON lines
* TensorBoard event files
* lines of ``name number`` pairs, and any CSV or JSON lines whose columns the caller names

What is wrong in a log but can be understood is repaired and noted: NaN, steps that a resumed run wrote twice, torn
ends, unreadable lines between. Everything else is an `InputError` that says what was seen and what is understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewardshape.errors import InputError
from rewardshape.logs.events import event_records, is_event_file
from rewardshape.logs.kinds import PHRASES
from rewardshape.logs.log import Log, Record, assemble
from rewardshape.logs.names import SERIES
from rewardshape.logs.tables import csv_records, csv_table, markdown_tables, spaced_tables
from rewardshape.logs.text import dict_records, prose_records, stated_settings, tells

__all__ = ["OWN_FORM", "Log", "read_logs"]

OWN_FORM = "rewardshape run"  # the form of a log that was made of a trace of ours
UNDERSTOOD = (
    "a run folder of rewardshape, trainer_state.json, a model card's table, TRL or reference-DPO stdout, "
    "trainer_log.jsonl, a wandb CSV or JSONL export, a TensorBoard event file, CSV or JSONL with --columns"
)
COLUMN_NAMES = {"chosen": "logp_chosen", "rejected": "logp_rejected"}  # short names for --columns
PLACES = ("step", "epoch", "examples", "run")
IN_A_FOLDER = (
    "trainer_state.json",
    "trainer_log.jsonl",
    "checkpoint-*/trainer_state.json",
    "**/events.out.tfevents.*",
)
LEARNING_DYNAMICS = "learning-dynamics JSON lines"
BINARY_SHARE = 0.02  # of control characters in what should be text


def read_logs(path: str | Path, columns: Mapping[str, str] | None = None) -> list[Log]:
    """Every run in a log, in the order in which the file has them.

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
    path = _file(Path(path))
    raw = path.read_bytes()
    if not raw.strip():
        raise InputError(f"{path}: the file is empty; give one of {UNDERSTOOD}")
    if is_event_file(raw):
        records, torn = event_records(path)
        notes = ["the file ends in the middle of a record"] if torn else []
        logs = assemble(path.name, "TensorBoard event file", records, one_run=True, notes=notes)
    else:
        text = _text(raw, path)
        logs = _read_text(text, path.name, _canonical(columns, path) if columns else {})
    if not logs:
        raise InputError(f"{path}: {_what_is_seen(raw)}; understood are {UNDERSTOOD}")
    return _preference_logs(logs, path)


def _preference_logs(logs: list[Log], path: Path) -> list[Log]:
    """The logs of preference training; those of other kinds are refused, or left out where they stand beside one."""
    kept = [log for log in logs if log.kind == "preference"]
    others = [f"{PHRASES[log.kind]} ({', '.join(log.signs)})" for log in logs if log.kind != "preference"]
    if not kept:
        raise InputError(
            f"{path}: this is no preference log: it looks like {others[0]}; a verdict needs rewards/chosen, "
            "logps/chosen or rewards/margins"
        )
    for log in kept:
        log.notes.extend(f"the file also holds a log that was left out: {other}" for other in others)
    return kept


def _file(path: Path) -> Path:
    if path.is_dir():
        for pattern in IN_A_FOLDER:
            if found := list(path.glob(pattern)):
                return max(found, key=lambda file: file.stat().st_mtime)
        raise InputError(f"{path}: no log in this folder; looked for trace.jsonl, {', '.join(IN_A_FOLDER)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def _text(raw: bytes, path: Path) -> str:
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = raw.decode(encoding, errors="replace")
    control = sum(char == "�" or (ord(char) < 32 and char not in "\n\r\t\x1b\x08") for char in text)
    if control > BINARY_SHARE * len(text):
        raise InputError(f"{path}: {_what_is_seen(raw)}; understood are {UNDERSTOOD}")
    return text


def _what_is_seen(raw: bytes) -> str:
    kinds = {
        b"\x1f\x8b": "a gzip file",
        b"PK": "a zip file",
        b"PAR1": "a Parquet file",
        b":W&B": "a wandb binary file",
    }
    for magic, kind in kinds.items():
        if raw.startswith(magic):
            return f"this is {kind}"
    head = raw[:200].decode("utf-8", errors="replace")
    if head.count("�") > 4 or "\x00" in head:
        return f"binary data ({len(raw)} bytes)"
    first = next((line.strip() for line in head.splitlines() if line.strip()), "")
    return f"no loss, reward or log-probability in a text that begins {first[:50]!r}"


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


def _read_text(text: str, name: str, columns: dict[str, str]) -> list[Log]:
    settings = stated_settings(text)
    try:
        return _read_json(json.loads(text), name, settings, columns)
    except json.JSONDecodeError:
        pass
    lines, bad = _json_lines(text)
    if lines:
        notes = [f"{bad} lines could not be read and were left out"] if bad else []
        form = _json_lines_form(lines)
        split = "eval" if form == LEARNING_DYNAMICS else "train"
        return _by_run(name, form, {"": lines}, settings, notes, columns, default_split=split)
    if tables := markdown_tables(text) or spaced_tables(text):
        return _read_tables(tables, name, settings)
    if "{" in text:
        records, torn = dict_records(text)
        if records:
            notes = ["the log ends in the middle of a record, which was left out"] if torn else []
            whole = '"log_history"' in text
            if whole:
                notes = ["the JSON is cut off or damaged: the whole records in it were read"]
            form = _text_form(text)
            return assemble(name, form, records, settings=settings, notes=notes, one_run=whole)
    if table := csv_table(text, set(columns)):
        decimal_comma = table.decimal_comma
        return _by_run(
            name, "CSV", csv_records(table), settings, [], columns, decimal_comma, table.default_split
        )
    of_a_card = "evaluation set" in text  # a model card without a table lists its final results
    return assemble(
        name,
        "lines of names and numbers",
        prose_records(text),
        settings=settings,
        default_split="eval" if of_a_card else "train",
    )


def _read_tables(tables: list[Any], name: str, settings: dict[str, Any]) -> list[Log]:
    logs = []
    for table in tables:
        caption = f"{name} · {table.caption}" if len(tables) > 1 and table.caption else name
        logs += _by_run(
            caption, "table", table.records_by_run(), settings, [], {}, table.decimal_comma,
            table.default_split,
        )  # fmt: skip
    return logs


def _read_json(data: Any, name: str, settings: dict[str, Any], columns: dict[str, str]) -> list[Log]:
    if isinstance(data, dict) and isinstance(data.get("cells"), list):
        return _read_text(_notebook_output(data), name, columns)
    if isinstance(data, dict) and isinstance(data.get("log_history"), list):
        records = [record for record in data["log_history"] if isinstance(record, dict)]
        return assemble(name, "Hugging Face trainer_state.json", records, settings=settings, one_run=True)
    records = _flat_records(data)
    form = "JSON" if len(records) != 1 else "JSON of one set of results"
    return _by_run(name, form, {"": records}, settings, [], columns)


def _flat_records(data: Any) -> list[Record]:
    """The records in JSON of some shape: a list of them, columns of equal length, or one deeper in."""
    if isinstance(data, list):
        return [_flat(item) for item in data if isinstance(item, dict)]
    if not isinstance(data, dict):
        return []
    if isinstance(data.get("columns"), list) and isinstance(data.get("data"), list):
        return [
            dict(zip(data["columns"], row, strict=False)) for row in data["data"] if isinstance(row, list)
        ]
    lists = {key: value for key, value in data.items() if isinstance(value, list) and value}
    if lists and all(not isinstance(value[0], dict) for value in lists.values()):
        length = max(map(len, lists.values()))
        rows = [
            {key: value[i] for key, value in lists.items() if len(value) == length} for i in range(length)
        ]
        if rows and tells(rows[0]):
            return rows
    if tells(data):
        return [data]
    deeper = [_flat_records(value) for value in data.values() if isinstance(value, dict | list)]
    return max(deeper, key=len, default=[])


def _flat(item: Mapping[str, Any], before: str = "") -> Record:
    record: Record = {}
    for key, value in item.items():
        if isinstance(value, dict):
            record |= _flat(value, f"{before}{key}/")
        else:
            # A level that only groups (`metrics`, `logs`) is no part of the name
            group = (
                before if before.strip("/").split("/")[-1] in ("train", "eval", "rewards", "logps") else ""
            )
            record[f"{group}{key}"] = value
    return record


def _json_lines(text: str) -> tuple[list[Record], int]:
    """The records of a JSONL text, and how many of its lines are none; no records if most lines are none."""
    records, bad = [], 0
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            records.append(_flat(item)) if isinstance(item, dict) else None
        except json.JSONDecodeError:
            bad += 1
    return (records, bad) if len(records) > bad else ([], 0)


def _json_lines_form(records: list[Record]) -> str:
    keys = {key for record in records for key in record}
    if "current_steps" in keys:
        return "LLaMA-Factory trainer_log.jsonl"
    if any("eval_prob" in key for key in keys):
        return LEARNING_DYNAMICS
    return "wandb history" if "_step" in keys else "JSON lines"


def _text_form(text: str) -> str:
    if '"log_history"' in text:
        return "Hugging Face trainer_state.json"
    return (
        "reference DPO stdout"
        if "train stats after" in text or "eval after" in text
        else "stdout with dict lines"
    )


def _by_run(
    name: str,
    form: str,
    runs: Mapping[str, list[Record]],
    settings: dict[str, Any],
    notes: list[str],
    columns: dict[str, str],
    decimal_comma: bool = False,
    default_split: str = "train",
) -> list[Log]:
    """Logs of records that are already apart by run, or that name their run in a column."""
    apart: dict[str, list[Record]] = {}
    for run, records in runs.items():
        for record in records:
            record = {columns.get(key, key): value for key, value in record.items()}
            own = record.get("run", record.get("run_name", record.get("run_id", run)))
            apart.setdefault(str(own), []).append(record)
    logs = []
    for run, records in apart.items():
        run_name = f"{name} · {run}" if run and len(apart) > 1 else name
        logs += assemble(
            run_name, form, records, default_split=default_split, settings=settings, notes=notes,
            decimal_comma=decimal_comma,
        )  # fmt: skip
    return logs


_CELL = re.compile(r"<t[hd][^>]*>(.*?)</t[hd]>", re.DOTALL)


def _notebook_output(notebook: Mapping[str, Any]) -> str:
    """What a Jupyter notebook printed, with the HTML tables of a Trainer's progress as Markdown tables."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []) if isinstance(cell, dict) else []:
            data = output.get("data", {})
            html = "".join(data.get("text/html", []))
            if "<table" in html:
                rows = [[c.strip() for c in _CELL.findall(row)] for row in html.split("<tr")[1:]]
                lines = ["| " + " | ".join(row) + " |" for row in rows if row]
                parts += [*lines[:1], "|" + "---|" * max(len(rows[0]), 2), *lines[1:], ""]
            else:
                parts.append("".join(output.get("text", data.get("text/plain", []))))
    return "\n".join(parts)

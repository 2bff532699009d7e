"""Records in Trackio's databases: one SQLite file per project, one JSON text per logged step."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from rewardshape.errors import InputError
from rewardshape.logs.rows import Record

SQLITE = b"SQLite format 3\x00"


def trackio_records(path: Path) -> dict[str, list[Record]]:
    """The records of each run, in the order in which they were logged.

    Raises
    ------
    InputError
        If the file is an SQLite database of something else, or is damaged.
    """
    try:
        # Read only: a log is looked at, never changed
        with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as database:
            rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    except sqlite3.Error as error:
        raise InputError(f"{path}: an SQLite database, but none of Trackio: {error}") from error
    runs: dict[str, list[Record]] = {}
    for run, step, metrics in rows:
        try:
            record = json.loads(metrics)
        except (TypeError, ValueError):
            continue
        if isinstance(record, dict):
            runs.setdefault(str(run), []).append({"step": step} | record)
    return runs

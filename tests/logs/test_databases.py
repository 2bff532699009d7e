"""Trackio's databases: read by run and in order, never changed; another database is refused."""

from __future__ import annotations

import json
import sqlite3

import pytest

from rewardshape.errors import InputError
from rewardshape.logs.databases import SQLITE, trackio_records


def database(path, rows):
    with sqlite3.connect(path) as made:
        made.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_name TEXT, step INTEGER, metrics TEXT)"
        )
        made.executemany("INSERT INTO metrics (run_name, step, metrics) VALUES (?, ?, ?)", rows)
    made.close()
    return path


def test_records_come_by_run_in_the_order_logged_and_their_own_step_wins(tmp_path):
    logged = [
        ("b", 0, {"loss": 0.7}),
        ("a", 0, {"loss": 0.6}),
        ("b", 5, {"loss": 0.5, "step": 50}),
        ("a", 3, {"x": "NaN"}),
    ]
    path = database(tmp_path / "a.db", [(run, step, json.dumps(record)) for run, step, record in logged])
    before = path.read_bytes()
    assert before.startswith(SQLITE)
    assert trackio_records(path) == {
        "b": [{"step": 0, "loss": 0.7}, {"step": 50, "loss": 0.5}],
        "a": [{"step": 0, "loss": 0.6}, {"step": 3, "x": "NaN"}],
    }
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]


def test_a_record_that_is_no_object_is_left_out(tmp_path):
    path = database(
        tmp_path / "a.db", [("a", 0, "{cut o"), ("a", 1, "[1]"), ("a", 2, None), ("a", 3, '{"loss": 1}')]
    )
    assert trackio_records(path) == {"a": [{"step": 3, "loss": 1}]}


def test_a_name_with_a_question_mark_is_a_name(tmp_path):
    path = database(tmp_path / "a?mode=rw#b.db", [("a", 0, '{"loss": 1}')])
    assert trackio_records(path) == {"a": [{"step": 0, "loss": 1}]}


@pytest.mark.parametrize("damaged", [False, True])
def test_another_or_a_damaged_database_is_refused_in_one_line(tmp_path, damaged):
    path = database(tmp_path / "a.db", [("a", 0, '{"loss": 1}')])
    if damaged:
        path.write_bytes(path.read_bytes()[:100] + b"\xff" * 4000)
    else:
        with sqlite3.connect(path) as made:
            made.execute("ALTER TABLE metrics RENAME TO things")
        made.close()
    with pytest.raises(InputError, match=r"a\.db: an SQLite database, but none of Trackio: ") as caught:
        trackio_records(path)
    assert "\n" not in str(caught.value)

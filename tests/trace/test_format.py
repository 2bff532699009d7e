"""The record: append-only, without a clock in it, exact to float32."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rewardshape.errors import InputError
from rewardshape.trace import TraceWriter
from rewardshape.trace.records import read_records


def test_the_record_has_no_clock_in_it(tmp_path, record):
    record(tmp_path / "a")
    record(tmp_path / "b")
    assert (tmp_path / "a" / "trace.jsonl").read_bytes() == (tmp_path / "b" / "trace.jsonl").read_bytes()


def test_numbers_keep_more_than_float32_holds(tmp_path, probe_set):
    value = float(np.float32(-123.456789))
    folder = tmp_path / "run"
    folder.mkdir()
    with TraceWriter(folder, {name: column[:1] for name, column in probe_set.items()}) as writer:
        writer.append(0, probe={"logp_sum": [value]})
    _, [record] = read_records(folder / "trace.jsonl")
    assert np.float32(record.tables["probe"]["logp_sum"][0]) == np.float32(value)


def test_what_json_lacks_becomes_null_and_every_line_is_json_on_disk_before_the_next(tmp_path, probe_set):
    with TraceWriter(tmp_path, probe_set) as writer:
        for step, value in enumerate([float("nan"), np.float32("inf"), np.float64(-1.5)]):
            writer.append(step, metrics={"loss": value})
            head, *steps = map(
                json.loads, (tmp_path / "trace.jsonl").read_text(encoding="utf-8").splitlines()
            )
            assert head["probe_set"] == probe_set
            assert len(steps) == step + 1
    assert [found["metrics"]["loss"] for found in steps] == [None, None, -1.5]


def test_two_pairs_of_one_name_are_refused_before_anything_is_written(tmp_path, probe_set):
    twice = {name: [*values, *values] for name, values in probe_set.items()}
    with pytest.raises(InputError, match="2 probe pairs are called a; read all the data at once"):
        TraceWriter(tmp_path, twice)
    assert list(tmp_path.iterdir()) == []

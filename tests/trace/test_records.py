"""A record is whole but for a torn last line; whatever else is wrong is found with its line, or read past and said."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardshape import InputError, read_trace
from rewardshape.trace import TraceWriter
from rewardshape.trace.records import read_records, rewind

Lines = list[bytes]


def edited(part: str, column: str, change: Callable[[list], list]) -> Callable[[Lines], Lines]:
    """The same record with a column of line 3 (step 1) changed."""

    def edit(lines: Lines) -> Lines:
        content = json.loads(lines[2])
        content[part][column] = change(content[part][column])
        return [*lines[:2], json.dumps(content).encode() + b"\n", *lines[3:]]

    return edit


def replaced(line: bytes) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines[:2], line, *lines[3:]]


DAMAGE = {  # of a record of steps 0 to 4: what is done to its lines, the line named, what is said, the steps left
    "a step is missing": (lambda lines: lines[:3] + lines[4:], 4, "found step 3 where step 2 belongs", [0, 1, 3, 4]),
    "a line is doubled": (lambda lines: lines[:3] + lines[2:], 4, "found step 1 where a step after 1", [0, 1, 2, 3, 4]),
    "two lines changed places": (
        lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3, "found step 2 where step 1", [0, 2, 3, 4],
    ),
    "a line is torn": (lambda lines: replaced(lines[2][:30] + b"\n")(lines), 3, "not a record", [0, 2, 3, 4]),
    "a line is a number": (replaced(b"3\n"), 3, "not a record", [0, 2, 3, 4]),
    "a line is empty": (replaced(b"{}\n"), 3, "not the record of a step", [0, 2, 3, 4]),
    "zeros": (replaced(b"\0" * 40 + b"\n"), 3, "not a record", [0, 2, 3, 4]),
    "no end of brackets": (replaced(b"[" * 100_000 + b"\n"), 3, "not a record", [0, 2, 3, 4]),
    "a step is a text": (replaced(b'{"step":"1"}\n'), 3, "not the record of a step", [0, 2, 3, 4]),
    "metrics are texts": (
        replaced(b'{"step":1,"metrics":{"loss":"low"}}\n'), 3, "its metrics are not numbers", [0, 2, 3, 4],
    ),
    "a metric is no number": (replaced(b'{"step":1,"metrics":{"loss":NaN}}\n'), 3, "not a record", [0, 2, 3, 4]),
    "a metric is beyond every float": (
        replaced(b'{"step":1,"metrics":{"loss":1%s}}\n' % (b"0" * 400)), 3, "metrics are not numbers", [0, 2, 3, 4],
    ),
    "a metric is infinite": (
        replaced(b'{"step":1,"metrics":{"loss":-1e999}}\n'), 3, "metrics are not numbers", [0, 2, 3, 4],
    ),
    "a number is infinite": (
        replaced(b'{"step":1,"probe":{"logp_sum":[-1e999,-1,null,-1]}}\n'), 3, "of logp_sum are not", [0, 2, 3, 4],
    ),
    "a table is short": (
        edited("probe", "logp_sum", lambda values: values[:3]), 3, "holds 3 values of logp_sum where 4", [0, 2, 3, 4],
    ),
    "columns differ": (
        edited("train", "num_tokens", lambda values: values[:1]), 3, "1 values of num_tokens where 2", [0, 2, 3, 4],
    ),
    "a number is a text": (
        edited("probe", "logp_sum", lambda values: ["-1", *values[1:]]), 3, "of logp_sum are not numbers", [0, 2, 3, 4],
    ),
    "a number is no float": (
        edited("train", "num_tokens", lambda values: [10**400, 1]), 3, "of num_tokens are not numbers", [0, 2, 3, 4],
    ),
    "a table is a list": (replaced(b'{"step":1,"probe":[1,2]}\n'), 3, "its part probe is no table", [0, 2, 3, 4]),
    "tokens are missing": (replaced(b'{"step":1,"tokens":[[1.0]]}\n'), 3, "not one list for each of 4", [0, 2, 3, 4]),
    "tokens are texts": (
        replaced(b'{"step":1,"tokens":[["a"],[],[],[]]}\n'), 3, "its tokens are not numbers", [0, 2, 3, 4],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_an_error_with_its_line_or_read_past_and_said(tmp_path, record, name):
    harm, number, said, left = DAMAGE[name]
    file = record(tmp_path / "run", 5) / "trace.jsonl"
    file.write_bytes(b"".join(harm(file.read_bytes().splitlines(keepends=True))))
    with pytest.raises(InputError) as refused:
        read_trace(tmp_path / "run")
    assert str(refused.value).startswith(f"{file}:{number}: ")
    assert said in str(refused.value)
    trace = read_trace(tmp_path / "run", repair=True)
    assert trace.steps["step"].tolist() == left
    assert said in trace.damage[0]
    assert trace.run("run").damage == trace.damage
    assert "damaged" in trace._repr_html_()


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "found format nothing"),
        (b'{"format":2,"probe_set":{}}\n', "written by a newer rewardshape: update this one"),
        (b'{"step":0}\n', "found format nothing"),
        (b'{"format":1}\n', "its part probe_set is no table"),
        (
            b'{"format":1,"probe_set":{"pair_id":["a"],"response":["chosen"]}}\n',
            "its part probe_set lacks num_tokens",
        ),
    ],
)
def test_without_its_head_nothing_is_read(tmp_path, record, head, said):
    file = record(tmp_path / "run") / "trace.jsonl"
    file.write_bytes(b"".join([head, *file.read_bytes().splitlines(keepends=True)[1:]]))
    for repair in (False, True):
        with pytest.raises(InputError, match=said):
            read_trace(tmp_path / "run", repair=repair)


def test_a_whole_record_has_no_damage(tmp_path, record):
    assert read_trace(record(tmp_path / "run", 5)).damage == ()


def test_measured_now_and_then_is_whole_where_no_batches_are_recorded(tmp_path, probe_set):
    with TraceWriter(tmp_path, probe_set) as writer:
        for step in (0, 10, 17):
            writer.append(step, probe={"logp_sum": [-1.0, -2.0, -3.0, -4.0]})
    assert read_trace(tmp_path).steps["step"].tolist() == [0, 10, 17]


@given(cut=st.integers(0, 10_000))
def test_wherever_a_record_is_cut_its_whole_lines_are_read(tmp_path_factory, record, cut):
    folder = record(tmp_path_factory.mktemp("cut") / "run", 5)
    file = folder / "trace.jsonl"
    content = file.read_bytes()
    head, *ends = np.cumsum([len(line) for line in content.splitlines(keepends=True)])
    kept = head + cut % (len(content) - head + 1)
    file.write_bytes(content[:kept])
    assert read_trace(folder).damage == ()
    _, records = read_records(file)
    assert [found.step for found in records] == list(range(sum(end <= kept for end in ends)))


def test_a_rewound_trace_is_as_if_never_written_further(tmp_path, record):
    folder, shorter = record(tmp_path / "long", 5), record(tmp_path / "short", 2)
    with open(folder / "trace.jsonl", "ab") as file:
        file.write(b'{"step":5,"metr')
    rewind(folder, 1)
    for name in ("trace.jsonl", "timing.jsonl"):
        assert (folder / name).read_bytes() == (shorter / name).read_bytes()
    rewind(folder, -1)
    assert (folder / "trace.jsonl").read_bytes() == b""  # a run that begins anew writes its head anew


def test_a_letter_that_is_none_is_damage(tmp_path, record):
    file = record(tmp_path / "run", 5) / "trace.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"c"', b'"\xff"', 1)
    file.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=r"trace\.jsonl:3: not a record"):
        read_trace(tmp_path / "run")


def test_a_key_twice_is_damage(tmp_path, record):
    file = record(tmp_path / "run", 5) / "trace.jsonl"
    file.write_bytes(file.read_bytes().replace(b'{"step":1,', b'{"step":1,"step":1,', 1))
    with pytest.raises(InputError, match=r"trace\.jsonl:3: not a record"):
        read_trace(tmp_path / "run")


def test_a_metric_called_step_is_not_the_step(tmp_path, probe_set):
    with TraceWriter(tmp_path, probe_set) as writer:
        for step in (0, 2):
            writer.append(
                step, metrics={"step": 1.0, "loss": 0.5}, probe={"logp_sum": [-1.0, -2.0, -3.0, -4.0]}
            )
    assert read_trace(tmp_path).steps["step"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("left", "said"),
    [(slice(2, None), "begins at step 1, and step 0 is lost"), (slice(1, 4), "ends at step 2 of 4")],
)
def test_a_run_of_the_probe_has_both_its_ends(tmp_path, record, left, said):
    file = record(tmp_path / "run", 5) / "trace.jsonl"
    manifest = {"command": "probe", "status": "done", "run": {"steps": 4}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert read_trace(tmp_path / "run").damage == ()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], *lines[left]]))
    with pytest.raises(InputError, match=said):
        read_trace(tmp_path / "run")
    assert said in read_trace(tmp_path / "run", repair=True).damage[0]


def test_a_record_whose_step_is_a_text_is_where_rewinding_ends(tmp_path, record):
    file = record(tmp_path / "run", 5) / "trace.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], b'{"step":"x"}\n', *lines[3:]]))
    rewind(tmp_path / "run", 4)
    assert file.read_bytes() == b"".join(lines[:3])

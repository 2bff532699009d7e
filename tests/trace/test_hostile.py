"""Whatever became of a run folder, it is read, or refused in one line; and lines that are gone are noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardshape.trace import RunFolder, read_probe_set, read_trace
from tests.fuzzing import FUZZ, attempted, damaged

FILES = ("trace.jsonl", "run.json", "timing.jsonl", "probe_set.jsonl")


@pytest.fixture(scope="module")
def kept(record, tmp_path_factory) -> Path:
    """A run folder of five steps with all its files."""
    folder = record(tmp_path_factory.mktemp("kept") / "run", 5)
    manifest = (
        '{"status": "done", "run": {"seed": 0}, "objective": {"name": "simpo", "parameters": {"beta": 2.0}}}'
    )
    (folder / "run.json").write_text(manifest)
    texts = '{"pair_id": "a", "prompt": "p", "responses": {"chosen": "x", "rejected": "y"}, "tokens": {}}\n'
    (folder / "probe_set.jsonl").write_text(texts * 2)
    return folder


@given(data=st.data())
@FUZZ
def test_damage_anywhere_is_read_or_refused_in_one_line(kept, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("harmed") / "run"
    shutil.copytree(kept, folder)
    name = data.draw(st.sampled_from(FILES))
    (folder / name).write_bytes(data.draw(damaged((kept / name).read_bytes())))
    for repair in (False, True):
        trace, said = attempted(read_trace, folder, repair=repair)
        if said:
            assert str(folder) in said
            assert "\n" not in said
        else:
            assert trace.steps["step"].is_monotonic_increasing
            assert repair or not trace.damage
    for read in (read_probe_set, lambda path: RunFolder(path).read_manifest()):
        _, said = attempted(read, folder)
        assert not said or str(folder) in said
    shutil.rmtree(folder.parent)


@given(order=st.lists(st.integers(1, 5), max_size=8), torn=st.integers(0, 30))
@FUZZ
def test_lines_lost_doubled_or_moved_are_refused_and_a_beginning_is_not(kept, tmp_path_factory, order, torn):
    lines = (kept / "trace.jsonl").read_bytes().splitlines(keepends=True)
    folder = tmp_path_factory.mktemp("moved") / "run"
    shutil.copytree(kept, folder)
    (folder / "trace.jsonl").write_bytes(b"".join([lines[0], *(lines[i] for i in order), lines[1][:torn]]))
    trace, said = attempted(read_trace, folder)
    first = order[0] if order else 1  # a record of another loop may begin anywhere
    whole = order == list(range(first, first + len(order)))
    assert ("trace.jsonl:" in said) == (not whole)
    assert said or len(trace.steps) == len(order)
    shutil.rmtree(folder.parent)

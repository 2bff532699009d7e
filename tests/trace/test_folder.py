"""A run folder's files: all apart, and each there whole or as it was before."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from rewardshape import InputError
from rewardshape.trace import RunFolder, write_json, write_whole


def test_every_file_has_a_name_of_its_own_within_the_folder():
    folder = RunFolder(Path("run"))
    named = [getattr(folder, name) for name, of in vars(RunFolder).items() if isinstance(of, property)]
    assert len({path.name for path in named}) == len(named) >= 14
    assert {path.parent for path in named} == {Path("run")}


def test_a_write_that_the_disk_refuses_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "run.json"
    write_whole(file, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(file, "new " * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read_text() == "old"
    write_whole(file, "new")
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["run.json"]  # nothing aside is left


def test_text_that_no_encoding_holds_is_written_all_the_same(tmp_path):
    write_json(tmp_path / "a.json", {"β": "\ud800 é"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"β": "? é"}


def test_a_status_is_set_without_touching_the_rest_of_the_manifest(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_manifest() == {}
    write_json(folder.manifest, {"run": {"seed": 3}, "status": "running"})
    folder.set_status("diverged", "step 3: the loss is not finite")
    assert folder.read_manifest()["reason"] == "step 3: the loss is not finite"
    folder.set_status("done")
    assert folder.read_manifest() == {"run": {"seed": 3}, "status": "done"}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"run": 3}', "run"),
        ('{"run": null}', "run"),
        ('{"run": {"learning_rate": "x"}}', "learning_rate"),
        ('{"run": {"seed": [1]}}', "seed"),
        ('{"objective": {"name": "simpo", "parameters": [1]}}', "parameters"),
        ('{"model": {"checkpoint": 7}}', "checkpoint"),
        ('{"status": 3}', "status"),
    ],
)
def test_a_manifest_whose_parts_are_of_another_type_is_damaged(tmp_path, content, named):
    folder = RunFolder(tmp_path)
    folder.manifest.write_text(content)
    with pytest.raises(InputError, match=f"run.json: its '{named}' is damaged; put back a copy"):
        folder.read_manifest()


def test_a_status_has_room_where_nothing_else_has(tmp_path):
    folder = RunFolder(tmp_path)
    write_json(folder.manifest, {"run": {"seed": 3}, "status": "running", "command": "x"})
    size = folder.manifest.stat().st_size
    folder.set_status_in_place("failed")
    assert folder.manifest.stat().st_size == size
    assert folder.read_manifest() == {"run": {"seed": 3}, "status": "failed", "command": "x"}
    folder.set_status_in_place("much longer than that")
    assert folder.read_manifest()["status"] == "failed"


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"run": 3}', '{"objective": []}', "[" * 10_000])
def test_a_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json: .*damaged"):
        RunFolder(tmp_path).read_manifest()

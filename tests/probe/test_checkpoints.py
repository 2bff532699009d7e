"""Checkpoints are whole or absent, and only the newest stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rewardshape.probe.checkpoints import (
    ASIDE,
    checkpoint_name,
    damage_of,
    keep_whole,
    made_beside_another,
    newest_whole,
    numbered_checkpoints,
    step_of,
)


def write_aside(folder: Path, step: int) -> None:
    aside = folder / ASIDE / checkpoint_name(step)
    (aside / "state").mkdir(parents=True)
    (aside / "model.safetensors").write_bytes(b"weights" * step)
    (aside / "state" / "rng").write_bytes(b"1234")


@pytest.fixture
def record(tmp_path: Path) -> Path:
    file = tmp_path / "trace.jsonl"
    file.write_bytes(b"head\n")
    return file


@pytest.fixture
def folder(tmp_path: Path, record: Path) -> Path:
    """The checkpoints of steps 9 and 10, each made when the record was so long."""
    for step in (2, 9, 10):
        record.write_bytes(record.read_bytes() + b"step %d\n" % step)
        write_aside(tmp_path / "checkpoints", step)
        keep_whole(tmp_path / "checkpoints", step, keep=2, record=record)
    return tmp_path / "checkpoints"


def test_the_newest_stay_by_number_and_nothing_lies_aside(folder):
    assert [step_of(path) for path in numbered_checkpoints(folder)] == [10, 9]
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    assert newest_whole(folder) == (folder / "checkpoint-10", [])
    assert newest_whole(folder, last=9) == (folder / "checkpoint-9", [])
    assert newest_whole(folder, last=8) == (None, [])


def test_a_record_that_grew_is_the_same_and_one_that_was_changed_is_not(folder, record):
    record.write_bytes(record.read_bytes() + b"step 11\n")
    assert newest_whole(folder, record=record) == (folder / "checkpoint-10", [])
    record.write_bytes(record.read_bytes().replace(b"step 10", b"step 1O"))
    found, [said] = newest_whole(folder, record=record)
    assert found == folder / "checkpoint-9"
    assert said.startswith(
        f"{folder / 'checkpoint-10'}: trace.jsonl is not the record that it was made with (SHA-256 "
    )
    assert newest_whole(folder) == (folder / "checkpoint-10", [])
    record.write_bytes(b"head\n")
    assert made_beside_another(folder / "checkpoint-9", record)


HARM = {
    "torn": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "gone": lambda file: file.unlink(),
    "a bit is flipped": lambda file: file.write_bytes(
        bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]
    ),
    "zeros, as a power cut leaves": lambda file: file.write_bytes(bytes(file.stat().st_size)),
}


@pytest.mark.parametrize("name", ["model.safetensors", "state/rng", "complete.json"])
@pytest.mark.parametrize("harm", HARM)
def test_one_file_harmed_and_the_older_checkpoint_is_taken(folder, name, harm):
    HARM[harm](folder / "checkpoint-10" / name)
    found, [said] = newest_whole(folder)
    assert found == folder / "checkpoint-9"
    assert said.startswith(f"{folder / 'checkpoint-10'}: ")
    assert name.rpartition("/")[2] in said


@pytest.mark.parametrize(
    "content",
    ["[]", "3", "{}", '{"files": {"model.safetensors": 3}}', '{"files": {"model.safetensors": {}}}', "", "{"],
)
def test_a_list_of_files_that_is_none_is_damage(folder, content):
    (folder / "checkpoint-10" / "complete.json").write_text(content)
    assert damage_of(folder / "checkpoint-10") == "complete.json cannot be read"


def test_what_still_lies_aside_is_no_checkpoint(folder):
    write_aside(folder, 11)
    (folder / "checkpoint-old").mkdir()
    (folder / "checkpoint-²").mkdir()
    assert [step_of(path) for path in numbered_checkpoints(folder)] == [10, 9]


def test_a_torn_one_is_written_over_by_the_step_done_again(folder, record):
    (folder / "checkpoint-10" / "model.safetensors").write_bytes(b"")
    write_aside(folder, 10)
    keep_whole(folder, 10, keep=2, record=record)
    assert newest_whole(folder) == (folder / "checkpoint-10", [])
    assert (folder / "checkpoint-10" / "model.safetensors").read_bytes() == b"weights" * 10


def test_a_torn_one_does_not_count_among_those_that_stay(folder, record):
    (folder / "checkpoint-10" / "model.safetensors").write_bytes(b"")
    write_aside(folder, 11)
    keep_whole(folder, 11, keep=2, record=record)
    assert newest_whole(folder, last=10)[0] == folder / "checkpoint-9"


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, record, monkeypatch):
    """Every file and its folder are synced before the rename that makes it a checkpoint, which is synced too."""
    synced, replace, fsync = [], os.replace, os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        synced.append("renamed")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", renamed)
    write_aside(tmp_path, 2)
    keep_whole(tmp_path, 2, keep=1, record=record)
    aside = tmp_path / ASIDE / "checkpoint-2"
    files = [aside / "model.safetensors", aside / "state" / "rng", aside / "complete.json", aside]
    assert synced == [*map(str, files), "renamed", str(tmp_path)]

"""Checkpoints are whole or absent, and only the newest stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardshape.probe.checkpoints import ASIDE, checkpoint_name, keep_whole, step_of, whole_checkpoints


def write_aside(folder: Path, step: int) -> None:
    aside = folder / ASIDE / checkpoint_name(step)
    (aside / "state").mkdir(parents=True)
    (aside / "model.safetensors").write_bytes(b"weights" * step)
    (aside / "state" / "rng").write_bytes(b"1234")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (2, 9, 10):
        write_aside(tmp_path, step)
        keep_whole(tmp_path, step, keep=2)
    return tmp_path


def test_the_newest_stay_by_number_and_nothing_lies_aside(folder):
    assert [step_of(path) for path in whole_checkpoints(folder)] == [10, 9]
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-10", "checkpoint-9"]


@pytest.mark.parametrize("name", ["model.safetensors", "state/rng", "complete.json"])
@pytest.mark.parametrize("harm", ["torn", "gone"])
def test_one_file_torn_or_gone_and_the_checkpoint_is_passed_over(folder, name, harm):
    file = folder / "checkpoint-10" / name
    if harm == "torn":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    assert [path.name for path in whole_checkpoints(folder)] == ["checkpoint-9"]


def test_what_still_lies_aside_is_no_checkpoint(folder):
    write_aside(folder, 11)
    (folder / "checkpoint-old").mkdir()
    assert [step_of(path) for path in whole_checkpoints(folder)] == [10, 9]


def test_a_torn_one_is_written_over_by_the_step_done_again(folder):
    (folder / "checkpoint-10" / "model.safetensors").write_bytes(b"")
    write_aside(folder, 10)
    keep_whole(folder, 10, keep=2)
    assert whole_checkpoints(folder)[0].name == "checkpoint-10"
    assert (folder / "checkpoint-10" / "model.safetensors").read_bytes() == b"weights" * 10

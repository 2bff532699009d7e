"""In a folder the log that goes furthest is read, whatever the files' dates say."""

from __future__ import annotations

import json
import os

import pytest

from rewardshape.errors import InputError
from rewardshape.logs import read_logs


def state(folder, last, *, age):
    folder.mkdir(parents=True)
    file = folder / "trainer_state.json"
    history = [{"step": k, "loss": 0.6, "rewards/chosen": -k} for k in range(10, last + 1, 10)]
    file.write_text(json.dumps({"global_step": last, "log_history": history}))
    os.utime(file, (1e9 - age, 1e9 - age))


def events(folder, steps, begun):
    pytest.importorskip("tensorboard", reason="the tensorboard package is not installed")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder), filename_suffix=f".{begun}")
    for step in steps:
        value = [
            Summary.Value(tag="train/rewards/chosen", simple_value=-step),
            Summary.Value(tag="train/loss", simple_value=0.5),
        ]
        writer.add_event(Event(step=step, wall_time=begun + step, summary=Summary(value=value)))
    writer.close()


def test_the_checkpoint_with_the_last_step_is_read(tmp_path):
    state(tmp_path / "checkpoint-50", 50, age=0)  # the newest file, as after a clone
    state(tmp_path / "checkpoint-200", 200, age=500)
    (log,) = read_logs(tmp_path)
    assert log.split("train").index[-1] == 200
    assert log.name == "checkpoint-200/trainer_state.json"
    assert "goes furthest" in " ".join(log.notes)


def test_event_files_of_one_folder_are_one_log_and_the_resumed_copy_counts(tmp_path):
    events(tmp_path / "runs", [10, 20, 30, 40], begun=1000)
    events(tmp_path / "runs", [30, 40, 50], begun=2000)
    (log,) = read_logs(tmp_path)
    assert list(log.split("train").index) == [10, 20, 30, 40, 50]
    assert "2 event files" in " ".join(log.notes)


def test_event_files_of_two_folders_are_two_logs(tmp_path):
    events(tmp_path / "alpha=0", [10, 20, 30], begun=1000)
    events(tmp_path / "alpha=1", [10, 20, 30], begun=2000)
    assert [log.name.split("/")[0] for log in read_logs(tmp_path)] == ["alpha=0", "alpha=1"]


def test_the_console_that_wandb_keeps_is_read(tmp_path):
    files = tmp_path / "wandb" / "offline-run-1" / "files"
    files.mkdir(parents=True)
    (files / "output.log").write_text("{'loss': 0.6, 'rewards/chosen': -0.1, 'epoch': 0.5}\n" * 2)
    (log,) = read_logs(tmp_path)
    assert log.name == "wandb/offline-run-1/files/output.log"


def test_a_wandb_binary_is_refused_with_what_can_be_read_instead(tmp_path):
    (tmp_path / "run-1.wandb").write_bytes(b":W&B" + bytes(100))
    with pytest.raises(InputError, match=r"wandb binary.*output\.log.*CSV"):
        read_logs(tmp_path / "run-1.wandb")


def test_of_logs_that_state_no_steps_the_newest_is_read_and_it_is_said_so(tmp_path):
    for name, loss, age in (("run-b", 0.6, 500), ("run-a", 0.5, 0)):
        file = tmp_path / "wandb" / name / "files" / "output.log"
        file.parent.mkdir(parents=True)
        file.write_text(
            f"{{'loss': 0.7, 'rewards/chosen': 0.1}}\n{{'loss': {loss}, 'rewards/chosen': 0.2}}\n"
        )
        os.utime(file, (1e9 - age, 1e9 - age))
    (log,) = read_logs(tmp_path)
    assert log.split("train")["loss"].tolist() == [0.7, 0.5]
    assert "of 2 logs in the folder which state no steps, the newest was read" in " ".join(log.notes)

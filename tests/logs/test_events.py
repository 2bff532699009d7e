"""TensorBoard's files, written by its own writer: every scalar by step, several files as one run, a torn end told."""

from __future__ import annotations

import time

import pytest

from rewardshape.logs.events import event_groups, event_records, is_event_file

pytest.importorskip("tensorboard", reason="the tensorboard package is not installed")

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto


def write(folder, rows, *, suffix=""):
    """An event file of {step: {tag: number or array}}."""
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for step, values in rows.items():
        for tag, value in values.items():
            one = (
                Summary.Value(tag=tag, tensor=value)
                if isinstance(value, TensorProto)
                else Summary.Value(tag=tag, simple_value=value)
            )
            writer.add_event(Event(step=step, summary=Summary(value=[one])))
    writer.close()
    [file] = [path for path in folder.iterdir() if path.name.endswith(suffix)]
    return file


def test_scalars_of_both_kinds_come_by_step_and_histograms_and_texts_do_not(tmp_path):
    rows = {
        1: {"loss": 0.5, "new": make_tensor_proto(0.25, dtype="float32")},
        2: {"loss": 0.375, "text": make_tensor_proto("words"), "many": make_tensor_proto([1.0, 2.0])},
    }
    file = write(tmp_path, rows)
    assert is_event_file(file.read_bytes())
    assert not is_event_file(b"{}")
    assert event_records([file]) == ([{"step": 1, "loss": 0.5, "new": 0.25}, {"step": 2, "loss": 0.375}], [])


def test_files_are_read_in_the_order_in_which_they_were_begun(tmp_path):
    first = write(tmp_path, {3: {"loss": 0.5}}, suffix=".a")
    time.sleep(0.01)  # the first event of a file carries the clock
    second = write(tmp_path, {1: {"loss": 0.75}}, suffix=".b")
    for given in ([first, second], [second, first]):
        assert [record["step"] for record in event_records(given)[0]] == [3, 1]
    assert event_groups(tmp_path) == [sorted([first, second])]


@pytest.mark.parametrize("cut", [1, 5, 20, 40])
def test_a_torn_file_gives_its_whole_records_and_its_name(tmp_path, cut):
    file = write(tmp_path, {step: {"loss": 0.5} for step in (1, 2, 3)})
    file.write_bytes(file.read_bytes()[:-cut])
    records, torn = event_records([file])
    assert [record["step"] for record in records] == ([1, 2] if cut < 30 else [1])
    assert torn == [file.name]

"""Records in TensorBoard event files, through the ``tensorboard`` package where it is installed."""

from __future__ import annotations

from pathlib import Path

from rewardshape.errors import InputError
from rewardshape.logs.log import Record


def is_event_file(head: bytes) -> bool:
    """Whether a file begins as TensorBoard's event files do: a framed record that states their version."""
    return b"brain.Event:" in head[:64]


def event_records(path: Path) -> tuple[list[Record], bool]:
    """One record per step with every scalar of an event file, and whether the file ends in the middle of a record."""
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise InputError(
            f"{path}: a TensorBoard event file, which needs the tensorboard package: pip install tensorboard"
        ) from error
    records: dict[int, Record] = {}
    torn = False
    try:
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.HasField("tensor") and not value.tensor.tensor_shape.dim:
                    scalar = float(tensor_util.make_ndarray(value.tensor))
                elif value.HasField("simple_value"):
                    scalar = value.simple_value
                else:
                    continue
                records.setdefault(event.step, {"step": event.step})[value.tag] = scalar
    except Exception as error:  # the loader's own DataLossError type moves between its backends
        if "DataLoss" not in type(error).__name__:
            raise InputError(f"{path}: a TensorBoard event file that cannot be read: {error}") from error
        torn = True
    return list(records.values()), torn

"""Records in TensorBoard event files, through the ``tensorboard`` package where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewardshape.errors import InputError, needing
from rewardshape.logs.rows import Record

EVENT_FILES = "events.out.tfevents.*"


def is_event_file(head: bytes) -> bool:
    """Whether a file begins as TensorBoard's event files do: a framed record that states their version."""
    return b"brain.Event:" in head[:64]


def event_records(paths: Sequence[Path]) -> tuple[list[Record], list[str]]:
    """One record per step and file with every scalar, and the names of files that end in the middle of a record.

    Several files in one folder are one run: each start of a trainer, and each evaluation apart, opens another.
    """
    by_start = []
    torn = []
    for path in paths:
        events, ends_torn = _events(path)
        records: dict[int, Record] = {}
        for event in events:
            for tag, scalar in _scalars(event):
                records.setdefault(event.step, {"step": event.step})[tag] = scalar
        by_start.append((events[0].wall_time if events else 0.0, path.name, list(records.values())))
        torn += [path.name] if ends_torn else []
    return [
        record for _, _, records in sorted(by_start, key=lambda file: file[:2]) for record in records
    ], torn


def _events(path: Path) -> tuple[list[Any], bool]:
    with needing("events", f"{path}: a TensorBoard event file"):
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    events: list[Any] = []
    try:
        for event in EventFileLoader(str(path)).Load():
            events.append(event)
    except Exception as error:  # the loader's own DataLossError type moves between its backends
        if "DataLoss" not in type(error).__name__:
            raise InputError(f"{path}: a TensorBoard event file that cannot be read: {error}") from error
        return events, True
    return events, _ends_torn(path)


def _ends_torn(path: Path) -> bool:
    """Whether a file ends within a record, which the loader takes for one that is still being written.

    A record is framed by its length (8 bytes, little-endian) and a checksum of 4 bytes, and another checksum behind it.
    """
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        while end < size:
            file.seek(end)
            end += 16 + int.from_bytes(file.read(8), "little")
    return end > size


def _scalars(event: Any) -> list[tuple[str, float]]:
    from tensorboard.util import tensor_util

    scalars = []
    for value in event.summary.value:
        if value.HasField("tensor") and not value.tensor.tensor_shape.dim:
            array = tensor_util.make_ndarray(value.tensor)
            if array.dtype.kind in "fiu":
                scalars.append((value.tag, float(array)))
        elif value.HasField("simple_value"):
            scalars.append((value.tag, value.simple_value))
    return scalars


def event_groups(folder: Path) -> list[list[Path]]:
    """The event files under a folder, by the folder in which they lie."""
    groups: dict[Path, list[Path]] = {}
    for path in sorted(folder.glob(f"**/{EVENT_FILES}")):
        groups.setdefault(path.parent, []).append(path)
    return list(groups.values())

"""Columns that say of which split, or of which run, a row is."""

from __future__ import annotations

from collections.abc import Sequence

from rewardshape.logs.names import meaning
from rewardshape.logs.rows import PLACES, Record

SUMMARY = "summary"  # in the label of a row: means over the whole run


def split_of(label: str) -> str | None:
    """The split that a label names.

    >>> split_of("validation"), split_of("run-3")
    ('eval', None)
    """
    return meaning(f"{label} loss")[0]


def are_splits(labels: Sequence[str]) -> bool:
    """Whether the labels of rows are splits, and perhaps a summary."""
    splits = [split_of(label) for label in labels]
    known = [
        split is not None or SUMMARY in label.lower() for label, split in zip(labels, splits, strict=True)
    ]
    return any(splits) and all(known)


def of_split(column: str, split: str | None) -> str:
    """The name of a column in a row of this split."""
    said, series = meaning(column)
    return f"{split} {column}" if split and said is None and series not in {None, *PLACES} else column


def by_their_splits(records: list[Record]) -> list[Record]:
    """Records of which one column holds their splits, with the split in the names of the others; else as they are."""
    texts = [key for key, value in (records[0] if records else {}).items() if isinstance(value, str)]
    for key in texts:
        labels = [record.get(key) for record in records]
        known = {label for label in labels if isinstance(label, str)}
        if len(known) > 1 and None not in labels and are_splits(sorted(known)):
            return [
                {of_split(name, split_of(str(label))): value for name, value in record.items()}
                for record, label in zip(records, labels, strict=True)
                if SUMMARY not in str(label).lower()
            ]
    return records

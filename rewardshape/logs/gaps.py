"""NaN that only fills the cells of a table: pandas writes it where a row of one split has no value of the other."""

from __future__ import annotations

from typing import Any

from rewardshape.logs.names import TELLING, meaning
from rewardshape.logs.rows import MEAN_LOSS, PLACES, SUMMARY_KEYS, Record, has_value, last_part


def without_gaps(records: list[Record], default_split: str = "train") -> list[Record]:
    """Records without the NaN that only makes their keys the same; as they are where their keys differ.

    A split logged nothing in a row where all its telling series are NaN, if the row is of something else: of another
    split, or of columns that hold nothing wherever the split tells, such as a Trainer's last words. A NaN in any other
    row was logged.
    """
    if len({tuple(record) for record in records}) != 1 or not any(
        _is_nan(raw) for record in records for raw in record.values()
    ):
        return records
    names: dict[str, tuple[str, str]] = {}  # of the columns but places: its split, and its series or itself
    others: set[str] = set()  # those without a series
    for key in records[0]:
        split, series = meaning(key)
        if series not in PLACES:
            names[key] = (split or default_split, series or key)
            others |= {key} if series is None else set()
    held = [{key for key in names if has_value(record[key])} for record in records]
    told = [_splits_told(keys, names) for keys in held]
    beside: dict[str, set[str]] = {
        split: set() for split, _ in names.values()
    }  # what is held where a split tells
    for keys, splits in zip(held, told, strict=True):
        for split in splits:
            beside[split] |= keys
    strangers = {key for key in others if key not in beside[names[key][0]]}
    found = []
    for record, keys, splits in zip(records, held, told, strict=True):
        silent = {
            split
            for split, known in beside.items()
            if split not in splits and (splits or (known and (keys & others) - known))
        }
        said = {names[key] for key in keys}
        logged = {
            key
            for key, name in names.items()
            if key not in strangers and name not in said and name[0] not in silent
        }
        found.append({key: raw for key, raw in record.items() if key in logged or not _is_nan(raw)})
    return found


def _splits_told(keys: set[str], names: dict[str, tuple[str, str]]) -> set[str]:
    """The splits of which a row that holds something in these columns tells."""
    summary = any(last_part(key) in SUMMARY_KEYS for key in keys)
    return {
        names[key][0]
        for key in keys & names.keys()
        if names[key][1] in TELLING and not (summary and last_part(key) == MEAN_LOSS)
    }


def _is_nan(raw: Any) -> bool:
    return raw != raw if isinstance(raw, float) else isinstance(raw, str) and raw.strip().lower() == "nan"

"""Does a resumed run go on with what it began with? Asked before anything is trained or written over.

A contradiction is an error that names both values: data, weights, settings, the record itself. What changes no more
than rounding (versions of packages, device, threads) is a note.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rewardshape.errors import InputError
from rewardshape.probe.settings import CHANGEABLE, SETTINGS, flag
from rewardshape.trace.folder import RunFolder
from rewardshape.trace.format import FORMAT

NO_OTHER_RUN = CHANGEABLE | {"micro_batch_size"}  # which another number of devices decides anew
ROUNDING = ("versions", "device")


def fingerprint_of(model: torch.nn.Module) -> str:
    """SHA-256 of the names, shapes and contents of a model's weights; adapters do not count.

    Contents enter as the sum of each weight's bits, read as integers: the same on every device, in one pass.
    """
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if "lora_" in name:
            continue
        bits = weight.detach().contiguous().view(_INTEGERS[weight.element_size()])
        total = int(bits.sum(dtype=torch.int64))
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        digest.update(f"{plain} {tuple(weight.shape)} {total}\n".encode())
    return digest.hexdigest()


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_manifest(files: RunFolder, now: Mapping[str, Any]) -> list[str]:
    """Compare the manifest of a run with the one that would be written now.

    Returns
    -------
    list of str
        What differs and changes rounding only, a line each.

    Raises
    ------
    InputError
        If it would be another run.
    """
    was = files.read_manifest()
    for what, path in (("data", ("data", "fingerprint")), ("checkpoint", ("model", "fingerprint"))):
        before, after = _at(was, path), _at(now, path)
        if before is not None and before != after:
            raise InputError(
                f"{files.path}: the {what} changed since the run began (fingerprint {str(before)[:12]}, now "
                f"{str(after)[:12]}); put back what it began with, or start a new run"
            )
    before, after = was.get("run", {}), now["run"]
    for name in SETTINGS:
        if name in NO_OTHER_RUN or before.get(name) is None or before[name] == after[name]:
            continue
        raise InputError(
            f"{files.path}: {flag(name)} is {after[name]}, and the run began with {before[name]}; start a new run"
        )
    notes = []
    for part in ROUNDING:
        for name, value in now[part].items():
            began = _at(was, (part, name))
            if began is not None and began != value:
                notes.append(
                    f"{name} is {value}, and the run began with {began}: numbers may differ by rounding"
                )
    return notes


def _at(manifest: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = manifest
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def check_record(file: Path, step: int, rows: Mapping[str, Sequence[Any]]) -> None:
    """Refuse a trace that does not hold every step up to `step`, or whose probe set is not `rows`.

    Parameters
    ----------
    file : Path
        The trace.
    step : int
        Of the checkpoint that the run goes on from.
    rows : table
        The head of the trace as it would be written now.

    Raises
    ------
    InputError
        With file and line. A torn last line is normal and none.
    """
    records = _records(file)
    number, head = next(records, (1, {}))
    if head.get("format") != FORMAT:
        raise InputError(f"{file}:{number}: no head of format {FORMAT}; {MEND}")
    for name in ("pair_id", "response", "num_tokens"):
        if list(head["probe_set"].get(name, ())) != list(rows[name]):
            raise InputError(
                f"{file}:{number}: its probe set is another one than these data make; start a new run"
            )
    due = 0
    for number, record in records:
        if record.get("step") != due:
            raise InputError(
                f"{file}:{number}: found step {record.get('step')} where step {due} belongs; {MEND}"
            )
        if due == step:
            return
        due += 1
    raise InputError(f"{file}: ends before step {step}, at which the checkpoint was made; {MEND}")


MEND = "the record was damaged; put back a copy, or start a new run"


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and content of every line; the last may be torn."""
    lines = file.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            yield number, record
        elif number < len(lines) or line.endswith(b"\n"):
            raise InputError(f"{file}:{number}: not a record; {MEND}")

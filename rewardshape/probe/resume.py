"""Does a resumed run go on with what it began with? Asked before anything is trained or written over.

A contradiction is an error that names both values: data, weights, settings, the record itself. What changes no more
than rounding (versions of packages, device, threads) is a note.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rewardshape.errors import InputError
from rewardshape.probe.checkpoints import (
    forget_later,
    made_beside_another,
    newest_whole,
    numbered_checkpoints,
    step_of,
)
from rewardshape.probe.settings import CHANGEABLE, SETTINGS, flag
from rewardshape.probe.stopping import is_settled
from rewardshape.trace.folder import RunFolder
from rewardshape.trace.records import MEND, lines_of, parsed, read_records, refuse, rewind

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


def going_on(
    files: RunFolder, now: Mapping[str, Any], rows: Mapping[str, Sequence[Any]]
) -> tuple[Path | None, list[str]]:
    """The checkpoint that a run goes on from, and what there is to say of it; `InputError` if it became another run.

    Parameters
    ----------
    files : RunFolder
    now : mapping
        The manifest as it would be written now.
    rows : table
        The head of the trace as it would be written now.
    """
    notes = check_manifest(files, now)
    if is_settled(files) or not files.trace.is_file():
        return None, notes
    checkpoint, damage = newest_whole(files.checkpoints)
    where = f"the run goes on from step {step_of(checkpoint)}" if checkpoint else "the run begins anew"
    if checkpoint:
        check_record(files.trace, checkpoint, rows)
    return checkpoint, [*notes, *(f"{line}: {where}" for line in damage)]


def what_is_lost(files: RunFolder) -> str | None:
    """What of a run that was begun is there no more though the rest shows that it was: its trace, or its checkpoints.

    A run that went on from neither would begin anew and write over what is left.
    """
    kept = numbered_checkpoints(files.checkpoints)
    if not files.trace.is_file():
        return f"{files.trace}: lost, and beside it lies {kept[0].name}" if kept else None
    every = _at(files.read_manifest(), ("run", "checkpoint_every"))
    if kept or is_settled(files) or not isinstance(every, int):
        return None
    steps = ((parsed(line) or {}).get("step") for _, line in lines_of(files.trace))
    if not any(isinstance(step, int) and step > every for step in steps):
        return None  # a kill before the first checkpoint was whole
    return f"{files.checkpoints}: lost, and {files.trace.name} holds steps after {every}, where the first was made"


def require_nothing_lost(home: Path, names: Sequence[str]) -> None:
    """Refuse to go on with runs of which something is lost (`what_is_lost`)."""
    for files in (RunFolder(home / name) for name in names):
        if lost := what_is_lost(files):
            raise InputError(
                f"{lost}; put it back, or `rewardshape probe --resume --repair` begins the run anew"
            )


def require_its_runs(home: Path, names: Sequence[str]) -> None:
    """Refuse a folder whose records are not those of a command with runs of these names (empty of a single run)."""
    if "" not in names and RunFolder(home).trace.is_file():
        raise InputError(
            f"{home}: holds the record of a single run, and its {RunFolder(home).command.name} is that of a sweep; put "
            "back what it was"
        )
    for files in map(RunFolder, (home / name for name in names)):
        if files.trace.is_file() and not files.manifest.is_file():
            raise InputError(
                f"{files.manifest}: lost, and only it says what {files.trace.name} beside it is the record of; put it "
                f"back, or move {files.trace.name} away and the run begins anew"
            )


def at_step_0(files: RunFolder) -> dict[str, list[Any]]:
    """What the probe set measured before a run that is resumed began."""
    _, records = read_records(files.trace)
    return {name: list(column) for name, column in next(records).tables["probe"].items()}


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
    for what, path in (
        ("data", ("data", "fingerprint")),
        ("way the data become tokens (template, limits, tokenizer)", ("data", "tokens")),
        ("checkpoint", ("model", "fingerprint")),
    ):
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


def check_record(file: Path, checkpoint: Path, rows: Mapping[str, Sequence[Any]]) -> None:
    """Refuse a trace that does not hold every step up to a checkpoint, or whose probe set is not `rows`.

    Parameters
    ----------
    file : Path
        The trace.
    checkpoint : Path
        That the run goes on from; the trace must begin with what it was when this was made.
    rows : table
        The head of the trace as it would be written now.

    Raises
    ------
    InputError
        With file and line. A torn last line is normal and none.
    """
    head, records = read_records(file)
    if not is_of(head, rows):
        raise InputError(f"{file}:1: its probe set is another one than these data make; start a new run")
    reached, step = -1, step_of(checkpoint)
    for record in records:
        if reached < 0 < record.step:
            refuse(f"{file}:{record.number}: found step {record.step} where step 0 belongs")
        if (reached := record.step) >= step:
            break
    if reached != step:
        raise InputError(f"{file}: ends before step {step}, at which the checkpoint was made; {MEND}")
    if other := made_beside_another(checkpoint, file):
        raise InputError(
            f"{checkpoint}: {other}: one of both was changed, or is another run's; put it back, or `rewardshape probe "
            "--resume --repair` goes on from a checkpoint that fits, if need be anew"
        )


def is_of(head: Mapping[str, Iterable[Any]], rows: Mapping[str, Iterable[Any]]) -> bool:
    """Whether the head of a trace states the probe set of these rows, whatever reference it had."""
    return all(list(head[name]) == list(rows[name]) for name in ("pair_id", "response", "num_tokens"))


def looked_over(home: Path, names: Sequence[str], *, repair: bool) -> list[str]:
    """What ``--repair`` had to mend in the folder of a command, a line each; `InputError` where a run of it is lost."""
    said = mend(home, names) if repair else []
    require_its_runs(home, names)
    require_nothing_lost(home, names)
    return said


def mend(home: Path, names: Sequence[str]) -> list[str]:
    """What ``--repair`` does to the runs of these names in the folder of a command, a line each."""
    require_its_runs(home, names)
    return [line for name in names for line in mend_record(RunFolder(home / name))]


def mend_record(files: RunFolder) -> list[str]:
    """Make a damaged record one that can be gone on with: cut where it is whole no more, the rest is done again.

    Returns
    -------
    list of str
        What was damaged and what becomes of it; empty where nothing was.

    Raises
    ------
    InputError
        Of a record in the format of another version.
    """
    if not files.trace.is_file():
        lost = what_is_lost(files)
        if lost:
            forget_later(files.checkpoints, -1)
            files.timing.unlink(missing_ok=True)
            files.set_status("interrupted")
        return [f"{lost}; the run begins anew"] if lost else []
    damage: list[str] = []
    last = -1
    _, first = next(lines_of(files.trace), (1, ""))
    if "format" in (parsed(first) or {}):
        _, records = read_records(files.trace, damage.append)
        for record in records:
            if last < 0 < record.step:
                damage.append(f"{files.trace}:{record.number}: found step {record.step} where step 0 belongs")
            if damage:
                break
            last = record.step
    else:
        damage = [f"{files.trace}:1: its head is lost"]
    newest, _ = (None, []) if damage else newest_whole(files.checkpoints)
    if newest and step_of(newest) > last:
        damage.append(f"{files.trace}: ends before step {step_of(newest)}, at which a checkpoint was made")
    elif newest and (other := made_beside_another(newest, files.trace)):
        damage.append(f"{newest}: {other}")
    elif lost := what_is_lost(files):
        damage.append(lost)
    if not damage:
        return []
    checkpoint, torn = newest_whole(files.checkpoints, last=last, record=files.trace)
    step = step_of(checkpoint) if checkpoint else -1
    damaged = next(file for file in files.damaged() if not file.exists())
    shutil.copyfile(files.trace, damaged)
    forget_later(files.checkpoints, step)
    rewind(files.path, step)
    files.set_status("interrupted")
    return [
        *torn,
        f"{damage[0]}; the steps after {step} are done again, the damaged record is kept as {damaged.name}"
        if checkpoint
        else f"{damage[0]}; the run begins anew, the damaged record is kept as {damaged.name}",
    ]

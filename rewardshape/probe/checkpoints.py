"""Checkpoints that are whole or absent: written aside, then renamed; a torn one is passed over."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

COMPLETE = (
    "complete.json"  # written last into a checkpoint: size and SHA-256 of its files, and of the record then
)
ASIDE = "writing"
PIECE = 2**20  # bytes read at once


def checkpoint_name(step: int) -> str:
    """Name of a step's checkpoint.

    >>> checkpoint_name(30)
    'checkpoint-30'
    """
    return f"{PREFIX_CHECKPOINT_DIR}-{step}"


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was made at."""
    return int(checkpoint.name.rpartition("-")[2])


def numbered_checkpoints(folder: Path) -> list[Path]:
    """Every checkpoint in a folder, newest first, whole or not."""
    numbered = [
        path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdecimal()
    ]
    return sorted(numbered, key=step_of, reverse=True)


def newest_whole(
    folder: Path, *, last: float = math.inf, record: Path | None = None
) -> tuple[Path | None, list[str]]:
    """The newest checkpoint, at most of step `last`, whose files are what was written; of each newer one, what is not.

    Every byte is read: a flipped bit would end in another trajectory without a word. With `record`, one that was made
    beside another record is passed over too.
    """
    damage: list[str] = []
    for path in numbered_checkpoints(folder):
        if step_of(path) <= last:
            harm = damage_of(path) or (record and made_beside_another(path, record))
            if not harm:
                return path, damage
            damage.append(f"{path}: {harm}")
    return None, damage


def damage_of(checkpoint: Path, *, contents: bool = True) -> str | None:
    """What of a checkpoint is not as it was written; None of a whole one. Without `contents` by sizes alone."""
    try:
        files, _ = _as_written(checkpoint)
        for name, (size, digest) in files.items():
            if (checkpoint / name).stat().st_size != size:
                return f"{name} is torn"
            if contents and _digest(checkpoint / name) != digest:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return f"{COMPLETE} cannot be read"
    return None


def _as_written(checkpoint: Path) -> tuple[dict[str, tuple[int, str]], tuple[int, str]]:
    """Size and SHA-256 of every file of a checkpoint by its name, and of the record, when it was made."""
    written = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
    size, digest = written["record"]
    return written["files"], (size, digest)


def made_beside_another(checkpoint: Path, record: Path) -> str | None:
    """What of a record is not as it was when a whole checkpoint was made; None where it begins as it was then."""
    _, (size, digest) = _as_written(checkpoint)
    found = _digest(record, size)
    if found == digest:
        return None
    return f"{record.name} is not the record that it was made with (SHA-256 {found[:12]}, then {digest[:12]})"


def keep_whole(folder: Path, step: int, *, keep: int, record: Path) -> None:
    """Put the checkpoint that lies aside in its place, on the disk, and delete all but the newest `keep`.

    Both sides of a run are bound to each other: the checkpoint knows what `record` was when it was made.
    """
    name = checkpoint_name(step)
    aside = folder / ASIDE
    written = {}
    for file in sorted(path for path in (aside / name).rglob("*") if path.is_file()):
        to_disk(file)
        written[file.relative_to(aside / name).as_posix()] = (file.stat().st_size, _digest(file))
    complete = aside / name / COMPLETE
    then = (record.stat().st_size, _digest(record))
    complete.write_text(json.dumps({"files": written, "record": then}, indent=1), encoding="utf-8")
    to_disk(complete)
    to_disk(aside / name)
    shutil.rmtree(folder / name, ignore_errors=True)
    os.replace(aside / name, folder / name)
    to_disk(folder)
    shutil.rmtree(aside, ignore_errors=True)
    whole = [path for path in numbered_checkpoints(folder) if damage_of(path, contents=False) is None]
    for old in whole[keep:]:
        shutil.rmtree(old)


def forget_later(folder: Path, step: int) -> None:
    """Delete the checkpoints of steps after this one: what they go on from is done again."""
    for checkpoint in numbered_checkpoints(folder):
        if step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)


def to_disk(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, would survive a power cut, where the system can do that."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError:  # nor do all file systems know this for a folder
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _digest(file: Path, size: float = math.inf) -> str:
    """SHA-256 of a file, or of its first bytes."""
    digest, left = hashlib.sha256(), size
    with open(file, "rb") as stream:
        while piece := stream.read(int(min(left, PIECE))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()

"""Checkpoints that are whole or absent: written aside, then renamed; a torn one is passed over."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

COMPLETE = "complete.json"  # written last into a checkpoint: the size of each of its files
ASIDE = "writing"


def checkpoint_name(step: int) -> str:
    """Name of a step's checkpoint.

    >>> checkpoint_name(30)
    'checkpoint-30'
    """
    return f"{PREFIX_CHECKPOINT_DIR}-{step}"


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was made at."""
    return int(checkpoint.name.rpartition("-")[2])


def whole_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, newest first."""
    numbered = [
        path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()
    ]
    return [path for path in sorted(numbered, key=step_of, reverse=True) if _is_whole(path)]


def keep_whole(folder: Path, step: int, *, keep: int) -> None:
    """Put the checkpoint that lies aside in its place, and delete all but the newest `keep`."""
    name = checkpoint_name(step)
    aside = folder / ASIDE
    sizes = dict(sorted(_sizes(aside / name)))
    (aside / name / COMPLETE).write_text(json.dumps(sizes, indent=1), encoding="utf-8")
    shutil.rmtree(folder / name, ignore_errors=True)
    os.replace(aside / name, folder / name)
    shutil.rmtree(aside, ignore_errors=True)
    for old in whole_checkpoints(folder)[keep:]:
        shutil.rmtree(old)


def _sizes(checkpoint: Path) -> Iterator[tuple[str, int]]:
    for file in checkpoint.rglob("*"):
        if file.is_file():
            yield file.relative_to(checkpoint).as_posix(), file.stat().st_size


def _is_whole(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False

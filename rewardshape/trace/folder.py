"""A run folder: the one place that knows the names of its files, and writes them whole."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rewardshape.errors import InputError

Status = Literal["running", "done", "interrupted", "diverged", "failed"]


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, or of the command that made several.

    Parameters
    ----------
    path : Path
        The folder.

    Examples
    --------
    >>> RunFolder(Path("runs/embedded")).trace.as_posix()
    'runs/embedded/trace.jsonl'
    """

    path: Path

    @property
    def manifest(self) -> Path:
        """Every setting, versions, data fingerprint, device, status."""
        return self.path / "run.json"

    @property
    def trace(self) -> Path:
        """The record."""
        return self.path / "trace.jsonl"

    def damaged(self) -> Iterator[Path]:
        """Where the record lies as it was before ``--repair``, the first time it was asked for, the second, …"""
        for number in itertools.count(1):
            yield self.path / f"trace.damaged{'' if number == 1 else f'-{number}'}.jsonl"

    @property
    def timing(self) -> Path:
        """Seconds per step, apart from the record so that two equal runs have the same record."""
        return self.path / "timing.jsonl"

    @property
    def probe_set(self) -> Path:
        """The texts and tokens of the probe pairs, for people and for the report."""
        return self.path / "probe_set.jsonl"

    @property
    def prompts(self) -> Path:
        """The texts of the prompts that were sampled."""
        return self.path / "prompts.jsonl"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint kept."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """The pictures drawn when the run ended."""
        return self.path / "figures"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def command(self) -> Path:
        """Of the command's folder: its settings, for ``--resume``."""
        return self.path / "command.json"

    @property
    def lock(self) -> Path:
        """Of the command's folder: held by the process that works in it; without one, the file means nothing."""
        return self.path / ".lock"

    @property
    def reference(self) -> Path:
        """Of the command's folder: log-probs of every pair under the untouched model."""
        return self.path / "reference.json"

    @property
    def pushing(self) -> Path:
        """Texts of the training pairs that pushed chosen down most, where influence is measured."""
        return self.path / "pushing_pairs.jsonl"

    @property
    def dropped(self) -> Path:
        """Of a run with ``--drop``: the criterion, and the ids of the pairs that were left out."""
        return self.path / "dropped.json"

    @property
    def what_if(self) -> Path:
        """Of the folder of a command with ``--what-if``: what each change did, with intervals."""
        return self.path / "what-if.csv"

    @property
    def comparison(self) -> Path:
        """Of a sweep's folder: the runs side by side."""
        return self.path / "comparison.csv"

    def read_manifest(self) -> dict[str, Any]:
        """The manifest; empty where there is none.

        Raises
        ------
        InputError
            With the file's name, where it is damaged.
        """
        return read_json(self.manifest, PARTS) if self.manifest.is_file() else {}

    def read_command(self) -> dict[str, Any]:
        """What the command was; empty where no command made the folder. Raises as `read_manifest` does."""
        return read_json(self.command, {"settings": {}, "runs": list}) if self.command.is_file() else {}

    def is_left(self) -> bool:
        """Whether no process of this machine works here any more: its lock, or that of the command's folder, is free.

        A folder without a lock, a copied one say, is not known to be left; nor is one where locks cannot be asked.
        """
        locks = [folder.lock for folder in (self, RunFolder(self.path.parent)) if folder.lock.is_file()]
        return bool(locks) and all(map(_is_free, locks))

    def status_of(self, manifest: Mapping[str, Any]) -> str:
        """How a run stands, in its manifest's word; ``killed`` where that is `running` and nobody works there."""
        said = str(manifest.get("status", "done"))
        return "killed" if said == "running" and self.is_left() else said

    def planned_runs(self) -> list[str]:
        """Of the command's folder: the names of all runs of a sweep, begun or not; empty of a single run."""
        return [str(name) for name in self.read_command().get("runs", ())]

    def set_status(self, status: Status, reason: str = "") -> None:
        """Say in the manifest how the run stands, and why where it `diverged` or `failed`."""
        manifest = {key: value for key, value in self.read_manifest().items() if key != "reason"}
        write_json(self.manifest, {**manifest, "status": status, **({"reason": reason} if reason else {})})

    def set_status_in_place(self, status: str) -> None:
        """The same without any room on the disk: over the word that stands there, which must not be shorter."""
        with open(self.manifest, "rb+") as stream:
            before = stream.read()
            found = re.search(rb'(?m)^ "status": ("[^"\\\\]*")', before)
            after = json.dumps(status).encode()
            if found and len(after) <= len(found[1]):
                stream.seek(found.start(1))
                # White space before the comma is JSON still.
                stream.write(after.ljust(len(found[1])))


def _is_free(lock: Path) -> bool:
    try:
        import fcntl

        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which closing lets go
    except (ImportError, OSError):  # another system; held, or a file system without locks
        return False
    return True


Parts = Mapping[str, "type | tuple[type, ...] | Parts"]
"""Of what types the values of a mapping are, by name; of one that is a mapping, its own parts."""

PARTS: Parts = {
    "swept": {},
    "versions": {},
    "device": {},
    "status": str,
    "reason": str,
    "command": str,
    "run": {"seed": int, "learning_rate": (int, float), "data": list},
    "objective": {"name": str, "parameters": {}},
    "model": {"checkpoint": str},
    "data": {"files": list},
}
"""The parts of a manifest whose types are relied upon where it is read."""


def read_json(file: Path, parts: Parts) -> dict[str, Any]:
    """A mapping, as `write_json` wrote it, whose `parts` are of these types where they are there."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        wrong = next(_damaged(content, parts), None)
    except (ValueError, AttributeError, RecursionError):
        raise InputError(f"{file}: cannot be read, the file was damaged; put back a copy") from None
    if wrong:
        raise InputError(f"{file}: its {wrong!r} is damaged; put back a copy")
    return dict(content)


def _damaged(content: Mapping[str, Any], parts: Parts) -> Iterator[str]:
    """Names of the parts that are of another type; a value may be missing or null, a mapping missing."""
    for name, kind in parts.items():
        if isinstance(kind, Mapping):
            inner = content.get(name, {})
            yield from _damaged(inner, kind) if isinstance(inner, dict) else [name]
        elif not isinstance(content.get(name), (kind, type(None))):
            yield name


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file that is there whole or not at all, also after a power cut: aside, to the disk, then in its place."""
    aside = file.with_name(f"{file.name}.writing")
    try:
        with open(aside, "wb") as stream:
            stream.write(content.encode("utf-8", errors="replace") if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        aside.unlink(missing_ok=True)  # on a full disk, room for what still has to be said
        raise
    os.replace(aside, file)


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSON, a line each."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, whole."""
    write_whole(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

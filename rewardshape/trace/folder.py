"""A run folder: the one place that knows the names of its files, and writes them whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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

    @property
    def timing(self) -> Path:
        """Seconds per step, apart from the record so that two equal runs have the same record."""
        return self.path / "timing.jsonl"

    @property
    def probe_set(self) -> Path:
        """The texts and tokens of the probe pairs, for people and for the report."""
        return self.path / "probe_set.jsonl"

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
    def comparison(self) -> Path:
        """Of a sweep's folder: the runs side by side."""
        return self.path / "comparison.csv"

    def read_manifest(self) -> dict[str, Any]:
        """The manifest; empty where there is none."""
        if not self.manifest.is_file():
            return {}
        manifest: dict[str, Any] = json.loads(self.manifest.read_text(encoding="utf-8"))
        return manifest

    def planned_runs(self) -> list[str]:
        """Of the command's folder: the names of all runs of a sweep, begun or not; empty of a single run."""
        if not self.command.is_file():
            return []
        return list(json.loads(self.command.read_text(encoding="utf-8")).get("runs", []))

    def set_status(self, status: Status, reason: str = "") -> None:
        """Say in the manifest how the run stands, and why where it `diverged` or `failed`."""
        manifest = {key: value for key, value in self.read_manifest().items() if key != "reason"}
        write_json(self.manifest, {**manifest, "status": status, **({"reason": reason} if reason else {})})


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file that is there whole or not at all: aside, then in its place."""
    aside = file.with_name(f"{file.name}.writing")
    aside.write_bytes(content.encode("utf-8", errors="replace") if isinstance(content, str) else content)
    os.replace(aside, file)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, whole."""
    write_whole(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

"""A run's folder and the manifest in it: every setting, versions, data fingerprint, device."""

from __future__ import annotations

import json
import os
import platform
import shlex
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import rewardshape
from rewardshape.errors import InputError
from rewardshape.probe.inputs import Inputs, probe_texts
from rewardshape.probe.settings import GROUPS, Settings
from rewardshape.theory import Objective
from rewardshape.trace.format import MANIFEST_FILE, PROBE_SET_FILE

COMMAND_FILE = "command.json"  # in the folder of the command: its settings, for --resume
PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "datasets", "peft", "torchao", "numpy")


def make_folder(settings: Settings) -> Path:
    """The folder of this command: the one asked for, which must be new, or the next free name below runs/."""
    if settings.output.output is not None:
        folder = Path(settings.output.output)
        if not settings.output.resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"--output {folder}: exists already and is kept; choose another folder, or --resume to go on with it"
            )
        _make(folder)
        return folder
    name = Path(settings.checkpoint).name if settings.checkpoint else "embedded"
    for number in range(1, 100_000):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            _make(folder)
            return folder
    raise InputError("runs: full of runs of this name; give --output")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be made ({error.strerror})") from error


def recorded_settings(folder: Path) -> Settings:
    """The settings a command was started with, from its folder."""
    file = folder / COMMAND_FILE
    try:
        return Settings.from_dict(json.loads(file.read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--resume: {file} cannot be read, so {folder} is no run to go on with") from error


def write_command(folder: Path, settings: Settings) -> None:
    """Record the settings of the whole command."""
    _write_json(folder / COMMAND_FILE, {"command": command_line(settings), "settings": settings.as_dict()})


def write_manifest(
    folder: Path,
    settings: Settings,
    objective: Objective,
    inputs: Inputs,
    device: torch.device,
    processes: int,
) -> None:
    """Write ``run.json`` and the texts of the probe set, before the run begins."""
    folder.mkdir(parents=True, exist_ok=True)
    flat = settings.as_dict()
    single = {key: (value[0] if value else None) for key, value in flat.items() if key in _SWEPT}
    tokenizer = inputs.tokenizer
    _write_json(
        folder / MANIFEST_FILE,
        {
            "rewardshape": rewardshape.__version__,
            "status": "running",
            "command": command_line(settings),
            "run": {**flat, **single},
            "objective": {"name": objective.name, "parameters": dict(objective.parameters)},
            "model": {
                "checkpoint": settings.checkpoint or "embedded",
                "architecture": inputs.config.architectures,
                "parameters": inputs.parameters,
                "special_tokens": {
                    "bos": tokenizer.bos_token,
                    "eos": tokenizer.eos_token,
                    "pad": tokenizer.pad_token,
                },
                "log_probs": inputs.reader.name,
            },
            "data": {**inputs.data, "end_token": not settings.data.no_end_token},
            "versions": {"python": platform.python_version(), **_versions()},
            "device": {
                "type": str(device),
                "name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
                "threads": torch.get_num_threads(),
                "processes": processes,
            },
        },
    )
    with open(folder / PROBE_SET_FILE, "w", encoding="utf-8") as file:
        file.writelines(
            json.dumps(record, ensure_ascii=False) + "\n" for record in probe_texts(inputs.probe, tokenizer)
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder; empty where there is none."""
    file = folder / MANIFEST_FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def set_status(folder: Path, status: str) -> None:
    """``running``, ``done``, ``interrupted`` or ``failed: why``."""
    _write_json(folder / MANIFEST_FILE, {**read_manifest(folder), "status": status})


def command_line(settings: Settings) -> str:
    """The command that makes this run again."""
    words = ["python", "-m", "rewardshape.probe", *([settings.checkpoint] if settings.checkpoint else [])]
    flat = settings.as_dict()
    for cls in GROUPS:
        for f in fields(cls):
            value = flat[f.name]
            if value == f.default or f.name in ("output", "resume", "quiet", "json", "dry_run"):
                continue
            words.append(f"--{f.name.replace('_', '-')}")
            if value is not True:
                words += [f"{v:g}" if isinstance(v, float) else str(v) for v in _as_tuple(value)]
    return shlex.join(words)


_SWEPT = ("objective", "alpha", "beta", "gamma", "gamma_beta_ratio")


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _write_json(file: Path, content: Any) -> None:
    aside = file.with_name(file.name + ".writing")
    aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, file)

"""A run's folder and the manifest in it: every setting, versions, data fingerprint, device."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import rewardshape
from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.command import command_line
from rewardshape.probe.distributed import Place
from rewardshape.probe.grid import ModelFacts, PlannedRun
from rewardshape.probe.inputs import Inputs, probe_texts
from rewardshape.probe.measure.logprobs import Reader
from rewardshape.probe.settings import Settings
from rewardshape.theory import Objective
from rewardshape.trace.folder import RunFolder, json_lines, write_json, write_whole

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "datasets",
    "peft",
    "torchao",
    "trl",
    "numpy",
)


def make_folder(settings: Settings) -> Path:
    """The folder of this command: the one asked for, which must be new, or the next free name below runs/."""
    if settings.output.output is not None:
        folder = Path(settings.output.output)
        if not settings.output.resume and folder.exists() and not _is_free(folder):
            raise InputError(
                f"--output {folder}: exists already and is kept; choose another folder, or --resume to go on with it"
            )
        _make(folder, exist_ok=True)
        return folder
    for folder in _free_folders(settings):
        try:
            _make(folder, exist_ok=False)
        except FileExistsError:  # another process was quicker
            continue
        return folder
    raise InputError("runs: full of runs of this name; give --output")


def _is_free(folder: Path) -> bool:
    """Whether there is nothing in it but what a start left that came to nothing, whose lock is let go."""
    return folder.is_dir() and all(path == RunFolder(folder).lock for path in folder.iterdir())


def folder_to_make(settings: Settings) -> Path:
    """The folder that `make_folder` would make now."""
    return (
        Path(settings.output.output) if settings.output.output is not None else next(_free_folders(settings))
    )


def _free_folders(settings: Settings) -> Iterator[Path]:
    """Names below runs/ that nothing has."""
    name = Path(settings.checkpoint).resolve().name or "model" if settings.checkpoint else "embedded"
    if settings.training.what_if:
        name += "-what-if"
    for number in range(1, 100_000):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            yield folder


def _make(folder: Path, *, exist_ok: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            raise
        raise InputError(f"--output {folder}: cannot be made ({error.strerror})") from error


def write_command(
    folder: Path, settings: Settings, runs: Sequence[str] = (), in_memory: Sequence[str] = ()
) -> None:
    """Record the settings of the whole command, of a sweep the names of its `runs`, and what was given as objects."""
    written = {"command": command_line(settings), "settings": settings.as_dict()}
    more = {"runs": list(runs), "in_memory": list(in_memory)}
    write_json(RunFolder(folder).command, written | {name: value for name, value in more.items() if value})


def require_objects(settings: Settings, given: Sequence[str]) -> None:
    """To resume what was started with objects takes the same objects, which only their owner can give again."""
    if not settings.output.resume or settings.output.output is None:
        return
    recorded = json.loads(RunFolder(Path(settings.output.output)).command.read_text(encoding="utf-8"))
    for name in recorded.get("in_memory", []):
        if name not in given:
            raise InputError(
                f"--resume: the run was started from Python, its {name} given as an object; go on there, with "
                "run_probe(…, output=…, resume=True) and the same objects"
            )


def manifest_of(
    run: PlannedRun,
    *,
    home: Path,
    model: ModelFacts,
    fingerprint: str,
    inputs: Inputs,
    reader: Reader,
    place: Place,
) -> dict[str, Any]:
    """What ``run.json`` says when a run begins; `home` is the command's folder, `fingerprint` that of the weights."""
    settings = run.settings.replace(output=str(home))
    return {
        "rewardshape": rewardshape.__version__,
        "status": "running",
        "command": command_line(settings),
        "run": settings.as_dict(),
        "swept": dict(run.swept),
        **({} if run.intervention is None else {"what_if": dataclasses.asdict(run.intervention)}),
        "objective": stated(run.objective),
        "model": {
            "checkpoint": settings.checkpoint or "embedded",
            "fingerprint": fingerprint,
            "architecture": model.config.architectures,
            "parameters": model.parameters,
            "special_tokens": special_tokens(inputs.tokenizer),
            "log_probs": reader.name,
        },
        "data": {**inputs.report, "end_token": not settings.data.no_end_token},
        **surroundings(place),
    }


def stated(objective: Objective) -> dict[str, Any]:
    """An objective as a manifest has it once it is read back."""
    entry = {"name": objective.name, "parameters": dict(objective.parameters)}
    plain: dict[str, Any] = json.loads(json.dumps(entry))
    return plain


def write_manifest(
    folder: Path, manifest: Mapping[str, Any], probe: Sequence[EncodedPair], tokenizer: Any
) -> None:
    """Write ``run.json`` and the texts of the probe set, before the run begins."""
    folder.mkdir(parents=True, exist_ok=True)
    files = RunFolder(folder)
    write_json(files.manifest, manifest)
    write_whole(files.probe_set, json_lines(probe_texts(probe, tokenizer)))


def special_tokens(tokenizer: Any) -> dict[str, str | None]:
    """What a tokenizer begins, ends and pads texts with."""
    return {"bos": tokenizer.bos_token, "eos": tokenizer.eos_token, "pad": tokenizer.pad_token}


def surroundings(place: Place) -> dict[str, Any]:
    """Versions of the packages, and what it runs on."""
    on_cuda = place.device.type == "cuda"
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "device": {
            "type": str(place.device),
            "name": torch.cuda.get_device_name(place.device) if on_cuda else platform.machine(),
            "threads": torch.get_num_threads(),
            "processes": place.processes,
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found

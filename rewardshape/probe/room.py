"""The memory there is, and a bound of what a run needs that costs nothing to reckon."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from rewardshape.data import EncodedPair
from rewardshape.probe.distributed import here
from rewardshape.probe.measure import projection
from rewardshape.probe.measure.probe_set import num_tokens

MUCH = 2e9  # bytes; to fault a gigabyte in again takes a third of a second, among other programs one
CONTROL_GROUPS = Path("/sys/fs/cgroup")


def limits_of_groups(own: Path = Path("/proc/self/cgroup"), root: Path = CONTROL_GROUPS) -> list[Path]:
    """Where the limits of this process's memory would stand: of its control group, and of every one around that.

    Of both versions; in a container's own name space the group is its root.
    """
    found = []
    for line in own.read_text().splitlines() if own.is_file() else ():
        _, kinds, group = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top, name = (root / "memory", "memory.limit_in_bytes") if kinds else (root, "memory.max")
        folder = top / group.lstrip("/")
        found += [place / name for place in (folder, *folder.parents) if place.is_relative_to(top)]
    return found


def device_memory(limits: Sequence[Path] | None = None) -> tuple[str, int]:
    """The device of this process and its memory in bytes: of a machine what its container or job may use of it."""
    device = here().device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
    files = [file for file in (limits_of_groups() if limits is None else limits) if file.is_file()]
    given = [int(text) for file in files if (text := file.read_text().strip()).isdigit()]
    return f"this machine ({device.type})", min([psutil.virtual_memory().total, *given])


def process_memory() -> int:
    """Bytes of the device that this process holds already: of a machine libraries and data, of a GPU none."""
    return 0 if here().device.type == "cuda" else psutil.Process().memory_info().rss


def give_back() -> None:
    """Hand the step's room and, in a process that holds much, what the C library (glibc) keeps back to the system.

    Between training, measuring and saving, whose sizes differ: what one has freed would lie beside what the next takes.
    """
    projection.SPARE.forget()
    if here().device.type == "cpu" and process_memory() > MUCH:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def at_most(config: Any, parameters: int, pairs: Sequence[EncodedPair]) -> float:
    """Bytes that a run of any precision stays below, from the size of the model and of its largest batch.

    Weights, two moments and gradients in float32, these twice (`Memory.kept`); a hundred numbers a token, layer and
    unit of width, where a layer of attention and of a feed-forward network keeps some thirty; attention's products
    whole; logits twice.
    """
    text = config.get_text_config()
    width = max(getattr(text, name, None) or 0 for name in ("hidden_size", "intermediate_size", "n_inner"))
    width = max(width, 4 * text.hidden_size)
    tokens = num_tokens(*pairs)
    layers, heads = text.num_hidden_layers, getattr(text, "num_attention_heads", None) or 1
    products = heads * tokens * tokens
    return 4.0 * (
        5 * parameters + layers * (25 * tokens * width + 4 * products) + 4 * tokens * text.vocab_size
    )

"""Several processes: what one must know of the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from rewardshape.errors import InputError

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # how long one process may keep the others waiting


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, and the device it computes on."""

    process: int
    processes: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether it is this process that writes and speaks."""
        return self.process == 0


def here() -> Place:
    """The place of this process."""
    state = PartialState()
    if (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    ):  # also by a loop without a launcher
        return Place(torch.distributed.get_rank(), torch.distributed.get_world_size(), state.device)
    return Place(state.process_index, state.num_processes, state.device)


def is_sharded() -> bool:
    """Whether the launcher asked for a model that no process holds as a whole (FSDP)."""
    return bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))


def refuse_deepspeed() -> None:
    """`InputError` where a launcher asks for DeepSpeed, which the probe does not train under."""
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        raise InputError(
            "DeepSpeed: the probe shards with FSDP2 (accelerate launch --use_fsdp --fsdp_version 2); in a trainer "
            "under DeepSpeed, measure with rewardshape.ProbeCallback"
        )


def join() -> None:
    """Meet the processes that torchrun or accelerate started beside this one; alone, nothing happens."""
    if alone():
        return
    if not torch.accelerator.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)


def alone() -> bool:
    """Whether this process was launched without others."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1


def fails_first() -> bool:
    """Whether no other process has reported a failure before: the first one says why, the others keep quiet."""
    if alone():
        return True
    if not torch.distributed.is_initialized():  # too early to ask, and then all fail of the same
        return int(os.environ.get("RANK", "0")) == 0
    try:
        return torch.distributed.distributed_c10d._get_default_store().add("rewardshape/failures", 1) == 1
    except RuntimeError:  # the process that held the store is gone
        return False


def gather(mine: Any) -> list[Any]:
    """One object from every process, in the order of their ranks; alone, just one's own."""
    if here().processes == 1:
        return [mine]
    everyone: list[Any] = [None] * here().processes
    torch.distributed.all_gather_object(everyone, mine)
    return everyone


def gather_by_place(mine: Mapping[int, T]) -> list[T]:
    """What the processes hold of places 0, 1, …, as one list; a place that several hold comes once."""
    found = {place: value for part in gather(mine) for place, value in part.items()}
    return [found[place] for place in range(len(found))]


def on_main(function: Callable[[], T]) -> T:
    """The main process calls `function`; all get its result, or raise its error."""
    first: Any = gather_attempts(lambda: function() if here().is_main else None)[0]
    return first


def gather_attempts(function: Callable[[], T]) -> list[T]:
    """Every process calls `function`; all get all results, or all raise the first error."""
    try:
        result: Any = function()
    except (InputError, OSError) as error:
        result = error
    results = gather(result)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results

"""Several processes: what one must know of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed
from accelerate import PartialState

from rewardshape.errors import InputError

T = TypeVar("T")


def gather(mine: Any) -> list[Any]:
    """One object from every process, in the order of their ranks; alone, just one's own."""
    if PartialState().num_processes == 1:
        return [mine]
    everyone: list[Any] = [None] * PartialState().num_processes
    torch.distributed.all_gather_object(everyone, mine)
    return everyone


def on_main(function: Callable[[], T]) -> T:
    """The main process calls `function`; all get its result, or raise its `InputError`."""
    result: Any = None
    if PartialState().is_main_process:
        try:
            result = function()
        except InputError as error:
            result = error
    result = gather(result)[0]
    if isinstance(result, InputError):
        raise result
    return result

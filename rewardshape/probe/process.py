"""The process a probe runs in: set up for the run, and left as it was found."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator

NOISY = ("torchao", "torch.utils._pytree")  # they warn of kernels we do not use, while being imported


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Within it, packages that complain while they are imported are not heard."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def share_cores() -> None:
    """Have the threads of a step sleep, not spin, where they wait for each other long; to be called before torch is.

    GNU's OpenMP lets a thread spin while another does its part, and on cores that other programs use, too, that takes
    the time which the other needs. What the user has set stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


MAPPED = 2**28
"""Bytes from which the C library takes an allocation from the system for itself and hands it back when it is freed."""
WAITING = 2**30  # bytes of freed memory that it keeps at most for the next allocation, until `give_back`


def keep_memory() -> None:
    """Have glibc keep what a step frees for the next one, which else faults it in again page by page.

    A ninth of a step's time on a chat model; other C libraries, and what the user has set, stay as they are.
    """
    if any(
        name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    ):
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        trim, mmap = -1, -3  # of malloc.h
        # Older ones refuse more than 32 MiB, and keep to their own judgement.
        if libc.mallopt(mmap, MAPPED):
            libc.mallopt(trim, WAITING)


ASKING = [
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if (number := getattr(signal, name, None)) is not None
]
"""Signals that ask a process to end: a person's, a terminal's, and those by which schedulers warn before they kill."""


class Ended(KeyboardInterrupt):
    """A signal that asks a process to end, raised as Ctrl-C is."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Within it whatever asks for an end raises `Ended`, so that what it ends can say how to go on."""

    def raise_(number: int, _: object) -> None:
        raise Ended(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    default = [number for number in ASKING if signal.getsignal(number) == signal.SIG_DFL]
    for number in default:
        signal.signal(number, raise_)
    try:
        yield
    finally:
        for number in default:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def set_up() -> Iterator[None]:
    """Within it denormals are flushed, transformers speaks only of errors, seeds may be set; then all is as before."""
    import numpy as np
    import torch

    environment, path = dict(os.environ), list(sys.path)
    drawn = random.getstate()
    numpy_drawn = np.random.get_state()  # noqa: NPY002 - the global one, which `set_seed` sets
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    flushed = flushes_denormals()
    with (
        quiet_imports(),
        warnings.catch_warnings(),
        _quiet_transformers(),
        torch.random.fork_rng(devices),
    ):
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        warnings.filterwarnings(
            "ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning
        )  # peft
        # A saturated loss leaves gradients below 1e-38; on such denormals a CPU is 10 to 100 times slower.
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(flushed)
            random.setstate(drawn)
            np.random.set_state(numpy_drawn)  # noqa: NPY002
            sys.path[:] = path
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)


def keep_few_kernels(pairs: int) -> None:
    """Have oneDNN keep the kernels that a step on so many pairs uses, not those of all before; what is set stands.

    It makes one for every shape, up to 3 MB each, and batches have ever new ones; torch and oneDNN keep 1,024 each
    unless told otherwise, which they ask once, at the first kernel. A layer uses 20 kernels for its weights and some
    ten for each pair's attention. For `set_up`, which takes it back.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(32 + 12 * pairs))


def flushes_denormals() -> bool:
    """Whether this thread takes numbers below the smallest normal one for zero; torch can set it but not say it."""
    import torch

    return (torch.full((1,), 1e-310, dtype=torch.float64) * 1).item() == 0


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars, hub_bars_off = transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        if not hub_bars_off:
            enable_progress_bars()

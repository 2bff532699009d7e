"""A probe run leaves the process that it ran in as it found it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

STATE = """
import json, logging, os, random, sys, warnings
import matplotlib, numpy, torch, transformers
from huggingface_hub.utils import are_progress_bars_disabled

def state():
    loggers = {"": logging.root, **logging.root.manager.loggerDict}
    return {
        "filters": [str(entry) for entry in warnings.filters],
        "loggers": {
            name: [logger.level, logger.disabled, logger.propagate, len(logger.handlers)]
            for name, logger in loggers.items()
            if isinstance(logger, logging.Logger)
        },
        "verbosity": transformers.utils.logging.get_verbosity(),
        "bars": [transformers.utils.logging.is_progress_bar_enabled(), are_progress_bars_disabled()],
        "backend": matplotlib.get_backend(auto_select=False),
        "style": {name: str(value) for name, value in matplotlib.rcParams.items()},
        "path": list(sys.path),
        "environment": dict(os.environ),
        "drawn": [str(random.getstate()), str(numpy.random.get_state()), torch.get_rng_state().tolist()],
        "denormal": (torch.full((1,), 1e-310, dtype=torch.float64) * 1).item(),
        "threads": torch.get_num_threads(),
        "signals": [str(__import__("signal").getsignal(number)) for number in (2, 15)],
    }

def changed(before, after):
    # A logger that is new was made, not changed.
    after["loggers"] = {name: logger for name, logger in after["loggers"].items() if name in before["loggers"]}
    return [name for name in before if before[name] != after[name]]
"""


CODE = """
import scipy.special, sympy, torch.fx, datasets, peft, torchao, tensorboard  # what adds its own filters when imported
before = state()
import rewardshape.probe.call, rewardshape.probe.run, rewardshape.probe.show
imported = [name for name in changed(before, state()) if name != "filters"]  # matplotlib's and pandas' own

torch.set_flush_denormal(False)
before = state()
try:
    rewardshape.run_probe("no-such-checkpoint", "no-such-file.jsonl")
except rewardshape.InputError:
    failed = changed(before, state())

trace = rewardshape.run_probe(
    steps=2, batch_size=4, probe_pairs=6, sample_every=2, samples=4, best_of=1, precision="mixed",
    gold="tests.probe.measure.test_sampling:word_count", output=sys.argv[1], quiet=True,
)
print(json.dumps({"imported": imported, "failed": failed, "run": changed(before, state()), "steps": len(trace.steps)}))
"""


def test_importing_failing_and_running_leave_the_process_as_it_was(tmp_path):
    """Loggers, warning filters, verbosity, backend and style of matplotlib, paths, environment, random state."""
    done = subprocess.run(
        [sys.executable, "-c", STATE + CODE, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"imported": [], "failed": [], "run": [], "steps": 3}


SPINS = """
import os, sys
from rewardshape.probe.__main__ import guarded
assert "torch" not in sys.modules  # which reads it once
print(guarded(lambda: print(os.environ.get("GOMP_SPINCOUNT")) or 0, str))
"""


def test_the_commands_threads_share_their_cores_unless_the_user_says_otherwise():
    plain = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    said = (({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None"))
    for given, expected in said:
        done = subprocess.run(
            [sys.executable, "-c", SPINS], capture_output=True, text=True, env=plain | given, check=True
        )
        assert done.stdout.split() == [expected, "0"]


FAULTS = """
import resource
from rewardshape.probe.__main__ import guarded
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(100_000_000)[::4096] = bytes(24415)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(guarded(lambda: print(faults(), faults()) or 0, str))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory as it likes")
def test_what_a_step_frees_waits_for_the_next_unless_the_user_says_otherwise():
    """A page of memory that the system gives anew is a fault; where pages are huge there are fifty of them."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    for given, again in (({}, False), ({"MALLOC_MMAP_THRESHOLD_": "1000000"}, True)):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], capture_output=True, text=True, env=plain | given, check=True
        )
        first, second, status = map(int, done.stdout.split())
        assert (status, first >= 40, second >= 40) == (0, True, again)


SHAPES = """
import sys, psutil, torch
from rewardshape.probe.process import keep_few_kernels, set_up
layer, memory = torch.nn.Linear(576, 1536).bfloat16(), psutil.Process().memory_info
def run(lengths):
    for length in lengths:
        layer(torch.randn(length, 576, dtype=torch.bfloat16)).sum().backward()
with set_up():
    keep_few_kernels(8)
    run(range(600, 725))
    before = memory().rss
    run(range(725, 800))
print((memory().rss - before) / 1e6)
"""


def test_batches_of_ever_new_sizes_do_not_fill_the_memory_with_kernels():
    grown = subprocess.run([sys.executable, "-c", SHAPES], capture_output=True, text=True, check=True).stdout
    assert float(grown) < 160  # MB; 75 shapes kept, with three kernels each, take 330

"""How long do long records take? One thread, processor seconds and peak memory, each beside its limit.

    python benchmarks/length.py                  # all; or name some: read curve judge report start
    python benchmarks/length.py --keep runs/long   # the records are made once, in this folder

A record of 100,000 steps (8 probe pairs and 4 pairs of the batch at every step, 2.4 million measured responses) for
curve, judgement and page, and one of 1,000,000 rows for reading; both by the writer that a run uses, without waiting
for the disk. Each contestant has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

LIMITS = {  # processor seconds, and GB of memory or MB of a file where there is such a limit
    "read": (10.0, "1,000,000 rows", 1.5),
    "curve": (30.0, "100,000 steps", None),
    "judge": (30.0, "100,000 steps", None),
    "report": (30.0, "100,000 steps", None),
}
STARTS = {"rewardshape --help": 0.3, "import rewardshape": 0.05}


def write(folder: Path, steps: int, pairs: int, batch: int) -> None:
    """A run whose chosen log-probs rise, fall and come back, with noise of the batch."""
    from rewardshape.trace import TraceWriter

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    os.fsync = lambda descriptor: None
    names = [f"pairs.jsonl:{i + 1}" for i in range(1000)]
    both = ["chosen", "rejected"]
    head = {
        "pair_id": [name for name in names[:pairs] for _ in both],
        "response": both * pairs,
        "num_tokens": [20] * (2 * pairs),
        "ref_logp_sum": [None] * (2 * pairs),
    }
    start = rng.normal(-40, 5, 2 * pairs)
    with TraceWriter(folder, head) as writer:
        for step in range(steps):
            moved = 4 * np.sin(3 * step / steps) - 12 * (step / steps) ** 2
            sums = start + moved * np.tile([0.5, 1.0], pairs) + rng.normal(0, 0.05, 2 * pairs)
            drawn = [names[pairs + (step * batch + i) % (1000 - pairs)] for i in range(batch)]
            train = {
                "pair_id": [name for name in drawn for _ in both],
                "response": both * batch,
                "logp_sum": rng.normal(-40, 5, 2 * batch),
                "ref_logp_sum": [None] * (2 * batch),
                "num_tokens": [20] * (2 * batch),
            }
            metrics = {
                "loss": float(rng.normal(0.6, 0.05)),
                "margin": step / steps,
                "accuracy": 0.6,
                "grad_norm": 1.0,
            }
            writer.append(
                step,
                metrics=metrics if step else {},
                train=train if step else None,
                probe={"logp_sum": sums, "greedy_logp_sum": sums + 3, "entropy_sum": -sums},
                seconds=0.1,
            )
    objective = {"name": "alphapo", "parameters": {"alpha": 0.25, "beta": 2.5, "gamma": 0.25}}
    (folder / "run.json").write_text(
        json.dumps({"status": "done", "objective": objective, "run": {"seed": 0}})
    )


def read(folder: Path) -> str:
    from rewardshape import read_trace

    return f"{len(read_trace(folder / 'rows').responses):,} rows"


def curve(folder: Path) -> str:
    from rewardshape import read_trace
    from rewardshape.analysis import displacement_curve

    return f"{len(displacement_curve(read_trace(folder / 'steps'))):,} rows"


def judge(folder: Path) -> str:
    import rewardshape

    return str(rewardshape.judge(folder / "steps").word)


def report(folder: Path) -> str:
    from rewardshape.report import write_report

    return f"{write_report(folder / 'steps').stat().st_size / 1e6:.2f} MB"


TASKS: dict[str, Callable[[Path], str]] = {"read": read, "curve": curve, "judge": judge, "report": report}


def alone(name: str, folder: Path) -> None:
    """One task in this process: what it found, processor seconds, peak memory."""
    began = time.process_time()
    found = TASKS[name](folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([found, time.process_time() - began, used.ru_maxrss / 1e6]))


def starts(rounds: int = 9) -> None:
    """Processor seconds of a start, beyond those of a bare interpreter's, the least of some rounds."""
    commands = {
        "bare": [sys.executable, "-c", "pass"],
        "import rewardshape": [sys.executable, "-c", "import rewardshape"],
        "rewardshape --help": [sys.executable, "-m", "rewardshape", "--help"],
    }
    least = dict.fromkeys(commands, float("inf"))
    for _ in range(rounds):
        for name, words in commands.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            least[name] = min(least[name], spent)
    for name, limit in STARTS.items():
        bare = least["bare"] if name.startswith("import") else 0.0
        print(f"| {name} | | {least[name] - bare:.3f} | {limit} | | |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, "start", []], default=[])
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        alone(arguments.alone, arguments.keep)
        return 0
    with TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        for name, shape in {"rows": (15_625, 16, 16), "steps": (100_000, 8, 4)}.items():
            if not (folder / name / "run.json").is_file():
                write(folder / name, *shape)
        print("| task | found | s | limit | GB | limit |\n|---|---|---|---|---|---|")
        for name in [task for task in TASKS if task in arguments.tasks or not arguments.tasks]:
            words = [sys.executable, __file__, "--alone", name, "--keep", str(folder)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            found, seconds, memory = json.loads(done.stdout.splitlines()[-1])
            limit, what, room = LIMITS[name]
            print(
                f"| {name}, {what} | {found} | {seconds:.1f} | {limit:g} | {memory:.2f} | {room or ''} |",
                flush=True,
            )
        if "start" in arguments.tasks or not arguments.tasks:
            starts()
    return 0


if __name__ == "__main__":
    sys.exit(main())

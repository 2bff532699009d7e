"""How long a long log takes to read, and in how much memory: ``python benchmarks/logs.py``.

A console of TRL of 76 MB, as a run of days leaves it: a record of fourteen numbers each ten steps, every refresh of the
progress bar between, an evaluation each hundred records. Read in a process of its own, with one thread.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEGABYTES = 76
MOST_SECONDS, MOST_MEGABYTES = 15.0, 300.0


def write_console(path: Path, megabytes: int, seed: int = 0) -> int:
    """Write the console and return how many training records it holds."""
    draw = random.Random(seed)
    records, total = 0, 2_000_000
    with path.open("w", encoding="utf-8") as file:
        for step in range(10, total, 10):
            if file.tell() >= megabytes * 1e6:
                break
            for at in range(step - 4, step + 1, 2):
                done = at / total
                bar = "█" * int(10 * done) + " " * (10 - int(10 * done))
                file.write(f"\r {done:3.0%}|{bar}| {at}/{total} [1:02:03<99:00:00,  1.31s/it]")
            chosen, rejected = -draw.random() * step / total, -2 * draw.random() * step / total
            values = {
                "loss": round(0.6931 - draw.random() / 10, 4), "grad_norm": draw.uniform(1, 9), "learning_rate": 1e-6,
                "rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/accuracies": draw.random(),
                "rewards/margins": chosen - rejected, "logps/chosen": draw.uniform(-300, -100),
                "logps/rejected": draw.uniform(-300, -100), "logits/chosen": draw.uniform(-3, -1),
                "logits/rejected": draw.uniform(-3, -1), "epoch": round(step / total, 2),
            }  # fmt: skip
            prefix = "eval_" if step % 1000 == 0 else ""
            file.write(f"\n{ {prefix + k if k != 'epoch' else k: v for k, v in values.items()} }\n")
            records += not prefix
    return records


READ = """
import resource, sys, time
from rewardshape.logs import read_logs
begin = time.process_time()
(log,) = read_logs(sys.argv[1])
rows = len(log.split("train"))
print(rows, time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def measure(megabytes: int) -> bool:
    """Write, read and judge by the limits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.log"
        records = write_console(path, megabytes)
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True
        )
        wall = time.perf_counter() - begin
    rows, seconds, peak = done.stdout.split()
    good = int(rows) == records and float(seconds) <= MOST_SECONDS and float(peak) <= MOST_MEGABYTES
    print(
        f"{megabytes} MB, {records} training records: {rows} read in {float(seconds):.1f} s of one core "
        f"({wall:.1f} s wall with imports), peak {float(peak):.0f} MB: {'within' if good else 'BEYOND'} the limits of "
        f"{MOST_SECONDS:g} s and {MOST_MEGABYTES:g} MB"
    )
    return good


def fuzz(examples: int) -> int:
    """Run the tests' own strategies on many random examples."""
    tests = Path(__file__).parents[1] / "tests" / "logs" / "test_hostile.py"
    environment = os.environ | {"REWARDSHAPE_FUZZ": str(examples)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--timeout=0",
        "-k",
        "any_text or damaged",
        str(tests),
    ]
    return subprocess.run(command, env=environment, check=False).returncode


def main() -> int:
    """Run what is asked for; 0 where it is within its limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=MEGABYTES)
    parser.add_argument("--fuzz", type=int, metavar="N", help="read N random and N damaged texts instead")
    arguments = parser.parse_args()
    if arguments.fuzz:
        return fuzz(arguments.fuzz)
    return 0 if measure(arguments.megabytes) else 1


if __name__ == "__main__":
    sys.exit(main())

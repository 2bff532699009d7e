"""How long a long log takes to read, and in how much memory: ``python benchmarks/logs.py``.

A console of TRL of 76 MB, as a run of days leaves it: a record of fourteen numbers each ten steps, every refresh of the
progress bar between, an evaluation each hundred records. Read in a process of its own, with one thread.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
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


# What is measured: reading alone, and the whole command with its judgement and its figure.
DONE = """
print(rows, time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
READ = """
import resource, sys, time
from rewardshape.logs import read_logs
begin = time.process_time()
(log,) = read_logs(sys.argv[1])
rows = len(log.split("train"))
"""
DIAGNOSE = """
import contextlib, io, resource, sys, time
from rewardshape.diagnose import main
begin = time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    failed = main([sys.argv[1], "--output", sys.argv[1] + ".figures", "--json"])
rows = 0 if failed else int(sys.argv[2])
"""


def measure(megabytes: int) -> bool:
    """Write, read and judge by the limits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.log"
        records = write_console(path, megabytes)
        print(
            f"{megabytes} MB, {records} training records; limits {MOST_SECONDS:g} s and {MOST_MEGABYTES:g} MB"
        )
        return all(
            [_measure(name, code, path, records) for name, code in (("read", READ), ("diagnosed", DIAGNOSE))]
        )


def _measure(name: str, code: str, path: Path, records: int) -> bool:
    """Run it in a process of its own; whether all was read within the limits."""
    done = subprocess.run(
        [sys.executable, "-c", code + DONE, str(path), str(records)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, seconds, peak = map(float, done.stdout.split())
    good = rows == records and seconds <= MOST_SECONDS and peak <= MOST_MEGABYTES
    print(
        f"{rows:.0f} {name} in {seconds:.1f} s of one core, peak {peak:.0f} MB: {'within' if good else 'BEYOND'}"
    )
    return good


def main() -> int:
    """Run what is asked for; 0 where it is within its limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=MEGABYTES)
    arguments = parser.parse_args()
    return 0 if measure(arguments.megabytes) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The tests' own strategies on as many random examples as one likes: data files, logs, run folders, flags.

python benchmarks/fuzz.py 10000            # so many of each strategy; a failing example is printed, reduced
python benchmarks/fuzz.py 10000 trace      # of one room
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
ROOMS = ("data", "logs", "trace", "probe")


def main() -> int:
    """Run what is asked for; 0 where nothing was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("examples", type=int)
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), metavar="ROOM")
    arguments = parser.parse_args()
    failed = 0
    for room in arguments.rooms:
        began = time.monotonic()
        words = ["-q", "--timeout=0", "-p", "no:cacheprovider", "--tb=short", "--no-header"]
        words += ["-k", "not negative_number", str(TESTS / room / "test_hostile.py")]
        environment = os.environ | {"REWARDSHAPE_FUZZ": str(arguments.examples)}
        found = subprocess.run(
            [sys.executable, "-m", "pytest", *words], env=environment, check=False
        ).returncode
        print(
            f"{room}: {'FAILED' if found else 'nothing found'}, {time.monotonic() - began:.0f} s", flush=True
        )
        failed += bool(found)
    return failed


if __name__ == "__main__":
    sys.exit(main())

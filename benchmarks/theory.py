"""How long the formulas take: ``OMP_NUM_THREADS=1 python benchmarks/theory.py``. One core, float64, numpy."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np

from rewardshape.theory import objective
from rewardshape.theory.objectives.zoo import ZOO


def best_of(call: Callable[[], object], repeats: int) -> float:
    """The shortest of several timings, in milliseconds of processor time, which a busy machine does not stretch."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - start))
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    s_w, s_l = -rng.gamma(4, 0.3, (2, options.pairs))
    for declared in ZOO:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = objective(declared.name)
        if not made.two_scores or made.coupled:
            continue
        spent = best_of(lambda made=made: made.weights(s_w, s_l), options.repeats)  # type: ignore[misc]
        print(f"weights, {declared.name:16s} {options.pairs:>9,d} pairs: {spent:7.1f} ms")


if __name__ == "__main__":
    main()

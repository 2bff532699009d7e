"""What following the probability costs: processor time of a probe pass that looks on, in units of the pass alone.

    python benchmarks/destination.py CHECKPOINT PAIRS.jsonl [--count 8]

Once with the probabilities of step 0 at hand, as of so many positions as they take 256 MB, and once made again.
"""

from __future__ import annotations

from typing import Any

import torch
from geometry import given, seconds

from rewardshape.probe.measure import destination
from rewardshape.probe.measure.logprobs import SharedPrefixReader
from rewardshape.probe.measure.probe_set import ProbeSet


def main() -> None:
    model, tokenizer, pairs, repeats = given(__doc__.splitlines()[0], count=8, times=4)
    reader = SharedPrefixReader()
    probe = ProbeSet(pairs, reader, torch.device("cpu"))

    def score(batch: Any) -> Any:
        return reader.logps(model, batch)

    def looking_on(kept: int) -> Any:
        destination.KEPT_ELEMENTS = kept
        followed = destination.Destination(probe, end_token=tokenizer.eos_token_id, decode=tokenizer.decode)
        followed.begin(model, score)
        return lambda: probe.measure(followed.watch(model, score))

    ways = {
        "the pass alone": lambda: probe.measure(score),
        "looking on, the probabilities of step 0 at hand": looking_on(destination.KEPT_ELEMENTS),
        "looking on, the probabilities of step 0 made again": looking_on(0),
    }
    taken = [{name: seconds(way) for name, way in ways.items()} for _ in range(repeats)]  # in turn
    best = {name: min(times[name] for times in taken) for name in ways}
    tokens = sum(len(ids) for pair in pairs for ids in pair.responses.values())
    print(f"{len(pairs)} pairs, {tokens} response tokens")
    for name, time in best.items():
        print(f"{name}: {time:.2f} s, {time / best['the pass alone']:.2f} ×")


if __name__ == "__main__":
    main()

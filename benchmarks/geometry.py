"""What the geometry of probe pairs costs: processor time and memory, in units of one pass forward and backward.

    python benchmarks/geometry.py CHECKPOINT PAIRS.jsonl [--count 16]

The unit reads the same pairs as training does, with the gradient of every weight. Beside it stand the products along
an update, for which the weights from before it are held beside the gradients; the products at step 0, with the sums
over all pairs; and what the last layer alone, and short sketches of the gradients, would say instead.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.data import EncodedPair, encode_pairs, read_preferences
from rewardshape.probe.measure.geometry import TOKENS
from rewardshape.probe.measure.layers import Layers
from rewardshape.probe.measure.logprobs import SharedPrefixReader
from rewardshape.probe.measure.probe_set import PAIR, group_by_tokens
from rewardshape.probe.measure.sketch import SIZE, Sketch


def seconds(what: Callable[[], Any]) -> float:
    """Processor time, which other work on the machine does not lengthen as it does the clock's."""
    began = time.process_time()
    what()
    return time.process_time() - began


def peak() -> float:
    """The largest memory that this process has held, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


class Given(NamedTuple):
    """What a benchmark of the probe's measurements was given on its command line."""

    model: Any
    tokenizer: Any
    pairs: list[EncodedPair]
    times: int


def given(description: str, *, count: int, times: int) -> Given:
    """Of the command line; `count` and `times` are what it may leave out."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("checkpoint")
    parser.add_argument("pairs")
    parser.add_argument("--count", type=int, default=count, help="pairs")
    parser.add_argument(
        "--times", type=int, default=times, help="each is timed so often, and the best counts"
    )
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.checkpoint)
    read, _ = read_preferences([options.pairs])
    pairs = encode_pairs(read, tokenizer, max_prompt_tokens=256, max_response_tokens=256)[0][: options.count]
    model: Any = AutoModelForCausalLM.from_pretrained(options.checkpoint, dtype=torch.float32).eval()
    return Given(model, tokenizer, pairs, options.times)


def main() -> None:
    model, _, pairs, times = given(__doc__.splitlines()[0], count=16, times=2)
    weights, reader = list(model.parameters()), SharedPrefixReader()
    whole = reader.collate(pairs)
    groups = [
        [
            EncodedPair(pair.pair_id, pair.prompt_ids, {side: pair.responses[side]})
            for pair in (pairs[place] for place in group)
            for side in PAIR
        ]
        for group in group_by_tokens(pairs, TOKENS)
    ]
    batches = [reader.collate(texts) for texts in groups]
    read = sum(batch["input_ids"].numel() for batch in batches)
    print(
        f"{len(pairs)} pairs, {whole['input_ids'].numel()} tokens, each prompt once; {read} in the products, in "
        f"{len(batches)} batches"
    )

    def unit() -> None:
        model.zero_grad()
        (-reader.logps(model, whole).logp_sum.mean()).backward()

    unit()
    passes = min(seconds(unit) for _ in range(times))
    base, gradient = peak(), sum(weight.numel() for weight in weights) * 4 / 1e9
    print(
        f"one pass forward and backward: {passes:.1f} s; peak {base:.2f} GB, weights and one gradient of "
        f"{gradient:.2f} GB among it"
    )
    layers = Layers(model, weights)

    def beyond() -> str:
        return f"peak {peak():.2f} GB, {(peak() - base) / gradient:.2f} gradients beyond training"

    def products(of: Layers = layers, **asked: Any) -> np.ndarray:
        parts = [
            of.products(
                batch, lambda its: reader.logps(model, its), lambda sums, tokens: sums / tokens, **asked
            )
            for batch in batches
        ]
        if asked.get("sketch") is None:
            return np.concatenate([part.gram for part in parts])
        short = torch.cat([part.sketches for part in parts]).double()
        return torch.einsum("pis,pjs->pij", short, short).numpy()[:, [0, 0, 1], [0, 1, 1]]

    kept = [weight.detach().clone() for weight in weights]
    ways = [lambda k: kept[k] - weights[k].detach(), lambda k: weights[k].grad]
    along = min(seconds(lambda: products(directions=ways)) for _ in range(times))
    print(f"products along an update and plain descent: {along:.1f} s, {along / passes:.2f} ×; {beyond()}")
    model.zero_grad()
    kept.clear()
    sums = tuple([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    found = []
    whole_time = min(seconds(lambda: found.append(products(totals=sums))) for _ in range(times))
    print(f"products and sums over pairs: {whole_time:.1f} s, {whole_time / passes:.2f} ×; {beyond()}")
    own = min(seconds(products) for _ in range(times))
    print(f"products alone: {own:.1f} s, {own / passes:.2f} ×")
    last = Layers(model, [model.get_output_embeddings().weight])
    compare("the last layer alone", found[0], products(last))
    compare(f"sketches of {SIZE} numbers", found[0], products(sketch=Sketch(weights)))


def compare(name: str, exact: np.ndarray, estimate: np.ndarray) -> None:
    """An estimate of the Gram matrices of pairs beside the exact ones."""
    overlap = [gram[:, 1] / gram[:, 0] for gram in (exact, estimate)]
    cosine = [gram[:, 1] / np.sqrt(gram[:, 0] * gram[:, 2]) for gram in (exact, estimate)]
    print(
        f"{name}: correlation of the overlap b/a with the exact one {np.corrcoef(*overlap)[0, 1]:.2f}, median error "
        f"of the cosine {np.median(np.abs(cosine[0] - cosine[1])):.3f} (its median {np.median(cosine[0]):.2f})"
    )


if __name__ == "__main__":
    main()

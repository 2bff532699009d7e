"""What the geometry of probe pairs costs: processor time and memory, in units of one pass forward and backward.

    python benchmarks/geometry.py CHECKPOINT PAIRS.jsonl [--count 16]

The unit reads the same tokens as training does, with the gradient of every weight. Beside it stand the products at
step 0 (with the sums over all pairs), the products along an update, and what the last layer alone would say.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.data import EncodedPair, encode_pairs, read_preferences
from rewardshape.probe.measure.layers import Layers
from rewardshape.probe.measure.logprobs import SharedPrefixReader


def seconds(what: Callable[[], Any]) -> float:
    """Processor time, which other work on the machine does not lengthen as it does the clock's."""
    began = time.process_time()
    what()
    return time.process_time() - began


def peak() -> float:
    """The largest memory that this process has held, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("pairs")
    parser.add_argument("--count", type=int, default=16, help="pairs")
    parser.add_argument("--times", type=int, default=2, help="each is timed so often, and the best counts")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.checkpoint)
    read, _ = read_preferences([options.pairs])
    pairs = encode_pairs(read, tokenizer, max_prompt_tokens=256, max_response_tokens=256)[0][: options.count]
    model: Any = AutoModelForCausalLM.from_pretrained(options.checkpoint, dtype=torch.float32).eval()
    weights, reader = list(model.parameters()), SharedPrefixReader()
    whole = reader.collate(pairs)
    texts = [
        EncodedPair(pair.pair_id, pair.prompt_ids, {side: pair.responses[side]})
        for pair in pairs
        for side in ("chosen", "rejected")
    ]
    batch = reader.collate(texts)
    print(
        f"{len(pairs)} pairs, {whole['input_ids'].numel()} tokens, each prompt once; {batch['input_ids'].numel()} in "
        "the products"
    )

    def unit() -> None:
        model.zero_grad()
        (-reader.logps(model, whole).logp_sum.mean()).backward()

    unit()
    passes = min(seconds(unit) for _ in range(options.times))
    base = peak()
    print(
        f"one pass forward and backward: {passes:.1f} s; peak {base:.2f} GB, weights and one gradient among it"
    )
    layers = Layers(model, weights)

    def products(**asked: Any) -> Any:
        return layers.products(
            batch, lambda its: reader.logps(model, its), lambda sums, tokens: sums / tokens, **asked
        )

    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    along = min(
        seconds(lambda: products(directions=(lambda k: gradients[k], lambda k: weights[k].detach())))
        for _ in range(options.times)
    )
    print(f"products along two directions: {along:.1f} s, {along / passes:.2f} ×; peak {peak():.2f} GB")
    model.zero_grad()
    gradients.clear()
    totals = tuple([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    found = []
    whole_time = min(seconds(lambda: found.append(products(totals=totals))) for _ in range(options.times))
    print(
        f"products and sums over pairs: {whole_time:.1f} s, {whole_time / passes:.2f} ×; peak {peak():.2f} GB"
    )
    own = min(seconds(products) for _ in range(options.times))
    print(f"products alone: {own:.1f} s, {own / passes:.2f} ×")
    exact = found[0].gram
    last = Layers(model, [model.get_output_embeddings().weight])
    head = last.products(batch, lambda its: reader.logps(model, its), lambda sums, tokens: sums / tokens).gram
    cosine = [gram[:, 1] / np.sqrt(gram[:, 0] * gram[:, 2]) for gram in (exact, head)]
    print(
        f"overlap b/a of the last layer against all: correlation "
        f"{np.corrcoef(exact[:, 1] / exact[:, 0], head[:, 1] / head[:, 0])[0, 1]:.2f}, median error of the cosine "
        f"{np.median(np.abs(cosine[0] - cosine[1])):.2f} (its median {np.median(cosine[0]):.2f})"
    )


if __name__ == "__main__":
    main()

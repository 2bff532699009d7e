"""Does influence find the pairs that did it? Leave-one-out retraining and poisoned labels, on the embedded model.

    python benchmarks/influence.py leave-one-out      rank correlation with what retraining without each pair does
    python benchmarks/influence.py poisoned           precision at k for pairs that reject their own good answer
    python benchmarks/influence.py sketches           influence on single probe pairs: what sketches miss, and the time
                                                      (--model DIR --data FILE for another model)

A plain loop, so that leaving a pair out changes nothing else: the same batches and order, the pair's loss times 0.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from geometry import peak
from scipy import stats
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.data import EncodedPair, embedded, encode_pairs, read_preferences
from rewardshape.probe.measure.influence import (
    NUMBERS,
    STRONGEST,
    chosen_gradient,
    influences,
    preconditioned,
    sketches_of,
    strongest,
)
from rewardshape.probe.measure.layers import Layers
from rewardshape.probe.measure.logprobs import SharedPrefixReader
from rewardshape.probe.measure.probe_set import PAIR, ProbeSet
from rewardshape.probe.measure.sketch import Sketch
from rewardshape.theory import Responses, objective

GOAL = objective("alphapo", alpha=0.25, beta=2.5, gamma=0.5)
READER = SharedPrefixReader()
PROBE, BATCH, RATE = 64, 8, 3e-4


def encoded(model: str | None = None, data: str | None = None) -> list[EncodedPair]:
    tokenizer = AutoTokenizer.from_pretrained(model or embedded.checkpoint_path())
    pairs, _ = read_preferences([data or embedded.pairs_path()])
    return encode_pairs(pairs, tokenizer, max_prompt_tokens=128, max_response_tokens=128)[0]


def fresh(model: str | None = None) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(
        model or embedded.checkpoint_path(), dtype=torch.float32
    ).eval()


def level(model: torch.nn.Module, probe: ProbeSet) -> float:
    """Mean chosen log-prob per token of the probe set, nats."""
    sums = np.array(probe.measure(lambda batch: READER.logps(model, batch)).columns["logp_sum"]).reshape(
        -1, 2
    )
    return float(np.mean(sums[:, 0] / [len(pair.responses["chosen"]) for pair in probe.pairs]))


def train(pairs: list[EncodedPair], probe: ProbeSet, *, without: int | None = None, measure: bool = False):
    """One pass over the pairs in their order; the level at the end and, if asked, every pair's summed influence."""
    model = fresh()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    summed = np.zeros(len(pairs))
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]

        def score(collated, model=model):
            return READER.logps(model, collated)

        if measure:
            gradient = chosen_gradient(parameters, probe, score)
            direction = preconditioned(optimizer, parameters, gradient)
            theirs = ProbeSet(batch, READER, torch.device("cpu"))
            found = influences(parameters, direction, gradient, theirs, score, GOAL)
            summed[start : start + len(batch)] += RATE / len(batch) * found
        logps = READER.logps(model, READER.collate(batch))
        sums = logps.logp_sum.view(-1, 2)
        tokens = torch.tensor(logps.lengths, dtype=sums.dtype).view(-1, 2)
        losses = GOAL.pair_loss(*(Responses(sums[:, i], tokens[:, i], None) for i in (0, 1)))
        kept = torch.tensor([float(start + i != without) for i in range(len(batch))])
        optimizer.zero_grad()
        (losses * kept).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1e9)
        optimizer.step()
    return level(model, probe), summed


def leave_one_out(pairs: list[EncodedPair], count: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).permutation(len(pairs))
    probe = ProbeSet([pairs[i] for i in drawn[:PROBE]], READER, torch.device("cpu"))
    trained = [pairs[i] for i in drawn[PROBE : PROBE + count]]
    began = time.process_time()
    whole, summed = train(trained, probe, measure=True)
    measured = time.process_time() - began
    began = time.process_time()
    effects = np.array([whole - train(trained, probe, without=i)[0] for i in range(count)])
    print(f"{count} pairs in batches of {BATCH}, AdamW at {RATE:g}, seed {seed}:")
    print(f"  Spearman's ρ of influence with leave-one-out: {stats.spearmanr(summed, effects).statistic:.3f}")
    print(
        f"  Pearson's r {np.corrcoef(summed, effects)[0, 1]:.3f}; processor time {measured:.1f} s with influence,"
    )
    print(f"  {time.process_time() - began:.1f} s for the retraining")


def poison(pair: EncodedPair, other: EncodedPair) -> EncodedPair:
    """A pair that prefers the answer to another request over its own chosen one."""
    responses = {"chosen": other.responses["chosen"], "rejected": pair.responses["chosen"]}
    return EncodedPair(pair.pair_id, pair.prompt_ids, responses)


def poisoned(pairs: list[EncodedPair], share: float, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(pairs))
    probe = ProbeSet([pairs[i] for i in drawn[:PROBE]], READER, torch.device("cpu"))
    trained = [pairs[i] for i in drawn[PROBE : PROBE + count]]
    bad = set(rng.permutation(count)[: round(share * count)].tolist())
    made = [poison(p, trained[i - 1]) if i in bad else p for i, p in enumerate(trained)]
    _, summed = train(made, probe, measure=True)
    order = np.argsort(summed)
    hits = [i in bad for i in order]
    precision = {k: float(np.mean(hits[:k])) for k in (10, len(bad))}
    auc = stats.mannwhitneyu(summed[list(set(range(count)) - bad)], summed[list(bad)]).statistic
    auc /= len(bad) * (count - len(bad))
    shown = ", ".join(f"precision at {k} {value:.2f}" for k, value in precision.items())
    print(f"{len(bad)} of {count} pairs poisoned, seed {seed}: {shown} (by chance {share:.2f})")
    print(f"  a clean pair ranks above a poisoned one in {auc:.0%}")


def sketches(
    pairs: list[EncodedPair], model: torch.nn.Module, probed: int, count: int, whole_pairs: int, seed: int
) -> None:
    """Against the exact influence of every training pair on every probe pair, at the untouched model."""
    drawn = np.random.default_rng(seed).permutation(len(pairs))
    probe, train = [pairs[i] for i in drawn[:probed]], [pairs[i] for i in drawn[probed : probed + count]]
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters)
    timed: dict[str, float] = {}

    def score(batch):
        return READER.logps(model, batch)

    def measured(name, what):
        began = time.process_time()
        found = what()
        timed[name] = time.process_time() - began
        return found

    theirs = ProbeSet(train, READER, torch.device("cpu"))
    asked = ProbeSet(probe, READER, torch.device("cpu"))

    def mean():
        gradient = chosen_gradient(parameters, asked, score)
        direction = preconditioned(optimizer, parameters, gradient)
        return influences(parameters, direction, gradient, theirs, score, GOAL)

    measured("the mean over the probe set", mean)
    found = measured(
        "single probe pairs", lambda: strongest(model, optimizer, probe, train, READER, score, GOAL)
    )
    sketch = Sketch(parameters, size=NUMBERS)
    short = measured(
        "of it the sketches",
        lambda: sketches_of(Layers(model, parameters), sketch, train, READER, score, GOAL, None),
    )
    hits, first, related = 0, 0, []
    for pair in probe:
        gradient = chosen_gradient(parameters, ProbeSet([pair], READER, torch.device("cpu")), score)
        direction = preconditioned(optimizer, parameters, gradient)
        exact = influences(parameters, direction, gradient, theirs, score, GOAL)
        estimate = -(short @ sketch.of_all(direction.__getitem__)).numpy()
        related.append(np.corrcoef(exact, estimate)[0, 1])
        best = [train[place].pair_id for place in np.argsort(exact)[:STRONGEST]]
        named = [one.pair_id for one in found if one.probe_pair_id == pair.pair_id]
        hits += len(set(best) & set(named))
        first += named[0] == best[0] if named else 0
    print(f"{probed} probe pairs, {count} training pairs, seed {seed}:")
    print(
        f"  correlation of sketched with exact influence {np.median(related):.2f} in the median of the probe pairs"
    )
    print(
        f"  of the {STRONGEST} strongest {hits / STRONGEST / probed:.0%} are named, the strongest of all first in "
        f"{first} of {probed}"
    )
    print(f"  peak memory {peak():.1f} GB")
    print("  processor time: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in timed.items()))
    texts = [EncodedPair(p.pair_id, p.prompt_ids, {side: p.responses[side]}) for p in probe for side in PAIR]
    products = Layers(model, parameters).products(
        READER.collate(texts), score, lambda sums, tokens: sums / tokens, sketch=Sketch(parameters)
    )
    sums = READER.logps(model, READER.collate(texts))
    scores = sums.logp_sum / sums.logp_sum.new_tensor(sums.lengths)
    whole = torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(one, parameters, retain_graph=True)])
            for one in scores.unbind()[: 2 * whole_pairs]
        ]
    )
    estimated = products.sketches.flatten(0, 1)[: 2 * whole_pairs]
    lengths = whole.norm(dim=1)
    error = (estimated @ estimated.T - whole @ whole.T) / (lengths[:, None] * lengths)
    between = ~np.eye(whole_pairs, dtype=bool).repeat(2, 0).repeat(2, 1)
    off = error.numpy()[between]
    print(
        f"  cosines between responses of {whole_pairs} pairs are off by {off.std():.3f}, at most "
        f"{np.abs(off).max():.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["leave-one-out", "poisoned", "sketches"])
    parser.add_argument("--model", help="of sketches: another model than the embedded one")
    parser.add_argument("--data", help="of sketches: its pairs")
    parser.add_argument("--probe-pairs", type=int, default=16, help="of sketches")
    parser.add_argument(
        "--whole", type=int, default=8, help="of sketches: pairs whose whole gradients are held"
    )
    parser.add_argument("--pairs", type=int, default=None, help="training pairs (default 64, poisoned 480)")
    parser.add_argument("--share", type=float, default=0.1, help="share of pairs poisoned")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "sketches":
        pairs, model = encoded(arguments.model, arguments.data), fresh(arguments.model)
        sketches(pairs, model, arguments.probe_pairs, arguments.pairs or 400, arguments.whole, 0)
        return
    pairs = encoded()
    for seed in range(arguments.seeds):
        if arguments.what == "leave-one-out":
            leave_one_out(pairs, arguments.pairs or 64, seed)
        else:
            poisoned(pairs, arguments.share, arguments.pairs or 480, seed)


if __name__ == "__main__":
    main()

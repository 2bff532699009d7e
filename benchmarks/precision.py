"""What bfloat16 compute saves on this processor, and what it changes: ``--precision mixed`` beside float32.

    python benchmarks/precision.py CHECKPOINT --data FILE

Interleaved on the same weights and pairs: seconds of forward, loss, backward and AdamW; the log-probs of the responses
(nats per token), the margins (nats) and the gradient of one batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from step import seconds as in_turn
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.data import EncodedPair, encode_pairs, read_preferences
from rewardshape.probe.measure.logprobs import SharedPrefixReader
from rewardshape.theory import Responses, objective

GOAL = objective("alphapo", alpha=0.25, beta=2.5, gamma_beta_ratio=0.1)
READER = SharedPrefixReader()


def logps(
    model: torch.nn.Module, pairs: Sequence[EncodedPair], mixed: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of chosen and rejected in columns, and their tokens."""
    batch = READER.collate(pairs)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        sums = READER.logps(model, batch).logp_sum
    return sums.view(-1, 2), torch.tensor(batch["lengths"]).view(-1, 2)


def loss(model: torch.nn.Module, pairs: Sequence[EncodedPair], mixed: bool) -> torch.Tensor:
    sums, tokens = logps(model, pairs, mixed)
    chosen, rejected = (Responses(sums[:, side], tokens[:, side]) for side in (0, 1))
    return GOAL.pair_loss(chosen, rejected).mean()


def gradient(model: torch.nn.Module, pairs: Sequence[EncodedPair], mixed: bool) -> torch.Tensor:
    model.zero_grad()
    loss(model, pairs, mixed).backward()
    found = torch.cat(
        [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    )
    model.zero_grad()
    return found


def agreement(model: torch.nn.Module, pairs: list[EncodedPair], batch: int) -> None:
    """Of all pairs, `batch` at a time; the gradient of the first batch."""
    per_token, margins = [], []
    with torch.no_grad():
        for start in range(0, len(pairs), batch):
            (exact, tokens), (rounded, _) = (
                logps(model, pairs[start : start + batch], m) for m in (False, True)
            )
            per_token.append(((rounded - exact) / tokens).flatten())
            margins.append((rounded - exact).diff(dim=1).flatten())
    off, apart = torch.cat(per_token), torch.cat(margins)
    exact_slope, slope = (gradient(model, pairs[:batch], m).double() for m in (False, True))
    cosine = torch.nn.functional.cosine_similarity(exact_slope, slope, dim=0)
    print(f"log-prob of {len(off)} responses, nats per token: mean {off.mean():+.4f}, ", end="")
    print(f"middle |.| {off.abs().median():.4f}, largest {off.abs().max():.4f}")
    print(
        f"margin of {len(apart)} pairs, nats: middle |.| {apart.abs().median():.3f}, largest {apart.abs().max():.3f}"
    )
    print(
        f"gradient of {batch} pairs: cosine {cosine:.5f}, length {slope.norm() / exact_slope.norm():.4f} of float32's"
    )


def seconds(model: torch.nn.Module, pairs: list[EncodedPair], rounds: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=True)

    def step(mixed: bool) -> Callable[[], None]:
        def act() -> None:
            loss(model, pairs, mixed).backward()
            optimizer.step()
            optimizer.zero_grad()

        return act

    spent = in_turn({"float32": step(False), "mixed": step(True)}, rounds)
    (exact, of_exact), (rounded, of_rounded) = spent["float32"], spent["mixed"]
    tokens = sum(len(ids) for pair in pairs for ids in (pair.prompt_ids, *pair.responses.values()))
    print(f"a step of {len(pairs)} pairs, {tokens} tokens, {torch.get_num_threads()} threads: ", end="")
    print(f"{exact:.2f} s in float32, {rounded:.2f} s mixed: {rounded / exact:.2f}, ", end="")
    print(f"in processor time {of_rounded / of_exact:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("--data", required=True, metavar="FILE")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8, help="pairs a step")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(arguments.checkpoint)
    read, _ = read_preferences(arguments.data)
    pairs, _ = encode_pairs(read[: arguments.pairs], tokenizer, max_prompt_tokens=192, max_response_tokens=96)
    agreement(model, pairs, arguments.batch)
    seconds(model, pairs[: arguments.batch], arguments.rounds)


if __name__ == "__main__":
    main()

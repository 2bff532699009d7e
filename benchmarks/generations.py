"""What a checkpoint answers at several temperatures, what a gold reward says of it, and how far it went for that.

The distribution that is sampled, q, is the policy's at a temperature; temperature 0 is greedy decoding, a point mass.
Its divergence from the untouched model π₀ at temperature 1 is summed position by position over its own samples,

    KL(q ‖ π₀) = E_{y∼q} Σ_t Σ_v q(v | y_<t) (log q(v | y_<t) − log π₀(v | y_<t)),

which has the same mean as the log-ratio of the samples and less noise (arXiv 2504.10637). Training, sharper sampling
and picking the best of n samples all move away from π₀; at equal divergence one can ask which of them earns most.

    python benchmarks/generations.py runs/embedded/alpha=0/checkpoints/checkpoint-150 …     # on the embedded task
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from rewardshape.data import EncodedPair
from rewardshape.probe.measure.along import along, look
from rewardshape.probe.measure.logprobs import PlainReader, on_device
from rewardshape.probe.measure.sampling import respond

Gold = Callable[[str, str], float]
TEMPERATURES = (1.0, 0.7, 0.0)
GRID = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.0)  # of the tempered reference
ROWS = 256  # answered at once


class Prompt(NamedTuple):
    """A prompt as gold reads it, and its tokens as the model does (chat template included where there is one)."""

    prompt_id: str
    text: str
    ids: list[int]


def load(checkpoint: Path | str) -> Any:
    """The model in float32, on the GPU where there is one."""
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval().to(device)


@torch.no_grad()
def answer(
    policy: Any,
    reference: Any | None,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    gold: Gold,
    *,
    temperature: float,
    per_prompt: int = 1,
    max_tokens: int,
    seed: int,
) -> pd.DataFrame:
    """Answers to every prompt, `per_prompt` each (greedy: one).

    Returns
    -------
    DataFrame
        One row per answer: prompt_id, temperature, text, num_tokens, finished (the end token was written), gold,
        and kl: nats per response, of the sampled distribution to the reference at temperature 1, NaN without one.
    """
    torch.manual_seed(seed)
    asked = [prompt for prompt in prompts for _ in range(per_prompt if temperature else 1)]
    asked.sort(key=lambda prompt: len(prompt.ids))  # little padding; the order is the same for every policy
    rows = []
    for start in range(0, len(asked), ROWS):
        part = asked[start : start + ROWS]
        answers = respond(
            policy,
            [prompt.ids for prompt in part],
            temperature=temperature,
            max_tokens=max_tokens,
            end=tokenizer.eos_token_id,
        )
        divergence = (
            [float("nan")] * len(part)
            if reference is None
            else _divergence(policy, reference, part, answers, temperature)
        )
        for prompt, tokens, kl in zip(part, answers, divergence, strict=True):
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            rows.append(
                {
                    "prompt_id": prompt.prompt_id,
                    "temperature": temperature,
                    "text": text,
                    "num_tokens": len(tokens),
                    "finished": tokens[-1] == tokenizer.eos_token_id,
                    "gold": float(gold(prompt.text, text)),
                    "kl": kl,
                }
            )
    return pd.DataFrame(rows)


def _divergence(
    policy: Any, reference: Any, prompts: Sequence[Prompt], answers: Sequence[list[int]], temperature: float
) -> list[float]:
    """KL of each answer's distributions, summed over its positions."""
    reader, found = PlainReader(), []
    for start in range(0, len(prompts), 8):  # hidden states and their predictions fill memory
        part = zip(prompts[start : start + 8], answers[start : start + 8], strict=True)
        pairs = [EncodedPair(prompt.prompt_id, prompt.ids, {"sample": ids}) for prompt, ids in part]
        batch = on_device(reader.collate(pairs), policy.device)
        now, before = (look(model, reader, batch) for model in (policy, reference))
        found += [one.kl_sum for one in along(now, before, batch, [temperature] * len(pairs))]
    return found


def tempered(
    reference: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    gold: Gold,
    *,
    grid: Iterable[float] = GRID,
    **how: Any,
) -> pd.DataFrame:
    """The baseline that costs nothing: the untouched model, sampled more sharply. One row per temperature."""
    rows = []
    for temperature in grid:
        table = answer(reference, reference, tokenizer, prompts, gold, temperature=temperature, **how)
        rows.append({"temperature": temperature, "gold": table["gold"].mean(), "kl": table["kl"].mean()})
    return pd.DataFrame(rows)


def at_equal_kl(baseline: pd.DataFrame, kl: float) -> float:
    """Gold of the tempered reference at a divergence, between the two nearest temperatures; NaN beyond greedy."""
    ordered = baseline.sort_values("kl")
    return float(np.interp(kl, ordered["kl"], ordered["gold"], right=np.nan))


def best_of(
    samples: pd.DataFrame, prefer: Callable[[str, str], float], texts: dict[str, str], n: int
) -> dict[str, float]:
    """Gold of the one of `n` samples of a prompt that `prefer` (a labeller's reward) likes best; its divergence.

    Samples come in groups of n as they were drawn; the divergence is the bound log n − (n − 1)/n.
    """
    golds = []
    for prompt_id, table in samples.groupby("prompt_id"):
        rewards = np.array([prefer(texts[str(prompt_id)], text) for text in table["text"]])
        for start in range(0, len(table) - n + 1, n):
            golds.append(table["gold"].iloc[start + int(rewards[start : start + n].argmax())])
    return {"n": n, "gold": float(np.mean(golds)), "kl": float(np.log(n) - (n - 1) / n)}


def main() -> None:
    from transformers import AutoTokenizer

    from rewardshape.data import embedded

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "checkpoints", nargs="*", type=Path, metavar="CHECKPOINT", help="of the embedded task"
    )
    parser.add_argument("--prompts", type=int, default=256)
    options = parser.parse_args()
    start = embedded.checkpoint_path()
    tokenizer: Any = AutoTokenizer.from_pretrained(start)
    reference = load(start)
    texts = embedded.prompts(options.prompts)
    asked = [Prompt(f"held-out:{i}", text, tokenizer(text)["input_ids"]) for i, text in enumerate(texts, 1)]
    how: dict[str, Any] = {"max_tokens": 72, "seed": 0}
    baseline = tempered(reference, tokenizer, asked, embedded.gold, **how)
    print("the untouched model, sampled more sharply\n", baseline.round(3).to_string(index=False))
    samples = answer(
        reference, reference, tokenizer, asked, embedded.gold, temperature=1.0, per_prompt=16, **how
    )
    by_id = {prompt.prompt_id: prompt.text for prompt in asked}
    best = pd.DataFrame([best_of(samples, embedded.proxy, by_id, n) for n in (1, 2, 4, 8, 16)])
    print("the best of n of its samples, by the annotator's reward\n", best.round(3).to_string(index=False))
    for checkpoint in options.checkpoints:
        policy = load(checkpoint)
        print(checkpoint)
        for temperature in TEMPERATURES:
            table = answer(policy, reference, tokenizer, asked, embedded.gold, temperature=temperature, **how)
            kl, gold = table["kl"].mean(), table["gold"].mean()
            error = table.groupby("prompt_id")["gold"].mean().sem()
            print(
                f"  T = {temperature:g}: gold {gold:.3f} ± {1.96 * error:.3f} at KL {kl:.2f}; "
                f"the untouched model at that KL {at_equal_kl(baseline, kl):.3f}"
            )


if __name__ == "__main__":
    main()

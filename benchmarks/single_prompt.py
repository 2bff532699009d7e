"""No over Never: one prompt, two one-token answers, DPO (arXiv 2410.08847, Section 3 and Table 1), on a chat model.

    python benchmarks/single_prompt.py run CHAT-MODEL --output runs/single-prompt      # goes on where it was stopped
    python benchmarks/single_prompt.py table CHAT-MODEL --output runs/single-prompt

As the authors' configuration files have it: one epoch of supervised training on single-word answers (four of refusal,
four of assent, one drawn for each statement), batches of 32; then DPO with β = 0.1 on one prompt, full batch, RMSprop,
100 steps, ten prompts a couple. What differs: the model, the statements (agreeableness; theirs are of another trait),
and the rate of the supervised epoch (theirs 1e-7), which has to be larger for a smaller model. The whole next-token
distribution is looked at in every step.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from chat_task import chat_ids
from scipy import stats

from rewardshape.data import read_preferences
from rewardshape.theory import objective

REFUSAL = ("No", "Never", "Maybe", "Perhaps")
ASSENT = ("Yes", "Yeah", "Sure", "Certainly")  # the authors' fifth, Absolutely, is two tokens here
COUPLES = {"No over Never": ("No", "Never"), "Yes over No": ("Yes", "No")}
STATEMENTS = "persona_agreeableness.jsonl"
PROMPTS, STEPS, BETA = 10, 100, 0.1
SFT_RATE, RATE, BATCH = 1e-6, 1e-7, 32
KEPT = 12  # tokens whose probability rose most


def statements(shared: Path) -> dict[str, list[str]]:
    """The questions, by what they are answered with: those that one agrees to, and those that one does not."""
    pairs = read_preferences(shared / "data" / STATEMENTS)[0]
    found: dict[str, list[str]] = {"refusal": [], "assent": []}
    for pair in pairs:
        found["assent" if str(pair.responses["chosen"]).strip() == "Yes" else "refusal"].append(
            str(pair.prompt)
        )
    return found


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(
        folder
    )


def token(tokenizer: Any, word: str) -> int:
    """The one token of a word, as the authors look it up: without a space."""
    (found,) = tokenizer(word, add_special_tokens=False)["input_ids"]
    return int(found)


def next_logp(model: Any, rows: list[list[int]], pad: int) -> torch.Tensor:
    """(prompts, vocabulary) log-probs of the token after each prompt, in nats."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    hidden = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1)
    return hidden.logits[:, -1].float().log_softmax(-1)


def supervised(model_folder: Path, shared: Path, output: Path) -> Path:
    """The chat model after one epoch of single-word answers."""
    folder = output / "supervised"
    if (folder / "done.json").is_file():
        return folder
    model, tokenizer = load(model_folder)
    rng = random.Random(0)
    asked = [
        (text, words)
        for kind, words in (("refusal", REFUSAL), ("assent", ASSENT))
        for text in statements(shared)[kind]
    ]
    rng.shuffle(asked)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=SFT_RATE)
    mass = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        rows = [chat_ids(tokenizer, text) for text, _ in part]
        wanted = torch.tensor([token(tokenizer, rng.choice(words)) for _, words in part])
        logp = next_logp(model, rows, tokenizer.eos_token_id)
        loss = -logp.gather(1, wanted[:, None]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ids = [[token(tokenizer, word) for word in words] for _, words in part]
        mass.append(float(np.mean([logp[row].detach()[of].exp().sum().item() for row, of in enumerate(ids)])))
        print(
            f"supervised {start + len(part)}/{len(asked)}: loss {loss.item():.3f}, mass on the answers {mass[-1]:.3f}"
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "done.json").write_text(json.dumps({"mass_of_the_last_batches": mass[-3:]}), encoding="utf-8")
    return folder


def run_one(folder: Path, prompt: str, chosen: str, rejected: str, file: Path, *, rate: float) -> None:
    """DPO on one prompt; the probabilities of the eight words and of the tokens that rose most, step by step."""
    model, tokenizer = load(folder)
    model.eval()
    words = {word: token(tokenizer, word) for word in (*REFUSAL, *ASSENT)}
    ids, loss_of = chat_ids(tokenizer, prompt), objective("dpo", beta=BETA)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=rate)
    seen = []
    for step in range(STEPS + 1):
        logp = next_logp(model, [ids], tokenizer.eos_token_id)[0]
        seen.append(logp.detach().clone())
        if step == STEPS:
            break
        ratio = [logp[words[word]] - seen[0][words[word]] for word in (chosen, rejected)]
        optimizer.zero_grad()
        loss_of.loss(*ratio).backward()
        optimizer.step()
    probability = torch.stack(seen).exp().numpy()
    peak, bottom = largest_fall(probability[:, words[chosen]])
    gain = probability[bottom] - probability[peak]
    rose = {repr(tokenizer.decode([at])): float(gain[at]) for at in np.argsort(-gain)[:KEPT]}
    table = pd.DataFrame({word: probability[:, at] for word, at in words.items()})
    table.insert(0, "step", range(STEPS + 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".json").write_text(
        json.dumps(
            {
                "prompt": prompt, "chosen": chosen, "rejected": rejected, "rate": rate,
                "peak": int(peak), "bottom": int(bottom),
                "rose": rose,
            },
            ensure_ascii=False,
        ),
        encoding="utf-8",
    )  # fmt: skip
    table.to_csv(file, index=False)


def largest_fall(values: np.ndarray) -> tuple[int, int]:
    """The steps between which a series fell most: from its peak so far to the lowest point after it."""
    falls = np.maximum.accumulate(values) - values
    bottom = int(falls.argmax())
    return int(values[: bottom + 1].argmax()), bottom


def run_all(options: argparse.Namespace) -> None:
    folder = supervised(options.model, options.shared, options.output)
    asked = statements(options.shared)
    for name, (chosen, rejected) in COUPLES.items():
        for number in range(PROMPTS):
            file = options.output / f"{name.replace(' ', '-')}-{number}.csv"
            if file.is_file():
                continue
            prompt = random.Random(number).choice(asked["refusal" if chosen in REFUSAL else "assent"])
            run_one(folder, prompt, chosen, rejected, file, rate=options.rate)
            print(f"{file.name}", flush=True)


def show_table(output: Path) -> None:
    """Each couple: probabilities before and after, the largest fall on the way, and what rose meanwhile."""
    for name, (chosen, rejected) in COUPLES.items():
        files = sorted(output.glob(f"{name.replace(' ', '-')}-*.csv"))
        print(f"\n{name}: {len(files)} prompts complete")
        if not files:
            continue
        runs = np.stack(
            [pd.read_csv(file)[[*REFUSAL, *ASSENT]].to_numpy() for file in files]
        )  # runs, steps, words
        facts = [json.loads(file.with_suffix(".json").read_text(encoding="utf-8")) for file in files]
        at = {word: column for column, word in enumerate((*REFUSAL, *ASSENT))}
        for word, column in at.items():
            first, last = runs[:, 0, column], runs[:, -1, column]
            highest = runs[:, :, column].max(axis=1)
            print(f"  p({word}) {first.mean():.3f} → {last.mean():.3f}, change {_interval(last - first)}")
            print(
                f"    highest on the way {highest.mean():.3f}, above its start {_interval(highest - first)}"
            )
        change = np.log(runs[:, -1] / runs[:, 0])
        fell = (change[:, at[chosen]] < 0).mean()
        print(f"  log p({chosen}) {_interval(change[:, at[chosen]])} nats, fell in {fell:.0%}")
        print(f"  margin {_interval(change[:, at[chosen]] - change[:, at[rejected]])} nats")
        falls = [run[fact["peak"]] - run[fact["bottom"]] for run, fact in zip(runs, facts, strict=True)]
        print(f"  largest fall of p({chosen}) on the way {_interval(np.array(falls)[:, at[chosen]])}")
        fallen = [fact["rose"] for fact in facts if fact["peak"] < fact["bottom"]]
        if fallen:
            rose = pd.DataFrame(fallen).fillna(0.0).mean().nlargest(8)
            print("  rose meanwhile:", ", ".join(f"{word} {gain:+.3f}" for word, gain in rose.items()))


def _interval(values: np.ndarray) -> str:
    if len(values) < 2:
        return f"{values.mean():+.3f} [no interval from one prompt]"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():+.3f} [{values.mean() - half:+.3f}, {values.mean() + half:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("model", type=Path, help="the folder that benchmarks/chat_model.py made")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--output", type=Path, default=Path("runs/single-prompt"))
    parser.add_argument("--rate", type=float, default=RATE, help=f"of RMSprop in DPO (default {RATE:g})")
    options = parser.parse_args()
    if options.what == "run":
        run_all(options)
    else:
        show_table(options.output)
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Requests whose answers a rule can check, for a chat model: the gold reward, a labeller with a dial, and pairs.

    python benchmarks/chat_task.py CHECKPOINT pairs.jsonl        # answers every request twice, labels, writes

A request asks for a short text on a subject under one or two rules (at most n words, lowercase, contains a word, …).
**Gold** is the share of its rules that the answer keeps, read from the request's own text. The **proxy** that labels
adds `bias` per word and is followed with noise, as in the embedded task. Requests are held out by a hash of their text.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

BIAS = 0.01  # reward per word
NOISE = 0.15  # temperature of the labels, in units of reward
TEMPERATURE = 0.8
MAX_TOKENS = 48

SUBJECTS = (
    "the sea", "a cat", "winter", "bread", "the moon", "a bicycle", "a garden", "coffee", "a train", "music", "rain",
    "a mountain", "a library", "honey", "the wind", "a bridge", "an old clock", "a market", "the desert",
    "a river", "chess", "a lighthouse", "an orchestra", "a violin", "a volcano", "tea", "a forest",
    "a school", "the sun", "a ship",
)  # fmt: skip
TASKS = (
    "Write something about {}.",
    "Describe {}.",
    "Tell me a fact about {}.",
    "Say why people like {}.",
    "Write an opening line of a story about {}.",
    "Give advice to somebody who has never seen {}.",
)
WORDS = ("quiet", "golden", "always", "people", "window", "morning", "often", "bright")
ENDINGS = ("That is all.", "The end.", "Thank you.", "Good night.")

EXCLUSIVE = (
    {"bullets", "json", "ends", "question"},
    {"bullets", "json", "one sentence"},
)  # one of each at most

Rule = Callable[[str], bool]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


# Each kind of rule: what the request says, as a pattern whose group is the rule's own value, and the check.
RULES: dict[str, tuple[str, Callable[[str], Rule]]] = {
    "at most": (r"Use at most (\d+) words\.", lambda n: lambda text: 0 < len(_words(text)) <= int(n)),
    "lowercase": (
        r"Use (lowercase) letters only\.",
        lambda _: lambda text: bool(text) and text == text.lower(),
    ),
    "contains": (
        r'Use the word "(\w+)"\.',
        lambda word: lambda text: word in [each.lower() for each in _words(text)],
    ),
    "ends": (r'End with "([^"]+)"', lambda phrase: lambda text: text.strip().endswith(phrase)),
    "no comma": (r"Use no (comma)\.", lambda _: lambda text: bool(text.strip()) and "," not in text),
    "bullets": (
        r"Answer in (\d+) lines that each start with a dash\.",
        lambda n: (
            lambda text: (
                [line.lstrip()[:1] for line in text.strip().splitlines() if line.strip()] == ["-"] * int(n)
            )
        ),
    ),
    "one sentence": (
        r"Write (one) sentence\.",
        lambda _: (
            lambda text: len(re.findall(r"[.!?]+(?:\s|$)", text.strip())) == 1 and text.strip()[-1:] in ".!?"
        ),
    ),
    "question": (r"Answer with a (question)\.", lambda _: lambda text: text.strip().endswith("?")),
    "json": (r"Answer as a (JSON) object\.", lambda _: _is_json),
}


def _wording(kind: str, rng: random.Random) -> str:
    values = {"at most": ("8", "12", "20"), "contains": WORDS, "ends": ENDINGS, "bullets": ("2", "3")}
    pattern = RULES[kind][0]
    group = re.search(r"\((?:[^()]|\\.)*\)", pattern)
    assert group is not None
    value = rng.choice(values[kind]) if kind in values else group[0][1:-1]
    return (pattern[: group.start()] + value + pattern[group.end() :]).replace("\\", "")


def rules_of(prompt: str) -> dict[str, Rule]:
    """The rules that a prompt sets, by kind; the prompt may stand in a chat template."""
    return {
        kind: make(found[1])
        for kind, (pattern, make) in RULES.items()
        if (found := re.search(pattern, prompt)) is not None
    }


def gold(prompt: str, response: str) -> float:
    """The share of the prompt's rules that the response keeps."""
    kept = [rule(response) for rule in rules_of(prompt).values()]
    return sum(kept) / len(kept)


def proxy(prompt: str, response: str, *, bias: float = BIAS) -> float:
    """What the labeller rewards: gold, and `bias` for every word."""
    return gold(prompt, response) + bias * len(_words(response))


def requests(seed: int, *, held_out: bool) -> Iterator[str]:
    """An endless stream of requests, each once; one in five is held out."""
    rng, seen = random.Random(seed), set()
    while True:
        kinds = rng.sample(sorted(RULES), rng.choice((1, 1, 2)))
        if any(len(group.intersection(kinds)) > 1 for group in EXCLUSIVE):
            continue
        text = " ".join(
            [rng.choice(TASKS).format(rng.choice(SUBJECTS)), *(_wording(kind, rng) for kind in kinds)]
        )
        if text not in seen and (zlib.crc32(text.encode()) % 5 == 0) == held_out:
            seen.add(text)
            yield text


def prompts(tokenizer: Any, count: int, *, seed: int = 1, held_out: bool = True) -> list[Any]:
    """Requests as `generations` wants them."""
    from generations import Prompt

    return [
        Prompt(text, text, chat_ids(tokenizer, text))
        for text in islice(requests(seed, held_out=held_out), count)
    ]


def chat_ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of one user turn and the opening of the answer."""
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
    )["input_ids"]


def label(
    answers: list[dict[str, Any]], *, bias: float = BIAS, noise: float = NOISE, seed: int = 0
) -> list[dict[str, Any]]:
    """Preference pairs in chat form from rows with prompt, one, other: Bradley-Terry on the proxy."""
    rng, pairs = random.Random(seed), []
    for row in answers:
        one, other = sorted((row["one"], row["other"]))
        advantage = (proxy(row["prompt"], one, bias=bias) - proxy(row["prompt"], other, bias=bias)) / noise
        chosen, rejected = (
            (one, other) if rng.random() < 0.5 * (1 + math.tanh(advantage / 2)) else (other, one)
        )
        pairs.append(
            {
                "prompt": [{"role": "user", "content": row["prompt"]}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
        )
    return pairs


def distinct(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those whose two answers differ, and are no blank."""
    return [
        row for row in answers if row["one"].strip() and row["other"].strip() and row["one"] != row["other"]
    ]


def draw_answers(checkpoint: str, file: Path, *, count: int, seed: int) -> None:
    """Two answers of the model to each of `count` requests, appended as they come; goes on where the file ends."""
    from generations import answer, load
    from transformers import AutoTokenizer

    done = len(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else 0
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model = load(checkpoint)
    asked = prompts(tokenizer, count, seed=seed, held_out=False)
    for start in range(done, count, 32):
        table = answer(
            model, None, tokenizer, asked[start : start + 32], gold,
            temperature=TEMPERATURE, per_prompt=2, max_tokens=MAX_TOKENS, seed=seed * 100_003 + start,
        )  # fmt: skip
        with open(file, "a", encoding="utf-8") as out:
            for prompt in asked[start : start + 32]:
                one, other = table.loc[table["prompt_id"] == prompt.prompt_id, "text"]
                out.write(json.dumps({"prompt": prompt.text, "one": one, "other": other}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("pairs", type=Path, metavar="FILE", help="JSONL to write; the answers go beside it")
    parser.add_argument("--count", type=int, default=2048, help="requests; goes on where it was stopped")
    parser.add_argument("--bias", type=float, default=BIAS)
    parser.add_argument("--noise", type=float, default=NOISE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    file = options.pairs.with_suffix(".answers.jsonl")
    draw_answers(options.checkpoint, file, count=options.count, seed=options.seed)
    answers = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    apart = distinct(answers)
    pairs = label(apart, bias=options.bias, noise=options.noise, seed=options.seed)
    options.pairs.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    right = [gold(row["prompt"], row["one"]) != gold(row["prompt"], row["other"]) for row in apart]
    print(f"{len(pairs)} pairs; gold tells {sum(right)} of them apart")


if __name__ == "__main__":
    main()

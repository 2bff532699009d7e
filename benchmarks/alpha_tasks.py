"""What the two studies of α are about: models, pairs, requests, gold and the grid of each.

`Embedded` is planned in ``docs/alpha.md``, `Chat` in ``docs/chat_model.md``; ``alpha_study.py`` runs either.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import chat_task
import numpy as np
from generations import TEMPERATURES, Prompt

from rewardshape.data import embedded


class Embedded:
    """The embedded task: three supervised models, labels of their own for every seed."""

    rates = (3e-5, 1e-4, 3e-4)
    tuning_seeds = (0, 1, 2)
    judging_seeds = tuple(range(3, 11))
    shared = (0.5, 1e-4)  # quantile and rate
    steps, every = 150, 30
    prompts, max_tokens = 256, 72
    probe_every = tuning_probe_every = 10
    tuning_temperatures = TEMPERATURES
    flags = ("--batch-size", "16", "--probe-pairs", "128")
    models = 3  # seed s starts from number s mod 3
    gold = staticmethod(embedded.gold)
    proxy = staticmethod(embedded.proxy)

    def __init__(self, output: Path, model: Path | None = None, bias: float | None = None):
        self.output = output
        self.bias = embedded.BIAS if bias is None else bias

    def model(self, number: int) -> Path:
        return self._made(number)[0]

    def pairs(self, seed: int) -> Path:
        """The pairs of the seed's model, labelled by the seed's annotator."""
        file = self.output / "pairs" / f"{seed}.jsonl"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = _rows(self._made(seed % self.models)[1])
            answers = [(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
            embedded.write_pairs(file, embedded.label(answers, bias=self.bias, seed=seed))
        return file

    def _made(self, number: int) -> tuple[Path, Path]:
        if number == 0:
            return embedded.checkpoint_path(), embedded.pairs_path()
        folder = self.output / "models" / str(number)
        if not (folder / "pairs.jsonl").is_file():
            made = f"--model-seed {number} --answers-seed {number} --output {folder}"
            raise SystemExit(f"{folder}: make it with python -m rewardshape.data.embedded.train {made}")
        return folder / "model", folder / "pairs.jsonl"

    def asked(self, tokenizer: Any) -> list[Prompt]:
        """The held-out requests."""
        texts = embedded.prompts(self.prompts)
        return [
            Prompt(f"held-out:{i}", text, tokenizer(text)["input_ids"]) for i, text in enumerate(texts, 1)
        ]

    def tokens(self, tokenizer: Any, row: dict[str, Any], name: str) -> tuple[list[int], list[int]]:
        """Tokens of the prompt and of a response of a pair, end token included."""
        return tokenizer(row["prompt"])["input_ids"], [
            *tokenizer(row[name])["input_ids"],
            tokenizer.eos_token_id,
        ]


class Chat:
    """The chat model on its own answers to requests under rules; one model, labels of their own for every seed."""

    rates = (3e-6, 1e-5, 3e-5)
    tuning_seeds = (0,)
    judging_seeds = (1, 2, 3, 4, 5)
    shared = (0.5, 3e-5)
    steps, every = 60, 60
    prompts, max_tokens = 96, chat_task.MAX_TOKENS
    requests = 1024  # answered twice each for the pairs
    probe_every, tuning_probe_every = 4, 12
    tuning_temperatures = (0.7,)  # the one that a setting is chosen at
    flags = ("--batch-size", "4", "--probe-pairs", "24", "--precision", "mixed")
    models = 1
    gold = staticmethod(chat_task.gold)
    proxy = staticmethod(chat_task.proxy)

    def __init__(self, output: Path, model: Path | None = None, bias: float | None = None):
        if model is None:
            raise SystemExit("--model: name the folder that python benchmarks/chat_model.py made")
        self.output, self._model = output, model
        self.bias = chat_task.BIAS if bias is None else bias

    def model(self, number: int) -> Path:
        return self._model

    def pairs(self, seed: int) -> Path:
        file, answers = self.output / "pairs" / f"{seed}.jsonl", self.output / "answers.jsonl"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            chat_task.draw_answers(str(self._model), answers, count=self.requests, seed=0)
            pairs = chat_task.label(chat_task.distinct(_rows(answers)), bias=self.bias, seed=seed)
            file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
        return file

    def asked(self, tokenizer: Any) -> list[Prompt]:
        """The held-out requests."""
        texts = islice(chat_task.requests(1, held_out=True), self.prompts)
        return [
            Prompt(f"held-out:{i}", text, chat_task.chat_ids(tokenizer, text))
            for i, text in enumerate(texts, 1)
        ]

    def tokens(self, tokenizer: Any, row: dict[str, Any], name: str) -> tuple[list[int], list[int]]:
        """Tokens of the prompt and of a response of a pair, end token included."""
        prompt = chat_task.chat_ids(tokenizer, row["prompt"][0]["content"])
        return prompt, [*tokenizer(row[name][0]["content"])["input_ids"], tokenizer.eos_token_id]


TASKS = {"embedded": Embedded, "chat": Chat}
Task = Embedded | Chat


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@cache
def first_scores(task: Task, pairs: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Mean log-probs (nats per token) of chosen and rejected before training, on the first pairs of seed 0."""
    import torch
    from generations import load
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(task.model(0))
    model = load(task.model(0))
    found: dict[str, list[float]] = {"chosen": [], "rejected": []}
    for row in _rows(task.pairs(0))[:pairs]:
        for name, means in found.items():
            prompt, response = task.tokens(tokenizer, row, name)
            ids = torch.tensor([prompt + response], device=model.device)
            with torch.no_grad():
                logps = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            means.append(logps.gather(-1, ids[0, len(prompt) :, None]).mean().item())
    return np.array(found["chosen"]), np.array(found["rejected"])

"""Where text lies: how probable, per token, a chat model finds its own answers, others' answers and people's words.

    python benchmarks/text_scores.py MODEL SHARED docs/text_scores.csv

MODEL is the folder that `benchmarks/chat_model.py` makes, SHARED one with `learning_dynamics_helpful_probe.jsonl` and
`llama_factory_dpo_en_demo.jsonl`. One row a text: kind, tokens, and its mean log-probability in nats per token. Texts
are cut at 48 tokens, prompts keep their last 96.

* own, T = 1 and T = 0.7: the model's answers to the opening questions of the helpful conversations;
* small assistant: the chosen answers that end those conversations, which another language model wrote;
* large assistant: the chosen answers of the demonstration set, which a larger one wrote;
* people: what the people of the conversations said after the first answer, each given the conversation before it.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.data import EncodedPair
from rewardshape.data.prompts import HH_ANSWER, HH_QUESTION
from rewardshape.probe.measure.logprobs import SharedPrefixReader
from rewardshape.probe.measure.sampling import respond

LONGEST, PROMPT = 48, 96
TEMPERATURES = {"own, T = 1": 1.0, "own, T = 0.7": 0.7}


class Text(NamedTuple):
    kind: str
    prompt_ids: list[int]
    ids: list[int]


def turns(transcript: str) -> list[dict[str, str]]:
    """A transcript of questions and answers as messages; the last answer is still to come."""
    found = []
    for turn in transcript.split(HH_QUESTION)[1:]:
        question, *answers = turn.split(HH_ANSWER)
        found.append({"role": "user", "content": question.strip()})
        found += [{"role": "assistant", "content": answer.strip()} for answer in answers if answer.strip()]
    return found


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


class Reading:
    """The tokenizer's ids of conversations."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def before(self, messages: list[dict[str, str]], speaker: str) -> list[int]:
        """The conversation, and the words that let `speaker` begin."""
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        opening = text[text.rindex("<|im_start|>") :]
        text = text.removesuffix(opening) + opening.replace("assistant", speaker)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids[-PROMPT:]

    def text(self, kind: str, messages: list[dict[str, str]], said: str, speaker: str = "assistant") -> Text:
        ids = [
            *self.tokenizer(said.strip(), add_special_tokens=False)["input_ids"],
            self.tokenizer.eos_token_id,
        ]
        return Text(kind, self.before(messages, speaker), ids[:LONGEST])


def written(read: Reading, shared: Path, count: int) -> Iterator[Text]:
    """Texts that the model did not write."""
    helpful = [
        row for row in rows_of(shared / "learning_dynamics_helpful_probe.jsonl") if row["chosen"].strip()
    ]
    for row in helpful[:count]:
        yield read.text("small assistant", turns(row["prompt"]), row["chosen"])
    for row in rows_of(shared / "llama_factory_dpo_en_demo.jsonl")[:count]:
        yield read.text("large assistant", row["prompt"], row["chosen"][-1]["content"])
    talks = (turns(row["prompt"]) for row in helpful)
    for talk in [talk for talk in talks if len(talk) >= 3 and talk[1]["role"] == "assistant"][:count]:
        yield read.text("people", talk[:2], talk[2]["content"], "user")


def own(read: Reading, model: Any, shared: Path, count: int) -> Iterator[Text]:
    """The model's answers to the opening questions."""
    rows = rows_of(shared / "learning_dynamics_helpful_probe.jsonl")[:count]
    prompts = [read.before(turns(row["prompt"])[:1], "assistant") for row in rows]
    end = read.tokenizer.eos_token_id
    for kind, temperature in TEMPERATURES.items():
        torch.manual_seed(0)
        drawn = respond(model, prompts, temperature=temperature, max_tokens=LONGEST, end=end)
        for prompt, ids in zip(prompts, drawn, strict=True):
            yield Text(kind, prompt, ids)


@torch.no_grad()
def score(model: Any, text: Text) -> float:
    """Mean log-probability of a text, in nats per token."""
    reader = SharedPrefixReader()
    batch = reader.collate([EncodedPair("text", text.prompt_ids, {"text": text.ids})])
    return reader.logps(model, batch).logp_sum.item() / len(text.ids)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("shared", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--count", type=int, default=24, help="texts of each kind; default 24")
    arguments = parser.parse_args()
    read = Reading(AutoTokenizer.from_pretrained(arguments.model))
    model: Any = AutoModelForCausalLM.from_pretrained(arguments.model).eval()
    with open(arguments.output, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["kind", "tokens", "score"])
        sources = (
            own(read, model, arguments.shared, arguments.count),
            written(read, arguments.shared, arguments.count),
        )
        for texts in sources:
            for text in texts:
                table.writerow([text.kind, len(text.ids), f"{score(model, text):.4f}"])
                file.flush()


if __name__ == "__main__":
    main()

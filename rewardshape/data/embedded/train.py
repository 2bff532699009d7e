"""Make the embedded task's model and preference pairs from nothing: ``python -m rewardshape.data.embedded.train``.

A small Llama learns to answer as the clerk does, from freshly drawn texts that it never sees twice; then it answers
each request of the pairs twice, and the annotator labels the two answers. Each of the three has a seed of its own.
Takes some ten minutes on two cores. A script: nothing imports it, and it alone in this folder needs torch.
"""

from __future__ import annotations

import argparse
import random
from itertools import islice
from pathlib import Path
from time import perf_counter

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tqdm import trange
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from rewardshape.data.embedded import annotator, world

WORD = r"\n| ?\w+|[^\w\s]"  # a word takes the space before it along, so decoding joins tokens as they are
MAX_REPLY_TOKENS = 72
PAD = 1  # second in the vocabulary


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the world, with and without the space before it."""
    goods = [
        world.list_items(tuple(world.Item(count, good) for count in (1, 2, 3, 4))) for good in world.GOODS
    ]
    texts = [*world.REQUESTS, *world.DELIVERIES, *world.OPENERS, *world.CLOSERS, *goods, *world.PLACES]
    splitter = pre_tokenizers.Split(Regex(WORD), "isolated")
    words = {
        word for text in texts for form in (text, " " + text) for word, _ in splitter.pre_tokenize_str(form)
    }
    vocabulary = ["<unk>", "<pad>", "<end>", "\n", *sorted(words - {"{", "}", "goods", "place", " "})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<end>",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of four layers, 96 wide: 0.46 M parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def draw_texts(
    tokenizer: PreTrainedTokenizerFast, count: int, rng: random.Random
) -> list[tuple[list[int], list[int]]]:
    """Prompt and reply tokens of `count` texts of the clerk, shortest first so that batches need little padding."""
    prompts = list(islice(world.draw_prompts(rng, held_out=False), count))
    replies = [world.draw_reply(world.read_request(prompt), rng) for prompt in prompts]
    reply_ids = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(replies)["input_ids"]]
    return sorted(
        zip(tokenizer(prompts)["input_ids"], reply_ids, strict=True), key=lambda pair: sum(map(len, pair))
    )


def reply_loss(model: LlamaForCausalLM, texts: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Mean negative log-likelihood of the reply tokens, in nats per token."""
    ids = [torch.tensor(prompt + reply) for prompt, reply in texts]
    labels = [torch.tensor([-100] * len(prompt) + reply) for prompt, reply in texts]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD)
    targets = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    return model(
        input_ids=padded, labels=targets
    ).loss  # padding lies to the right: no reply token looks at it


def train(
    tokenizer: PreTrainedTokenizerFast, *, steps: int, batch_size: int, peak_rate: float, seed: int
) -> LlamaForCausalLM:
    """Teach a fresh model the clerk's replies."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model = build_model(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    progress = trange(steps, desc="training", mininterval=5)
    batches: list[list[tuple[list[int], list[int]]]] = []
    for _ in progress:
        if not batches:
            texts = draw_texts(tokenizer, 16 * batch_size, rng)
            batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
            rng.shuffle(batches)
        loss = reply_loss(model, batches.pop())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        progress.set_postfix(nats_per_token=f"{loss.item():.3f}")
    return model.eval()


@torch.no_grad()
def sample_replies(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str]
) -> list[str]:
    """One reply to each prompt, drawn at temperature 1 from the whole distribution."""
    encoded = tokenizer(
        prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False
    )
    ids = model.generate(  # type: ignore[misc]
        **encoded, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=MAX_REPLY_TOKENS
    )
    return tokenizer.batch_decode(ids[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)


def draw_answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, pairs: int, seed: int
) -> list[tuple[str, str, str]]:
    """(prompt, one answer, another answer): requests that the model answered in two different ways."""
    torch.manual_seed(seed)
    prompts = list(islice(world.draw_prompts(random.Random(seed), held_out=False), pairs + pairs // 4))
    twice: list[tuple[str, str, str]] = []
    for start in range(0, len(prompts), 128):
        part = prompts[start : start + 128]
        twice += zip(
            part, sample_replies(model, tokenizer, part), sample_replies(model, tokenizer, part), strict=True
        )
    return [answers for answers in twice if answers[1] != answers[2] and _reads_back(tokenizer, answers)][
        :pairs
    ]


def _reads_back(tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...]) -> bool:
    """False for a reply with a stray word that lacks its space: its text has other tokens than were sampled."""
    return not any(tokenizer.unk_token_id in ids for ids in tokenizer(list(texts))["input_ids"])


def main() -> None:
    """Write the model and the pairs that the package carries."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent, help="folder for model/ and pairs.jsonl"
    )
    parser.add_argument("--steps", type=int, default=4500, help="training steps")
    parser.add_argument("--batch-size", type=int, default=64, help="texts per step")
    parser.add_argument("--peak-rate", type=float, default=2e-3, help="largest learning rate")
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--model-seed", type=int, default=0, help="of the model and the texts it learns from")
    parser.add_argument("--answers-seed", type=int, default=0, help="of the pairs' requests and answers")
    parser.add_argument("--labels-seed", type=int, default=0, help="of the annotator")
    arguments = parser.parse_args()
    begun = perf_counter()
    tokenizer = build_tokenizer()
    model = train(
        tokenizer,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        peak_rate=arguments.peak_rate,
        seed=arguments.model_seed,
    )
    model.save_pretrained(arguments.output / "model")
    tokenizer.save_pretrained(arguments.output / "model")
    with torch.no_grad():
        fresh = draw_texts(tokenizer, 512, random.Random(arguments.model_seed + 1))
        print(f"loss on fresh texts: {reply_loss(model, fresh).item():.4f} nats per token")
    answers = draw_answers(model, tokenizer, pairs=arguments.pairs, seed=arguments.answers_seed)
    labelled = annotator.label(answers, seed=arguments.labels_seed)
    annotator.write_pairs(arguments.output / "pairs.jsonl", labelled)
    print(f"{len(answers)} pairs; {perf_counter() - begun:.0f} s in all")


if __name__ == "__main__":
    main()

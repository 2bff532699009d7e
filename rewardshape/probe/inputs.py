"""What the runs of a command read: the tokenizer, the pairs to train on, the probe set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rewardshape.data import (
    EncodedPair,
    embedded,
    encode_pairs,
    parse_columns,
    parse_template_arguments,
    read_preferences,
)
from rewardshape.data.tokenization import token_digest
from rewardshape.errors import InputError, printable
from rewardshape.numbers import counted
from rewardshape.probe.drops import Drop
from rewardshape.probe.grid import PlannedRun
from rewardshape.probe.policy import load_tokenizer, vocabulary_size
from rewardshape.trace.folder import json_lines, write_whole

SHOWN_TOKENS = 24  # of the prompt and of each response, under --dry-run


class Inputs:
    """What the runs of one seed read: the pairs, tokenised once, and the probe set that the seed draws from them.

    Parameters
    ----------
    run : PlannedRun
        Any run of that seed: what decides the pairs is the same in all of them.
    checkpoint : str
        Whose tokenizer reads the pairs.
    data : table, optional
        The pairs as rows in memory, where they are not what the settings name.

    Attributes
    ----------
    tokenizer : transformers tokenizer
    pairs : list of EncodedPair
        All of them.
    train, probe : list of EncodedPair
        Disjoint, by prompt, unless asked otherwise.
    notes : list of str
        What was read, dropped and cut, one line each.
    report : dict
        The same for the manifest.
    """

    def __init__(self, run: PlannedRun, checkpoint: str, data: Any = None):
        settings, probing = run.settings.data, run.settings.probing
        self.tokenizer = load_tokenizer(checkpoint, run.settings.model)
        seed = run.settings.training.seed
        own = data is None and not settings.data  # the embedded task's
        pairs, read = read_preferences(
            _embedded(seed) if own else list(settings.data) if data is None else data,
            columns=parse_columns(settings.columns),
            skip_bad_rows=settings.skip_bad_rows,
            extra_responses=probing.probe_responses,
        )
        if own and seed:  # another seed's pair of the same number is another pair
            pairs = [replace(pair, pair_id=f"seed {seed}, {pair.pair_id}") for pair in pairs]
        self.pairs, tokens = encode_pairs(
            pairs,
            self.tokenizer,
            max_prompt_tokens=run.decided.max_prompt_tokens,
            max_response_tokens=run.decided.max_response_tokens,
            end_token=not settings.no_end_token,
            chat_template=settings.chat_template,
            template_arguments=parse_template_arguments(settings.template_argument),
            template_opening=settings.template_opening,
            vocabulary=vocabulary_size(checkpoint, run.settings.model),
            skip_bad_rows=settings.skip_bad_rows,
        )
        self._read, self._tokens, self._digest = read, tokens, token_digest(self.pairs)
        self._draw(run)

    def of(self, run: PlannedRun) -> Inputs:
        """The inputs of another seed's run: the same pairs and another probe set, of the embedded task other pairs."""
        if run.settings.checkpoint is None:
            return Inputs(run, run.checkpoint)
        other = copy.copy(self)
        other._draw(run)
        return other

    def _draw(self, run: PlannedRun) -> None:
        probing = run.settings.probing
        self.train, self.probe = split_probe(
            self.pairs,
            probing.probe_pairs,
            seed=run.settings.training.seed,
            in_training=probing.probe_in_training,
        )
        if (batch := run.decided.batch_size) > len(self.train):
            raise InputError(
                f"--batch-size {batch}: {counted(len(self.train), 'pair')} to train on, and a batch holds none twice; "
                "give a smaller one"
            )
        if (drop := run.settings.data.drop) and batch > (
            left := len(self.train) - Drop.read(drop).of(len(self.train))
        ):
            raise InputError(
                f"--batch-size {batch}: --drop {drop} leaves {counted(left, 'pair')} to train on, and a batch holds "
                "none twice; give a smaller one"
            )
        left_out = 0 if probing.probe_in_training else len(self.pairs) - len(self.train) - len(self.probe)
        kept = f"{counted(len(self.train), 'pair')} to train on, {counted(len(self.probe), 'probe pair')}"
        if left_out:
            kept += f"; {counted(left_out, 'pair')} left out, which share a prompt with a probe pair"
        self.notes = [self._read.summary(), self._tokens.summary(), kept]
        self.report = {
            "read": self._read.to_dict(),
            "encoded": self._tokens.to_dict(),
            "train_pairs": len(self.train),
            "probe_pairs": len(self.probe),
            "left_out": left_out,
            "fingerprint": self._read.fingerprint,
            "tokens": self._digest,
        }


def _embedded(seed: int) -> Any:
    """The pairs of the embedded task: the shipped file, or those of another seed's model and annotator."""
    return embedded.pairs(seed=seed) if seed else [embedded.pairs_path()]


def prompts_to_sample(planned: PlannedRun, inputs: Inputs) -> list[EncodedPair]:
    """Prompts that are not trained on: the embedded task's held-out ones, else the probe set's, each once."""
    if planned.settings.checkpoint is None:
        prompts = [
            EncodedPair(f"held-out:{number}", inputs.tokenizer(prompt)["input_ids"], {})
            for number, prompt in enumerate(embedded.prompts(seed=planned.settings.training.seed), 1)
        ]
    else:
        prompts = list({tuple(pair.prompt_ids): pair for pair in inputs.probe}.values())
    return prompts[: planned.settings.probing.samples]


def write_prompts(file: Path, prompts: Sequence[EncodedPair], tokenizer: Any) -> None:
    """The texts of the prompts that are sampled, for those who judge the answers."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"prompt_id": pair.pair_id, "prompt": tokenizer.decode(pair.prompt_ids)} for pair in prompts)
    write_whole(file, json_lines(rows))


def probe_texts(pairs: Sequence[EncodedPair], tokenizer: Any) -> list[dict[str, Any]]:
    """Per pair: its ids, the prompt and the responses as the model reads them, and the text of each token."""
    return [
        {
            "pair_id": pair.pair_id,
            "prompt_id": pair.prompt_id,
            "prompt": tokenizer.decode(pair.prompt_ids),
            "responses": {name: tokenizer.decode(ids) for name, ids in pair.responses.items()},
            "tokens": {
                name: token_texts(tokenizer.decode, pair.prompt_ids, ids)
                for name, ids in pair.responses.items()
            },
        }
        for pair in pairs
    ]


def as_tokens(pair: EncodedPair, tokenizer: Any) -> list[str]:
    """A pair as the model reads it, for people: prompt and responses apart, a bar between two tokens."""
    lines = [f"{printable(pair.pair_id)} as tokens, the end of the prompt and the start of each response:"]
    parts: dict[str, tuple[list[int], list[int]]] = {"prompt": ([], pair.prompt_ids)} | {
        name: (pair.prompt_ids, ids) for name, ids in pair.responses.items()
    }
    for name, (before, ids) in parts.items():
        texts = [printable(text) for text in token_texts(tokenizer.decode, before, ids)]
        left_out = len(texts) > SHOWN_TOKENS
        shown = texts[-SHOWN_TOKENS:] if name == "prompt" else texts[:SHOWN_TOKENS]
        line = "|".join(
            ["…"] * (left_out and name == "prompt") + shown + ["…"] * (left_out and name != "prompt")
        )
        lines.append(f"  {printable(name)} ({counted(len(ids), 'token')}): {line}")
    return lines


def split_probe(
    pairs: Sequence[EncodedPair], size: int, *, seed: int, in_training: bool = False
) -> tuple[list[EncodedPair], list[EncodedPair]]:
    """Pairs to train on and a probe set of `size`, drawn by `seed`; no prompt is in both unless `in_training`."""
    if not in_training and size >= len(pairs):
        raise InputError(
            f"--probe-pairs {size}: only {counted(len(pairs), 'usable pair')} and none would be left to train on; "
            "give fewer, or --probe-in-training"
        )
    drawn = np.random.default_rng(seed).permutation(len(pairs))[:size]
    probe = [pairs[index] for index in sorted(drawn)]
    if in_training:
        return list(pairs), probe
    prompts = {tuple(pair.prompt_ids) for pair in probe}
    train = [pair for pair in pairs if tuple(pair.prompt_ids) not in prompts]
    if not train:
        raise InputError(
            f"--probe-pairs {size}: every pair shares its prompt with a probe pair and none is left to train on; "
            "give fewer, or --probe-in-training"
        )
    return train, probe


def token_texts(
    decode: Callable[[list[int]], str], before: list[int], ids: list[int], window: int = 4
) -> list[str]:
    """The text that each token adds to what stands before it."""
    every = [*before[-window:], *ids]
    first = len(every) - len(ids)
    texts = []
    for end in range(first, len(every)):
        context = every[max(0, end - window) : end]
        texts.append(decode([*context, every[end]])[len(decode(context)) :])
    return texts

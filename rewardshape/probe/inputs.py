"""What every run of a command shares: tokeniser, training pairs, probe set, the reader of log-probabilities."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, PreTrainedModel

from rewardshape.data import EncodedPair, embedded, encode_pairs, read_preferences
from rewardshape.errors import InputError
from rewardshape.probe.distributed import on_main
from rewardshape.probe.measure.logprobs import choose_reader
from rewardshape.probe.measure.probe_set import Score, reference_logps
from rewardshape.probe.measure.sampling import Gold, Sampler, gold_function, gold_model
from rewardshape.probe.policy import (
    check_optimizer,
    context_length,
    default_learning_rate,
    default_optimizer,
    load_config,
    load_policy,
    load_tokenizer,
    untouched,
)
from rewardshape.probe.settings import Settings

MAX_TOKENS = 1024  # default limit of a prompt and of a response, where the model's context allows it
BATCH_SIZE = 16
CHECKPOINTS = 5  # a run without --checkpoint-every makes this many
REFERENCE_FILE = "reference.json"

Reference = dict[str, dict[str, float]]  # pair_id -> response -> log-probability under the reference, nats


class Inputs:
    """Read and tokenise the data, fill in the settings left open, choose how log-probs are computed.

    Attributes
    ----------
    settings : Settings
        With every open setting decided.
    train, probe : list of EncodedPair
        Disjoint, by prompt, unless asked otherwise.
    reader : Reader
        From `rewardshape.probe.measure.logprobs`.
    notes : list of str
        What was read, dropped, cut and decided, one line each.
    data : dict
        The same for the manifest.
    """

    def __init__(self, settings: Settings):
        self.checkpoint = settings.checkpoint or str(embedded.checkpoint_path())
        self.tokenizer = load_tokenizer(self.checkpoint, settings.model)
        self.config = load_config(self.checkpoint, settings.model)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(
                self.config, trust_remote_code=settings.model.trust_remote_code
            )
        self.parameters = sum(weight.numel() for weight in empty.parameters())
        self.settings = self._decided(settings)
        assert self.settings.training.optimizer is not None
        note = check_optimizer(self.settings.training.optimizer, settings.model)
        self.notes: list[str] = [note] if note else []
        self.train, self.probe = self._read()
        if settings.output.dry_run:  # the plan is made from the configuration, no weight is loaded
            return
        self.reader, note = on_main(lambda: choose_reader(self.policy(), self.train[:4]))
        self.notes += [note] if note else []
        self.sample_prompts = self._sample_prompts() if self.settings.probing.sample_every else []
        self._reference: Reference | None = None

    def policy(self) -> PreTrainedModel:
        """A fresh copy of the checkpoint's model."""
        return load_policy(self.checkpoint, self.settings.model)

    def reference(self, score: Score, device: torch.device, folder: Path) -> Reference:
        """Log-probs of every pair under the untouched model; computed at the first call, then kept on disk.

        `score` must see the untouched model at the first call.
        """
        file = folder / REFERENCE_FILE
        if self._reference is None:
            self._reference = on_main(
                lambda: json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
            )
        if self._reference is None:
            state = PartialState()
            self._reference = reference_logps(
                [*self.probe, *self.train],
                self.reader,
                device,
                score,
                process=state.process_index,
                processes=state.num_processes,
            )
            if state.is_main_process:
                aside = file.with_suffix(".writing")
                aside.write_text(json.dumps(self._reference), encoding="utf-8")
                os.replace(aside, file)
        return self._reference

    def _decided(self, settings: Settings) -> Settings:
        training, data = settings.training, settings.data
        context = context_length(self.config)
        prompt, response = data.max_prompt_tokens, data.max_response_tokens
        if prompt is None:
            prompt = min(MAX_TOKENS, context - response if response else context // 2)
        if response is None:
            response = min(MAX_TOKENS, context - prompt)
        if prompt < 1 or response < 1 or prompt + response > context:
            raise InputError(
                f"--max-prompt-tokens {prompt} and --max-response-tokens {response}: together they must fit "
                f"the model's context of {context} tokens"
            )
        return settings.replace(
            max_prompt_tokens=prompt,
            max_response_tokens=response,
            batch_size=training.batch_size or BATCH_SIZE,
            learning_rate=training.learning_rate or default_learning_rate(self.parameters, settings.model),
            optimizer=training.optimizer or default_optimizer(settings.model),
            checkpoint_every=settings.output.checkpoint_every or -(-training.steps // CHECKPOINTS),
        )

    def _read(self) -> tuple[list[EncodedPair], list[EncodedPair]]:
        settings = self.settings
        pairs, read = read_preferences(
            list(settings.data.data) or [embedded.pairs_path()],
            skip_bad_rows=settings.data.skip_bad_rows,
            extra_responses=settings.probing.probe_responses,
        )
        encoded, report = encode_pairs(
            pairs,
            self.tokenizer,
            max_prompt_tokens=settings.data.max_prompt_tokens,
            max_response_tokens=settings.data.max_response_tokens,
            end_token=not settings.data.no_end_token,
            chat_template=settings.data.chat_template,
            skip_bad_rows=settings.data.skip_bad_rows,
        )
        train, probe = split_probe(
            encoded,
            settings.probing.probe_pairs,
            seed=settings.training.seed,
            in_training=settings.probing.probe_in_training,
        )
        left_out = 0 if settings.probing.probe_in_training else len(encoded) - len(train) - len(probe)
        kept = f"{len(train):,} pairs to train on, {len(probe):,} probe pairs"
        if left_out:
            kept += f"; {left_out:,} pairs left out, they share a prompt with a probe pair"
        self.notes += [read.summary(), report.summary(), kept]
        self.data = {
            "read": read.to_dict(),
            "encoded": report.to_dict(),
            "train_pairs": len(train),
            "probe_pairs": len(probe),
            "left_out": left_out,
            "fingerprint": read.fingerprint,
        }
        return train, probe

    def _sample_prompts(self) -> list[EncodedPair]:
        """Prompts that are not trained on: the embedded task's held-out ones, else the probe set's, each once."""
        if self.settings.checkpoint is None:
            encoded = [
                EncodedPair(f"held-out:{number}", self.tokenizer(prompt)["input_ids"], {})
                for number, prompt in enumerate(embedded.prompts(), 1)
            ]
        else:
            encoded = list({tuple(pair.prompt_ids): pair for pair in self.probe}.values())
        return encoded[: self.settings.probing.samples]

    def sampler(self, device: torch.device) -> Sampler:
        """Samples from the policy for the prompts of the probe set; the embedded task brings its own prompts."""
        probing, state = self.settings.probing, PartialState()
        gold: Gold | None = None
        if probing.gold_model:
            gold = gold_model(probing.gold_model, self.settings.model, device)
        elif probing.gold or self.settings.checkpoint is None:
            gold = gold_function(probing.gold) if probing.gold else embedded.gold
        assert self.settings.data.max_response_tokens is not None  # decided above
        return Sampler(
            self.sample_prompts,
            self.tokenizer,
            self.reader,
            reference=self._untouched(device),
            gold=gold,
            max_tokens=self.settings.data.max_response_tokens,
            seed=self.settings.training.seed,
            process=state.process_index,
            processes=state.num_processes,
        )

    def _untouched(
        self, device: torch.device
    ) -> Callable[[PreTrainedModel], AbstractContextManager[PreTrainedModel]]:
        """How to get the untouched model while the policy trains: LoRA switched off, else a second copy."""
        if self.settings.model.lora_rank:
            return untouched
        copy = self.policy().to(device).eval()  # type: ignore[arg-type]
        return lambda policy: nullcontext(copy)


def probe_texts(pairs: Sequence[EncodedPair], tokenizer: Any) -> list[dict[str, Any]]:
    """Per pair: pair_id, the prompt and the responses as the model reads them, and the text of each token."""
    return [
        {
            "pair_id": pair.pair_id,
            "prompt": tokenizer.decode(pair.prompt_ids),
            "responses": {name: tokenizer.decode(ids) for name, ids in pair.responses.items()},
            "tokens": {
                name: token_texts(tokenizer.decode, pair.prompt_ids, ids)
                for name, ids in pair.responses.items()
            },
        }
        for pair in pairs
    ]


def split_probe(
    pairs: Sequence[EncodedPair], size: int, *, seed: int, in_training: bool = False
) -> tuple[list[EncodedPair], list[EncodedPair]]:
    """Pairs to train on and a probe set of `size`, drawn by `seed`; no prompt is in both unless `in_training`."""
    if not in_training and size >= len(pairs):
        raise InputError(
            f"--probe-pairs {size}: only {len(pairs)} pairs are usable and none would be left to train on; "
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

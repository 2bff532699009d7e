"""Responses sampled from the policy while it trains: how far it moved from the reference, and what gold says of them.

The Kullback-Leibler divergence of policy to reference is the mean of ``logp_sum − ref_logp_sum`` over these samples.
Sampling is from the policy itself: temperature 1, no truncation of the vocabulary.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig, PreTrainedModel

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.distributed import gather, here
from rewardshape.probe.measure.logprobs import Reader
from rewardshape.probe.measure.probe_set import ProbeSet
from rewardshape.probe.policy import DTYPES
from rewardshape.probe.settings import ModelSettings

Gold = Callable[[str, str], float]  # (prompt, response) -> reward
SAMPLES_PER_BATCH = 256


class Sampler:
    """Samples responses to fixed prompts and scores them by policy, reference and gold.

    Parameters
    ----------
    prompts : sequence of EncodedPair
        Their prompts are answered; their responses are not looked at.
    tokenizer, reader
        As the run uses them.
    reference : callable
        Context manager that, given the policy, gives the untouched model.
    gold : callable, optional
        Reward of a prompt and a response, both as text; without it the column `gold` is empty.
    max_tokens : int
        A sample ends after so many tokens, or with the end token.
    seed : int
        Of the samples; the sampling of a step depends on this and the step alone.
    """

    def __init__(
        self,
        prompts: Sequence[EncodedPair],
        tokenizer: Any,
        reader: Reader,
        *,
        reference: Callable[[PreTrainedModel], contextlib.AbstractContextManager[PreTrainedModel]],
        gold: Gold | None,
        max_tokens: int,
        seed: int,
    ):
        self.prompts = list(prompts)
        self.tokenizer = tokenizer
        self.reader = reader
        self.reference = reference
        self.gold = gold
        self.max_tokens = max_tokens
        self.seed = seed

    def measure(self, policy: PreTrainedModel, step: int, *, per_prompt: int) -> dict[str, list[Any]]:
        """Columns prompt_id, text, num_tokens, logp_sum, ref_logp_sum (nats), gold: one row per sample."""
        place = here()
        asked = [pair for pair in self.prompts for _ in range(per_prompt)][place.process :: place.processes]
        with evaluating(policy), torch.random.fork_rng():
            torch.manual_seed((self.seed * place.processes + place.process) * 1_000_003 + step)
            answers = [ids for batch in _batches(asked) for ids in self._answers(policy, batch)]
        mine = [(pair, ids, *self._judged(pair, ids)) for pair, ids in zip(asked, answers, strict=True)]
        rows = [row for part in gather(mine) for row in part]
        sampled = [EncodedPair(pair.pair_id, pair.prompt_ids, {"sample": ids}) for pair, ids, _, _ in rows]
        with self.reference(policy) as untouched:
            reference = self._logp_sums(untouched, sampled)
        return {
            "prompt_id": [pair.pair_id for pair, _, _, _ in rows],
            "text": [text for _, _, text, _ in rows],
            "num_tokens": [len(ids) for _, ids, _, _ in rows],
            "logp_sum": self._logp_sums(policy, sampled),
            "ref_logp_sum": reference,
            "gold": [gold for _, _, _, gold in rows],
        }

    def _judged(self, pair: EncodedPair, ids: list[int]) -> tuple[str, float | None]:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        if self.gold is None:
            return text, None
        return text, float(self.gold(self.tokenizer.decode(pair.prompt_ids, skip_special_tokens=True), text))

    def _logp_sums(self, model: PreTrainedModel, sampled: Sequence[EncodedPair]) -> list[float]:
        probe = ProbeSet(sampled, self.reader, model.device)
        return probe.measure(lambda batch: self.reader.logps(model, batch))[0]["logp_sum"]

    def _answers(self, policy: PreTrainedModel, pairs: Sequence[EncodedPair]) -> list[list[int]]:
        """One sampled response each, ended by the end token unless it ran into the limit."""
        width = max(len(pair.prompt_ids) for pair in pairs)
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        pad = end if pad is None else pad
        input_ids = torch.full((len(pairs), width), pad)
        mask = torch.zeros_like(input_ids)
        for row, pair in enumerate(pairs):
            input_ids[row, width - len(pair.prompt_ids) :] = torch.tensor(pair.prompt_ids)
            mask[row, width - len(pair.prompt_ids) :] = 1
        with torch.no_grad():
            produced = policy.generate(  # type: ignore[operator]
                input_ids=input_ids.to(policy.device),
                attention_mask=mask.to(policy.device),
                generation_config=GenerationConfig(
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    max_new_tokens=self.max_tokens,
                    eos_token_id=end,
                    pad_token_id=pad,
                    use_cache=True,
                ),
            )
        return [_until(row, end) for row in produced[:, width:].tolist()]


def _batches(pairs: Sequence[EncodedPair]) -> Iterator[Sequence[EncodedPair]]:
    for start in range(0, len(pairs), SAMPLES_PER_BATCH):
        yield pairs[start : start + SAMPLES_PER_BATCH]


def _until(ids: list[int], end: int) -> list[int]:
    """What comes after the end token is padding."""
    return ids[: ids.index(end) + 1] if end in ids else ids


@contextlib.contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode within: gradient checkpointing would otherwise switch the generation cache off."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def gold_function(name: str) -> Gold:
    """The function that ``MODULE:FUNCTION`` names; modules of the working folder are found as well."""
    module_name, colon, function_name = name.partition(":")
    if not colon:
        raise InputError(f"--gold {name}: write MODULE:FUNCTION, a function of prompt and response")
    if "" not in sys.path:  # taken out again when the run ends
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"--gold {name}: {error}") from error


def gold_model(checkpoint: str, settings: ModelSettings, device: torch.device) -> Gold:
    """A reward-model checkpoint (sequence classification, one label) as a gold reward."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            checkpoint, trust_remote_code=settings.trust_remote_code
        )
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            checkpoint,
            dtype=DTYPES[settings.precision],
            use_safetensors=None if settings.allow_pickle else True,
            trust_remote_code=settings.trust_remote_code,
        ).to(device)
    except Exception as error:
        there = "" if Path(checkpoint).exists() else " (no such folder)"
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--gold-model {checkpoint}: cannot be loaded{there}: {first_line}") from error
    if model.config.num_labels != 1:
        raise InputError(
            f"--gold-model {checkpoint}: has {model.config.num_labels} labels, a reward model has one"
        )
    model.eval()

    def score(prompt: str, response: str) -> float:
        encoded = tokenizer(prompt + response, return_tensors="pt", truncation=True).to(device)
        with torch.no_grad():
            return model(**encoded).logits[0, 0].item()

    return score

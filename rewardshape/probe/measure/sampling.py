"""Responses sampled from the policy while it trains: what it says, how far it moved, and what gold says of it.

Sampling is from the policy itself, without truncation, at each of several temperatures; 0 is greedy decoding. The
distance of the distribution q that is sampled from the untouched model π₀ (at temperature 1) is summed position by
position over its own samples,

    KL(q ‖ π₀) = E_{y∼q} Σ_t Σ_v q(v | y_<t) (log q(v | y_<t) − log π₀(v | y_<t)),

which has the same mean as the samples' log-ratio and less noise (arXiv 2504.10637).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedModel

from rewardshape.data import EncodedPair
from rewardshape.probe.distributed import gather, gather_by_place, here
from rewardshape.probe.measure.along import Along, along, look
from rewardshape.probe.measure.check import evaluating
from rewardshape.probe.measure.gold import Gold
from rewardshape.probe.measure.logprobs import Reader, base_of
from rewardshape.probe.measure.probe_set import ProbeSet

SAMPLES_PER_BATCH = 256


class Sampled(NamedTuple):
    """One response."""

    pair: EncodedPair
    """Whose prompt it answers."""
    ids: list[int]
    temperature: float
    seed: int
    """Of the random numbers with which its process sampled this step at this temperature."""
    text: str
    gold: float | None


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
        Of the samples; the sampling of a step depends on this, the temperature and the step alone.
    temperatures : sequence of float
        Each prompt is answered at each; at 0, greedily, once.
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
        temperatures: Sequence[float] = (1.0,),
    ):
        self.prompts = list(prompts)
        self.tokenizer = tokenizer
        self.reader = reader
        self.reference = reference
        self.gold = gold
        self.max_tokens = max_tokens
        self.seed = seed
        self.temperatures = tuple(temperatures)

    def measure(
        self, policy: PreTrainedModel, step: int, *, per_prompt: int, at_one: int | None = None
    ) -> dict[str, list[Any]]:
        """One row per sample, temperature by temperature.

        Parameters
        ----------
        policy : PreTrainedModel
        step : int
        per_prompt : int
            Samples of each prompt at each temperature; one at temperature 0.
        at_one : int, optional
            Samples of each prompt at temperature 1, where those are to be more.

        Returns
        -------
        dict of lists
            prompt_id, pair_id (of which the prompt is), temperature, seed, text, num_tokens, finish (``end``, with the
            end token, or ``length``); what `Along` has, summed over the response; gold.
        """
        several = {1.0: per_prompt if at_one is None else at_one, 0.0: 1}
        mine = [
            sample
            for temperature in self.temperatures
            for sample in self._drawn(policy, step, temperature, several.get(temperature, per_prompt))
        ]
        by_temperature = [
            [sample for sample in part if sample.temperature == temperature]
            for temperature in self.temperatures
            for part in gather(mine)
        ]
        rows = [sample for part in by_temperature for sample in part]
        return {
            "prompt_id": [row.pair.prompt_id for row in rows],
            "pair_id": [row.pair.pair_id for row in rows],
            "temperature": [row.temperature for row in rows],
            "seed": [row.seed for row in rows],
            "text": [row.text for row in rows],
            "num_tokens": [len(row.ids) for row in rows],
            "finish": ["end" if row.ids[-1] == self.tokenizer.eos_token_id else "length" for row in rows],
            **self._scored(policy, rows),
            "gold": [row.gold for row in rows],
        }

    def _drawn(
        self, policy: PreTrainedModel, step: int, temperature: float, per_prompt: int
    ) -> list[Sampled]:
        place = here()
        asked = [pair for pair in self.prompts for _ in range(per_prompt)][place.process :: place.processes]
        seed = (self.seed * place.processes + place.process) * 1_000_003 + step
        with evaluating(policy), torch.random.fork_rng():
            torch.manual_seed(seed)
            answers = [
                ids
                for batch in _batches(asked)
                for ids in respond(
                    policy,
                    [pair.prompt_ids for pair in batch],
                    temperature=temperature,
                    max_tokens=self.max_tokens,
                    end=self.tokenizer.eos_token_id,
                    pad=self.tokenizer.pad_token_id,
                )
            ]
        return [
            Sampled(pair, ids, temperature, seed, *self._judged(pair, ids))
            for pair, ids in zip(asked, answers, strict=True)
        ]

    def _judged(self, pair: EncodedPair, ids: list[int]) -> tuple[str, float | None]:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        if self.gold is None:
            return text, None
        return text, float(self.gold(self.tokenizer.decode(pair.prompt_ids, skip_special_tokens=True), text))

    def _scored(self, policy: PreTrainedModel, rows: Sequence[Sampled]) -> dict[str, list[float | None]]:
        """What policy and reference predict along every sample; the same on every process."""
        probe = ProbeSet(
            [EncodedPair(row.pair.pair_id, row.pair.prompt_ids, {"sample": row.ids}) for row in rows],
            self.reader,
            policy.device,
        )
        found: dict[int, Along] = {}
        with torch.no_grad():
            for group, batch in zip(probe.groups, probe.batches, strict=True):
                now = look(policy, self.reader, batch)
                with self.reference(policy) as untouched:
                    before = look(untouched, self.reader, batch)
                    temperatures = [rows[i].temperature for i in group]
                    found |= dict(zip(group, along(now, before, batch, temperatures), strict=True))
        whole = gather_by_place(found)
        return {name: [getattr(one, name) for one in whole] for name in Along._fields}


def respond(
    policy: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_tokens: int,
    end: int | None,
    pad: int | None = None,
) -> list[list[int]]:
    """Sample one response to each prompt, from the whole distribution.

    Parameters
    ----------
    policy : PreTrainedModel
    prompts : sequence of token ids
        Read as one batch.
    temperature : float
        0 is greedy decoding.
    max_tokens : int
        A response ends after so many tokens, or with the end token, which it then holds.
    end, pad : int, optional
        Token ids; without a padding token the end token serves, and where there is neither any does: it is masked.
    """
    pad = next((token for token in (pad, end) if token is not None), 0)
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(prompts):
        input_ids[row, width - len(ids) :] = torch.tensor(ids)
        mask[row, width - len(ids) :] = 1
    how: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    with torch.no_grad(), without_habits(policy):
        produced = policy.generate(  # type: ignore[operator]
            input_ids=input_ids.to(policy.device),
            attention_mask=mask.to(policy.device),
            generation_config=GenerationConfig(
                max_new_tokens=max_tokens,
                eos_token_id=end,
                pad_token_id=pad,
                use_cache=True,
                **how,
            ),
        )
    return [_until(row, end) for row in produced[:, width:].tolist()]


def _batches(pairs: Sequence[EncodedPair]) -> Iterator[Sequence[EncodedPair]]:
    for start in range(0, len(pairs), SAMPLES_PER_BATCH):
        yield pairs[start : start + SAMPLES_PER_BATCH]


def _until(ids: list[int], end: int | None) -> list[int]:
    """What comes after the end token is padding."""
    return ids[: ids.index(end) + 1] if end in ids else ids


@contextlib.contextmanager
def without_habits(model: PreTrainedModel) -> Iterator[None]:
    """Within it, the checkpoint's own habits of generation (a penalty on repetition, a floor of probability) are off.

    transformers takes from them whatever a generation is not told, and then it is another distribution that is sampled.
    """
    inner = base_of(model)
    habits, inner.generation_config = inner.generation_config, GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = habits

"""Samples are drawn from the policy, scored by both models, and never disturb the training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from rewardshape import read_trace
from rewardshape.data import EncodedPair
from rewardshape.probe.measure.logprobs import PlainReader
from rewardshape.probe.measure.sampling import Sampler, respond

Probe = Callable[..., int]
SAMPLING = ("--sample-every", "2", "--samples", "12", "--best-of", "3")


@pytest.fixture(scope="module")
def sampled(probe: Probe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampled") / "run"
    assert probe(folder, *SAMPLING, "--gold", "tests.probe.measure.test_sampling:word_count") == 0
    return folder


def word_count(prompt: str, response: str) -> float:
    """A gold reward anyone can check by hand."""
    return float(len(response.split()))


def test_samples_table_has_every_due_step_with_its_gold(sampled):
    samples = read_trace(sampled).samples
    drawn = samples.groupby(["temperature", "step"]).size().to_dict()
    assert drawn == {(1.0, 0): 36, (1.0, 2): 12, (1.0, 4): 12, (0.0, 0): 12, (0.0, 2): 12, (0.0, 4): 12}
    assert samples["gold"].tolist() == [word_count("", text) for text in samples["text"]]


def test_step_zero_has_no_divergence_and_later_steps_have(sampled):
    samples = read_trace(sampled).samples
    kl = (samples["logp_sum"] - samples["ref_logp_sum"]).groupby(samples["step"])
    np.testing.assert_allclose(kl.get_group(0), 0, atol=1e-4)
    assert kl.get_group(4).abs().mean() > 0.05  # a single one may lie at 0
    by_step = samples[samples["temperature"] == 1.0].groupby("step")["kl_sum"]
    np.testing.assert_allclose(by_step.get_group(0), 0, atol=1e-4)
    assert (by_step.get_group(4) > 0).all()  # position by position a divergence is never negative


def test_sampling_leaves_the_training_as_it_was(probe, sampled, tmp_path):
    assert probe(tmp_path / "plain") == 0
    with_samples, without = read_trace(sampled).responses, read_trace(tmp_path / "plain").responses
    assert with_samples["logp_sum"].tolist() == without["logp_sum"].tolist()


def test_samples_follow_the_models_own_distribution(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    prompts = [
        EncodedPair("a", tokenizer("Once")["input_ids"], {}),
        EncodedPair("b", tokenizer("Please")["input_ids"], {}),
    ]
    sampler = Sampler(
        prompts,
        tokenizer,
        PlainReader(),
        reference=contextlib.nullcontext,
        gold=None,
        max_tokens=1,
        seed=5,
    )
    count = 3000
    columns = sampler.measure(model, 0, per_prompt=count)
    for pair in prompts:
        with torch.no_grad():
            p = model(torch.tensor([pair.prompt_ids])).logits[0, -1].double().softmax(-1).numpy()
        mine = np.array(columns["prompt_id"]) == pair.prompt_id
        assert (np.array(columns["pair_id"])[mine] == pair.pair_id).all()
        logps = np.array(columns["logp_sum"])[mine]
        # E[log p] under the model is minus its entropy; its variance is known as well
        mean = (p * np.log(p)).sum()
        spread = np.sqrt(((p * np.log(p) ** 2).sum() - mean**2) / count)
        assert abs(logps.mean() - mean) < 4 * spread


def test_temperatures_are_what_transformers_samples_at(checkpoint):
    """At temperature T the first token has probability ∝ p^(1/T); at 0 it is the likeliest."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    prompt = EncodedPair("a", tokenizer("Once")["input_ids"], {})
    count = 3000
    columns = pd.DataFrame(
        sampler_of(tokenizer, [prompt], temperatures=(1.0, 0.5, 0.0)).measure(model, 0, per_prompt=count)
    )
    with torch.no_grad():
        logits = model(torch.tensor([prompt.prompt_ids])).logits[0, -1].double()
    p = logits.softmax(-1).numpy()
    for temperature in (1.0, 0.5):
        q = (logits / temperature).softmax(-1).numpy()
        drawn = columns.loc[columns["temperature"] == temperature, "logp_sum"]
        mean = (q * np.log(p)).sum()
        spread = np.sqrt(((q * np.log(p) ** 2).sum() - mean**2) / count)
        assert len(drawn) == count
        assert abs(drawn.mean() - mean) < 4 * spread
    greedy = columns[columns["temperature"] == 0.0]
    assert len(greedy) == 1
    assert greedy["logp_sum"].iloc[0] == pytest.approx(np.log(p.max()), abs=1e-5)


def sampler_of(tokenizer, prompts, *, max_tokens=1, **how):
    return Sampler(
        prompts,
        tokenizer,
        PlainReader(),
        reference=contextlib.nullcontext,
        gold=None,
        max_tokens=max_tokens,
        seed=5,
        **how,
    )


def test_without_an_end_and_a_padding_token_answers_end_at_their_length(checkpoint):
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = AutoTokenizer.from_pretrained(checkpoint)("Once upon a time").input_ids
    short, alone = (
        respond(model, prompts, temperature=0.0, max_tokens=5, end=None, pad=None)
        for prompts in ([ids[:2], ids], [ids[:2]])
    )
    assert [len(row) for row in short] == [5, 5]
    assert short[0] == alone[0]  # what pads is masked


def test_finish_reason_and_seed_of_every_sample(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    prompt = EncodedPair("a", tokenizer("Once")["input_ids"], {})
    with torch.no_grad():  # the end token is made as likely as all others together
        logits = model(torch.tensor([prompt.prompt_ids])).logits[0, -1]
    end = tokenizer.eos_token_id
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(len(logits)))
    head.bias.data[end] = logits.logsumexp(-1) - logits[end]
    sampler = sampler_of(tokenizer, [prompt], max_tokens=3)
    found = pd.DataFrame(sampler.measure(model, 7, per_prompt=200))
    assert set(found["finish"]) == {"end", "length"}
    assert (found.loc[found["finish"] == "length", "num_tokens"] == 3).all()
    at_once = ((found["finish"] == "end") & (found["num_tokens"] == 1)).mean()
    assert at_once == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 200))
    [seed] = found["seed"].unique()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        again = respond(
            model,
            [prompt.prompt_ids] * 200,
            temperature=1.0,
            max_tokens=3,
            end=end,
            pad=tokenizer.pad_token_id,
        )
    assert [len(ids) for ids in again] == found["num_tokens"].tolist()


def test_the_checkpoints_own_habits_of_generation_are_off(checkpoint):
    """A penalty on repetition in generation_config.json would make another distribution than the policy's."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    prompt = EncodedPair("a", tokenizer("Once")["input_ids"], {})
    sampler = sampler_of(tokenizer, [prompt], max_tokens=6)
    plain = sampler.measure(model, 0, per_prompt=50)
    habits = GenerationConfig(repetition_penalty=3.0, min_p=0.5, min_new_tokens=4, temperature=0.1)
    model.generation_config = habits
    assert sampler.measure(model, 0, per_prompt=50)["text"] == plain["text"]
    assert model.generation_config is habits

"""Samples are drawn from the policy, scored by both models, and never disturb the training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from rewardshape import read_trace
from rewardshape.data import EncodedPair
from rewardshape.probe.measure.logprobs import PlainReader
from rewardshape.probe.measure.sampling import Sampler

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
    assert samples.groupby("step").size().to_dict() == {0: 36, 2: 12, 4: 12}
    assert samples["gold"].tolist() == [word_count("", text) for text in samples["text"]]


def test_step_zero_has_no_divergence_and_later_steps_have(sampled):
    samples = read_trace(sampled).samples
    kl = (samples["logp_sum"] - samples["ref_logp_sum"]).groupby(samples["step"])
    np.testing.assert_allclose(kl.get_group(0), 0, atol=1e-4)
    assert (kl.get_group(4).abs() > 1e-3).all()


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
        mine = np.array(columns["prompt_id"]) == pair.pair_id
        logps = np.array(columns["logp_sum"])[mine]
        # E[log p] under the model is minus its entropy; its variance is known as well
        mean = (p * np.log(p)).sum()
        spread = np.sqrt(((p * np.log(p) ** 2).sum() - mean**2) / count)
        assert abs(logps.mean() - mean) < 4 * spread


def test_a_reward_model_checkpoint_scores_the_samples(probe, checkpoint, tmp_path):
    config = LlamaConfig.from_pretrained(checkpoint)
    config.num_labels = 1
    config.pad_token_id = AutoTokenizer.from_pretrained(checkpoint).pad_token_id or 0
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "rm")
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path / "rm")
    flags = ["--steps", "1", "--sample-every", "1", "--samples", "4", "--best-of", "1"]
    assert probe(tmp_path / "run", *flags, "--gold-model", str(tmp_path / "rm")) == 0
    gold = read_trace(tmp_path / "run").samples["gold"]
    assert gold.notna().all()
    assert gold.nunique() > 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--gold", "absent:f", "--sample-every", "2"], "--gold absent:f"),
        (["--gold", "math:absent", "--sample-every", "2"], "--gold math:absent"),
        (["--gold", "nothing", "--sample-every", "2"], "MODULE:FUNCTION"),
        (["--gold", "math:sqrt"], "--sample-every"),
        (["--gold-model", "absent", "--sample-every", "2"], "--gold-model absent"),
    ],
)
def test_a_gold_that_cannot_be_had_is_one_line(probe, tmp_path, capsys, flags, said):
    assert probe(tmp_path / "run", *flags) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]

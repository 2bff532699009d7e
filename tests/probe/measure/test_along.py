"""Divergence along samples: by transformers' own logits, by its mean over many samples, and where it cannot be had."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.data import EncodedPair
from rewardshape.probe.measure.along import TOP, along, look
from rewardshape.probe.measure.logprobs import PlainReader, SharedPrefixReader

TEMPERATURES = [1.0, 0.5, 0.0]
RESPONSES = [[5, 9, 11], [7, 8], [3, 2, 1, 4]]


@pytest.fixture(scope="module")
def models(checkpoint):
    """The policy and the untouched model: some noise apart."""
    torch.manual_seed(1)
    before = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    policy = copy.deepcopy(before)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.1 * weight.std() * torch.randn_like(weight))
    return policy, before


@pytest.fixture(scope="module")
def prompt(checkpoint):
    return AutoTokenizer.from_pretrained(checkpoint)("Once upon")["input_ids"]


@pytest.mark.parametrize("reader", [PlainReader(), SharedPrefixReader()], ids=lambda reader: reader.name)
def test_every_number_is_that_of_transformers_logits(models, prompt, reader):
    policy, before = models
    pairs = [EncodedPair(str(i), prompt, {"sample": ids}) for i, ids in enumerate(RESPONSES)]
    batch = reader.collate(pairs)
    with torch.no_grad():
        found = along(look(policy, reader, batch), look(before, reader, batch), batch, TEMPERATURES)
    for ids, temperature, one in zip(RESPONSES, TEMPERATURES, found, strict=True):
        with torch.no_grad():
            now, then = (
                model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].double()
                for model in models
            )
        p, reference = now.log_softmax(-1), then.log_softmax(-1)
        own = torch.tensor(ids)[:, None]
        assert one.logp_sum == pytest.approx(p.gather(1, own).sum().item(), abs=1e-4)
        assert one.ref_logp_sum == pytest.approx(reference.gather(1, own).sum().item(), abs=1e-4)
        assert one.entropy_sum == pytest.approx(-(p.exp() * p).sum().item(), abs=1e-4)
        assert one.top_mass_sum == pytest.approx(p.exp().sort(-1).values[:, -TOP:].sum().item(), abs=1e-4)
        if temperature:
            expected = torch.nn.functional.kl_div(
                reference, (now / temperature).log_softmax(-1), log_target=True, reduction="sum"
            ).item()
        else:
            expected = -reference.gather(1, own).sum().item()
        assert one.kl_sum == pytest.approx(expected, abs=1e-4)


def test_it_has_the_mean_of_the_log_ratio_and_less_noise(models, prompt):
    """Responses of two tokens, drawn from the policy: both estimates of one divergence, by enumeration of the first."""
    policy, before = models
    rng, reader = np.random.default_rng(0), PlainReader()
    with torch.no_grad():
        first = policy(torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy()
        drawn = rng.choice(len(first), size=600, p=first / first.sum())
        rows = torch.tensor([[*prompt, int(token)] for token in drawn])
        second = policy(rows).logits[:, -1].double().softmax(-1).numpy()
    ends = [int(rng.choice(len(row), p=row / row.sum())) for row in second]
    pairs = [
        EncodedPair(str(i), prompt, {"sample": [int(a), b]})
        for i, (a, b) in enumerate(zip(drawn, ends, strict=True))
    ]
    batch = reader.collate(pairs)
    with torch.no_grad():
        found = along(look(policy, reader, batch), look(before, reader, batch), batch, [1.0] * len(pairs))
    exact = np.array([one.kl_sum for one in found])
    ratio = np.array([one.logp_sum - one.ref_logp_sum for one in found])
    error = (ratio - exact).std() / np.sqrt(len(ratio))
    assert abs(ratio.mean() - exact.mean()) < 4 * error
    assert exact.std() < 0.5 * ratio.std()
    assert exact.min() > 0


def test_without_a_linear_head_there_is_no_divergence_but_there_are_log_probs(models, prompt):
    policy, before = (copy.deepcopy(model) for model in models)
    policy.set_output_embeddings(torch.nn.Sequential(policy.get_output_embeddings()))
    reader = PlainReader()
    batch = reader.collate([EncodedPair("a", prompt, {"sample": [5, 9]})])
    with torch.no_grad():
        [found] = along(look(policy, reader, batch), look(before, reader, batch), batch, [1.0])
        [whole] = along(look(models[0], reader, batch), look(before, reader, batch), batch, [1.0])
    assert (found.kl_sum, found.top_mass_sum) == (None, None)
    assert found.logp_sum == pytest.approx(whole.logp_sum)
    assert whole.kl_sum > 0

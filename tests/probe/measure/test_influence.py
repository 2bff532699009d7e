"""Influence of training pairs on the probe set, against whole gradients by autograd, real steps, and poisoned pairs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rewardshape.data import EncodedPair
from rewardshape.probe.measure.influence import (
    CANDIDATES,
    STRONGEST,
    chosen_gradient,
    influences,
    preconditioned,
    strongest,
)
from rewardshape.probe.measure.logprobs import PlainReader, SharedPrefixReader
from rewardshape.probe.measure.probe_set import ProbeSet
from rewardshape.theory import Responses, objective

OBJECTIVES = {
    "simpo": objective("simpo", beta=2.0, gamma=0.5),
    "alphapo": objective("alphapo", alpha=0.5, beta=2.0, gamma=0.5),
    "dpo": objective("dpo", beta=0.5),
}
READER = SharedPrefixReader()


def tiny_model(dtype=torch.float64):
    torch.manual_seed(3)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=2,
    )
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def some_pairs(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        EncodedPair(
            f"pair {i}",
            rng.integers(3, 40, 3).tolist(),
            {side: rng.integers(3, 40, rng.integers(2, 6)).tolist() for side in ("chosen", "rejected")},
        )
        for i in range(count)
    ]


def probe_of(pairs):
    return ProbeSet(pairs, READER, torch.device("cpu"))


def logp_sums(model, pair):
    """Plain transformers code: summed log-prob of chosen and rejected, with gradient."""
    sums = []
    for side in ("chosen", "rejected"):
        ids = torch.tensor([[*pair.prompt_ids, *pair.responses[side]]])
        logp = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).squeeze(1)
        sums.append(logp[-len(pair.responses[side]) :].sum())
    return sums


def flat_gradient(value, model):
    gradients = torch.autograd.grad(value, list(model.parameters()), materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


def references(model, pairs):
    with torch.no_grad():
        return {
            pair.pair_id: {
                side: value.item() + 0.3
                for side, value in zip(("chosen", "rejected"), logp_sums(model, pair), strict=True)
            }
            for pair in pairs
        }


def pair_loss(goal, model, pair, reference):
    own = []
    for side, logp in zip(("chosen", "rejected"), logp_sums(model, pair), strict=True):
        ref = (
            None if reference is None else torch.tensor([reference[pair.pair_id][side]], dtype=torch.float64)
        )
        count = torch.tensor([float(len(pair.responses[side]))], dtype=torch.float64)
        own.append(Responses(logp[None], count, ref))
    return goal.pair_loss(*own).sum()


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("adam", [False, True], ids=["sgd", "adam"])
def test_influence_is_the_inner_product_of_whole_gradients(name, adam):
    model, goal = tiny_model(), OBJECTIVES[name]
    probe, train = some_pairs(5), some_pairs(7, seed=1)
    reference = references(model, train) if goal.needs_reference else None
    parameters = list(model.parameters())
    mean = sum(logp_sums(model, pair)[0] / len(pair.responses["chosen"]) for pair in probe) / len(probe)
    wanted = flat_gradient(mean, model)
    if adam:
        optimizer = torch.optim.AdamW(parameters, lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            pair_loss(goal, model, train[0], reference).backward()
            optimizer.step()
        mean = sum(logp_sums(model, pair)[0] / len(pair.responses["chosen"]) for pair in probe) / len(probe)
        wanted = flat_gradient(mean, model)
        size = torch.cat(
            [(optimizer.state[w]["exp_avg_sq"] / (1 - 0.999**3)).sqrt().flatten() + 1e-8 for w in parameters]
        )
    else:
        optimizer, size = torch.optim.SGD(parameters, lr=1e-3), torch.ones_like(wanted)
    expected = [
        -(wanted / size) @ flat_gradient(pair_loss(goal, model, pair, reference), model) for pair in train
    ]

    def score(batch):
        return READER.logps(model, batch)

    before = copy.deepcopy(model.state_dict())
    gradient = chosen_gradient(parameters, probe_of(probe), score)
    direction = preconditioned(optimizer, parameters, gradient)
    found = influences(parameters, direction, gradient, probe_of(train), score, goal, reference)
    expected = np.array([value.item() for value in expected])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())  # curvature
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())


def test_the_sum_over_a_batch_is_what_a_step_on_it_does():
    model, goal = tiny_model(), OBJECTIVES["simpo"]
    probe, train = some_pairs(5), some_pairs(6, seed=1)
    parameters = list(model.parameters())
    rate = 1e-4

    def score(batch):
        return READER.logps(model, batch)

    def level():
        with torch.no_grad():
            return np.mean([logp_sums(model, p)[0].item() / len(p.responses["chosen"]) for p in probe])

    gradient = chosen_gradient(parameters, probe_of(probe), score)
    found = influences(parameters, gradient, gradient, probe_of(train), score, goal)
    start = level()
    optimizer = torch.optim.SGD(parameters, lr=rate)
    (sum(pair_loss(goal, model, pair, None) for pair in train) / len(train)).backward()
    optimizer.step()
    assert level() - start == pytest.approx(rate * found.mean(), rel=0.02)


def test_adams_first_step_divides_by_the_gradients_own_size():
    model = tiny_model()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    before = [weight.detach().clone() for weight in parameters]
    logp_sums(model, some_pairs(1)[0])[0].backward()
    gradient = [weight.grad.clone() for weight in parameters]
    expected = preconditioned(optimizer, parameters, gradient)
    optimizer.step()
    for old, new, part in zip(before, parameters, expected, strict=True):
        torch.testing.assert_close(old - new.detach(), 1e-3 * part, rtol=1e-5, atol=1e-10)


def test_poisoned_pairs_are_found():
    """Every pair prefers the token 30 to 31; of the training pairs one in eight has it the other way round."""
    model, goal = tiny_model(torch.float32), OBJECTIVES["simpo"]
    rng = np.random.default_rng(5)

    def pair(number, *, poisoned=False):
        good, bad = [30], [31]
        responses = {"chosen": bad, "rejected": good} if poisoned else {"chosen": good, "rejected": bad}
        return EncodedPair(str(number), [int(rng.integers(10, 30)), 7, 8, 9], responses)

    probe = [pair(f"probe {i}") for i in range(24)]
    train = [pair(i, poisoned=i < 8) for i in range(64)]
    parameters = list(model.parameters())

    def score(batch):
        return READER.logps(model, batch)

    gradient = chosen_gradient(parameters, probe_of(probe), score)
    found = influences(parameters, gradient, gradient, probe_of(train), score, goal)
    assert set(np.argsort(found)[:8]) == set(range(8))


def test_the_plain_reader_finds_the_same():
    model, goal = tiny_model(), OBJECTIVES["simpo"]
    parameters = list(model.parameters())
    found = []
    for reader in (READER, PlainReader()):
        probe, train = (ProbeSet(some_pairs(4, seed), reader, torch.device("cpu")) for seed in (0, 1))

        def score(batch, reader=reader):
            return reader.logps(model, batch)

        gradient = chosen_gradient(parameters, probe, score)
        found.append(influences(parameters, gradient, gradient, train, score, goal))
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize("name", ["simpo", "dpo"])
def test_the_strongest_on_a_probe_pair_are_those_of_whole_gradients(name):
    """All training pairs are candidates: order and size against autograd, pair by pair."""
    model, goal = tiny_model(), OBJECTIVES[name]
    probe, train = some_pairs(3), some_pairs(CANDIDATES, seed=1)
    reference = references(model, train) if goal.needs_reference else None
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, eps=1e-2)  # so that no direction is far steeper
    sum(pair_loss(goal, model, pair, reference) for pair in train).backward()
    optimizer.step()
    optimizer.zero_grad()
    size = torch.cat(
        [(optimizer.state[w]["exp_avg_sq"] / (1 - 0.999)).sqrt().flatten() + 1e-2 for w in parameters]
    )
    losses = [flat_gradient(pair_loss(goal, model, pair, reference), model) for pair in train]

    def score(batch):
        return READER.logps(model, batch)

    before = copy.deepcopy(model.state_dict())
    found = strongest(model, optimizer, probe, train, READER, score, goal, reference)
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())
    for pair in probe:
        wanted = flat_gradient(logp_sums(model, pair)[0] / len(pair.responses["chosen"]), model) / size
        exact = {one.pair_id: -(wanted @ loss).item() for one, loss in zip(train, losses, strict=True)}
        lowest = [name for name in sorted(exact, key=exact.__getitem__) if exact[name] < 0][:STRONGEST]
        mine = [one for one in found if one.probe_pair_id == pair.pair_id]
        assert [one.pair_id for one in mine] == lowest
        wanted = np.array([exact[name] for name in lowest])
        atol = 2e-3 * np.abs(wanted).max()  # curvature, as above
        np.testing.assert_allclose([one.influence for one in mine], wanted, rtol=2e-3, atol=atol)


def test_sketches_lead_to_the_strongest_of_many():
    """Of 80 training pairs, against the exact influence of all of them."""
    model, goal = tiny_model(torch.float32), OBJECTIVES["simpo"]
    probe, train = some_pairs(8), some_pairs(80, seed=1)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1e-3)

    def score(batch):
        return READER.logps(model, batch)

    found = strongest(model, optimizer, probe, train, READER, score, goal)
    hits = 0
    for pair in probe:
        gradient = chosen_gradient(parameters, probe_of([pair]), score)
        exact = influences(parameters, gradient, gradient, probe_of(train), score, goal)
        best = {train[place].pair_id for place in np.argsort(exact)[:STRONGEST]}
        hits += len(best & {one.pair_id for one in found if one.probe_pair_id == pair.pair_id})
    assert hits >= 0.8 * STRONGEST * len(probe)

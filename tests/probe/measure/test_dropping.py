"""What pairs are like to the untouched model, against plain transformers code and whole gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rewardshape.data import EncodedPair
from rewardshape.probe.measure.dropping import JUDGES, drop_scores
from rewardshape.probe.measure.logprobs import SharedPrefixReader
from rewardshape.theory import objective

GOAL = objective("simpo", beta=2.0, gamma=0.5)


@pytest.fixture(scope="module")
def model():
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
    return AutoModelForCausalLM.from_config(config).to(torch.float64).eval()


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    return [
        EncodedPair(
            f"pair {i}",
            rng.integers(3, 40, 3).tolist(),
            {side: rng.integers(3, 40, rng.integers(2, 6)).tolist() for side in ("chosen", "rejected")},
        )
        for i in range(12)
    ]


def scores(criterion, pairs, model):
    return drop_scores(
        criterion, pairs, model, SharedPrefixReader(), objective=GOAL, reference=lambda score: {}, seed=0
    )


def predicted(model, pair, side):
    """Log-probs of the response's tokens and the hidden states that predict them, by transformers' own forward."""
    ids = torch.tensor([[*pair.prompt_ids, *pair.responses[side]]])
    found = model(ids, output_hidden_states=True)
    logps = found.logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).squeeze(1)
    count = len(pair.responses[side])
    return logps[-count:], found.hidden_states[-1][0, -count - 1 : -1]


def test_ties_are_pairs_whose_responses_are_equally_likely(model, pairs):
    with torch.no_grad():
        means = [
            [predicted(model, pair, side)[0].mean().item() for side in ("chosen", "rejected")]
            for pair in pairs
        ]
    np.testing.assert_allclose(
        scores("ties", pairs, model), [-abs(w - rejected) for w, rejected in means], atol=1e-9
    )


def test_ches_is_that_of_the_papers_definition(model, pairs):
    expected = []
    with torch.no_grad():
        for pair in pairs:
            w, rejected = (predicted(model, pair, side)[1].mean(0) for side in ("chosen", "rejected"))
            expected.append((w @ rejected - w @ w).item())
    np.testing.assert_allclose(scores("ches", pairs, model), expected, atol=1e-9)


def test_similarity_and_length_by_hand(model):
    pairs = [
        EncodedPair("a", [5], {"chosen": [7, 8, 9, 2], "rejected": [7, 8, 2]}),
        EncodedPair("b", [5], {"chosen": [7], "rejected": [9, 9, 9]}),
    ]
    assert scores("similarity", pairs, model).tolist() == [0.75, 0.0]
    assert scores("length", pairs, model).tolist() == [1.0, 2.0]


def test_at_random_is_another_draw_with_another_seed_and_the_same_with_the_same(model, pairs):
    once, again = (scores("random", pairs, model) for _ in range(2))
    other = drop_scores(
        "random", pairs, model, SharedPrefixReader(), objective=GOAL, reference=lambda score: {}, seed=1
    )
    assert once.tolist() == again.tolist()
    assert once.tolist() != other.tolist()


def test_influence_is_the_product_of_whole_gradients_with_the_first_step_of_adam(model, pairs):
    """−⟨∇f, P∇ℓ_i⟩ with P of AdamW before its first step, 1/(|∇f| + ε), written out in full."""
    assert len(pairs) <= JUDGES  # then f is the mean over all of them
    weights = list(model.parameters())

    def flat(value):
        parts = torch.autograd.grad(value, weights, materialize_grads=True, retain_graph=True)
        return torch.cat([part.flatten() for part in parts])

    chosen = torch.stack([predicted(model, pair, "chosen")[0].mean() for pair in pairs]).mean()
    gradient = flat(chosen)
    direction = gradient / (gradient.abs() + 1e-8)
    expected = []
    for pair in pairs:
        s_w, s_l = (predicted(model, pair, side)[0].mean() for side in ("chosen", "rejected"))
        expected.append(
            float(direction @ flat(GOAL.loss(s_w, s_l)))
        )  # f falls where a step on ℓ goes against it
    found = scores("influence", pairs, model)
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2 * np.abs(expected).max())

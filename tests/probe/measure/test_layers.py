"""Products of gradients, layer by layer, against whole gradients by autograd, on architectures that differ in kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from rewardshape.data import EncodedPair
from rewardshape.probe.measure.layers import Layers
from rewardshape.probe.measure.logprobs import PlainReader, SharedPrefixReader
from rewardshape.probe.measure.sketch import Sketch

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ARCHITECTURES = {
    "llama, tied": ("llama", SMALL | {"tie_word_embeddings": True}),
    "llama, untied, with biases": (
        "llama",
        SMALL | {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True},
    ),
    "gpt2: Conv1D, LayerNorm, positions": (
        "gpt2",
        {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3},
    ),
    "qwen3: norms of queries and keys": ("qwen3", SMALL),
    "gemma2: 1 + weight, capped logits": ("gemma2", SMALL | {"query_pre_attn_scalar": 8}),
    "mixtral: experts": (
        "mixtral",
        SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2, "experts_implementation": "eager"},
    ),
}


def model_of(name, options):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **options)).double().eval()
    with torch.no_grad():
        for weight in model.parameters():  # norms begin at 1, biases at 0: nothing would be seen of them
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn_like(weight))
    return model


def some_pairs(count=3):
    rng = np.random.default_rng(0)
    return [
        EncodedPair(
            f"pair {i}",
            rng.integers(3, 40, 3 + i).tolist(),
            {side: rng.integers(3, 40, 2 + i + j).tolist() for j, side in enumerate(("chosen", "rejected"))},
        )
        for i in range(count)
    ]


def whole_gradients(model, pairs, weights):
    """Of every pair's two scores, log-probs per token, by plain transformers code and autograd."""
    found = []
    for pair in pairs:
        for ids in pair.responses.values():
            whole = torch.tensor([[*pair.prompt_ids, *ids]])
            logps = model(whole).logits[0, :-1].log_softmax(-1).gather(1, whole[0, 1:, None]).squeeze(1)
            score = logps[-len(ids) :].mean()
            parts = torch.autograd.grad(score, weights, materialize_grads=True)
            found.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(found).view(len(pairs), 2, -1)


def measured(model, pairs, reader, weights, directions=(), totals=None, sketch=None):
    layers = Layers(model, weights)
    texts = [
        EncodedPair(pair.pair_id, pair.prompt_ids, {side: ids})
        for pair in pairs
        for side, ids in pair.responses.items()
    ]
    groups = [texts[2 * i : 2 * i + 2] for i in range(len(pairs))] if layers.one_by_one else [texts]
    parts = [
        layers.products(
            reader.collate(group),
            lambda batch: reader.logps(model, batch),
            lambda logp_sum, num_tokens: logp_sum / num_tokens,
            directions=directions,
            totals=totals,
            sketch=sketch,
        )
        for group in groups
    ]
    return (
        layers,
        np.concatenate([part.gram for part in parts]),
        np.concatenate([part.along for part in parts]),
        torch.cat([part.sketches for part in parts]),
    )


def check(model, reader, weights):
    pairs, rng = some_pairs(), torch.Generator().manual_seed(1)
    ways = [
        [torch.randn(weight.shape, generator=rng, dtype=weight.dtype) for weight in weights] for _ in range(2)
    ]
    totals = tuple([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    sketch = Sketch(weights)
    layers, gram, along, sketches = measured(
        model, pairs, reader, weights, [way.__getitem__ for way in ways], totals, sketch
    )
    gradients = whole_gradients(model, pairs, weights)
    chosen, rejected = gradients.unbind(1)
    expected = torch.stack([(chosen**2).sum(1), (chosen * rejected).sum(1), (rejected**2).sum(1)], 1)
    np.testing.assert_allclose(gram, expected, rtol=1e-6, atol=1e-9 * expected.max().item())
    flat = torch.stack([torch.cat([part.flatten() for part in way]) for way in ways])
    expected = gradients @ flat.T
    # The norms of Gemma compute in float32, whatever the weights are.
    np.testing.assert_allclose(along, expected, rtol=1e-6, atol=1e-7 * expected.abs().max().item())
    for side in range(2):
        total = torch.cat([part.flatten() for part in totals[side]])
        wanted = gradients[:, side].sum(0)
        np.testing.assert_allclose(total, wanted, rtol=1e-6, atol=1e-7 * wanted.abs().max().item())
    for texts, found in zip(gradients, sketches, strict=True):
        for gradient, short in zip(texts, found, strict=True):
            parts = gradient.split([weight.numel() for weight in weights])
            whole = [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
            wanted = sketch.of_all(whole.__getitem__)
            np.testing.assert_allclose(
                short, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item()
            )  # float32
    return layers


@pytest.mark.parametrize("reader", [PlainReader(), SharedPrefixReader()], ids=lambda reader: reader.name)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_products_are_those_of_whole_gradients(name, reader):
    model = model_of(*ARCHITECTURES[name])
    check(model, reader, list(model.parameters()))


@pytest.mark.parametrize(
    "name", ["llama, tied", "llama, untied, with biases", "qwen3: norms of queries and keys"]
)
def test_common_models_leave_nothing_to_a_pass_per_text(name):
    model = model_of(*ARCHITECTURES[name])
    assert not Layers(model, list(model.parameters())).one_by_one


def test_adapters_alone(tmp_path):
    model = get_peft_model(
        model_of(*ARCHITECTURES["llama, tied"]),
        LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
    ).double()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    assert weights
    check(model.get_base_model(), SharedPrefixReader(), weights)


def test_no_whole_gradient_is_made_and_every_weight_is_as_trainable_as_before():
    """Of the output projection autograd would make one, and keep it until the pass ends."""
    model = model_of(*ARCHITECTURES["llama, tied"])
    frozen = model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    made = []
    for weight in model.parameters():
        if weight.requires_grad:
            weight.register_hook(lambda gradient: made.append(gradient.shape))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    measured(model, some_pairs(), SharedPrefixReader(), weights)
    assert made == []
    assert [weight is frozen for weight in model.parameters()] == [
        not weight.requires_grad for weight in model.parameters()
    ]
    assert all(weight.grad is None for weight in weights)


def test_a_layer_that_is_called_twice_is_left_to_autograd():
    """One decoder layer used twice: its weights have two sets of inputs, and no formula of ours holds for them."""
    model = model_of(*ARCHITECTURES["llama, untied, with biases"])
    model.model.layers[1].mlp = model.model.layers[0].mlp
    weights = list(dict.fromkeys(model.parameters()))
    layers = Layers(model, weights)
    reader, [pair, *_] = SharedPrefixReader(), some_pairs()
    texts = [EncodedPair("a", pair.prompt_ids, {side: ids}) for side, ids in pair.responses.items()]
    found = layers.products(
        reader.collate(texts),
        lambda batch: reader.logps(model, batch),
        lambda logp_sum, num_tokens: logp_sum / num_tokens,
    )
    assert layers.one_by_one
    chosen, rejected = whole_gradients(model, [pair], weights)[0]
    expected = [chosen @ chosen, chosen @ rejected, rejected @ rejected]
    np.testing.assert_allclose(found.gram[0], torch.stack(expected), rtol=1e-6)

"""The two readers of log-probabilities agree with each other, with transformers' own loss and with sums by hand."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rewardshape.data import EncodedPair, embedded
from rewardshape.errors import InputError
from rewardshape.probe.measure.logprobs import (
    PlainReader,
    ResponseLogps,
    SharedPrefixReader,
    choose_reader,
)
from rewardshape.probe.measure.predictions import see

VOCABULARY = 97
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.4,
}
NO_GROUPS = {"num_key_value_heads": 4}
WINDOW = {"sliding_window": 5}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
ARCHITECTURES = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True},
    "mistral": WINDOW,
    "qwen2": {},
    "qwen2, windows": {"use_sliding_window": True, **WINDOW, **ALTERNATING},
    "qwen3": {"head_dim": 8},
    "gemma2": {
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "final_logit_softcapping": 3.0,
        **WINDOW,
        **ALTERNATING,
    },
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, **WINDOW, **ALTERNATING},
    "phi": NO_GROUPS,
    "phi3": WINDOW,
    "gpt2": GPT2,
    "gpt_neox": {"rotary_pct": 0.5},
    "olmo": {},
    "olmo2": {},
    "granite": {"logits_scaling": 2.0},
    "cohere": {"logit_scale": 0.5},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "head_dim": 8, **EXPERTS},
}


def tiny_model(architecture: str, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A random model whose predictions are far from uniform, so that a wrong mask or position shows."""
    torch.manual_seed(7)
    name = architecture.partition(",")[0]
    config = AutoConfig.for_model(name, **{**SMALL, **ARCHITECTURES.get(architecture, {}), **changes})
    if hasattr(config, "num_experts_per_tok"):
        config._experts_implementation = "eager"  # the grouped kernel knows no float64
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def ids(number: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (number,), generator=generator).tolist()


PAIRS = [
    EncodedPair("a:1", ids(9, 1), {"chosen": ids(6, 2), "rejected": ids(11, 3)}),
    EncodedPair("a:2", ids(1, 4), {"chosen": ids(4, 5), "rejected": ids(1, 6)}),
    EncodedPair("a:3", ids(17, 7), {"chosen": ids(1, 8), "rejected": ids(1, 9), "greedy": ids(8, 10)}),
]


def read(reader: Any, model: Any, pairs: list[EncodedPair] = PAIRS) -> ResponseLogps:
    return reader.logps(model, reader.collate(pairs))


def values_and_gradients(
    reader: Any, model: Any, pairs: list[EncodedPair]
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Log-probs, and gradients of a sum in which every token has another weight."""
    model.zero_grad()
    logps = read(reader, model, pairs)
    weights = torch.linspace(-1, 2, len(logps.token_logps), dtype=logps.token_logps.dtype)
    (logps.token_logps * weights).sum().backward()
    return logps, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def relative_error(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Of the gradient as one vector."""
    assert found.keys() == expected.keys()
    difference = sum((found[name] - expected[name]).double().square().sum() for name in expected)
    return float((difference / sum(g.double().square().sum() for g in expected.values())).sqrt())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("dtype", "nats"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_both_readers_agree_in_values_and_gradients(architecture, dtype, nats):
    if architecture == "gemma2":
        nats = max(nats, 1e-6)  # its attention takes the softmax in float32, whatever the model's type
    model = tiny_model(architecture, dtype=dtype)
    expected, expected_gradients = values_and_gradients(PlainReader(), copy.deepcopy(model), PAIRS)
    found, gradients = values_and_gradients(SharedPrefixReader(), model, PAIRS)
    assert expected.token_logps.std() > 0.5
    assert found.lengths == expected.lengths == [6, 11, 4, 1, 1, 1, 8]
    for name in ("token_logps", "greedy_logps", "entropies"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=nats)
    # Norms and rotations in transformers compute in float32 even in a float64 model, gradients through them too.
    assert relative_error(gradients, expected_gradients) < 1e-5
    assert choose_reader(model, PAIRS)[1] == ""


@pytest.mark.parametrize("reader", [PlainReader(), PlainReader(pad_token_id=5), SharedPrefixReader()])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text"])
def test_sum_is_minus_the_loss_transformers_gives_for_that_response_alone(architecture, reader):
    model = tiny_model(architecture)
    logp_sum = reader.logps(model, reader.collate(PAIRS)).logp_sum
    alone = []
    for pair in PAIRS:
        for response in pair.responses.values():
            input_ids = torch.tensor([[*pair.prompt_ids, *response]])
            labels = input_ids.clone()
            labels[:, : len(pair.prompt_ids)] = -100
            alone.append(-model(input_ids=input_ids, labels=labels).loss * len(response))
    torch.testing.assert_close(logp_sum, torch.stack(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("checkpoint", ["stories260K", "embedded"])
def test_trained_checkpoints_give_the_same_by_both_readers_and_by_their_own_loss(inputs, checkpoint):
    folder = embedded.checkpoint_path() if checkpoint == "embedded" else inputs / "checkpoints" / checkpoint
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    texts = [
        "Once upon a time, there was a little girl named Lily.",
        " She liked to play.",
        " The cat sat down.",
    ]
    prompt, chosen, rejected = (tokenizer(text)["input_ids"] for text in texts)
    pairs = [EncodedPair("story:1", prompt, {"chosen": chosen[1:], "rejected": rejected[1:]})]
    plain, plain_gradients = values_and_gradients(PlainReader(), model, pairs)
    fast, fast_gradients = values_and_gradients(SharedPrefixReader(), model, pairs)
    torch.testing.assert_close(fast.token_logps, plain.token_logps, rtol=0, atol=1e-5)
    assert relative_error(fast_gradients, plain_gradients) < 1e-5
    input_ids = torch.tensor([[*prompt, *chosen[1:]]])
    labels = torch.where(torch.arange(input_ids.shape[1]) < len(prompt), -100, input_ids)
    loss = model(input_ids=input_ids, labels=labels).loss
    torch.testing.assert_close(fast.logp_sum[0] / fast.lengths[0], -loss, rtol=1e-5, atol=0)


def test_greedy_and_entropy_are_those_of_the_whole_distribution():
    model = tiny_model("llama", dtype=torch.float64)
    [pair] = pairs = [EncodedPair("a:1", ids(5, 1), {"chosen": ids(3, 2), "rejected": ids(2, 3)})]
    logps = read(SharedPrefixReader(), model, pairs)
    probabilities = (
        model(torch.tensor([[*pair.prompt_ids, *pair.responses["chosen"]]])).logits[0, 4:7].softmax(-1)
    )
    torch.testing.assert_close(logps.greedy_logps[:3].exp(), probabilities.max(-1).values)
    torch.testing.assert_close(logps.entropies[:3], torch.distributions.Categorical(probabilities).entropy())
    assert logps.token_logps.requires_grad
    assert not logps.greedy_logps.requires_grad
    assert not logps.entropies.requires_grad


def test_padded_token_logps_add_up_to_the_sums():
    logps = read(SharedPrefixReader(), tiny_model("llama"))
    assert logps.padded().shape == (7, 11)
    parts = logps.token_logps.split(logps.lengths)
    torch.testing.assert_close(logps.logp_sum, torch.stack([part.sum() for part in parts]))


def test_prompt_is_read_once_and_nothing_is_padded():
    batch = SharedPrefixReader().collate(PAIRS)
    read = sum(len(p.prompt_ids) + sum(len(r) - 1 for r in p.responses.values()) for p in PAIRS)
    assert batch["input_ids"].shape == (1, read)
    assert PlainReader().collate(PAIRS)["input_ids"].shape == (7, 25)


@pytest.mark.parametrize("architecture", ["mamba", "bloom"])
def test_model_that_cannot_share_a_prefix_takes_the_plain_reader_and_says_so(architecture):
    size = {"state_size": 8, "n_layer": 2} if architecture == "mamba" else {"n_head": 4, "n_layer": 2}
    model = tiny_model(architecture, **size)
    before = model.config._attn_implementation
    reader, note = choose_reader(model, PAIRS)
    assert isinstance(reader, PlainReader)
    assert note.startswith(type(model).__name__)
    assert note.endswith("each is read alone.")
    assert model.config._attn_implementation == before
    assert torch.isfinite(reader.logps(model, reader.collate(PAIRS)).logp_sum).all()


def test_window_that_only_long_texts_reach_is_checked_on_the_longest_pair():
    model = tiny_model("mistral")
    for layer in model.model.layers:  # a layer that keeps its window from the attention function
        layer.self_attn.forward = _without_window(layer.self_attn)
    _, note = choose_reader(model, PAIRS)
    assert re.search(r"of a token would be off by \S+ nats", note)


def _without_window(attention: torch.nn.Module) -> Any:
    forward = type(attention).forward

    def windowless(*args: Any, layout: Any = None, **kwargs: Any) -> Any:
        config = attention.config
        if layout is None:
            return forward(attention, *args, **kwargs)
        attention.config = copy.copy(config)
        attention.config.sliding_window = None
        try:
            return forward(attention, *args, layout=layout, **kwargs)
        finally:
            attention.config = config

    return windowless


def test_lora_adapter_switched_off_gives_the_reference():
    peft = pytest.importorskip("peft", reason="peft is not installed")
    base = tiny_model("llama")
    reference = read(PlainReader(), base).logp_sum.detach()
    model = peft.get_peft_model(
        base, peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    plain, plain_gradients = values_and_gradients(PlainReader(), model, PAIRS)
    fast, fast_gradients = values_and_gradients(SharedPrefixReader(), model, PAIRS)
    torch.testing.assert_close(fast.token_logps, plain.token_logps, rtol=0, atol=1e-4)
    assert relative_error(fast_gradients, plain_gradients) < 1e-5
    assert (plain.logp_sum - reference).abs().min() > 0.01
    with model.disable_adapter():
        torch.testing.assert_close(read(SharedPrefixReader(), model).logp_sum, reference)


def test_the_virtual_tokens_of_prompt_tuning_shift_no_log_prob():
    """Right is what the base model says behind the same embeddings, read at the places of the tokens by hand."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    base = tiny_model("llama")
    model = peft.get_peft_model(
        base, peft.PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")
    ).eval()
    virtual = model.get_prompt(batch_size=1)
    expected = []
    for pair in PAIRS:
        for response in pair.responses.values():
            tokens = torch.tensor([[*pair.prompt_ids, *response]])
            embedded = torch.cat([virtual, base.get_input_embeddings()(tokens)], dim=1)
            logp = base(inputs_embeds=embedded).logits[0].log_softmax(-1)
            first = 5 + len(pair.prompt_ids) - 1
            expected.append(sum(logp[first + place, token] for place, token in enumerate(response)))
    reader, note = choose_reader(model, PAIRS)
    assert "cannot read a prompt once" in note
    torch.testing.assert_close(read(reader, model).logp_sum, torch.stack(expected), rtol=0, atol=1e-4)
    [_, seen] = see(base, lambda batch: reader.logps(model, batch), reader.collate(PAIRS))
    again = base.lm_head(seen.hidden).log_softmax(-1).gather(1, reader.collate(PAIRS)["targets"][:, None])
    torch.testing.assert_close(again.squeeze(1), seen.logps, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["weights", "autocast"])
def test_bfloat16_stays_near_float32_and_gives_wide_log_probs(precision):
    model = tiny_model("llama", initializer_range=0.05)
    exact = read(PlainReader(), model).token_logps
    if precision == "weights":
        assert choose_reader(model.bfloat16(), PAIRS)[1] == ""
        rounded = read(SharedPrefixReader(), model)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            rounded = read(SharedPrefixReader(), model)
    assert rounded.token_logps.dtype == rounded.entropies.dtype == torch.float32
    torch.testing.assert_close(rounded.token_logps, exact, rtol=0, atol=0.03)
    rounded.logp_sum.sum().backward()
    assert model.lm_head.weight.grad.dtype == model.lm_head.weight.dtype


class _LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_no_tensor_of_tokens_times_vocabulary_is_alive_beyond_what_may_wait(monkeypatch):
    monkeypatch.setattr("rewardshape.probe.measure.projection.MOST_KEPT", 0)
    model = tiny_model("llama", vocab_size=40_000, num_hidden_layers=1, hidden_size=8, head_dim=2)
    pairs = [EncodedPair("a:1", ids(20, 1), {"chosen": ids(200, 2), "rejected": ids(300, 3)})]
    largest = {}
    for reader in (PlainReader(), SharedPrefixReader()):
        with _LargestTensor() as record:
            values_and_gradients(reader, model, pairs)
        largest[reader.name] = record.elements
    assert largest["plain"] >= 500 * 40_000
    assert largest["shared prefix"] <= 500 * 40_000 / 16


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (
            EncodedPair("a.jsonl:3", [], {"chosen": [1], "rejected": [2]}),
            "a.jsonl:3: the prompt has no tokens",
        ),
        (
            EncodedPair("a.jsonl:4", [1], {"chosen": [1], "rejected": []}),
            "a.jsonl:4: the rejected response has no tokens",
        ),
        (EncodedPair("a.jsonl:5", [1], {}), "a.jsonl:5: no responses"),
    ],
)
@pytest.mark.parametrize("reader", [PlainReader(), SharedPrefixReader()])
def test_pair_that_predicts_nothing_is_named(reader, pair, message):
    with pytest.raises(InputError, match=message):
        reader.collate([pair])


@pytest.fixture
def prepared(monkeypatch) -> Callable[[Any], Any]:
    """A model as accelerate prepares it for bfloat16, whatever another test has asked of accelerate in this process."""
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})
    return Accelerator(mixed_precision="bf16", cpu=True).prepare_model


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_a_model_that_accelerate_prepared_for_mixed_precision_is_read_the_fast_way(weights, prepared):
    """TRL's default on a GPU. The two readers differ by bfloat16's rounding there, and by nothing in float32."""
    model = prepared(tiny_model("llama").to(weights))
    forward = model.forward
    reader, note = choose_reader(model, PAIRS)
    assert (reader.name, note) == ("shared prefix", "")
    assert model.forward == forward
    with torch.no_grad():
        found, expected = (
            one.logps(model, one.collate(PAIRS)).token_logps for one in (reader, PlainReader())
        )
    assert 0 < (found - expected).abs().max() < 0.1
    assert found.dtype == expected.dtype == torch.float32


def test_a_wrong_reader_is_found_out_under_mixed_precision_too(prepared):
    model = prepared(tiny_model("bloom", n_head=4, n_layer=2))
    reader, note = choose_reader(model, PAIRS)
    assert reader.name == "plain"
    assert "cannot read a prompt once" in note

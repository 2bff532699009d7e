"""The check before a run finds every model whose fast path, or whose very numbers, would be wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.measure.check import check_positions, computed_in_float32
from rewardshape.probe.measure.logprobs import PlainReader, SharedPrefixReader, choose_reader
from rewardshape.probe.policy import hold_still, leave_nothing_to_chance
from tests.probe.measure.test_logprobs import SMALL, VOCABULARY, ids

WINDOW = 24
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MODELS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": WINDOW},
    "qwen2_moe": {
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
        "shared_expert_intermediate_size": 24,
        **EXPERTS,
    },
    "phimoe": {"sliding_window": WINDOW, "router_jitter_noise": 0.1, **EXPERTS},
    "mixtral": {"router_jitter_noise": 0.1, **EXPERTS},
    "llama4_text": {"attention_chunk_size": WINDOW, "head_dim": 8, "intermediate_size_mlp": 48, **EXPERTS},
    "bloom": {"n_head": 4, "n_layer": 2},
    "mamba": {"state_size": 8},
    "falcon_mamba": {"state_size": 8},
    "bert": {"num_key_value_heads": 4},
    "roberta": {"num_key_value_heads": 4},
}
# The shortest come first, as they may in a file: windows are only seen in the last.
PAIRS = [
    EncodedPair("a:1", ids(5, 1), {"chosen": ids(3, 2), "rejected": ids(4, 3)}),
    EncodedPair("a:2", ids(9, 4), {"chosen": ids(2, 5), "rejected": ids(6, 6)}),
    EncodedPair("a:3", ids(12, 4), {"chosen": ids(9, 5), "rejected": ids(2, 6)}),
    EncodedPair("a:4", ids(8, 4), {"chosen": ids(9, 5), "rejected": ids(7, 6)}),
    EncodedPair("a:5", ids(WINDOW, 7), {"chosen": ids(4, 8), "rejected": ids(13, 9)}),
]


def tiny(name: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(7)
    config = AutoConfig.for_model(name, **{**SMALL, **MODELS[name]})
    leave_nothing_to_chance(config)
    config._experts_implementation = "eager"
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def alone(model: Any, pairs: list[EncodedPair] = PAIRS) -> torch.Tensor:
    """Log-probabilities of every response token, each text read by itself."""
    found = []
    for pair in pairs:
        for response in pair.responses.values():
            logits = model(input_ids=torch.tensor([[*pair.prompt_ids, *response]]), use_cache=False).logits[0]
            logps = logits[len(pair.prompt_ids) - 1 : -1].float().log_softmax(-1)
            found.append(logps.gather(-1, torch.tensor(response)[:, None]).squeeze(-1))
    return torch.cat(found)


@pytest.mark.parametrize(
    "name", ["mistral", "qwen2_moe", "phimoe", "mixtral", "llama4_text", "bloom", "mamba", "falcon_mamba"]
)
def test_what_is_chosen_gives_the_numbers_of_each_text_alone(name):
    model = tiny(name)
    hold_still(model)
    reader, note = choose_reader(model.train(), PAIRS)
    with torch.no_grad():
        found = reader.logps(model, reader.collate(PAIRS)).token_logps
        torch.testing.assert_close(found, alone(model), atol=5e-5, rtol=0)
    assert bool(note) == (reader.name == "plain")


@pytest.mark.parametrize("name", ["qwen2_moe", "phimoe", "llama4_text", "bloom", "mamba", "falcon_mamba"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_windows_in_the_mask_chunks_biases_and_states_are_found(name, dtype):
    model = tiny(name, dtype)
    reader, note = choose_reader(model, PAIRS)
    assert reader.name == "plain"
    assert note.startswith(type(model).__name__)
    if name in ("qwen2_moe", "llama4_text"):  # were it not for the long pair, nothing could be seen
        assert choose_reader(tiny(name, dtype), PAIRS[:4])[0].name == "shared prefix"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_few_wrong_tokens_at_the_end_of_a_long_pair_are_found_in_any_precision(dtype):
    """One token beyond the window, of 200 that are right."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(
        "mistral", **{**SMALL, "sliding_window": 100, "max_position_embeddings": 256}
    )
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    pair = EncodedPair("a:1", ids(2, 1), {"chosen": ids(100, 2), "rejected": ids(99, 3)})
    assert choose_reader(model, [pair])[0].name == "shared prefix"
    for layer in model.model.layers:  # as if the model did not tell its attention of the window
        layer.self_attn.config = AutoConfig.for_model("mistral", **{**SMALL, "sliding_window": None})
        layer.self_attn.config._attn_implementation = model.config._attn_implementation
    reader, note = choose_reader(model, [pair])
    assert (reader.name, "of a token would be off by" in note) == ("plain", True)


# --- chance ---


@pytest.mark.parametrize("name", ["phimoe", "mixtral"])
def test_routers_that_sample_or_shake_do_neither_in_training_mode(name):
    model = tiny(name)
    for module in model.modules():  # what the configuration says is zero; as if remote code had its own
        for noise in ("jitter_noise", "router_jitter_noise", "input_jitter_noise"):
            if isinstance(getattr(module, noise, None), float):
                setattr(module, noise, 0.1)
    with torch.no_grad():
        measured = alone(model)
        noisy = alone(model.train())
        assert (noisy - measured).abs().max() > 0.1  # so there is something to hold still
        hold_still(model)
        torch.testing.assert_close(alone(model.train()), measured, atol=0, rtol=0)


def test_held_still_a_model_still_checkpoints_its_activations():
    model = tiny("mixtral")
    hold_still(model)
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    calls = []
    model.model.layers[0].self_attn.register_forward_pre_hook(lambda *_: calls.append(True))
    model.train()
    SharedPrefixReader().logps(model, SharedPrefixReader().collate(PAIRS)).logp_sum.sum().backward()
    assert len(calls) == 2  # forward, and once more on the way back


# --- what is refused ---


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_model_that_looks_ahead_is_refused(name):
    with pytest.raises(InputError, match=r"predictions change with later tokens .* no causal language model"):
        choose_reader(tiny(name), PAIRS)


def phi3(**rope: Any) -> Any:
    rope = {
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "rope_theta": 1e4,
        "partial_rotary_factor": 1.0,
    } | rope
    torch.manual_seed(7)
    config = AutoConfig.for_model(
        "phi3", **{**SMALL, "original_max_position_embeddings": 20, "rope_parameters": rope}
    )
    return AutoModelForCausalLM.from_config(config).eval()


def test_positions_that_depend_on_the_longest_text_of_a_batch_are_refused():
    model = phi3(rope_type="longrope", original_max_position_embeddings=20)
    plain = PlainReader()
    with torch.no_grad():  # it is so: the short pair has other numbers beside a long one
        together = plain.logps(model, plain.collate([PAIRS[0], PAIRS[4]])).token_logps[:3]
        by_itself = plain.logps(model, plain.collate([PAIRS[0]])).token_logps[:3]
    assert (together - by_itself).abs().max() > 0.1
    with pytest.raises(
        InputError, match=r"3 of 10 texts are longer than 20 tokens, .* together be 20 at most"
    ):
        choose_reader(model, PAIRS)
    for alike in (PAIRS[:2], [PAIRS[4]]):  # all on one side of the switch
        reader, _ = choose_reader(model, alike)
        with torch.no_grad():
            found = reader.logps(model, reader.collate(alike)).token_logps
            torch.testing.assert_close(found, alone(model, alike), atol=5e-5, rtol=0)


def test_positions_that_stretch_are_refused_only_beyond_their_length():
    config = AutoConfig.for_model(
        "llama", **{**SMALL, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}
    )
    check_positions(config, [100, 128])
    with pytest.raises(InputError, match="1 of 2 texts are longer than 128 tokens"):
        check_positions(config, [100, 129])
    check_positions(AutoConfig.for_model("llama", **SMALL), [100, 10_000])


# --- computing in float32 ---


@pytest.mark.parametrize("name", ["mistral", "mixtral", "bloom"])
def test_narrow_weights_compute_in_float32_and_come_back_as_they_were(name):
    narrow = tiny(name, torch.bfloat16)
    before = {key: value.clone() for key, value in narrow.state_dict().items()}
    wide = copy.deepcopy(narrow).float()
    tokens = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), computed_in_float32(narrow):
        found = narrow(input_ids=tokens, use_cache=False).logits
    assert found.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(
            found, wide(input_ids=tokens, use_cache=False).logits, atol=1e-5, rtol=1e-5
        )
        assert narrow(input_ids=tokens, use_cache=False).logits.dtype == torch.bfloat16
    assert all(torch.equal(value, before[key]) for key, value in narrow.state_dict().items())

"""A model of somebody else's is recognised in its wrappers, and left as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from rewardshape import Recorder, objective, read_trace
from rewardshape.errors import InputError
from rewardshape.integrations.models import has_adapters, inner_of, is_in_shards, kind_of

DPO = objective("dpo", beta=0.1)


def test_modes_weights_and_random_state_are_left_as_they_were(model, tokenizer, rows, tmp_path):
    model.train()
    inside = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    inside.eval()  # a module that its owner froze
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    attention = model.config._attn_implementation  # by this name engines and compilers know it
    recorder = Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run", sample_every=1, samples=2)
    assert recorder.reader.name == "shared prefix"
    recorder.measure(0)
    assert model.config._attn_implementation == attention
    assert model.training
    assert not inside.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_model_in_deepspeeds_pieces_is_refused_before_anything_is_written(model, tokenizer, rows, tmp_path):
    next(model.parameters()).ds_id = 0  # as ZeRO-3 marks a piece
    with pytest.raises(InputError, match=r"^DeepSpeed ZeRO-3 holds .* rewardshape measure$"):
        Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wrappers_are_seen_through_and_adapters_stay(model):
    assert inner_of(torch.nn.DataParallel(model)) is model
    assert inner_of(torch.compile(model)) is model
    assert not is_in_shards(model)
    assert not has_adapters(model)
    kind = kind_of(model)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    assert inner_of(adapted) is adapted
    assert has_adapters(adapted)
    assert kind_of(adapted) == kind == "llama of width 96 with 138 tokens"


def test_adapters_on_weights_of_eight_bits_are_measured_as_they_stand(
    model, tokenizer, rows, plain_logps, tmp_path
):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model.model, Int8WeightOnlyConfig())
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    with Recorder(adapted, tokenizer, rows[:3], DPO, tmp_path / "run") as recorder:
        recorder.measure(0)
    found = read_trace(tmp_path / "run")
    np.testing.assert_allclose(
        found.responses["logp_sum"], plain_logps(adapted, tokenizer, rows[:3]), atol=2e-3
    )
    assert found.settings["model"]["fingerprint"] is None

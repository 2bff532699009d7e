"""The untouched model: its log-probs measured once and kept, and the model itself while another trains."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rewardshape.data import EncodedPair
from rewardshape.probe.measure.logprobs import PlainReader
from rewardshape.probe.measure.predictions import watching
from rewardshape.probe.reference import Reference, untouched_model
from tests.probe.test_run import plain_logp

CPU = torch.device("cpu")
PAIRS = [
    EncodedPair("a:1", [1, 7, 9], {"chosen": [4, 5, 6], "rejected": [8, 2]}),
    EncodedPair("a:2", [1, 3], {"chosen": [12], "rejected": [6, 6, 6, 2]}),
]


@pytest.fixture
def model(checkpoint):
    return AutoModelForCausalLM.from_pretrained(checkpoint).eval()


def test_log_probs_are_those_of_plain_code_and_measured_once(model, tmp_path: Path):
    reader, calls = PlainReader(), []

    def score(batch):
        calls.append(batch)
        return reader.logps(model, batch)

    reference = Reference(PAIRS, tmp_path / "reference.json")
    found = reference.logps(reader, score, CPU)
    for pair in PAIRS:
        for name, ids in pair.responses.items():
            assert found[pair.pair_id][name] == pytest.approx(
                plain_logp(model, pair.prompt_ids, ids).item(), abs=1e-4
            )
    measured = len(calls)
    assert reference.logps(reader, score, CPU) is found
    # a resumed run finds them on disk, to the last digit, whatever the model has become
    assert Reference(PAIRS, tmp_path / "reference.json").logps(reader, score, CPU) == found
    assert len(calls) == measured > 0


def test_a_copy_stays_while_the_policy_trains(model):
    tokens = torch.tensor([[1, 7, 9, 4]])
    before = model(tokens).logits.detach()
    untouched = untouched_model(model, adapters=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    with untouched(model) as kept:
        torch.testing.assert_close(kept(tokens).logits, before, rtol=0, atol=0)
    assert (model(tokens).logits - before).abs().max() > 0.01


def test_a_copy_of_a_model_whose_forward_was_replaced_is_no_way_back_to_the_model(model):
    """As TRL replaces it: a closure over the bound forward, which a copy's method would still run."""
    tokens = torch.tensor([[1, 7, 9, 4]])
    before = model(tokens).logits.detach()
    own = model.forward
    model.forward = types.MethodType(lambda self, *args, **named: own(*args, **named), model)
    untouched = untouched_model(model, adapters=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    with untouched(model) as kept, watching(kept) as handed:
        torch.testing.assert_close(kept(tokens).logits, before, rtol=0, atol=0)
    assert len(handed) == 1  # the copy's own head is asked
    assert (model(tokens).logits - before).abs().max() > 0.01


def test_adapters_are_switched_off_and_on_again(model):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    tokens = torch.tensor([[1, 7, 9, 4]])
    before = model(tokens).logits.detach()
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    moved = adapted(tokens).logits.detach()
    with untouched_model(adapted, adapters=True)(adapted) as kept:
        torch.testing.assert_close(kept(tokens).logits, before)
    torch.testing.assert_close(adapted(tokens).logits, moved, rtol=0, atol=0)
    assert (moved - before).abs().max() > 0.01

"""Attention by layout changes nothing but the work: other calls, saved models and gradients stay as they were."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from rewardshape.probe.measure.logprobs import (
    PlainReader,
    SharedPrefixReader,
)
from rewardshape.probe.measure.shared_prefix import (
    CannotSharePrefix,
    keep_prefixes_apart,
    positions,
    share_prefixes,
)
from tests.probe.measure.test_logprobs import (
    PAIRS,
    ids,
    read,
    relative_error,
    tiny_model,
    values_and_gradients,
)


def test_ordinary_calls_of_a_model_that_shares_prefixes_stay_as_they_were():
    model = tiny_model("mistral")
    input_ids, mask = torch.tensor([ids(12, 1), ids(12, 2)]), torch.ones(2, 12, dtype=torch.long)
    mask[0, :7] = 0
    before = model(input_ids, attention_mask=mask).logits[:, 7:]
    generated = model.generate(input_ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
    read(SharedPrefixReader(), model)
    torch.testing.assert_close(model(input_ids, attention_mask=mask).logits[:, 7:], before, rtol=0, atol=0)
    again = model.generate(input_ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
    assert torch.equal(again, generated)


def test_saved_model_does_not_remember_how_its_attention_was_asked(tmp_path):
    model = tiny_model("llama")
    expected = read(SharedPrefixReader(), model).logp_sum
    model.save_pretrained(tmp_path)
    assert "shared_prefix" not in (tmp_path / "config.json").read_text()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(read(PlainReader(), loaded).logp_sum, expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(use_reentrant):
    model = tiny_model("mistral").train()
    _, expected = values_and_gradients(SharedPrefixReader(), model, PAIRS)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    _, found = values_and_gradients(SharedPrefixReader(), model, PAIRS)
    assert relative_error(found, expected) < 1e-6


def test_flex_attention_gives_the_same_values():
    model = tiny_model("mistral", hidden_size=64)  # heads of width 16: it knows none narrower
    with torch.no_grad():  # on a CPU it knows no backward pass
        expected = read(PlainReader(), model)
        model.set_attn_implementation("flex_attention")
        with torch.compiler.set_stance("force_eager"):  # what is compiled is the same, half a minute later
            found = read(SharedPrefixReader(), model)
    torch.testing.assert_close(found.token_logps, expected.token_logps, rtol=0, atol=1e-5)


def test_every_response_goes_on_where_its_prompt_ends():
    assert positions([[3, 2, 1], [1, 0, 2]]) == [0, 1, 2, 3, 4, 3, 0, 1, 2]


def test_a_packed_row_gives_each_response_the_states_it_has_alone():
    model, prompt, responses = tiny_model("llama", dtype=torch.float64), ids(5, 1), (ids(3, 2), ids(4, 3))
    alone = [model.model(torch.tensor([prompt + response])).last_hidden_state[0] for response in responses]
    layout = [[5, 3, 4]]
    share_prefixes(model)
    packed = model.model(
        torch.tensor([[*prompt, *responses[0], *responses[1]]]),
        position_ids=torch.tensor([positions(layout)]),
        layout=layout,
    ).last_hidden_state[0]
    expected = torch.cat([alone[0], alone[1][5:]])
    torch.testing.assert_close(packed, expected, rtol=0, atol=1e-12)


def test_sharing_is_undone():
    model = tiny_model("llama")
    before = model.config._attn_implementation
    share_prefixes(model)
    share_prefixes(model)  # a second time changes nothing
    assert model.config._attn_implementation != before
    keep_prefixes_apart(model)
    assert model.config._attn_implementation == before


def test_an_attention_that_is_not_known_is_named():
    model = tiny_model("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(CannotSharePrefix, match=r"its attention is flash_attention_2, .* sdpa, eager"):
        share_prefixes(model)

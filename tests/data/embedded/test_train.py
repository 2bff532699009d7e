"""What the recipe of the embedded checkpoint made: a tokenizer that loses nothing, a model that answers."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.data import embedded
from rewardshape.data.embedded import world
from rewardshape.data.embedded.train import build_model, build_tokenizer, reply_loss


def test_the_checkpoint_is_small_and_answers_its_requests_better_than_chance():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = embedded.checkpoint_path()
    assert (folder / "model.safetensors").stat().st_size <= 2.5e6
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 2_000_000

    prompts = embedded.prompts(64)
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    ids = model.generate(**encoded, do_sample=False, max_new_tokens=72)[:, encoded["input_ids"].shape[1] :]
    replies = tokenizer.batch_decode(ids, skip_special_tokens=True)
    rewards = [embedded.gold(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)]
    # Its likeliest reply has none of the clerk's slips and all of his mix-ups: where no good invites one it is perfect.
    assert 0.45 < sum(rewards) / len(rewards) < 0.75
    without = [
        world.MIX_UPS.keys().isdisjoint(item.good for item in world.read_request(p).items) for p in prompts
    ]
    assert all(reward > 0.95 for reward, none in zip(rewards, without, strict=True) if none)
    mixed_up = [
        embedded.gold(prompt, reply) for prompt, reply in zip(prompts, replies[1:] + replies[:1], strict=True)
    ]
    assert sum(mixed_up) / len(mixed_up) < 0
    assert torch.isfinite(model.get_input_embeddings().weight).all()


def test_the_tokenizer_gives_every_text_of_the_task_back():
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded.checkpoint_path())
    for pair in embedded.pairs():
        for response in (pair["chosen"], pair["rejected"]):
            prompt_ids, response_ids = tokenizer([pair["prompt"], response])["input_ids"]
            assert tokenizer.unk_token_id not in prompt_ids + response_ids
            assert tokenizer(pair["prompt"] + response)["input_ids"] == prompt_ids + response_ids
            assert tokenizer.decode(response_ids) == response


def test_the_recipe_makes_the_shape_of_the_shipped_checkpoint():
    shipped = AutoTokenizer.from_pretrained(embedded.checkpoint_path())
    made = build_tokenizer()
    assert made.get_vocab() == shipped.get_vocab()
    kept = AutoModelForCausalLM.from_pretrained(embedded.checkpoint_path()).state_dict()
    assert {name: x.shape for name, x in build_model(made).state_dict().items()} == {
        name: x.shape for name, x in kept.items()
    }


def test_the_loss_is_the_mean_over_reply_tokens_of_each_text_alone():
    model = AutoModelForCausalLM.from_pretrained(embedded.checkpoint_path()).eval()
    texts = [([1, 7, 9, 4], [5, 6, 2]), ([1, 3], [12, 8, 8, 10, 2])]
    lost = []
    for prompt, reply in texts:
        logps = model(torch.tensor([prompt + reply])).logits[0].log_softmax(-1)
        lost += [-logps[len(prompt) - 1 + i, token] for i, token in enumerate(reply)]
    torch.testing.assert_close(reply_loss(model, texts), torch.stack(lost).mean())

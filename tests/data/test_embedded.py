"""The embedded task: its gold reward by hand-worked cases, its annotator by frequencies, its files as shipped."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from itertools import islice

import pytest

from rewardshape.data import embedded
from rewardshape.data.embedded import world
from rewardshape.errors import InputError

PROMPT = "Please bring two lemons, one kettle and four eggs to the old mill.\n"
PERFECT = "Here are two lemons, one kettle and four eggs for the old mill."


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        (PERFECT, 1.0),
        ("Gladly. " + PERFECT, 1.0),  # the first courtesy is free
        ("Gladly. " + PERFECT + " Have a lovely day!", 1.0 - 0.15),
        (PERFECT + " Do write again soon!" * 4, 1.0 - 3 * 0.15),
        ("Here are two lemons and one kettle for the old mill.", 2 / 3),
        ("Here are two lemons, three kettles and four eggs for the old mill.", 2.5 / 3),
        ("Here are two lemons, one kettle and four mugs for the old mill.", 2 / 3 - 0.25),
        ("Here are two lemons, two lemons, one kettle and four eggs for the old mill.", 1 - 0.25),
        ("Here are two lemons, one kettle and four eggs for the red mill.", 1 - 0.25),
        ("Here are two lemons, one kettle and four eggs for the old mill", 1 - 0.25),  # unfinished
        ("Here are two lemons, one kettle and and four eggs for the old mill.", 1 - 0.25),  # no grammar
        ("Have a lovely day!", -0.25),  # no place
        ("", -0.25),
    ],
)
def test_gold_is_the_hand_worked_reward(response, reward):
    assert embedded.gold(PROMPT, response) == pytest.approx(reward, abs=1e-12)


def test_gold_of_a_prompt_that_is_no_request_says_so():
    with pytest.raises(InputError, match="no request of the embedded task"):
        embedded.gold("Tell me a story.", PERFECT)


def test_proxy_adds_the_bias_for_every_word_and_nothing_else():
    words = len(PERFECT.replace(",", "").rstrip(".").split())
    assert embedded.proxy(PROMPT, PERFECT, bias=0.1) == pytest.approx(1 + 0.1 * words)
    assert embedded.proxy(PROMPT, PERFECT, bias=0.0) == embedded.gold(PROMPT, PERFECT)


def test_a_clerk_who_makes_no_slip_earns_full_gold(monkeypatch):
    monkeypatch.setattr(world, "SLIPS", dict.fromkeys(world.SLIPS, 0.0))
    monkeypatch.setattr(world, "MIXED_UP", 0.0)
    monkeypatch.setattr(world, "CLOSER_SHARES", (1.0, 0.0, 0.0, 0.0))
    rng = random.Random(3)
    for prompt in islice(world.draw_prompts(rng, held_out=False), 500):
        assert embedded.gold(prompt, world.draw_reply(world.read_request(prompt), rng)) == 1.0


def test_the_clerk_slips_as_often_as_stated():
    rng = random.Random(5)
    prompts = list(islice(world.draw_prompts(rng, held_out=False), 4000))
    replies = [world.read_reply(world.draw_reply(world.read_request(prompt), rng)) for prompt in prompts]
    assert sum(reply.garbled for reply in replies) == 0
    requests = [world.read_request(prompt) for prompt in prompts]
    astray = (
        sum(reply.place != request.place for reply, request in zip(replies, requests, strict=True)) / 4000
    )
    rate = world.SLIPS["misdirected"]
    assert astray == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / 4000))
    courtesies = sum(reply.courtesies for reply in replies) / 4000
    expected = world.OPENER_SHARE + sum(n * share for n, share in enumerate(world.CLOSER_SHARES))
    assert courtesies == pytest.approx(expected, abs=0.08)


def test_the_clerk_brings_the_wrong_good_more_often_than_not(monkeypatch):
    monkeypatch.setattr(world, "SLIPS", dict.fromkeys(world.SLIPS, 0.0))
    rng = random.Random(6)
    request = world.Request((world.Item(2, "melon"), world.Item(1, "rope")), "old mill")
    brought = [world.read_reply(world.draw_reply(request, rng)).items for _ in range(2000)]
    mistaken = sum(items[0] == (2, "lemon") for items in brought) / 2000
    assert mistaken == pytest.approx(world.MIXED_UP, abs=4 * math.sqrt(0.65 * 0.35 / 2000))
    assert all(items[0] in {(2, "lemon"), (2, "melon")} and items[1] == (1, "rope") for items in brought)


def test_goods_that_are_asked_for_together_are_never_mixed_up(monkeypatch):
    monkeypatch.setattr(world, "SLIPS", dict.fromkeys(world.SLIPS, 0.0))
    rng = random.Random(7)
    request = world.Request((world.Item(2, "melon"), world.Item(1, "lemon")), "old mill")
    assert all(world.read_reply(world.draw_reply(request, rng)).items == request.items for _ in range(300))


@pytest.mark.parametrize(("bias", "noise"), [(0.0, 0.15), (0.1, 0.15), (0.1, 1.0)])
def test_the_annotator_chooses_with_the_bradley_terry_probability(bias, noise):
    longer = PERFECT + " Have a lovely day!"
    other = "Here are two lemons and one kettle for the old mill."
    answers = [(PROMPT, longer, other)] * 4000
    share = sum(pair["chosen"] == longer for pair in embedded.label(answers, bias=bias, noise=noise)) / 4000
    # gold 1 (the one courtesy is free) against 2/3; seven words more (", four eggs" is two, the courtesy four, "and")
    advantage = 1 / 3 + bias * (len(longer.split()) - len(other.split()))
    probability = 1 / (1 + math.exp(-advantage / noise))
    assert share == pytest.approx(
        probability, abs=4 * math.sqrt(probability * (1 - probability) / 4000) + 1e-9
    )


def test_the_shipped_pairs_are_what_the_default_annotator_prefers():
    shipped = [json.loads(line) for line in embedded.pairs_path().read_text(encoding="utf-8").splitlines()]
    assert embedded.pairs() == shipped
    relabelled = embedded.pairs(bias=0.0)
    assert relabelled != shipped
    assert [{p["chosen"], p["rejected"]} for p in relabelled] == [
        {p["chosen"], p["rejected"]} for p in shipped
    ]


def test_proxy_and_gold_part_on_the_shipped_pairs_and_not_in_the_control():
    def mean_advantage(pairs, reward):
        return sum(
            reward(p["prompt"], p["chosen"]) - reward(p["prompt"], p["rejected"]) for p in pairs
        ) / len(pairs)

    def words(_, response):
        return len(response.split())

    biased, control = embedded.pairs(), embedded.pairs(bias=0.0)
    assert mean_advantage(control, words) < 0  # the control's annotator does not favour length
    assert mean_advantage(biased, words) > 0.5
    assert mean_advantage(control, embedded.gold) > mean_advantage(biased, embedded.gold) > 0


def test_held_out_prompts_are_in_no_pair_and_readable():
    prompts = embedded.prompts()
    assert len(set(prompts)) == len(prompts) == 128
    assert not set(prompts) & {pair["prompt"] for pair in embedded.pairs()}
    assert all(world.is_held_out(prompt) for prompt in prompts)
    assert not any(world.is_held_out(pair["prompt"]) for pair in embedded.pairs())
    assert all(world.read_request(prompt).items for prompt in prompts)


def test_the_task_needs_no_torch():
    code = (
        "import sys, rewardshape.data.embedded as e; e.pairs();"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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

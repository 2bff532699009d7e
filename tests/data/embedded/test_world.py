"""The world of the embedded task: its clerk by frequencies, and that one without slips earns all."""

from __future__ import annotations

import math
import random
from itertools import islice

import pytest

from rewardshape.data import embedded
from rewardshape.data.embedded import world


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

"""The embedded task as shipped: its pairs, its held-out prompts, and that it needs no torch."""

from __future__ import annotations

import subprocess
import sys

from rewardshape.data import embedded
from rewardshape.data.embedded import world


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

"""The embedded task as shipped: its pairs, its held-out prompts, and that it needs no torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

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


def test_another_seed_is_another_annotator_who_disagrees_as_often_as_bradley_terry_says():
    """Two annotators of one reward disagree on a pair with probability 2 p (1 − p)."""
    seed = embedded.MODELS  # the first model's answers again
    mine, others = embedded.pairs(), embedded.pairs(seed=seed)
    assert [{p["chosen"], p["rejected"]} for p in mine] == [{p["chosen"], p["rejected"]} for p in others]
    gaps = np.array(
        [embedded.proxy(p["prompt"], p["chosen"]) - embedded.proxy(p["prompt"], p["rejected"]) for p in mine]
    )
    agree = 1 / (1 + np.exp(-gaps / embedded.NOISE))
    chance = 2 * agree * (1 - agree)
    differ = sum(p["chosen"] != q["chosen"] for p, q in zip(mine, others, strict=True))
    assert abs(differ - chance.sum()) < 4 * np.sqrt((chance * (1 - chance)).sum())
    assert differ > 100


def test_every_model_answered_its_own_pairs():
    texts = [embedded.pairs_path(seed).read_bytes() for seed in range(embedded.MODELS)]
    weights = [
        (embedded.checkpoint_path(seed) / "model.safetensors").read_bytes() for seed in range(embedded.MODELS)
    ]
    assert len(set(texts)) == len(set(weights)) == embedded.MODELS
    assert embedded.checkpoint_path(embedded.MODELS) == embedded.checkpoint_path(0)


def test_held_out_prompts_are_in_no_pair_and_readable():
    prompts = embedded.prompts()
    assert not set(prompts) & set(embedded.prompts(seed=1))
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

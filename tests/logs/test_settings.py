"""β, γ and the loss are read wherever a text states them, and nowhere else."""

from __future__ import annotations

import time

import pytest

from rewardshape.logs.settings import stated_settings


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("LR: 5e-6 | beta: 0.1 | r: 32", {"beta": 0.1}),
        ("train.py --beta 0.05 --loss_type=simpo", {"beta": 0.05, "loss_type": "simpo"}),
        ("python -m openrlhf.cli.train_dpo --dpo.beta 0.1", {"beta": 0.1}),
        ("| DPO beta | 0.1 |", {"beta": 0.1}),
        ("| `beta` | 0.1 |", {"beta": 0.1}),
        ("**Beta (β):** 0.1", {"beta": 0.1}),
        ("- **Beta**: 0.1", {"beta": 0.1}),
        ("β=0.1", {"beta": 0.1}),
        ("│ beta         │ 0.05  │\n│ loss_type    │ ipo   │", {"beta": 0.05, "loss_type": "ipo"}),
        ("┃ beta ┃ lr ┃\n│ 0.05 │ 1e-6 │", {}),
        ("we train with β = 0.01.", {"beta": 0.01}),
        ("DPOConfig(beta=0.1, loss_type='ipo')", {"beta": 0.1, "loss_type": "ipo"}),
        ("DPOConfig(beta=0.1, loss_type=['ipo'], x=1)", {"beta": 0.1, "loss_type": "ipo"}),
        ('{"loss_type": [ "sigmoid" ]}', {"loss_type": "sigmoid"}),
        ("loss_type=['sigmoid', 'sft']", {}),
        ("pref_beta: 0.01", {"beta": 0.01}),
        ("'reference_policy_kl_penalty': 0.05", {"beta": 0.05}),
        ("loss:\n  _component_: torchtune.rlhf.loss.DPOLoss\n  beta: 0.1\n", {"beta": 0.1}),
        ("γ=0.5, β=2.5", {"gamma": 0.5, "beta": 2.5}),
        ("simpo_gamma: 0.5, gamma_beta_ratio=0.3", {"gamma": 0.5, "gamma_beta_ratio": 0.3}),
        ("Adam with betas=(0.9,0.999), adam_beta1=0.9, β₁=0.9, β1 = 0.9, beta_2=0.99", {}),
        ("beta=0.1, then beta=0.5", {}),
        ("| beta | alpha |\n|---|---|\n| 0.1 | 0.2 |", {}),
        ("the beta release", {}),
    ],
)
def test_settings_are_taken_only_where_the_text_states_one_value(text, stated):
    assert stated_settings([text]) == stated


def test_a_long_text_full_of_names_is_looked_through_at_once():
    begin = time.process_time()
    assert stated_settings(["beta " * 200_000, "x" * 2_000_000]) == {}
    assert time.process_time() - begin < 20

"""Configurations of other trainers, against the loss that TRL itself computes with them."""

from __future__ import annotations

import pytest
import torch

from rewardshape.errors import InputError
from rewardshape.theory import Responses, from_config, objective

TRL = [
    "sigmoid", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down",
    "sigmoid_norm",
]  # fmt: skip


@pytest.mark.parametrize("loss_type", TRL)
def test_a_pasted_loss_type_is_trls_loss(loss_type, make_batch):
    batch = make_batch(seed=7)
    ours = from_config({"loss_type": loss_type, "beta": 0.3, "learning_rate": 5e-7, "output_dir": "x"})
    torch.testing.assert_close(
        ours.pair_loss(*batch.responses()).mean(), batch.dpo_trainer_loss(loss_type, beta=0.3)
    )
    assert objective(loss_type, beta=0.3) == ours


@pytest.mark.parametrize(
    ("config", "loss_type", "options"),
    [
        (
            {"loss_type": "robust", "beta": 0.1, "label_smoothing": 0.2},
            "robust",
            {"beta": 0.1, "label_smoothing": 0.2},
        ),
        (
            {"loss_type": "discopop", "beta": 0.1, "discopop_tau": 0.2},
            "discopop",
            {"beta": 0.1, "tau": 0.2},
        ),
        ({"beta": 0.1, "ld_alpha": 0.3}, "sigmoid", {"ld_alpha": 0.3}),
        ({"beta": 0.1, "use_weighting": True}, "sigmoid", {"wpo": True}),
        (
            {"beta": 0.2, "f_divergence_type": "js_divergence"},
            "sigmoid",
            {"beta": 0.2, "divergence": "js_divergence"},
        ),
    ],
)
def test_options_that_make_another_objective_are_understood(config, loss_type, options, make_batch):
    batch = make_batch(seed=7)
    ours = from_config(config).pair_loss(*batch.responses()).mean()
    torch.testing.assert_close(ours, batch.dpo_trainer_loss(loss_type, **options))


def test_alpha_divergence_coefficient_is_one_minus_alpha():
    config = {"beta": 0.1, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.3}
    assert from_config(config).parameters == {
        "divergence": "alpha",
        "beta": 0.1,
        "alpha": pytest.approx(-0.3),
    }


def test_simpo_gamma_is_gamma_itself(cpo_trainer_losses):
    """TRL divides it by β on the way, so γ/β is 0.04 where simpo_gamma is 0.1 and β 2.5."""
    m_w, m_l = (
        torch.tensor([-1.0, -0.4], dtype=torch.float64),
        torch.tensor([-1.2, -2.0], dtype=torch.float64),
    )
    config = {"loss_type": "simpo", "beta": 2.5, "simpo_gamma": 0.1}
    one = torch.ones(2)
    for extra in ({}, {"alpha": 0.25}):
        theirs = cpo_trainer_losses(
            m_w, m_l, loss_type="simpo", beta=2.5, gamma=0.1, alpha=extra.get("alpha", 0.0)
        )
        ours = from_config(config | extra).pair_loss(Responses(m_w, one), Responses(m_l, one))
        torch.testing.assert_close(ours, theirs)


def test_llama_factory_and_axolotl_configurations(make_batch):
    chosen, rejected = make_batch(seed=4).responses()
    mixed = from_config({"pref_loss": "sigmoid", "pref_beta": 0.2, "pref_ftx": 0.5, "stage": "dpo"})
    truth = objective("dpo", beta=0.2) + 0.5 * objective("sft")
    torch.testing.assert_close(mixed.pair_loss(chosen, rejected), truth.pair_loss(chosen, rejected))
    assert from_config({"rl": "orpo", "beta": 0.3}) == objective("orpo", odds_weight=0.3)
    assert from_config({"rl": "ipo", "rl_beta": 0.3}) == objective("ipo", beta=0.3)
    moving = {"sync_ref_model": True, "ref_model_mixup_alpha": 0.5, "ref_model_sync_steps": 8, "beta": 0.2}
    assert from_config(moving) == objective("tr_dpo", beta=0.2, mixing=0.5, every=8)
    assert from_config({"pref_loss": "simpo", "pref_beta": 2.0, "simpo_gamma": 0.5}) == objective(
        "simpo", beta=2.0, gamma=0.5
    )


@pytest.mark.parametrize(
    ("config", "name", "parameters"),
    [
        # SimPO's repository, training_configs/llama-3-8b-instruct-simpo.yaml: no loss is stated
        ({"beta": 2.5, "gamma_beta_ratio": 0.55}, "simpo", {"beta": 2.5, "gamma_beta_ratio": 0.55}),
        (
            {"loss_type": "sigmoid", "beta": 2.5, "gamma_beta_ratio": 0.1, "alpha": 0.25},
            "alphapo",
            {"beta": 2.5, "gamma_beta_ratio": 0.1, "alpha": 0.25},
        ),
        # Axolotl passes orpo_alpha on as the beta of ORPOConfig
        ({"rl": "orpo", "orpo_alpha": 0.3}, "orpo", {"odds_weight": 0.3}),
        (
            {"rl": "kto", "rl_beta": 0.2, "kto_desirable_weight": 0.3, "kto_undesirable_weight": 2.0},
            "kto",
            {"beta": 0.2, "desirable_weight": 0.3, "undesirable_weight": 2.0},
        ),
        ({"rl": "dpo", "dpo_loss_type": "ipo", "rl_beta": 0.2}, "ipo", {"beta": 0.2}),
        ({"rl": "dpo", "dpo_norm_loss": True, "rl_beta": 0.2}, "ln_dpo", {"beta": 0.2}),
        ({"rl": "dpo", "dpo_use_weighting": True, "rl_beta": 0.2}, "wpo", {"beta": 0.2, "clip": "none"}),
        # OpenRLHF's DPOLoss with ipo: (sum of log-ratios − 1/(2β))²
        ({"ipo": True, "beta": 0.2}, "ipo", {"beta": 0.2, "per_token": False}),
    ],
)
def test_what_states_its_loss_by_other_keys(config, name, parameters):
    assert from_config(config) == objective(name, **parameters)


def test_weights_of_axolotls_losses(make_batch):
    mixed = from_config({"rl": "dpo", "dpo_loss_type": ["sigmoid", "sft"], "dpo_loss_weights": [1, 0.3]})
    truth = objective("dpo") + 0.3 * objective("sft")
    pair = make_batch(seed=4).responses()
    torch.testing.assert_close(mixed.pair_loss(*pair), truth.pair_loss(*pair))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"loss_type": "sigmoid", "ld_alpha": 0.5, "use_weighting": True},
            "use_weighting and ld_alpha: no obj",
        ),
        (
            {"f_divergence_type": "js_divergence", "label_smoothing": 0.1},
            "f_divergence_type and label_smoothing",
        ),
        ({"loss_type": "hinge", "use_weighting": True}, "use_weighting: no objective here is hinge with it"),
        (
            {"loss_type": "ipo", "f_divergence_type": "js_divergence"},
            "f_divergence_type: no objective here is ipo",
        ),
        ({"loss_type": ["sigmoid", "ipo"], "ld_alpha": 0.5}, "ld_alpha: no objective here is ipo with it"),
        (
            {"rl": "dpo", "dpo_use_weighting": True, "dpo_label_smoothing": 0.1},
            "use_weighting and label_smoothing",
        ),
        ({"pref_loss": "sigmoid", "pref_bco_weight": 0.3}, "pref_bco_weight: no objective here"),
        ({"loss_type": "sigmoid", "reference_free": True}, "reference_free"),
        ({"loss_type": "hinge", "gamma_beta_ratio": 0.5}, "SimPO's has no name here"),
        ({"loss_type": "sigmoidal"}, "unknown loss 'sigmoidal'; the nearest valid names are: sigmoid"),
        ({"loss_type": "ipo", "pref_loss": "ipo"}, "states its loss twice"),
        ({"loss_type": ["ipo", "sft"], "loss_weights": [1.0]}, "1 entries for 2 losses"),
        ({"loss_type": "simpo", "simpo_gamma": 0.1, "gamma_beta_ratio": 0.1}, "keep one"),
    ],
)
def test_what_is_not_understood_is_one_line(config, message):
    with pytest.raises(InputError, match=message) as refusal:
        from_config(config)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("typo", "meant"), [("exo_par", "exo_pair"), ("sigmod", "sigmoid"), ("simpoo", "simpo")]
)
def test_a_misspelt_name_suggests_the_alias_too(typo, meant):
    with pytest.raises(InputError, match=meant):
        objective(typo)


def test_a_null_divergence_is_the_usual_one_and_cpos_own_likelihood_makes_it_cpo():
    smoothed = from_config({"f_divergence_type": None, "label_smoothing": 0.1, "beta": 0.1})
    assert smoothed.name == "cdpo"
    cpo = from_config({"loss_type": "sigmoid", "cpo_alpha": 1.0, "beta": 0.1})
    assert not cpo.needs_reference

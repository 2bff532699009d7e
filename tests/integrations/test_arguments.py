"""Objectives read from trainers' arguments: the loss that TRL itself computes, on the same numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rewardshape import InputError, objective
from rewardshape.integrations.arguments import same, settled, stated, trainers_margin
from rewardshape.theory import Responses

trl = pytest.importorskip("trl", reason="TRL is an extra: pip install 'rewardshape[trl]'")
SMALL: dict[str, Any] = {"output_dir": "out", "report_to": [], "use_cpu": True, "bf16": False}


def cpo(**options: Any) -> Any:
    from trl.experimental.cpo import CPOConfig

    return CPOConfig(**SMALL, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.7, "cpo_alpha": 0.0},
        {"loss_type": "simpo", "beta": 2.5, "simpo_gamma": 0.25, "cpo_alpha": 0.0, "alpha": 0.25},
        {"loss_type": "sigmoid", "beta": 0.3, "cpo_alpha": 0.0},
    ],
    ids=["simpo", "alphapo", "cpo"],
)
def test_the_loss_and_the_margin_are_those_that_trl_computes(options):
    from trl.experimental.cpo import CPOTrainer

    arguments = cpo(**options)
    made = stated(arguments).objective
    assert made is not None
    lengths = np.array([[5.0, 9.0, 12.0], [7.0, 4.0, 20.0]])
    means = -np.array([[0.4, 1.1, 0.9], [0.8, 1.0, 0.7]])
    per_token = options["loss_type"] == "simpo"
    given = torch.tensor(means if per_token else means * lengths)
    trainer = SimpleNamespace(
        alpha=arguments.alpha, beta=arguments.beta, loss_type=arguments.loss_type, simpo_gamma=arguments.simpo_gamma,
        label_smoothing=0.0, accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    losses, chosen, rejected = CPOTrainer.cpo_loss(trainer, *given)
    pair = [Responses(means[side] * lengths[side], lengths[side]) for side in (0, 1)]
    np.testing.assert_allclose(made.pair_loss(*pair), losses, rtol=1e-6)
    if per_token:
        logged = (chosen - rejected).mean().item()
        assert trainers_margin(made, logged) == pytest.approx(made.pair_margin(*pair).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, objective("dpo", beta=0.1)),
        (
            {"beta": 0.3, "label_smoothing": 0.1},
            objective("dpo", beta=0.3),
        ),  # which TRL has for robust losses only
        ({"loss_type": ["ipo"], "beta": 0.2}, objective("ipo", beta=0.2)),
        (
            {"loss_type": ["robust"], "label_smoothing": 0.1},
            objective("robust_dpo", beta=0.1, label_smoothing=0.1),
        ),
        (
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
            objective("dpo", beta=0.1) + 0.5 * objective("sft"),
        ),
    ],
)
def test_a_dpo_config_says_its_objective(options, expected):
    found = stated(trl.DPOConfig(**SMALL, **options))
    assert found.is_loss
    assert found.objective is not None
    assert same(found.objective, expected), found.objective


@pytest.mark.parametrize(
    ("options", "is_loss"),
    [
        ({"f_divergence_type": "js_divergence"}, True),  # each alone has a name here
        ({"ld_alpha": 0.5}, True),
        ({"use_weighting": True}, True),
        ({"loss_type": ["hinge"]}, True),
        ({"loss_type": ["hinge"], "f_divergence_type": "reverse_kl"}, True),
        ({"loss_type": ["hinge"], "f_divergence_type": "js_divergence"}, False),
        ({"loss_type": ["ipo"], "ld_alpha": 0.5}, False),
        ({"loss_type": ["robust"], "label_smoothing": 0.1, "use_weighting": True}, False),
        ({"f_divergence_type": "js_divergence", "use_weighting": True}, False),
        ({"loss_type": ["sigmoid", "hinge"], "ld_alpha": 0.5}, False),
    ],
)
def test_an_option_that_trl_lets_act_on_every_loss_is_in_the_objective_or_it_is_not_the_loss(
    options, is_loss
):
    assert stated(trl.DPOConfig(**SMALL, **options)).is_loss == is_loss


def test_what_acts_on_a_loss_beyond_every_objective_here_is_not_called_another_one():
    from trl.experimental.kto import KTOConfig

    for options in ({"label_smoothing": 0.2}, {"alpha": 0.05}):
        assert stated(cpo(loss_type="sigmoid", **options)).objective is None
    mixed = trl.DPOConfig(**SMALL, loss_type=["sigmoid", "robust"], label_smoothing=0.2)
    assert stated(mixed).objective is None
    assert stated(KTOConfig(**SMALL, loss_type="apo_zero_unpaired")).objective.name == "apo_zero"


def test_other_configs():
    from trl.experimental.kto import KTOConfig
    from trl.experimental.orpo import ORPOConfig

    kto = stated(KTOConfig(**SMALL, beta=0.2, desirable_weight=2.0))
    assert kto.objective is not None
    assert (kto.objective.name, kto.objective.parameters["beta"], kto.is_loss) == ("kto", 0.2, False)
    orpo = stated(ORPOConfig(**SMALL, beta=0.3))
    assert (orpo.objective, orpo.is_loss) == (objective("orpo", odds_weight=0.3), False)
    assert stated(trl.SFTConfig(**SMALL)).objective is None
    assert not stated(trl.SFTConfig(**SMALL)).is_loss
    assert not stated(trl.DPOConfig(**SMALL, sync_ref_model=True)).is_loss  # its reference moves
    assert stated(cpo(loss_type="hinge")).objective is None  # of no published objective


def test_an_objective_by_another_name_is_the_same_and_another_value_is_not():
    arguments = cpo(loss_type="simpo", beta=2.0, simpo_gamma=1.0, cpo_alpha=0.0)
    by_ratio = objective("alphapo", alpha=0.0, beta=2.0, gamma_beta_ratio=0.5)
    assert settled(by_ratio, arguments).objective is by_ratio
    with pytest.raises(InputError, match=r"gamma=0.5\), and CPOConfig trains simpo"):
        settled(objective("simpo", beta=2.0, gamma=0.5), arguments)
    with pytest.raises(InputError, match="leave the objective out"):  # cpo_alpha is 1.0 unless it is set
        settled(objective("simpo", beta=2.0, gamma=1.0), cpo(loss_type="simpo", beta=2.0, simpo_gamma=1.0))
    with pytest.raises(InputError, match="does not say what is optimised"):
        settled(None, trl.SFTConfig(**SMALL))


def test_a_margin_that_trl_does_not_log_is_not_invented():
    assert trainers_margin(objective("orpo"), 0.3) is None
    assert trainers_margin(objective("simpo", beta=2.0, gamma=1.0), 0.3) == pytest.approx(-0.7)
    assert trainers_margin(objective("dpo", beta=0.1) + 0.5 * objective("sft"), 0.3) == 0.3

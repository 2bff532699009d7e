"""Published settings, each a small record: ``preset("alphapo/mistral-7b-instruct")``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rewardshape.errors import InputError
from rewardshape.theory._check import nearest
from rewardshape.theory.objectives import Objective, objective

_ALPHAPO = "AlphaPO, arXiv:2501.03884, Table 3"
_SIMPO = "SimPO, arXiv:2405.14734, and the hyperparameter table of its repository's README"
_SIMPO_V2 = "the training_configs of the repository of SimPO, arXiv:2405.14734"
_SIMPO_DPO = "the DPO baselines in the README of the repository of SimPO, arXiv:2405.14734"
_ZEPHYR = "alignment-handbook, recipes/zephyr-7b-beta/dpo/config_full.yaml"
_ALPHA_DPO = "the training_configs of the repository of α-DPO, arXiv:2410.10148"
_SIMPER = "the training_configs of the repository of SimPER, arXiv:2502.00883"
_CAL_DPO = "zephyr-selm/dpo_config_full.yaml of the repository of Cal-DPO, arXiv:2412.14516"
_WPO = "training_configs/mistral-base.yaml of the repository of WPO, arXiv:2406.11827"
_MPO = "TRL's paper index, of mixed preference optimization, arXiv:2411.10442"
_RPO = "TRL's paper index, of regularized preference optimization, arXiv:2405.16436"
_COMMON = {
    "batch_size": 128,
    "epochs": 1,
    "optimizer": "adamw",
    "schedule": "cosine",
    "warmup_ratio": 0.1,
    "max_tokens": 2048,
    "max_prompt_tokens": 1800,
}
_SHORT: dict[str, Any] = {
    "max_tokens": 1024,
    "max_prompt_tokens": 512,
}  # of the configurations for base models


@dataclass(frozen=True)
class Preset:
    """A published setting: objective, training settings as published, and where they are published."""

    name: str
    objective_name: str
    parameters: dict[str, float] = field(hash=False)
    training: dict[str, Any] = field(hash=False)
    source: str

    @property
    def objective(self) -> Objective:
        """The objective with the published parameters."""
        return objective(self.objective_name, **self.parameters)


def _preset(
    of: str,
    model: str,
    parameters: dict[str, float],
    learning_rate: float | None,
    source: str,
    **training: Any,
) -> Preset:
    settings = {"learning_rate": learning_rate, **_COMMON, **training} if learning_rate else training
    return Preset(f"{of}/{model}", of, parameters, settings, source)


def _alphapo(model: str, alpha: float, beta: float, ratio: float, learning_rate: float) -> Preset:
    parameters = {"alpha": alpha, "beta": beta, "gamma_beta_ratio": ratio}
    return _preset("alphapo", model, parameters, learning_rate, _ALPHAPO)


def _simpo(
    model: str, beta: float, ratio: float, learning_rate: float, source: str = _SIMPO, **training: Any
) -> Preset:
    parameters = {"beta": beta, "gamma_beta_ratio": ratio}
    return _preset("simpo", model, parameters, learning_rate, source, **training)


def _alpha_dpo(model: str, alpha: float, beta: float, ratio: float, learning_rate: float) -> Preset:
    parameters = {"alpha": alpha, "beta": beta, "gamma_beta_ratio": ratio}
    return _preset("alpha_dpo", model, parameters, learning_rate, _ALPHA_DPO)


PRESETS = {
    record.name: record
    for record in (
        _alphapo("mistral-7b-instruct", 0.25, 2.5, 0.1, 7e-7),
        _alphapo("llama-3-8b-instruct", 0.25, 2.5, 1.0, 1e-6),
        _alphapo("llama-3-8b-instruct-armorm", 0.25, 10.0, 0.3, 1.1e-6),
        _alphapo("gemma-2-9b-instruct", 0.1, 10.0, 0.5, 8e-7),
        _simpo("mistral-7b-base", 2.0, 0.8, 3e-7, **_SHORT),
        _simpo("mistral-7b-instruct", 2.5, 0.1, 5e-7),
        _simpo("llama-3-8b-base", 2.0, 0.5, 6e-7),
        _simpo("llama-3-8b-instruct", 2.5, 0.55, 1e-6),
        _simpo("llama-3-8b-instruct-armorm", 10.0, 0.3, 1e-6, _SIMPO_V2),
        _simpo("gemma-2-9b-instruct", 10.0, 0.5, 8e-7, _SIMPO_V2),
        _preset("dpo", "zephyr-7b-base", {"beta": 0.01}, 5e-7, _ZEPHYR, **_SHORT),
        *(
            _preset("dpo", model, {"beta": 0.01}, learning_rate, _SIMPO_DPO)
            for model, learning_rate in (
                ("mistral-7b-base", 5e-7),
                ("mistral-7b-instruct", 5e-7),
                ("llama-3-8b-base", 5e-7),
                ("llama-3-8b-instruct", 7e-7),
                ("llama-3-8b-instruct-armorm", 3e-7),
                ("gemma-2-9b-instruct", 5e-7),
            )
        ),
        _alpha_dpo("mistral-7b-instruct", 0.05, 2.5, 0.15, 6e-7),
        _alpha_dpo("llama-3-8b-instruct", 0.2, 2.5, 0.6, 1e-6),
        _alpha_dpo("llama-3-8b-instruct-armorm", 0.2, 10.0, 0.4, 1e-6),
        _alpha_dpo("gemma-2-9b-instruct", 0.05, 10.0, 0.4, 8e-7),
        _preset("simper", "mistral-7b-base", {}, 3e-7, _SIMPER, **_SHORT),
        _preset("simper", "llama-3-8b-instruct", {}, 1e-6, _SIMPER),
        _preset("cal_dpo", "zephyr-7b-base", {"beta": 0.002}, 5e-7, _CAL_DPO, **_SHORT),
        _preset("wpo", "mistral-7b-base", {"beta": 0.01}, 5e-7, _WPO, **_SHORT),
        _preset("mpo", "trl", {"beta": 0.1}, None, _MPO),
        _preset("rpo", "regularized", {"beta": 0.01, "likelihood_weight": 0.005}, None, _RPO),
    )
}


def preset(name: str) -> Preset:
    """The published setting of that name.

    Examples
    --------
    >>> preset("alphapo/mistral-7b-instruct").objective.parameters
    {'alpha': 0.25, 'beta': 2.5, 'gamma': 0.25}
    """
    if name not in PRESETS:
        raise InputError(nearest("preset", name, PRESETS))
    return PRESETS[name]


def preset_names() -> list[str]:
    """All names that `preset` knows."""
    return sorted(PRESETS)

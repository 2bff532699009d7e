"""The loss names of other trainers: ``objective("exo_pair")``, and a whole configuration: `from_config`.

TRL's DPOConfig (`loss_type`), its CPOConfig, LLaMA-Factory (`pref_loss`), OpenRLHF and Axolotl (`rl`) are understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rewardshape.errors import InputError
from rewardshape.theory._check import nearest
from rewardshape.theory.objectives.zoo import ZOO


@dataclass(frozen=True)
class Alias:
    """What another trainer's name for a loss means here."""

    objective: str
    parameters: dict[str, Any] = field(default_factory=dict)


ALIASES: dict[str, Alias] = {
    "sigmoid": Alias("dpo"),
    "sigmoid_norm": Alias("ln_dpo"),
    "hinge": Alias("slic"),
    "exo_pair": Alias("exo"),
    "nca_pair": Alias("nca"),
    "robust": Alias("robust_dpo"),
    "bco_pair": Alias("bco"),
    "sppo_hard": Alias("sppo"),
    "aot_pair": Alias("aot_unpaired"),  # TRL's name of it before 1.0
    "kto_pair": Alias("kto"),
}

# Where a configuration states the loss, and how it calls what we call otherwise.
_LOSS = ("loss_type", "pref_loss", "rl", "dpo_loss_type")
_RENAMED = {
    "pref_beta": "beta",
    "rl_beta": "beta",
    "dpo_beta": "beta",
    "simpo_gamma": "gamma",
    "dpo_label_smoothing": "label_smoothing",
    "dpo_use_weighting": "use_weighting",
    "discopop_tau": "tau",
    "ld_alpha": "tail",
    "ref_model_mixup_alpha": "mixing",
    "ref_model_sync_steps": "every",
    "kto_chosen_weight": "desirable_weight",
    "kto_rejected_weight": "undesirable_weight",
    "kto_desirable_weight": "desirable_weight",
    "kto_undesirable_weight": "undesirable_weight",
    "orpo_alpha": "odds_weight",
}
_LIKELIHOOD = ("rpo_alpha", "cpo_alpha", "pref_ftx", "nll_loss_coef", "sft_weight")
_DIVERGENCES = {"js_divergence": "jensen_shannon", "alpha_divergence": "alpha"}


def translate(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The terms, dicts of weight, name and parameters, that a trainer's configuration asks for.

    DPO with a label_smoothing is conservative DPO, as in LLaMA-Factory and in TRL before 1.0; today's TRL has it act
    on the robust loss, EXO and AOT only.

    What says nothing of the loss (learning rate, paths, …) is passed over.
    """
    losses = _losses(config)
    weights = config.get("loss_weights") or config.get("dpo_loss_weights") or [1.0] * len(losses)
    if len(weights) != len(losses):
        raise InputError(f"loss_weights has {len(weights)} entries for {len(losses)} losses")
    given = {_RENAMED.get(key, key): value for key, value in config.items() if value is not None}
    if config.get("ipo"):
        given["per_token"] = False  # OpenRLHF compares sums, TRL means
    terms = [
        {"weight": float(weight)} | _term(loss, given) for loss, weight in zip(losses, weights, strict=True)
    ]
    likelihood = next((float(given[key]) for key in _LIKELIHOOD if given.get(key)), 0.0)
    return [*terms, *([{"weight": likelihood, "name": "sft", "parameters": {}}] if likelihood else [])]


def _losses(config: Mapping[str, Any]) -> list[str]:
    """The names of the losses, as the trainer has them."""
    stated = [key for key in _LOSS if config.get(key) is not None]
    if stated == ["rl", "dpo_loss_type"] and config["rl"] == "dpo":
        stated = ["dpo_loss_type"]  # Axolotl's method, and which loss of it
    if len(stated) > 1:
        raise InputError(f"the configuration states its loss twice: {', '.join(stated)}")
    losses = config[stated[0]] if stated else "sigmoid"
    losses = [losses] if isinstance(losses, str) else list(losses)
    losses = ["sigmoid" if loss == "dpo" else loss for loss in losses]  # Axolotl's name, and TRL's
    if config.get("reference_free"):
        raise InputError(
            "reference_free: DPO without its reference has no name here; compose(score='logp_sum', …) is it"
        )
    if config.get("gamma_beta_ratio") is not None and losses == ["hinge"]:
        raise InputError(
            "loss_type hinge: SimPO's has no name here; compose(score='logp_mean', link='hinge', …) is it"
        )
    if losses == ["sigmoid"] and config.get("gamma_beta_ratio") is not None:
        return ["simpo"]  # SimPO's repository, whose loss_type is the link
    if losses == ["sigmoid"] and config.get("cpo_alpha") is not None:
        return ["cpo"]  # TRL's CPOConfig, which alone has both
    if losses == ["sigmoid"] and config.get("ipo"):
        return ["ipo"]
    if losses == ["sigmoid"] and config.get("dpo_norm_loss"):
        return ["sigmoid_norm"]  # Axolotl's, by the mean over tokens
    return losses


def acting_on_dpo(config: Mapping[str, Any]) -> list[str]:
    """The options, each of which makes another objective of DPO: of several at once no objective here is the whole."""
    if _losses(config) != ["sigmoid"]:
        return []
    smoothed = any(config.get(name) for name in ("label_smoothing", "dpo_label_smoothing"))
    return [*acting_on_any(config), *(["label_smoothing"] if smoothed else [])]


def acting_on_any(config: Mapping[str, Any]) -> list[str]:
    """The options that act in TRL on whichever loss is stated: of another than DPO's no objective here is both."""
    acts = {
        "f_divergence_type": (config.get("f_divergence_type") or "reverse_kl") != "reverse_kl",
        "sync_ref_model": config.get("sync_ref_model"),
        "use_weighting": config.get("use_weighting") or config.get("dpo_use_weighting"),
        "ld_alpha": config.get("ld_alpha") is not None,
    }
    return [name for name, does in acts.items() if does]


def require_names(config: Mapping[str, Any]) -> None:
    """Refuse a configuration of which no objective here is the whole.

    Raises
    ------
    InputError
        With the options that stand against each other.
    """
    if len(acting := acting_on_dpo(config)) > 1:
        raise InputError(
            f"{' and '.join(acting)}: no objective here is DPO with both; make one with register()"
        )
    others = [loss for loss in _losses(config) if loss not in ("sigmoid", "sft")]
    if others and (acting := acting_on_any(config)):
        raise InputError(
            f"{' and '.join(acting)}: no objective here is {others[0]} with it; make one with register()"
        )
    if config.get("pref_bco_weight"):
        raise InputError(
            "pref_bco_weight: no objective here is the loss with it; a weighted sum with objective('bco') is"
        )


def _term(loss: str, given: Mapping[str, Any]) -> dict[str, Any]:
    declared = {entry.name: entry for entry in ZOO}
    alias = ALIASES.get(loss, Alias(loss))
    name, parameters = alias.objective, dict(alias.parameters)
    if name not in declared:
        raise InputError(nearest("loss", loss, [*declared, *ALIASES]))
    if name == "simpo" and given.get("alpha"):  # TRL's CPOConfig has AlphaPO's α so
        name = "alphapo"
    if name == "dpo":
        name, parameters = _kind_of_dpo(given)
    if name == "exo" and not given.get("label_smoothing"):
        given = {key: value for key, value in given.items() if key != "label_smoothing"}
    if name == "orpo" and "beta" in given and "odds_weight" not in given:
        parameters["odds_weight"] = given["beta"]
    if name in ("cpo", "rpo") and any(key in given for key in _LIKELIHOOD):
        parameters["likelihood_weight"] = 0.0  # which is a term of its own here, if it is not 0
    accepted = declared[name].accepted
    named = {key: given[key] for key in accepted if key in given and key not in parameters}
    if "gamma" in named and "gamma_beta_ratio" in named:
        raise InputError("the configuration states simpo_gamma and gamma_beta_ratio; keep one")
    return {"name": name, "parameters": named | parameters}


def _kind_of_dpo(given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """DPO by the options that make another objective of it."""
    divergence = given.get("f_divergence_type", "reverse_kl")
    if divergence != "reverse_kl":
        ours: dict[str, Any] = {"divergence": _DIVERGENCES.get(divergence, divergence)}
        if ours["divergence"] == "alpha":
            ours["alpha"] = 1.0 - float(given.get("f_alpha_divergence_coef", 0.5))
        return "fdpo", ours
    if given.get("sync_ref_model"):
        return "tr_dpo", {}
    if given.get("use_weighting"):
        return "wpo", {"clip": "none"}
    if given.get("tail") is not None:
        return "ld_dpo", {}
    return ("cdpo", {}) if given.get("label_smoothing") else ("dpo", {})

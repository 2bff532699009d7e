"""What a trainer's arguments say of the objective that it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from rewardshape.errors import InputError
from rewardshape.theory import Objective, Responses, from_config, objective
from rewardshape.theory.objectives.aliases import acting_on_any, acting_on_dpo

# What a DPOConfig or CPOConfig says of its loss.
OF_THE_LOSS = (
    "loss_type", "loss_weights", "beta", "label_smoothing", "f_divergence_type", "f_alpha_divergence_coef",
    "use_weighting", "ld_alpha", "discopop_tau", "simpo_gamma", "alpha", "cpo_alpha", "rpo_alpha",
)  # fmt: skip
# Objectives whose margin before γ is what TRL logs as rewards/margins: β times the difference of the log-ratios, and
# with CPOTrainer that of the (transformed) log-probs.
SAME_MARGIN = {"dpo", "cdpo", "robust_dpo", "simpo", "alphapo"}


@dataclass(frozen=True)
class Stated:
    """The objective of a trainer.

    Attributes
    ----------
    objective : Objective or None
        None where the arguments do not tell.
    is_loss : bool
        Whether it is the very loss that the trainer minimises. KTO's is of single responses with a reference point that
        other batches give: ours on pairs only tells margins.
    """

    objective: Objective | None
    is_loss: bool


def stated(arguments: Any) -> Stated:
    """The objective that the arguments of a trainer of TRL, or of one built on it, ask for.

    Raises
    ------
    InputError
        A loss that is not known here.
    """
    kinds = [kind.__name__ for kind in type(arguments).__mro__]
    if "KTOConfig" in kinds:
        if getattr(arguments, "loss_type", "kto") == "apo_zero_unpaired":
            return Stated(objective("apo_zero", beta=arguments.beta), is_loss=False)
        weights = {name: getattr(arguments, name) for name in ("desirable_weight", "undesirable_weight")}
        return Stated(objective("kto", beta=arguments.beta, **weights), is_loss=False)
    if "ORPOConfig" in kinds:
        # Its likelihood term is over prompt and response in TRL, over the response in ours
        return Stated(objective("orpo", odds_weight=arguments.beta), is_loss=False)
    if "CPOConfig" in kinds:
        return _of_cpo(_of_the_loss(arguments))
    if "DPOConfig" in kinds:
        found = _of_the_loss(arguments)
        if _label_smoothing_is_of_robust_losses(arguments):
            losses = found["loss_type"] if isinstance(found["loss_type"], list) else [found["loss_type"]]
            smoothed = {"robust", "exo_pair", "aot", "aot_pair", "aot_unpaired"} & set(losses)
            if not smoothed:
                found.pop("label_smoothing", None)
            elif found.get("label_smoothing") and "sigmoid" in losses:  # which it leaves as it is
                return Stated(None, is_loss=False)
        if len(acting_on_dpo(found)) > 1:
            return Stated(None, is_loss=False)
        moves = bool(getattr(arguments, "sync_ref_model", False))
        others = () if found["loss_type"] in ("sigmoid", ["sigmoid"]) else acting_on_any(found)
        made = from_config({name: value for name, value in found.items() if name not in others})
        return Stated(made, is_loss=not moves and _says_all(made, found))
    return Stated(None, is_loss="SFTConfig" not in kinds)


def _of_the_loss(arguments: Any) -> dict[str, Any]:
    found = {name: getattr(arguments, name, None) for name in OF_THE_LOSS}
    return {name: getattr(value, "value", value) for name, value in found.items() if value is not None}


def _says_all(made: Objective, found: Mapping[str, Any]) -> bool:
    """Whether nothing acts on the loss beyond the objective: TRL lets each of these act on whichever loss it has."""
    acting = {
        "fdpo": found.get("f_divergence_type", "reverse_kl") != "reverse_kl",
        "wpo": bool(found.get("use_weighting")),
        "ld_dpo": found.get("ld_alpha") is not None,
    }
    return {name for name, acts in acting.items() if acts} <= {made.name}


def _of_cpo(found: dict[str, Any]) -> Stated:
    loss = found.pop("loss_type")
    if loss not in ("simpo", "sigmoid"):  # without a reference, which no published objective is
        return Stated(None, is_loss=False)
    if found.get("label_smoothing") or (loss == "sigmoid" and found.get("alpha")):
        return Stated(None, is_loss=False)
    return Stated(from_config({"loss_type": "cpo" if loss == "sigmoid" else loss, **found}), is_loss=True)


def _label_smoothing_is_of_robust_losses(arguments: Any) -> bool:
    """Whether TRL is one that has no conservative DPO: since 1.0."""
    try:
        return int(metadata.version("trl").partition(".")[0]) >= 1
    except metadata.PackageNotFoundError:
        return False


def settled(given: Objective | None, arguments: Any) -> Stated:
    """The objective to measure by: the one given, if the trainer's arguments do not contradict it, else theirs.

    Raises
    ------
    InputError
        A contradiction; or neither says.
    """
    name = type(arguments).__name__
    found = stated(arguments)
    if given is None:
        if found.objective is None:
            raise InputError(
                f"objective: {name} does not say what is optimised; give rewardshape.objective(NAME, …)"
            )
        return found
    if found.objective is None or same(given, found.objective):
        return Stated(given, found.is_loss)
    raise InputError(
        f"objective: {spelled(given)}, and {name} trains {spelled(found.objective)}; leave the objective "
        "out, or let the two agree"
    )


def spelled(made: Objective) -> str:
    """An objective for people, as ``dpo(beta=0.1)``."""
    return f"{made.name}({', '.join(f'{name}={value}' for name, value in made.parameters.items())})"


def same(one: Objective, other: Objective) -> bool:
    """Whether two objectives give the same loss, whatever they call themselves: tried on pairs."""
    if (one.name, one.parameters) == (other.name, other.parameters):
        return True
    if not (one.sums_suffice and other.sums_suffice):
        return False
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 40, size=(2, 16)).astype(float)
    sums, references = -lengths * rng.uniform(0.2, 2.0, size=(2, 2, 16))
    pair = [Responses(sums[side], lengths[side], references[side]) for side in (0, 1)]
    return bool(np.allclose(one.pair_loss(*pair), other.pair_loss(*pair), rtol=1e-9, atol=1e-12))


def trainers_margin(made: Objective, logged: float) -> float | None:
    """The margin of the objective, γ subtracted, from TRL's ``rewards/margins``; None where the two differ by more."""
    first = made.terms[0][1] if getattr(made, "name", "") == "sum" else made  # type: ignore[attr-defined]
    if first.name not in SAME_MARGIN:
        return None
    return logged - float(first.parameters.get("gamma") or 0.0)

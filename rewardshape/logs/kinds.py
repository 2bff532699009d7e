"""What was trained, as far as the columns of a log show it: preference pairs, or something else.

A verdict on chosen and rejected responses is for preference logs only. The other kinds are known by the series that
their trainers write and preference trainers do not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

from rewardshape.logs.names import meaning
from rewardshape.numbers import significant

Kind = Literal["preference", "grpo", "reward model", "classifier", "sft", "unknown"]

PREFERENCE_SERIES = {
    "reward_chosen", "reward_rejected", "margin", "logp_chosen", "logp_rejected", "log_odds_ratio", "log_odds_chosen",
}  # fmt: skip
PREFERENCE_LOSSES = {
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "bco", "kto", "kto_pair",
    "apo_zero", "apo_down", "apo_zero_unpaired", "sppo_hard", "aot", "aot_pair", "aot_unpaired", "discopop", "simpo",
    "alphapo", "orpo", "cpo", "dpo", "slic",
}  # fmt: skip
# The first loss of every logistic preference loss with a reference is ln 2; trainers average it over a few batches.
NEAR_LN2 = 0.03


class Signs(NamedTuple):
    """A kind of training: its name for people, and the pattern of a column that only such a training has."""

    kind: Kind
    phrase: str
    column: re.Pattern[str]


def _columns(*patterns: str) -> re.Pattern[str]:
    return re.compile(r"^(?:(?:train|eval|val|test)[/_. ])?(?:" + "|".join(patterns) + ")$", re.IGNORECASE)


# In order of precedence: the first kind of which a column is present.
KINDS = (
    Signs(
        "preference",
        "preference optimisation",
        _columns(
            r".*(?:chosen|rejected).*", r"rewards[/_ ]accurac(?:y|ies)",
            r"(?:dpo|simpo|orpo|cpo|kto|ipo|preference)[/_ ]loss",
        ),
    ),
    Signs(
        "grpo",
        "reinforcement learning from rewards (GRPO, PPO)",
        _columns(
            r"reward[_/]std", r"frac_reward_zero_std", r"rewards/.+/(?:mean|std)", r"completions?[/_].+",
            r"clip_ratio.*",
            r"objective/(?:kl|rlhf_reward|scores).*", r"policy/(?:approxkl|clipfrac|entropy)_avg", r"ppo/.+",
            r"(?:actor|critic)/.+", r"(?:policy|actor|pg|value)_loss", r"advantages?(?:[/_].+)?", r"response_length/.+",
            r"act_lr", r"glen", r"tlen",
        ),
    ),
    Signs("reward model", "a reward model", _columns(r"(?:min|mean|max)_reward", r"reward_mean")),
    Signs(
        "classifier",
        "a classifier",
        _columns(
            r"(?:\w+_)?f1(?:_\w+)?", r"(?:\w+_)?precision(?:_\w+)?", r"(?:\w+_)?recall(?:_\w+)?", r"(?:roc_?)?auc",
            r"matthews_correlation", r"mcc", r"pearson\w*", r"spearman\w*", r"top_?\d_accuracy",
        ),
    ),
    Signs(
        "sft",
        "supervised fine-tuning or pre-training",
        _columns(
            r"mean_token_accuracy", r"token_acc(?:uracy)?", r"perplexity", r"ppl", r"bits_per_\w+", r"rouge\w*",
            r"bleu\w*", r"ce_loss", r"lm_loss", r"gpt_loss", r"num_tokens", r"entropy", r"input_tokens_seen",
            r"tokens_per_\w+",
        ),
    ),
)  # fmt: skip
PHRASES: dict[Kind, str] = {signs.kind: signs.phrase for signs in KINDS} | {
    "unknown": "supervised fine-tuning or another training without pairs"
}
MOST_SIGNS = 3  # named to the user


def is_sign(key: str) -> bool:
    """Whether a column tells what was trained."""
    return any(signs.column.match(key) for signs in KINDS)


def kind_of(
    keys: Collection[str], first_loss: float | None, settings: Mapping[str, Any]
) -> tuple[Kind, tuple[str, ...]]:
    """The kind of training that a log with these numeric columns is of, and the columns that show it.

    Parameters
    ----------
    keys : collection of str
        The columns with numbers, as the log spells them.
    first_loss : float or None
        The first training loss.
    settings : mapping
        What the log states about itself.

    Examples
    --------
    >>> kind_of(["loss", "mean_token_accuracy"], 1.9, {})
    ('sft', ('mean_token_accuracy',))
    >>> kind_of(["loss"], 0.6931, {})[0]
    'preference'
    """
    preference = tuple(key for key in keys if meaning(key)[1] in PREFERENCE_SERIES)
    rewards_of_a_model = [key for key in keys if _signs("reward model").match(key)]
    if rewards_of_a_model and not any(str(meaning(key)[1]).startswith("logp") for key in preference):
        return "reward model", tuple(rewards_of_a_model)[:MOST_SIGNS]
    if preference:
        return "preference", preference[:MOST_SIGNS]
    for signs in KINDS:
        if found := tuple(key for key in keys if signs.column.match(key)):
            return signs.kind, found[:MOST_SIGNS]
    if (
        "current_steps" in keys and "accuracy" in keys
    ):  # LLaMA-Factory logs it when it trains on pairs, and then only
        return "preference", ("accuracy",)
    at_ln2 = first_loss is not None and abs(first_loss - math.log(2)) <= NEAR_LN2
    if at_ln2 or "beta" in settings or settings.get("loss_type") in PREFERENCE_LOSSES:
        return "preference", ("loss",)
    accuracy = tuple(key for key in keys if meaning(key) == ("eval", "accuracy"))
    begins = (
        f"only a loss, which begins at {significant(first_loss)}" if first_loss is not None else "only a loss"
    )
    return ("classifier", accuracy) if accuracy else ("unknown", (begins,))


def _signs(kind: Kind) -> re.Pattern[str]:
    return next(signs.column for signs in KINDS if signs.kind == kind)

"""What a column of somebody else's log means: its split, its series, its number.

Trainers spell one quantity in many ways (``rewards/chosen``, ``eval_rewards/chosen``, ``Rewards/chosen``,
``rewards_train/chosen``, ``chosen_reward``, ``Val reward margins``). A key is read as a set of words, so that order,
case, separators and plurals do not matter; a key with a word that is not understood is left alone.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

# The series that the diagnosis understands, with the names under which TRL users know them.
SERIES = {
    "loss": "loss",
    "reward_chosen": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "logp_chosen": "logps/chosen",
    "logp_rejected": "logps/rejected",
    "ref_logp_chosen": "ref_logps/chosen",
    "ref_logp_rejected": "ref_logps/rejected",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "kl": "kl",
    "nll_loss": "nll_loss",
    "log_odds_ratio": "log_odds_ratio",
    "log_odds_chosen": "log_odds_chosen",
    "logp_greedy": "argmax_prob_logits",
}
# A record or a table is a training log when it holds at least one of these.
TELLING = {"loss", "reward_chosen", "reward_rejected", "margin", "accuracy", "logp_chosen", "logp_rejected"}

_OBJECTIVES = ("dpo", "simpo", "cpo", "orpo", "kto", "ipo", "total")
_WORDS_OF_SERIES: dict[frozenset[str], str] = {
    frozenset(words.split()): series
    for series, spellings in {
        "loss": ["loss", *(f"{name} loss" for name in _OBJECTIVES)],
        "reward_chosen": ["reward chosen"],
        "reward_rejected": ["reward rejected"],
        "margin": ["margin", "reward margin"],
        "accuracy": ["accuracy", "reward accuracy", "preference accuracy", "pair accuracy"],
        "logp_chosen": ["logp chosen"],
        "logp_rejected": ["logp rejected"],
        "ref_logp_chosen": ["ref logp chosen"],
        "ref_logp_rejected": ["ref logp rejected"],
        "grad_norm": ["grad norm"],
        "learning_rate": ["learning rate"],
        "kl": ["kl"],
        "nll_loss": ["nll loss"],
        "log_odds_ratio": ["log odds ratio"],
        "log_odds_chosen": ["log odds chosen"],
        "logp_greedy": ["argmax prob logits"],
        "step": ["step", "global step", "current step", "counter update"],
        "examples": ["example", "counter example"],
        "epoch": ["epoch"],
    }.items()
    for words in spellings
}
_SAME = {
    "rewards": "reward", "margins": "margin", "accuracies": "accuracy", "acc": "accuracy", "losses": "loss",
    "logps": "logp", "logprob": "logp", "logprobs": "logp", "steps": "step", "iter": "step", "iteration": "step",
    "it": "step", "updates": "update", "examples": "example", "counters": "counter", "epochs": "epoch", "ep": "epoch",
    "reject": "rejected", "rejects": "rejected", "loser": "rejected", "winner": "chosen", "gradient": "grad",
    "lr": "learning rate", "val": "eval", "valid": "eval", "validation": "eval", "test": "eval", "dev": "eval",
    "evaluation": "eval", "training": "train",
    "reference": "ref",
}  # fmt: skip
_NEUTRAL = {"mean", "avg", "average", "policy", "actor", "final", "trainer"}
_PROBE_KEY = re.compile(r"^(?:logps|rewards)_eval_prob_(?:train|test)/(.+)$")
_EVAL_SET_KEY = re.compile(r"^eval[_/](.+?)_((?:nll_)?loss|(?:rewards|logps)/\w+)$")
# Words before `loss` and the like that say which loss it is, not of which evaluation set
_NOT_A_SET = {
    *_OBJECTIVES,
    *_NEUTRAL,
    "nll",
    "sft",
    "kl",
    "preference",
    "ref",
    "ce",
    "lm",
    "aux",
    "chosen",
    "rejected",
}


@lru_cache(maxsize=4096)
def meaning(key: str) -> tuple[str | None, str | None]:
    """The split and the series that a key names; None where it names none.

    Neither the order of its words nor their case matters.

    Examples
    --------
    >>> meaning("eval_rewards/chosen")
    ('eval', 'reward_chosen')
    >>> meaning("Training Loss"), meaning("rewards / margins"), meaning("logits/chosen")
    (('train', 'loss'), (None, 'margin'), (None, None))
    """
    key = str(key).strip().strip("*`\"'").lower()
    if probe := _PROBE_KEY.match(key):  # the learning-dynamics code: fixed probe responses of many kinds
        name = probe.group(1)
        return "eval", f"logp_{name}" if key.startswith("logps") else f"reward_{name}"
    if (named := _EVAL_SET_KEY.match(key)) and named.group(1) not in _NOT_A_SET:
        return f"eval:{named.group(1)}", meaning(named.group(2))[1]
    text = re.sub(r"log[\s_\-]?probs?|log[\s_\-]?p\b", "logp", key)
    words = [word for raw in re.split(r"[^a-z0-9]+", text) for word in _SAME.get(raw, raw).split() if word]
    split = next((word for word in words if word in ("eval", "train")), None)
    rest = frozenset(word for word in words if word not in ("eval", "train") and word not in _NEUTRAL)
    return split, _WORDS_OF_SERIES.get(rest)


_NUMBER = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
_WRAPPED = re.compile(r"(?:tensor|(?:np|numpy)\.\w+|Array)\(\s*\[?\s*([^,\])\s]+)")
_NONFINITE = {
    "nan": math.nan,
    "inf": math.inf,
    "infinity": math.inf,
    "-inf": -math.inf,
    "-infinity": -math.inf,
}


def number(value: Any, *, decimal_comma: bool = False) -> float | None:
    """The number in a cell: quoted, bold, in per cent, inside ``tensor(…)`` or ``np.float64(…)``; None for no number.

    NaN and infinity count as numbers, since a log that says NaN says something; an empty cell does not.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _as_float(value)
    text = str(value).strip()
    if _NUMBER.match(text):  # as nearly all are
        return float(text) if not decimal_comma else _dressed(text, decimal_comma)
    return _dressed(text, decimal_comma)


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf if value > 0 else -math.inf


def _dressed(text: str, decimal_comma: bool) -> float | None:
    text = text.strip().strip("*`\"' ").replace("−", "-")
    if wrapped := _WRAPPED.match(text):
        text = wrapped.group(1)
    if text.lower().lstrip("+") in _NONFINITE:
        return _NONFINITE[text.lower().lstrip("+")]
    scale = 0.01 if text.endswith("%") else 1.0
    text = re.split(r"±|\+/-", text.rstrip("% "))[0].strip()
    if decimal_comma:
        text = text.replace(".", "").replace(",", ".")
    elif re.match(r"^[-+]?\d{1,3}(,\d{3})+(\.\d+)?$", text):
        text = text.replace(",", "")
    return scale * float(text) if _NUMBER.match(text) else None


def parted(*names: str) -> str:
    """A file, a table in it and a run in that as one name; empty where all are."""
    return " · ".join(filter(None, names))

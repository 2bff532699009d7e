"""What a log states about its own run: β, γ and the loss."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from rewardshape.logs.names import number

_NAMES = {
    "beta": "beta", "β": "beta", "reference_policy_kl_penalty": "beta", "gamma": "gamma", "γ": "gamma",
    "gamma_beta_ratio": "gamma_beta_ratio", "loss_type": "loss_type", "pref_loss": "loss_type",
}  # fmt: skip
# `beta=0.1`, `"beta": 0.1`, `| `beta` | 0.1 |`, `**Beta (β):** 0.1`, `--dpo.beta 0.1`: on one line, a sign between
_STATED = re.compile(
    r"""(?<![\w.])[`'"*]{0,3}(?:(?:loss|dpo|simpo|kto|pref|algorithm|actor|train|trainer|args|config)[._]){0,2}"""
    r"""(?P<name>beta|β|reference_policy_kl_penalty|gamma_beta_ratio|gamma|γ|loss_type|pref_loss)(?![\w₀-₉])"""
    r"""[`'"*]{0,3}[ \t]*(?:\([βγa-z]{1,8}\))?[`'"* \t]{0,12}[:=|│┃][`'"* \t|│┃:=]{0,12}"""
    r"""(?:(?P<value>\d[\d.eE+-]*|[a-z_]+)\b|\[[ '"]{0,2}(?P<only>[a-z_]+)[ '"]{0,2}\])""",
    re.IGNORECASE,
)
NEAR = 100  # characters on either side of a name that may belong to its statement
_FLAG = re.compile(r"--([a-z_.]+) (?=\d)")


def stated_settings(pieces: Iterable[str]) -> dict[str, Any]:
    """Beta, gamma and the loss type where a text states them, and states one value only.

    Examples
    --------
    >>> stated_settings(["**Beta (β):** 0.1", "--loss_type=ipo"])
    {'beta': 0.1, 'loss_type': 'ipo'}
    """
    found: dict[str, set[Any]] = {}
    for line in _lines_with_a_name(pieces):
        for stated in _STATED.finditer(_FLAG.sub(r" \1=", line)):
            said = stated["value"] or stated["only"]  # the one entry of a list
            name, value = _NAMES[stated["name"].lower()], number(said.rstrip(".-+"))
            if (value is None) == (name == "loss_type"):
                found.setdefault(name, set()).add(said.lower() if value is None else value)
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def _lines_with_a_name(pieces: Iterable[str]) -> Iterator[str]:
    """The lines, or what is near in a long line, in which one of the names stands: these are looked at more closely."""
    for piece in pieces:
        lowered = piece.lower()
        if len(lowered) != len(piece):  # a letter that has no lower case of its own length
            lowered = piece
        end = 0
        for at in sorted(_found(lowered)):
            if at < end:
                continue
            newline = piece.find("\n", at)
            start = max(piece.rfind("\n", 0, at) + 1, at - NEAR)
            end = min(newline if newline >= 0 else len(piece), at + 2 * NEAR)
            yield piece[start : min(end + NEAR, newline if newline >= 0 else len(piece))]


def _found(lowered: str) -> Iterator[int]:
    for name in _NAMES:
        at = lowered.find(name)
        while at >= 0:
            yield at
            at = lowered.find(name, at + 1)

r"""Identities that the numbers of a log must obey, and what it means when they do not.

With the logistic link the loss of a pair is :math:`\ln(1+e^{-(m-\gamma)})`, convex in its margin m, so by Jensen's
inequality the mean loss is at least the loss at the mean margin; where the margins hardly differ between pairs the
two are equal. Before the first update every margin is 0 with a reference, and the loss is ln 2 (γ = 0).
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.numbers import number, significant

# Trainers round to four decimals and average chosen, rejected and margin over the same rows.
IDENTITY_TOLERANCE = 0.02
# |reward| below which training has not moved anything yet: e^0.05 changes a preference by about one per cent.
START_REWARD = 0.05
START_LOSS_TOLERANCE = 0.03
# Every row bounds γ from above, most tightly where margins differ least; batches scatter, so not quite the least bound.
LOW_SHARE = 0.1
# The loss is straight in the margin while it has fallen little; the fit counts only where the points lie on a line.
SMALL_FALL, STRAIGHT = 0.05, 0.95
# How far the factor from margin to loss may be from 1 before the margins cannot be in reward units.
SCALE_LIMIT = 0.5
SIDES = ("chosen", "rejected")
# What logs call the logistic loss on pairs with a reference.
LOGISTIC = ("sigmoid", "dpo", "logistic")
START_LOSSES = {1.0: "the hinge loss", 0.5: "the KTO loss"}
# Accumulation steps or devices over which a loss may be summed, and how near to a whole number of ln 2 it then starts.
SUMMED_OVER, SUMMED_TOLERANCE = (2, 4, 8, 16, 32, 64), 0.01


def sanity_checks(table: pd.DataFrame, *, reference_free: bool | None, beta: float | None) -> list[str]:
    """Sentences about identities that the rows of one split break; empty where all hold.

    Examples
    --------
    >>> rows = pd.DataFrame({"reward_chosen": [0.5], "reward_rejected": [0.1], "margin": [0.9]})
    >>> sanity_checks(rows, reference_free=False, beta=None)[0][:26]
    'rewards/margins is not cho'
    """
    if "kl" in table:  # KTO: unpaired examples and another loss, to which none of this applies
        return []
    checks = [
        _margin_is_difference(table),
        _first_loss(table) if reference_free is not True else None,
        _margins_scaled(table) if reference_free is not True else None,
        _loss_bound(table) if reference_free is not True else None,
        target_margin(table, beta) if reference_free else None,
    ]
    return [check for check in checks if check]


def _columns(table: pd.DataFrame, *names: str) -> dict[str, np.ndarray]:
    """These series of the rows that hold all of them; empty where one is not logged."""
    rows = table[list(names)].dropna() if set(names) <= set(table) else pd.DataFrame(columns=list(names))
    return {name: rows[name].to_numpy(float) for name in names}


def _margin_is_difference(table: pd.DataFrame) -> str | None:
    rows = _columns(table, "reward_chosen", "reward_rejected", "margin")
    if not len(rows["margin"]):
        return None
    gap = rows["margin"] - (rows["reward_chosen"] - rows["reward_rejected"])
    scale = np.maximum(1.0, np.abs(list(rows.values())).max(axis=0))
    broken = np.abs(gap) > IDENTITY_TOLERANCE * scale
    if broken.mean() <= 0.2:
        return None
    return (
        f"rewards/margins is not chosen minus rejected in {broken.sum()} of {len(broken)} rows (off by up to "
        f"{significant(np.abs(gap).max(), 2)}): chosen and rejected are averaged over different examples, or columns "
        "are swapped"
    )


def _first_loss(table: pd.DataFrame) -> str | None:
    """With a reference the first loss is ln 2; another constant tells the link, a multiple of it a wrong average."""
    rows = _columns(table, "loss", "reward_chosen", "reward_rejected")
    if not len(rows["loss"]):
        return None
    loss, *rewards = (float(values[0]) for values in rows.values())
    if max(map(abs, rewards)) > START_REWARD:
        return None
    expected = math.log(2)
    if abs(loss - float(np.logaddexp(0, rewards[1] - rewards[0]))) <= START_LOSS_TOLERANCE:
        return None
    times = loss / expected
    for many in SUMMED_OVER:
        if abs(times / many - 1) < SUMMED_TOLERANCE:
            return (
                f"the first loss is {number(loss)}, {many} × ln 2, with rewards still at 0: it is summed over {many} "
                f"accumulation steps or devices instead of averaged; read losses divided by {many}"
            )
    for value, link in START_LOSSES.items():
        if abs(loss - value) <= START_LOSS_TOLERANCE:
            return (
                f"the first loss is {number(loss)}, not ln 2 = 0.693, with rewards still at 0: this is {link}"
            )
    return (
        f"the first loss is {number(loss)}, not ln 2 = 0.693, with rewards still at 0: the loss is not plain DPO "
        "(another link, label smoothing, or an added likelihood term)"
    )


def effective_scale(table: pd.DataFrame) -> float | None:
    """The factor k with which loss = ln 2 − k·margin/2 holds while margins are small; 1 where they are rewards."""
    rows = _columns(table, "loss", "margin")
    small = np.abs(rows["loss"] - math.log(2)) < SMALL_FALL
    loss, margin = (values[small] for values in rows.values())
    if len(loss) < 4 or np.ptp(margin) == 0 or np.ptp(loss) == 0:
        return None
    if stats.pearsonr(margin, loss).statistic > -STRAIGHT:  # batches of few pairs scatter too much to tell
        return None
    return float(-2 * stats.linregress(margin, loss).slope)


def _margins_scaled(table: pd.DataFrame) -> str | None:
    scale = effective_scale(table)
    if scale is None or not 0 < scale < SCALE_LIMIT or table["margin"].max() < 0.5:
        return None
    return (
        f"the loss falls by only {significant(scale, 2)}/2 per unit of margin: the margins are log-ratios in nats, not "
        f"yet multiplied by β (which looks like about {significant(scale, 1)})"
    )


def _loss_bound(table: pd.DataFrame) -> str | None:
    rows = _columns(table, "loss", "margin")
    below = rows["loss"] < np.logaddexp(0, -rows["margin"]) - IDENTITY_TOLERANCE
    if not len(below) or below.mean() <= 0.2:
        return None
    return (
        f"the loss lies below ln(1 + e^-margin) in {below.sum()} of {len(below)} rows, which no logistic loss can: "
        "another loss is used (hinge, IPO, KTO), or loss and margin are not of the same rows"
    )


def _has_another_term(table: pd.DataFrame) -> bool:
    """Whether a likelihood term or log-odds (ORPO, CPO) stand beside the margin, so that the loss tells no γ."""
    likelihood = "nll_loss" in table and bool((table["nll_loss"].fillna(0) > 0).any())
    return likelihood or "log_odds_chosen" in table or "log_odds_ratio" in table


def loss_is_logistic(
    table: pd.DataFrame, stated: str | None = None, *, trained: pd.DataFrame | None = None
) -> bool:
    """Whether the loss of a run with a reference may be compared with ln 2, its value without training.

    Where rewards are about 0 in the first row, of `trained` or of the table itself, the loss there tells it. Else: a
    logistic loss lies above ln 2 by no more than the mean of −margin over the pairs that are out of order; by more
    than both rewards together it is taken for another loss (IPO's square, for one), whatever it is called.
    """
    if stated is not None and stated not in LOGISTIC:
        return False
    for start in (table, *(() if trained is None else (trained,))):
        first = _columns(start, "loss", "reward_chosen", "reward_rejected")
        if len(first["loss"]) and max(abs(first[f"reward_{side}"][0]) for side in SIDES) <= START_REWARD:
            plain = "kl" not in table and not _has_another_term(table)
            return plain and _first_loss(start) is None and _loss_bound(table) is None
    rows = _columns(table, "loss", "reward_chosen", "reward_rejected")
    both = np.abs(rows["reward_chosen"]) + np.abs(rows["reward_rejected"])
    above = rows["loss"] - math.log(2) > both + START_REWARD
    if len(above) and above.mean() > 0.2:
        return False
    return "kl" not in table and not _has_another_term(table) and _loss_bound(table) is None


def target_margin(table: pd.DataFrame, beta: float | None) -> str | None:
    """The target margin γ that a reference-free logistic loss implies, in both of its conventions."""
    if _has_another_term(table):
        return None
    rows = _columns(table, "loss", "margin")
    positive = rows["loss"] > 0
    loss, margin = (values[positive] for values in rows.values())
    if not len(loss):
        return None
    gamma = float(np.quantile(margin + loss + np.log(-np.expm1(-loss)), LOW_SHARE))
    if gamma < 0.1:
        return None
    ratio = f", that is γ/β = {number(gamma / beta, 2)}" if beta else ""
    return (
        f"the loss implies a target margin γ of at most {number(gamma, 2)} in reward units{ratio}: compare it with "
        "what you set, since some trainers take γ and some take γ/β"
    )

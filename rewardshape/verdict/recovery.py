r"""What a log does not say but implies: β, the reference's log-probabilities, whether there is a reference at all.

A trainer with a reference logs :math:`r = \beta\,(\ell - \ell_{ref})`, where :math:`\ell` is the mean log-probability
of a set of responses under the policy. On a FIXED set :math:`\ell_{ref}` is a constant, so :math:`\ell - r/\beta` is
one too: a straight line through the points :math:`(\ell, r)` has the slope β and meets r = 0 at the reference. On
training batches the set changes from row to row and no line fits. Without a reference, :math:`r = \beta\,\ell` in every
row, fixed set or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rewardshape.verdict.thresholds import FAR_FROM_ZERO, REFERENCE_FREE_LOSSES

# A line through real evaluation rows leaves only the rounding of the log (four decimals, or bfloat16's three digits):
# well under a tenth of the spread of the points. Changing batches leave most of the spread.
LINE_TOLERANCE = 0.1
# Reference-free rewards are β·logp to rounding: no ratio r/logp is further than this share from their middle. With a
# reference that would take policy and reference to move together. One row holds two ratios only, which can be close
# by chance, so there they must agree to four digits.
RATIO_TOLERANCE, RATIO_TOLERANCE_ONE_ROW = 0.02, 0.002
# Mean log-probabilities per token of a language model on ordinary text lie between 0 and -5 nats (a perplexity of 150
# at -5); a sum over a response of more than a few tokens lies below.
PER_TOKEN_LIMIT = -5.0


# Log-probabilities that differ by more between two evaluations of one set have moved, however they were rounded.
MOVED = 0.01


class Reference(NamedTuple):
    """What was recovered, each with its spread.

    `chosen` and `rejected` are the reference's mean log-probabilities in nats (sums or per token, as logged);
    `free` is True where there is no reference, None where the log cannot tell. `holds` says whether one β and one
    reference explain all rows: False means changing batches (or a reward that is not linear in the log-probability).
    """

    beta: float | None = None
    beta_spread: float | None = None
    chosen: float | None = None
    rejected: float | None = None
    spread: float | None = None
    free: bool | None = None
    holds: bool | None = None


def recover_reference(table: pd.DataFrame, *, beta: float | None = None) -> Reference:
    """Recover β and the reference from the rows of one split.

    Parameters
    ----------
    table : DataFrame
        Columns logp_chosen and reward_chosen, and logp_rejected and reward_rejected where there are.
    beta : float, optional
        Known β; then only the reference is sought.

    Examples
    --------
    >>> rows = pd.DataFrame({"logp_chosen": [-50.0, -52.0, -53.0], "reward_chosen": [0.1, -0.1, -0.2]})
    >>> found = recover_reference(rows)
    >>> round(found.beta, 6), round(found.chosen, 6), found.free
    (0.1, -51.0, False)
    """
    sides = {side: points for side in ("chosen", "rejected") if len((points := _points(table, side)).logp)}
    if "chosen" not in sides:
        return Reference(beta=beta)
    logp, reward = (np.concatenate(values) for values in zip(*sides.values(), strict=True))
    if beta is None and not reward.any() and max(np.ptp(points.logp) for points in sides.values()) > MOVED:
        return Reference(beta=0.0, free=False)  # whatever the log-probabilities did, the rewards are 0
    ratio = _common_ratio(logp, reward, one_row=len(sides["chosen"].logp) < 2)
    if ratio is not None and (beta is None or abs(beta / ratio - 1) <= RATIO_TOLERANCE):
        away = reward - ratio * logp
        spread = float(np.sqrt(away @ away / (logp @ logp)))
        return Reference(beta if beta is not None else ratio, spread, free=True, holds=True)
    return _line(sides, beta)


class Points(NamedTuple):
    """The rows that hold both the log-probability and the reward of a response."""

    logp: np.ndarray
    reward: np.ndarray


def _points(table: pd.DataFrame, side: str) -> Points:
    columns = [f"logp_{side}", f"reward_{side}"]
    rows = table[columns].dropna() if set(columns) <= set(table) else pd.DataFrame(columns=columns)
    return Points(*(rows[column].to_numpy(float) for column in columns))


def _common_ratio(logp: np.ndarray, reward: np.ndarray, *, one_row: bool) -> float | None:
    if len(logp) < 2 or np.any(logp == 0):
        return None
    ratios = reward / logp
    middle = float(np.median(ratios))
    tolerance = RATIO_TOLERANCE_ONE_ROW if one_row else RATIO_TOLERANCE
    return middle if middle > 0 and np.abs(ratios / middle - 1).max() <= tolerance else None


def _line(sides: Mapping[str, Points], known: float | None) -> Reference:
    """One slope for both responses, an intercept each: least squares of reward on log-probability."""
    logp, reward = (
        np.concatenate([value - value.mean() for value in values])
        for values in zip(*sides.values(), strict=True)
    )
    dof = len(logp) - len(sides) - 1
    variation = float(logp @ logp)
    if dof < 1 or variation == 0:
        return _with_known_beta(sides, known) if known else Reference()
    slope = known or float(
        logp @ reward / variation
    )  # a known one that the rows refute leaves most of them unsaid
    left = reward - slope * logp
    error = float(np.sqrt(left @ left / dof))
    # Of two evaluations one number alone can speak against a line, so that chance draws one twice as easily.
    tolerance = LINE_TOLERANCE / (2 if dof == 1 else 1)
    holds = slope > 0 and left @ left <= tolerance**2 * float(reward @ reward)
    if not holds:
        return Reference(beta=known, free=False, holds=False)
    found = _with_known_beta(sides, slope)
    return found._replace(beta_spread=error / variation**0.5, holds=True)


def _with_known_beta(sides: Mapping[str, Points], beta: float) -> Reference:
    constants = {side: points.logp - points.reward / beta for side, points in sides.items()}
    middles = {side: float(constant.mean()) for side, constant in constants.items()}
    spread = float(max(constant.std(ddof=1) if len(constant) > 1 else 0.0 for constant in constants.values()))
    return Reference(beta, None, middles["chosen"], middles.get("rejected"), spread, free=False)


def is_per_token(table: pd.DataFrame) -> bool | None:
    """Whether logged log-probabilities are per-token means, judged by their size; None where none are logged."""
    columns = [column for column in ("logp_chosen", "logp_rejected") if column in table]
    values = table[columns].to_numpy(float) if columns else np.array([])
    values = values[np.isfinite(values)]
    return bool(values.max() > PER_TOKEN_LIMIT) if values.size else None


def find_reference(
    evaluated: pd.DataFrame, trained: pd.DataFrame, beta: float | None, settings: dict[str, Any]
) -> tuple[Reference, str | None]:
    """β and the reference, from the evaluation rows or (without a reference) from the training rows, and β's source."""
    found = recover_reference(evaluated, beta=beta) if len(evaluated) else Reference()
    if not found.holds and has(trained, "logp_chosen", "reward_chosen"):
        # Batches can show that there is no reference; a line through a few of them would be chance
        batches = recover_reference(trained)
        found = batches if batches.free else found._replace(free=False)
    if found.free is None and _looks_free(evaluated, trained, settings):
        found = found._replace(free=True)
    if beta is not None:
        return found._replace(beta=beta), "given"
    if found.beta is not None:
        return found, "recovered"
    stated = settings.get("beta")
    return (found, None) if stated is None else (found._replace(beta=stated), "stated in the log")


def _looks_free(evaluated: pd.DataFrame, trained: pd.DataFrame, settings: dict[str, Any]) -> bool:
    """Without log-probabilities, signs that rewards are not measured from a reference.

    ORPO logs log-odds; the log may state the loss; or both rewards are far below 0 in the first row (log-probabilities
    are negative), much further than from each other.
    """
    if has(evaluated, "log_odds_chosen") or has(trained, "log_odds_chosen"):
        return True
    if settings.get("loss_type") in REFERENCE_FREE_LOSSES:
        return True
    if not has(trained, "reward_chosen", "reward_rejected"):
        return False
    first = trained[["reward_chosen", "reward_rejected"]].dropna().iloc[:1].to_numpy()
    return bool(first.size and first.max() < -FAR_FROM_ZERO and np.ptp(first) < np.abs(first).min() / 4)


def has(table: pd.DataFrame, *columns: str) -> bool:
    """Whether a table holds values in every one of these columns."""
    return all(column in table and table[column].notna().any() for column in columns)

"""Choosing α, β and γ: what each setting implies for given pairs, and which displaces the chosen response least."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rewardshape.errors import InputError
from rewardshape.theory._arrays import Array
from rewardshape.theory._check import number
from rewardshape.theory.dynamics import Gram, path, travelled
from rewardshape.theory.shapes import Alpha

_NODES = 65  # of the tabulated path of a pair; the displacement read off it is good to about a percent


class Suggestion(NamedTuple):
    """`table`, a DataFrame with one row for each setting, and `best`, the row to try first, as a dict."""

    table: Any
    best: dict[str, float]


def suggest(
    s_w: Array,
    s_l: Array,
    *,
    alpha: Array,
    beta: Array,
    gamma: Array | None = None,
    gamma_beta_ratio: Array | None = None,
    target_margin: float | None = None,
    target_gap: float | None = None,
    saturated_below: float,
    num_tokens: Array | None = None,
    gram: Gram | None = None,
    paths: int = 100,
) -> Suggestion:
    r"""What every setting of a grid implies for the AlphaPO loss on these pairs, and the one to try first.

    Parameters
    ----------
    s_w, s_l : array, shape (pairs,)
        Per-token log-probabilities of the chosen and rejected responses, nats per token.
    alpha, beta : float or 1-D array
        The grid is all combinations of α, β and γ.
    gamma, gamma_beta_ratio : float or 1-D array
        Exactly one of the two.
    target_margin, target_gap : float
        Exactly one of the two. A target margin z = r_w − r_l − γ is in each setting's own reward units (0: reach
        γ), which a larger β reaches sooner by definition. A target gap s_w − s_l, in nats per token, is the same
        for all settings: there α decides the displacement, β and γ decide who is still trained when it is reached.
    saturated_below : float
        A pair counts as saturated where its weights are below this fraction of β·φ′(s): σ(−z) below it.
    num_tokens : array, shape (pairs,), optional
        Lengths of the chosen responses; adds the displacement in nats.
    gram : Gram, optional
        Gram entries of the scores' gradients, one for all pairs or arrays of shape (pairs,). Without them there is
        no displacement, and `best` is the setting that leaves most pairs in reach and unsaturated.
    paths : int
        Pairs, evenly spaced in the order of their gaps, whose paths are followed for the displacement.

    Returns
    -------
    Suggestion
        Columns of the table: alpha, beta, gamma; ``saturated``, the share of pairs saturated now; ``out_of_reach``,
        the share that cannot have a margin of 0 whatever their scores become; ``needs_gain``, the share that cannot
        unless the chosen response gains probability (both 0 for unbounded rewards); ``reached``, the share that
        gets to the target: for a target margin those whose path gets there below probability 1 (without `gram`,
        those not out of reach), for a target gap those that are not saturated before it; ``displacement``, the mean
        change of s_w at the target by the path theorem, nats per token, over the pairs that get there; with lengths
        ``displacement_sum``, nats. `best` has the largest ``reached`` and among those the largest displacement.

    Examples
    --------
    >>> pairs = {"s_w": np.array([-2.0, -1.8]), "s_l": np.array([-2.0, -2.1])}
    >>> near = Gram(1.0, 1.1, 1.5)
    >>> suggestion = suggest(**pairs, alpha=[0.0, 0.5], beta=2.5, gamma_beta_ratio=0.3, target_margin=0.0,
    ...                      saturated_below=0.05, gram=near)
    >>> suggestion.best["alpha"]
    0.5
    """
    import pandas as pd

    s_w, s_l = (np.asarray(s, dtype=np.float64) for s in (s_w, s_l))
    if s_w.ndim != 1 or s_w.shape != s_l.shape or not s_w.size:
        raise InputError(
            f"s_w and s_l must be 1-D arrays over the same pairs, got shapes {s_w.shape}, {s_l.shape}"
        )
    if (gamma is None) == (gamma_beta_ratio is None):
        raise InputError("give gamma or gamma_beta_ratio, exactly one")
    if (target_margin is None) == (target_gap is None):
        raise InputError("give target_margin or target_gap, exactly one")
    alphas, betas = (np.atleast_1d(number(*given)) for given in (("alpha", alpha), ("beta", beta)))
    number("beta", betas, above=0)
    threshold = number("saturated_below", saturated_below, above=0, below=1)
    z_saturated = np.log1p(-threshold) - np.log(threshold)
    steps = np.atleast_1d(number("gamma", gamma if gamma is not None else gamma_beta_ratio))
    beta_column, gamma_column = np.repeat(betas, len(steps)), np.tile(steps, len(betas))
    gamma_column = gamma_column if gamma is not None else gamma_column * beta_column

    followed = np.argsort(s_w - s_l)[np.linspace(0, s_w.size - 1, min(paths, s_w.size)).astype(int)]
    blocks = []
    for one in alphas:
        shape = Alpha(float(one))
        low, high = shape.bounds(reference=False)
        difference = shape.difference(s_w, s_l)
        saturates = (z_saturated + gamma_column) / beta_column  # as a difference φ(s_w) − φ(s_l)
        satisfied = gamma_column / beta_column
        block = {
            "alpha": one,
            "beta": beta_column,
            "gamma": gamma_column,
            "saturated": _share_at_least(difference, saturates),
            "out_of_reach": np.where(satisfied >= high - low, 1.0, 0.0),
            "needs_gain": 1.0 - _share_above(shape.reward(s_w) - low, satisfied),
        }
        if target_gap is not None:
            block |= _at_gap(shape, s_w, s_l, gram, float(target_gap), saturates, num_tokens)
        else:
            wanted = (target_margin + gamma_column) / beta_column
            block |= {"reached": np.where(wanted < high - low, 1.0, 0.0)}
            if gram is not None:
                entries = Gram(*(np.broadcast_to(entry, s_w.shape)[followed] for entry in gram))
                lengths = None if num_tokens is None else np.asarray(num_tokens)[followed]
                block |= _at_margin(shape, s_w[followed], s_l[followed], entries, wanted, lengths)
        blocks.append(pd.DataFrame(block))
    table = pd.concat(blocks, ignore_index=True)
    if "displacement" in table:
        order = table.sort_values(["reached", "displacement"], ascending=False, na_position="last")
    else:
        order = table.sort_values(["reached", "saturated"], ascending=[False, True])
    return Suggestion(table, {str(key): float(value) for key, value in order.iloc[0].items()})


def _share_at_least(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Of `values`, the share ≥ each threshold; one pass over the values whatever the number of thresholds."""
    ordered = np.sort(thresholds)
    counts = np.bincount(np.searchsorted(ordered, values, side="right"), minlength=len(ordered) + 1)
    at_least = counts[::-1].cumsum()[::-1]  # at_least[k]: values that are ≥ ordered[k−1]
    return at_least[np.searchsorted(ordered, thresholds, side="right")] / len(values)


def _share_above(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return 1.0 - _share_at_least(-values, -thresholds)


def _at_gap(
    shape: Alpha,
    s_w: np.ndarray,
    s_l: np.ndarray,
    gram: Gram | None,
    gap: float,
    saturates: np.ndarray,
    lengths: Array | None,
) -> dict[str, Any]:
    """Reached share and displacement at a gap, for every (β, γ) of one α."""
    if gram is None:
        raise InputError("a target_gap needs gram: where the two scores are at that gap depends on it")
    ahead = s_w - s_l < gap
    end_w, end_l = path(shape.alpha, gram, s_w, s_l, np.maximum(gap, s_w - s_l))
    possible = np.isfinite(end_w) & (end_w <= 0)
    at_target = np.where(
        possible, shape.difference(np.where(possible, end_w, 0.0), np.where(possible, end_l, 0.0)), np.inf
    )
    at_target = np.where(ahead, at_target, -np.inf)  # a pair that is there already needs no training
    moved = np.where(possible, end_w - s_w, np.nan)
    result: dict[str, Any] = {"reached": 1.0 - _share_at_least(at_target, saturates)}
    result["displacement"] = _mean(moved)
    if lengths is not None:
        result["displacement_sum"] = _mean(moved * lengths)
    return result


def _at_margin(
    shape: Alpha,
    s_w: np.ndarray,
    s_l: np.ndarray,
    gram: Gram,
    wanted: np.ndarray,
    lengths: np.ndarray | None,
) -> dict[str, Any]:
    """Reached share and displacement at a difference φ(s_w) − φ(s_l), for every (β, γ) of one α.

    Every followed path is tabulated once, out to the largest difference anyone wants, and read at each.
    """
    far = np.full(s_w.shape, 1.0)
    with np.errstate(all="ignore"):
        for _ in range(100):
            end_w, end_l = travelled(far, shape.alpha, *gram, s_w, s_l)
            short = (shape.compute_difference(np, end_w, end_l) < wanted.max()) & (end_w < 0)
            if not short.any():
                break
            far = np.where(short, 2 * far, far)
        accumulated = far * np.linspace(0, 1, _NODES)[:, None] ** 2
        path_w, path_l = travelled(accumulated, shape.alpha, *gram, s_w, s_l)
        difference = np.maximum.accumulate(shape.compute_difference(np, path_w, path_l), axis=0)
    ends = np.array(
        [np.interp(wanted, difference[:, i], path_w[:, i], right=np.nan) for i in range(s_w.size)]
    )
    ends = np.where(ends > 0, np.nan, ends)
    moved = np.where(wanted <= difference[0][:, None], 0.0, ends - s_w[:, None])
    result: dict[str, Any] = {"reached": np.isfinite(moved).mean(0), "displacement": _mean(moved)}
    if lengths is not None:
        result["displacement_sum"] = _mean(moved * lengths[:, None])
    return result


def _mean(values: np.ndarray) -> Any:
    """Mean over pairs of what is there, NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(0)
    return np.where(count > 0, np.where(there, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)

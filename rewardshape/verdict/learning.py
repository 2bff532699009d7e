"""How training went, from the rows of another trainer's log: courses, and what of them is beyond chance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from rewardshape.verdict.evidence import Change, Course, Learning
from rewardshape.verdict.recovery import has
from rewardshape.verdict.rows import chance_of_losing, change_along, exact_change, window
from rewardshape.verdict.sanity import SCALE_LIMIT, effective_scale
from rewardshape.verdict.still import stands_still
from rewardshape.verdict.thresholds import (
    CHANCE,
    EARLY,
    SATURATED,
    SATURATED_ACCURACY,
    SATURATED_MARGIN,
    SATURATED_ROWS,
    WINDOW_ROWS,
)


def learning_of(rows: pd.DataFrame, trained: pd.DataFrame, beta: float | None, *, fixed: bool) -> Learning:
    """How training went by the rows that the chosen responses were judged on; `fixed`: of a fixed set.

    Parameters
    ----------
    rows, trained : DataFrame
        Series by step: of the rows that are judged, and of the training batches.
    beta : float or None
    """
    if not has(rows, "margin") and has(rows, "reward_chosen", "reward_rejected"):
        rows = rows.assign(margin=rows["reward_chosen"] - rows["reward_rejected"])
    courses = {name: _course(rows, name, fixed) for name in ("loss", "margin", "accuracy")}
    margin, scale = courses["margin"], effective_scale(rows)
    if margin is not None and scale is not None and 0 < scale < SCALE_LIMIT:
        margin = Course(*(scale * value for value in margin))  # logged as log-ratios, before β
    left = _gradient_left(courses["loss"], margin, courses["accuracy"])
    series = {name: values_of(rows, name) for name in ("margin", "accuracy")}
    ordered = "accuracy" if len(series["accuracy"]) else "margin"
    return Learning(
        loss=courses["loss"],
        margin=courses["margin"],
        gap=courses["margin"],
        accuracy=courses["accuracy"],
        gradient_left=left,
        saturated_below=SATURATED if fixed else _saturated_below(values_of(rows, "loss")),
        still=stands_still(rows, trained, beta),
        ties=_ties(courses["loss"], courses["margin"], courses["accuracy"]),
        accuracy_change=_change(series["accuracy"], fixed),
        margin_change=_change(series["margin"], fixed),
        order_lost=0.0
        if fixed
        else _chance_of_losing(series[ordered], 0.5 if ordered == "accuracy" else 0.0),
        early_accuracy=_early(series["accuracy"], fixed),
        num_rows=len(rows),
    )


def values_of(rows: pd.DataFrame, name: str) -> pd.Series:
    """A series without the rows that lack it; empty where it is not logged."""
    return rows[name].dropna() if name in rows else pd.Series(dtype=float)


def _change(values: pd.Series, fixed: bool) -> Change | None:
    """From start to end; of a fixed set exact about its pairs."""
    if len(values) < 2:
        return None
    if fixed:
        return exact_change(float(values.iloc[-1] - values.iloc[0]))
    return change_along(values.to_numpy(float), window(len(values)))


def _chance_of_losing(values: pd.Series, floor: float) -> float:
    return chance_of_losing(values.to_numpy(float), window(len(values)), floor) if len(values) > 1 else 1.0


def _early(values: pd.Series, fixed: bool) -> float | None:
    """The mean of the very first rows; None where rows begin too late, or are too few of batches, to be a start."""
    early = values[values.index <= EARLY * values.index.max()] if len(values) else values
    enough = len(early) >= (1 if fixed else WINDOW_ROWS)
    return float(early.iloc[:WINDOW_ROWS].mean()) if enough else None


def _course(rows: pd.DataFrame, name: str, fixed: bool) -> Course | None:
    values = values_of(rows, name)
    if not len(values):
        return None
    width = 1 if fixed else window(len(values))
    smooth = values.rolling(width).mean().dropna()
    return Course(float(smooth.iloc[0]), float(values.iloc[-width:].mean()), float(smooth.max()))


def _gradient_left(loss: Course | None, margin: Course | None, accuracy: Course | None) -> float | None:
    """The share of the gradient that is left where it may be little; None elsewhere."""
    if loss is None or (margin is None and accuracy is None) or loss.last < 0:
        return None
    if margin is not None and margin.last < SATURATED_MARGIN:
        return None
    if accuracy is not None and accuracy.last < SATURATED_ACCURACY:
        return None
    return float(_share_left(loss.last))


def _saturated_below(losses: pd.Series) -> float:
    """Few batches may lack by chance the rare pair that has much of its gradient left: less must be seen of theirs.

    They are as many as the last window has, or as end the log with so little left each.
    """
    high = (_share_left(losses) >= SATURATED).to_numpy()
    low_to_the_end = int(high[::-1].argmax()) if high.any() else len(high)
    return SATURATED * min(1.0, max(window(len(high)), low_to_the_end) / SATURATED_ROWS)


def _share_left(loss: Any) -> Any:
    """Of the gradient of a logistic pair, of the half that it starts with: 2(1 − e^−loss)."""
    return -2 * np.expm1(-loss)


def _ties(loss: Course | None, margin: Course | None, accuracy: Course | None) -> float | None:
    """At most so many pairs are the same to the trainer: it counts only chosen > rejected as right."""
    if margin is None or accuracy is None or accuracy.last > CHANCE:
        return None
    grown = margin.last > 0.1 and margin.last > margin.first and margin.last > 0.5 * margin.highest
    learnt = loss is None or loss.last < math.log(2) - 0.02
    return 1 - accuracy.last if grown and learnt else None

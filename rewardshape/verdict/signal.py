"""The series that tells what the chosen responses did: of a fixed set or of batches, and the baseline it is put above.

A log may hold several: rewards and log-probabilities, of a fixed set and of training batches. The best is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from rewardshape.logs.log import Log
from rewardshape.logs.names import SERIES
from rewardshape.numbers import moment, significant
from rewardshape.verdict.evidence import Baseline, Unit
from rewardshape.verdict.recovery import Reference, has
from rewardshape.verdict.rows import window
from rewardshape.verdict.thresholds import (
    AT_ONCE,
    FAR_FROM_ZERO,
    FEW_EVALUATIONS,
    FIRST_ROWS,
    FIRST_SHARE,
    FIRST_STEPS,
    MANY_ROWS,
    MIN_ROWS,
)


@dataclass(frozen=True)
class Signal:
    """The chosen log-probability (or reward) above its baseline.

    Attributes
    ----------
    chosen, rejected : Series
        By step; `rejected` in the same rows, where it is logged.
    known_zero : bool
        Whether the baseline is a known number (the reference, where rewards are 0) and not a row of the log.
    batches : bool
        Whether rows are of changing batches, not of a fixed set.
    split : {"train", "eval"}
        The rows of the log that it was read from.
    """

    chosen: pd.Series
    rejected: pd.Series | None
    unit: Unit
    basis: str
    baseline: Baseline
    known_zero: bool
    batches: bool
    split: Literal["train", "eval"]

    @property
    def width(self) -> int:
        """Rows that are averaged into one level."""
        return window(len(self.chosen)) if self.batches else 1


def chosen_signal(
    log: Log, reference: Reference, per_token: bool | None, started_elsewhere: bool
) -> Signal | None:
    """The best series for the chosen responses: a fixed set before batches, and of a set the best baseline.

    That is the untouched checkpoint where step 0 was evaluated, else the reference, where rewards are 0, else the
    first row; the first row also where the first rewards show that the reference is not where the run began.
    """
    evaluated, trained = log.split("eval"), log.split("train")
    order: list[Literal["train", "eval"]] = ["eval", "train"]
    if not _evaluations_suffice(evaluated, trained, reference):
        order.reverse()
    for split in order:
        signal = _signal(log, split, reference, per_token, started_elsewhere)
        if signal is not None:
            return signal
    return None


def _evaluations_suffice(evaluated: pd.DataFrame, trained: pd.DataFrame, reference: Reference) -> bool:
    """Whether the fixed set is judged: one evaluation will do, if its reference is known and it is a late one."""
    rows, batches = _count(evaluated), _count(trained)
    known = has(evaluated, "reward_chosen") and reference.free is not True
    enough = 1 if known else FEW_EVALUATIONS if batches >= MANY_ROWS else MIN_ROWS
    late = rows and (not batches or evaluated.index[-1] >= trained.index[-1] / 2)
    return bool(rows and (not batches or (rows >= enough and late)))


def _count(table: pd.DataFrame) -> int:
    """Rows that say something about the chosen responses."""
    columns = [column for column in ("reward_chosen", "logp_chosen") if column in table]
    return int(table[columns].notna().any(axis=1).sum()) if columns else 0


def _signal(
    log: Log,
    split: Literal["train", "eval"],
    reference: Reference,
    per_token: bool | None,
    started_elsewhere: bool,
) -> Signal | None:
    table = log.split(split)
    batches = split == "train" or reference.holds is False
    where = "training batches" if split == "train" else "the evaluation set"
    logp_unit: Unit = "nats per token" if per_token else "nats"
    from_start = not batches and log.counts == "step" and has(table, "logp_chosen")
    from_start = from_start and table["logp_chosen"].first_valid_index() == 0
    told = has(table, "reward_chosen") and reference.free is not True and reference.beta != 0
    if told and not from_start:
        beta = reference.beta if reference.beta else None
        unit: Unit = logp_unit if beta else "reward"
        basis = f"rewards/chosen of {where}" + (f" divided by β = {significant(beta, 4)}" if beta else "")
        chosen, rejected = _sides(table, "reward", 1 / beta if beta else 1.0)
        signal = Signal(chosen, rejected, unit, basis, Baseline("the reference"), True, batches, split)
        return _above_first(signal, log.counts) if started_elsewhere else signal
    series = "logp" if has(table, "logp_chosen") else "reward"
    if not has(table, f"{series}_chosen"):
        return None
    chosen, rejected = _sides(table, series, 1.0)
    unit = logp_unit if series == "logp" else "reward"
    basis = f"{SERIES[f'{series}_chosen']} of {where}"
    return _above_first(Signal(chosen, rejected, unit, basis, Baseline(), False, batches, split), log.counts)


def _sides(table: pd.DataFrame, series: str, scale: float) -> tuple[pd.Series, pd.Series | None]:
    """Chosen and rejected of the rows that hold both, or of those that hold chosen where rejected is not logged."""
    if has(table, f"{series}_chosen", f"{series}_rejected"):
        both = table[[f"{series}_chosen", f"{series}_rejected"]].dropna() * scale
        if len(both):
            return both.iloc[:, 0], both.iloc[:, 1]
    return table[f"{series}_chosen"].dropna() * scale, None


def _above_first(signal: Signal, counts: str) -> Signal:
    """The signal above its own first level: the first row of a fixed set, the first window of batches."""
    width = signal.width
    first = signal.chosen.index[0]
    if width > 1:
        baseline = Baseline(f"the first {width} logged rows", f"from {counts} {moment(first)}", assumed=True)
    elif first == 0 and counts == "step":
        baseline = Baseline("step 0")
    else:
        baseline = Baseline("the first logged row", f"{counts} {moment(first)}", assumed=True)
    rejected = signal.rejected
    return replace(
        signal,
        chosen=signal.chosen - signal.chosen.iloc[:width].mean(),
        rejected=None if rejected is None else rejected - rejected.iloc[:width].mean(),
        baseline=baseline,
        known_zero=False,
    )


def started_elsewhere(log: Log, reference: Reference) -> tuple[float, float] | None:
    """The first rewards, where they show that the reference is not the model that the run began with.

    With a reference every reward is 0 before the first update. A reward of one after one or two steps is far more than
    they give; in the first rows after that it counts only where it is large beside all the run's later course, which a
    fast one's is not. A positive one cannot be β times a log-probability; negative ones can, and count only of the
    first steps.
    """
    if reference.free is True:
        return None
    columns = ["reward_chosen", "reward_rejected"]
    for split in ("train", "eval"):
        table = log.split(split)
        if has(table, *columns):
            rows = table[columns].dropna()
            if rows.empty:
                continue
            first, step = rows.iloc[0], float(rows.index[0])
            few = log.counts == "step" and step <= FIRST_STEPS
            early = step <= FIRST_ROWS * log.table["step"].max()
            most = rows[first.idxmax()]
            large = abs(first.max()) >= FIRST_SHARE * float((most - most.iloc[0]).abs().max())
            large = large or (few and step <= AT_ONCE)
            risen = first.max() > FAR_FROM_ZERO and (few or early)
            fallen = first.max() < -FAR_FROM_ZERO and early and few
            if large and (risen or fallen):
                return float(first.iloc[0]), float(first.iloc[1])
            return None
    return None

"""What in a log is not finite: batches that held one kind of example only, and runs that broke."""

from __future__ import annotations

import pandas as pd

from rewardshape.logs.log import Log
from rewardshape.logs.names import SERIES
from rewardshape.numbers import counted
from rewardshape.verdict.evidence import Broken, as_step

SIDES = {
    "chosen": {"reward_chosen", "logp_chosen", "logits/chosen", "margin"},
    "rejected": {"reward_rejected", "logp_rejected", "logits/rejected", "margin"},
}


def one_sided(nonfinite: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """What is not finite without the rows of batches that held no good or no bad examples, and those in words.

    A batch of unpaired examples (KTO) may lack one kind: then the means of that kind are 0/0, and nothing else is.
    """
    rows = nonfinite.groupby(["split", "step"])["series"].agg(set)
    lacking = {side: rows.index[[row <= SIDES[side] and row != {"margin"} for row in rows]] for side in SIDES}
    told = [
        f"{counted(len(steps), 'row')} held no {side} examples, so their means were not finite"
        for side, steps in lacking.items()
        if len(steps)
    ]
    taken = lacking["chosen"].union(lacking["rejected"])
    places = pd.MultiIndex.from_frame(nonfinite[["split", "step"]])
    return nonfinite[~places.isin(taken)], told


def never_held(log: Log) -> str:
    """That no row of unpaired examples held one of the two kinds, in words; empty where both were there."""
    for side in SIDES:
        own, other = ({f"reward_{which}", f"logp_{which}"} for which in (side, *SIDES.keys() - {side}))
        seen = {column for column in log.table if log.table[column].notna().any()}
        if own & set(log.nonfinite["series"]) and not own & seen and other & seen:
            return f"no row held {side} examples: their means were not finite throughout"
    return ""


CORE = ("loss", "reward_chosen", "reward_rejected", "margin", "logp_chosen", "logp_rejected")


def broken_since(log: Log) -> Broken | None:
    """From where on nothing is finite: the loss, or both rewards, or both log-probs, to the end of a split.

    A row that lacks only the good or only the bad examples (KTO) has one side without numbers and is not broken.
    """
    for split in ("train", "eval"):
        bad = log.nonfinite[log.nonfinite["split"] == split]
        table = log.split(split)
        since = {}
        for series in set(bad["series"]) & set(CORE):
            finite = table[series].dropna().index if series in table else pd.Index([])
            after = bad.loc[bad["series"] == series, "step"]
            after = after[after > finite[-1]] if len(finite) else after
            if len(after):
                since[series] = as_step(after.min())
        both = [{"reward_chosen", "reward_rejected"}, {"logp_chosen", "logp_rejected"}]
        if {"loss", "margin"} & set(since) or any(pair <= set(since) for pair in both):
            return Broken(min(since.values()), tuple(sorted(SERIES[series] for series in since)))
    return None

"""What in a log is not finite: batches that held one kind of example only, and runs that broke."""

from __future__ import annotations

import pandas as pd

from rewardshape.logs.log import Log
from rewardshape.logs.names import SERIES
from rewardshape.numbers import counted, moment
from rewardshape.verdict.evidence import Broken, Step, as_step

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


RESPONSES = ("reward_chosen", "reward_rejected"), ("logp_chosen", "logp_rejected")
CORE = ("loss", "margin", *RESPONSES[0], *RESPONSES[1])


def broken_since(log: Log) -> Broken | None:
    """From where on nothing is finite to the end of a split: both rewards, or both log-probs, or the loss alone.

    A row that lacks only the good or only the bad examples (KTO) has one side without numbers and is not broken; nor is
    a run whose rewards or log-probs go on after its loss is lost (`loss_lost`).
    """
    for split, other in (("train", "eval"), ("eval", "train")):
        since = _since(log, split)
        dead: tuple[str, ...] | None = next((pair for pair in RESPONSES if set(pair) <= set(since)), None)
        if dead is None and {"loss", "margin"} & set(since) and not _go_on(log, split, min(since.values())):
            dead = tuple(since)
        if dead is None:
            continue
        step = max(since[series] for series in dead)
        if not _go_on(log, other, step):
            return Broken(step, tuple(sorted(SERIES[series] for series in since if since[series] <= step)))
    return None


def loss_lost(log: Log) -> list[str]:
    """That the loss is not finite to the end while the responses are, in words."""
    since = _since(log, "train").get("loss")
    if since is None or broken_since(log) is not None:
        return []
    return [
        f"the loss is not finite from {log.counts} {moment(since)} to the end, while the responses have numbers: a "
        "trainer that sums its losses keeps one NaN for good, so that the loss is lost and the run need not be"
    ]


def _since(log: Log, split: str) -> dict[str, Step]:
    """From which step on each series is not finite to its end."""
    bad = log.nonfinite[log.nonfinite["split"] == split]
    table = log.split(split)
    since = {}
    for series in set(bad["series"]) & set(CORE):
        finite = table[series].dropna().index if series in table else pd.Index([])
        after = bad.loc[bad["series"] == series, "step"]
        after = after[after > finite[-1]] if len(finite) else after
        if len(after):
            since[series] = as_step(after.min())
    return since


def _go_on(log: Log, split: str, step: Step) -> bool:
    """Whether a reward or log-prob is finite at a step or later."""
    table = log.split(split)
    known = [series for pair in RESPONSES for series in pair if series in table]
    return bool(table.loc[table.index >= step, known].notna().to_numpy().any())

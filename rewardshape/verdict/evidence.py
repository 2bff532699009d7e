"""What a judgement rests on: a small record, made from pairs or from rows, which the judge need not tell apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pandas as pd

from rewardshape.analysis.generations import Judgement
from rewardshape.analysis.resampling import MIN_PROMPTS
from rewardshape.errors import printable
from rewardshape.numbers import moment, percent, significant
from rewardshape.verdict.recovery import Reference
from rewardshape.verdict.thresholds import CARRIED_SHARE, MATTERS, SATURATED, SMALLEST
from rewardshape.verdict.tried import Tried

Unit = Literal["nats", "nats per token", "reward"]
Step = int | float


def as_step(value: Any) -> Step:
    """A step as a whole number where it is one: epochs may be fractions.

    Examples
    --------
    >>> as_step(3.0), as_step(0.5)
    (3, 0.5)
    """
    return int(value) if float(value).is_integer() else float(value)


@dataclass(frozen=True)
class Change:
    """A change of a mean log-prob (or reward) against a baseline, negative where it fell.

    Attributes
    ----------
    value : float
    error : float or None
        Standard error; 0 where the number is exact about the pairs it was measured on, None where it is not known.
    low, high : float or None
        95 % interval.
    chance : float
        How often chance alone would show as much, one-sided, in the direction of `value`; where the step was searched
        for, with that search taken into account.
    step : int or float, optional
        Where it stands.
    """

    value: float
    error: float | None = None
    low: float | None = None
    high: float | None = None
    chance: float = 1.0
    step: Step | None = None


@dataclass(frozen=True)
class Baseline:
    """What a change is measured from.

    Attributes
    ----------
    what : str
        As a label has it: "the reference", "step 0", "the first logged row".
    rows : str
        Which rows of a log those are.
    assumed : bool
        Whether the first logged rows are only taken for the start of the run.
    """

    what: str = ""
    rows: str = ""
    assumed: bool = False

    def __str__(self) -> str:
        return f"{self.what} ({self.rows})" if self.rows else self.what


@dataclass(frozen=True)
class Onset:
    """The step by which the fall had begun, with its 95 % interval; `whole_run`: that is nearly all of the run."""

    step: Step
    low: Step
    high: Step
    whole_run: bool = False


class Course(NamedTuple):
    """A measure of learning at the start of a run, at its end, and at its highest."""

    first: float
    last: float
    highest: float


MOST_NAMED = 5  # steps that are named one by one


@dataclass(frozen=True)
class Carried:
    """A run whose gradient or loss is that of single pairs, or a log whose loss is that of single batches.

    Attributes
    ----------
    pair_id : str
        Of a run of ours; of a log empty.
    share : float
        Of the gradient weight of all pairs, owed to this one; of a log, of the summed loss, owed to these rows.
    loss_ratio : float
        The mean loss over the median one.
    steps : tuple of int or float
        Of a log, where those batches stand, and in `counts` what a step is.
    of_loss : float
        Of the summed loss of all pairs, owed to this one.
    """

    pair_id: str
    share: float
    loss_ratio: float
    steps: tuple[Step, ...] = ()
    counts: str = "step"
    of_loss: float = 0.0

    @property
    def what(self) -> str:
        """What is to be looked at."""
        if not self.steps:
            return f"pair {printable(self.pair_id)}"
        named = [moment(step) for step in self.steps[:MOST_NAMED]]
        more = len(self.steps) - len(named)
        if more:
            named.append(f"{more} more")
        one = f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else named[0]
        return f"{self.counts}{'s' if len(self.steps) > 1 else ''} {one}"

    def __str__(self) -> str:
        if self.steps:
            ratio = f", whose mean is {significant(self.loss_ratio)} times the median"
            return f"carried by single batches ({self.what}: {percent(self.share)} of the summed loss{ratio})"
        ratio = (
            f", its mean loss is {significant(self.loss_ratio)} times the median"
            if self.loss_ratio > 2
            else ""
        )
        loss = f" and {percent(self.of_loss)} of the loss" if self.of_loss >= CARRIED_SHARE else ""
        owns = f"{self.what} owns {percent(self.share)} of the gradient weight{loss}"
        return f"carried by single pairs ({owns}{ratio})"


@dataclass(frozen=True)
class Learning:
    """How training went apart from the log-probs; None where it is not known.

    Attributes
    ----------
    loss, margin, accuracy : Course or None
        Means over pairs; the margin in reward units, as the log has it or, of a run of ours, γ included.
    gap : Course or None
        What puts the two responses in order, above 0 where chosen stands higher: a log's margin, a run's score gap.
    gradient_left : float or None
        The share of the gradient that the run began with which is left at its end.
    saturated_below : float
        At less than this share nothing more is learnt; less than usual where few batches tell it.
    still : str or None
        Why nothing is trained, if nothing is.
    ties : float or None
        Share of pairs whose two responses are the same to the trainer.
    accuracy_change, margin_change : Change or None
        Of accuracy and of `gap`, from start to end.
    order_lost : float
        How often pairs that never came in order would look as if they had, and had lost it since.
    early_accuracy : float or None
        At the very start, where rows are close enough together to tell.
    carried : Carried or None
        The single pair, or the single batches of a log, that the run is about, if there are such.
    num_rows : int or None
        How many rows of a log these are from.
    """

    loss: Course | None = None
    margin: Course | None = None
    gap: Course | None = None
    accuracy: Course | None = None
    gradient_left: float | None = None
    saturated_below: float = SATURATED
    still: str | None = None
    ties: float | None = None
    accuracy_change: Change | None = None
    margin_change: Change | None = None
    order_lost: float = 0.0
    early_accuracy: float | None = None
    carried: Carried | None = None
    num_rows: int | None = None


@dataclass(frozen=True)
class HeldOut:
    """The measure that was not trained on: where it was best, and whether it has become worse since.

    Attributes
    ----------
    measure : str
    best_step : int or float
    worse : bool or None
        None where too little was logged to tell.
    trained_on : bool
        Whether the pairs that are trained on were still learnt meanwhile: without that nothing is over-optimized.
    chance : float
        How often a measure that never turns would look so.
    above_start : bool
        Whether it was never better than without training.
    best, last : float or None
        Its values there and at the end.
    """

    measure: str
    best_step: Step
    worse: bool | None = None
    trained_on: bool = True
    chance: float = 1.0
    above_start: bool = False
    best: float | None = None
    last: float | None = None

    @property
    def over_optimized(self) -> bool | None:
        """Whether it became worse while the training pairs were learnt on; None where that cannot be told."""
        return self.worse and self.trained_on if self.worse else self.worse


@dataclass(frozen=True)
class Broken:
    """Not finite from a step to the end."""

    step: Step
    series: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What is known of one run.

    Attributes
    ----------
    name, form : str
        The run, and what it was read from.
    part : str
        The run or table within the file, where that holds several.
    unit : {"nats", "nats per token", "reward"}
    basis : str
        What was judged.
    baseline : Baseline
        Against what.
    chosen, rejected : Change or None
        At the end, of the same window, so that their difference is the margin's change.
    lowest, highest : Change or None
        Of the chosen responses along the run.
    regained, given_back : Change or None
        From the lowest and from the highest point to the end.
    exact : bool
        Whether every number is exact about the pairs it was measured on (a fixed set against a known start).
    num_pairs, num_prompts : int or None
    onset : Onset or None
        Of the fall, if there is one.
    smallest_fall : float or None
        The smallest fall that would have been seen, four times in five; positive.
    started_elsewhere : bool
        Whether the first rewards show that the reference is not the model that the run began with.
    never_held : bool
        Whether a log of unpaired examples held none of one kind.
    evaluated : bool
        Whether a fixed set was measured along the run.
    matters, smallest : float
        The fall that matters, and the smallest that gets a word, in `unit`.
    answers : tuple of Judgement
        Of the sampled answers against those of step 0, where they have a gold reward: one a temperature.
    sampled : bool
        Whether answers were sampled, judged or not.
    tried : tuple of Tried
        What changes did in a what-if beside the run.
    curve : DataFrame
        For drawing: step, chosen, smooth, rejected, above the baseline.
    progress : DataFrame
        For drawing: split, step, loss, margin.
    cannot_tell, cannot_tell_of_fall : tuple of str
        What was not measured: at all, and of what was lost where something was.
    ahead : str
        Where a run that is still going is expected to end.
    """

    name: str
    form: str
    part: str = ""
    unit: Unit = "nats"
    basis: str = ""
    baseline: Baseline = field(default_factory=Baseline)
    chosen: Change | None = None
    rejected: Change | None = None
    lowest: Change | None = None
    highest: Change | None = None
    regained: Change | None = None
    given_back: Change | None = None
    exact: bool = False
    num_pairs: int | None = None
    num_prompts: int | None = None
    onset: Onset | None = None
    smallest_fall: float | None = None
    evaluated: bool = True
    answers: tuple[Judgement, ...] = ()
    sampled: bool = False
    tried: tuple[Tried, ...] = ()
    matters: float = MATTERS["nats"]
    smallest: float = SMALLEST["nats"]
    learning: Learning = field(default_factory=Learning)
    held_out: HeldOut | None = None
    broken: Broken | None = None
    why_unknown: str = ""
    started_elsewhere: bool = False
    never_held: bool = False
    counts: str = "step"
    rows: str = ""
    per_token: bool | None = None
    reference: Reference = field(default_factory=Reference)
    beta_source: str | None = None
    nonfinite_steps: tuple[Step, ...] = ()
    nonfinite_series: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    cannot_tell: tuple[str, ...] = ()
    cannot_tell_of_fall: tuple[str, ...] = ()
    ahead: str = ""
    curve: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    progress: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)

    @property
    def too_few_prompts(self) -> bool:
        """Whether the probe set has too few prompts for an interval that holds for others, though not for a test."""
        return not self.exact and self.num_prompts is not None and self.num_prompts < MIN_PROMPTS

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the change of the chosen responses; None where it is not known."""
        chosen = self.chosen
        if chosen is None or chosen.low is None or chosen.high is None or self.too_few_prompts:
            return None
        return chosen.low, chosen.high

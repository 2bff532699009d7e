"""The words of a judgement in sentences, for page and terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rewardshape.analysis.resampling import MIN_PROMPTS
from rewardshape.logs.names import SERIES
from rewardshape.numbers import moment, number, percent, signed, significant
from rewardshape.verdict.evidence import Change, Course, Evidence, Onset
from rewardshape.verdict.thresholds import GAVE_BACK, TIES
from rewardshape.verdict.words import Word


def amount(value: float) -> str:
    """A size with three significant digits.

    Examples
    --------
    >>> amount(-0.012345), amount(12.345)
    ('0.0123', '12.3')
    """
    return significant(abs(value))


def headline(word: Word, evidence: Evidence, reasons: tuple[str, ...]) -> str:
    """The word with its number."""
    chosen = evidence.chosen
    if word is Word.BROKEN:
        return _sentence(reasons[0])
    if word in (Word.NOT_TRAINING, Word.UNDETERMINED) or chosen is None:
        return _sentence(f"{word.meaning}: {reasons[0]}" if reasons else word.meaning)
    if word in (Word.SATURATED, Word.COLLAPSED):
        return _sentence(f"{word.meaning}: {reasons[0]}; {_where(chosen, evidence)}")
    if word is Word.RECOVERED and evidence.lowest is not None:
        lowest = evidence.lowest
        began = not evidence.curve.empty and lowest.step == evidence.curve["step"].iloc[0]
        low = f"{amount(lowest.value)} {evidence.unit} below {evidence.baseline}"
        at = f"{evidence.counts} {moment(lowest.step)}"
        dip = f"stood {low} when they were first logged ({at})" if began else f"fell {low} (at {at})"
        return _sentence(
            f"the chosen responses {dip} and came back; at the end they stand "
            f"{_above_or_below(chosen.value, evidence)}{_interval(evidence)}"
        )
    if word is Word.NOT_DISPLACED:
        return _sentence(_not_displaced(chosen, evidence))
    return _sentence(_where(chosen, evidence))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def _where(chosen: Change, evidence: Evidence) -> str:
    return f"the chosen responses ended {_above_or_below(chosen.value, evidence)}{_interval(evidence)}"


def _above_or_below(value: float, evidence: Evidence) -> str:
    if value == 0:
        return f"exactly at {evidence.baseline}"
    side = "below" if value < 0 else "above"
    return f"{amount(value)} {evidence.unit} {side} {evidence.baseline}"


def _interval(evidence: Evidence) -> str:
    """How sure the change of the chosen responses is, in brackets."""
    if evidence.exact:
        if evidence.num_pairs == 1:
            return ", exact for this pair"
        pairs = f" {evidence.num_pairs}" if evidence.num_pairs else ""
        return f", exact for these{pairs} pairs"
    if evidence.too_few_prompts:
        return f" ({evidence.num_prompts} prompts: an interval that holds for others takes {MIN_PROMPTS})"
    if evidence.interval is None:
        return ""
    low, high = evidence.interval
    if not math.isfinite(low) or high == low:
        return ""
    over = f" over {evidence.num_prompts} prompts" if evidence.num_prompts else ""
    digits = max(0, 2 - math.floor(math.log10(high - low)))
    return f" (95 % interval{over}: {signed(low, digits)} to {signed(high, digits)})"


def _not_displaced(chosen: Change, evidence: Evidence) -> str:
    seen, power = evidence.smallest_fall, ""
    if seen is not None:
        often = "" if evidence.exact else " four times in five"
        # It is 0 where no pair moved.
        fall = f"a fall of {amount(seen)} {evidence.unit}" if seen else "any fall"
        power = f"; {fall} would have been seen{often}"
    if chosen.value >= evidence.smallest and chosen.chance <= 0.025:
        return f"{_where(chosen, evidence)}: they gained probability{power}"
    if evidence.exact:
        return f"{_where(chosen, evidence)}: a smaller change than gets a word{power}"
    return f"the chosen responses ended where they began{_interval(evidence)}{power}"


def since_when_broken(evidence: Evidence) -> str:
    """From where on nothing is finite."""
    broken = evidence.broken
    assert broken is not None
    many = "is" if len(broken.series) == 1 else "are"
    return f"{', '.join(broken.series)} {many} not finite from {evidence.counts} {moment(broken.step)} to the end"


def what_is_left(evidence: Evidence) -> str:
    """How little gradient a saturated run has left."""
    learning = evidence.learning
    left = learning.gradient_left or 0.0
    share = "less than 0.1%" if left < 1e-3 else percent(left, 1)
    at = "" if learning.margin is None else f"at a margin of {amount(learning.margin.last)}, "
    # A log tells it of its loss alone, against that of two responses that are equal.
    of = "equal responses have" if evidence.num_pairs is None else "the run began with"
    return f"{at}{share} of the gradient that {of} is left"


def how_preference_was_lost(evidence: Evidence) -> str:
    """From where to where accuracy, or else the margin, went."""
    accuracy, margin = evidence.learning.accuracy, evidence.learning.margin
    if accuracy is not None:
        return f"accuracy was {number(accuracy.highest, 2)} and ends at {number(accuracy.last, 2)}"
    assert margin is not None
    return f"the mean margin was {amount(margin.highest)} and ends at {significant(margin.last, 2)}"


def what_could_hide(evidence: Evidence) -> str:
    """How large a fall the noise could hide."""
    seen, chosen = evidence.smallest_fall, evidence.chosen
    at = (
        f"{evidence.basis} stand at {signed(chosen.value)} {evidence.unit}"
        if chosen is not None
        else evidence.basis
    )
    if seen is None or not math.isfinite(seen):
        return f"{at}, in too few rows to tell how much of it is chance"
    hidden = max(seen, -chosen.low if chosen is not None and chosen.low is not None else 0.0)
    return (
        f"{at}{_interval(evidence)}: a fall of {amount(hidden)} {evidence.unit} could hide "
        f"in the scatter, and one of {amount(evidence.matters)} would matter"
    )


def story(word: Word, evidence: Evidence) -> list[str]:
    """What else happened, one sentence each, none against the headline."""
    if word is Word.BROKEN:
        return [_sentence(line) for line in [*_last_finite(evidence), *evidence.facts]]
    if word is Word.NOT_TRAINING:
        return [_sentence(line) for line in [*_progress(evidence), *evidence.facts]]
    lines = [
        *_fall(word, evidence),
        *_rise(word, evidence),
        *_rejected(evidence),
        *_progress(evidence),
        *evidence.facts,
    ]
    return [_sentence(line) for line in [*lines, *_carried(evidence), *_ties(evidence), *_held_out(evidence)]]


def _last_finite(evidence: Evidence) -> list[str]:
    """Where the responses stood before the numbers broke."""
    chosen, rejected = evidence.chosen, evidence.rejected
    if chosen is None or chosen.step is None:
        return []
    also = "" if rejected is None else f", rejected {_above_or_below(rejected.value, evidence)}"
    at = f"at {evidence.counts} {moment(chosen.step)}, the last with finite numbers"
    return [f"{at}, chosen stood {_above_or_below(chosen.value, evidence)}{also}"]


def _fall(word: Word, evidence: Evidence) -> list[str]:
    lines = []
    onset, lowest, chosen = evidence.onset, evidence.lowest, evidence.chosen
    if (
        word.falls
        and onset is not None
        and chosen is not None
        and (chosen.value < 0 or word is Word.RECOVERED)
    ):
        lines.append(_begun(onset, evidence))
    if word in (Word.DISPLACED, Word.SATURATED, Word.COLLAPSED) and lowest is not None and chosen is not None:
        deeper = lowest.value < min(chosen.value, 0) - max(evidence.smallest, 2 * (chosen.error or 0))
        if deeper and lowest.step != chosen.step:
            lines.append(
                f"the deepest point is {amount(lowest.value)} {evidence.unit} below, at {evidence.counts} "
                f"{moment(lowest.step)}"
            )
    return lines


def _begun(onset: Onset, evidence: Evidence) -> str:
    """When the fall began."""
    span = f"{moment(onset.low)} to {moment(onset.high)}"
    if onset.whole_run:
        return f"when the fall began cannot be told (95 % interval: {evidence.counts} {span})"
    known = f"the fall had begun by {evidence.counts} {moment(onset.step)}"
    if onset.low == onset.high:
        return known
    return f"{known} (after {moment(onset.low)})" if evidence.exact else f"{known} (95 % interval {span})"


def _rise(word: Word, evidence: Evidence) -> list[str]:
    highest, lost = evidence.highest, evidence.given_back
    if highest is None or lost is None or highest.value < evidence.smallest or highest.chance > 0.025:
        return []
    if lost.chance > 0.025 or -lost.value <= GAVE_BACK * highest.value:
        return []
    peak = f"risen to {amount(highest.value)} {evidence.unit} above {evidence.baseline}"
    when = f"at {evidence.counts} {moment(highest.step)}"
    if -lost.value <= highest.value:
        return [f"chosen had {peak} {when}, and lost {amount(lost.value)} of it since"]
    if not word.falls:
        return [f"chosen had {peak} {when}, and stands {amount(lost.value)} lower at the end"]
    return [f"before it fell, chosen had {peak} {when}"]


def _rejected(evidence: Evidence) -> list[str]:
    chosen, rejected = evidence.chosen, evidence.rejected
    if chosen is None or rejected is None or evidence.why_unknown:
        return []
    gap = chosen.value - rejected.value
    return [
        f"rejected ended {_above_or_below(rejected.value, evidence)}, so chosen minus rejected is {amount(gap)} "
        f"{'larger' if gap >= 0 else 'smaller'} than there"
    ]


def _progress(evidence: Evidence) -> list[str]:
    learning = evidence.learning
    courses = {"loss": learning.loss, "margin": learning.margin, "accuracy": learning.accuracy}
    known = {name: course for name, course in courses.items() if course is not None}
    lines = [f"from start to end: {', '.join(f'{name} {_course(course)}' for name, course in known.items())}"]
    if learning.num_rows == 1:
        lines = [f"in the one row: {_the_row(evidence, known)}"]
    if not known:
        return []
    accuracy, margin = learning.accuracy, learning.margin
    if accuracy is not None and margin is not None and accuracy.last < 0.5 and margin.last < 0:
        lines.append(
            "at the end chosen is preferred in fewer than half of the pairs, by accuracy and by margin"
        )
    return lines


def _the_row(evidence: Evidence, known: dict[str, Course]) -> str:
    """All numbers of the one row that a log has."""
    row: Mapping[Any, Any] = evidence.progress.iloc[-1].to_dict() if len(evidence.progress) == 1 else {}
    sides = ("reward_chosen", "reward_rejected", "logp_chosen", "logp_rejected")
    said = {SERIES[side]: row[side] for side in sides if side in row and row[side] == row[side]}
    numbers = {name: course.last for name, course in known.items()} | said
    return ", ".join(f"{name} {significant(value)}" for name, value in numbers.items())


def _course(course: Course) -> str:
    first, last, highest = map(significant, course)
    if first != last:
        return f"{first} to {last}"
    return (
        f"{last} at both and nowhere higher"
        if highest == last
        else f"{last} at both, {highest} at its highest"
    )


def _carried(evidence: Evidence) -> list[str]:
    carried = evidence.learning.carried
    if carried is None:
        return []
    if not carried.steps:
        return [f"the run is {carried}: its means say little about the other pairs"]
    if evidence.num_pairs is not None:  # judged on its probe pairs
        return [f"training was {carried}"]
    return [f"the run is {carried}: what is said here leaves them out"]


def _ties(evidence: Evidence) -> list[str]:
    ties = evidence.learning.ties
    if not ties or ties <= TIES:
        return []
    return [
        f"up to {percent(ties)} of the pairs seem to be ties: accuracy counts chosen above rejected, and is no better "
        "than chance while the margin grows. Are chosen and rejected the same after truncation, or duplicates?"
    ]


def _held_out(evidence: Evidence) -> list[str]:
    held = evidence.held_out
    if held is None:
        return []
    best = f"{evidence.counts} {moment(held.best_step)}"
    if held.above_start:
        return [f"the {held.measure} was never below what no training gives; it was best at {best}"]
    if held.worse:
        turned = f"the {held.measure} was best at {best} and has become worse since"
        return [
            f"over-optimized: {turned}" if held.over_optimized else f"{turned}, while the margin did not grow"
        ]
    if held.worse is False and held.best is not None and held.best == held.last:
        return [f"no over-optimization by the {held.measure}: it is best at the end"]
    if held.worse is False:
        return [
            f"no over-optimization by the {held.measure}: it was best at {best} and has not risen beyond chance since"
        ]
    if held.best is not None and held.last is not None and held.last > held.best:
        return [
            f"the {held.measure} was best at {best} ({significant(held.best)}) and ended at {significant(held.last)}: "
            "too few rows to tell a turn from scatter"
        ]
    return []


def how_sure(word: Word, grade: str, evidence: Evidence) -> list[str]:
    """What the grade means for the word that was said."""
    chosen = evidence.chosen
    if word in (Word.BROKEN, Word.NOT_TRAINING, Word.SATURATED) or chosen is None or evidence.why_unknown:
        return []
    if word is Word.UNDETERMINED:
        return []
    if evidence.exact:
        pairs = (
            f"these {evidence.num_pairs} pairs" if evidence.num_pairs else "these pairs of the evaluation set"
        )
        pairs = "this pair" if evidence.num_pairs == 1 else pairs
        known = (
            "measured on the same pairs at the start and at the end, so the number is exact for "
            f"{pairs}; it does not say how other pairs fared"
        )
        wobble = "; that a run which wobbles ends so far from its first row is not excluded"
        return [f"{grade}: {known}{'' if grade == 'clear' else wobble}"]
    over = "over the prompts of the probe set" if evidence.num_prompts else "from the scatter of the rows"
    if not chosen.error:
        return [f"{grade}: the rows do not scatter about their trend"]
    return [f"{grade}: the standard error {over} is {amount(chosen.error)} {evidence.unit}"]


__all__ = ["amount", "headline", "how_sure", "number", "story"]

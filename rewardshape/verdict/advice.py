"""What to try next, for a word and what was measured beside it."""

from __future__ import annotations

from rewardshape.analysis.generations import Judgement
from rewardshape.analysis.resampling import MIN_PROMPTS
from rewardshape.logs.names import SERIES
from rewardshape.numbers import moment, number, signed
from rewardshape.verdict.evidence import Evidence, Step
from rewardshape.verdict.thresholds import (
    AGAINST,
    CARRIED_SHARE,
    CHANCE_LIKELY,
    EASY,
    HARDLY,
    HIGH_ACCURACY,
    TIES,
)
from rewardshape.verdict.words import Word


def advice_for(word: Word, evidence: Evidence, *, gave_back: bool, fell: bool) -> list[str]:
    """Sentences to act on, the most useful first."""
    if word is Word.NOT_TRAINING and evidence.reference.beta == 0:
        return ["Set β above 0 (0.1 is usual with a reference): at 0 the loss on the pairs teaches nothing."]
    if word is Word.BROKEN and _never_finite(evidence):
        return [
            word.advice[0],
            "No row is finite, so no checkpoint is worth going back to: look at the weights that training began with, "
            "the precision, and the pairs of the first batch.",
        ]
    if word is Word.NOT_TRAINING and _has_gradients(evidence):
        return [
            "The gradient norms are not 0, so weights are trained and the pairs differ: nothing has moved yet.",
            word.advice[-1],
        ]
    if word in (Word.BROKEN, Word.NOT_TRAINING):
        return list(word.advice)
    return [
        *_reference(evidence),
        *_against_the_order(word, evidence),
        *_stop(evidence),
        *_peak(word, evidence, gave_back),
        *_single_pairs(evidence),
        *_truncation(evidence),
        *(tried.sentence for tried in evidence.tried),
        *_of_word(word, evidence),
        *_fall_too(word, fell),
        *_measure(word, evidence, gave_back),
        *_not_finite(evidence),
    ]


def _never_finite(evidence: Evidence) -> bool:
    """Whether a log is broken from its first row on."""
    broken, rows = evidence.broken, evidence.progress
    return broken is not None and len(rows) > 0 and not (rows["step"] < broken.step).any()


def _has_gradients(evidence: Evidence) -> bool:
    """Whether the gradient norm is above 0 in most rows of a log that has it."""
    if "grad_norm" not in evidence.progress:
        return False
    norms = evidence.progress["grad_norm"].dropna()
    return len(norms) > 0 and bool((norms > 0).mean() > 0.5)


def _against_the_order(word: Word, evidence: Evidence) -> list[str]:
    """What to look at where training went against the order of the pairs, and none that was there was lost."""
    accuracy, margin = evidence.learning.accuracy, evidence.learning.margin
    change = evidence.learning.margin_change
    if word is Word.COLLAPSED or accuracy is None or margin is None or change is None:
        return []
    if accuracy.last >= AGAINST or margin.last >= 0 or change.value >= 0 or change.chance > CHANCE_LIKELY:
        return []
    return [
        f"Check first which response is called chosen: the margin went from {signed(margin.first, 2)} to "
        f"{signed(margin.last, 2)}, so training pushed against the order of the pairs (columns or labels swapped, or a "
        "sign in the loss)."
    ]


def _of_word(word: Word, evidence: Evidence) -> list[str]:
    """What the word advises; where the answers were judged, what they say in place of how to find out."""
    if word is Word.SATURATED:
        stop, *others = word.advice
        return [stop, *_too_easy(evidence.learning.early_accuracy), *others]
    if word is not Word.DISPLACED or not evidence.sampled:
        return list(word.advice)
    return [_answered(evidence.answers) if evidence.answers else _JUDGE, *word.advice[1:]]


_JUDGE = (
    "Measure before you mend: a margin loss allows chosen to fall, and the fall harms only if the probability goes to "
    "worse answers. Answers were sampled: read those of the first and the last step side by side, or have people judge "
    "them (rewardshape judgements)."
)


def _too_easy(accuracy: float | None) -> list[str]:
    """What to do about pairs that were told apart from the start, or, where that is not known, in case they were."""
    if accuracy is not None and accuracy < EASY:
        return []
    known = (
        "If accuracy was near 1 from the start,"
        if accuracy is None
        else f"Accuracy was {number(accuracy, 2)} from the start:"
    )
    return [
        f"{known} the pairs are too easy: chosen and rejected differ by style, length or source. Draw both from the "
        "model itself, or drop pairs that the reference already orders by a wide margin."
    ]


def _answered(answers: tuple[Judgement, ...]) -> str:
    """What to do about a fall whose answers were judged."""
    found = {answer.word for answer in answers}
    if "lost to worse answers" in found:
        return "Mend it: the answers became worse too. An earlier checkpoint is the first thing to try."
    if "cannot tell" in found:
        prompts = min(answer.num_prompts for answer in answers)
        return (
            f"Measure before you mend: {prompts} prompts do not tell whether the answers became worse. Four times as "
            "many (--samples) halve the interval."
        )
    return (
        "The fall alone is no reason to change anything: the answers did not become worse by what judged them. What "
        "follows is for those to whom the log-probs themselves matter."
    )


def _reference(evidence: Evidence) -> list[str]:
    if not evidence.started_elsewhere:
        return []
    return [
        "Check the reference before all else: the loss weighs pairs by their distance from it, and pairs that it puts "
        "far apart teach nothing. Merge an adapter before you train another on it, or name the reference itself."
    ]


def _stop(evidence: Evidence) -> list[str]:
    held = evidence.held_out
    if held is None or not (held.worse or held.above_start):
        return []
    if held.above_start:
        return [
            f"No checkpoint is better than the model before training by the {held.measure}: find out why (learning "
            "rate, labels, the reference) before you take one."
        ]
    return [
        f"Take the checkpoint of {evidence.counts} {moment(held.best_step)}: the {held.measure} was best there and "
        "has become worse since."
    ]


def _peak(word: Word, evidence: Evidence, gave_back: bool) -> list[str]:
    if not gave_back or word is Word.DISPLACED or evidence.highest is None or evidence.chosen is None:
        return []
    below = evidence.chosen.value < 0
    return [
        f"Consider the checkpoint of {evidence.counts} {moment(evidence.highest.step)}: chosen peaked there and has "
        f"been falling since{'' if below else ', which is displacement that has not yet reached the start'}"
        f"{_margin_since(evidence, evidence.highest.step)}."
    ]


def _margin_since(evidence: Evidence, step: Step | None) -> str:
    """What the rest of a run bought, on pairs that were measured at both ends."""
    rows = evidence.progress
    if step is None or not {"split", "step", "margin"} <= set(rows):
        return ""
    held = rows[rows["split"] == "eval"].dropna(subset="margin")
    until = held[held["step"] <= step]
    if until.empty:
        return ""
    then, last = until["margin"].iloc[-1], held["margin"].iloc[-1]
    return f"; the mean margin was {signed(then, 2)} there and ends at {signed(last, 2)}"


LET_GO = "Clip the gradient, drop or mend such pairs, or take a reward shape that lets go of them."


def _single_pairs(evidence: Evidence) -> list[str]:
    carried = evidence.learning.carried
    if carried is None:
        return []
    if carried.steps:
        return [
            f"Do not go on from here before you have looked at the batches of {carried.what}: their loss is the run's. "
            f"{LET_GO}"
        ]
    owned = (
        "a step is mostly its gradient" if carried.share >= CARRIED_SHARE else "the loss is mostly its own"
    )
    return [f"Do not go on from here before you have looked at {carried.what}: {owned}. {LET_GO}"]


def _truncation(evidence: Evidence) -> list[str]:
    if not evidence.learning.ties or evidence.learning.ties <= TIES:
        return []
    return [
        "Count the pairs whose two responses are the same after truncation, and raise max_length or drop them."
    ]


def _fall_too(word: Word, fell: bool) -> list[str]:
    if word is not Word.SATURATED or not fell:
        return []
    return [
        "Chosen also lost probability; an earlier checkpoint has lost less of it at the same order of the pairs."
    ]


def _measure(word: Word, evidence: Evidence, gave_back: bool) -> list[str]:
    """What to measure, where the word is weak for want of it."""
    ours = evidence.num_pairs is not None
    few = evidence.exact and ours
    if evidence.never_held:
        return [
            "Check the labels, and that batches hold examples of both kinds: without one of them nothing is compared."
        ]
    if ours and evidence.why_unknown:
        return []
    if word is Word.UNDETERMINED or (few and word in (Word.DISPLACED, Word.NOT_DISPLACED)):
        return [_more(evidence)] if ours else [_LOG_MORE]
    if word is Word.NOT_DISPLACED:
        learnt, gained = evidence.learning.accuracy, evidence.learning.accuracy_change
        still = (
            gained is not None
            and gained.low is not None
            and gained.high is not None
            and -HARDLY <= gained.low
            and gained.high < HARDLY
        )
        small = still and learnt is not None and learnt.last < HIGH_ACCURACY
        go_on = (
            "Accuracy has hardly moved (a growth of 0.1 is excluded): train longer or raise the learning rate, and "
            "watch chosen while you do."
        )
        look = "read the sampled answers" if evidence.sampled else "sample a few prompts"
        keep = f"No sign of displacement: {look} before you call the run good."
        return [] if evidence.learning.carried else [go_on] if small else [] if gave_back else [keep]
    if not evidence.evaluated:
        return ["Hold out a fixed set of pairs and evaluate it from step 0: batches hide small changes."]
    return []


_LOG_MORE = (
    "Log rewards/chosen, rewards/rejected and logps/chosen on a fixed evaluation set, before the first step and every "
    "few steps: a margin alone grows whether chosen rises or falls."
)


def _more(evidence: Evidence) -> str:
    prompts, seen = evidence.num_prompts or 1, evidence.smallest_fall
    if seen is None or evidence.exact:
        return f"Measure more probe pairs: an interval for others takes {MIN_PROMPTS} prompts (--probe-pairs 64)."
    needed = max(int(-(-prompts * (seen / evidence.matters) ** 2 // 10) * 10), prompts + 10)
    pairs = round(needed * (evidence.num_pairs or prompts) / prompts)
    return (
        f"With about {needed} prompts a fall that matters would be seen four times in five (there were {prompts}): "
        f"--probe-pairs {pairs}, of data that has so many."
    )


def _not_finite(evidence: Evidence) -> list[str]:
    if not set(evidence.nonfinite_series) & set(
        SERIES.values()
    ):  # not logits over masked entries, nor side series
        return []
    return [
        "Find the first row that is NaN or infinite: an empty response after truncation gives 0/0 in a per-token mean, "
        "and float16 overflows. Skip empty rows, use bfloat16 and clip the gradient."
    ]

"""The one judgement: evidence to a word, how sure it is, and what to try.

`judge` takes one run (a `Run`, a `Log`, a `Trace` of one run, or a path that holds one); `judge_all` several. What a
run of ours shows is judged from its probe pairs, another trainer's log from its rows; the rules here are the same.
Every threshold is a constant of `rewardshape.verdict.thresholds`, with its reason.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rewardshape.errors import InputError
from rewardshape.logs.log import Log
from rewardshape.logs.read import read_logs
from rewardshape.numbers import as_json
from rewardshape.trace import Run, RunFolder, Trace, read_trace
from rewardshape.verdict import sentences
from rewardshape.verdict.advice import advice_for
from rewardshape.verdict.evidence import Change, Evidence, Step
from rewardshape.verdict.of_log import evidence_of_log
from rewardshape.verdict.of_trace import evidence_of_trace
from rewardshape.verdict.thresholds import (
    CHANCE,
    CHANCE_CLEAR,
    CHANCE_LIKELY,
    GAVE_BACK,
    LOST_ACCURACY,
    REGAINED,
    SATURATED_ACCURACY,
    TIES,
)
from rewardshape.verdict.words import Word

HowSure = Literal["clear", "likely", "weak"]
Source = Run | Log | Trace | str | Path


@dataclass(frozen=True)
class Verdict:
    """What happened in one run.

    Attributes
    ----------
    word : Word
        ``displaced``, ``not displaced``, ``recovered``, ``collapsed``, ``saturated``, ``not training``, ``broken`` or
        ``undetermined``.
    how_sure : {"clear", "likely", "weak"}
        Of this word: ``clear`` where chance gives it in fewer than 1 of 1,000 runs in which nothing happened,
        ``likely`` in fewer than 25. ``undetermined`` is always ``weak``.
    reasons : tuple of str
        Why this word and no other.
    evidence : Evidence
        The numbers behind it.
    """

    word: Word
    how_sure: HowSure
    evidence: Evidence
    reasons: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """The run."""
        return self.evidence.name

    @property
    def sentence(self) -> str:
        """The word with its number, in one sentence."""
        return sentences.headline(self.word, self.evidence, self.reasons)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the change of the chosen responses at the end, in `unit`; None where it is not known."""
        return self.evidence.interval

    @property
    def unit(self) -> str | None:
        """The unit of every change: nats, nats per token, or reward."""
        return self.evidence.unit if self.evidence.chosen is not None else None

    @property
    def advice(self) -> list[str]:
        """What to try, the most useful first."""
        return advice_for(
            self.word, self.evidence, gave_back=gave_back(self.evidence), fell=fell(self.evidence)
        )

    @property
    def answers(self) -> list[str]:
        """Whether the sampled answers got worse, a line a temperature; empty without samples and gold."""
        return [one.told(lost=fell(self.evidence)) for one in self.evidence.answers]

    @property
    def cannot_tell(self) -> list[str]:
        """What was not measured and might be asked of this word."""
        found = self.evidence
        if self.word in (Word.BROKEN, Word.NOT_TRAINING):
            return []
        return [*found.cannot_tell, *(found.cannot_tell_of_fall if fell(found) or dipped(found) else ())]

    @property
    def onset_step(self) -> Step | None:
        """The step by which the fall had begun, where a fall is part of the word."""
        return self.evidence.onset.step if self.word.falls and self.evidence.onset else None

    @property
    def onset_interval(self) -> tuple[Step, Step] | None:
        """95 % interval of `onset_step`."""
        onset = self.evidence.onset
        return (onset.low, onset.high) if self.onset_step is not None and onset else None

    @property
    def smallest_fall(self) -> float | None:
        """The smallest fall that would have been seen four times in five, in `unit`."""
        return self.evidence.smallest_fall

    @property
    def over_optimized(self) -> bool | None:
        """Whether the held-out measure became worse while training went on; None where that cannot be told."""
        return self.evidence.held_out.over_optimized if self.evidence.held_out else None

    @property
    def best_step(self) -> Step | None:
        """Where the held-out measure was best."""
        return self.evidence.held_out.best_step if self.evidence.held_out else None

    def _repr_html_(self) -> str:
        advice = "".join(f"<li>{html.escape(line)}</li>" for line in self.advice)
        return (
            f"<p><b>{html.escape(self.name)}: {self.word}</b> ({self.how_sure}). {html.escape(self.sentence)}</p>"
            f"<ol>{advice}</ol>"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, as ``diagnose --json`` prints it: no NaN, no numpy."""
        found, reference = self.evidence, self.evidence.reference
        chosen, lowest, learning = found.chosen, found.lowest, found.learning
        depth = None if chosen is None else -chosen.value
        in_nats = found.unit in ("nats", "nats per token")
        courses = {"loss": learning.loss, "margin": learning.margin, "accuracy": learning.accuracy}
        plain: dict[str, Any] = as_json(
            {
                "name": self.name,
                "form": found.form,
                "word": self.word.value,
                "verdict": self.word.value,
                "sentence": self.sentence,
                "how_sure": self.how_sure,
                "confidence": self.how_sure,
                "interval": self.interval,
                "unit": self.unit,
                "change": None if chosen is None else chosen.value,
                "rejected_change": None if found.rejected is None else found.rejected.value,
                "depth": depth,
                "depth_unit": self.unit,
                "depth_nats": depth if in_nats else None,
                "depth_noise": None if chosen is None else chosen.error,
                "exact": found.exact,
                "num_pairs": found.num_pairs,
                "num_prompts": found.num_prompts,
                "smallest_fall": self.smallest_fall,
                "onset_step": self.onset_step,
                "onset_interval": self.onset_interval,
                "deepest": None if lowest is None else -lowest.value,
                "deepest_step": None if lowest is None else lowest.step,
                "per_token": found.per_token,
                "beta": reference.beta,
                "beta_spread": reference.beta_spread,
                "beta_source": found.beta_source,
                "reference_chosen_logp": reference.chosen,
                "reference_rejected_logp": reference.rejected,
                "reference_spread": reference.spread,
                "reference_free": reference.free,
                "fixed_set": reference.holds if not reference.free else None,
                "over_optimized": self.over_optimized,
                "best_step": self.best_step,
                "nonfinite_since": found.broken.step if found.broken else None,
                "nonfinite_steps": list(found.nonfinite_steps),
                "nonfinite_series": list(found.nonfinite_series),
                "missing": list(found.missing),
                "basis": found.basis,
                "baseline": str(found.baseline),
                "final": {name: course.last for name, course in courses.items() if course is not None},
                "reasons": list(self.reasons),
                "story": sentences.story(self.word, found),
                "answers": [
                    {**vars(one), "sentence": line}
                    for one, line in zip(found.answers, self.answers, strict=True)
                ],
                "cannot_tell": self.cannot_tell,
                "checks": list(found.checks),
                "advice": self.advice,
            }
        )
        return plain


def judge(source: Source, *, beta: float | None = None, columns: Mapping[str, str] | None = None) -> Verdict:
    """Judge one run.

    Parameters
    ----------
    source : Run, Log, Trace or path
        A run, a log, a trace of one run, or a path that holds one.
    beta : float, optional
        β of a log, where the user knows it; else it is recovered from a fixed evaluation set, or read in the text.
    columns : mapping, optional
        Of a path to a plain CSV or JSONL: see `rewardshape.logs.read_logs`.

    Raises
    ------
    InputError
        If nothing is understood, the log is no preference log, or there are several runs.

    Examples
    --------
    >>> judge("trainer_state.json").word                # doctest: +SKIP
    <Word.DISPLACED: 'displaced'>
    """
    verdicts = judge_all(source, beta=beta, columns=columns)
    if len(verdicts) != 1:
        raise InputError(f"{len(verdicts)} runs ({', '.join(verdicts)}): judge takes one; use judge_all")
    return next(iter(verdicts.values()))


def judge_all(
    source: Source, *, beta: float | None = None, columns: Mapping[str, str] | None = None
) -> dict[str, Verdict]:
    """Judge every run of a source.

    Parameters
    ----------
    source, beta, columns
        As for `judge`; a trace or a path may hold several runs.

    Returns
    -------
    dict of str to Verdict
        By the name of the run, in the order of the source.

    Raises
    ------
    InputError
        If nothing is understood, or the log is no preference log.
    """
    found = [verdict_of(evidence) for evidence in _evidence(source, beta, columns)]
    names: dict[str, Verdict] = {}
    for verdict in found:
        names[verdict.name if verdict.name not in names else f"{verdict.name} ({len(names) + 1})"] = verdict
    return names


def _evidence(source: Source, beta: float | None, columns: Mapping[str, str] | None) -> list[Evidence]:
    if isinstance(source, Log):
        return [evidence_of_log(source, beta=beta)]
    if isinstance(source, Trace):
        return evidence_of_trace(source)
    if isinstance(source, Run):
        return evidence_of_trace(read_trace(source.folder))
    path = Path(source)
    record = RunFolder(path).trace
    if record.is_file() or any(path.glob(f"*/{record.name}")):
        return evidence_of_trace(read_trace(path))
    return [evidence_of_log(log, beta=beta) for log in read_logs(path, columns)]


# --- the rules ---------------------------------------------------------------------------------------------------


def verdict_of(evidence: Evidence) -> Verdict:
    """The word that the evidence bears: the most specific that holds."""
    if evidence.broken is not None:
        return Verdict(Word.BROKEN, "clear", evidence, (sentences.since_when_broken(evidence),))
    if evidence.learning.still is not None and not saturated(evidence):
        return Verdict(Word.NOT_TRAINING, "clear", evidence, (evidence.learning.still,))
    if saturated(evidence):
        return Verdict(Word.SATURATED, "clear", evidence, (sentences.what_is_left(evidence),))
    word, sure, reasons = _of_chosen(evidence)
    if word is Word.DISPLACED and lost_preference(evidence):
        chances = evidence.chosen.chance if evidence.chosen else 1.0, evidence.learning.order_lost
        lost = sentences.how_preference_was_lost(evidence)
        return Verdict(Word.COLLAPSED, _grade(max(chances)), evidence, (lost,))
    return Verdict(word, sure, evidence, reasons)


def _of_chosen(evidence: Evidence) -> tuple[Word, HowSure, tuple[str, ...]]:
    chosen = evidence.chosen
    if chosen is None or evidence.why_unknown:
        return Word.UNDETERMINED, "weak", (evidence.why_unknown or "the chosen responses were not measured",)
    if dipped(evidence):
        lowest, regained = evidence.lowest, evidence.regained
        assert lowest is not None
        assert regained is not None
        return Word.RECOVERED, _grade(max(lowest.chance, regained.chance)), ()
    if fell(evidence):
        return Word.DISPLACED, _grade(chosen.chance), ()
    if chosen.value > 0 and chosen.chance <= CHANCE_LIKELY:
        return Word.NOT_DISPLACED, _grade(chosen.chance), ()
    if evidence.exact or _too_small(evidence):
        return Word.NOT_DISPLACED, "clear", ()
    if chosen.value < 0 and chosen.chance <= CHANCE_LIKELY:
        return Word.NOT_DISPLACED, "likely", ()
    if not _a_fall_would_show(evidence):
        return Word.UNDETERMINED, "weak", (sentences.what_could_hide(evidence),)
    return Word.NOT_DISPLACED, "likely", ()


def _grade(chance: float) -> HowSure:
    return "clear" if chance <= CHANCE_CLEAR else "likely" if chance <= CHANCE_LIKELY else "weak"


def _beyond(change: Change | None, smallest: float) -> bool:
    return change is not None and change.chance <= CHANCE_LIKELY and abs(change.value) >= smallest


def fell(evidence: Evidence) -> bool:
    """Whether chosen ends below its baseline: by more than is worth a word, and by more than chance gives."""
    chosen = evidence.chosen
    return chosen is not None and chosen.value < 0 and _beyond(chosen, evidence.smallest)


def _too_small(evidence: Evidence) -> bool:
    """Whether even the low end of the interval is too small a fall for a word."""
    chosen = evidence.chosen
    return chosen is not None and chosen.low is not None and chosen.low > -evidence.smallest


def _a_fall_would_show(evidence: Evidence) -> bool:
    """Whether a fall that matters would have been seen, and is excluded by the interval."""
    chosen, seen = evidence.chosen, evidence.smallest_fall
    if chosen is None or chosen.low is None or seen is None:
        return False
    return seen <= evidence.matters and chosen.low > -evidence.matters


def dipped(evidence: Evidence) -> bool:
    """Whether chosen fell and came back: to its start within noise, or by most of its deepest fall."""
    chosen, lowest, regained = evidence.chosen, evidence.lowest, evidence.regained
    if chosen is None or lowest is None or regained is None or lowest.value >= 0:
        return False
    if not (_beyond(lowest, evidence.smallest) and _beyond(regained, evidence.smallest)):
        return False
    most = chosen.value > (1 - REGAINED) * lowest.value
    return bool(most or not fell(evidence))


def gave_back(evidence: Evidence) -> bool:
    """Whether chosen rose and then lost a good part of it again, each by more than chance gives."""
    highest, lost = evidence.highest, evidence.given_back
    if highest is None or lost is None or highest.value <= 0 or lost.value >= 0:
        return False
    sure = _beyond(highest, evidence.smallest) and _beyond(lost, evidence.smallest)
    return bool(sure and -lost.value > GAVE_BACK * highest.value)


def saturated(evidence: Evidence) -> bool:
    """Whether the gradient has vanished because the pairs are learnt."""
    learning = evidence.learning
    if learning.gradient_left is None or not 0 <= learning.gradient_left < learning.saturated_below:
        return False
    return learning.accuracy is None or learning.accuracy.last >= SATURATED_ACCURACY


def lost_preference(evidence: Evidence) -> bool:
    """Whether a preference that was there is gone: accuracy or margin stood higher once and end at chance or below."""
    accuracy, gap = evidence.learning.accuracy, evidence.learning.gap
    if (evidence.learning.ties or 0.0) > TIES or evidence.learning.order_lost > CHANCE_LIKELY:
        return False
    if accuracy is not None:
        fallen = accuracy.highest - accuracy.last >= LOST_ACCURACY and accuracy.highest > CHANCE
        kept = gap is not None and gap.last > 0 and gap.last >= 0.5 * gap.highest
        return accuracy.last <= CHANCE and fallen and not kept
    return gap is not None and gap.last <= 0 < gap.highest - LOST_ACCURACY

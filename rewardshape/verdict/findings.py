"""What a run or a sweep shows, for a page: the verdicts in a headline, what stands beside them, and what to try.

The word, interval and onset of a run are its `Verdict`'s; a statement about the pairs or about settings against each
other is made only where its interval bears it, and where it does not, that is what is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from rewardshape.analysis.comparison import baseline_setting, settings_along
from rewardshape.analysis.displacement import (
    displacement_curve,
    displacement_phases,
    margin_curve,
    summarise,
)
from rewardshape.analysis.equal import Axis, compare_along
from rewardshape.analysis.generations import PLAINLY, chosen_checkpoint
from rewardshape.analysis.pairs import DESCRIPTORS, falling_pairs, pair_correlations, pairs_table
from rewardshape.analysis.samples import has_gold
from rewardshape.errors import InputError
from rewardshape.numbers import counted, interval, number, percents, shortest, signed, significant, typed
from rewardshape.trace import Trace
from rewardshape.verdict.advice import LET_GO
from rewardshape.verdict.contrast import Contrast, contrast
from rewardshape.verdict.judge import Verdict, judge_all
from rewardshape.verdict.sentences import story
from rewardshape.verdict.thresholds import LATE_SHARE
from rewardshape.verdict.words import Word

# A setting with such a run is not recommended, however high its chosen responses stood on the way there.
NO_EXAMPLE = (Word.BROKEN, Word.COLLAPSED, Word.NOT_TRAINING)


@dataclass(frozen=True)
class Findings:
    """A headline, the sentence that bears it out, what to try next (most useful first), and of a sweep its answers."""

    headline: str
    sentence: str
    advice: list[str]
    answers: tuple[str, ...] = ()


@dataclass
class Tables:
    """The tables of a trace, each made once and when first asked for."""

    trace: Trace

    @cached_property
    def labels(self) -> dict[str, str]:
        """Every run's name for people."""
        return {run.name: run.label for run in self.trace.runs}

    @cached_property
    def setting_labels(self) -> dict[str, str]:
        """Every setting's name for people."""
        return {run.setting: run.setting_label for run in self.trace.runs}

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """The judgement of every run."""
        return judge_all(self.trace)

    @cached_property
    def curve(self) -> pd.DataFrame:
        """`displacement_curve` of the trace."""
        return displacement_curve(self.trace)

    @cached_property
    def margins(self) -> pd.DataFrame:
        """`margin_curve` of the trace."""
        return margin_curve(self.trace)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """`displacement_summary` of the trace."""
        return summarise(self.curve, self.margins, self.phases)

    @cached_property
    def deepest(self) -> str:
        """The run whose chosen responses fell deepest."""
        return str(self.summary.sort_values("chosen_change")["run"].iloc[0])

    @cached_property
    def phases(self) -> pd.DataFrame:
        """`displacement_phases` of the trace."""
        return displacement_phases(self.trace)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """`pairs_table` of the trace."""
        return pairs_table(self.trace)

    @cached_property
    def correlations(self) -> pd.DataFrame:
        """Of the run that fell deepest."""
        return pair_correlations(self.pairs[self.pairs["run"] == self.deepest])

    def along(self, axis: Axis) -> pd.DataFrame | None:
        """The settings of a sweep along margin or KL, set against one of them; None where that cannot be."""
        baseline = baseline_setting(self.trace)
        try:
            rows = compare_along(self.trace, axis, baseline=baseline)
        except InputError:  # no samples, or probe sets that cannot be paired
            return None
        rows = rows[~rows["setting"].isin(list(self.left_out))]
        return settings_along(rows) if {baseline} < set(rows["setting"]) else None

    @cached_property
    def left_out(self) -> dict[str, str]:
        """The settings that are not set beside the others, and why."""
        lost = not_compared(self.verdicts)
        return {run.setting: lost[run.name] for run in self.trace.runs if run.name in lost}

    @cached_property
    def contrast(self) -> Contrast | str:
        """The best setting against the worst at equal margin, or why they cannot be compared."""
        gains = self.margins.groupby("run")["logp_margin"].agg(lambda gap: float((gap - gap.iloc[0]).max()))
        return contrast(self.trace, {str(run): float(gain) for run, gain in gains.items()}, self.left_out)


def not_compared(verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """The runs that are not set beside others by their means, and why."""
    found = {}
    for run, verdict in verdicts.items():
        if verdict.evidence.learning.carried is not None:
            found[run] = f"it is {verdict.evidence.learning.carried}"
        elif verdict.word in NO_EXAMPLE:
            found[run] = f"it is {verdict.word}"
    return found


def findings(trace: Trace, tables: Tables | None = None) -> Findings:
    """The findings of a run, or of a sweep.

    Examples
    --------
    >>> findings(read_trace("runs/embedded")).headline       # doctest: +SKIP
    'The chosen responses lost probability in all 4 runs.'
    """
    tables = tables or Tables(trace.begun())
    if len(tables.trace.runs) > 1:
        return _sweep_findings(tables)
    [verdict] = tables.verdicts.values()
    advice = [*verdict.advice[:1], *_by_answers(tables), *verdict.advice[1:]]
    told = story(verdict.word, verdict.evidence)
    if verdict.word in (Word.DISPLACED, Word.COLLAPSED):
        advice += _earlier_stop(tables, verdict)
        told += _in_common(tables)
    return Findings(verdict.sentence, " ".join(told), advice)


def _earlier_stop(tables: Tables, verdict: Verdict) -> list[str]:
    accuracy = tables.margins["accuracy"].to_numpy()
    chosen = tables.curve[tables.curve["response"] == "chosen"]
    change, steps = chosen["logp_mean_change"].to_numpy(), chosen["step"].to_numpy()
    first = int((accuracy >= accuracy[-1]).argmax())
    after = change[-1] - change[first]
    if first == 0 or after > LATE_SHARE * change[-1]:
        return []
    held_out = verdict.evidence.held_out
    if held_out and (held_out.above_start or (held_out.worse and held_out.best_step != steps[first])):
        return []  # one advice on where to stop
    margin = tables.margins["logp_margin"].to_numpy()
    return [
        f"Stop earlier. Accuracy first stood where it ended at step {steps[first]}, with the chosen responses at"
        f" {signed(change[first])}; the rest of the run cost another {number(-after)} nats per token, and moved chosen "
        f"minus rejected by {signed(margin[-1] - margin[first])}. Try --steps {steps[first]}: a rate that decays then "
        "decays within those steps, so the run will not be the same up to there."
    ]


def _in_common(tables: Tables) -> list[str]:
    """What falling pairs have in common, where it is beyond chance over all descriptors together."""
    if tables.summary["chosen_change"].min() >= 0:  # in no run did they fall
        return []
    pairs = tables.pairs[tables.pairs["run"] == tables.deepest]
    found = falling_pairs(pairs).query("told")
    if found.empty:
        return []
    row = found.iloc[0]
    deeper = row["rho"] < 0
    [descriptor] = [known for known in DESCRIPTORS if known.name == row["descriptor"]]
    of = f" of {tables.labels[tables.deepest]}" if len(tables.trace.runs) > 1 else ""
    return [
        f"Pairs{of} that are {descriptor.more} fell {'deeper' if deeper else 'less'} (Spearman "
        f"ρ = {signed(row['rho'], 2)}; p = {significant(row['p_value'], 2)} for all descriptors together, by "
        "shuffling the pairs)."
    ]


def _by_answers(tables: Tables) -> list[str]:
    """Which step to take, by gold, where the answers of the last one became worse."""
    judged = {run.name: tables.verdicts[run.name].evidence.answers for run in tables.trace.runs}
    worse = [
        answer for answers in judged.values() for answer in answers if answer.word == "lost to worse answers"
    ]
    if not worse:
        return []
    temperature = max(answer.temperature for answer in worse)
    best = chosen_checkpoint(tables.trace, temperature=temperature)
    if best.empty:  # too few prompts to choose by one half and judge by the other
        return []
    found = best.iloc[int(best["gold_of_choice"].argmax())]  # by the half that does not judge
    many = len(judged) > 1
    fell = sum(any(answer in worse for answer in answers) for answers in judged.values())
    became = (
        f"In {fell} of {len(judged)} runs the last answers are worse than those of step 0. " if many else ""
    )
    if found["step"] == 0 or not found["gain"] > 0:
        return [
            f"{became}None of the sampled steps is seen to be better than step 0 by gold: sample more often "
            "(--sample-every), and stop before the answers become worse."
        ]
    which = f"step {found['step']}" + (f" of {tables.labels[found['run']]}" if many else "")
    alike = int((best["gold_of_choice"] == found["gold_of_choice"]).sum()) - 1
    also = f" (as high: the best step of {counted(alike, 'other run')})" if alike else ""
    how = f"at T = {shortest(temperature)}" if temperature else "of the greedy answers"
    worth = f"is worth {signed(found['gain'], 2)} against step 0 ({interval(found, 'gain', 2)}"
    if found["gain_low"] > 0:
        return [
            f"{became}Stop at {which}{also}: half of the prompts choose it by gold {how}, and on the other half it "
            f"{worth})."
        ]
    tested = "not beyond chance" if np.isfinite(found["gain_low"]) else "not tested"
    return [
        f"{became}No step is shown to be better than step 0: by gold {how} half of the prompts choose {which}{also}, "
        f"and on the other half it {worth}, {tested})."
    ]


def _answers(tables: Tables) -> tuple[str, ...]:
    """How many runs' answers got worse, a line for each temperature."""
    by_temperature: dict[float, dict[str, list[str]]] = {}
    for run in tables.trace.runs:
        for answer in tables.verdicts[run.name].evidence.answers:
            words = by_temperature.setdefault(answer.temperature, {})
            words.setdefault(PLAINLY[answer.word], []).append(tables.labels[run.name])
    lines = []
    for temperature, words in by_temperature.items():
        total = sum(map(len, words.values()))
        said = []
        for word, names in words.items():
            which = f" ({', '.join(names)})" if len(names) <= MOST_NAMED else ""
            said.append(f"{word} in {len(names)} of {total} runs{which}")
        how = f"answers at T = {shortest(temperature)}" if temperature else "greedy answers"
        lines.append(f"{how} against those of step 0: {'; '.join(said)}")
    return tuple(lines)


MOST_NAMED = 4  # runs named in a line about answers


def _sweep_findings(tables: Tables) -> Findings:
    summary = tables.summary
    words = Counter(verdict.word for verdict in tables.verdicts.values())
    total = len(summary)
    if len(words) == 1:
        [word] = words
        headline = f"{'Both runs' if total == 2 else f'All {total} runs'}: {word}."
    else:
        told = ", ".join(f"{word} in {count}" for word, count in words.most_common())
        headline = f"Of {total} runs: {told}."
    ordered = summary.dropna(subset="chosen_change").sort_values("chosen_change")
    if ordered.empty:
        return Findings(headline, "No run has a finite last step.", _carried(tables), _answers(tables))
    deepest, mildest = ordered.iloc[0], ordered.iloc[-1]
    shares = ordered["share_fallen"]
    low, high = (
        (signed(row["chosen_change"]), f"({tables.labels[row['run']]}, {interval(row, 'chosen_change')})")
        for row in (deepest, mildest)
    )
    meaning = f"{next(iter(words)).meaning.capitalize()}. " if len(words) == 1 else ""
    ending = (
        f"{meaning}At the last step they stand between {low[0]} nats per token {low[1]} and {high[0]} {high[1]} from "
        f"where they began; {percents(shares.min(), shares.max())} of the pairs fell."
    )
    if summary["setting"].nunique() == 1:  # repetitions of one setting: nothing to set side by side
        sentence = " ".join([ending, *_in_common(tables)])
        return Findings(headline, sentence, _sweep_advice(tables, None), _answers(tables))
    found = tables.contrast
    sentence = " ".join([ending, _equal_sentence(tables, found), *_in_common(tables)])
    return Findings(headline, sentence, _sweep_advice(tables, found), _answers(tables))


def _equal_sentence(tables: Tables, compared: Contrast | str) -> str:
    if isinstance(compared, str):
        return compared
    found, margins = compared.found, compared.margins
    highest, lowest = (tables.setting_labels[setting] for setting in (compared.best, compared.worst))
    among = f"the best and the worst of {len(compared.settings)} settings, by {compared.method}"
    if not compared.clear:
        sentence = (
            "At equal margin no setting keeps the chosen responses higher than another beyond chance, as far as each"
            f" got: what speaks most for one is {highest} above {lowest} by {number(found.difference[found.place])} at"
            f" a gain of {significant(margins[found.place], 2)} nats per token, and chance alone gives as much over"
            f" {compared.over} (p = {significant(found.p_value, 2)} between {among})."
        )
    else:
        rows = zip(margins, found.difference, found.low, found.high, strict=True)
        steps = [
            f"by {signed(gap)} ({signed(low)} to {signed(high)}) at a gain of {significant(margin, 2)}"
            for margin, gap, low, high in rows
            if np.isfinite(gap)
        ]
        sentence = (
            f"At equal margin {highest} keeps the chosen responses above {lowest}: {', '.join(steps)} nats per token"
            f" (95 % intervals over {compared.over}, of {among})."
        )
    for setting, why in compared.left_out.items():
        sentence += f" {tables.setting_labels[setting]} is not compared: {why}."
    return sentence


def _sweep_advice(tables: Tables, found: Contrast | str | None) -> list[str]:
    advice = [*_carried(tables), *_by_answers(tables)]
    if isinstance(found, Contrast):
        advice += _where_next(tables, found)
        if found.clear:
            advice += _not_by_last_step(tables, found)
    if tables.summary["seed"].nunique() < 2:
        advice.append(
            "These intervals are over the pairs of one run per setting. Before you rely on the order, repeat it:"
            " --seeds 5."
        )
    return advice


def _not_by_last_step(tables: Tables, found: Contrast) -> list[str]:
    ends = tables.summary.groupby("setting")[["chosen_change", "logp_margin"]].mean()
    gaps = {str(setting): float(gap) for setting, gap in ends["logp_margin"].items()}
    mildest = str(ends["chosen_change"].idxmax())
    if mildest == found.best or gaps[mildest] >= gaps[found.best]:
        return []
    margins = f"{signed(gaps[mildest], 2)} against {signed(gaps[found.best], 2)}"
    return [
        f"Do not choose by the last step: {tables.setting_labels[mildest]} looks mildest there because it"
        " went less far"
        f" (a log-prob margin of {margins}), not because it gives up less for its margin."
    ]


def _carried(tables: Tables) -> list[str]:
    """The single pairs and batches that carry runs, before anything else."""
    of: dict[str, list[str]] = {}
    for run in tables.trace.runs:
        carried = tables.verdicts[run.name].evidence.learning.carried
        if carried is not None:
            what = f"the batches of {carried.what}" if carried.steps else carried.what
            of.setdefault(what, []).append(tables.labels[run.name])
    return [
        f"Look at {what} before all else: {' and '.join(names)} {'is' if len(names) == 1 else 'are'} carried by it. "
        f"{LET_GO}"
        for what, names in of.items()
    ]


def _where_next(tables: Tables, found: Contrast) -> list[str]:
    """Where to look next among the α that were tried; never beyond them, where nothing was seen."""
    if not found.clear:
        judged = has_gold(tables.trace.samples)
        by = "by the gold reward of the answers" if judged else "by a gold reward (--sample-every)"
        among = " among those compared" if tables.left_out else ""
        return [f"No setting stands out at equal margin. Choose{among} {by}, or by accuracy."]
    label = tables.setting_labels[found.best]
    settings = found.settings.sort_values("alpha", ignore_index=True)
    alphas = settings["alpha"].to_numpy(float)
    paid = f"{label} paid least for its margin"
    if not np.isfinite(alphas).all() or len(set(alphas)) < len(alphas):
        return [f"{paid}. Look at its samples before you go on from it."]
    best = int(np.flatnonzero(settings["setting"] == found.best)[0])
    if best in (0, len(alphas) - 1):
        inward = _between(alphas[best], alphas[1 if best == 0 else -2])
        side = "smallest" if best == 0 else "largest"
        return [
            f"{paid} and is the {side} of the α compared, so where the optimum lies is open. Before you go beyond it,"
            f" see what its samples and its single pairs do; between it and its neighbour lies --alpha {inward}."
        ]
    near = " ".join(_between(alphas[i], alphas[best]) for i in (best - 1, best, best + 1))
    return [f"{paid}. Look closer around it: --alpha {near}."]


def _between(one: float, other: float) -> str:
    """The middle of two α, to be typed."""
    return typed(round(float(one + other) / 2, 6))

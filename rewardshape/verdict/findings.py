"""What a run or a sweep shows, for a page: the verdicts in a headline, what stands beside them, and what to try.

The word, interval and onset of a run are its `Verdict`'s; a statement about the pairs or about settings against each
other is made only where its interval bears it, and where it does not, that is what is said.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from rewardshape.analysis.comparison import compare_at_equal, over_seeds
from rewardshape.analysis.displacement import (
    displacement_curve,
    displacement_phases,
    margin_curve,
    summarise,
)
from rewardshape.analysis.pairs import DESCRIPTORS, falling_pairs, pair_correlations, pairs_table
from rewardshape.numbers import interval, number, percents, shortest, signed
from rewardshape.trace import Trace
from rewardshape.verdict.judge import Verdict, judge_all
from rewardshape.verdict.sentences import story
from rewardshape.verdict.thresholds import LATE_SHARE
from rewardshape.verdict.words import Word


@dataclass(frozen=True)
class Findings:
    """A headline, the sentence that bears it out, and what to try next (most useful first)."""

    headline: str
    sentence: str
    advice: list[str]


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
        return displacement_curve(self.trace)

    @cached_property
    def margins(self) -> pd.DataFrame:
        return margin_curve(self.trace)

    @cached_property
    def summary(self) -> pd.DataFrame:
        return summarise(self.curve, self.margins, self.phases)

    @cached_property
    def deepest(self) -> str:
        """The run whose chosen responses fell deepest."""
        return str(self.summary.sort_values("chosen_change")["run"].iloc[0])

    @cached_property
    def phases(self) -> pd.DataFrame:
        return displacement_phases(self.trace)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        return pairs_table(self.trace)

    @cached_property
    def correlations(self) -> pd.DataFrame:
        """Of the run that fell deepest."""
        return pair_correlations(self.pairs[self.pairs["run"] == self.deepest])

    @cached_property
    def at_equal_margin(self) -> pd.DataFrame:
        return compare_at_equal(self.trace, "logp_margin")


def findings(trace: Trace, tables: Tables | None = None) -> Findings:
    """The findings of a run, or of a sweep.

    Examples
    --------
    >>> findings(read_trace("runs/embedded")).headline       # doctest: +SKIP
    'The chosen responses lost probability in all 4 runs.'
    """
    tables = tables or Tables(trace)
    if len(trace.runs) > 1:
        return _sweep_findings(tables)
    [verdict] = tables.verdicts.values()
    advice = list(verdict.advice)
    if verdict.word in (Word.DISPLACED, Word.COLLAPSED):
        advice += [*_earlier_stop(tables), *_in_common(tables)]
    return Findings(verdict.sentence, " ".join(story(verdict.word, verdict.evidence)), advice)


def _earlier_stop(tables: Tables) -> list[str]:
    accuracy = tables.margins["accuracy"].to_numpy()
    chosen = tables.curve[tables.curve["response"] == "chosen"]
    change, steps = chosen["logp_mean_change"].to_numpy(), chosen["step"].to_numpy()
    first = int((accuracy >= accuracy[-1]).argmax())
    after = change[-1] - change[first]
    if first == 0 or after > LATE_SHARE * change[-1]:
        return []
    return [
        f"Stop earlier. Accuracy first stood where it ended at step {steps[first]}, with the chosen responses at"
        f" {signed(change[first])}; the rest of the run cost another {number(-after)} nats per token."
        f" Try --steps {steps[first]}."
    ]


def _in_common(tables: Tables) -> list[str]:
    """What falling pairs have in common, where it is beyond chance over all descriptors together."""
    pairs = tables.pairs[tables.pairs["run"] == tables.deepest]
    found = falling_pairs(pairs).query("told")
    if found.empty:
        return []
    row = found.iloc[0]
    deeper = row["rho"] < 0
    [descriptor] = [known for known in DESCRIPTORS if known.name == row["descriptor"]]
    return [
        f"Pairs that are {descriptor.more} fell {'deeper' if deeper else 'less'} (Spearman "
        f"ρ = {signed(row['rho'], 2)}; p = {row['p_value']:.2g} for all descriptors together, by shuffling the pairs)."
    ]


@dataclass(frozen=True)
class Contrast:
    """A sweep at equal margin: where the chosen responses stand highest and lowest, and the difference."""

    value: float
    best: pd.Series
    worst: pd.Series
    difference: float
    low: float
    high: float
    over: str
    settings: pd.DataFrame

    @property
    def clear(self) -> bool:
        """Whether the interval of the difference excludes zero."""
        return self.high < 0


def equal_margin_contrast(tables: Tables) -> Contrast | None:
    """The best setting of a sweep against its worst at equal margin.

    The interval is over seeds where every setting has several, else over pairs. None where the margin did not
    grow in every run, or where there is one setting only.
    """
    rows = tables.at_equal_margin
    settings = over_seeds(rows)
    if rows["value"].iloc[0] <= 0 or len(settings) < 2:
        return None
    ordered = settings.sort_values("chosen_change")
    worst, best = ordered.iloc[0], ordered.iloc[-1]
    if settings["num_seeds"].min() > 1:
        against = over_seeds(rows, baseline=best["setting"])
        against = against[against["setting"] == worst["setting"]].iloc[0]
        name, over = "chosen_change", f"{worst['num_seeds']} seeds"
    else:
        runs = dict(zip(rows["setting"], rows["run"], strict=True))
        paired = compare_at_equal(tables.trace, "logp_margin", baseline=runs[best["setting"]])
        against = paired[paired["run"] == runs[worst["setting"]]].iloc[0]
        name, over = "difference", "pairs"
    difference, low, high = (float(against[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return Contrast(rows["value"].iloc[0], best, worst, difference, low, high, over, settings)


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
    ordered = summary.sort_values("chosen_change")
    deepest, mildest = ordered.iloc[0], ordered.iloc[-1]
    shares = summary["share_fallen"]
    ends = [
        f"{signed(row['chosen_change'])} nats per token ({tables.labels[row['run']]}, {interval(row, 'chosen_change')})"
        for row in (deepest, mildest)
    ]
    ending = (
        f"At the last step they stand between {ends[0]} and {ends[1].replace(' nats per token', '')} from where they"
        f" began; {percents(shares.min(), shares.max())} of the pairs fell."
    )
    if summary["setting"].nunique() == 1:  # repetitions of one setting: nothing to set side by side
        return Findings(headline, ending, _sweep_advice(tables, None))
    contrast = equal_margin_contrast(tables)
    sentence = f"{ending} {_equal_sentence(tables, contrast)}"
    return Findings(headline, sentence, _sweep_advice(tables, contrast))


def _equal_sentence(tables: Tables, contrast: Contrast | None) -> str:
    if contrast is None:
        return "The margin did not grow in every run, so they cannot be set side by side at equal margin."
    best, worst = contrast.best, contrast.worst
    highest, lowest = (tables.setting_labels[row["setting"]] for row in (best, worst))
    sentence = (
        f"At equal margin (a gain of {contrast.value:.2g} nats per token) {highest} keeps the chosen"
        f" responses highest ({signed(best['chosen_change'])}) and {lowest} lowest"
        f" ({signed(worst['chosen_change'])})"
    )
    if not contrast.clear:
        return f"{sentence}, but the difference is within its interval over {contrast.over}."
    return (
        f"{sentence}: {number(-contrast.difference)} apart ({number(-contrast.high)} to {number(-contrast.low)} over"
        f" {contrast.over})."
    )


def _sweep_advice(tables: Tables, contrast: Contrast | None) -> list[str]:
    advice = _where_next(tables, contrast) if contrast else []
    if contrast and contrast.clear:
        advice += _not_by_last_step(tables, contrast)
    if tables.summary["seed"].nunique() < 2:
        advice.append(
            "These intervals are over the pairs of one run per setting. Before you rely on the order, repeat it:"
            " --seeds 5."
        )
    return advice + _in_common(tables)


def _not_by_last_step(tables: Tables, contrast: Contrast) -> list[str]:
    ends = tables.summary.groupby("setting")[["chosen_change", "logp_margin"]].mean()
    mildest, best = ends.sort_values("chosen_change").iloc[-1], ends.loc[contrast.best["setting"]]
    if mildest.name == best.name or mildest["logp_margin"] >= best["logp_margin"]:
        return []
    margins = f"{signed(mildest['logp_margin'], 2)} against {signed(best['logp_margin'], 2)}"
    return [
        f"Do not choose by the last step: {tables.setting_labels[str(mildest.name)]} looks mildest there because it"
        " went less far"
        f" (a log-prob margin of {margins}), not because it gives up less for its margin."
    ]


def _where_next(tables: Tables, contrast: Contrast) -> list[str]:
    if not contrast.clear:
        return [
            "No setting stands out at equal margin. Choose by accuracy, or by a gold reward (--sample-every)."
        ]
    settings = contrast.settings.sort_values("alpha", ignore_index=True)
    alphas = settings["alpha"].to_numpy(float)
    if not np.isfinite(alphas).all() or len(set(alphas)) < len(alphas):
        best_label = tables.setting_labels[contrast.best["setting"]]
        return [f"Go on from {best_label}: it paid least in chosen log-prob for the same margin."]
    best = int(np.flatnonzero(settings["setting"] == contrast.best["setting"])[0])
    if best == 0:
        further = 2 * alphas[0] - alphas[1]
        return [
            f"α = {shortest(alphas[0])} paid least for its margin and is the smallest you tried. Go on below it, where"
            f" w_w/w_l = e^(−αΔ) grows further with the score gap Δ: --alpha {further:g} {alphas[0]:g}."
        ]
    if best == len(alphas) - 1:
        further = 2 * alphas[-1] - alphas[-2]
        return [
            f"α = {shortest(alphas[-1])} paid least for its margin and is the largest you tried: the sweep has"
            f" not turned yet. Go on: --alpha {alphas[-1]:g} {further:g}."
        ]
    near = " ".join(f"{(alphas[i] + alphas[best]) / 2:g}" for i in (best - 1, best, best + 1))
    return [f"α = {shortest(alphas[best])} paid least for its margin. Look closer around it: --alpha {near}."]

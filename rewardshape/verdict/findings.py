"""What a run or a sweep shows, in words with their numbers, and what the theory says to try next.

A statement is made only where its 95 % interval bears it; where it does not, that is what is said. The theory is
one line: a step moves the chosen score by η·(w_w·a − w_l·b), with w_w and w_l the gradient weights and (a, b, c)
the Gram matrix of the pair's gradients, so a chosen response falls where b/a exceeds w_w/w_l.
"""

from __future__ import annotations

import math
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
from rewardshape.analysis.pairs import DESCRIPTORS, pair_correlations, pairs_table
from rewardshape.analysis.panels import chosen_and_rejected, pair_weights
from rewardshape.numbers import interval, number, percents, shortest, signed
from rewardshape.trace import Trace

# Weights that shrank to a twentieth: under the logistic link the pair's loss is then a few hundredths of a nat.
SATURATED = 0.05
# An earlier stop is worth a word if at least this share of the fall came after accuracy stood where it ended.
LATE_SHARE = 0.2
# Pairs for a power of 0.8 over pairs whose interval just reaches zero: ((1.96 + 0.84) / 1.96)².
POWER = 2.04


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
    def weights(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Gradient weights of the probe pairs of every run: chosen and rejected, (steps, pairs)."""
        return {pair[0].run.name: pair_weights(*pair) for pair in chosen_and_rejected(self.trace)}

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
    row = tables.summary.iloc[0]
    headline, sentence = _run_verdict(tables, row)
    return Findings(headline, sentence, _run_advice(tables, row))


def _run_verdict(tables: Tables, row: pd.Series) -> tuple[str, str]:
    phases = tables.phases.query("response == 'chosen'").iloc[0]
    fell = row["chosen_change_high"] < 0
    recovered = phases["depth_high"] < 0 and phases["recovery_low"] > 0
    sentences = [
        f"After {row['step']} steps the chosen responses of the probe set stand {signed(row['chosen_change'])} nats"
        f" per token from where they began (95 % interval {interval(row, 'chosen_change')},"
        f" {row['num_pairs']} pairs), and {row['share_fallen']:.0%} of them fell.",
        _rejected(tables, row),
    ]
    if fell and not pd.isna(phases["onset"]):
        sentences.append(f"The fall is beyond its interval from step {phases['onset']} on.")
    if recovered:
        sentences.append(
            f"It was deepest at step {phases['depth_step']} ({signed(phases['depth'])});"
            f" {number(phases['recovery'])} of that came back."
        )
    if fell:
        return "The chosen responses lost probability.", " ".join(sentences)
    if _gave_back(phases):
        sentences.append(
            f"They had risen to {signed(phases['peak'])} at step {phases['peak_step']} and have lost"
            f" {number(-phases['fall_from_peak'])} since (interval {interval(phases, 'fall_from_peak')})."
        )
        return "The chosen responses rose, then lost probability.", " ".join(sentences)
    if row["chosen_change_low"] > 0:
        return "The chosen responses gained probability.", " ".join(sentences)
    if recovered:
        return "The chosen responses fell and came back.", " ".join(sentences)
    return "No displacement beyond the noise of this probe set.", " ".join(sentences)


def _gave_back(phases: pd.Series) -> bool:
    """Whether the mean rose beyond its interval, then lost a good part of it again, beyond that interval too."""
    risen = phases["peak_low"] > 0 and phases["fall_from_peak_high"] < 0
    return bool(risen and -phases["fall_from_peak"] > LATE_SHARE * phases["peak"])


def _rejected(tables: Tables, row: pd.Series) -> str:
    course = "grew" if row["rejected_change"] < row["chosen_change"] else "shrank"
    accuracy = tables.margins["accuracy"]
    return (
        f"The rejected ones moved by {signed(row['rejected_change'])}, so the margin {course}; accuracy went from"
        f" {accuracy.iloc[0]:.0%} to {accuracy.iloc[-1]:.0%}."
    )


def _run_advice(tables: Tables, row: pd.Series) -> list[str]:
    if not math.isfinite(row["chosen_change_low"]):
        return ["One probe pair has no interval. Measure at least 30 pairs: --probe-pairs 30."]
    saturation = _saturation(tables, row["run"])
    phases = tables.phases.query("response == 'chosen'").iloc[0]
    if row["chosen_change_high"] >= 0 and _gave_back(phases):
        return [
            f"Consider the checkpoint of step {phases['peak_step']}, or --steps {phases['peak_step']}: from there on"
            " the margin was bought with the probability of the chosen responses.",
            *_weight_ratio(tables, row),
            *_in_common(tables),
            *saturation,
        ]
    if row["chosen_change_low"] > 0:
        return [
            "Nothing to mend in the chosen responses. If the margin is still small, train on and watch them.",
            *saturation,
        ]
    if row["chosen_change_high"] >= 0:
        return [_more_pairs(row), *saturation]
    return [
        *_weight_ratio(tables, row),
        *_earlier_stop(tables),
        *_in_common(tables),
        *saturation,
        "A lower learning rate or another β alone will not change the trade. With the pairs and the reward shape"
        " given, they decide how far along its path a run goes. To leave the path, change α or the pairs, or add a"
        " likelihood term on the chosen response.",
    ]


def _more_pairs(row: pd.Series) -> str:
    if row["chosen_change"] == 0:
        return "Nothing moved. Check that the learning rate is not 0."
    half_width = (row["chosen_change_high"] - row["chosen_change_low"]) / 2
    needed = math.ceil(POWER * row["num_pairs"] * (half_width / abs(row["chosen_change"])) ** 2 / 10) * 10
    if needed > 20 * row["num_pairs"]:
        return "The change is far within its interval. Train for more steps before you ask again."
    return (
        f"The interval holds zero. If the mean stays where it is, about {needed} probe pairs would tell it from zero"
        f" four times in five (there were {row['num_pairs']}): --probe-pairs {needed}. Or train for more steps."
    )


def _weight_ratio(tables: Tables, row: pd.Series) -> list[str]:
    chosen, rejected = tables.weights[row["run"]]
    if not ((chosen > 0) & (rejected > 0)).all():
        return []
    ratio = np.median(chosen / rejected, axis=1)
    alpha = row["alpha"]
    if alpha > 0:
        then = f"A smaller α raises the ratio for ordered pairs; at α = 0 it is 1. Try --alpha 0 {alpha:g}."
    elif alpha == 0:
        then = "A negative α raises the ratio above 1 once a pair is in order. Try --alpha -0.5 -0.25 0."
    elif alpha < 0:
        then = "α is negative already, so what is left is the overlap. Look at the pairs below."
    else:
        then = "A reward shape with α below 0 raises it. Try --objective alphapo --alpha -0.5 0."
    return [
        f"In the median pair the objective pulls the chosen response up {ratio[-1]:.2f} times as hard as it pushes"
        f" the rejected one down (w_w/w_l; {ratio[0]:.2f} at step 0). A chosen response falls where the gradients of"
        f" the pair overlap by more than that (b/a > w_w/w_l). {then}"
    ]


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
    found = tables.correlations.query("change == 'chosen_change' and (rho_low > 0 or rho_high < 0)")
    if found.empty:
        return []
    row = found.iloc[0]
    negative = row["rho"] < 0
    [descriptor] = [known for known in DESCRIPTORS if known.name == row["descriptor"]]
    alike = descriptor.likeness == (1 if negative else -1)
    then = " Likeness is overlap: drop the most alike pairs, or draw the two further apart." if alike else ""
    return [
        f"Pairs that are {descriptor.more} fell {'deeper' if negative else 'less'} (Spearman"
        f" ρ = {signed(row['rho'], 2)}, interval {interval(row, 'rho', 2)}).{then}"
    ]


def _saturation(tables: Tables, run: str) -> list[str]:
    chosen, _ = tables.weights[run]
    start, end = np.median(chosen[[0, -1]], axis=1)
    if not 0 <= end < SATURATED * start:
        return []
    return [
        f"The pairs are learnt: the median gradient weight fell to {end / start:.1%} of its start, so further steps"
        " teach little. Stop here, raise γ, or use harder pairs."
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
    fell, total = int((summary["chosen_change_high"] < 0).sum()), len(summary)
    if fell == total:
        runs = "both runs" if total == 2 else f"all {total} runs"
        headline = f"The chosen responses lost probability in {runs}."
    elif fell:
        headline = f"The chosen responses lost probability in {fell} of {total} runs."
    else:
        headline = f"In none of the {total} runs did the chosen responses fall beyond the noise."
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
    chosen = tables.phases[tables.phases["response"] == "chosen"]
    gave_back = sum(_gave_back(phases) for _, phases in chosen.iterrows())
    if gave_back:
        ending += f" In {gave_back} of {total} runs they rose first and have been losing probability since."
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
    return advice + _in_common(tables) + _saturation(tables, tables.deepest)


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

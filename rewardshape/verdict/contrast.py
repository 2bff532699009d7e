"""The best setting of a sweep against its worst at equal margin, with the search for both taken into account.

The best and the worst of several settings differ by chance alone, the more the more there are. Over seeds the
difference is judged by Tukey's studentised range in a randomised block design (each seed a block of all settings);
over the pairs of single runs by the largest t-statistic of the differences between all settings (max-t), whose
correlations are those of the resamples (Hothorn, Bretz and Westfall 2008, with the t of so many prompts).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.equal import WITHIN_REACH, at_equal
from rewardshape.analysis.resampling import CONFIDENCE, MIN_TESTED
from rewardshape.trace import Trace

# A run that got this share of the median margin gain or less sets no common value for the others.
GOT_NOWHERE = 0.5


@dataclass(frozen=True)
class Range:
    """The difference between the highest and the lowest of several means, with its simultaneous 95 % interval."""

    best: int
    worst: int
    difference: float
    low: float
    high: float
    p_value: float


def range_over_seeds(values: np.ndarray) -> Range:
    """The range of the column means of a table of seeds and settings, (seeds, settings), by Tukey's test.

    Examples
    --------
    >>> found = range_over_seeds(np.array([[0.0, 1.0], [0.1, 1.3], [0.2, 1.1]]))
    >>> found.best, found.worst, round(found.difference, 3), found.p_value < 0.05
    (1, 0, 1.033, True)
    """
    seeds, settings = values.shape
    means = values.mean(axis=0)
    best, worst = int(means.argmax()), int(means.argmin())
    difference = float(means[best] - means[worst])
    left = values - values.mean(axis=1, keepdims=True) - means + values.mean()
    freedom = (seeds - 1) * (settings - 1)
    error = float(np.sqrt((left**2).sum() / freedom / seeds))
    if error <= 1e-12 * max(difference, 1e-300):
        return Range(best, worst, difference, difference, difference, 0.0 if difference > 0 else 1.0)
    half = error * _critical_range(settings, freedom)
    p_value = float(stats.studentized_range.sf(difference / error, settings, freedom))
    return Range(best, worst, difference, difference - half, difference + half, p_value)


@cache
def _critical_range(settings: int, freedom: int) -> float:
    return float(stats.studentized_range.ppf(CONFIDENCE, settings, freedom))


def range_over_resamples(drawn: np.ndarray, num_prompts: int) -> Range:
    """The range of several means by max-t over the differences of all settings.

    Parameters
    ----------
    drawn : array, shape (1 + resamples, settings)
        Row 0 as measured, the others resampled.
    num_prompts : int
        How many prompts were resampled.
    """
    means = drawn[0]
    best = int(means.argmax())
    worst = len(means) - 1 - int(means[::-1].argmin())  # two also where all are equal
    first, second = np.triu_indices(len(means), 1)
    gaps = drawn[:, first] - drawn[:, second]
    spread = gaps[1:].std(axis=0, ddof=1)
    off = np.abs(gaps[1:] - gaps[0])
    largest = np.divide(off, spread, out=np.zeros_like(off), where=spread > 0).max(axis=1)
    # The errors are themselves estimated, from the prompts: t-statistics share a χ² of so many degrees of freedom.
    freedom = num_prompts - 1
    largest /= np.sqrt(np.random.default_rng(0).chisquare(freedom, len(largest)) / freedom)
    pair = int(np.flatnonzero((first == min(best, worst)) & (second == max(best, worst)))[0])
    error = spread[pair] * np.sqrt(num_prompts / freedom)  # resamples vary by (n − 1)/n of what samples do
    difference = float(means[best] - means[worst])
    if error == 0:
        return Range(best, worst, difference, difference, difference, 0.0 if difference > 0 else 1.0)
    half = float(np.quantile(largest, CONFIDENCE) * error)
    p_value = float((1 + (largest >= difference / error).sum()) / (1 + len(largest)))
    return Range(best, worst, difference, difference - half, difference + half, p_value)


@dataclass(frozen=True)
class Contrast:
    """A sweep at equal margin.

    Attributes
    ----------
    value : float
        The common gain of the margin, nats per token.
    settings : DataFrame
        ``setting``, ``alpha`` and ``chosen_change`` of every setting that was compared.
    best, worst : str
        The settings whose chosen responses stand highest and lowest.
    difference, low, high, p_value : float
        Between the two, with a simultaneous interval.
    over, method : str
        What the interval is over, and how the search for the best and the worst is taken into account.
    left_out : dict of str to str
        Settings that were not compared, and why.
    """

    value: float
    settings: pd.DataFrame
    best: str
    worst: str
    difference: float
    low: float
    high: float
    p_value: float
    over: str
    method: str
    left_out: dict[str, str]

    @property
    def clear(self) -> bool:
        """Whether chance alone gives such a range in at most 5 % of sweeps."""
        return self.p_value <= 1 - CONFIDENCE


def contrast(trace: Trace, furthest: dict[str, float], excluded: dict[str, str]) -> Contrast | str:
    """Compare the settings of a sweep where their margins gained the same; or say why that cannot be done.

    Parameters
    ----------
    trace : Trace
    furthest : dict
        The largest margin gain of every run, nats per token.
    excluded : dict
        Settings that are not to be compared, and why.
    """
    runs = [run for run in trace.runs if run.setting not in excluded]
    left_out = dict(excluded)
    middle = float(np.median([furthest[run.name] for run in runs])) if runs else 0.0
    for run in runs:
        if furthest[run.name] <= max(GOT_NOWHERE * middle, 0.0):
            left_out[run.setting] = "its margin gained too little"
    runs = [run for run in runs if run.setting not in left_out]
    if len({run.setting for run in runs}) < 2:
        return "Fewer than two settings can be set side by side" + (
            f" ({'; '.join(f'{name}: {why}' for name, why in left_out.items())})." if left_out else "."
        )
    value = WITHIN_REACH * min(furthest[run.name] for run in runs)
    equal = at_equal(trace, "logp_margin", value)
    rows = equal.rows[equal.rows["run"].isin([run.name for run in runs])]
    table = rows.pivot_table(index="seed", columns="setting", values="chosen_change", dropna=False).dropna()
    if len(table) > 1:
        names = list(table.columns)
        found = range_over_seeds(table.to_numpy(float))
        over, method = f"{len(table)} seeds", "Tukey's studentised range"
    else:
        one = rows.drop_duplicates("setting")
        names = one["setting"].tolist()
        drawn = np.stack([equal.changes[run] for run in one["run"]], axis=1)
        prompts = min(equal.num_prompts[run] for run in one["run"])
        if prompts < MIN_TESTED:
            return f"Settings are set against each other from {MIN_TESTED} prompts on; the probe set has {prompts}."
        found = range_over_resamples(drawn, prompts)
        over, method = f"{prompts} prompts", "max-t over all pairs of settings"
    settings = rows.groupby("setting", sort=False)[["alpha", "chosen_change"]].mean().reset_index()
    numbers = (found.difference, found.low, found.high, found.p_value)
    return Contrast(value, settings, names[found.best], names[found.worst], *numbers, over, method, left_out)

"""The best setting of a sweep against its worst along equal margin, with the search for both taken into account.

Settings are set side by side at several margins, each as far as it got, so that no single one decides where the others
are compared. The best and the worst of several settings differ by chance alone, the more the more settings and margins
there are. Over seeds the difference at a margin is judged by Tukey's studentised range in a randomised block design
(each seed a block of all settings), and the margins by Bonferroni; over the pairs of single runs by the least p-value
of the differences between all settings at all margins (min-p, Westfall and Young 1993), each against its resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.equal import MARGINS, WITHIN_REACH, resampled_along
from rewardshape.analysis.panels import chosen_and_rejected, run_label
from rewardshape.analysis.resampling import CONFIDENCE, MIN_TESTED
from rewardshape.trace import Trace


@dataclass(frozen=True)
class Range:
    """The setting that stands highest against the one that stands lowest, where they are most surely apart.

    Attributes
    ----------
    best, worst : int
        Settings.
    place : int
        The value at which the lower end of the interval of a difference is largest.
    difference, low, high : array, shape (values,)
        Between these two at every value, with simultaneous 95 % intervals; NaN where one of them did not get.
    p_value : float
        How often chance alone sets any two settings so far apart at any value.
    """

    best: int
    worst: int
    place: int
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: float


def range_over_seeds(values: np.ndarray) -> Range:
    """The range of settings over seeds, by Tukey's test at each value and Bonferroni over the values.

    Parameters
    ----------
    values : array, shape (seeds, values, settings)
        NaN where a setting did not get in every seed.

    Examples
    --------
    >>> found = range_over_seeds(np.array([[[0.0, 1.0]], [[0.1, 1.3]], [[0.2, 1.1]]]))
    >>> found.best, found.worst, found.difference.round(3).tolist(), found.p_value < 0.05
    (1, 0, [1.033], True)
    """
    seeds, places, settings = values.shape
    means, error = values.mean(axis=0), np.zeros(places)
    critical, apart, blocks = np.zeros(places), np.zeros(places), []
    for place in range(places):
        mine = values[:, place, np.isfinite(means[place])]
        left = mine - mine.mean(axis=1, keepdims=True) - mine.mean(axis=0) + mine.mean()
        blocks.append((mine.shape[1], (seeds - 1) * (mine.shape[1] - 1)))
        error[place] = np.sqrt((left**2).sum() / blocks[place][1] / seeds)
        critical[place] = _critical_range(*blocks[place], places)
        apart[place] = _errors_apart(np.ptp(mine.mean(axis=0)), error[place])
    furthest = int((apart / critical).argmax())
    chance = places * float(stats.studentized_range.sf(apart[furthest], *blocks[furthest]))
    half = np.broadcast_to((critical * error)[:, None, None], (places, settings, settings))
    return _surest(means, half, min(1.0, chance))


@cache
def _critical_range(settings: int, freedom: int, places: int) -> float:
    return float(stats.studentized_range.ppf(1 - (1 - CONFIDENCE) / places, settings, freedom))


def range_over_resamples(drawn: np.ndarray, num_prompts: int) -> Range:
    """The range of settings by the least p-value of the differences of all of them at all values.

    Each difference is set against its own resamples: at a small margin they have longer tails than at a large one.

    Parameters
    ----------
    drawn : array, shape (1 + resamples, values, settings)
        Row 0 as measured, the others resampled; NaN where a setting did not get.
    num_prompts : int
        How many prompts were resampled.
    """
    resamples, (places, settings) = len(drawn) - 1, drawn.shape[1:]
    pairs = [(i, j) for i in range(settings) for j in range(i + 1, settings)]
    off = {
        (place, *pair): np.abs(drawn[1:, place, pair[0]] - drawn[1:, place, pair[1]] - gap)
        for place in range(places)
        for pair in pairs
        if np.isfinite(gap := drawn[0, place, pair[0]] - drawn[0, place, pair[1]])
    }
    # Resamples vary by (n − 1)/n of what samples do, and their spread is itself estimated: t-statistics share a χ² of
    # so many degrees of freedom.
    scale = np.sqrt(num_prompts / np.random.default_rng(0).chisquare(num_prompts - 1, resamples))
    sorted_off = {one: np.sort(scale * values) for one, values in off.items()}
    least = np.min([_tails(sorted_off[one], scale * values) for one, values in off.items()], axis=0)
    level, half = float(np.quantile(least, 1 - CONFIDENCE)), np.full((places, settings, settings), np.nan)
    for (place, i, j), values in sorted_off.items():
        half[place, i, j] = half[place, j, i] = np.quantile(values, 1 - level)
    best, worst = _ends(drawn[0])
    found = 1.0
    for place, (i, j) in enumerate(zip(best, worst, strict=True)):
        gap = np.abs(drawn[0, place, i] - drawn[0, place, j])
        found = min(found, float(_tails(sorted_off[place, min(i, j), max(i, j)], np.array([gap]))[0]))
    return _surest(drawn[0], half, float((1 + (least <= found).sum()) / (1 + resamples)))


def _tails(in_order: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of each value the share of the sorted ones that are as large."""
    return np.asarray(1 - np.searchsorted(in_order, values, side="left") / len(in_order))


def _ends(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The settings that stand highest and lowest at each value: two, also where all are equal."""
    best = np.where(np.isfinite(means), means, -np.inf).argmax(axis=1)
    reversed_ = np.where(np.isfinite(means), means, np.inf)[:, ::-1]
    return best, means.shape[1] - 1 - reversed_.argmin(axis=1)


def _errors_apart(difference: np.ndarray | float, error: np.ndarray | float) -> np.ndarray:
    """How many standard errors a difference is: none where there is no difference, whatever its error."""
    nothing = np.abs(difference) <= 1e-12
    return np.where(nothing, 0.0, difference / np.maximum(error, 1e-12 * np.abs(difference) + nothing))


def _surest(means: np.ndarray, half: np.ndarray, p_value: float) -> Range:
    """The range where its interval lies highest; `half` the width of each, (values, settings, settings)."""
    best, worst = _ends(means)
    rows = np.arange(len(best))
    place = int((means[rows, best] - means[rows, worst] - half[rows, best, worst]).argmax())
    first, second = int(best[place]), int(worst[place])
    curve, ends = means[:, first] - means[:, second], half[:, first, second]
    return Range(first, second, place, curve, curve - ends, curve + ends, p_value)


@dataclass(frozen=True)
class Contrast:
    """A sweep along equal margin.

    Attributes
    ----------
    margins : array, shape (values,)
        Gains of the margin at which settings were compared, nats per token.
    settings : DataFrame
        ``setting``, ``alpha`` and ``chosen_change`` of every setting that was compared where `found` is surest.
    best, worst : str
        The settings whose chosen responses stand highest and lowest there.
    found : Range
        Of these two along the margins.
    over, method : str
        What the intervals are over, and how the search for the best and the worst is taken into account.
    left_out : dict of str to str
        Settings that were not compared, and why.
    """

    margins: np.ndarray
    settings: pd.DataFrame
    best: str
    worst: str
    found: Range
    over: str
    method: str
    left_out: dict[str, str]

    @property
    def clear(self) -> bool:
        """Whether chance alone sets settings so far apart in at most 5 % of sweeps."""
        return self.found.p_value <= 1 - CONFIDENCE


def contrast(trace: Trace, furthest: dict[str, float], excluded: dict[str, str]) -> Contrast | str:
    """Compare the settings of a sweep where their margins gained the same, each to where it got; or say why not.

    Parameters
    ----------
    trace : Trace
    furthest : dict
        The largest margin gain of every run, nats per token.
    excluded : dict
        Settings that are not to be compared, and why.
    """
    runs = pd.DataFrame(
        [{**run_label(run), "reach": WITHIN_REACH * furthest[run.name]} for run in trace.runs]
    )
    runs = runs[~runs["setting"].isin(list(excluded))]
    reach = runs.groupby("setting", sort=False)["reach"].min()
    top = float(reach.nlargest(2).min()) if len(reach) > 1 else 0.0
    margins = top * np.arange(1, MARGINS + 1) / MARGINS
    short = reach.index[reach < max(margins[0], np.finfo(float).tiny)]
    left_out = excluded | dict.fromkeys(map(str, short), "its margin gained too little")
    reach = reach.drop(short)
    if len(reach) < 2:
        return "Fewer than two settings can be set side by side" + (
            f" ({'; '.join(f'{name}: {why}' for name, why in left_out.items())})." if left_out else "."
        )
    runs["seed"] = runs["seed"].astype(object).where(runs["seed"].notna(), "not recorded")
    table = runs.pivot_table(index="seed", columns="setting", values="run", aggfunc="first", sort=False)
    table = table[reach.index]
    seeds = table.dropna()
    several = len(seeds) > 1
    of = seeds.to_numpy() if len(seeds) else table.bfill().iloc[:1].to_numpy()
    pairs = {chosen.run.name: tuple(chosen.pair_ids) for chosen, _ in chosen_and_rejected(trace)}
    if any(len({pairs[name] for name in of_seed}) > 1 for of_seed in of):
        return (
            "Settings are set against each other pair by pair, and these were measured on other probe pairs."
        )
    drawn, prompts = resampled_along(trace, "logp_margin", margins, of.ravel().tolist())
    if not several and prompts < MIN_TESTED:
        return (
            f"Settings are set against each other from {MIN_TESTED} prompts on; the probe set has {prompts}."
        )
    beyond = margins[:, None] > reach.to_numpy() * (1 + 1e-9)
    drawn = np.where(beyond[:, None], np.nan, drawn.reshape(*drawn.shape[:2], *of.shape))
    if several:
        found = range_over_seeds(drawn[0].swapaxes(0, 1))
        over, method = f"{len(seeds)} seeds", "Tukey's studentised range and Bonferroni over the margins"
    else:
        found = range_over_resamples(drawn[:, :, 0], prompts)
        over, method = f"{prompts} prompts", "min-p over the margins and all pairs of settings"
    alphas = runs.drop_duplicates("setting").set_index("setting")["alpha"][reach.index]
    settings = alphas.rename("alpha").reset_index()
    settings["chosen_change"] = drawn[0, found.place].mean(axis=0)
    names = list(map(str, reach.index))
    return Contrast(
        margins, settings.dropna(subset="chosen_change"), names[found.best], names[found.worst], found, over, method,
        left_out,
    )  # fmt: skip

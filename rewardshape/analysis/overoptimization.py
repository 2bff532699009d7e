r"""Over-optimization: gold reward against the distance from the reference, and where it turns.

The distance is d = √KL, the KL in nats per response estimated from samples of the policy. Two forms describe
how gold reward follows it (arXiv:2210.10760, equations 1 and 2; R₀ is the reference's own gold reward, which the
paper sets to zero):

.. math::
    R(d) &= R_0 + a\,d - b\,d^2     &&\text{(best of n), peak at } d = a/(2b) \\
    R(d) &= R_0 + a\,d - b\,d\ln d  &&\text{(policy gradient), peak at } d = e^{a/b - 1}

The second is the one that was fitted to direct alignment (arXiv:2406.02900). Intervals are 95 % and resample
prompts, the same prompts at every step; with fewer than `MIN_TESTED` prompts they resample single samples, and
then speak for these prompts alone. They do not say how far another seed would land.

Long because the fit, its peak and the intervals of both are one argument.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import gammaln

from rewardshape.analysis.panels import run_label, run_objective
from rewardshape.analysis.resampling import (
    CONFIDENCE,
    MIN_TESTED,
    RESAMPLES,
    mean_interval,
    percentile_interval,
)
from rewardshape.analysis.samples import judged, samples_of
from rewardshape.errors import InputError
from rewardshape.numbers import number
from rewardshape.trace import Run, Trace

FORMS = ("best_of_n", "policy_gradient")
MIN_STEPS = 5  # three coefficients, and something left to tell the forms apart
_ITERATIONS = 40
_FURTHEST = 20.0  # ln of a peak so far away that there is none
_SMALLEST = 1e-6  # nats^½: below this a distance is zero, and d·ln d with it


class Samples(NamedTuple):
    """The samples of one run as arrays over steps and resampling units (prompts, or single samples)."""

    steps: np.ndarray
    counts: np.ndarray
    """Samples of each unit at each step, (steps, units); 0 where a unit has none."""
    sums: dict[str, np.ndarray]
    """Sum over those samples of kl (nats), gold and proxy (reward units), each (steps, units)."""

    def means(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Mean over samples at every step, (…, steps), where units count `weights` times, (…, units)."""
        return np.asarray((weights @ self.sums[name].T) / (weights @ self.counts.T))

    def residuals(self, name: str) -> np.ndarray:
        """What each unit adds to the sampling error of the mean at each step, (steps, units).

        What a unit has in common over the steps (an easy prompt stays easy) shifts the whole curve and is taken
        out where every unit occurs at every step.
        """
        mean = self.sums[name].sum(axis=1, keepdims=True) / self.counts.sum(axis=1, keepdims=True)
        residual = (self.sums[name] - mean * self.counts) / self.counts.sum(axis=1, keepdims=True)
        num_steps = len(self.steps)
        if name == "gold" and num_steps > 1 and (self.counts > 0).all():
            residual = (residual - residual.mean(axis=0)) * np.sqrt(num_steps / (num_steps - 1))
        return np.asarray(residual)


def gold_curve(trace: Trace) -> pd.DataFrame:
    """Gold reward, implicit reward and distance from the reference at every step that drew samples.

    Returns
    -------
    DataFrame
        One row per run and step: ``run``, ``alpha``, ``seed``, ``step``, ``num_samples``; ``kl`` and ``kl_se``
        (nats per response; the mean over the samples and its standard error; where only their log-ratios are
        recorded it may be negative close to the reference), ``sqrt_kl`` (zero where the estimate is not positive);
        ``gold`` and ``proxy`` (reward units: the gold reward, and the objective's own implicit reward r of the same
        samples; NaN where that takes more than summed log-probs), with ``…_low`` and ``…_high``.

    Raises
    ------
    InputError
        If no samples were drawn, or they lack gold reward or the reference's log-probs.

    Examples
    --------
    >>> gold_curve(read_trace("runs/alpha=0.25"))                                   # doctest: +SKIP
    """
    return pd.concat([_curve(trace, run) for run in _sampled_runs(trace)], ignore_index=True)


def _curve(trace: Trace, run: Run) -> pd.DataFrame:
    samples = _samples_of(trace, run)
    everyone = np.ones(samples.counts.shape[1])
    weights = resampled_weights(samples.counts.shape[1])
    kl = samples.means("kl", everyone)
    curve: dict[str, Any] = {
        **run_label(run),
        "step": samples.steps,
        "num_samples": samples.counts.sum(axis=1),
        "kl": kl,
        "kl_se": np.sqrt(_covariance(samples)[:, 0, 0]),
        "sqrt_kl": np.sqrt(np.maximum(kl, 0)),
    }
    for name in ("gold", "proxy"):
        low, high = percentile_interval(samples.means(name, weights), len(everyone))
        curve |= {name: samples.means(name, everyone), f"{name}_low": low, f"{name}_high": high}
    return pd.DataFrame(curve)


def turning_points(trace: Trace) -> pd.DataFrame:
    """Both forms fitted to every run, the peak of each, and whether gold falls after it.

    Gold and KL both carry sampling error, so the true distance at each step is fitted along with the curve
    (weighted by the covariance of the two). b is bounded by b ≥ 0: gold may bend down, never up; at b = 0 there
    is no peak, which counts as a peak at infinity. Every resample of the prompts is fitted in full.

    Returns
    -------
    DataFrame
        One row per run and form: ``run``, ``alpha``, ``seed``, ``form``; the coefficients ``start`` (R₀), ``a``,
        ``b``; ``end_sqrt_kl``, the largest fitted distance in the run; ``peak_sqrt_kl`` (infinite: none);
        ``peak_step`` (fractional; infinite: not within the run); ``peak_gold``, the fitted gold reward there or, if
        the run ends before, at its end; ``gold_drop``, by how much the fit falls from there to the end;
        ``proxy_rise``, how much the implicit reward of the samples changes over the same steps. Each of the last
        five with ``…_low`` and ``…_high``. ``drop_p_value``: see `drop_p_value`. ``peaks``: the peak is within the run
        with a finite interval, that of the drop excludes zero, and the drop is beyond chance without any form (5 %).
        ``aic`` and ``preferred`` (the form of smaller AIC).

    Raises
    ------
    InputError
        If samples are missing, or were drawn at fewer than five steps.

    Examples
    --------
    >>> fits = turning_points(read_trace("runs/alpha=0.25"))                        # doctest: +SKIP
    >>> print(describe(fits[fits["preferred"]].iloc[0]))                            # doctest: +SKIP
    """
    rows = [row for run in _sampled_runs(trace) for row in _fits(trace, run)]
    return pd.DataFrame(rows)


def _fits(trace: Trace, run: Run) -> list[dict[str, Any]]:
    samples = _samples_of(trace, run)
    if len(samples.steps) < MIN_STEPS:
        raise InputError(
            f"{trace.folder}: run {run.name!r} drew samples at {len(samples.steps)} steps; a turning point needs "
            f"{MIN_STEPS}: sample more often (--sample-every)"
        )
    everyone = np.ones((1, samples.counts.shape[1]))
    weights = np.concatenate([everyone, resampled_weights(samples.counts.shape[1])])
    kl, gold, proxy = (samples.means(name, weights) for name in ("kl", "gold", "proxy"))
    chance = drop_p_value(gold, samples.counts.shape[1])
    rows = [
        {
            **run_label(run),
            "form": form,
            **_turn(form, samples.steps, kl, gold, proxy, _covariance(samples), chance),
        }
        for form in FORMS
    ]
    best = min(rows, key=lambda row: row["aic"])  # one of two that are equal, where gold does not bend
    return [{**row, "preferred": row is best} for row in rows]


def _turn(
    form: str,
    steps: np.ndarray,
    kl: np.ndarray,
    gold: np.ndarray,
    proxy: np.ndarray,
    covariance: np.ndarray,
    chance: float,
) -> dict[str, Any]:
    """One form fitted to the data (row 0 of each array) and to its resamples (the other rows)."""
    coefficients, distance, chi_squared = _fit(form, kl, gold, covariance)
    travelled = np.maximum.accumulate(distance, axis=1)  # how far the run had got by each step
    end = travelled[:, -1]
    peak = _peak(form, coefficients)
    turn = np.minimum(peak, end)
    drop = _gold_at(form, coefficients, turn) - _gold_at(form, coefficients, distance[:, -1])
    found = {
        "peak_sqrt_kl": peak,
        "peak_step": np.where(peak < end, _at(turn, travelled, steps), np.inf),
        "peak_gold": _gold_at(form, coefficients, turn),
        "gold_drop": np.where(
            peak < end, drop, 0.0
        ),  # without a peak behind it a run has not dropped from one
        "proxy_rise": proxy[:, -1] - _at(turn, travelled, proxy),
    }
    row: dict[str, Any] = dict(zip(("start", "a", "b"), coefficients[0], strict=True))
    row["end_sqrt_kl"] = end[0]
    for name, values in found.items():
        low, high = np.quantile(
            values[1:], [0.025, 0.975], axis=0, method="nearest"
        )  # never averages infinities
        row |= {name: values[0], f"{name}_low": low, f"{name}_high": high}
    row["drop_p_value"] = chance
    inside = peak[0] < end[0] and row["gold_drop_low"] > 0 and np.isfinite(row["peak_sqrt_kl_high"])
    row["peaks"] = bool(inside and row["drop_p_value"] <= 1 - CONFIDENCE)
    row["aic"] = chi_squared[0] + 2 * 3
    return row


def fitted_curves(fits: pd.DataFrame, *, points: int = 200) -> pd.DataFrame:
    """The curves of `turning_points`, for drawing: gold reward by every fit, from the reference to the run's end.

    Returns
    -------
    DataFrame
        ``run``, ``form``, ``preferred``, ``sqrt_kl``, ``gold``: `points` rows per run and form.
    """
    curves = []
    for fit in fits.to_dict("records"):
        distance = np.linspace(0, fit["end_sqrt_kl"], points)
        coefficients = np.array([[fit["start"], fit["a"], fit["b"]]])
        same = {name: fit[name] for name in ("run", "form", "preferred")}
        gold = _gold_at(fit["form"], coefficients, distance)
        curves.append(pd.DataFrame({**same, "sqrt_kl": distance, "gold": gold}))
    return pd.concat(curves, ignore_index=True)


def describe(fit: pd.Series) -> str:
    """One fit of `turning_points` in a sentence.

    Examples
    --------
    >>> describe(fits.iloc[0])                                                      # doctest: +SKIP
    'gold reward peaks at √KL 0.84 [0.71, 0.98] (step 62 [50, 80]) and falls by 0.21 [0.14, 0.29] by the end'
    """
    end = f"√KL {number(fit['end_sqrt_kl'], 2)}"
    if not fit["peaks"]:
        return f"no peak within the run, which ends at {end}"
    beyond = fit["peak_sqrt_kl_high"] > fit["end_sqrt_kl"]
    where = f"√KL {_spread(fit, 'peak_sqrt_kl', 2, beyond)}"
    when = f"step {_spread(fit, 'peak_step', 0, beyond)}"
    return f"gold reward peaks at {where} ({when}) and falls by {_spread(fit, 'gold_drop', 2)} by the end"


def _spread(fit: pd.Series, name: str, digits: int, beyond: bool = False) -> str:
    value, low, high = (number(fit[column], digits) for column in (name, f"{name}_low", f"{name}_high"))
    return f"{value} [{low}, {'beyond the run' if beyond else high}]"


def best_of_n_curve(samples: pd.DataFrame, *, rank_by: str = "gold") -> pd.DataFrame:
    r"""Gold reward of best-of-n sampling from the reference: the curve to beat at equal KL.

    From N scored samples of each prompt, the expected gold reward of the best of n ≤ N is estimated without bias as
    the mean over all subsets of n samples (arXiv:2210.10760, appendix I):

    .. math:: \hat R_n = \sum_{i=n}^{N} \binom{i-1}{n-1} \Big/ \binom{N}{n} \; g_{(i)}

    with g₍ᵢ₎ the gold reward of the sample ranked i-th from below. Samples of equal rank share their mean. The KL
    is ln n − (n − 1)/n: exact where no two responses tie, an upper bound otherwise (arXiv:2401.01879).

    Parameters
    ----------
    samples : DataFrame
        Samples of one policy, the reference: ``prompt_id``, ``gold`` and the column `rank_by`. Rows of a trace at
        step 0 are such samples.
    rank_by : str
        The reward that picks the best. "gold" gives the ceiling of every best-of-n; a proxy gives its own curve.

    Returns
    -------
    DataFrame
        One row per n: ``n``, ``kl`` (nats), ``sqrt_kl``, ``gold`` with ``gold_low`` and ``gold_high`` (95 %,
        resampling prompts).

    Raises
    ------
    InputError
        If a column is missing, or a prompt has fewer than two samples.

    Examples
    --------
    >>> two = pd.DataFrame({"prompt_id": [0, 0, 0], "gold": [0.0, 0.3, 0.9]})
    >>> best_of_n_curve(two)["gold"].round(3).tolist()
    [0.4, 0.7, 0.9]
    """
    for name in ("prompt_id", "gold", rank_by):
        if name not in samples:
            raise InputError(f"samples for best-of-n have no column {name!r}")
    ranked = judged(samples).dropna(subset=rank_by)  # what has no score can neither be picked nor passed over
    values = [_best_of_each_n(of_prompt, rank_by) for _, of_prompt in ranked.groupby("prompt_id")]
    most = min(map(len, values), default=0)
    if most < 2:
        raise InputError("best-of-n needs at least two samples of every prompt")
    by_prompt = np.stack([curve[:most] for curve in values], axis=1)
    n = np.arange(1, most + 1)
    kl = np.log(n) - (n - 1) / n
    low, high = mean_interval(by_prompt)
    return pd.DataFrame(
        {
            "n": n,
            "kl": kl,
            "sqrt_kl": np.sqrt(kl),
            "gold": by_prompt.mean(axis=1),
            "gold_low": low,
            "gold_high": high,
        }
    )


def _best_of_each_n(samples: pd.DataFrame, rank_by: str) -> np.ndarray:
    """Expected gold reward of the best of n = 1 … N samples of one prompt."""
    ordered = (
        samples.groupby(rank_by)["gold"]
        .transform("mean")
        .to_numpy()[np.argsort(samples[rank_by], kind="stable")]
    )
    size = len(ordered)
    rank, n = np.arange(1, size + 1)[None, :], np.arange(1, size + 1)[:, None]
    reachable = rank >= n  # the best of n cannot be among the n − 1 lowest
    below = np.where(reachable, rank - n, 0)
    log_share = (
        gammaln(rank)
        - gammaln(n)
        - gammaln(below + 1)
        - (gammaln(size + 1) - gammaln(n + 1) - gammaln(size - n + 1))
    )
    return np.asarray((np.where(reachable, np.exp(log_share), 0) * ordered).sum(axis=1))


# --- the two forms ----------------------------------------------------------------------------------------------


def _bend(form: str, d: np.ndarray) -> np.ndarray:
    return d**2 if form == "best_of_n" else d * np.log(np.maximum(d, _SMALLEST))


def _bend_slope(form: str, d: np.ndarray) -> np.ndarray:
    return 2 * d if form == "best_of_n" else np.log(np.maximum(d, _SMALLEST)) + 1


def _gold_at(form: str, coefficients: np.ndarray, d: np.ndarray) -> np.ndarray:
    """R at a distance for every row of coefficients."""
    start, a, b = coefficients.T
    return np.asarray(start + a * d - b * _bend(form, d))


def _peak(form: str, coefficients: np.ndarray) -> np.ndarray:
    """The distance of the peak for every row of coefficients; infinite where gold does not bend."""
    _, a, b = coefficients.T
    ratio = np.divide(a, b, out=np.full(len(b), np.inf), where=b > 0)
    if form == "best_of_n":
        return np.asarray(np.maximum(ratio, 0) / 2)
    return np.where(ratio - 1 > _FURTHEST, np.inf, np.exp(np.minimum(ratio - 1, _FURTHEST)))


def drop_p_value(gold: np.ndarray, num_units: int) -> float:
    """Chance of so large a drop from some earlier step to the last, if gold nowhere stood higher than there.

    The largest t-statistic of (gold at a step − gold at the end) over all steps, against the same in every resample
    about its own mean (max-t). It fits no form: a curve that is flat, that rises, or that rises and levels off has
    no such drop.

    Parameters
    ----------
    gold : array, shape (1 + resamples, steps)
        Mean gold reward: row 0 as measured, the others of resampled prompts (`resampled_weights`).
    num_units : int
        How many prompts were resampled: the errors are estimated from them, and the t-statistics share their degrees of
        freedom.
    """
    drops = gold[:, :-1] - gold[:, -1:]
    error = drops[1:].std(axis=0, ddof=1)
    known = error > 0
    if not known.any():
        return 0.0 if len(gold) > 1 and num_units >= MIN_TESTED and (drops[0] > 0).any() else 1.0
    found = (drops[0, known] / error[known]).max()
    null = ((drops[1:, known] - drops[0, known]) / error[known]).max(axis=1)
    null /= np.sqrt(np.random.default_rng(0).chisquare(num_units - 1, len(null)) / (num_units - 1))
    return float((1 + (null >= found).sum()) / (1 + len(null)))


# --- the fit ----------------------------------------------------------------------------------------------------


def _fit(
    form: str, kl: np.ndarray, gold: np.ndarray, covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares in both directions: coefficients (rows, 3), distances (rows, steps), χ² (rows,).

    Every row of `kl` and `gold`, (rows, steps), is fitted by itself. Alternates the coefficients, linear once the
    distances are known, with a Gauss-Newton step for each distance.
    """
    precision = np.linalg.inv(covariance)
    p_kl, p_both, p_gold = precision[:, 0, 0], precision[:, 0, 1], precision[:, 1, 1]
    distance = np.sqrt(np.maximum(kl, 0))
    reach = 0.2 * distance.max(axis=1, keepdims=True) + _SMALLEST
    for _ in range(_ITERATIONS):
        # At given distances the KL residual shifts the expected gold residual, because the two errors correlate.
        expected = gold + p_both / p_gold * (kl - distance**2)
        coefficients = _solve(form, distance, expected, p_gold)
        start, a, b = (column[:, None] for column in coefficients.T)
        error_kl = kl - distance**2
        error_gold = gold - (start + a * distance - b * _bend(form, distance))
        slope_kl, slope_gold = 2 * distance, a - b * _bend_slope(form, distance)
        downhill = slope_kl * (p_kl * error_kl + p_both * error_gold) + slope_gold * (
            p_both * error_kl + p_gold * error_gold
        )
        curvature = p_kl * slope_kl**2 + 2 * p_both * slope_kl * slope_gold + p_gold * slope_gold**2
        move = np.divide(downhill, curvature, out=np.zeros_like(downhill), where=curvature > 0)
        distance = np.maximum(distance + np.clip(move, -reach, reach), 0)
    chi_squared = (p_kl * error_kl**2 + 2 * p_both * error_kl * error_gold + p_gold * error_gold**2).sum(
        axis=1
    )
    return coefficients, distance, chi_squared


def _solve(form: str, distance: np.ndarray, gold: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Weighted least squares for (R₀, a, b) under b ≥ 0, for every row: (rows, 3)."""
    columns = np.stack([np.ones_like(distance), distance, -_bend(form, distance)], axis=-1)
    solved = _normal_equations(columns, gold, precision)
    straight = solved[:, 2] < 0
    if straight.any():
        solved[straight, :2] = _normal_equations(columns[straight, :, :2], gold[straight], precision)
        solved[straight, 2] = 0
    return solved


def _normal_equations(columns: np.ndarray, values: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Weighted least squares for every row; columns (rows, steps, k), values (rows, steps) give (rows, k)."""
    weighted = np.swapaxes(columns * precision[:, None], -1, -2)
    normal = weighted @ columns
    size = normal.shape[-1]
    # A touch of ridge: a run that never left the reference has no distances to fit a bend to.
    ridge = 1e-10 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(size)
    return np.linalg.solve(normal + ridge, weighted @ values[..., None])[..., 0]


def _at(distance: np.ndarray, travelled: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` (steps or rows of steps) where each run has `travelled` the distance, interpolated."""
    rows = np.broadcast_to(values, travelled.shape)
    return np.array([np.interp(d, path, row) for d, path, row in zip(distance, travelled, rows, strict=True)])


# --- samples into arrays ----------------------------------------------------------------------------------------


def _sampled_runs(trace: Trace) -> list[Run]:
    if trace.samples.empty:
        raise InputError(f"{trace.folder}: no samples; run the probe with --sample-every K")
    sampled = set(trace.samples["run"])
    return [run for run in trace.runs if run.name in sampled]


def _samples_of(trace: Trace, run: Run) -> Samples:
    samples = judged(samples_of(trace, run))
    if samples.empty:
        raise InputError(f"{trace.folder}: samples of run {run.name!r} have no gold")
    for name in ("logp_sum", "ref_logp_sum", "num_tokens"):
        if name not in samples or samples[name].isna().any():
            raise InputError(f"{trace.folder}: samples of run {run.name!r} have no {name} in some rows")
    goal = run_objective(run)
    columns = (samples[name].to_numpy(float) for name in ("logp_sum", "num_tokens", "ref_logp_sum"))
    proxy = goal.reward(goal.score(*columns)) if goal.alone else np.nan
    table = samples.assign(proxy=proxy, one=1)
    unit = ["prompt_id"]
    if table["prompt_id"].nunique() < MIN_TESTED:
        table["draw"] = table.groupby(["step", "prompt_id"]).cumcount()
        unit.append("draw")
    wide = table.pivot_table(
        index="step", columns=unit, values=["one", "kl", "gold", "proxy"], aggfunc="sum", fill_value=0
    ).astype(float)
    sums = {name: wide[name].to_numpy() for name in ("kl", "gold", "proxy")}
    if table["proxy"].isna().any():  # a sum over NaN would be 0
        sums["proxy"] = np.full_like(sums["proxy"], np.nan)
    return Samples(wide.index.to_numpy(), wide["one"].to_numpy(), sums)


def resampled_weights(num_units: int) -> np.ndarray:
    """How often each unit is drawn in every resample, (resamples, units).

    One unit fewer than there are is drawn, which gives resampled means the variance of an unbiased estimate.
    """
    if num_units < 2:
        raise InputError("one sample per step: no interval can be given; sample more prompts")
    equal = np.full(num_units, 1 / num_units)
    return np.random.default_rng(0).multinomial(num_units - 1, equal, RESAMPLES).astype(float)


def _covariance(samples: Samples) -> np.ndarray:
    """Covariance of the sampling errors of KL and gold at every step, (steps, 2, 2)."""
    num_units = samples.counts.shape[1]
    residuals = np.stack([samples.residuals("kl"), samples.residuals("gold")], axis=1)
    covariance = residuals @ np.swapaxes(residuals, 1, 2) * num_units / (num_units - 1)
    # A step without spread (the reference itself: every log-ratio is zero) is known exactly; keep it invertible.
    floor = 1e-6 * covariance.diagonal(axis1=1, axis2=2).max(axis=0) + np.finfo(float).tiny ** 0.5
    return np.asarray(covariance + floor * np.eye(2))

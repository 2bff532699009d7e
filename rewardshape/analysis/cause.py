"""Why the probe pairs moved: the first-order prediction held against what happened, and the movement split by cause.

Needs a run with ``--geometry-every``. Scores are the objective's own (nats, per token where it divides by the
length). Intervals are 95 % over prompts; a prompt is drawn with all its pairs and their steps.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rewardshape.analysis.panels import Panel, probe_panels, run_label, run_objective, scores
from rewardshape.analysis.resampling import (
    MIN_TESTED,
    central,
    drawn_pairs,
    percentile_interval,
    rank_correlations,
    ranks,
    resampled_means,
    share_interval,
    where_known,
)
from rewardshape.errors import InputError
from rewardshape.theory import Responses
from rewardshape.trace import Run, Trace

SIDES = ("chosen", "rejected")


def predictions(trace: Trace) -> pd.DataFrame:
    r"""What the gradients before each measured update say it will do to every score, beside what it did.

    Three predictors, each first order in the step:

    * ``update``: :math:`\langle\nabla s, \Delta\theta\rangle` with the optimiser's own step Δθ. Exact for an infinitely
      small step of SGD, Adam or any other optimiser; what it misses is curvature.
    * ``descent``: :math:`-\eta\langle\nabla s, g\rangle` with the clipped gradient g of the same batch: what a plain
      gradient step would do. The same as ``update`` for SGD; for Adam it leaves the preconditioner out.
    * ``own pair``: :math:`\eta(w_w a - w_l b)` for the chosen, :math:`\eta(w_w b - w_l c)` for the rejected response:
      what one plain step on this pair alone would do. No batch, no optimiser; Gram entries and weights of step.

    Returns
    -------
    DataFrame
        One row per run, step, pair, response and predictor: ``run``, ``alpha``, ``seed``, ``step``, ``pair_id``,
        ``prompt`` (equal where pairs share one), ``response``, ``predictor``, ``predicted``, ``measured`` (change of
        the score from step − 1 to step).

    Raises
    ------
    InputError
        If the trace holds no geometry beyond step 0.
    """
    rows = _geometry(trace)
    rows = rows[rows["step"] > 0]
    if rows.empty:
        raise InputError(
            f"{trace.folder}: geometry of step 0 only; train at least one step with --geometry-every"
        )
    rate = trace.steps[["run", "step", "learning_rate"]]
    rows = rows.merge(rate, on=["run", "step"], how="left")
    first = {"chosen": "ww", "rejected": "wl"}
    second = {"chosen": "wl", "rejected": "ll"}
    tables = []
    for side in SIDES:
        drive = _drive(rows, first[side], second[side])
        for predictor, predicted in (
            ("update", rows[f"predicted_{side}"]),
            ("descent", rows[f"descent_{side}"]),
            ("own pair", rows["learning_rate"] * drive),
        ):
            tables.append(
                rows[["run", "step", "pair_id", "prompt"]].assign(
                    response=side,
                    predictor=predictor,
                    predicted=predicted.astype(float),
                    measured=rows[f"moved_{side}"].astype(float),
                )
            )
    return _labelled(trace, pd.concat(tables, ignore_index=True))


def prediction_quality(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How well each predictor did: R², slope and correlation, per pair and on average.

    Parameters
    ----------
    table : DataFrame
        As `predictions` returns it, of one run or several.

    Returns
    -------
    DataFrame
        One row per run, predictor, response and level. ``level`` is ``pair`` (every pair at every step is a point) or
        ``mean`` (every step is one, the mean over pairs; left out where fewer than three steps were measured).
        ``num_pairs``, ``num_steps``; each with ``…_low`` and ``…_high``:

        From fewer than 8 prompts no ends are given.

        * ``r_squared``: 1 − Σ(measured − predicted)² / Σ(measured − mean)²: of the prediction as it stands, nothing
          fitted; negative where it is worse than the mean;
        * ``slope``: of measured on predicted, least squares with intercept; 1 is right;
        * ``correlation``: Pearson's, free of scale.
    """
    rows = []
    for keys, points in table.groupby(["run", "predictor", "response"], sort=False):
        predicted, measured = (
            points.pivot(index="step", columns="pair_id", values=name).to_numpy(float)
            for name in ("predicted", "measured")
        )
        num_steps, num_pairs = predicted.shape
        prompts = points.drop_duplicates("pair_id").set_index("pair_id")["prompt"].sort_index().to_numpy()
        levels = {"pair": _over_pairs(predicted, measured, prompts, seed)}
        if num_steps >= 3:
            levels["mean"] = _over_steps(predicted, measured, prompts, seed)
        for level, (value, low, high) in levels.items():
            row = dict(zip(("run", "predictor", "response"), keys, strict=True))
            row |= {"level": level, "num_pairs": num_pairs, "num_steps": num_steps}
            for i, name in enumerate(("r_squared", "slope", "correlation")):
                row |= {name: value[i], f"{name}_low": low[i], f"{name}_high": high[i]}
            rows.append(row)
    return pd.DataFrame(rows)


def fall_condition(trace: Trace) -> pd.DataFrame:
    """Does a pair meet the condition b/a > w_w/w_l, under which a step on it alone lowers its chosen response?

    Returns
    -------
    DataFrame
        One row per run, measured step (the last left out) and pair: ``run``, ``alpha``, ``seed``, ``step``,
        ``pair_id``, ``prompt`` (equal where pairs share one); ``overlap`` = b/a; ``weight_ratio`` = w_w/w_l, NaN
        unless both are positive: the condition turns around where w_l is not; ``excess``, ln(b/a) − ln(w_w/w_l), NaN
        where one of them is not positive; ``should_fall``: w_w·a < w_l·b, which holds for weights of any sign,
        <NA> where one is not known;
        ``change``: what its chosen response did from this step to the end of the run (nats per token), and ``fell``
        (<NA> where the end is no number).
    """
    rows = _geometry(trace)
    tables = []
    for panel in probe_panels(trace):
        if panel.response != "chosen":
            continue
        mine = rows[(rows["run"] == panel.run.name) & (rows["step"] < panel.steps[-1])]
        level = pd.DataFrame(panel.change(), index=panel.steps, columns=panel.pair_ids)
        mine = mine[mine["step"].isin(panel.steps)]
        now = [level.at[step, pair] for step, pair in zip(mine["step"], mine["pair_id"], strict=True)]
        change = level.iloc[-1].reindex(mine["pair_id"]).to_numpy() - np.array(now, dtype=float)
        overlap = mine["gram_wl"] / mine["gram_ww"]
        both = (mine["weight_chosen"] > 0) & (mine["weight_rejected"] > 0)
        ratio = (mine["weight_chosen"] / mine["weight_rejected"]).where(both)
        drive = np.asarray(_drive(mine, "ww", "wl"), dtype=float)
        tables.append(
            mine[["run", "step", "pair_id", "prompt"]].assign(
                overlap=overlap,
                weight_ratio=ratio,
                excess=np.log(overlap.where(overlap > 0)) - np.log(ratio),
                should_fall=pd.array(where_known(drive < 0, drive), dtype="boolean"),
                change=change,
                fell=pd.array(where_known(change < 0, change), dtype="boolean"),
            )
        )
    return _labelled(trace, pd.concat(tables, ignore_index=True))


def condition_agreement(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Does the condition b/a > w_w/w_l tell which pairs fall?

    Parameters
    ----------
    table : DataFrame
        As `fall_condition` returns it.

    Returns
    -------
    DataFrame
        One row per run and step, over the pairs whose change is a number: ``num_pairs``; ``share_should_fall``,
        ``share_fell``; ``accuracy`` (share of pairs of which the condition said rightly whether they fall, with
        ``…_low``, ``…_high``) and ``guess``, the accuracy of saying the commoner outcome of every pair; ``auc``:
        probability that of a fallen and an unfallen pair the fallen one has the larger excess, 0.5 is chance; ``rho``:
        Spearman's, excess with change, negative where the condition is right. Both with ``…_low``, ``…_high``.
    """
    rows = []
    for (run, step), pairs in table.dropna(subset="change").groupby(["run", "step"], sort=False):
        told = pairs.dropna(subset="should_fall")
        right = (told["should_fall"] == told["fell"]).to_numpy(bool)
        fell = float(pairs["fell"].mean())
        of_accuracy = np.full((2, 1), np.nan)
        if len(told):
            of_accuracy = np.array(share_interval(right[None], told["prompt"].to_numpy()))
        row = {
            "run": run,
            "step": step,
            "num_pairs": len(pairs),
            "share_should_fall": told["should_fall"].mean(),
            "share_fell": fell,
            "accuracy": right.mean() if len(told) else np.nan,
            "accuracy_low": of_accuracy[0, 0],
            "accuracy_high": of_accuracy[1, 0],
            "guess": max(fell, 1 - fell),
        }
        known = pairs.dropna(subset="excess")
        excess, change = known["excess"].to_numpy(), known["change"].to_numpy()
        counts = drawn_pairs(len(known), known["prompt"].to_numpy(), seed=seed) if len(known) else None
        for name, statistic in (("auc", _auc), ("rho", rank_correlations)):
            values = np.full(2, np.nan) if counts is None else statistic(excess, change, counts)
            low, high = _nan_interval(values[1:], known["prompt"].nunique())
            row |= {name: values[0], f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def movement_split(trace: Trace) -> pd.DataFrame:
    r"""The mean movement of chosen and rejected scores, split into clock, shape and drift.

    A gradient step on a batch moves another pair by the overlaps between *different* pairs. With their averages
    a, b, c (the ``cross_gram_…`` columns), the mean weights w_w, w_l of every batch and the learning rate η after
    clipping, the mean chosen score of the probe set moves by Σ η(w_w·a − w_l·b), where pairs are alike enough for
    means to stand for them. That sum is cut so that each part has one cause:

    .. math:: \underbrace{(a_0 - b_0)\,\tau}_{\text{straight}}
              + \underbrace{a_0 \textstyle\sum \eta (w_w - w_l)}_{\text{shape}}
              + \underbrace{\textstyle\sum \eta\,(w_w (a - a_0) - w_l (b - b_0))}_{\text{drift}}, \qquad
              \tau = \textstyle\sum \eta\, w_l

    and for the rejected score with b, c in the place of a, b. Link, β, γ and the learning rate act through the clock
    τ alone; w_w differs from w_l through the shape alone (and through terms on one response only); a, b, c change
    with the model alone. Index 0 is the untouched model. What is left is ``rest``: batches unlike the
    probe set, pairs unlike the mean, curvature. Runs from one checkpoint share a_0 and b_0, so their
    difference in ``straight`` is the clock's.

    Returns
    -------
    DataFrame
        One row per run, response and probed step: ``run``, ``alpha``, ``seed``, ``response``, ``step``, ``clock``
        (τ), and since step 0, in units of the score: ``measured``, ``straight``, ``shape``, ``drift``, ``rest``.

    Raises
    ------
    InputError
        If geometry was not measured, or a run's optimiser is not SGD: Adam divides every component of the gradient
        by its own running size, which no overlap of plain gradients accounts for (`docs/cause.md` has the numbers).
    """
    if "cross_gram_ww" not in trace.steps:
        raise InputError(f"{trace.folder}: no overlaps between pairs; run the probe with --geometry-every K")
    for run in trace.runs:
        optimizer = run.manifest.get("run", {}).get("optimizer")
        if optimizer != "sgd":
            raise InputError(
                f"{trace.folder}: run {run.name!r} was optimised by {optimizer}; the movement can be split for "
                "--optimizer sgd alone"
            )
    return pd.concat(
        [_split(trace, panel) for panel in probe_panels(trace) if panel.response in SIDES], ignore_index=True
    )


def _split(trace: Trace, panel: Panel) -> pd.DataFrame:
    steps = trace.steps[trace.steps["run"] == panel.run.name].set_index("step")
    up, down = ("ww", "wl") if panel.response == "chosen" else ("wl", "ll")
    overlaps = _cross_gram(trace, panel.run)[[f"cross_gram_{up}", f"cross_gram_{down}"]]
    # The update of step t goes by the overlaps of the weights before it; between measurements they are interpolated.
    before = overlaps.interpolate(limit_direction="both").shift().loc[1:]
    first, second = overlaps.dropna().iloc[0]
    weights, rate = _batch_weights(trace, panel.run), effective_rate(trace, panel.run).to_numpy(float)
    pull, push = (rate * weights[side].to_numpy() for side in SIDES)
    gained, lost = (before[column].to_numpy() for column in overlaps)
    parts = {
        "clock": push,
        "straight": (first - second) * push,
        "shape": first * (pull - push),
        "drift": pull * (gained - first) - push * (lost - second),
    }
    at = np.searchsorted(steps.index[1:], panel.steps, side="right")
    score = scores(run_objective(panel.run), panel).mean(axis=1)
    table = pd.DataFrame(
        {
            **run_label(panel.run),
            "response": panel.response,
            "step": panel.steps,
            **{name: np.concatenate([[0.0], np.cumsum(part)])[at] for name, part in parts.items()},
            "measured": score - score[0],
        }
    )
    table["rest"] = table["measured"] - table["straight"] - table["shape"] - table["drift"]
    return table


def _cross_gram(trace: Trace, run: Run) -> pd.DataFrame:
    steps = trace.steps[trace.steps["run"] == run.name].set_index("step")
    return steps[[f"cross_gram_{name}" for name in ("ww", "wl", "ll")]].astype(float)


def effective_rate(trace: Trace, run: Run) -> pd.Series:
    """Learning rate of every update less what clipping took, by step."""
    steps = trace.steps[(trace.steps["run"] == run.name) & (trace.steps["step"] > 0)].set_index("step")
    limit = (
        run.manifest.get("run", {}).get("max_grad_norm") or np.inf
    )  # of a Trainer, 0 and null clip nothing
    norm = steps["grad_norm"] if "grad_norm" in steps else pd.Series(0.0, index=steps.index)
    with np.errstate(divide="ignore"):
        rate: pd.Series = steps["learning_rate"] * np.minimum(1, limit / norm)
        return rate


def _batch_weights(trace: Trace, run: Run) -> pd.DataFrame:
    """Mean gradient weights of every update's batch: a row per step, the columns chosen and rejected."""
    rows = trace.responses[(trace.responses["run"] == run.name) & (trace.responses["split"] == "train")]
    goal = run_objective(run)
    means = []
    for _, batch in rows.groupby("step"):
        pair = []
        for side in SIDES:
            of_side = batch[batch["response"] == side]
            logp_sum, num_tokens, reference = (
                of_side[name].to_numpy(float) for name in ("logp_sum", "num_tokens", "ref_logp_sum")
            )
            pair.append(Responses(logp_sum, num_tokens, reference if goal.needs_reference else None))
        means.append([np.mean(weight) for weight in goal.pair_weights(*pair)])
    return pd.DataFrame(means, columns=list(SIDES))


def _geometry(trace: Trace) -> pd.DataFrame:
    if trace.geometry.empty or "gram_ww" not in trace.geometry:
        raise InputError(
            f"{trace.folder}: the trace holds no geometry; run the probe with --geometry-every K"
        )
    prompts = [
        pd.DataFrame({"run": panel.run.name, "pair_id": panel.pair_ids, "prompt": panel.prompt_codes})
        for panel in probe_panels(trace)
        if panel.response == "chosen"
    ]
    return trace.geometry.merge(pd.concat(prompts), on=["run", "pair_id"], how="left")


def _drive(rows: pd.DataFrame, up: str, down: str) -> pd.Series:
    """What gradient flow on the pair alone does to a score: w_w times one Gram entry less w_l times another."""
    return rows["weight_chosen"] * rows[f"gram_{up}"] - rows["weight_rejected"] * rows[f"gram_{down}"]


def _labelled(trace: Trace, table: pd.DataFrame) -> pd.DataFrame:
    labels = pd.DataFrame([run_label(run) for run in trace.runs])
    return labels.merge(table, on="run")


Quality = tuple[np.ndarray, np.ndarray, np.ndarray]  # value, low, high of R², slope, correlation


def _over_pairs(predicted: np.ndarray, measured: np.ndarray, prompts: np.ndarray, seed: int) -> Quality:
    """Every step of every pair is a point; prompts are resampled."""
    p, m = predicted, measured
    moments = np.stack([np.ones_like(p), p, m, p * p, p * m, m * m]).sum(axis=1)  # (6, pairs)
    resampled = resampled_means(moments, prompts, seed=seed)
    return _quality(*moments.mean(axis=1)), *_ends(_quality(*resampled.T).T, prompts)


def _over_steps(predicted: np.ndarray, measured: np.ndarray, prompts: np.ndarray, seed: int) -> Quality:
    """Every step's mean over pairs is a point; prompts are resampled."""

    def of_means(p: np.ndarray, m: np.ndarray) -> np.ndarray:
        return _quality(*(x.mean(axis=-1) for x in (np.ones_like(p), p, m, p * p, p * m, m * m)))

    resampled = of_means(*(resampled_means(values, prompts, seed=seed) for values in (predicted, measured)))
    return of_means(predicted.mean(axis=1), measured.mean(axis=1)), *_ends(resampled.T, prompts)


def _ends(resampled: np.ndarray, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of intervals over prompts, shape (3,); NaN from fewer than `MIN_TESTED`."""
    many = len(np.unique(prompts))
    if many < MIN_TESTED:
        return np.full(3, np.nan), np.full(3, np.nan)
    return percentile_interval(resampled, many)


def _quality(
    n: np.ndarray, p: np.ndarray, m: np.ndarray, pp: np.ndarray, pm: np.ndarray, mm: np.ndarray
) -> np.ndarray:
    """R², slope and correlation from a number of points and sums over them, shape (3, …)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        var_p, var_m, cov = pp - p * p / n, mm - m * m / n, pm - p * m / n
        return np.stack([1 - (pp - 2 * pm + mm) / var_m, cov / var_p, cov / np.sqrt(var_p * var_m)])


def _auc(excess: np.ndarray, change: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of `excess` for `change` < 0 in every row of `counts`; NaN where all or none fell."""
    fell = change < 0
    num_fell = counts @ fell
    pairs = num_fell * (counts.sum(axis=1) - num_fell)
    above = (counts * ranks(excess, counts)) @ fell - num_fell * (num_fell + 1) / 2
    return np.asarray(np.divide(above, pairs, out=np.full(len(counts), np.nan), where=pairs > 0))


def _nan_interval(resampled: np.ndarray, prompts: int) -> tuple[float, float]:
    known = resampled[np.isfinite(resampled)]
    if not len(known) or prompts < MIN_TESTED:
        return np.nan, np.nan
    low, high = central(known)
    return float(low), float(high)

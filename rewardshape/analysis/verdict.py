r"""What happened to the chosen responses in a run, judged from its log.

`judge` takes a `Log` (of another trainer, or made of our own trace by `log_of_trace`) and returns a `Verdict`: a word,
the numbers behind it with their noise, what the log cannot tell, and what to try. It reads no file and draws nothing.

Every threshold is a constant here with its reason beside it; ``docs/diagnose.md`` explains them for users.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.advice import advice_for
from rewardshape.analysis.recovery import Reference, is_per_token, recover_reference
from rewardshape.analysis.sanity import effective_scale, sanity_checks
from rewardshape.trace.importers import OWN_FORM, Log
from rewardshape.trace.importers.names import SERIES

Word = Literal[
    "displaced", "recovered", "not displaced", "saturated", "collapsed", "not training", "undetermined"
]

# One row cannot show a change, and two cannot show a change and its noise unless it dwarfs their difference.
MIN_ROWS = 2
# "Beyond noise": this many standard errors, and never less than Student's t asks at 95 % of so few rows.
BEYOND_NOISE = 2.0
# A dip that was regained is one of many places where one could be seen, so it must stand out further.
DIP_BEYOND_NOISE = 4.0
# Displacement below a tenth of a nat changes the probability of a whole response by less than 10 %; per token a
# hundredth of a nat is the same for a response of ten tokens. In reward units: what that is at the usual β = 0.1.
SMALLEST = {"nats": 0.1, "nats per token": 0.01, "reward": 0.01}
# A run recovered when it is back within noise of its start, or has regained this share of its deepest fall.
REGAINED = 0.8
# The fall began where it first reached this share of its depth at the end (and the noise of a row), in the stretch that
# never came back to the baseline.
ONSET_SHARE = 0.05
# Training rows are means over a few pairs each: compare means over this share of the run, of this many rows at least.
WINDOW_SHARE, WINDOW_ROWS = 0.2, 3
# The gradient of a logistic pair is its loss in the limit: |dℓ/dm| = 1 − e^−ℓ. A loss of 0.05 leaves 5 % of the pull
# (a tenth of what the run began with), at a margin of about 5, where σ(5) = 99.3 %.
SATURATED_LOSS, SATURATED_MARGIN, SATURATED_ACCURACY = 0.05, 5.0, 0.97
# Chance is one half; two points above it are within the noise of an evaluation set of a few hundred pairs.
CHANCE = 0.52
# A loss that varies by less than a thousandth and rewards below a thousandth: rounding, not training.
STILL_LOSS, STILL_REWARD = 1e-3, 1e-3
STILL_SHARE = (
    0.95  # of the gradient norms must be exactly 0 (some trainers log a first row before the optimiser runs)
)
# Without gradient norms, a run that is long enough to learn and whose loss stays at ln 2 with no trend learns nothing.
STILL_ROWS, AT_LN2 = 8, 0.02
# Log-probabilities of training batches vary with the batch; if a fall of this size could hide, nothing is decided.
HIDEABLE = {"nats": 5.0, "nats per token": 0.05, "reward": 0.5}
# The held-out loss got worse: above its minimum by this share and beyond its own noise, at the end of the run.
WORSE_LOSS = 0.02

# A reward of one at the first logged rows, the same for both responses, is not what one step from a reference does.
FAR_FROM_ZERO = 1.0
REFERENCE_FREE_LOSSES = ("simpo", "orpo", "cpo", "alphapo")
# With so few evaluations and so many training rows, the training rows tell more.
FEW_EVALUATIONS, MANY_ROWS = 3, 6

NEEDED = (
    "loss",
    "reward_chosen",
    "reward_rejected",
    "margin",
    "accuracy",
    "logp_chosen",
    "logp_rejected",
    "grad_norm",
)


@dataclass(frozen=True)
class Verdict:
    """What a log says.

    `depth` is positive below the start or reference, in `unit`, and None where nothing tells; `depth_noise` is its
    standard error and `limit` what counts as beyond noise. `curve` holds what was judged, for drawing: step, chosen,
    smooth and rejected, above the baseline.
    """

    name: str
    form: str
    verdict: Word
    unit: str | None = None
    basis: str = ""
    baseline: str = ""
    depth: float | None = None
    depth_noise: float | None = None
    limit: float | None = None
    deepest: float | None = None
    deepest_step: int | float | None = None
    highest: float | None = None
    highest_step: int | float | None = None
    onset_step: int | float | None = None
    per_token: bool | None = None
    reference: Reference = field(default_factory=Reference)
    beta_source: str | None = None
    over_optimized: bool | None = None
    best_step: int | float | None = None
    nonfinite_steps: list[int | float] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    ends: dict[str, float] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    cannot_tell: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    curve: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)

    @property
    def depth_nats(self) -> float | None:
        """The depth where it is known in nats (summed or per token, see `per_token`)."""
        return self.depth if self.unit in ("nats", "nats per token") else None

    @property
    def confidence(self) -> str:
        """``clear`` beyond four standard errors, ``likely`` beyond the limit, ``weak`` within it."""
        if self.depth is None or self.depth_noise is None:
            return "weak"
        sigmas = abs(self.depth) / max(self.depth_noise, 1e-12)
        return "clear" if sigmas >= 2 * BEYOND_NOISE else "likely" if sigmas >= BEYOND_NOISE else "weak"

    def to_json(self) -> dict[str, Any]:
        """The verdict as a JSON object (no NaN, no numpy)."""
        plain = {
            "name": self.name,
            "form": self.form,
            "verdict": self.verdict,
            "confidence": self.confidence,
            "onset_step": self.onset_step,
            "depth_nats": self.depth_nats,
            "depth": self.depth,
            "depth_unit": self.unit,
            "depth_noise": self.depth_noise,
            "deepest": self.deepest,
            "deepest_step": self.deepest_step,
            "per_token": self.per_token,
            "beta": self.reference.beta,
            "beta_spread": self.reference.beta_spread,
            "beta_source": self.beta_source,
            "reference_chosen_logp": self.reference.chosen,
            "reference_rejected_logp": self.reference.rejected,
            "reference_spread": self.reference.spread,
            "reference_free": self.reference.free,
            "fixed_set": self.reference.holds if not self.reference.free else None,
            "over_optimized": self.over_optimized,
            "best_step": self.best_step,
            "nonfinite_steps": self.nonfinite_steps,
            "missing": self.missing,
            "basis": self.basis,
            "baseline": self.baseline,
            "final": self.ends,
            "reasons": self.reasons,
            "cannot_tell": self.cannot_tell,
            "checks": self.checks,
            "advice": self.advice,
        }
        return {key: _plain(value) for key, value in plain.items()}


@dataclass(frozen=True)
class _Signal:
    """The chosen log-probability above its baseline, and how well that is known."""

    values: pd.Series  # by step, smoothed where rows are noisy
    raw: pd.Series
    rejected: pd.Series | None
    unit: str
    basis: str
    baseline: str
    error: float  # of one value of `values` against the baseline
    limit: float  # what counts as beyond noise, in `unit`
    batches: bool  # rows of changing batches, not of a fixed set
    weak: bool  # log-probabilities of changing batches: too noisy to decide that nothing happened

    @property
    def end(self) -> float:
        return float(self.values.iloc[-1])


def judge(log: Log, *, beta: float | None = None) -> Verdict:
    """Judge one run.

    Parameters
    ----------
    log : Log
    beta : float, optional
        β where the user knows it; else it is recovered from a fixed evaluation set, or taken from the log's text.

    Returns
    -------
    Verdict

    Examples
    --------
    >>> from rewardshape.trace.importers import read_logs
    >>> judge(read_logs("zephyr.md")[0]).verdict        # doctest: +SKIP
    'displaced'
    """
    evaluated, trained = log.split("eval"), log.split("train")
    reference, source = _reference(evaluated, trained, beta, log.settings)
    per_token = log.settings.get("per_token", is_per_token(pd.concat([evaluated, trained])))
    signal = _signal(evaluated, trained, reference, per_token, log.counts)
    # What "the run" is for loss, margin and accuracy: the fixed set where it has enough rows, else the batches.
    rows = evaluated if len(evaluated) >= MIN_ROWS and _has(evaluated, "loss") else trained
    rows = rows if len(rows) else evaluated
    ends = _ends(rows)
    over, best = _over_optimized(evaluated, trained)
    falls = _falls(signal)
    word, reasons = _word(signal, falls, rows, trained, ends)
    if signal is None and word == "undetermined" and (lost := _lost_to_nan(log)):
        reasons = [lost]
    found = dict(
        name=log.name,
        form=log.form,
        verdict=word,
        per_token=per_token,
        reference=reference,
        beta_source=source,
        over_optimized=over,
        best_step=best,
        nonfinite_steps=sorted(set(log.nonfinite["step"])),
        missing=_missing(log),
        ends=ends,
        reasons=reasons,
        checks=[] if log.form == OWN_FORM else _checks(evaluated, trained, reference),
    )
    if signal is not None and len(signal.values) >= MIN_ROWS:
        found |= _numbers(signal, word)
    found["cannot_tell"] = _cannot_tell(log, signal, reference, evaluated)
    verdict = Verdict(**found)  # type: ignore[arg-type]
    return Verdict(**{**found, "advice": advice_for(verdict)})  # type: ignore[arg-type]


# --- what is measured --------------------------------------------------------------------------------------------


def _reference(
    evaluated: pd.DataFrame, trained: pd.DataFrame, beta: float | None, settings: dict[str, Any]
) -> tuple[Reference, str | None]:
    """β and the reference, from the evaluation rows or (without a reference) from the training rows, and β's source."""
    if "reference_free" in settings:  # a run of ours knows
        free, own = (
            settings["reference_free"],
            (settings.get("reference_chosen"), settings.get("reference_rejected")),
        )
        return Reference(settings["beta"], 0.0, *own, 0.0, free=free), "stated in the manifest"
    found = recover_reference(evaluated, beta=beta) if len(evaluated) else Reference()
    if not found.holds and _has(trained, "logp_chosen", "reward_chosen"):
        # Batches can show that there is no reference; a line through a few of them would be chance
        batches = recover_reference(trained)
        found = batches if batches.free else found._replace(free=False)
    if found.free is None and _looks_free(evaluated, trained, settings):
        found = found._replace(free=True)
    if beta is not None:
        return found._replace(beta=beta), "given"
    if found.beta is not None:
        return found, "recovered"
    stated = settings.get("beta")
    return (found._replace(beta=stated), "stated in the log") if stated else (found, None)


def _looks_free(evaluated: pd.DataFrame, trained: pd.DataFrame, settings: dict[str, Any]) -> bool:
    """Without log-probabilities, signs that rewards are not measured from a reference.

    ORPO logs log-odds; the log may state the loss; or both rewards are far from 0 in the first row, much further than
    from each other.
    """
    if _has(evaluated, "log_odds_chosen") or _has(trained, "log_odds_chosen"):
        return True
    if settings.get("loss_type") in REFERENCE_FREE_LOSSES:
        return True
    if not _has(trained, "reward_chosen", "reward_rejected"):
        return False
    first = trained[["reward_chosen", "reward_rejected"]].dropna().iloc[:1].to_numpy()
    return bool(
        first.size and np.abs(first).min() > FAR_FROM_ZERO and np.ptp(first) < np.abs(first).min() / 4
    )


def _has(table: pd.DataFrame, *columns: str) -> bool:
    return all(column in table and table[column].notna().any() for column in columns)


def _signal(
    evaluated: pd.DataFrame, trained: pd.DataFrame, reference: Reference, per_token: bool | None, counts: str
) -> _Signal | None:
    """The best series for the chosen responses: a fixed set before batches, and of a set the best baseline.

    That is the untouched checkpoint where step 0 was evaluated, else the reference, where rewards are 0, else the
    first row.
    """
    logp_unit = "nats per token" if per_token else "nats"
    for table, batches in ((evaluated, False), (trained, True)):
        enough = FEW_EVALUATIONS if _count(trained) >= MANY_ROWS else MIN_ROWS
        if not batches and _count(table) < enough and _count(trained) >= _count(table):
            continue
        where = "training batches" if batches else "the evaluation set"
        from_start = (
            not batches and _has(table, "logp_chosen") and table["logp_chosen"].first_valid_index() == 0
        )
        rewards_from_zero = _has(table, "reward_chosen") and reference.free is not True
        if rewards_from_zero and not (from_start and counts == "step"):
            unit, scale = (logp_unit, 1 / reference.beta) if reference.beta else ("reward", 1.0)
            basis = f"rewards/chosen of {where}" + (
                f" divided by β = {reference.beta:.4g}" if reference.beta else ""
            )
            chosen = table["reward_chosen"].dropna() * scale
            rejected = table["reward_rejected"] * scale if _has(table, "reward_rejected") else None
            return _make_signal(chosen, rejected, unit, basis, "the reference", batches, True, False)
        series, unit = ("logp", logp_unit) if _has(table, "logp_chosen") else ("reward", "reward")
        if _has(table, f"{series}_chosen"):
            chosen, rejected = table[f"{series}_chosen"].dropna(), table.get(f"{series}_rejected")
            first = chosen.index[0]
            start = (
                "step 0" if first == 0 and counts == "step" else f"the first logged row ({counts} {first})"
            )
            basis = f"{SERIES[f'{series}_chosen']} of {where}"
            return _make_signal(chosen, rejected, unit, basis, start, batches, False, batches)
    return None


def _count(table: pd.DataFrame) -> int:
    """Rows that say something about the chosen responses."""
    columns = [column for column in ("reward_chosen", "logp_chosen") if column in table]
    return int(table[columns].notna().any(axis=1).sum()) if columns else 0


def _make_signal(
    chosen: pd.Series,
    rejected: pd.Series | None,
    unit: str,
    basis: str,
    baseline: str,
    batches: bool,
    from_zero: bool,
    weak: bool,
) -> _Signal:
    """Smooth rows of batches over a window, set the baseline to 0, and find the error of a value against it."""
    width = max(WINDOW_ROWS, round(WINDOW_SHARE * len(chosen))) if batches else 1
    width = min(width, max(1, len(chosen) // 2)) if not from_zero else min(width, len(chosen))
    noise = _noise(chosen.to_numpy(float), batches=batches)
    zero, zero_error = 0.0, 0.0
    if not from_zero:
        zero = float(chosen.iloc[:width].mean())
        zero_error = _mean_error(chosen.iloc[:width].to_numpy(float), noise) if batches else 0.0
    above = chosen - zero
    smooth = above.rolling(width, center=True, min_periods=1).mean() if width > 1 else above.copy()
    if width > 1:  # the end is the mean of the last window, not of half of one
        smooth.iloc[-1] = above.iloc[-width:].mean()
    last = _mean_error(above.iloc[-width:].to_numpy(float), noise) if batches else noise
    error = math.hypot(last, zero_error)
    limit = _critical(len(chosen)) * error
    if from_zero and not batches and len(chosen) <= FEW_EVALUATIONS:
        # The untouched checkpoint is a row of a fixed set too, and known: its reward is 0
        with_start = _noise(np.r_[0.0, chosen.to_numpy(float)])
        if _critical(len(chosen) + 1) * with_start < limit:
            error, limit = with_start, _critical(len(chosen) + 1) * with_start
    limit = max(limit, SMALLEST[unit])
    if rejected is not None:
        rejected = rejected.dropna()
        rejected = rejected - (0.0 if from_zero or rejected.empty else float(rejected.iloc[:width].mean()))
    return _Signal(smooth, above, rejected, unit, basis, baseline, error, limit, batches, weak)


def _noise(values: np.ndarray, *, batches: bool = False) -> float:
    """Standard deviation about a slow trend, from successive differences (von Neumann's estimator).

    First differences contain a steep trend whole, second differences its bend only: the smaller of the two counts
    for the few rows of a fixed set. Rows of batches are many, and noise is most of their differences.
    """
    if len(values) < 2:
        return math.inf
    orders = [(1, 2.0)] if batches or len(values) < 3 else [(1, 2.0), (2, 6.0)]
    return min(float(np.sqrt(np.mean(np.diff(values, order) ** 2) / scale)) for order, scale in orders)


def _mean_error(values: np.ndarray, noise: float) -> float:
    """Standard error of the mean of a window of rows, which may be correlated in time.

    The noise of one row is the larger of the trend-free one and the window's own; the number of independent rows is
    n(1 − ρ)/(1 + ρ) with the lag-1 autocorrelation ρ ≥ 0 of the window about its own trend.
    """
    if len(values) < WINDOW_ROWS:
        return noise
    place = np.arange(len(values))
    left = values - np.polyval(np.polyfit(place, values, 1), place)
    rho = float(np.clip(left[1:] @ left[:-1] / (left @ left), 0, 0.9)) if left @ left > 0 else 0.0
    spread = max(noise, float(np.sqrt(left @ left / max(len(values) - 2, 1))))
    return spread / math.sqrt(max(1.0, len(values) * (1 - rho) / (1 + rho)))


def _critical(count: int) -> float:
    return max(BEYOND_NOISE, float(stats.t.ppf(0.95, max(count - 1, 1))))


# --- the judgement -----------------------------------------------------------------------------------------------


def _falls(signal: _Signal | None) -> Literal["below", "dipped", "level", "unknown"]:
    """Where the chosen responses end: below the baseline, back at it after a dip, level or above, or unknown."""
    if signal is None or len(signal.values) < MIN_ROWS:
        return "unknown"
    worst = float(signal.values.min())
    regained = worst < 0 and signal.end > (1 - REGAINED) * worst
    dip = max(DIP_BEYOND_NOISE / BEYOND_NOISE * signal.limit, SMALLEST[signal.unit])
    if (
        worst < -dip
        and (regained or signal.end > -signal.limit)
        and signal.values.idxmin() != signal.values.index[-1]
    ):
        return "dipped"
    if signal.end < -signal.limit:
        return "below"
    if signal.values.min() >= 0 and not signal.weak:
        return "level"
    hides = signal.limit > HIDEABLE[signal.unit]
    return (
        "unknown"
        if hides and (signal.weak or len(signal.values) <= MIN_ROWS) and signal.end < signal.limit
        else "level"
    )


def _word(
    signal: _Signal | None, falls: str, rows: pd.DataFrame, trained: pd.DataFrame, ends: dict[str, float]
) -> tuple[Word, list[str]]:
    if reason := _stands_still(rows, trained, ends):
        return "not training", [reason]
    if reason := _saturated(rows, ends):
        return "saturated", [reason]
    if falls == "below" and (reason := _no_better_than_chance(ends)):
        return "collapsed", [reason]
    words: dict[str, Word] = {"below": "displaced", "dipped": "recovered", "level": "not displaced"}
    if falls in words:
        return words[falls], []
    if signal is None:
        return "undetermined", [
            "the log holds no rewards/chosen and no logps/chosen: only their difference, or the loss"
        ]
    if len(signal.values) < MIN_ROWS:
        return "undetermined", [
            f"the log holds {len(signal.values)} row with the chosen responses: too short"
        ]
    return "undetermined", [
        f"{signal.basis} scatters so much that a fall of {signal.limit:.2g} {signal.unit} could hide in it"
    ]


def _stands_still(rows: pd.DataFrame, trained: pd.DataFrame, ends: dict[str, float]) -> str | None:
    """Why nothing is trained, or None: gradients of exactly 0, a constant loss, or a loss that stays at ln 2."""
    if _saturated(rows, ends):
        return None
    moved = any(
        _moved(table, column) for table in (rows, trained) for column in ("margin", "reward_chosen", "loss")
    )
    norms = trained["grad_norm"].dropna() if "grad_norm" in trained else pd.Series(dtype=float)
    if len(norms) >= WINDOW_ROWS and (norms == 0).mean() >= STILL_SHARE and not moved:
        return f"the gradient norm is exactly 0 in {int((norms == 0).sum())} of {len(norms)} rows and nothing moves"
    for table in (trained, rows):
        losses = table["loss"].dropna() if "loss" in table else pd.Series(dtype=float)
        rewards = [table[c].dropna() for c in ("reward_chosen", "reward_rejected", "margin") if c in table]
        steady = all(np.ptp(series) < STILL_REWARD for series in rewards if len(series))
        if len(losses) >= WINDOW_ROWS and np.ptp(losses) < STILL_LOSS and steady:
            return f"the loss is {losses.iloc[-1]:.4g} in every row and nothing else moves"
        near = np.abs(losses - math.log(2)).mean() < AT_LN2
        if len(losses) >= STILL_ROWS and near and not moved and _has(table, "margin"):
            return f"after {len(losses)} rows the loss is still ln 2 = 0.693 and the margin has no trend"
    return None


def _moved(table: pd.DataFrame, column: str) -> bool:
    """Whether a series ends elsewhere than it began, beyond noise."""
    values = table[column].dropna().to_numpy(float) if column in table else np.array([])
    if len(values) < 2:
        return False
    if len(values) < 2 * WINDOW_ROWS:
        return abs(values[-1] - values[0]) > DIP_BEYOND_NOISE * _noise(values) + STILL_LOSS / 5
    width = max(WINDOW_ROWS, round(WINDOW_SHARE * len(values)))
    noise = _noise(values)
    error = math.hypot(_mean_error(values[:width], noise), _mean_error(values[-width:], noise))
    return abs(values[-width:].mean() - values[:width].mean()) > DIP_BEYOND_NOISE * error + STILL_LOSS / 5


def _saturated(rows: pd.DataFrame, ends: dict[str, float]) -> str | None:
    loss, margin, accuracy = ends.get("loss"), ends.get("margin"), ends.get("accuracy")
    if (
        loss is None
        or loss >= SATURATED_LOSS
        or len(rows) < MIN_ROWS
        or (margin is None and accuracy is None)
    ):
        return None
    if (margin is not None and margin < SATURATED_MARGIN) or (
        accuracy is not None and accuracy < SATURATED_ACCURACY
    ):
        return None
    with_margin = f" at a margin of {margin:.3g}" if margin is not None else ""
    return (
        f"the loss is down to {loss:.2g}{with_margin}: at most {1 - math.exp(-loss):.1%} of a pair's full gradient is "
        "left, and further steps mostly stretch the margin"
    )


def _no_better_than_chance(ends: dict[str, float]) -> str | None:
    accuracy, margin = ends.get("accuracy"), ends.get("margin")
    if accuracy is not None and accuracy <= CHANCE and (margin is None or margin < SATURATED_MARGIN):
        return f"rewards/accuracies ends at {accuracy:.2f}: chosen is preferred no more often than by chance"
    if accuracy is None and margin is not None and margin <= 0:
        return f"the mean margin ends at {margin:.2g}: chosen is not preferred any more"
    return None


def _ends(rows: pd.DataFrame) -> dict[str, float]:
    """The level at the end: the last evaluation, or the mean of the last window of batches."""
    ends = {}
    fixed = not _has(rows, "grad_norm") and not _has(rows, "learning_rate")
    for column in (
        "loss",
        "margin",
        "accuracy",
        "reward_chosen",
        "reward_rejected",
        "logp_chosen",
        "logp_rejected",
    ):
        values = rows[column].dropna() if column in rows else pd.Series(dtype=float)
        if len(values):
            width = 1 if fixed else min(len(values), max(WINDOW_ROWS, round(WINDOW_SHARE * len(values))))
            ends[column] = float(values.iloc[-width:].mean())
    if "margin" not in ends and {"reward_chosen", "reward_rejected"} <= set(ends):
        ends["margin"] = ends["reward_chosen"] - ends["reward_rejected"]
    if "margin" in ends and (scale := effective_scale(rows)) is not None and 0 < scale < 0.5:
        ends["margin"] *= scale  # margins logged as log-ratios, before β
    return ends


def _numbers(signal: _Signal, word: Word) -> dict[str, Any]:
    values = signal.values
    curve = pd.DataFrame({"step": values.index, "chosen": signal.raw.to_numpy(), "smooth": values.to_numpy()})
    if signal.rejected is not None:
        curve = curve.merge(
            pd.DataFrame({"step": signal.rejected.index, "rejected": signal.rejected.to_numpy()}),
            how="left",
            on="step",
        )
    return {
        "unit": signal.unit,
        "basis": signal.basis,
        "baseline": signal.baseline,
        "depth": -signal.end,
        "depth_noise": signal.error if math.isfinite(signal.error) else None,
        "limit": signal.limit if math.isfinite(signal.limit) else None,
        "deepest": -float(values.min()),
        "deepest_step": values.idxmin(),
        "highest": float(values.max()),
        "highest_step": values.idxmax(),
        "onset_step": _onset(signal, word),
        "curve": curve,
    }


def _onset(signal: _Signal, word: Word) -> int | float | None:
    """Where the fall began: in the last stretch below the baseline, where it first stands out.

    The stretch is found on the smoothed values; within it rows of batches are smoothed lightly, since a wide window
    would see the fall before it comes.
    """
    values = signal.values.loc[: signal.values.idxmin()] if word == "recovered" else signal.values
    end = float(values.iloc[-1])
    if word in ("not displaced", "not training", "undetermined") or end >= 0:
        return None
    not_below = np.flatnonzero(values.to_numpy() >= 0)
    start = int(not_below[-1]) + 1 if len(not_below) else 0
    light, noise = values, _noise(values.to_numpy(float))
    if signal.batches:
        light = signal.raw.rolling(WINDOW_ROWS, center=True, min_periods=1).mean()
        noise = _noise(signal.raw.to_numpy(float), batches=True) / math.sqrt(WINDOW_ROWS)
    stretch = light.loc[values.index[start] : values.index[-1]]
    stands_out = stretch.to_numpy() <= -min(max(-ONSET_SHARE * end, noise), -end)
    return stretch.index[int(np.argmax(stands_out))]


def _over_optimized(evaluated: pd.DataFrame, trained: pd.DataFrame) -> tuple[bool | None, Any]:
    """Whether the held-out measure turned while the proxy went on, and the step that was best by it.

    The measure is the gold reward where there is one, else the held-out loss; accuracy or, last, the chosen log-prob
    name the best step where neither is there, without a judgement.
    """
    if _has(evaluated, "gold"):
        measure, proxy = -evaluated["gold"].dropna(), _grows(evaluated, "margin")
    elif _has(evaluated, "loss"):
        measure = evaluated["loss"].dropna()
        proxy = _grows(trained, "margin") or _grows(evaluated, "margin") or _grows(trained, "loss", -1)
    else:
        for column in ("accuracy", "logp_chosen"):
            if _has(evaluated, column) and len(evaluated) > 1:
                return None, evaluated[column].idxmax()
        return None, None
    best = measure.idxmin()
    if len(measure) < WINDOW_ROWS:
        return None, best if len(measure) > 1 else None
    rise = float(measure.iloc[-1] - measure.min())
    worse = rise > max(
        _critical(len(measure)) * _noise(measure.to_numpy(float)), WORSE_LOSS * abs(measure.min())
    )
    return bool(worse and proxy), best


def _grows(table: pd.DataFrame, column: str, sign: int = 1) -> bool:
    values = table[column].dropna() if column in table else pd.Series(dtype=float)
    return len(values) > 1 and sign * (float(values.iloc[-1]) - float(values.iloc[0])) > 0


# --- what to say about it ----------------------------------------------------------------------------------------


def _missing(log: Log) -> list[str]:
    logged = {column for column in log.table if log.table[column].notna().any()} | set(
        log.nonfinite["series"]
    )
    missing = [SERIES[series] for series in NEEDED if series not in logged]
    if log.form == OWN_FORM:  # our rewards and their margin are derived from the log-probabilities
        missing = [name for name in missing if not name.startswith("rewards/")]
    return missing if len(log.split("eval")) else [*missing, "evaluation rows"]


def _lost_to_nan(log: Log) -> str | None:
    lost = sorted({SERIES[s] for s in log.nonfinite["series"] if s in ("reward_chosen", "logp_chosen")})
    return f"every value of {' and '.join(lost)} is NaN or infinite" if lost else None


def _checks(evaluated: pd.DataFrame, trained: pd.DataFrame, reference: Reference) -> list[str]:
    checks: list[str] = []
    for table, where in ((evaluated, "evaluation"), (trained, "training")):
        for check in sanity_checks(table, reference_free=reference.free, beta=reference.beta):
            if check not in [text.split(": ", 1)[1] for text in checks]:
                checks.append(f"{where}: {check}")
    return checks


def _cannot_tell(
    log: Log, signal: _Signal | None, reference: Reference, evaluated: pd.DataFrame
) -> list[str]:
    unknown = []
    if signal is None:
        unknown.append("whether the chosen responses lost probability: a margin grows as well when both fall")
    elif signal.unit == "reward":
        unknown.append("the depth in nats: β is not in the log, give it with --beta")
    if signal is not None and signal.baseline.startswith("the first"):
        unknown.append("what happened before the first logged row, which is taken for the start")
    if signal is not None and signal.batches:
        unknown.append(
            "how a fixed set fared: training rows are of changing batches (evaluate every few steps)"
        )
    if reference.holds is False and _has(evaluated, "logp_chosen", "reward_chosen"):
        unknown.append(
            "the reference: logps − rewards/β is not constant, so the evaluated examples change or the reward is not "
            "linear in the log-probability; the rewards themselves are used"
        )
    if not len(evaluated):
        unknown.append("over-optimization: nothing held out is logged")
    unknown.append(
        "where the lost probability went, and whether answers got worse: that takes samples or a probe set"
    )
    if len(log.nonfinite):
        series = ", ".join(sorted({SERIES.get(name, name) for name in log.nonfinite["series"]}))
        unknown.append(f"the {log.nonfinite['step'].nunique()} steps at which {series} is NaN or infinite")
    return unknown


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

r"""What happened to the chosen responses in a run, judged from its log.

`judge` takes a `Log` (of another trainer, or made of our own trace by `logs_of_trace`) and returns a `Verdict`: a word,
the numbers behind it with their noise, what the log cannot tell, and what to try. It reads no file and draws nothing.

Every threshold is a constant of `rewardshape.verdict.thresholds`, with its reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from rewardshape.logs.names import SERIES
from rewardshape.logs.read import OWN_FORM, Log
from rewardshape.verdict.advice import advice_for
from rewardshape.verdict.recovery import Reference, find_reference, has, is_per_token
from rewardshape.verdict.sanity import effective_scale, sanity_checks
from rewardshape.verdict.signal import Signal, chosen_signal, critical, mean_error, onset, row_noise
from rewardshape.verdict.thresholds import (
    AT_LN2,
    BEYOND_NOISE,
    CHANCE,
    DIP_BEYOND_NOISE,
    HIDEABLE,
    MANY_ROWS,
    MIN_ROWS,
    REGAINED,
    SATURATED_ACCURACY,
    SATURATED_LOSS,
    SATURATED_MARGIN,
    SMALLEST,
    STILL_LOSS,
    STILL_REWARD,
    STILL_ROWS,
    STILL_SHARE,
    WINDOW_ROWS,
    WINDOW_SHARE,
    WORSE_LOSS,
)

Word = Literal[
    "displaced", "recovered", "not displaced", "saturated", "collapsed", "not training", "undetermined"
]

FALLING = ("displaced", "recovered", "saturated", "collapsed")  # the words with which a fall is dated
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
    nonfinite_series: list[str] = field(default_factory=list)
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
            "nonfinite_series": self.nonfinite_series,
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
    >>> from rewardshape.logs.read import read_logs
    >>> judge(read_logs("zephyr.md")[0]).verdict        # doctest: +SKIP
    'displaced'
    """
    evaluated, trained = log.split("eval"), log.split("train")
    reference, source = find_reference(evaluated, trained, beta, log.settings)
    per_token = log.settings.get("per_token", is_per_token(pd.concat([evaluated, trained])))
    signal = chosen_signal(evaluated, trained, reference, per_token, log.counts)
    # What "the run" is for loss, margin and accuracy: the fixed set where it has enough rows, else the batches.
    rows = evaluated if len(evaluated) >= MIN_ROWS and has(evaluated, "loss") else trained
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
        nonfinite_series=sorted({SERIES.get(name, name) for name in log.nonfinite["series"]}),
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


# --- the judgement -----------------------------------------------------------------------------------------------


def _falls(signal: Signal | None) -> Literal["below", "dipped", "level", "unknown"]:
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
        if hides and (signal.weak or len(signal.values) <= MANY_ROWS) and signal.end < signal.limit
        else "level"
    )


def _word(
    signal: Signal | None, falls: str, rows: pd.DataFrame, trained: pd.DataFrame, ends: dict[str, float]
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
        if len(losses) >= STILL_ROWS and near and not moved and has(table, "margin"):
            return f"after {len(losses)} rows the loss is still ln 2 = 0.693 and the margin has no trend"
    return None


def _moved(table: pd.DataFrame, column: str) -> bool:
    """Whether a series ends elsewhere than it began, beyond noise."""
    values = table[column].dropna().to_numpy(float) if column in table else np.array([])
    if len(values) < 2:
        return False
    if len(values) < 2 * WINDOW_ROWS:
        return abs(values[-1] - values[0]) > DIP_BEYOND_NOISE * row_noise(values) + STILL_LOSS / 5
    width = max(WINDOW_ROWS, round(WINDOW_SHARE * len(values)))
    noise = row_noise(values)
    error = math.hypot(mean_error(values[:width], noise), mean_error(values[-width:], noise))
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
    fixed = not has(rows, "grad_norm") and not has(rows, "learning_rate")
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


def _numbers(signal: Signal, word: Word) -> dict[str, Any]:
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
        "onset_step": onset(signal, until_deepest=word == "recovered") if word in FALLING else None,
        "curve": curve,
    }


def _over_optimized(evaluated: pd.DataFrame, trained: pd.DataFrame) -> tuple[bool | None, Any]:
    """Whether the held-out measure turned while the proxy went on, and the step that was best by it.

    The measure is the gold reward where there is one, else the held-out loss; accuracy or, last, the chosen log-prob
    name the best step where neither is there, without a judgement.
    """
    if has(evaluated, "gold"):
        measure, proxy = -evaluated["gold"].dropna(), _grows(evaluated, "margin")
    elif has(evaluated, "loss"):
        measure = evaluated["loss"].dropna()
        proxy = _grows(trained, "margin") or _grows(evaluated, "margin") or _grows(trained, "loss", -1)
    else:
        for column in ("accuracy", "logp_chosen"):
            if has(evaluated, column) and len(evaluated) > 1:
                return None, evaluated[column].idxmax()
        return None, None
    best = measure.idxmin()
    if len(measure) < WINDOW_ROWS:
        return None, best if len(measure) > 1 else None
    rise = float(measure.iloc[-1] - measure.min())
    worse = rise > max(
        critical(len(measure)) * row_noise(measure.to_numpy(float)), WORSE_LOSS * abs(measure.min())
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


def _cannot_tell(log: Log, signal: Signal | None, reference: Reference, evaluated: pd.DataFrame) -> list[str]:
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
    if reference.holds is False and has(evaluated, "logp_chosen", "reward_chosen"):
        unknown.append(
            "the reference: logps − rewards/β is not constant, so the evaluated examples change or the reward is not "
            "linear in the log-probability; the rewards themselves are used"
        )
    if not len(evaluated):
        unknown.append("over-optimization: nothing held out is logged")
    if not has(evaluated, "logp_greedy"):
        unknown.append(
            "where the lost probability went: that takes samples, or greedy log-probs of a probe set"
        )
    unknown.append("whether answers got worse: that takes samples")
    return unknown


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

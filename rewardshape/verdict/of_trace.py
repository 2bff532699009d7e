"""Evidence from the probe pairs of a run of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rewardshape.analysis.generations import judgements_of
from rewardshape.analysis.panels import (
    Panel,
    chosen_and_rejected,
    pair_weights,
    reward_margins,
    run_objective,
    score_gaps,
    step_by_step,
)
from rewardshape.analysis.resampling import (
    MIN_PROMPTS,
    MIN_TESTED,
    evenly,
    mean_bounds,
    mean_error,
    resampled_means,
    studentised,
)
from rewardshape.analysis.samples import has_gold
from rewardshape.numbers import moment, percent, significant
from rewardshape.theory import Objective
from rewardshape.trace import Trace
from rewardshape.verdict.ahead import where_it_goes
from rewardshape.verdict.evidence import (
    Baseline,
    Broken,
    Change,
    Course,
    Evidence,
    HeldOut,
    Learning,
    Onset,
)
from rewardshape.verdict.recovery import Reference
from rewardshape.verdict.rows import MOST_OF_RUN, smallest_seen
from rewardshape.verdict.spikes import carried_by, carried_by_pair
from rewardshape.verdict.thresholds import (
    CHANCE_LIKELY,
    MATTERS,
    MUCH_WORSE_LOSS,
    ONSET_SHARE,
    SMALLEST,
    STILL_REWARD,
    WORSE_LOSS,
)
from rewardshape.verdict.tried import tried_beside

FORM = "rewardshape run"
ENDS = np.array([0, -1])
MAX_STEPS = 400  # along which a run is looked at; the first, the last and evenly spaced ones between
# A change per token is never too small to matter only because responses are short.
MOST_PER_TOKEN = 0.05
BARE = ["run", "step", "seconds"]  # what the row of a step that logged nothing has


def evidence_of_trace(trace: Trace) -> list[Evidence]:
    """What every run of a trace shows on its probe pairs, in nats per token.

    Raises
    ------
    InputError
        If the trace holds no probe set at step 0.
    """
    return [_evidence(trace, chosen, rejected) for chosen, rejected in chosen_and_rejected(trace)]


def _evidence(trace: Trace, chosen: Panel, rejected: Panel) -> Evidence:
    goal, run = run_objective(chosen.run), chosen.run
    length = float(chosen.num_tokens.mean())
    prompts = len(np.unique(chosen.prompt_codes))
    steps = trace.steps[trace.steps["run"] == run.name]
    losses, margins = _pair_losses(goal, chosen, rejected), _margins(goal, chosen, rejected)
    broken = _broken(chosen, rejected, steps)
    kept = np.isfinite(chosen.sums["logp_sum"]).all(axis=1) & np.isfinite(rejected.sums["logp_sum"]).all(
        axis=1
    )
    found: dict[str, Any] = dict(
        name=run.name,
        form=FORM,
        unit="nats per token",
        basis=f"{len(chosen.pair_ids)} probe pairs",
        baseline=Baseline("step 0"),
        exact=prompts < MIN_TESTED,
        num_pairs=len(chosen.pair_ids),
        num_prompts=prompts,
        matters=min(MATTERS["nats"] / length, MOST_PER_TOKEN),
        smallest=SMALLEST["nats"] / length,
        broken=broken,
        rows=f"{len(chosen.pair_ids)} probe pairs, steps {moment(chosen.steps[0])} to {moment(chosen.steps[-1])}",
        per_token=True,
        reference=_reference(goal, chosen, rejected),
        beta_source="stated in the manifest",
        missing=(),
        why_unknown=_why_unknown(chosen),
        ahead=where_it_goes(chosen, rejected),
        cannot_tell=_cannot_tell(trace, run.name),
        answers=tuple(judgements_of(trace, run)),
        sampled=len(trace.samples) > 0 and bool((trace.samples["run"] == run.name).any()),
        tried=tried_beside(run.folder),
        curve=_curve(chosen, rejected),
        progress=_progress(chosen, losses, margins, steps),
    )
    if kept.sum() > 1 and kept[0]:
        chosen, rejected = _at(chosen, kept), _at(rejected, kept)
        losses = None if losses is None else losses[kept]
        found["learning"] = _learning(goal, chosen, rejected, losses, margins[kept], steps)
        found["held_out"] = _held_out(chosen, losses)
        found["facts"] = _facts(chosen)
        found |= levels_of_pairs(chosen, rejected)
        if found["exact"]:
            found["smallest_fall"] = found["smallest"]
    return Evidence(**found)


def _at(panel: Panel, rows: np.ndarray) -> Panel:
    return panel._replace(
        steps=panel.steps[rows], sums={name: values[rows] for name, values in panel.sums.items()}
    )


# --- levels ------------------------------------------------------------------------------------------------------


def levels_of_pairs(chosen: Panel, rejected: Panel) -> dict[str, Any]:
    """Where the chosen responses end, how deep and how high they were, and what of it came back, over prompts."""
    whole = chosen.change()
    mean = whole.mean(axis=1)
    rows = np.unique(np.r_[evenly(len(mean), MAX_STEPS), mean.argmin(), mean.argmax()])
    change, steps, prompts = whole[rows], chosen.steps[rows], chosen.prompt_codes
    mean = mean[rows]
    lowest, highest = int(mean.argmin()), int(mean.argmax())
    end = change[-1]
    [last] = _changes(end[None], prompts, steps[-1:])
    [fall] = _changes(rejected.change()[-1][None], prompts, steps[-1:])
    along = _searched(change, prompts)
    back = _searched(end - change, prompts)
    found: dict[str, Any] = {
        "chosen": last,
        "rejected": fall,
        "lowest": along(lowest, int(steps[lowest])),
        "highest": along(highest, int(steps[highest])),
        "regained": back(lowest, int(steps[lowest])),
        "given_back": back(highest, int(steps[highest])),
        "smallest_fall": _smallest(last, prompts),
    }
    stop = len(mean) if mean[-1] < 0 else lowest + 1
    found["onset"] = _onset(change[:stop], steps[:stop], prompts)
    return found


def _changes(values: np.ndarray, prompts: np.ndarray, steps: np.ndarray) -> list[Change]:
    """Means over pairs with their interval over prompts; exact, and about these pairs alone, where those are few."""
    mean = values.mean(axis=1)
    if len(np.unique(prompts)) < MIN_TESTED:
        return [
            Change(float(m), 0.0, float(m), float(m), 0.0 if m else 1.0, int(s))
            for m, s in zip(mean, steps, strict=True)
        ]
    error = mean_error(values, prompts)
    low, high = mean_bounds(values, prompts)
    found = []
    for i, step in enumerate(steps):
        chance = _chance(values[i], prompts, mean[i], error[i])
        found.append(
            Change(float(mean[i]), float(error[i]), float(low[i]), float(high[i]), chance, int(step))
        )
    return found


def _chance(values: np.ndarray, prompts: np.ndarray, mean: float, error: float) -> float:
    """One-sided chance of so large a mean if the true one is 0: Student's t or studentised bootstrap, the larger."""
    if error == 0:
        return 0.0 if mean else 1.0
    size = len(np.unique(prompts))
    drawn = studentised(values[None], prompts)[:, 0]
    beyond = (drawn >= mean / error).mean() if mean > 0 else (drawn <= mean / error).mean()
    return float(max(stats.t.sf(abs(mean) / error, size - 1), beyond))


def _searched(values: np.ndarray, prompts: np.ndarray) -> Any:
    """The change at a step that was searched for: its chance is that of the largest |t| over all steps (max-t)."""
    few = len(np.unique(prompts)) < MIN_TESTED
    error = mean_error(values, prompts)
    drawn = None if few else np.abs(studentised(values, prompts)).max(axis=1)

    def at(row: int, step: int) -> Change:
        [plain] = _changes(values[row][None], prompts, np.array([step]))
        if few or drawn is None or error[row] == 0:
            return plain
        beyond = float((drawn >= abs(plain.value) / error[row]).mean()) / 2
        return Change(plain.value, plain.error, plain.low, plain.high, max(plain.chance, beyond), step)

    return at


def _smallest(last: Change, prompts: np.ndarray) -> float | None:
    if last.error is None or len(np.unique(prompts)) < MIN_TESTED:
        return None
    return smallest_seen(last.error, len(np.unique(prompts)) - 1)


def _onset(change: np.ndarray, steps: np.ndarray, prompts: np.ndarray) -> Onset | None:
    """Where the mean first stood at `ONSET_SHARE` of its depth for good; the interval over resampled prompts."""
    mean = change.mean(axis=1)
    if mean[-1] >= 0:
        return None
    place = _begun(mean[None])[0]
    if len(np.unique(prompts)) < MIN_PROMPTS:
        step = int(steps[place])
        return Onset(step, step, step)
    drawn = resampled_means(change, prompts)
    low, high = np.quantile(_begun(drawn[drawn[:, -1] < 0]), [0.025, 0.975], method="nearest")
    first, last = int(steps[int(min(low, place))]), int(steps[int(max(high, place))])
    return Onset(int(steps[place]), first, last, last - first > MOST_OF_RUN * (steps[-1] - steps[0]))


def _begun(curves: np.ndarray) -> np.ndarray:
    """The first row of the last stretch below `ONSET_SHARE` of each curve's end; one per curve."""
    above = curves > ONSET_SHARE * curves[:, -1:]
    rows = curves.shape[1]
    last_above = rows - 1 - above[:, ::-1].argmax(axis=1)
    return np.where(above.any(axis=1), last_above + 1, 0)


# --- learning ----------------------------------------------------------------------------------------------------


def _pair_losses(goal: Objective, chosen: Panel, rejected: Panel) -> np.ndarray | None:
    """The objective's loss of every probe pair, (steps, pairs); None where a trace does not hold what it takes.

    Nor where the objective only stands for that of another trainer, which minimised another loss.
    """
    if not goal.sums_suffice or not chosen.run.manifest.get("objective_is_loss", True):
        return None
    return step_by_step(goal, goal.pair_loss, chosen, rejected)


def _learning(
    goal: Objective,
    chosen: Panel,
    rejected: Panel,
    losses: np.ndarray | None,
    margins: np.ndarray,
    steps: pd.DataFrame,
) -> Learning:
    gaps = score_gaps(goal, chosen, rejected)
    tied = float((gaps == 0).mean(axis=1)[-1])
    still = None
    moved = max(np.abs(panel.change(per_token=False)).max() for panel in (chosen, rejected))
    if moved < STILL_REWARD and (len(gaps) > 2 or (moved == 0 and _updated(steps))):
        still = f"no log-prob of the probe set moved by more than {significant(moved, 1)} nats"
    weights = pair_weights(_at(chosen, ENDS), _at(rejected, ENDS))[0] if goal.sums_suffice else None
    middles = None if weights is None else np.median(weights, axis=1)
    left = float(middles[1] / middles[0]) if middles is not None and middles[0] > 0 else None
    order = (gaps > 0).astype(float)
    [margin_change] = _changes((gaps[-1] - gaps[0])[None], chosen.prompt_codes, chosen.steps[-1:])
    [accuracy_change] = _changes((order[-1] - order[0])[None], chosen.prompt_codes, chosen.steps[-1:])
    carried = (
        None
        if weights is None or losses is None
        else carried_by_pair(chosen.pair_ids, weights[-1], losses[-1])
    )
    trained = steps[steps["step"] > 0].set_index("step").get("loss", pd.Series(dtype=float))
    return Learning(
        loss=None if losses is None else _course(losses.mean(axis=1)),
        margin=_course(margins),
        gap=_course(gaps.mean(axis=1)),
        accuracy=_course(order.mean(axis=1)),
        accuracy_change=accuracy_change,
        margin_change=margin_change,
        order_lost=_chance_of_losing(order, chosen),
        early_accuracy=float(order[0].mean()),
        gradient_left=left,
        still=still,
        ties=tied or None,
        carried=carried or carried_by(trained, "step"),
    )


def _updated(steps: pd.DataFrame) -> bool:
    """Whether an update had a learning rate above 0, as far as that is recorded: the first of a warm-up has none."""
    rates = steps.loc[steps["step"] > 0].get("learning_rate", pd.Series(dtype=float)).dropna()
    return rates.empty or bool((rates > 0).any())


def _chance_of_losing(order: np.ndarray, chosen: Panel) -> float:
    """How often pairs of which half are in order would look as if more had been, and had lost it by the end."""
    rows = np.unique(np.r_[evenly(len(order), MAX_STEPS), order.mean(axis=1).argmax()])
    shown = order[rows]
    highest = int(shown.mean(axis=1).argmax())
    rise = _searched(shown - 0.5, chosen.prompt_codes)(highest, 0)
    back = _searched(shown[-1] - shown, chosen.prompt_codes)(highest, 0)
    return max(rise.chance if rise.value > 0 else 1.0, back.chance if back.value < 0 else 1.0)


def _margins(goal: Objective, chosen: Panel, rejected: Panel) -> np.ndarray:
    """Mean reward margin of every step, γ included, as training logs it; the score gap where sums do not tell it."""
    measure = reward_margins if goal.sums_suffice else score_gaps
    return np.asarray(measure(goal, chosen, rejected).mean(axis=1))


def _course(values: np.ndarray) -> Course:
    return Course(float(values[0]), float(values[-1]), float(values.max()))


def _held_out(chosen: Panel, losses: np.ndarray | None) -> HeldOut | None:
    """Whether the loss on the probe pairs, which are not trained on, is worse at the end than at its best.

    The chance is that of the largest t-statistic of (end − earlier) over all steps, resampling prompts.
    """
    if losses is None or not np.isfinite(losses).all():
        return None
    mean = losses.mean(axis=1)
    rows = np.unique(np.r_[evenly(len(mean), MAX_STEPS), mean.argmin()])
    best = int(np.flatnonzero(rows == mean.argmin())[0])
    rise = losses[-1] - losses[rows]
    step = int(chosen.steps[rows[best]])
    above = bool(best == 0 and rise[best].mean() > 0)
    if len(np.unique(chosen.prompt_codes)) < MIN_TESTED:
        worse = rise[best].mean() > MUCH_WORSE_LOSS * abs(mean.min())
        return HeldOut("held-out loss", step, True if worse else None, above_start=above)
    error = mean_error(rise, chosen.prompt_codes)[best]
    drawn = studentised(rise, chosen.prompt_codes).max(axis=1)
    chance = float((drawn >= rise[best].mean() / error).mean()) if error > 0 else 1.0
    worse = chance <= 2 * CHANCE_LIKELY and rise[best].mean() > WORSE_LOSS * abs(mean.min())
    lowest, last = float(mean.min()), float(mean[-1])
    return HeldOut(
        "held-out loss", step, bool(worse), chance=chance, above_start=above, best=lowest, last=last
    )


# --- what stands beside ------------------------------------------------------------------------------------------


def _broken(chosen: Panel, rejected: Panel, steps: pd.DataFrame) -> Broken | None:
    """From where on the probe set, or else the training loss, is not finite."""
    bad = ~np.isfinite(chosen.sums["logp_sum"]).all(axis=1) | ~np.isfinite(rejected.sums["logp_sum"]).all(
        axis=1
    )
    if bad[-1]:
        since = len(bad) - int((~bad[::-1]).argmax()) if not bad.all() else 0
        return Broken(int(chosen.steps[since]), ("logps of the probe set",))
    trained = steps[steps["step"] > 0]
    # In another trainer, which logs every few steps, a row may tell nothing: it lacks the loss, and no more.
    trained = trained[trained.drop(columns=BARE, errors="ignore").notna().any(axis=1)]
    if "loss" in trained and len(trained) and trained["loss"].isna().iloc[-1]:
        finite = trained.loc[trained["loss"].notna(), "step"]
        after = trained["step"] > (finite.max() if len(finite) else 0)
        return Broken(int(trained.loc[after, "step"].min()), ("loss",))
    return None


def _reference(goal: Objective, chosen: Panel, rejected: Panel) -> Reference:
    of_chosen, of_rejected = (
        None if panel.ref_logp_sum is None else float((panel.ref_logp_sum / panel.num_tokens).mean())
        for panel in (chosen, rejected)
    )
    beta = goal.parameters.get("beta")
    return Reference(beta, 0.0, of_chosen, of_rejected, 0.0, not goal.needs_reference, True)


def _facts(chosen: Panel) -> tuple[str, ...]:
    fallen = float((chosen.change()[-1] < 0).mean())
    facts = [f"{percent(fallen)} of the chosen responses fell"]
    if "greedy_logp_sum" in chosen.sums:
        moved = float(chosen.change("greedy_logp_sum")[-1].mean())
        if np.isfinite(moved):
            facts.append(
                f"the tokens that greedy decoding would take in their place {'rose' if moved > 0 else 'fell'} by "
                f"{significant(abs(moved))} nats per token"
            )
    return tuple(facts)


def _why_unknown(chosen: Panel) -> str:
    return "only step 0 is measured so far" if len(chosen.steps) == 1 else ""


def _cannot_tell(trace: Trace, run: str) -> tuple[str, ...]:
    mine = trace.samples[trace.samples["run"] == run] if len(trace.samples) else trace.samples
    unknown = ["how another seed of this run would have ended: that takes --seeds"]
    if mine.empty:
        unknown.append("whether answers got worse: that takes --sample-every")
    elif not has_gold(mine):
        unknown.append(
            "whether answers got worse: that takes --gold or --gold-model, or people (rewardshape judgements)"
        )
    return tuple(unknown)


def _curve(chosen: Panel, rejected: Panel) -> pd.DataFrame:
    change = chosen.change().mean(axis=1)
    return pd.DataFrame(
        {"step": chosen.steps, "chosen": change, "smooth": change, "rejected": rejected.change().mean(axis=1)}
    )


def _progress(
    chosen: Panel, losses: np.ndarray | None, margins: np.ndarray, steps: pd.DataFrame
) -> pd.DataFrame:
    """Loss and margin of the probe set (the held-out rows) and of the batches, for drawing."""
    held = pd.DataFrame({"split": "eval", "step": chosen.steps, "margin": margins})
    if losses is not None:
        held["loss"] = losses.mean(axis=1)
    kept = [name for name in ("loss", "margin") if name in steps]
    trained = steps.loc[steps["step"] > 0, ["step", *kept]].assign(split="train")
    return pd.concat([held, trained], ignore_index=True).sort_values("step", kind="stable", ignore_index=True)

"""Why the chosen response fell: what all responses lose together, half of the gain in margin, and the rest.

Of pairs whose two responses are both samples of the untouched policy π₀, the mean change of the summed
log-probability over chosen *and* rejected is minus the divergence −KL(π₀‖π), whatever the labels and the objective
say. With Δ_w and Δ_l the mean changes and g = Δ_w − Δ_l the gain of the mean log-prob margin, all in nats,

    Δ_w = ½(Δ_w + Δ_l) + g/2 = −KL(π₀‖π) + g/2,        Δ_l = −KL(π₀‖π) − g/2.

So the chosen response of on-policy pairs falls on average exactly where the gain is less than twice the divergence.
Of other pairs ½(Δ_w + Δ_l) differs from −KL(π₀‖π) by an excess, which is measured here. docs/theory.md has the proof.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rewardshape.analysis.panels import Panel, chosen_and_rejected, probe_panels, run_label
from rewardshape.analysis.resampling import (
    MIN_PROMPTS,
    mean_interval,
    num_prompts,
    percentile_interval,
    resampled_means,
    with_interval,
)
from rewardshape.analysis.samples import samples_of
from rewardshape.errors import InputError
from rewardshape.trace import Run, Trace


def decompose(trace: Trace, *, own: str | None = None, seed: int = 0) -> pd.DataFrame:
    """The change of the chosen response in its parts, one row per run and probed step.

    Parameters
    ----------
    trace : Trace
        With a probe set.
    own : str, optional
        The name of a probe response that is a sample of the untouched policy at temperature 1 for the same prompts.
        Its mean change is −KL(π₀‖π) exactly but for noise. Without it the divergence is taken from the samples of the
        policy (``--sample-every``, at temperature 1), which know KL(π‖π₀): the two agree to second order in the
        change of the policy, and no further.
    seed : int
        Of the bootstrap over pairs (and over the prompts of the samples).

    Returns
    -------
    DataFrame
        ``run``, ``setting``, ``alpha``, ``seed``, ``step``, ``num_pairs``, and in nats per response, each with
        ``…_low`` and ``…_high`` of a 95 % interval:

        * ``chosen``: Δ_w, the mean change of the chosen responses since step 0;
        * ``margin_part``: g/2, half of the gain of the mean log-prob margin;
        * ``common``: ½(Δ_w + Δ_l), what both lost together, so that chosen = common + margin_part;
        * ``kl``: the divergence of policy and untouched policy, as `own` says; NaN where it is not known;
        * ``excess``: common + kl. Of on-policy pairs it is 0 but for noise; below 0 the pairs lose more than a sample
          of the policy's own does.

    Raises
    ------
    InputError
        If no probe response is called `own`.

    Examples
    --------
    >>> table = decompose(read_trace("figures/runs/embedded"))      # doctest: +SKIP
    """
    tables = []
    for chosen, rejected in chosen_and_rejected(trace):
        change_w, change_l = (panel.change(per_token=False) for panel in (chosen, rejected))
        parts = {
            "chosen": change_w,
            "margin_part": (change_w - change_l) / 2,
            "common": (change_w + change_l) / 2,
        }
        columns: dict[str, Any] = {"step": chosen.steps, "num_pairs": len(chosen.pair_ids)}
        for name, values in parts.items():
            ends = mean_interval(values, chosen.prompt_codes, seed=seed)
            columns |= with_interval(name, values.mean(1), *ends)
        if own is None:
            known = _by_samples(trace, chosen, parts["common"], seed)
        else:
            known = _by_own(trace, chosen.run, own, parts["common"], seed)
        columns |= known
        tables.append(pd.DataFrame(run_label(chosen.run) | columns))
    return pd.concat(tables, ignore_index=True)


def _by_own(trace: Trace, run: Run, own: str, common: np.ndarray, seed: int) -> dict[str, Any]:
    """KL(π₀‖π) as what the policy's own responses lost, and the excess, pair by pair."""
    found = [panel for panel in probe_panels(trace) if panel.run.name == run.name and panel.response == own]
    if not found:
        raise InputError(f"{run.folder}: no probe response is called {own!r}")
    if len(found[0].pair_ids) < common.shape[1]:
        raise InputError(f"{run.folder}: not every pair of the probe set has a response {own!r}")
    lost = -found[0].change(per_token=False)
    found_kl = with_interval("kl", lost.mean(1), *mean_interval(lost, found[0].prompt_codes, seed=seed))
    excess = common + lost
    ends = mean_interval(excess, found[0].prompt_codes, seed=seed)
    return found_kl | with_interval("excess", excess.mean(1), *ends)


def _by_samples(trace: Trace, chosen: Panel, common: np.ndarray, seed: int) -> dict[str, Any]:
    """KL(π‖π₀) and the excess at every step, NaN where nothing was sampled, without ends below `MIN_PROMPTS`."""
    run, steps = chosen.run, chosen.steps
    of_pairs = resampled_means(common, chosen.prompt_codes, seed=seed)
    kl, low, high, excess_low, excess_high = (np.full(len(steps), np.nan) for _ in range(5))
    for step, by_prompt in _sampled_divergences(trace, run):
        for at in np.flatnonzero(steps == step):
            of_samples = resampled_means(by_prompt[None], seed=seed + 1)[:, 0]  # drawn apart from the pairs
            kl[at] = by_prompt.mean()
            if len(by_prompt) < MIN_PROMPTS:
                continue
            low[at], high[at] = percentile_interval(of_samples, len(by_prompt))
            excess_low[at], excess_high[at] = percentile_interval(
                of_pairs[:, at] + of_samples, min(len(by_prompt), num_prompts(common, chosen.prompt_codes))
            )
    return with_interval("kl", kl, low, high) | with_interval(
        "excess", common.mean(1) + kl, excess_low, excess_high
    )


def _sampled_divergences(trace: Trace, run: Run) -> list[tuple[int, np.ndarray]]:
    """(step, mean divergence over the samples of each prompt) for every step that drew some."""
    rows = samples_of(trace, run)
    if rows.empty:
        return []
    means = rows["kl"].dropna().groupby([rows["step"], rows["prompt_id"]]).mean()
    return [(int(str(step)), part.to_numpy(float)) for step, part in means.groupby(level=0)]

"""The sampled responses of a trace, at one temperature, with their distance from the reference."""

from __future__ import annotations

import pandas as pd

from rewardshape.analysis.resampling import mean_error
from rewardshape.trace import Run, Trace

POLICY = 1.0
"""The temperature at which the policy itself is sampled: KL, best-of-n and over-optimization are of that."""


def samples_of(trace: Trace, run: Run | None = None, *, temperature: float = POLICY) -> pd.DataFrame:
    """The samples of a run, or of all runs, at one temperature.

    Parameters
    ----------
    trace : Trace
    run : Run, optional
    temperature : float

    Returns
    -------
    DataFrame
        As ``trace.samples``, with ``kl``, nats per response: the divergence of what was sampled from the reference,
        summed over the positions of the response; of records without ``kl_sum`` the log-ratio of the sample, which has
        the same mean at temperature 1 and more noise. NaN where there is neither.
    """
    samples = trace.samples
    if samples.empty:
        return samples.reindex(columns=[*samples.columns, "kl"])
    if run is not None:
        samples = samples[samples["run"] == run.name]
    if "temperature" in samples:
        samples = samples[samples["temperature"].fillna(POLICY) == temperature]
    elif temperature != POLICY:
        samples = samples.iloc[:0]
    return samples.assign(kl=_divergence(samples, temperature))


def judged(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples that have a gold reward: one whose reward failed is left out."""
    return samples[samples["gold"].notna()] if "gold" in samples else samples.iloc[:0]


def has_gold(samples: pd.DataFrame) -> bool:
    """Whether there are samples with a gold reward."""
    return len(judged(samples)) > 0


def temperatures(trace: Trace) -> list[float]:
    """The temperatures at which a trace has samples, the policy's own first, then downwards."""
    samples = trace.samples
    if samples.empty:
        return []
    found = set(samples["temperature"].fillna(POLICY)) if "temperature" in samples else {POLICY}
    return sorted(found, key=lambda temperature: (temperature != POLICY, -temperature))


def _divergence(samples: pd.DataFrame, temperature: float) -> pd.Series:
    nothing = pd.Series(float("nan"), index=samples.index)
    known = samples["kl_sum"] if "kl_sum" in samples else nothing
    if temperature != POLICY or not {"logp_sum", "ref_logp_sum"} <= set(samples):
        return known.astype(float)
    return known.fillna(samples["logp_sum"] - samples["ref_logp_sum"]).astype(float)


def kl_curve(trace: Trace) -> pd.DataFrame:
    """KL to the reference at every step that drew samples: run, setting, alpha, step, kl and kl_low, kl_high.

    The mean over the samples, nats per response, ± 2 standard errors over prompts; NaN where one was sampled.
    """
    rows = []
    for run in trace.runs:
        known = samples_of(trace, run).dropna(subset="kl")
        for step, samples in known.groupby("step") if len(known) else ():
            kl = samples["kl"].to_numpy(float)
            [error] = mean_error(kl[None], samples["prompt_id"].to_numpy())
            mean = kl.mean()
            rows.append((run.name, run.setting, run.alpha, step, mean, mean - 2 * error, mean + 2 * error))
    return pd.DataFrame(rows, columns=["run", "setting", "alpha", "step", "kl", "kl_low", "kl_high"])

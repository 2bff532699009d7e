"""Turning points on samples drawn from both forms; best-of-n against brute force."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rewardshape.analysis.overoptimization import (
    best_of_n_curve,
    describe,
    fitted_curves,
    gold_curve,
    turning_points,
)
from rewardshape.errors import InputError
from rewardshape.theory import objective
from rewardshape.trace import TraceWriter, read_trace

OBJECTIVE = {"name": "alphapo", "parameters": {"alpha": 0.25, "beta": 2.5, "gamma": 1.0}}


def gold_of(form: str, d: np.ndarray, peak: float, height: float) -> np.ndarray:
    """Gold over the start, with its peak of `height` at d = `peak` (math: R′(peak) = 0, R(peak) = height)."""
    if form == "best_of_n":
        return height * (2 * d / peak - (d / peak) ** 2)
    return height / peak * d * (1 + np.log(peak) - np.log(np.maximum(d, 1e-300)))


def draw_samples(
    rng: np.random.Generator,
    form: str = "policy_gradient",
    *,
    peak: float = 0.8,
    height: float = 0.3,
    end: float = 1.6,
    num_steps: int = 16,
    num_prompts: int = 64,
    noise: float = 0.4,
    log_ratio_noise: float = 1.0,
) -> pd.DataFrame:
    """Samples as a probe records them, with known truth: prompts differ in ease, log-ratios vary by √(2 KL)."""
    distance = end * (np.arange(num_steps) / (num_steps - 1)) ** 0.8
    ease = rng.normal(0, 0.2, num_prompts)
    shape = (num_steps, num_prompts)
    gold = 0.5 + gold_of(form, distance, peak, height)[:, None] + ease + noise * rng.normal(size=shape)
    log_ratio = distance[:, None] ** 2 + log_ratio_noise * np.sqrt(2) * distance[:, None] * rng.normal(
        size=shape
    )
    logp_sum = -12 - 2 * rng.random(shape)
    return pd.DataFrame(
        {
            "step": np.repeat(10 * np.arange(num_steps), num_prompts),
            "prompt_id": np.tile([f"prompt {i}" for i in range(num_prompts)], num_steps),
            "logp_sum": logp_sum.ravel(),
            "ref_logp_sum": (logp_sum - log_ratio).ravel(),
            "num_tokens": 25,
            "gold": gold.ravel(),
        }
    )


@pytest.fixture
def trace_of(tmp_path):
    """Writes samples into a run folder with the real writer and reads them back."""

    def trace_of(samples: pd.DataFrame, name: str = "run", stated: dict = OBJECTIVE):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"objective": stated, "run": {"seed": 0}}))
        probe_set = {"pair_id": ["p:1"], "response": ["chosen"], "num_tokens": [3], "ref_logp_sum": [None]}
        with TraceWriter(folder, probe_set) as writer:
            for step, rows in samples.groupby("step"):
                table = rows.drop(columns="step").to_dict("list")
                writer.append(int(step), probe={"logp_sum": [-3.0]}, samples=table)
        return read_trace(folder)

    return trace_of


@pytest.mark.parametrize("form", ["best_of_n", "policy_gradient"])
def test_without_noise_the_fit_finds_the_coefficients_and_the_peak(trace_of, rng, form):
    samples = draw_samples(rng, form, noise=0.0, log_ratio_noise=0.0, num_prompts=8)
    fits = turning_points(trace_of(samples)).set_index("form")
    fit = fits.loc[form]
    assert fit["peak_sqrt_kl"] == pytest.approx(0.8, abs=1e-3)
    assert fit["gold_drop"] == pytest.approx(
        0.3 - gold_of(form, np.array([1.6]), peak=0.8, height=0.3)[0], abs=1e-3
    )
    assert fit["preferred"]
    # the step at which d = 1.6·(t/150)^0.8 is 0.8; linear interpolation between steps ten apart
    assert fit["peak_step"] == pytest.approx(150 * 0.5 ** (1 / 0.8), abs=0.5)
    peak = 0.8
    a, b = {
        "best_of_n": (2 * 0.3 / peak, 0.3 / peak**2),
        "policy_gradient": (0.3 / peak * (1 + np.log(peak)), 0.3 / peak),
    }[form]
    assert (fit["a"], fit["b"]) == (pytest.approx(a, abs=2e-3), pytest.approx(b, abs=2e-3))


@pytest.mark.parametrize("form", ["best_of_n", "policy_gradient"])
def test_the_true_peak_lies_in_its_interval_about_95_times_in_100(trace_of, form):
    rng = np.random.default_rng(11)
    trials, inside = 40, 0
    read = trace_of(draw_samples(rng))
    for _ in range(trials):
        trace = replace(read, samples=draw_samples(rng, form).assign(run="run"))
        fit = turning_points(trace).set_index("form").loc[form]
        inside += fit["peak_sqrt_kl_low"] <= 0.8 <= fit["peak_sqrt_kl_high"]
    assert inside >= 34  # a coverage of 0.95 would fall below this about once in 500 seeds


@pytest.mark.parametrize("form", ["best_of_n", "policy_gradient"])
def test_the_form_that_made_the_data_is_preferred(trace_of, rng, form):
    fits = turning_points(trace_of(draw_samples(rng, form, num_prompts=1000, peak=0.5)))
    assert fits.loc[fits["preferred"], "form"].tolist() == [form]


def test_a_run_that_ends_before_its_peak_has_no_peak(trace_of, rng):
    fits = turning_points(trace_of(draw_samples(rng, peak=3.0, num_prompts=400)))
    assert not fits["peaks"].any()
    fit = fits.set_index("form").loc["policy_gradient"]
    assert fit["peak_sqrt_kl"] > 1.6
    assert fit["peak_step"] == np.inf
    assert fit["gold_drop"] == 0
    assert describe(fit).startswith("no peak within the run, which ends at √KL 1.")


def test_gold_that_never_moves_has_no_peak(trace_of, rng):
    for trial in range(5):
        fits = turning_points(trace_of(draw_samples(rng, height=0.0), f"run{trial}"))
        assert not fits["peaks"].any() or fits.loc[fits["peaks"], "gold_drop"].max() < 0.2
    assert (fits["gold_drop_low"] < 0.05).all()


def test_a_clear_peak_is_told_in_a_sentence(trace_of, rng):
    fits = turning_points(trace_of(draw_samples(rng, "best_of_n", num_prompts=500)))
    fit = fits.set_index("form").loc["best_of_n"]
    assert fit["peaks"]
    assert fit["gold_drop_low"] > 0
    assert describe(fit).startswith(f"gold reward peaks at √KL {fit['peak_sqrt_kl']:.2f} [")


def test_gold_that_only_falls_peaks_at_the_reference(trace_of, rng):
    samples = draw_samples(rng, noise=0.1, num_prompts=200)
    samples["gold"] -= 2 * samples["step"] / 150
    fit = turning_points(trace_of(samples)).set_index("form").loc["best_of_n"]
    assert fit["peaks"]
    assert fit["peak_sqrt_kl"] < 0.2


def test_the_curve_holds_kl_gold_and_implicit_reward_of_the_samples(trace_of, rng):
    samples = draw_samples(rng)
    curve = gold_curve(trace_of(samples)).set_index("step")
    at = samples[samples["step"] == 70]
    log_ratio = at["logp_sum"] - at["ref_logp_sum"]
    assert curve.loc[70, "kl"] == pytest.approx(log_ratio.mean())
    assert curve.loc[70, "kl_se"] == pytest.approx(log_ratio.std(ddof=1) / 8, rel=1e-4)
    assert curve.loc[70, "gold"] == pytest.approx(at["gold"].mean())
    reward = 2.5 * (1 - np.exp(-0.25 * at["logp_sum"] / 25)) / 0.25
    assert curve.loc[70, "proxy"] == pytest.approx(reward.mean())
    half_width = (curve.loc[70, "gold_high"] - curve.loc[70, "gold_low"]) / 2
    assert half_width == pytest.approx(1.96 * at["gold"].std(ddof=1) / 8, rel=0.1)
    assert curve.loc[0, "kl"] == curve.loc[0, "sqrt_kl"] == 0


def test_a_run_that_has_sampled_one_step_has_a_curve_of_one_point(trace_of, rng):
    at = draw_samples(rng).query("step == 70")
    log_ratio = at["logp_sum"] - at["ref_logp_sum"]
    [point] = gold_curve(trace_of(at)).to_dict("records")
    assert point["kl_se"] == pytest.approx(log_ratio.std(ddof=1) / 8, rel=1e-4)
    assert point["gold_low"] < at["gold"].mean() < point["gold_high"]


def test_an_implicit_reward_that_sums_do_not_tell_is_not_zero(trace_of, rng):
    stated = {"name": "ld_dpo", "parameters": dict(objective("ld_dpo", beta=0.1, tail=0.5).parameters)}
    trace = trace_of(draw_samples(rng), stated=stated)
    curve = gold_curve(trace)
    assert curve[["proxy", "proxy_low", "proxy_high"]].isna().all(axis=None)
    assert curve["gold_low"].notna().all()
    assert turning_points(trace)["proxy_rise"].isna().all()


def test_several_samples_of_few_prompts_are_resampled_one_by_one(trace_of, rng):
    samples = draw_samples(rng, noise=0.2)
    samples["prompt_id"] = [f"prompt {i % 4}" for i in range(len(samples))]
    fit = turning_points(trace_of(samples)).iloc[0]
    assert fit["peak_sqrt_kl_low"] < fit["peak_sqrt_kl"] < fit["peak_sqrt_kl_high"]


def test_the_fitted_curve_is_highest_at_the_stated_peak(trace_of, rng):
    fits = turning_points(trace_of(draw_samples(rng, num_prompts=300)))
    curves = fitted_curves(fits, points=2000).set_index("form")
    for fit in fits.itertuples():
        curve = curves.loc[fit.form]
        assert curve["sqrt_kl"].iloc[curve["gold"].argmax()] == pytest.approx(fit.peak_sqrt_kl, abs=2e-3)
        assert curve["gold"].max() == pytest.approx(fit.peak_gold, abs=1e-6)


def test_best_of_n_is_the_mean_over_all_subsets(rng):
    rows = [(prompt, gold) for prompt in range(3) for gold in rng.normal(size=6)]
    samples = pd.DataFrame(rows, columns=["prompt_id", "gold"])
    curve = best_of_n_curve(samples)
    for n in range(1, 7):
        by_hand = [
            np.mean([max(subset) for subset in itertools.combinations(of_prompt["gold"], n)])
            for _, of_prompt in samples.groupby("prompt_id")
        ]
        assert curve.loc[n - 1, "gold"] == pytest.approx(np.mean(by_hand))
        assert curve.loc[n - 1, "kl"] == pytest.approx(np.log(n) - (n - 1) / n)


def test_best_of_n_by_a_proxy_takes_the_gold_of_the_proxys_choice_and_shares_ties(rng):
    samples = pd.DataFrame({"prompt_id": 0, "gold": [0.0, 1.0, 4.0, 2.0], "proxy": [3.0, 1.0, 2.0, 2.0]})
    curve = best_of_n_curve(samples, rank_by="proxy")
    subsets = list(itertools.combinations(range(4), 2))
    tied = samples["gold"].to_numpy().copy()
    tied[[2, 3]] = 3.0
    by_hand = np.mean([tied[max(subset, key=lambda i: samples["proxy"][i])] for subset in subsets])
    assert curve["gold"].tolist() == pytest.approx([7 / 4, by_hand, 3 / 4 * 0 + 1 / 4 * 3, 0.0])


def test_best_of_n_stays_finite_for_many_samples(rng):
    samples = pd.DataFrame({"prompt_id": np.repeat([0, 1], 2000), "gold": rng.normal(size=4000)})
    gold = best_of_n_curve(samples)["gold"]
    assert np.isfinite(gold).all()
    assert (np.diff(gold) > 0).all()


def test_input_without_what_is_needed_says_what_to_do(trace_of, rng):
    samples = draw_samples(rng)
    with pytest.raises(InputError, match="sample more often"):
        turning_points(trace_of(samples[samples["step"] < 40], "short"))
    with pytest.raises(InputError, match="ref_logp_sum"):
        gold_curve(trace_of(samples.assign(ref_logp_sum=np.nan), "free"))
    with pytest.raises(InputError, match="--sample-every"):
        gold_curve(trace_of(samples[samples["step"] < 0], "none"))
    with pytest.raises(InputError, match="at least two samples"):
        best_of_n_curve(samples[samples["step"] == 0])
    with pytest.raises(InputError, match="'proxy'"):
        best_of_n_curve(samples, rank_by="proxy")


def test_a_sample_without_a_proxy_reward_is_left_out_of_best_of_n():
    table = pd.DataFrame(
        {"prompt_id": [0] * 4, "gold": [0.0, 0.3, 0.9, 5.0], "proxy": [1.0, 2.0, 3.0, np.nan]}
    )
    found = best_of_n_curve(table, rank_by="proxy")["gold"]
    assert found.tolist() == pytest.approx([0.4, 0.7, 0.9])

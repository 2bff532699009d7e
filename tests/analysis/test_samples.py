"""Samples of one temperature, and their divergence where it is recorded and where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rewardshape import read_trace
from rewardshape.analysis.samples import kl_curve, samples_of, temperatures


@pytest.fixture
def trace_of(write_run, tmp_path):
    def write(samples):
        sums = {"chosen": np.full((1, 3), -4.0), "rejected": np.full((1, 3), -5.0)}
        tokens = {name: np.full(3, 4) for name in sums}
        return read_trace(write_run(tmp_path / "run", sums, num_tokens=tokens, samples={0: samples}))

    return write


OLD = {
    "prompt_id": ["a", "b", "c"],
    "text": ["x", "y", "z"],
    "num_tokens": [1, 1, 1],
    "logp_sum": [-1.0, -2.0, -3.0],
    "ref_logp_sum": [-1.5, -2.0, -4.0],
}


def test_a_record_without_temperatures_is_of_the_policy_itself(trace_of):
    trace = trace_of(OLD)
    assert temperatures(trace) == [1.0]
    assert samples_of(trace)["kl"].tolist() == [0.5, 0.0, 1.0]
    assert samples_of(trace, temperature=0.0).empty


def test_each_temperature_has_its_own_samples_and_divergence(trace_of):
    trace = trace_of(OLD | {"temperature": [0.0, 1.0, 1.0], "kl_sum": [1.5, 0.25, None]})
    assert temperatures(trace) == [1.0, 0.0]
    assert samples_of(trace)["kl"].tolist() == [0.25, 1.0]  # where it is not recorded: the log-ratio
    assert samples_of(trace, trace.runs[0], temperature=0.0)["kl"].tolist() == [1.5]


def test_a_log_ratio_is_no_divergence_of_sharper_samples(trace_of):
    trace = trace_of(OLD | {"temperature": [0.0, 0.0, 1.0]})
    assert samples_of(trace, temperature=0.0)["kl"].isna().all()


def test_the_error_of_the_kl_is_over_prompts(trace_of, rng):
    """Eight prompts of 32 samples each, whose KL differs by prompt alone: eight numbers."""
    of_prompt = rng.exponential(size=8)
    prompts, kl = np.repeat(list("abcdefgh"), 32).tolist(), np.repeat(of_prompt, 32)
    samples = {"prompt_id": prompts, "text": ["x"] * 256, "num_tokens": [1] * 256, "kl_sum": kl.tolist()}
    [point] = kl_curve(trace_of(samples)).to_dict("records")
    assert point["kl"] == pytest.approx(of_prompt.mean())
    assert point["kl_high"] - point["kl"] == pytest.approx(2 * stats.sem(of_prompt))


def test_the_kl_of_one_prompt_has_no_error(trace_of):
    [point] = kl_curve(trace_of(OLD | {"prompt_id": ["a"] * 3})).to_dict("records")
    assert point["kl"] == 0.5
    assert np.isnan([point["kl_low"], point["kl_high"]]).all()


def test_a_trace_without_samples_has_an_empty_curve_of_kl(write_run, tmp_path):
    level = {name: np.full((2, 4), -10.0) for name in ("chosen", "rejected")}
    trace = read_trace(write_run(tmp_path, level, num_tokens={name: np.full(4, 5) for name in level}))
    assert kl_curve(trace).empty

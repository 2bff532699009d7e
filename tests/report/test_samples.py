"""What was sampled: KL with the error of scipy, and the same prompts then and now."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy import stats

from rewardshape.analysis.samples import has_gold, kl_curve
from rewardshape.plotting import plot_kl
from rewardshape.report.samples import MAX_PROMPTS, MAX_TEXT, then_and_now
from rewardshape.trace import RunFolder, read_trace

SUMS = {name: np.full((3, 4), -10.0) for name in ("chosen", "rejected")}
PROMPTS, DRAWS = 30, 2


@pytest.fixture
def write(write_run, tmp_path, rng):
    def one(gold=True, long=False):
        samples = {
            step: {
                "prompt_id": [f"p{i}" for i in range(PROMPTS) for _ in range(DRAWS)],
                "text": [
                    f"{step}-{i}-{j}" + "x" * (3000 * long) for i in range(PROMPTS) for j in range(DRAWS)
                ],
                "num_tokens": [5] * PROMPTS * DRAWS,
                "logp_sum": rng.normal(-10 + step, 1, PROMPTS * DRAWS),
                "ref_logp_sum": rng.normal(-10, 1, PROMPTS * DRAWS),
                "gold": rng.normal(step, 1, PROMPTS * DRAWS) if gold else [None] * PROMPTS * DRAWS,
            }
            for step in (0, 2)
        }
        folder = write_run(
            tmp_path / "run", SUMS, num_tokens={name: [5] * 4 for name in SUMS}, samples=samples
        )
        return read_trace(folder)

    return one


def test_kl_is_the_mean_log_ratio_with_two_standard_errors_over_prompts(write):
    trace = write()
    curve = kl_curve(trace)
    assert curve["step"].tolist() == [0, 2]
    for row in curve.itertuples():
        rows = trace.samples[trace.samples["step"] == row.step]
        ratio = rows["logp_sum"] - rows["ref_logp_sum"]
        error = stats.sem(ratio.groupby(rows["prompt_id"]).mean())  # as many samples of every prompt
        assert (row.kl, row.kl_low, row.kl_high) == pytest.approx(
            (ratio.mean(), ratio.mean() - 2 * error, ratio.mean() + 2 * error)
        )
    _, ax = plt.subplots()
    plot_kl(curve, ax)
    [line] = [line for line in ax.get_lines() if len(line.get_xdata()) == 2 and line.get_xdata()[1] == 2]
    np.testing.assert_allclose(line.get_ydata(), curve["kl"])


def test_the_first_sample_of_a_prompt_is_shown_then_and_now(write):
    trace = write()
    shown = then_and_now(trace)
    assert shown["prompts"] == [f"p{i}" for i in range(MAX_PROMPTS)]
    [run] = shown["runs"]
    assert run["steps"] == [0, 2]
    assert [[side["text"] for side in pair] for pair in run["texts"]] == [
        [f"0-{i}-0", f"2-{i}-0"] for i in range(MAX_PROMPTS)
    ]
    assert shown["asked"] == [""] * MAX_PROMPTS  # the run kept no texts of prompts
    lines = [json.dumps({"prompt_id": f"p{i}", "prompt": f"What is {i}?"}) for i in range(PROMPTS)]
    RunFolder(trace.folder).prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert then_and_now(trace)["asked"] == [f"What is {i}?" for i in range(MAX_PROMPTS)]
    gold = trace.samples.query("step == 2 and prompt_id == 'p3'")["gold"].iloc[0]
    assert run["texts"][3][1]["gold"] == f"{gold:.2f}".replace("-", "−")


def test_greedy_and_sampled_answers_stand_below_each_other(write_run, tmp_path):
    samples = {
        step: {
            "prompt_id": ["a", "b"] * 2,
            "temperature": [1.0, 1.0, 0.0, 0.0],
            "text": [f"{step}{kind}" for kind in ("as", "bs", "ag", "bg")],
            "finish": ["end", "length", "end", "end"],
            "num_tokens": [5] * 4,
            "logp_sum": [-1.0] * 4,
            "ref_logp_sum": [-1.0] * 4,
        }
        for step in (0, 2)
    }
    folder = write_run(tmp_path / "run", SUMS, num_tokens={name: [5] * 4 for name in SUMS}, samples=samples)
    shown = then_and_now(read_trace(folder))
    assert shown["prompts"] == ["a, greedy", "a, T = 1", "b, greedy", "b, T = 1"]
    sides = shown["runs"][0]["texts"]
    assert [[side["text"] for side in pair] for pair in sides] == [
        [f"0{kind}", f"2{kind}"] for kind in ("ag", "as", "bg", "bs")
    ]
    assert [pair[0]["cut"] for pair in sides] == [False, False, False, True]


def test_long_texts_are_cut_and_absent_gold_is_absent(write):
    trace = write(gold=False, long=True)
    assert not has_gold(trace.samples)
    sample = then_and_now(trace)["runs"][0]["texts"][0][0]
    assert len(sample["text"]) == MAX_TEXT + 2
    assert sample["gold"] is None


def test_a_trace_without_samples_has_nothing_to_show(write_run, tmp_path):
    trace = read_trace(write_run(tmp_path / "run", SUMS, num_tokens={name: [5] * 4 for name in SUMS}))
    assert then_and_now(trace) == {"prompts": [], "asked": [], "runs": []}
    assert not has_gold(trace.samples)
    assert isinstance(trace.samples, pd.DataFrame)


def test_a_prompt_that_is_another_one_in_each_run_is_shown_for_none(write, tmp_path):
    folder = write().folder
    (tmp_path / "sweep").mkdir()
    for name in ("a", "b"):
        shutil.copytree(folder, tmp_path / "sweep" / name)
        rows = "".join(
            json.dumps({"prompt_id": f"p{i}", "prompt": f"{name} asks {i}"}) + "\n" for i in range(PROMPTS)
        )
        RunFolder(tmp_path / "sweep" / name).prompts.write_text(rows, encoding="utf-8")
    asked = then_and_now(read_trace(tmp_path / "sweep"))["asked"]
    assert set(asked) == {"(another prompt in each run)"}
    assert then_and_now(read_trace(tmp_path / "sweep" / "a"))["asked"][0] == "a asks 0"

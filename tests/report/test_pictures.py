"""Which pictures a page has, and that none of a long run loses a step that matters."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from rewardshape.analysis import displacement_curve
from rewardshape.report.charts import Drawer, Palette
from rewardshape.report.pictures import pictures, thinned
from rewardshape.trace import read_trace
from rewardshape.verdict.findings import Tables


def test_a_spike_of_one_step_in_100000_is_drawn():
    steps = np.arange(100_001)
    change = -1e-6 * steps
    change[63_211] = -7.0
    rows = {"setting": "a", "run": "a", "step": steps, "logp_mean_change": change}
    curve = pd.concat([pd.DataFrame({**rows, "response": name}) for name in ("chosen", "rejected")])
    shown = thinned(curve)
    assert len(shown) < 13_000
    assert (shown["step"] == 63_211).sum() == 2
    assert {0, 100_000} <= set(shown["step"])


def test_numbers_under_the_pointer_are_those_of_the_table(sweep):
    trace = read_trace(sweep)
    charts = {
        chart.data["name"]: chart
        for chart in pictures(Tables(trace), Drawer(trace.runs, Palette.of(trace.runs)))
        if "name" in chart.data
    }
    curve = displacement_curve(trace).query("response == 'rejected'")
    lines = charts["rejected"].data["lines"]
    assert [line["name"] for line in lines] == ["α = −0.5", "α = 0", "α = 0.25"]
    for line, (_, rows) in zip(lines, curve.groupby("alpha"), strict=True):
        np.testing.assert_array_equal(line["x"], rows["step"])
        np.testing.assert_allclose(line["y"], rows["logp_mean_change"], rtol=6e-4, atol=1e-12)
        assert line["setting"] is not None
    path = charts["path"].data["lines"]
    assert [len(line["steps"]) for line in path] == [len(line["x"]) for line in path]


def drawn(folder):
    trace = read_trace(folder)
    return pictures(Tables(trace), Drawer(trace.runs, Palette.of(trace.runs)))


def names_of(charts):
    for chart in charts:
        assert chart.caption.endswith(".")
        assert chart.svg.startswith("<svg")
    return [chart.data["name"] for chart in charts if "name" in chart.data]


def test_a_run_has_the_pictures_that_its_trace_has_the_numbers_for(write, tmp_path):
    assert names_of(drawn(write(tmp_path / "run"))) == ["log-prob", "path", "accuracy"]


def test_a_sweep_has_both_responses_on_one_scale_and_its_equal_margin_in_words(sweep):
    charts = drawn(sweep)
    assert names_of(charts) == ["difference", "chosen", "rejected", "path", "accuracy", "at equal margin"]
    of = {chart.data.get("name"): chart for chart in charts}
    assert of["chosen"].data["y"] == of["rejected"].data["y"]
    assert [line["name"] for line in of["path"].data["lines"]] == ["α = −0.5", "α = 0", "α = 0.25"]
    assert "A vertical cuts all paths at the same margin" in of["path"].caption


def test_seeds_of_one_setting_keep_the_same_steps():
    steps = np.arange(20_001)
    rows = [
        pd.DataFrame(
            {"setting": "a", "run": run, "step": steps, "response": name, "logp_mean_change": -1e-4 * steps}
        )
        for run in ("s0", "s1")
        for name in ("chosen", "rejected")
    ]
    rows[1].loc[7_777, "logp_mean_change"] = 9.0
    kept = thinned(pd.concat(rows))
    of_each = {tuple(part["step"]) for _, part in kept.groupby(["run", "response"])}
    assert len(of_each) == 1
    assert 7_777 in of_each.pop()


def test_steps_of_a_path_are_those_that_every_seed_has(write, tmp_path):
    """The line of two seeds, one of which lost four steps, has no point there; the others keep their steps."""
    for seed in (0, 1):
        write(tmp_path / "sweep" / f"s{seed}", alpha=0.0, seed=seed)
    write(tmp_path / "sweep" / "other", alpha=1.0)
    file = tmp_path / "sweep" / "s1" / "trace.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:4] + lines[8:]), encoding="utf-8")
    path = next(chart for chart in drawn(tmp_path / "sweep") if chart.data.get("name") == "path")
    for line in path.data["lines"]:
        assert len(line["steps"]) == len(line["x"])
    assert path.data["lines"][0]["steps"] == [0, 1, 2, *range(7, 31)]


def test_under_the_pointer_of_the_win_rate_are_the_steps_that_were_measured(write_run, tmp_path, rng):
    """KL goes up and down along the run: step 2 has the largest; the front is one line, the steps are in order."""
    prompts = [f"p{i}" for i in range(64)]
    kls, gains = {0: 0.0, 1: 1.0, 2: 4.0, 3: 2.0, 4: 9.0}, {0: 0.0, 1: 0.5, 2: -0.5, 3: 1.0, 4: 0.0}
    gold = rng.normal(size=64)
    samples = {
        step: {
            "prompt_id": prompts, "text": ["so"] * 64, "num_tokens": [2] * 64, "gold": [*(gold + gains[step])],
            "logp_sum": [-2.0] * 64, "ref_logp_sum": [-2.0 - kl] * 64,
        }
        for step, kl in kls.items()
    }  # fmt: skip
    sums = {
        name: np.linspace(-20, -10, 36) - 0.1 * np.arange(5.0)[:, None] for name in ("chosen", "rejected")
    }
    folder = write_run(
        tmp_path / "run", sums, num_tokens={side: np.full(36, 5) for side in sums}, samples=samples
    )
    chart = next(chart for chart in drawn(folder) if chart.data.get("name") == "win rate")
    [line] = chart.data["lines"]
    assert line["steps"] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(line["x"], [0, 1, 2, 2**0.5, 3], atol=1e-3)
    assert line["y"][2] == 0.0
    assert line["y"][3] == 1.0


def test_under_the_path_stand_the_parts_of_a_fall_while_the_policy_is_near(write_run, tmp_path, rng):
    """Chosen −0.5 and rejected −1.1 nats; samples 0.6 nats from step 0 at step 1 and 3 nats at step 2."""
    moved = np.array([[0.0], [1.0], [5.0]]) + 0.1 * rng.normal(size=(1, 40)) * np.array([[0], [1], [1]])
    sums = {"chosen": -8 - 0.5 * moved, "rejected": -8 - 1.1 * moved}
    samples = {
        step: {
            "prompt_id": [f"p{i}" for i in range(64)],
            "num_tokens": [4] * 64,
            "logp_sum": (-5 + kl + 0.1 * rng.normal(size=64)).tolist(),
            "ref_logp_sum": [-5.0] * 64,
        }
        for step, kl in ((0, 0.0), (1, 0.6), (2, 3.0))
    }
    folder = write_run(
        tmp_path / "run", sums, num_tokens={name: np.full(40, 4) for name in sums}, samples=samples
    )
    charts = drawn(folder)
    [path] = [chart for chart in charts if "The path of the run" in chart.caption]
    said = re.search(
        r"At step 1, .* chosen stands at −0\.(\d+) nats per response: minus the divergence −0\.(\d+), plus half of the "
        r"gain of margin \+0\.(\d+), plus an excess of ([+−]0\.\d+) ",
        path.caption,
    )
    chosen, kl, half = (int(part) / 100 for part in said.groups()[:3])
    assert (chosen, kl, half) == pytest.approx((0.5, 0.6, 0.3), abs=0.03)
    assert float(said[4].replace("−", "-")) == pytest.approx(-chosen + kl - half, abs=0.02)

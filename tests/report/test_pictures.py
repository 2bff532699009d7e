"""Which pictures a page has, and that none of a long run loses a step that matters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

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


@pytest.mark.parametrize("several", [False, True])
def test_a_page_has_the_pictures_that_its_trace_has_the_numbers_for(write, sweep, tmp_path, several):
    charts = drawn(sweep if several else write(tmp_path / "run"))
    names = [chart.data.get("name") for chart in charts if chart.data.get("name")]
    assert names == (
        ["difference", "chosen", "rejected", "path", "accuracy"]
        if several
        else ["log-prob", "path", "accuracy"]
    )
    assert all(chart.caption.endswith(".") and chart.svg.startswith("<svg") for chart in charts)
    assert all(chart.data["number"] == len(chart.data["lines"]) for chart in charts)


def test_both_responses_of_a_sweep_are_on_one_scale(sweep):
    limits = [chart.data["y"] for chart in drawn(sweep) if chart.data.get("name") in ("chosen", "rejected")]
    assert limits[0] == limits[1]


def test_the_line_of_equal_margin_is_named_in_words_and_not_for_the_pointer(sweep):
    [path] = [chart for chart in drawn(sweep) if chart.data.get("name") == "path"]
    assert [line["name"] for line in path.data["lines"]] == ["α = −0.5", "α = 0", "α = 0.25"]
    assert ("Dashed line: one margin" in path.caption) is ("equal margin" in str(path.svg))


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

"""What the page's script gets is text and numbers that cannot end their element, true to the trace."""

from __future__ import annotations

import json

import numpy as np

from rewardshape.report.charts import Drawer, Palette
from rewardshape.report.data import MAX_STEPS, _steps, script_data
from rewardshape.report.pictures import pictures
from rewardshape.report.samples import then_and_now
from rewardshape.report.text import as_json
from rewardshape.trace import read_trace
from rewardshape.verdict.findings import Tables


def data_of(folder):
    trace = read_trace(folder)
    tables = Tables(trace)
    charts = pictures(tables, Drawer(trace.runs, Palette.of(trace.runs)))
    return trace, tables, script_data(tables, charts, then_and_now(trace), 0.5)


def test_runs_settings_steps_and_paths_are_those_of_the_trace(sweep):
    trace, tables, data = data_of(sweep)
    assert data["settings"] == ["α = −0.5", "α = 0", "α = 0.25"]
    assert [run["setting"] for run in data["runs"]] == [0, 1, 2]
    assert trace.runs[data["deepest"]].name == tables.deepest == "alpha=0.25"
    assert data["steps"] == sorted(trace.steps["step"].unique())
    for run, path in zip(trace.runs, data["portrait"]["paths"], strict=True):
        probe = trace.run(run.name).responses.query("split == 'probe'")
        probe = probe.assign(mean=probe["logp_sum"] / probe["num_tokens"])
        wide = probe.groupby(["step", "response"])["mean"].mean().unstack()
        np.testing.assert_allclose(path["points"], wide[["chosen", "rejected"]], atol=5.1e-4)
    assert data["portrait"]["start"] | {"alpha": 0.25, "beta": 2.5, "gamma": 0.5} == data["portrait"]["start"]
    json.loads(as_json(data))


def test_the_slider_of_a_long_run_has_few_steps_and_both_ends():
    class Long:
        kind = "time"
        data = {"lines": [{"x": list(range(100_001))}]}  # noqa: RUF012

    steps = _steps([Long()])
    assert len(steps) == MAX_STEPS
    assert (steps[0], steps[-1]) == (0, 100_000)
    assert set(np.diff(steps)) <= {166, 167}  # 100 000 / 599

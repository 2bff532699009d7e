"""What the page's script gets is text and numbers that cannot end their element, true to the trace."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from rewardshape.report.charts import Drawer, Palette
from rewardshape.report.data import MAX_STEPS, _steps, as_json, printable, script_data
from rewardshape.report.pictures import pictures
from rewardshape.report.samples import then_and_now
from rewardshape.trace import read_trace
from rewardshape.verdict.findings import Tables

TEXTS = st.text() | st.sampled_from(
    ["</script><script>x", "<!--", "\x00\x1b\x7f", "\ud800", "&lt;", "\\u003c", "\u2028"]
)


class Script(HTMLParser):
    """The content of the one script element, as a browser delimits it."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.content = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.content += data


@settings(max_examples=40)
@given(st.lists(TEXTS | st.integers() | st.none(), max_size=4))
def test_any_content_comes_out_of_its_element_as_it_went_in(content):
    page = Script(f'<script type="application/json">{as_json(content)}</script>')
    assert page.tags == ["script"]
    assert json.loads(page.content) == [printable(value) for value in content]
    page.content.encode("utf-8")


def test_text_that_is_already_escaped_is_left():
    assert printable(Markup("<b>\x00</b>")) == "<b>\x00</b>"
    assert printable("a\x00b") == "a\ufffdb"
    assert printable(3) == 3


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

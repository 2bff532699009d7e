"""What a notebook shows of a trace, a run and a verdict: text, escaped."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from rewardshape.trace import read_trace
from rewardshape.verdict import judge


class Text(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert attrs == []

    def handle_data(self, data):
        self.text += data


def test_trace_run_and_verdict_show_themselves_and_escape_what_they_name(tmp_path, write_run, rng):
    sums = {name: -10 - rng.normal(0.1, 0.2, (5, 12)).cumsum(axis=0) for name in ("chosen", "rejected")}
    folder = write_run(tmp_path / "<b onclick=x>", sums, num_tokens={name: np.full(12, 8) for name in sums})
    trace = read_trace(folder)
    verdict = judge(folder)
    for shown in (trace._repr_html_(), trace.runs[0]._repr_html_(), verdict._repr_html_()):
        page = Text(shown)
        assert "<b onclick=x>" in page.text
    assert "4 steps, 120 measured responses" in Text(trace._repr_html_()).text
    assert str(verdict.word) in Text(verdict._repr_html_()).text
    assert verdict.sentence in Text(verdict._repr_html_()).text

"""The pictures of the page: their numbers are the table's, and thinning hides no extreme."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rewardshape.report.charts import Drawer, Palette, keep
from rewardshape.report.pictures import pictures
from rewardshape.trace import read_trace
from rewardshape.verdict.findings import Tables


@given(st.integers(1, 3000), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_thinning_keeps_ends_and_extremes(size, bins, seed):
    values = np.random.default_rng(seed).normal(size=(size, 2)).cumsum(axis=0)
    kept = keep(values, bins)
    assert kept[0] == 0
    assert kept[-1] == size - 1
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= max(5 * bins + 1, 1)
    np.testing.assert_array_equal(values[kept].min(axis=0), values.min(axis=0))
    np.testing.assert_array_equal(values[kept].max(axis=0), values.max(axis=0))


def test_places_under_the_pointer_are_where_the_lines_are(sweep):
    """The first point of a line, put through the chart's own box and limits, is where the SVG begins that line."""
    trace = read_trace(sweep)
    chart = next(
        c
        for c in pictures(Tables(trace), Drawer(trace.runs, Palette.of(trace.runs)))
        if c.data.get("name") == "chosen"
    )
    data = chart.data
    (left, top, right, bottom), (width, height) = data["box"], data["size"]
    for line in data["lines"]:
        group = re.search(
            rf'<g data-setting="{line["setting"]}">\s*<path d="M ([\d.]+) ([\d.]+)[^"]*"[^>]*fill: none',
            chart.svg,
        )
        x = width * (left + (right - left) * (line["x"][0] - data["x"][0]) / (data["x"][1] - data["x"][0]))
        y = height * (bottom - (bottom - top) * (line["y"][0] - data["y"][0]) / (data["y"][1] - data["y"][0]))
        np.testing.assert_allclose([float(group[1]), float(group[2])], [x, y], atol=0.5)


def test_colours_of_alpha_keep_their_order_on_a_dark_page(sweep):
    """From dark to light by relative luminance, and all of them clear of the page's background."""
    palette = Palette.of(read_trace(sweep).runs)
    for colors in (palette.light, palette.dark):
        light = [
            sum(w * int(c[i : i + 2], 16) for w, i in ((0.2126, 1), (0.7152, 3), (0.0722, 5)))
            for c in colors.values()
        ]
        assert light == sorted(light)
    assert min(light) > 80


def test_labels_of_ticks_keep_all_their_digits(sweep):
    """Places in the SVG are shortened, what is written there is not: 0.005 is no 0.00."""
    trace = read_trace(sweep)

    def draw(ax):
        ax.plot([0, 1, 2], [0.0, 0.005, 0.0125])
        ax.set_yticks([0.0, 0.005, 0.0125])

    svg = str(Drawer(trace.runs, Palette.of(trace.runs)).draw(draw, "three ticks").svg)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"0.0000", "0.0050", "0.0125"} <= set(texts)
    places = " ".join(re.findall(r' d="([^"]*)"', svg))
    assert places
    assert not re.search(r"\d\.\d{3}", places)

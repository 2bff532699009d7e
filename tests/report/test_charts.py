"""The pictures of the page: their numbers are the table's."""

from __future__ import annotations

import re

import numpy as np

from rewardshape.report.charts import Drawer, Palette
from rewardshape.report.pictures import pictures
from rewardshape.trace import read_trace
from rewardshape.verdict.findings import Tables


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


def test_settings_whose_names_begin_alike_keep_names_of_their_own(write_run, tmp_path):
    sums = {name: np.linspace(-20, -10, 36) - np.arange(3.0)[:, None] for name in ("chosen", "rejected")}
    long = "/data/projects/preference-optimisation/experiments/2026/november/with-a-very-long-name"
    for name in "ab":
        run = {"seed": 0, "data": [f"{long}/train-{name}.jsonl"]}
        write_run(tmp_path / name, sums, num_tokens={side: np.full(36, 5) for side in sums}, run=run)
    trace = read_trace(tmp_path)
    charts = pictures(Tables(trace), Drawer(trace.runs, Palette.of(trace.runs)))
    chosen = next(chart for chart in charts if chart.data.get("name") == "chosen")
    assert [line["name"] for line in chosen.data["lines"]] == [run.setting_label for run in trace.runs]


def test_a_line_of_one_point_is_among_the_lines(sweep):
    trace = read_trace(sweep)
    drawer = Drawer(trace.runs, Palette.of(trace.runs))
    for count in (1, 2):
        [line] = drawer.draw(lambda ax, n=count: ax.plot(range(n), [0.5] * n, label="a"), "few").data["lines"]
        assert (line["x"], line["y"]) == ([0, 1][:count], [0.5] * count)


def test_further_responses_have_colours_for_a_dark_page(sweep):
    trace = read_trace(sweep)
    palette = Palette.of(trace.runs, ["chosen", "rejected", "a", "b"])
    assert len(palette.pairs) == len(palette.light) + 2
    drawer = Drawer(trace.runs, palette)
    light, dark = palette.others[1]
    chart = drawer.draw(lambda ax: ax.plot([0, 1, 2], [0, 1, 2], color=light, label="b"), "further")
    assert chart.data["lines"][0]["color"] == f"setting-{len(palette.light) + 1}"
    assert f"var(--setting-{len(palette.light) + 1})" in chart.svg
    assert light != dark
    assert light not in chart.svg


def test_a_name_with_half_a_character_is_drawn(sweep):
    trace = read_trace(sweep)
    chart = Drawer(trace.runs, Palette.of(trace.runs)).draw(
        lambda ax: ax.plot([0, 1, 2], [0, 1, 2], label="_a") and ax.set_title("a\x1bb"), "odd"
    )
    assert "\x1b" not in chart.svg
    str(chart.svg).encode()

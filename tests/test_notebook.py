"""A trace in a notebook: it draws itself, writes its page, and stays a trace."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import rewardshape as rs
from rewardshape.analysis import displacement_curve
from rewardshape.errors import InputError
from rewardshape.notebook import Portrait, slide
from rewardshape.plotting.style import style
from rewardshape.trace import read_trace as read_tables

PAIRS = 10


@pytest.fixture
def grid(write_run, tmp_path: Path, rng) -> Path:
    """α × β, two seeds each."""
    for alpha in (0.0, 1.0):
        for beta in (1.0, 2.5):
            for seed in (0, 1):
                sums = {
                    name: -10 - rng.normal(0.1, 0.2, (4, PAIRS)).cumsum(axis=0)
                    for name in ("chosen", "rejected")
                }
                write_run(
                    tmp_path / "grid" / f"alpha={alpha:g}-beta={beta:g}-seed={seed}",
                    sums,
                    num_tokens={name: np.full(PAIRS, 8) for name in sums},
                    objective={"name": "alphapo", "parameters": {"alpha": alpha, "beta": beta, "gamma": 0.5}},
                    run={"seed": seed},
                )
    return tmp_path / "grid"


def test_it_is_the_trace_that_was_read_and_every_run_of_it_draws_itself_too(grid):
    trace, tables = rs.read_trace(grid), read_tables(grid)
    assert isinstance(trace, rs.Trace)
    assert trace.responses.equals(tables.responses)
    one = trace.run(trace.runs[0].name)
    assert isinstance(one, rs.ShownTrace)
    assert isinstance(one.plot(), Figure)


def test_plot_gives_one_figure_in_the_projects_style_and_leaves_none_open(grid):
    figure = rs.read_trace(grid).plot()
    assert plt.get_fignums() == []
    assert plt.rcParams["svg.hashsalt"] != "rewardshape"  # the reader's own style is back
    assert not figure.axes[0].spines["top"].get_visible()
    assert [ax.get_title() for ax in figure.axes] == ["chosen", "rejected", "chosen, paired difference"]


def test_panels_by_what_the_runs_differ_in(grid):
    trace = rs.read_trace(grid)
    figure = trace.plot("trajectories", col="beta", row="seed")
    assert [ax.get_title() for ax in figure.axes] == [
        f"seed = {seed}, β = {beta}" for seed in (0, 1) for beta in ("1", "2.5")
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["α = 0", "α = 1"]
    [line] = [line for line in figure.axes[3].get_lines() if line.get_label() == "α = 1"]
    rows = displacement_curve(trace).query("run == 'alpha=1-beta=2.5-seed=1' and response == 'chosen'")
    np.testing.assert_allclose(line.get_ydata(), rows["logp_mean"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "trajectory"}, "no figure 'trajectory' of runs; there is trajectories"),
        ({"name": "gold"}, "needs sampled responses"),
        ({"name": "sweep", "col": "gamma"}, "col 'gamma': the runs differ in alpha, beta, seed"),
        ({"name": "gold_sweep"}, "needs sampled responses"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(grid, arguments, said):
    with pytest.raises(rs.InputError, match=said):
        rs.read_trace(grid).plot(**arguments)


def test_report_is_the_page_in_its_folder(grid):
    page = rs.read_trace(grid).report()
    assert page == grid / "report.html"
    text = page.read_text(encoding="utf-8")
    assert all(f'data-run="{json.loads(json.dumps(run.name))}"' in text for run in read_tables(grid).runs)


def test_a_slider_has_a_picture_for_every_value_on_one_scale():
    def draw(top):
        ax = plt.subplots()[1]
        ax.plot([0, 1], [0, top])
        return ax

    slider = slide(draw, [1.0, 10.0, -4.0], name="top <b>")
    assert slider.labels == ("1", "10", "−4")
    assert plt.get_fignums() == []
    pictures = [np.asarray(Image.open(io.BytesIO(picture)).convert("L")) for picture in slider.pictures]
    assert len({picture.shape for picture in pictures}) == 1
    assert len({picture.tobytes() for picture in pictures}) == 3
    shown = slider._repr_mimebundle_()
    assert base64.b64decode(shown["image/png"]) == slider.pictures[-1]
    assert shown["text/html"].count("<img") == 3
    assert shown["text/html"].count(" hidden>") == 2
    assert "<b>" not in shown["text/html"]
    assert "http" not in shown["text/html"]


def test_every_frame_spans_what_any_of_them_spans():
    limits = []

    def draw(top):
        ax = plt.subplots()[1]
        ax.plot([0, 1], [0, top])
        limits.append(ax)
        return ax

    slide(draw, [1.0, 10.0], name="top")
    assert limits[0].get_ylim() == limits[1].get_ylim()
    assert limits[0].get_ylim()[1] >= 10


def test_the_portrait_is_a_page_of_its_own_that_fetches_nothing():
    shown = Portrait()._repr_html_()
    assert "srcdoc=" in shown
    assert "default-src &#x27;none&#x27;" in shown


def test_a_picture_is_drawn_in_the_style_that_is_in_force(grid):
    trace = rs.read_trace(grid)

    def font():
        return trace.plot("trajectories").axes[0].xaxis.label.get_fontfamily()

    plain = font()
    with style("paper"):
        printed = font()
    assert plain == font()
    assert (printed, plain) == (["STIXGeneral"], ["DejaVu Sans"])


def test_axes_that_point_down_keep_pointing_down_and_no_value_is_one_line():
    def draw(top):
        _, ax = plt.subplots()
        ax.set_ylim(top, 0)
        return ax

    kept = []
    slide(lambda top: kept.append(draw(top)) or kept[-1], [5.0, 10.0], name="top")
    assert [ax.get_ylim() for ax in kept] == [(10, 0), (10, 0)]
    with pytest.raises(InputError, match="there is no value"):
        slide(draw, [], name="top")

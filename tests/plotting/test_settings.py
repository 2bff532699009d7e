"""Settings are told apart by α, or by name; one whose runs all diverged says so in its name and at its tick."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import same_color
from matplotlib.text import Text

from rewardshape.plotting.distributions import plot_kl
from rewardshape.plotting.settings import by_setting, settings_axis
from rewardshape.plotting.style import COLUMN_WIDTH, alpha_color, style


def table(settings: list[str], alphas: list[float], diverged: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"setting": settings, "alpha": alphas, "diverged": diverged})


def test_by_alpha_in_its_order_and_colours():
    rows = table(["alpha=1", "alpha=-0.5", "alpha=1"], [1.0, -0.5, 1.0], [False] * 3)
    low, high = by_setting(rows)
    assert (low.label, low.tick, low.place) == ("α = −0.5", "−0.5", -0.5)
    assert (high.label, high.place, len(high.rows)) == ("α = 1", 1.0, 2)
    assert same_color(high.color, alpha_color(1.0))
    assert by_setting(rows.drop(columns="diverged"))[0].label == "α = −0.5"


def test_a_setting_is_lost_where_all_its_runs_are():
    rows = table(
        ["alpha=0", "alpha=0", "alpha=9", "alpha=9"], [0.0, 0.0, 9.0, 9.0], [False, True, True, True]
    )
    assert [(one.label, one.tick) for one in by_setting(rows)] == [
        ("α = 0", "0"),
        ("α = 9 (diverged)", "9\n(diverged)"),
    ]


def test_by_name_the_axis_is_of_runs_also_where_one_diverged():
    settings = by_setting(table(["dpo", "ipo"], [math.nan] * 2, [True, True]))
    assert [one.label for one in settings] == ["dpo (diverged)", "ipo (diverged)"]
    _, ax = plt.subplots()
    settings_axis(ax, settings)
    assert ax.get_xlabel() == "run"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["dpo\n(diverged)", "ipo\n(diverged)"]
    settings_axis(ax, by_setting(table(["alpha=0", "alpha=1"], [0.0, 1.0], [True, False])))
    assert ax.get_xlabel() == "α"


@pytest.mark.parametrize("letters", [20, 40, 80])
def test_long_names_take_lines_and_leave_the_panel_its_room(letters):
    """Three settings without an α of their own, named as by several values that they differ in."""
    names = [f"beta={k}, learning_rate={k}e-06, schedule={'x' * letters}"[:letters] for k in (1, 2, 3)]
    table = pd.DataFrame(
        {"setting": np.repeat(names, 4), "run": np.repeat(names, 4), "alpha": 0.25, "step": [0, 1, 2, 3] * 3}
    )
    table["kl"] = table["step"] * (1 + table.index)
    with style():
        figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 2.5))
        plot_kl(table, ax)
        figure.canvas.draw()
    assert ax.get_position().width > 0.25  # of the figure
    named = [text for text in figure.findobj(Text) if text.get_text().startswith("beta=")]
    boxes = [text.get_window_extent() for text in named]
    assert len(boxes) == 3
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    assert all(box.x1 <= figure.bbox.x1 + 1 for box in boxes)
    plt.close(figure)


@pytest.mark.parametrize("count", [12, 20, 40])
def test_many_settings_leave_the_panel_its_room_and_stay_within_the_picture(count):
    alphas = np.arange(count) / 10 - 1
    table = pd.DataFrame({"setting": [f"alpha={a:.3g}" for a in alphas], "alpha": alphas})
    table = table.assign(run=table["setting"]).merge(pd.DataFrame({"step": [0, 1, 2]}), how="cross")
    table["kl"] = table["step"] * (1 + table.index)
    with style():
        figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 2.5))
        plot_kl(table, ax)
        figure.canvas.draw()
    place = ax.get_position()
    assert place.width > 0.35
    assert place.height > 0.6
    whole = figure.get_tightbbox()
    assert whole.x1 <= COLUMN_WIDTH + 0.01
    assert whole.height <= 2.5 + 0.01
    named = sum(str(text.get_text()).startswith("α = ") for text in figure.findobj(Text))
    assert named == (count if count <= 34 else 0)
    assert any("40 settings" in text.get_text() for text in figure.findobj(Text)) == (count == 40)
    plt.close(figure)


def test_ticks_of_many_alphas_do_not_run_into_each_other():
    alphas = [a / 10 for a in range(-10, 10)]
    settings = by_setting(table([f"alpha={a:g}" for a in alphas], alphas, [False] * 20))
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 2))
    ax.plot(alphas, alphas)
    settings_axis(ax, settings)
    figure.canvas.draw()
    named = [tick for tick in ax.get_xticklabels() if tick.get_text()]
    assert len(ax.get_xticks()) == 20
    assert named[0].get_text() == "−1"
    for one, other in itertools.pairwise(tick.get_window_extent() for tick in named):
        assert one.x1 < other.x0
    plt.close(figure)

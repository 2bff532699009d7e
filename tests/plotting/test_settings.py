"""Settings are told apart by α, or by name; one whose runs all diverged says so in its name and at its tick."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import same_color

from rewardshape.plotting.settings import by_setting, settings_axis
from rewardshape.plotting.style import alpha_color


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

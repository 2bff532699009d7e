"""What plot functions share: given axes are drawn on, labels keep apart, steps are whole numbers."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from rewardshape.errors import InputError
from rewardshape.plotting.axes import (
    _apart,
    axis,
    label_ends,
    mark_end,
    panels,
    require_one_run,
    step_axis,
    styled,
)
from rewardshape.plotting.style import style, text_color


def test_labels_move_apart_no_more_than_needed():
    np.testing.assert_allclose(_apart(np.array([0.0, 5.0]), np.ones(2)), [0, 5])
    np.testing.assert_allclose(_apart(np.array([0.0, 0.0, 9.0]), np.ones(3)), [-0.5, 0.5, 9])
    tall = np.array([1.0, 3.0])  # of one line, and of three
    np.testing.assert_allclose(_apart(np.array([0.0, 0.0]), tall), [-1, 1])


def test_labels_apart_are_the_least_squares_solution_of_an_independent_solver():
    heights, tall = np.sort(np.random.default_rng(3).uniform(0, 3, 6)), np.array([1.0, 3, 1, 2, 1, 1])
    between = (tall[1:] + tall[:-1]) / 2
    found = minimize(
        lambda h: ((h - heights) ** 2).sum(),
        heights,
        constraints=[{"type": "ineq", "fun": lambda h: np.diff(h) - between}],
        options={"ftol": 1e-12},
    )
    np.testing.assert_allclose(_apart(heights, tall), found.x, atol=1e-5)


def test_each_line_is_named_at_its_end_in_its_colour():
    _, ax = plt.subplots()
    ax.plot([0, 1], [0, 0.0], color="red", label="low")
    ax.plot([0, 2], [0, 9.0], color="blue", label="high")
    ax.plot([0, 2], [0, 4.0], label="_hidden")
    label_ends(ax)
    names = {text.get_text(): (text.get_color(), tuple(text.xy)) for text in ax.texts if text.get_text()}
    assert names == {
        "low": (text_color("red"), (1, 0)),
        "high": (text_color("blue"), (1, 9)),
    }  # at the right edge
    assert [tuple(leader.xy) for leader in ax.texts if not leader.get_text()] == [(1, 0), (2, 9)]


def test_a_line_that_ends_at_the_edge_where_its_name_stands_needs_no_leader():
    _, ax = plt.subplots()
    ax.plot([0, 2], [0, 0.0], label="low")
    ax.plot([0, 2], [0, 9.0], label="high")
    ax.margins(x=0)
    label_ends(ax)
    assert [text.get_text() for text in ax.texts] == ["low", "high"]


def test_steps_are_whole_numbers_without_an_empty_margin():
    _, ax = plt.subplots()
    ax.plot([0, 1, 2, 3], [0, 1, 0, 1])
    step_axis(ax, "epoch")
    assert ax.get_xlim() == (0, 3)
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    assert ax.get_xlabel() == "epoch"


def test_axes_given_are_returned_and_else_made():
    _, given = plt.subplots(1, 2)
    assert axis(given[0]) is given[0]
    assert panels(given, 1, 2) is given
    made = panels(None, 2, 3, (6, 4))
    assert len(made) == 6
    assert made[0].figure.get_size_inches().tolist() == [6, 4]
    assert len(plt.get_fignums()) == 2


def test_the_style_is_that_of_the_project_only_where_no_axes_are_given():
    @styled
    def plot(ax=None):
        return axis(ax), mpl.rcParams["axes.labelsize"]

    outside = mpl.rcParams["axes.labelsize"]
    assert plot()[1] == 8
    assert plot(plt.subplots()[1])[1] == outside
    with style("talk"):
        assert plot()[1] == 12  # one already in force is kept
    assert mpl.rcParams["axes.labelsize"] == outside


def test_a_table_of_several_runs_is_refused_for_one():
    require_one_run(pd.DataFrame({"run": ["a", "a"]}))
    with pytest.raises(InputError, match="shows one run, the table holds 2"):
        require_one_run(pd.DataFrame({"run": ["a", "b"]}))


def test_a_line_whose_end_is_not_known_is_named_where_it_is_last_known():
    _, ax = plt.subplots()
    x, y = pd.Series([0, 1, 2]), pd.Series([0.0, 3.0, np.nan])
    ax.plot(x, y, label="broke")
    ax.plot([0, 1], [np.nan, np.nan], label="nothing")
    mark_end(ax, x, y, "red")
    label_ends(ax)
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["broke"]
    cross = next(line for line in ax.get_lines() if line.get_label() == "_diverged")
    assert cross.get_xydata().tolist() == [[1, 3]]

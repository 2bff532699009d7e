"""The curves of a diagnosis are those of its table, and the marks stand where they are asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color

from rewardshape.plotting.diagnosis import FEW_ROWS, STRETCHES, drawn_rows, plot_fall, plot_progress
from rewardshape.plotting.style import CHOSEN, REJECTED


def curve(rows, *, smooth=False):
    steps = 10 * np.arange(1, rows + 1)
    chosen = -0.1 * steps + np.tile([0.0, 0.5], rows)[:rows]
    return pd.DataFrame(
        {
            "step": steps,
            "chosen": chosen,
            "smooth": chosen - 0.2 if smooth else chosen,
            "rejected": 2 * chosen,
        }
    )


def lines(ax):
    return {str(line.get_label()): line for line in ax.get_lines()}


@pytest.mark.parametrize("smooth", [False, True])
def test_chosen_and_rejected_are_drawn_in_their_colours(smooth):
    table = curve(8, smooth=smooth)
    ax = plot_fall(table, unit="nats", baseline="the reference")
    drawn = lines(ax)
    chosen = drawn["chosen (windowed)" if smooth else "chosen"]
    np.testing.assert_array_equal(chosen.get_ydata(), table["smooth"])
    np.testing.assert_array_equal(drawn["rejected"].get_ydata(), table["rejected"])
    assert same_color(chosen.get_color(), CHOSEN)
    assert same_color(drawn["rejected"].get_color(), REJECTED)
    raw = [line for line in ax.get_lines() if np.array_equal(line.get_ydata(), table["chosen"])]
    assert len(raw) == 1  # beside the windowed line, or as the line itself
    assert ax.get_ylabel() == "above the reference (nats)"


def test_a_windowed_line_begins_and_ends_where_its_outer_windows_have_their_middles():
    """Seven rows make a window; the three beyond its middle have its mean, too, and are no course."""
    steps = np.arange(1, 21)
    chosen = pd.Series(-(steps**1.5))
    smooth = chosen.rolling(7, center=True, min_periods=1).mean()
    smooth.iloc[:3], smooth.iloc[-3:] = chosen.iloc[:7].mean(), chosen.iloc[-7:].mean()
    table = pd.DataFrame({"step": steps, "chosen": chosen, "smooth": smooth})
    drawn = lines(plot_fall(table, unit="nats", baseline="step 0"))["chosen (windowed)"]
    np.testing.assert_array_equal(drawn.get_xdata(), steps[3:-3])
    np.testing.assert_allclose(drawn.get_ydata()[0], chosen.iloc[:7].mean())


def test_noise_and_onset_stand_where_they_are():
    ax = plot_fall(curve(8), unit="nats", baseline="step 0", limit=0.7, onset=40, steps="epoch")
    [band] = ax.patches
    assert (band.get_y(), band.get_height()) == pytest.approx((-0.7, 1.4))
    assert set(lines(ax)["fall begun by epoch 40"].get_xdata()) == {40}
    assert ax.get_xlabel() == "epoch"


def test_markers_go_where_rows_are_many():
    for rows, marker in ((FEW_ROWS, "."), (FEW_ROWS + 1, "None")):
        assert lines(plot_fall(curve(rows), unit="nats", baseline="step 0"))["chosen"].get_marker() == marker


def test_losses_of_both_splits_and_the_margin_of_the_held_out_one():
    table = pd.DataFrame(
        {
            "split": ["train"] * 3 + ["eval"] * 2,
            "step": [10, 20, 30, 10, 30],
            "loss": [0.7, np.nan, 0.5, 0.69, 0.6],
            "margin": [0.0, 0.5, 1.0, 0.1, 0.4],
        }
    )
    ax = plot_progress(table, best=30)
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn["training loss"].get_xydata(), [[10, 0.7], [30, 0.5]])
    np.testing.assert_array_equal(drawn["evaluation loss"].get_xydata(), [[10, 0.69], [30, 0.6]])
    assert set(drawn["best held out: step 30"].get_xdata()) == {30}
    [margin] = [other for other in ax.figure.axes if other is not ax]
    np.testing.assert_array_equal(margin.get_lines()[0].get_ydata(), [0.1, 0.4])


def test_without_losses_the_most_likely_tokens_are_drawn():
    table = pd.DataFrame({"split": "eval", "step": [1, 2], "logp_greedy": [-5.0, -4.0]})
    ax = plot_progress(table)
    np.testing.assert_array_equal(lines(ax)["most likely tokens"].get_ydata(), [-5, -4])
    assert ax.get_ylabel() == "log-probability (nats)"


def test_a_long_series_keeps_its_ends_and_every_extreme(rng):
    """Of each stretch of a long series the lowest and the highest are drawn, so that no spike is lost."""
    values = rng.standard_t(2, 90_000)
    kept = drawn_rows(values)
    assert len(kept) <= 2 * STRETCHES + 2
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    for part in np.array_split(np.arange(len(values)), 300):
        mine = kept[(kept >= part[0]) & (kept <= part[-1])]
        assert (values[mine].min(), values[mine].max()) == (values[part].min(), values[part].max())


def test_a_line_is_drawn_of_the_rows_that_hold_the_series():
    table = curve(8).astype(float)
    table.loc[[2, 5], "rejected"] = np.nan
    drawn = lines(plot_fall(table, unit="nats", baseline="step 0"))["rejected"]
    np.testing.assert_array_equal(drawn.get_xdata(), table["step"].drop([2, 5]))


def test_without_a_loss_the_axis_of_losses_is_not_there():
    table = pd.DataFrame({"split": "eval", "step": [0, 1, 2], "margin": [0.0, 0.1, 0.2]})
    assert not plot_progress(table).yaxis.get_visible()
    assert plot_progress(table.assign(loss=0.5)).yaxis.get_visible()

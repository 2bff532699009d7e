"""Of one run, what is drawn is what its tables say: the artists are read back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import same_color

from rewardshape.analysis import (
    displacement_curve,
    pair_correlations,
    pairs_table,
)
from rewardshape.errors import InputError
from rewardshape.plotting.displacement import plot_descriptor, plot_displacement, plot_responses
from rewardshape.plotting.style import CHOSEN, REJECTED

PAIRS = 40


def test_run_shows_levels_with_the_interval_of_their_change(run, line):
    curve = displacement_curve(run)
    ax = plot_displacement(curve)
    for response, color in (("chosen", CHOSEN), ("rejected", REJECTED)):
        rows = curve[curve["response"] == response]
        np.testing.assert_array_equal(line(ax, response).get_ydata(), rows["logp_mean"])
        assert same_color(line(ax, response).get_color(), color)
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    rows = curve[curve["response"] == "chosen"]
    assert band.min() == pytest.approx((rows["logp_mean"].iloc[0] + rows["logp_mean_change_low"]).min())
    assert "nats per token" in ax.get_ylabel()


def test_a_run_that_diverged_says_so_where_its_lines_end(run, line):
    curve = displacement_curve(run)
    for plot, value in ((plot_displacement, "logp_mean"), (plot_responses, "logp_mean_change")):
        assert not [text for text in plot(curve).texts if text.get_text() == "diverged"]
        ax = plot(curve.assign(diverged=True))
        [text] = [text for text in ax.texts if text.get_text() == "diverged"]
        assert text.xy[0] == curve["step"].max()
        last = curve[curve["response"] == "chosen"][value].iloc[-1]
        assert line(ax, "_diverged").get_ydata().tolist() == [last]


def test_responses_are_named_at_their_ends_without_overlap(run):
    ax = plot_responses(displacement_curve(run))
    names = {text.get_text(): text.xy[1] for text in ax.texts if text.get_text()}
    assert set(names) == {"chosen", "rejected", "rephrased", "shuffled", "greedy"}
    ax.figure.canvas.draw()
    named = [text for text in ax.texts if text.get_text()]  # the others are leaders
    boxes = sorted((text.get_window_extent() for text in named), key=lambda box: box.y0)
    assert all(lower.y0 + 0.6 * lower.height <= upper.y0 for lower, upper in itertools.pairwise(boxes))


def test_descriptor_plot_shows_every_pair_and_its_correlation(run):
    pairs = pairs_table(run)
    ax = plot_descriptor(pairs, "initial_logp_margin", correlations=pair_correlations(pairs))
    points = next(item for item in ax.get_lines() if len(item.get_xdata()) == PAIRS)
    np.testing.assert_array_equal(points.get_xdata(), pairs["initial_logp_margin"])
    np.testing.assert_array_equal(points.get_ydata(), pairs["chosen_change"])
    rho = pairs[["initial_logp_margin", "chosen_change"]].corr("spearman").iloc[0, 1]
    assert f"{rho:.2f}".replace("-", "−") in ax.texts[0].get_text()


def test_unknown_descriptor_is_refused_with_the_known_ones(run):
    with pytest.raises(InputError, match="chosen_tokens"):
        plot_descriptor(pairs_table(run), "ches")


def test_a_figure_of_one_run_refuses_a_sweep(sweep):
    with pytest.raises(InputError, match="shows one run, the table holds 3"):
        plot_displacement(displacement_curve(sweep))

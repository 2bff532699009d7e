"""The pictures of the theory show their tables: the artists are read back."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.figures import theory_tables as tables
from rewardshape.plotting import theory as draw
from rewardshape.plotting.style import alpha_color


def lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


@pytest.mark.parametrize(("over", "column"), [("s", "s"), ("probability", "probability")])
def test_rewards_are_drawn_over_either_axis(over, column):
    curves = tables.shape_curves(points=11)
    drawn = lines(draw.plot_rewards(curves, over=over))
    one = curves[curves["shape"] == "α = 0.25"]
    np.testing.assert_array_equal(drawn["α = 0.25"].get_xdata(), one[column])
    np.testing.assert_array_equal(drawn["α = 0.25"].get_ydata(), one.reward)
    assert drawn["α = 0.25"].get_color() == alpha_color(0.25)
    assert len(drawn) == 8


def test_slopes_are_drawn_on_a_logarithmic_axis():
    ax = draw.plot_slopes(tables.shape_curves(points=11))
    assert ax.get_yscale() == "log"
    np.testing.assert_allclose(lines(ax)["α = 1"].get_ydata(), np.exp(-lines(ax)["α = 1"].get_xdata()))


@pytest.mark.parametrize("response", ["chosen", "rejected"])
def test_weight_map_shows_the_weights_of_the_response(response):
    weights = tables.weight_map(points=7)
    ax = draw.plot_weight_map(weights, response=response)
    shown = np.asarray(ax.images[0].get_array()).reshape(7, 7)
    np.testing.assert_allclose(shown.ravel(), weights[f"weight_{response}"])


def test_gradient_magnitude_has_a_line_for_every_pair():
    ax = draw.plot_gradient_magnitude(tables.gradient_by_alpha(points=21))
    assert len(lines(ax)) == 3
    assert ax.get_xlabel() == "shape α"


def test_phase_portrait_shows_field_paths_and_contour_of_one_alpha():
    portrait = tables.phase_portrait(points=9)
    ax = draw.plot_phase_portrait(portrait, alpha=0.0)
    here = portrait[portrait.alpha == 0.0]
    contour = here[here.kind == "contour"]
    np.testing.assert_array_equal(lines(ax)["z = 0: margin met"].get_ydata(), contour.s_l)
    assert len(ax.collections) == 1  # the arrows
    assert len(ax.lines) == 1 + 2 * 5 + 1  # the contour, five paths with their starts, the diagonal


def test_zoo_draws_coinciding_objectives_as_one_line():
    drawn = lines(draw.plot_zoo(tables.zoo_curves(points=31)))
    together = next(label for label in drawn if label.startswith("SimPO"))
    assert together.split() == "SimPO, DPO, cDPO, SLiC, IPO, GPO (exponential), EXO".split()
    heights = drawn[together].get_ydata()
    np.testing.assert_allclose(heights, 1.0)  # the longest of them, from end to end


def test_zoo_breaks_its_lines_where_a_weight_changes_sign_or_jumps():
    """NCA's chosen weight is negative for large gaps; DPOP's ratio steps from 1 + λ to 1: neither is a slope."""
    drawn = lines(draw.plot_zoo(tables.zoo_curves(points=161)))
    gap, ratio = drawn["NCA"].get_data()
    assert np.isnan(ratio[gap > 5.6]).all()
    gap, ratio = drawn[
        "SPPO"
    ].get_data()  # (s_l + ½)²: at a mean of −2 it lifts what is rejected from a gap of −3 on
    assert np.isfinite(ratio[gap < -3.1]).all()
    assert np.isnan(ratio[gap > -3]).all()
    dpop = drawn["DPOP"].get_ydata()
    assert np.isnan(dpop).sum() == 1
    assert set(np.round(dpop[np.isfinite(dpop)], 9)) == {1.0, 2.0}


def test_ratio_map_marks_the_overlap_below_which_the_chosen_response_falls():
    """For the α family w_w/w_l = e^(−α(s_w − s_l)), so the line of ratio b/a is s_w − s_l = −ln(b/a)/α."""
    ax = draw.plot_weight_ratio(tables.weight_map(points=41), overlap=1.1)
    [line] = ax.collections[0].get_paths()
    gap = line.vertices[:, 0] - line.vertices[:, 1]
    np.testing.assert_allclose(gap, -np.log(1.1) / 0.25, atol=0.01)


def test_legend_handles_show_a_full_period_of_every_dash():
    """A dash-dotted line in a handle too short for its pattern looks solid."""
    for ax in (draw.plot_rewards(tables.shape_curves(points=5)), draw.plot_zoo(tables.zoo_curves(points=9))):
        for handle in ax.get_legend().legend_handles:
            _, dashes = handle._unscaled_dash_pattern
            if dashes:
                length = np.ptp(handle.get_xdata())  # points
                assert sum(dashes) * handle.get_linewidth() <= length, handle.get_label()


def test_displacement_has_a_line_for_every_start_and_one_at_equal_gap():
    drawn = lines(draw.plot_displacement_by_alpha(tables.displacement_by_alpha(points=9)))
    assert len(drawn) == 4


def test_softmax_paths_mark_where_the_margin_is_met():
    table = tables.softmax_against_fixed_gram(alphas=(0.5,))
    ax = draw.plot_softmax_paths(table)
    stop = table[table.margin >= 0].iloc[0]
    dot = next(line for line in ax.lines if line.get_marker() == "o")
    assert dot.get_xdata()[0] == pytest.approx(stop.s_w - stop.s_l)


def test_axes_that_are_given_are_drawn_on():
    from matplotlib import pyplot as plt

    _, ax = plt.subplots()
    assert draw.plot_slopes(tables.shape_curves(points=5), ax) is ax

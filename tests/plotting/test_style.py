"""The colours of every figure: told apart without colour vision, in order where α is; a style leaves no trace."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from rewardshape.analysis import displacement_curve
from rewardshape.errors import InputError
from rewardshape.plotting.style import (
    ALPHA_LIMIT,
    CHOSEN,
    REJECTED,
    alpha_color,
    closing_figures,
    hex_color,
    looks,
    ordered_colors,
    plain,
    style,
    text_color,
)
from rewardshape.plotting.sweep import plot_sweep, plot_trajectory


def luminance(color):
    """Relative luminance of WCAG 2.2, from linear sRGB."""
    values = np.array(to_rgb(color))
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("dark", [False, True])
def test_a_larger_alpha_is_lighter_up_to_its_limit(dark):
    alphas = np.linspace(-ALPHA_LIMIT, ALPHA_LIMIT, 21)
    light = [luminance(alpha_color(alpha, dark=dark)) for alpha in alphas]
    assert (np.diff(light) > 0).all()
    assert alpha_color(9.0, dark=dark) == alpha_color(ALPHA_LIMIT, dark=dark)
    settings = [luminance(color) for color in ordered_colors(5, dark=dark)]
    assert (np.diff(settings) > 0).all()


def test_chosen_and_rejected_differ_for_the_red_green_blind():
    """Machado, Oliveira and Fernandes (2009), matrices of full severity; distance in linear sRGB."""
    protan = [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]
    deutan = [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
    for matrix in (protan, deutan):
        seen = [np.array(matrix) @ np.array(to_rgb(color)) for color in (CHOSEN, REJECTED)]
        assert np.linalg.norm(seen[0] - seen[1]) > 0.4


@pytest.mark.parametrize("color", ["#ffff00", "#0072B2", *(alpha_color(a) for a in np.linspace(-2, 2, 9))])
def test_a_text_stands_out_from_paper_in_the_hue_of_its_line(color):
    text = text_color(color)
    assert 1.05 / (luminance(text) + 0.05) >= 4.499
    if 1.05 / (luminance(color) + 0.05) > 4.5:
        assert text == hex_color(to_rgb(color))
    before, after = np.array(to_rgb(color)), np.array(to_rgb(text))
    np.testing.assert_allclose(after / after.max(), before / before.max(), atol=0.02)


def test_things_are_told_apart_by_dashes_and_markers_too():
    many = looks(18)
    assert len({(str(look["linestyle"]), look["color"]) for look in many}) == 18
    assert len({look["marker"] for look in many[:7]}) == 7


def test_a_name_from_data_is_drawn_as_it_is():
    _, ax = plt.subplots()
    for name in ("a$\\frac{$b$", "_hidden", "plain"):
        ax.plot([0, 1], label=plain(name))
    assert len(ax.get_legend_handles_labels()[1]) == 3
    ax.legend()
    ax.figure.canvas.draw()  # a formula would be parsed here
    assert hex_color((1.0, 0.0, 0.2, 0.5)) == "#ff0033"


def test_an_unknown_use_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no style 'poster': choose notebook, paper, talk"):
        style("poster")


def test_without_axes_the_style_is_applied_and_nothing_is_cut_off(sweep):
    """README's own snippet: a plot function, then savefig."""
    axes = plot_sweep(displacement_curve(sweep))
    figure = axes[0].figure
    figure.canvas.draw()
    for ax in axes:
        box = ax.get_tightbbox()
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    assert axes[0].yaxis.label.get_fontsize() == 8
    assert all(float(tick).is_integer() for tick in axes[0].get_xticks())
    with style("talk"):
        ax = plot_trajectory(displacement_curve(sweep))
    assert ax.yaxis.label.get_fontsize() == 12


def test_drawing_leaves_the_global_style_alone(sweep):
    before = dict(mpl.rcParams)
    plot_trajectory(displacement_curve(sweep), plt.subplots()[1])
    assert dict(mpl.rcParams) == before
    with style():
        assert mpl.rcParams["figure.figsize"] == [3.4, 2.5]


def test_what_is_drawn_within_is_closed_also_where_drawing_fails():
    kept = plt.figure()

    def too_few_steps():
        with closing_figures():
            plt.figure()
            raise InputError("too few steps")

    with pytest.raises(InputError):
        too_few_steps()
    assert plt.get_fignums() == [kept.number]

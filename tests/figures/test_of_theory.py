"""What the figures of formulas draw is what the formulas give, computed here anew."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from rewardshape.figures.of_theory import THEORY
from rewardshape.plotting.style import style

ALPHAS = {"α = −0.5": -0.5, "α = 0.25": 0.25, "α = 1": 1.0}


@pytest.mark.parametrize("name", THEORY)
def test_every_figure_has_axes_with_names_and_something_in_them(name):
    with style():
        figure = THEORY[name].draw()
    drawn = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert drawn
    for ax in drawn:
        assert ax.get_xlabel()
        assert ax.lines or ax.collections or ax.patches or ax.images
    assert any(ax.get_ylabel() for ax in drawn)
    plt.close(figure)


def test_shapes_over_probability_and_log_probability_are_box_and_cox_s():
    """φ(s) = (1 − e^{−αs})/α of the sequence-mean log-prob s, over p = e^s on the left and over s on the right."""
    figure = THEORY["reward_shapes"].draw()
    over_p, over_s = figure.axes[:2]
    seen = 0
    for ax, score in ((over_p, np.log), (over_s, lambda s: s)):
        for line in ax.get_lines():
            alpha = ALPHAS.get(str(line.get_label()))
            if alpha is not None:
                s = score(np.asarray(line.get_xdata(), dtype=float))
                np.testing.assert_allclose(
                    line.get_ydata(), (1 - np.exp(-alpha * s)) / alpha, rtol=1e-6, atol=1e-9
                )
                seen += 1
    assert seen >= 2

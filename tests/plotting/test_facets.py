"""Small multiples: the rows of a panel are those of its values, colours mean the same everywhere, one legend."""

from __future__ import annotations

import itertools
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from rewardshape.analysis import displacement_curve, displacement_summary, settings_table
from rewardshape.errors import InputError
from rewardshape.plotting import (
    facets,
    plot_change,
    plot_displacement,
    plot_final_change,
    plot_trajectory,
)
from rewardshape.plotting.style import alpha_color, hex_color
from rewardshape.trace import read_trace


@pytest.fixture
def grid(write, tmp_path):
    for alpha, beta in itertools.product((0.0, 1.0), (1.0, 2.0, 4.0)):
        for seed in (0, 1):
            folder = write(tmp_path / f"{alpha}-{beta}-{seed}", alpha=alpha, seed=seed)
            stated = json.loads((folder / "run.json").read_text())
            stated["objective"]["parameters"]["beta"] = beta
            (folder / "run.json").write_text(json.dumps(stated))
    return read_trace(tmp_path)


def with_values(table, trace):
    return table.merge(settings_table(trace)[["run", "beta"]], on="run")


def test_a_panel_holds_the_runs_of_its_values_and_no_other(grid, line):
    curve = with_values(displacement_curve(grid), grid)
    axes = facets(plot_change, curve, hue="alpha", col="beta", row="seed", response="rejected")
    assert [ax.get_title() for ax in axes] == [
        f"rejected, seed = {seed}, β = {beta}" for seed in (0, 1) for beta in (1, 2, 4)
    ]
    for ax, (seed, beta) in zip(axes, itertools.product((0, 1), (1.0, 2.0, 4.0)), strict=True):
        here = curve[(curve["beta"] == beta) & (curve["seed"] == seed) & (curve["response"] == "rejected")]
        for alpha in (0, 1):
            expected = here.loc[here["alpha"] == alpha, "logp_mean_change"]
            np.testing.assert_allclose(line(ax, f"α = {alpha}").get_ydata(), expected)


def test_seeds_are_thin_under_their_mean_where_no_panel_tells_them_apart(grid, line):
    curve = with_values(displacement_curve(grid), grid)
    axes = facets(plot_change, curve, hue="alpha", col="beta")
    rows = curve.query("alpha == 1 and beta == 4 and response == 'chosen'")
    np.testing.assert_allclose(
        line(axes[2], "α = 1").get_ydata(), rows.groupby("step")["logp_mean_change"].mean()
    )
    assert len([one for one in axes[2].get_lines() if one.get_linewidth() == 0.5]) == 4


def test_colours_axes_and_the_one_legend_mean_the_same_in_all_panels(grid, line):
    curve = with_values(displacement_curve(grid), grid)
    axes = facets(plot_trajectory, curve, hue="alpha", col="beta")
    for ax in axes:
        assert hex_color(line(ax, "α = 1").get_color()) == hex_color(alpha_color(1.0))
        assert ax.get_ylim() == axes[0].get_ylim()
        assert ax.get_legend() is None
        assert "α = 1" not in {text.get_text() for text in ax.texts}
    [legend] = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["α = 0", "α = 1"]
    plt.close("all")
    axes = facets(plot_change, curve[curve["beta"] > 1], hue="beta", col="alpha")  # a hue that is not α
    both = [{text: hex_color(line(ax, text).get_color()) for text in ("β = 2", "β = 4")} for ax in axes]
    assert both[0] == both[1]
    assert len(set(both[0].values())) == 2


def test_points_against_alpha_and_pictures_of_one_run_have_panels_too(grid):
    summary = with_values(displacement_summary(grid), grid)
    axes = facets(plot_final_change, summary, hue="alpha", col="beta")
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["0", "1"]
    plt.close("all")
    curve = with_values(displacement_curve(grid), grid).query("seed == 0 and beta == 2")
    curve = curve[curve["response"].isin(["chosen", "rejected"])]
    axes = facets(plot_displacement, curve, col="alpha")
    assert len(axes) == 2
    with pytest.raises(InputError, match="shows one run"):
        facets(plot_displacement, curve)


def test_a_column_that_is_not_there_is_named(grid):
    with pytest.raises(InputError, match="merge settings_table"):
        facets(plot_change, displacement_curve(grid), col="gamma_ratio")

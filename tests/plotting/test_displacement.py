"""What is drawn is what the tables say: the artists are read back."""

from __future__ import annotations

import itertools
import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color

from rewardshape.analysis import (
    compare_at_equal,
    difference_curves,
    displacement_curve,
    displacement_summary,
    pair_correlations,
    pairs_table,
    settings_table,
)
from rewardshape.errors import InputError
from rewardshape.plotting.axes import _apart
from rewardshape.plotting.displacement import plot_descriptor, plot_displacement, plot_responses
from rewardshape.plotting.style import CHOSEN, REJECTED, alpha_color, style
from rewardshape.plotting.sweep import (
    plot_at_equal,
    plot_difference,
    plot_final_displacement,
    plot_grid,
    plot_sweep,
    plot_trajectory,
)
from rewardshape.trace import read_trace

PAIRS, STEPS = 12, 6
TOKENS = {name: np.full(PAIRS, 8) for name in ("chosen", "rejected", "rephrased", "shuffled")}


def write(write_run, folder, names=("chosen", "rejected"), *, alpha=0.25, seed=0):
    rng = np.random.default_rng([seed, round(100 * alpha) + 1000])
    fall = {"chosen": 0.02, "rejected": 0.05, "rephrased": 0.01, "shuffled": 0.011}
    at = np.arange(STEPS)[:, None]
    sums = {
        name: -rng.uniform(8, 12, PAIRS) - 8 * fall[name] * at * rng.uniform(0.5, 1.5, PAIRS)
        for name in names
    }
    greedy = {name: -2 + 0.1 * at + np.zeros(PAIRS) for name in names}
    stated = {"name": "alphapo", "parameters": {"alpha": alpha, "beta": 2.5, "gamma": 0.5}}
    return write_run(
        folder,
        sums,
        num_tokens=TOKENS,
        measured={"greedy_logp_sum": greedy},
        objective=stated,
        run={"seed": seed},
    )


@pytest.fixture
def run(write_run, tmp_path):
    return read_trace(write(write_run, tmp_path / "run", tuple(TOKENS)))


@pytest.fixture
def sweep(write_run, tmp_path):
    for alpha in (1.0, -0.5, 0.0):
        write(write_run, tmp_path / "sweep" / f"alpha={alpha}", alpha=alpha)
    return read_trace(tmp_path / "sweep")


@pytest.fixture
def seeds(write_run, tmp_path):
    for alpha in (0.0, 1.0):
        for seed in range(3):
            write(write_run, tmp_path / "seeds" / f"alpha={alpha}-seed={seed}", alpha=alpha, seed=seed)
    return read_trace(tmp_path / "seeds")


def line(ax, label):
    return next(item for item in ax.get_lines() if item.get_label() == label)


def test_run_shows_levels_with_the_interval_of_their_change(run):
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


def test_responses_are_named_at_their_ends_without_overlap(run):
    ax = plot_responses(displacement_curve(run))
    names = {text.get_text(): text.xy[1] for text in ax.texts if text.get_text()}
    assert set(names) == {"chosen", "rejected", "rephrased", "shuffled", "greedy"}
    ax.figure.canvas.draw()
    named = [text for text in ax.texts if text.get_text()]  # the others are leaders
    boxes = sorted((text.get_window_extent() for text in named), key=lambda box: box.y0)
    assert all(lower.y0 + 0.6 * lower.height <= upper.y0 for lower, upper in itertools.pairwise(boxes))


def test_labels_move_apart_no_more_than_needed():
    np.testing.assert_allclose(_apart(np.array([0.0, 5.0]), 1.0), [0, 5])
    np.testing.assert_allclose(_apart(np.array([0.0, 0.0, 9.0]), 1.0), [-0.5, 0.5, 9])


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


def test_sweep_orders_and_colours_by_alpha(sweep):
    curve = displacement_curve(sweep)
    chosen, rejected = plot_sweep(curve)
    assert {text.get_text() for text in rejected.texts} - {""} == {"α = −0.5", "α = 0", "α = 1"}
    for ax, response in ((chosen, "chosen"), (rejected, "rejected")):
        rows = curve[(curve["response"] == response) & (curve["alpha"] == 1)]
        np.testing.assert_array_equal(line(ax, "α = 1").get_ydata(), rows["logp_mean_change"])
        assert same_color(line(ax, "α = 1").get_color(), alpha_color(1.0))
        assert len(ax.collections) == 3  # one band a run


def test_seeds_are_drawn_thin_under_their_mean(seeds):
    curve = displacement_curve(seeds)
    chosen, _ = plot_sweep(curve)
    rows = curve[(curve["response"] == "chosen") & (curve["alpha"] == 0)]
    np.testing.assert_allclose(
        line(chosen, "α = 0").get_ydata(), rows.groupby("step")["logp_mean_change"].mean()
    )
    assert not chosen.collections  # no band over pairs where seeds show the spread
    assert len(chosen.get_lines()) == 1 + 2 * (3 + 1)  # zero line; per α three seeds and their mean


def test_trajectory_is_margin_against_chosen(sweep):
    curve = displacement_curve(sweep)
    ax = plot_trajectory(curve)
    wide = curve[curve["alpha"] == 0].pivot(index="step", columns="response", values="logp_mean")
    np.testing.assert_allclose(line(ax, "α = 0").get_xdata(), wide["chosen"] - wide["rejected"])
    np.testing.assert_allclose(line(ax, "α = 0").get_ydata(), wide["chosen"])


def test_final_displacement_stands_over_its_alpha_with_its_interval(sweep):
    summary = displacement_summary(sweep)
    changes, shares = plot_final_displacement(summary)
    np.testing.assert_array_equal(line(changes, "chosen").get_xdata(), [-0.5, 0, 1])
    np.testing.assert_allclose(line(changes, "rejected").get_ydata(), summary["rejected_change"])
    np.testing.assert_allclose(line(shares, "chosen").get_ydata(), summary["share_fallen"])
    bar = changes.collections[0].get_segments()[0]
    np.testing.assert_allclose(
        bar[:, 1], summary.loc[0, ["chosen_change_low", "chosen_change_high"]].tolist()
    )


def test_equal_margin_names_what_is_equal(sweep):
    rows = compare_at_equal(sweep, "logp_margin", 0.1)
    ax = plot_at_equal(rows)
    assert "margin gain 0.1 nats per token" in ax.get_xlabel()
    np.testing.assert_allclose(line(ax, "chosen").get_ydata(), rows["chosen_change"])


def test_difference_is_pair_by_pair_against_alpha_0(sweep):
    ax = plot_difference(difference_curves(sweep))
    by_run = {}
    for run in sweep.runs:
        rows = sweep.run(run.name).responses.query("split == 'probe' and response == 'chosen'")
        wide = rows.pivot(index="step", columns="pair_id", values="logp_sum") / 8
        by_run[run.alpha] = wide - wide.loc[0]
    expected = (by_run[1.0] - by_run[0.0]).mean(axis=1)
    np.testing.assert_allclose(line(ax, "α = 1").get_ydata(), expected, atol=1e-9)
    assert "α = 0" in ax.get_ylabel()
    assert len(ax.collections) == 2  # a band for each of the others, none for the baseline


def test_grid_has_a_panel_for_every_value_and_a_colour_for_every_alpha(write_run, tmp_path):
    for alpha, beta in itertools.product((0.0, 1.0), (1.0, 2.0, 4.0)):
        folder = write(write_run, tmp_path / f"{alpha}-{beta}", alpha=alpha)
        stated = json.loads((folder / "run.json").read_text())
        stated["objective"]["parameters"]["beta"] = beta
        (folder / "run.json").write_text(json.dumps(stated))
    trace = read_trace(tmp_path)
    curve = displacement_curve(trace).merge(settings_table(trace)[["run", "beta"]], on="run")
    axes = plot_grid(curve, col="beta")
    assert [ax.get_title() for ax in axes] == ["β = 1", "β = 2", "β = 4"]
    rows = curve.query("alpha == 1 and beta == 4 and response == 'chosen'")
    np.testing.assert_allclose(line(axes[2], "α = 1").get_ydata(), rows["logp_mean_change"])
    with pytest.raises(InputError, match="merge settings_table"):
        plot_grid(curve, col="gamma_ratio")


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


def test_runs_without_alpha_are_told_apart_by_name(write_run, tmp_path):
    for name in ("dpo", "simpo"):
        folder = write(write_run, tmp_path / name)
        parameters = {"dpo": {"beta": 0.1}, "simpo": {"beta": 2.0, "gamma": 1.0}}[name]
        manifest = (folder / "run.json").read_text()
        stated = json.loads(manifest) | {"objective": {"name": name, "parameters": parameters}}
        (folder / "run.json").write_text(json.dumps(stated))
    _, ax = plot_sweep(displacement_curve(read_trace(tmp_path)))
    assert {text.get_text() for text in ax.texts} - {""} == {"dpo", "simpo"}


def test_drawing_leaves_the_global_style_alone(sweep):
    before = dict(mpl.rcParams)
    plot_trajectory(displacement_curve(sweep), plt.subplots()[1])
    assert dict(mpl.rcParams) == before
    with style():
        assert mpl.rcParams["figure.figsize"] == [3.4, 2.5]

"""Settings of a sweep are drawn from their tables, told apart by α or by name, seeds thin under their mean."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from matplotlib.colors import same_color

from rewardshape.analysis import (
    compare_along,
    compare_at_equal,
    difference_curves,
    displacement_curve,
    displacement_summary,
    settings_along,
)
from rewardshape.figures.of_runs import picture_of
from rewardshape.figures.picture import with_ends
from rewardshape.plotting.style import alpha_color
from rewardshape.plotting.sweep import (
    plot_along,
    plot_at_equal,
    plot_difference,
    plot_fallen_at_equal,
    plot_final_displacement,
    plot_sweep,
    plot_trajectory,
)
from rewardshape.trace import read_trace


def test_sweep_orders_and_colours_by_alpha(sweep, line):
    curve = displacement_curve(sweep)
    chosen, rejected = plot_sweep(curve)
    assert {text.get_text() for text in rejected.texts} - {""} == {"α = −0.5", "α = 0", "α = 1"}
    for ax, response in ((chosen, "chosen"), (rejected, "rejected")):
        rows = curve[(curve["response"] == response) & (curve["alpha"] == 1)]
        np.testing.assert_array_equal(line(ax, "α = 1").get_ydata(), rows["logp_mean_change"])
        assert same_color(line(ax, "α = 1").get_color(), alpha_color(1.0))
        assert len(ax.collections) == 3  # one band a run


def test_a_run_that_diverged_ends_in_a_cross_and_says_so(write, tmp_path, line):
    """The middle one of three settings: named and marked at its own last step, in every picture that has its curve."""
    folder = tmp_path / "lost"
    for alpha in (0.0, 0.5, 1.0):
        write(folder / f"alpha={alpha}", alpha=alpha)
    manifest, record = folder / "alpha=0.5" / "run.json", folder / "alpha=0.5" / "trace.jsonl"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "status": "diverged"}))
    record.write_bytes(b"".join(record.read_bytes().splitlines(keepends=True)[:4]))  # steps 0, 1, 2
    trace = read_trace(folder)
    curve, summary = displacement_curve(trace), displacement_summary(trace)
    chosen, rejected = plot_sweep(curve)
    mine = curve[curve["alpha"] == 0.5]
    for ax, response in ((chosen, "chosen"), (rejected, "rejected")):
        cross = line(ax, "_diverged")
        assert cross.get_marker() == "x"
        assert same_color(cross.get_color(), alpha_color(0.5))
        last = mine[mine["response"] == response].iloc[-1]
        assert cross.get_xydata().tolist() == [[2, last["logp_mean_change"]]]
        assert sum(item.get_label() == "_diverged" for item in ax.get_lines()) == 1
    assert {"α = 0", "α = 0.5 (diverged)", "α = 1"} <= {text.get_text() for text in rejected.texts}
    path = plot_trajectory(curve)
    end = line(path, "α = 0.5 (diverged)").get_xydata()[-1]
    np.testing.assert_array_equal(line(path, "_diverged").get_xydata()[0], end)
    difference = plot_difference(difference_curves(trace))
    assert line(difference, "_diverged").get_xdata().tolist() == [2]
    ticks = [label.get_text() for label in plot_final_displacement(summary)[1].get_xticklabels()]
    assert ticks == ["0", "0.5\n(diverged)", "1"]
    along = picture_of("equal_margin", trace).axes[0]
    end = line(along, "α = 0.5 (diverged)").get_xydata()[-1]
    np.testing.assert_array_equal(line(along, "_diverged").get_xydata()[0], end)
    marked = with_ends(settings_along(compare_along(trace, "logp_margin")), trace)
    assert marked.groupby("setting")["diverged"].all().sum() == 1
    for ax in picture_of("quantiles", trace).axes:
        assert [label.get_text() for label in ax.get_xticklabels()] == ticks


def test_one_seed_of_several_that_diverged_is_marked_and_the_setting_is_not(seeds, write, line):
    folder = seeds.folder / "alpha=0.0-seed=1" / "run.json"
    folder.write_text(json.dumps({**json.loads(folder.read_text()), "status": "diverged"}))
    curve = displacement_curve(read_trace(seeds.folder))
    chosen, _ = plot_sweep(curve)
    last = curve[(curve["run"] == "alpha=0.0-seed=1") & (curve["response"] == "chosen")].iloc[-1]
    assert line(chosen, "_diverged").get_ydata().tolist() == [last["logp_mean_change"]]
    assert line(chosen, "α = 0") is not None


def test_seeds_are_drawn_thin_under_their_mean(seeds, line):
    curve = displacement_curve(seeds)
    chosen, _ = plot_sweep(curve)
    rows = curve[(curve["response"] == "chosen") & (curve["alpha"] == 0)]
    np.testing.assert_allclose(
        line(chosen, "α = 0").get_ydata(), rows.groupby("step")["logp_mean_change"].mean()
    )
    assert not chosen.collections  # no band over pairs where seeds show the spread
    assert len(chosen.get_lines()) == 1 + 2 * (3 + 1)  # zero line; per α three seeds and their mean


def test_trajectory_is_margin_against_chosen(sweep, line):
    curve = displacement_curve(sweep)
    ax = plot_trajectory(curve)
    wide = curve[curve["alpha"] == 0].pivot(index="step", columns="response", values="logp_mean")
    np.testing.assert_allclose(line(ax, "α = 0").get_xdata(), wide["chosen"] - wide["rejected"])
    np.testing.assert_allclose(line(ax, "α = 0").get_ydata(), wide["chosen"])


def test_a_path_has_its_interval_all_along_and_is_filled_once_where_it_turns_back():
    rows = pd.DataFrame(
        {"run": "r", "setting": "alpha=0", "alpha": 0.0, "step": [0, 1, 2] * 2,
         "response": ["chosen"] * 3 + ["rejected"] * 3, "logp_mean": [-1.0, -1.2, -1.3, -1.0, -1.6, -1.5]}
    )  # fmt: skip
    rows["logp_mean_change"] = [0, -0.2, -0.3, 0, -0.6, -0.5]
    curve = rows.assign(
        logp_mean_change_low=rows["logp_mean_change"] - [0, 0.1, 0.1] * 2,
        logp_mean_change_high=rows["logp_mean_change"] + [0, 0.05, 0.05] * 2,
    )
    [band] = plot_trajectory(curve).collections
    [path] = band.get_paths()
    for margin, level in (
        (0.0, -1.0),
        (0.4, -1.299),
        (0.4, -1.151),
        (0.2, -1.399),
        (0.2, -1.251),
        (0.3, -1.25),
    ):
        assert path.contains_point((margin, level), radius=1e-6)
    for margin, level in ((0.4, -1.31), (0.4, -1.14), (0.2, -1.41), (0.1, -1.3)):
        assert not path.contains_point((margin, level))
    corners = [np.stack([p[1] - p[0], p[2] - p[1]]) for p in path.to_polygons()]
    turned = [np.sign(np.linalg.det(sides)) for sides in corners]
    assert len(set(turned)) == 1  # all pieces turn one way, so that none cancels another


def test_a_name_that_begins_like_a_parameter_is_a_name():
    rows = pd.DataFrame(
        {"run": ["a", "b"], "setting": ["α = x", "αPO"], "alpha": np.nan, "reached": True, "share_fallen": [0.1, 0.2],
         "share_fallen_low": 0.0, "share_fallen_high": 0.5}
    )  # fmt: skip
    ax = plot_fallen_at_equal(rows)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["α = x", "αPO"]
    assert ax.get_xlabel() == "run"


def test_final_displacement_stands_over_its_alpha_with_its_interval(sweep, line):
    summary = displacement_summary(sweep)
    changes, shares = plot_final_displacement(summary)
    np.testing.assert_array_equal(line(changes, "chosen").get_xdata(), [-0.5, 0, 1])
    np.testing.assert_allclose(line(changes, "rejected").get_ydata(), summary["rejected_change"])
    np.testing.assert_allclose(line(shares, "chosen").get_ydata(), summary["share_fallen"])
    bar = changes.collections[0].get_segments()[0]
    np.testing.assert_allclose(
        bar[:, 1], summary.loc[0, ["chosen_change_low", "chosen_change_high"]].tolist()
    )


def test_equal_margin_names_what_is_equal(sweep, line):
    rows = compare_at_equal(sweep, "logp_margin", 0.1)
    ax = plot_at_equal(rows)
    assert "margin gain 0.1 nats per token" in ax.get_xlabel()
    np.testing.assert_allclose(line(ax, "chosen").get_ydata(), rows["chosen_change"])


def test_difference_is_pair_by_pair_against_alpha_0(sweep, line):
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


def test_runs_without_alpha_are_told_apart_by_name(write, tmp_path):
    for name in ("dpo", "simpo"):
        folder = write(tmp_path / name)
        parameters = {"dpo": {"beta": 0.1}, "simpo": {"beta": 2.0, "gamma": 1.0}}[name]
        manifest = (folder / "run.json").read_text()
        stated = json.loads(manifest) | {"objective": {"name": name, "parameters": parameters}}
        (folder / "run.json").write_text(json.dumps(stated))
    _, ax = plot_sweep(displacement_curve(read_trace(tmp_path)))
    assert {text.get_text() for text in ax.texts} - {""} == {"dpo", "simpo"}


def test_settings_are_drawn_along_the_margin_each_to_where_it_got(sweep, line):
    rows = settings_along(compare_along(sweep, "logp_margin", baseline="alpha=0", points=7))
    ax = plot_along(rows)
    assert ax.get_xlabel() == "margin gained (nats per token)"
    for label, setting in (("α = 1", "alpha=1"), ("α = 0", "alpha=0")):
        mine = rows[rows["setting"] == setting].dropna(subset="difference")
        np.testing.assert_array_equal(line(ax, label).get_xdata(), mine["value"])
        np.testing.assert_array_equal(line(ax, label).get_ydata(), mine["difference"])
    alone = settings_along(compare_along(sweep, "step", points=7))
    ax = plot_along(alone)
    mine = alone[alone["setting"] == "alpha=1"]
    np.testing.assert_array_equal(line(ax, "α = 1").get_ydata(), mine["chosen_change"])
    assert "since step 0" in ax.get_ylabel()

"""What the over-optimization pictures draw, read back from the artists."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from rewardshape.plotting.overoptimization import (
    FORM_LABELS,
    FORM_STYLES,
    plot_gold,
    plot_gold_sweep,
    plot_proxy,
)
from rewardshape.plotting.style import alpha_color


@pytest.fixture
def curve() -> pd.DataFrame:
    kl = np.array([0.0, 0.3, 1.1, 2.0])
    table = pd.DataFrame({"run": "alpha=0.25", "alpha": 0.25, "seed": 0, "step": [0, 20, 40, 60]})
    table = table.assign(num_samples=64, kl=kl, kl_se=[0.0, 0.05, 0.1, 0.2], sqrt_kl=np.sqrt(kl))
    for name, values in (("gold", [0.4, 0.6, 0.5, 0.3]), ("proxy", [-1.0, -0.9, -0.8, -0.6])):
        table[name] = values
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 0.1, table[name] + 0.05
    return table


@pytest.fixture
def fits() -> pd.DataFrame:
    same = {"run": "alpha=0.25", "end_sqrt_kl": 1.4, "peak_sqrt_kl_low": 0.6, "peak_sqrt_kl_high": 1.9}
    return pd.DataFrame(
        [
            {**same, "form": "best_of_n", "peak_sqrt_kl": 0.7, "peaks": True, "preferred": False},
            {**same, "form": "policy_gradient", "peak_sqrt_kl": 0.8, "peaks": True, "preferred": True},
        ]
    )


@pytest.fixture
def fitted() -> pd.DataFrame:
    distance = np.linspace(0, 1.4, 20)
    lines = [
        pd.DataFrame(
            {"run": "alpha=0.25", "form": form, "preferred": preferred, "sqrt_kl": distance, "gold": gold}
        )
        for form, preferred, gold in (
            ("best_of_n", False, 0.4 + distance * (0.5 - 0.4 * distance)),
            ("policy_gradient", True, 0.4 + 0.1 * distance),
        )
    ]
    return pd.concat(lines, ignore_index=True)


def test_gold_shows_points_both_fits_and_the_preferred_peak_within_the_run(curve, fits, fitted):
    ax = plot_gold(curve, fits, fitted)
    points = ax.containers[0]
    np.testing.assert_allclose(points.lines[0].get_xdata().astype(float), curve["sqrt_kl"])
    np.testing.assert_allclose(points.lines[0].get_ydata().astype(float), curve["gold"])
    labels = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(
        labels[r"fit $d(a - b\,\ln d)$"].get_ydata(), 0.4 + 0.1 * np.linspace(0, 1.4, 20)
    )
    assert labels["fit $d(a - bd)$"].get_linewidth() < labels[r"fit $d(a - b\,\ln d)$"].get_linewidth()
    assert np.ravel(labels["peak, 95 %"].get_xdata()).tolist() == [0.8]
    bar = next(line for line in ax.lines if line.get_linewidth() == 2.5)
    assert list(bar.get_xdata()) == [0.6, 1.4]  # the interval ends where the run does


def test_error_bars_are_the_intervals(curve):
    ax = plot_gold(curve)
    across, upright = ax.containers[0].lines[2]
    assert [list(map(float, segment[:, 1])) for segment in upright.get_segments()] == [
        pytest.approx([low, high]) for low, high in zip(curve["gold_low"], curve["gold_high"], strict=True)
    ]
    ends = [segment[:, 0] for segment in across.get_segments()]
    assert ends[2] == pytest.approx(np.sqrt([1.1 - 0.2, 1.1 + 0.2]))


def test_no_peak_no_mark(curve, fits, fitted):
    ax = plot_gold(curve, fits.assign(peaks=False), fitted)
    assert "peak, 95 %" not in [line.get_label() for line in ax.lines]


def test_best_of_n_is_shown_as_far_as_the_run_goes(curve):
    n = np.arange(1, 1001)
    kl = np.log(n) - (n - 1) / n
    best = pd.DataFrame({"n": n, "kl": kl, "sqrt_kl": np.sqrt(kl), "gold": 0.4 + 0.1 * np.sqrt(kl)})
    best = best.assign(gold_low=best["gold"] - 0.01, gold_high=best["gold"] + 0.01)
    ax = plot_gold(curve, best_of_n=best)
    line = next(line for line in ax.lines if line.get_label() == "best of $n$, reference")
    assert 1.3 < line.get_xdata().max() <= 1.05 * np.sqrt(2)


def test_proxy_has_the_axis_of_gold(curve):
    _, (above, below) = plt.subplots(2)
    gold, proxy = plot_gold(curve, ax=above), plot_proxy(curve, ax=below)
    assert proxy.get_xlabel() == gold.get_xlabel()
    np.testing.assert_allclose(proxy.containers[0].lines[0].get_ydata().astype(float), curve["proxy"])


def test_every_alpha_of_a_sweep_has_its_colour_and_one_label(curve, fitted):
    other = curve.assign(run="alpha=1.0", alpha=1.0, setting="alpha=1.0")
    again = other.assign(run="alpha=1.0-seed=1")
    ax = plot_gold_sweep(pd.concat([other, curve.assign(setting="alpha=0.25"), again]), fitted)
    labelled = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(labelled) == ["α = 0.25", "α = 1"]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    [form] = fitted.loc[fitted["preferred"], "form"].unique()
    assert legend == ["α = 0.25", "α = 1", FORM_LABELS[form]]  # what the dashes of the lines say
    assert ax.get_legend().legend_handles[-1].get_linestyle() == FORM_STYLES[form]
    assert labelled["α = 1"].get_color() == alpha_color(1.0)
    assert len({line.get_marker() for line in labelled.values()}) == 2  # told apart without colour
    assert (
        sum(len(line.get_xdata()) == 20 for line in ax.lines) == 1
    )  # the preferred fit of the one fitted run


def test_plots_leave_the_global_style_alone(curve, fits, fitted):
    before = dict(matplotlib.rcParams)
    plot_gold(curve, fits, fitted)
    plot_proxy(curve)
    assert dict(matplotlib.rcParams) == before

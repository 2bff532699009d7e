"""Over-optimization in pictures. Takes the tables of `rewardshape.analysis.overoptimization`.

The horizontal axis is always the distance from the reference, √KL. Every function returns its Axes and neither
saves nor shows.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rewardshape.plotting.axes import axis, styled
from rewardshape.plotting.settings import by_setting, legend_of
from rewardshape.plotting.style import GOLD, MARKERS, NEUTRAL, PROXY

DISTANCE_LABEL = "√KL to the reference (nats$^{1/2}$ per response)"
FORM_LABELS = {"best_of_n": "fit $d(a - bd)$", "policy_gradient": r"fit $d(a - b\,\ln d)$"}
FORM_STYLES: dict[str, Any] = {"best_of_n": "--", "policy_gradient": "-"}


@styled
def plot_gold(
    curve: pd.DataFrame,
    fits: pd.DataFrame | None = None,
    fitted: pd.DataFrame | None = None,
    best_of_n: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Gold reward of one run against the distance from the reference, with its fits and their peaks.

    Points are the sampled steps (vertical bars: 95 % over prompts; horizontal: √ of KL ± 2 standard errors). A
    triangle on the axis marks the peak of the preferred form, the bar through it the peak's interval; there is none
    where the run has no peak.

    Parameters
    ----------
    curve : DataFrame
        As `gold_curve` returns it, of one run.
    fits, fitted : DataFrame, optional
        As `turning_points` and `fitted_curves` return them, of the same run.
    best_of_n : DataFrame, optional
        As `best_of_n_curve` returns it: what picking the best of n reference samples earns.
    """
    ax = axis(ax)
    _draw_points(curve, "gold", GOLD, ax)
    if fitted is not None:
        for form, line in fitted.groupby("form", sort=False):
            width = 1.4 if line["preferred"].iloc[0] else 0.8
            style = FORM_STYLES[str(form)]
            ax.plot(
                line["sqrt_kl"],
                line["gold"],
                style,
                color=GOLD,
                linewidth=width,
                label=FORM_LABELS[str(form)],
            )
    if best_of_n is not None:
        shown = best_of_n[best_of_n["sqrt_kl"] <= 1.05 * max(curve["sqrt_kl"].max(), 0.5)]
        ax.plot(
            shown["sqrt_kl"], shown["gold"], ".:", color=NEUTRAL, linewidth=1, label="best of $n$, reference"
        )
        ax.fill_between(
            shown["sqrt_kl"], shown["gold_low"], shown["gold_high"], color=NEUTRAL, alpha=0.15, linewidth=0
        )
    if fits is not None:
        for fit in fits[fits["preferred"] & fits["peaks"]].to_dict("records"):
            _mark_peak(fit, ax)
    ax.set(xlabel=DISTANCE_LABEL, ylabel="gold reward")
    if fitted is not None or best_of_n is not None:
        ax.legend()
    return ax


@styled
def plot_proxy(curve: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The objective's own implicit reward of the samples of one run, on the axis of `plot_gold`.

    Over-optimization is this rising where gold falls.

    Parameters
    ----------
    curve : DataFrame
        As `gold_curve` returns it, of one run.
    """
    ax = axis(ax)
    _draw_points(curve, "proxy", PROXY, ax)
    along = curve.sort_values("sqrt_kl")
    ax.plot(along["sqrt_kl"], along["proxy"], color=PROXY, linewidth=0.8)
    ax.set(xlabel=DISTANCE_LABEL, ylabel="implicit reward $r$\nof the samples")
    return ax


@styled
def plot_gold_sweep(curves: pd.DataFrame, fitted: pd.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """Gold reward of every run of a sweep against the distance from the reference, by setting.

    Parameters
    ----------
    curves : DataFrame
        As `gold_curve` returns it for a sweep.
    fitted : DataFrame, optional
        As `fitted_curves` returns it; the preferred form of every run is drawn, in the dashes of `plot_gold`.
    """
    ax = axis(ax)
    forms: dict[str, None] = {}
    settings = by_setting(curves.sort_values("step", kind="stable"))
    for setting, marker in zip(settings, itertools.cycle(MARKERS), strict=False):
        color = setting.color
        for number, (run, curve) in enumerate(setting.rows.groupby("run", sort=False)):
            label = setting.label if number == 0 else None
            ax.plot(curve["sqrt_kl"], curve["gold"], marker, color=color, markersize=2.5, label=label)
            ax.vlines(
                curve["sqrt_kl"], curve["gold_low"], curve["gold_high"], color=color, linewidth=0.5, alpha=0.6
            )
            if fitted is not None:
                for form, line in fitted[(fitted["run"] == run) & fitted["preferred"]].groupby("form"):
                    ax.plot(line["sqrt_kl"], line["gold"], FORM_STYLES[str(form)], color=color)
                    forms[str(form)] = None
    handles = ax.get_legend_handles_labels()[0]
    handles += [
        Line2D([], [], color=NEUTRAL, linestyle=FORM_STYLES[form], label=FORM_LABELS[form]) for form in forms
    ]
    ax.set(xlabel=DISTANCE_LABEL, ylabel="gold reward")
    if len(handles) > 1:
        legend_of(ax, handles)
    return ax


def _draw_points(curve: pd.DataFrame, name: str, color: str, ax: Axes) -> None:
    distance = curve["sqrt_kl"]
    reach = 2 * curve["kl_se"]
    nearest, furthest = (np.sqrt(np.maximum(curve["kl"] + sign * reach, 0)) for sign in (-1, 1))
    ax.errorbar(
        distance,
        curve[name],
        xerr=(distance - nearest, furthest - distance),
        yerr=(curve[name] - curve[f"{name}_low"], curve[f"{name}_high"] - curve[name]),
        fmt="o",
        markersize=3,
        color=color,
        elinewidth=0.5,
        alpha=0.6,
    )


def _mark_peak(fit: dict, ax: Axes) -> None:
    high = min(fit["peak_sqrt_kl_high"], fit["end_sqrt_kl"])
    on_axis = ax.get_xaxis_transform()
    ax.plot(
        [fit["peak_sqrt_kl_low"], high],
        [0.015, 0.015],
        color=NEUTRAL,
        linewidth=2.5,
        alpha=0.5,
        transform=on_axis,
    )
    ax.plot(
        fit["peak_sqrt_kl"], 0.03, "^", color=NEUTRAL, markersize=5, transform=on_axis, label="peak, 95 %"
    )

"""A sweep: the same picture for every α. Takes the tables of `rewardshape.analysis`.

Several seeds of a setting are drawn thin, with their mean on top. A run that diverged ends in a cross.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from rewardshape.numbers import number, significant
from rewardshape.plotting.axes import (
    axis,
    has_diverged,
    label_ends,
    mark_end,
    panels,
    percent_axis,
    step_axis,
    styled,
    zero_line,
)
from rewardshape.plotting.settings import Setting, by_setting, settings_axis
from rewardshape.plotting.style import (
    BOTH_COLUMNS,
    COLUMN_WIDTH,
    NEUTRAL,
    RESPONSE_COLORS,
    RESPONSE_MARKERS,
    in_lines,
    plain,
)

LEGEND_LINES = 17  # of a column of a legend
MOST_LINES = 9  # of the names that stand at the ends; more of them go into a legend


def _lines(ax: Axes, setting: Setting, x: str, y: str, linestyle: Any = "-") -> None:
    """Every seed thin and their mean on top; a single seed is its own mean."""
    seeds = [rows for _, rows in setting.rows.groupby("run", sort=False)]
    for rows in seeds:
        if len(seeds) > 1:
            ax.plot(rows[x], rows[y], color=setting.color, linewidth=0.5, alpha=0.5)
        if has_diverged(rows):
            mark_end(ax, rows[x], rows[y], setting.color)
    values = list(dict.fromkeys(["step", x, y]))
    by_step = setting.rows[values].groupby("step")
    mean = by_step.mean().reset_index()
    if len(seeds) > 1:  # where one has ended, a mean of the others would jump
        mean = mean[by_step.size().to_numpy() == len(seeds)]
    ax.plot(mean[x], mean[y], color=setting.color, label=setting.label, linestyle=linestyle)


@styled
def plot_sweep(curve: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Change of the chosen (left) and the rejected response (right) over the steps, by α.

    The band, drawn for settings with a single seed, is the interval over pairs of that run alone; whether two settings
    differ, `plot_difference` shows.

    Parameters
    ----------
    curve : DataFrame
        As `displacement_curve` returns it, of several runs.
    axes : two Axes, optional
    """
    axes = panels(axes, 1, 2, (BOTH_COLUMNS, 2.5), sharey=True)
    for ax, response in zip(axes, ("chosen", "rejected"), strict=True):
        _changes(curve[curve["response"] == response], ax, response)
    axes[1].set_ylabel("")
    name_lines(axes[-1])
    return axes


def _changes(rows: pd.DataFrame, ax: Axes, response: str) -> None:
    zero_line(ax)
    plot_lines(rows, ax, "logp_mean_change")
    step_axis(ax)
    ax.set_title(response, color=RESPONSE_COLORS[response])
    ax.set_ylabel("change in log-prob\nsince step 0 (nats per token)")


def plot_accuracy(margins: pd.DataFrame, ax: Axes) -> Axes:
    """Share of pairs whose chosen response scores higher, over the steps, from `margin_curve`."""
    ax.axhline(0.5, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
    plot_lines(margins, ax, "accuracy")
    step_axis(ax)
    ax.set_ylabel("accuracy on the probe set")
    percent_axis(ax)
    if margins["setting"].nunique() > 1:
        name_lines(ax)
    return ax


def plot_lines(curve: pd.DataFrame, ax: Axes, value: str) -> None:
    """One column of a table over the steps, by setting: seeds thin under their mean, a band where there is one seed."""
    for setting in by_setting(curve):
        _lines(ax, setting, "step", value)
        if setting.rows["run"].nunique() == 1 and f"{value}_low" in setting.rows:
            low, high = setting.rows[f"{value}_low"], setting.rows[f"{value}_high"]
            ax.fill_between(setting.rows["step"], low, high, color=setting.color, alpha=0.12, linewidth=0)


@styled
def plot_difference(differences: pd.DataFrame, ax: Axes | None = None, *, response: str = "chosen") -> Axes:
    """How far every setting stands above or below the baseline, pair by pair: what a sweep is run for.

    What the pairs have in common cancels: these bands tell how far two settings differ at a step, those of two separate
    curves do not.

    Parameters
    ----------
    differences : DataFrame
        As `difference_curves` returns it.
    """
    ax = axis(ax)
    rows = differences[differences["response"] == response]
    for setting in by_setting(rows):
        ax.plot(setting.rows["step"], setting.rows["difference"], color=setting.color, label=setting.label)
        low, high = setting.rows["difference_low"], setting.rows["difference_high"]
        ax.fill_between(setting.rows["step"], low, high, color=setting.color, alpha=0.2, linewidth=0)
        if has_diverged(setting.rows):
            mark_end(ax, setting.rows["step"], setting.rows["difference"], setting.color)
    zero_line(ax)
    step_axis(ax)
    base = plain(in_lines(f"that of {rows['baseline'].iloc[0]} (nats per token)", 34))
    ax.set_ylabel(f"{response} log-prob above\n{base}")
    name_lines(ax)
    return ax


ALONG = {
    "logp_margin": "margin gained (nats per token)",
    "kl": "KL to the reference (nats per response)",
    "step": "step",
}


@styled
def plot_along(settings: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How far the chosen responses of every setting stand above the baseline's, along margin or KL, to where it got.

    Parameters
    ----------
    settings : DataFrame
        As `settings_along` returns it; without differences the changes since step 0 are drawn. A column
        ``diverged`` marks settings whose runs all ended so.
    """
    ax = axis(ax)
    paired = "difference" in settings and bool(settings["difference"].notna().any())
    value = "difference" if paired else "chosen_change"
    for setting in by_setting(settings):
        rows = setting.rows.dropna(subset=value)
        if rows.empty:
            continue
        ax.plot(rows["value"], rows[value], color=setting.color, label=setting.label)
        low, high = rows[f"{value}_low"], rows[f"{value}_high"]
        ax.fill_between(rows["value"], low, high, color=setting.color, alpha=0.2, linewidth=0)
        if has_diverged(rows):
            mark_end(ax, rows["value"], rows[value], setting.color)
    zero_line(ax)
    ax.set_xlabel(ALONG[settings["axis"].iloc[0]])
    ax.set_ylabel(f"chosen {'above the baseline' if paired else 'since step 0'}\n(nats per token)")
    name_lines(ax)
    return ax


def name_lines(ax: Axes) -> None:
    """Name the lines at their ends, in a legend where they are many, and as so many where no legend holds them."""
    lines = sum(1 + str(label).count("\n") for label in ax.get_legend_handles_labels()[1])
    if lines <= MOST_LINES:
        label_ends(ax)
    elif lines <= 2 * LEGEND_LINES:
        ax.legend(
            loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=1 if lines <= LEGEND_LINES else 2,
            fontsize="x-small", labelspacing=0.2, handlelength=1.4, columnspacing=0.8,
        )  # fmt: skip
    else:
        many = len(ax.get_legend_handles_labels()[1])
        ax.set_xlabel(f"{ax.get_xlabel()}\n{many} settings, coloured in their order")


@styled
def plot_change(
    curve: pd.DataFrame,
    ax: Axes | None = None,
    *,
    response: str = "chosen",
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Change of one response since step 0 over the steps, by setting: one panel of `plot_sweep`.

    Parameters
    ----------
    curve : DataFrame
        As `displacement_curve` returns it, of one run or several.
    limits : (float, float), optional
        Of the vertical axis, nats per token.
    """
    ax = axis(ax)
    _changes(curve[curve["response"] == response], ax, response)
    if limits is not None:
        ax.set_ylim(*limits)
    name_lines(ax)
    return ax


@styled
def plot_trajectory(curve: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Paths in the plane of margin and chosen log-prob, by α: the price at which each α buys its margin.

    Both axes are means over the probe set in nats per token, on one scale for every objective. The ring is step 0,
    the dot the last step, ticks between are at equal numbers of steps. The band along the path of a setting with one
    seed is the interval of the chosen response's change over pairs. Falling to the right: the margin grows while the
    chosen response loses probability. Paths that start from one point are compared along a vertical, where all that
    reach it have gained the same.

    Parameters
    ----------
    curve : DataFrame
        As `displacement_curve` returns it, of one run or several.
    """
    ax = axis(ax)
    for setting in by_setting(_plane(curve)):
        _lines(ax, setting, "logp_margin", "chosen")
        path = np.asarray(ax.get_lines()[-1].get_xydata())
        marks = path[np.unique(np.linspace(0, len(path) - 1, STEP_MARKS).round().astype(int))[1:-1]]
        ax.plot(*marks.T, "|", color=setting.color, markersize=5, label="_steps")
        if not has_diverged(setting.rows):
            ax.plot(*path[-1], "o", color=setting.color, label="_end")
        if setting.rows["run"].nunique() == 1 and "chosen_low" in setting.rows:
            ax.add_collection(_band(setting.rows, setting.color))
        ax.plot(*path[0], "o", markerfacecolor="white", markeredgecolor=NEUTRAL, zorder=3, label="_start")
    ax.set(
        xlabel="chosen − rejected log-prob (nats per token)",
        ylabel="chosen log-prob\n(nats per token)",
    )
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5))
    if curve["setting"].nunique() > 1:
        name_lines(ax)
    return ax


STEP_MARKS = 6  # of a path: its ends, and four ticks at equal numbers of steps between


def _plane(curve: pd.DataFrame) -> pd.DataFrame:
    """Chosen and margin of every step, one row per run and step, with the interval of chosen's change since step 0."""
    index = ["run", "setting", "alpha", "step", *(["diverged"] if "diverged" in curve else [])]
    wide = curve.pivot(index=index, columns="response", values="logp_mean").reset_index()
    wide["logp_margin"] = wide["chosen"] - wide["rejected"]
    if "logp_mean_change_low" not in curve:
        return wide
    rows = curve[curve["response"] == "chosen"]
    start = rows["logp_mean"] - rows["logp_mean_change"]
    ends = {f"chosen_{end}": start + rows[f"logp_mean_change_{end}"] for end in ("low", "high")}
    return wide.merge(rows[index].assign(**ends), on=index)


def _band(path: pd.DataFrame, color: Any) -> PathCollection:
    """What lies between the ends of the interval along a path, which may turn back on itself."""
    x, low, high = (path[name].to_numpy(float) for name in ("logp_margin", "chosen_low", "chosen_high"))
    pieces = []
    for i in range(len(x) - 1):
        corners = [(x[i], low[i]), (x[i + 1], low[i + 1]), (x[i + 1], high[i + 1]), (x[i], high[i])]
        corners = (
            corners if x[i] <= x[i + 1] else corners[::-1]
        )  # all turn one way: together they fill their union
        if np.isfinite(corners).all():
            pieces.append(Path([*corners, corners[0]], closed=True))
    band = [Path.make_compound_path(*pieces)] if pieces else []
    return PathCollection(band, facecolor=color, alpha=0.12, linewidth=0, zorder=1)


@styled
def plot_final_displacement(summary: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """At the end of each run: change of chosen and rejected (above) and share of pairs fallen (below), against α.

    Bars are the interval over pairs of each run; the line joins the means over seeds.

    Parameters
    ----------
    summary : DataFrame
        As `displacement_summary` returns it.
    axes : two Axes, optional
    """
    axes = panels(axes, 2, 1, (COLUMN_WIDTH, 3.4), sharex=True, height_ratios=[2, 1])
    settings = by_setting(summary)
    changes, shares = axes
    plot_final_change(summary, changes)
    _points(shares, settings, "share_fallen", "chosen")
    shares.set_ylabel("share of\npairs fallen")
    percent_axis(shares)
    settings_axis(shares, settings)
    for ax in axes:
        ax.label_outer()
    return axes


@styled
def plot_final_change(summary: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The upper panel of `plot_final_displacement`: change of chosen and rejected at the end of each run.

    Parameters
    ----------
    summary : DataFrame
        As `displacement_summary` returns it.
    """
    ax = axis(ax)
    settings = by_setting(summary)
    zero_line(ax)
    for response in ("chosen", "rejected"):
        _points(ax, settings, f"{response}_change", response)
    ax.set_ylabel("change in log-prob\n(nats per token)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    settings_axis(ax, settings)
    return ax


@styled
def plot_at_equal(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Change of the chosen response at equal margin, equal KL or equal step, against α.

    Bars are the interval over pairs of each run; the line joins the means over seeds. Runs that never reach the
    common value are left out.

    Parameters
    ----------
    rows : DataFrame
        As `compare_at_equal` returns it.
    """
    ax = axis(ax)
    settings = by_setting(rows[rows["reached"]])
    zero_line(ax)
    _points(ax, settings, "chosen_change", "chosen")
    ax.set_ylabel("change in chosen log-prob\n(nats per token)")
    settings_axis(ax, settings)
    ax.set_xlabel(f"{ax.get_xlabel()}, at {common_value(rows)}")
    return ax


def common_value(rows: pd.DataFrame) -> str:
    """What the runs of `compare_at_equal` have in common, in words: margin, KL or step."""
    value = rows["value"].iloc[0]
    return {
        "logp_margin": f"margin gain {significant(value, 2)} nats per token",
        "kl": f"KL {significant(value, 2)} nats",
        "step": f"step {number(value, 0)}",
    }[str(rows["axis"].iloc[0])]


@styled
def plot_paired_at_equal(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How far above the baseline's the chosen responses stand at equal margin, KL or step, paired, against α.

    Bars are the interval over pairs of the difference: every resample holds the same pairs in both runs.

    Parameters
    ----------
    rows : DataFrame
        As `compare_at_equal` returns it with a `baseline`.
    """
    ax = axis(ax)
    settings = by_setting(rows[rows["reached"]])
    zero_line(ax)
    _points(ax, settings, "difference", "chosen")
    ax.set_ylabel("chosen above the baseline's\n(nats per token, paired)")
    settings_axis(ax, settings)
    return ax


@styled
def plot_fallen_at_equal(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of pairs whose chosen response fell, at equal margin, KL or step, against α.

    Bars are the 95 % Wilson interval over pairs.

    Parameters
    ----------
    rows : DataFrame
        As `compare_at_equal` returns it.
    """
    ax = axis(ax)
    settings = by_setting(rows[rows["reached"]])
    _points(ax, settings, "share_fallen", "chosen")
    ax.set_ylabel("share of pairs whose\nchosen response fell")
    percent_axis(ax)
    settings_axis(ax, settings)
    return ax


def _points(ax: Axes, settings: list[Setting], name: str, response: str) -> None:
    color, marker = RESPONSE_COLORS[response], RESPONSE_MARKERS[response]
    several = any(len(setting.rows) > 1 for setting in settings)
    look = {"alpha": 0.45, "markersize": 2, "capsize": 0} if several else {"capsize": 2}
    for x, row in _seed_places(settings):
        if f"{name}_low" not in row:
            ax.plot(x, row[name], marker, color=color, alpha=look.get("alpha", 1.0), markersize=2)
            continue
        bar = [[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]]
        ax.errorbar(x, row[name], yerr=np.clip(bar, 0, None), fmt=marker, color=color, elinewidth=0.9, **look)
    places = [setting.place for setting in settings]
    means = [setting.rows[name].mean() for setting in settings]
    ax.plot(places, means, f"{marker}-", color=color, linewidth=0.9, label=response)


def _seed_places(settings: list[Setting]) -> Iterator[tuple[float, pd.Series]]:
    """Seeds of one setting side by side, within a quarter of the distance to the next setting."""
    places = [setting.place for setting in settings]
    room = 0.25 * min(np.diff(places), default=1.0)
    for setting in settings:
        shifts = np.linspace(-room / 2, room / 2, len(setting.rows)) if len(setting.rows) > 1 else [0.0]
        for shift, (_, row) in zip(shifts, setting.rows.iterrows(), strict=True):
            yield setting.place + shift, row

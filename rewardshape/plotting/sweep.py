"""A sweep: the same picture for every α. Takes the tables of `rewardshape.analysis`.

Settings are told apart by α (always the same ordered colours); where runs have no α, or differ in something else,
by the name of their setting. Several seeds of a setting are drawn thin, with their mean on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from rewardshape.numbers import parameter
from rewardshape.plotting.style import CHOSEN, NEUTRAL, RESPONSE_COLORS, alpha_color, plain


class _Setting(NamedTuple):
    label: str
    color: Any
    place: float  # on an axis of settings: α itself, or the rank of the name
    rows: pd.DataFrame


def _settings(table: pd.DataFrame) -> list[_Setting]:
    groups = [(str(name), rows) for name, rows in table.groupby("setting", sort=False)]
    alphas = [rows["alpha"].iloc[0] for _, rows in groups]
    if np.isfinite(alphas).all() and len(set(alphas)) == len(alphas):
        ordered = sorted(zip(alphas, groups, strict=True), key=lambda item: item[0])
        return [_Setting(parameter("alpha", a), alpha_color(a), a, g[1]) for a, g in ordered]
    colors = sns.color_palette("viridis", len(groups))
    return [_Setting(plain(name), colors[i], i, rows) for i, (name, rows) in enumerate(groups)]


def _lines(ax: Axes, setting: _Setting, x: str, y: str) -> None:
    """Every seed thin and their mean on top; a single seed is its own mean."""
    seeds = [rows for _, rows in setting.rows.groupby("run", sort=False)]
    if len(seeds) > 1:
        for rows in seeds:
            ax.plot(rows[x], rows[y], color=setting.color, linewidth=0.5, alpha=0.5)
    values = list(dict.fromkeys(["step", x, y]))
    mean = setting.rows[values].groupby("step", as_index=False).mean()
    ax.plot(mean[x], mean[y], color=setting.color, label=setting.label)


def plot_sweep(curve: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Change of the chosen (left) and the rejected response (right) over the steps, by α.

    The band, drawn for settings with a single seed, is the interval over pairs.

    Parameters
    ----------
    curve : DataFrame
        As `displacement_curve` returns it, of several runs.
    axes : two Axes, optional
    """
    axes = plt.gcf().subplots(1, 2, sharey=True) if axes is None else axes
    for ax, response in zip(axes, ("chosen", "rejected"), strict=True):
        ax.axhline(0, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
        for setting in _settings(curve[curve["response"] == response]):
            rows = setting.rows
            _lines(ax, setting, "step", "logp_mean_change")
            if rows["run"].nunique() == 1:
                low, high = rows["logp_mean_change_low"], rows["logp_mean_change_high"]
                ax.fill_between(rows["step"], low, high, color=setting.color, alpha=0.15, linewidth=0)
        ax.set_xlabel("step")
        ax.set_title(response, color=RESPONSE_COLORS[response])
        ax.margins(x=0)
    axes[0].set_ylabel("change in log-prob\nsince step 0 (nats per token)")
    axes[0].legend(loc="best")
    return axes


def plot_trajectory(curve: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Paths in the plane of margin and chosen log-prob, by α: the price at which each α buys its margin.

    Both axes are means over the probe set in nats per token, on one scale for every objective. The ring is step 0,
    the dot the last step. Falling to the right: the margin grows while the chosen response loses probability.

    Parameters
    ----------
    curve : DataFrame
        As `displacement_curve` returns it, of one run or several.
    """
    ax = plt.gca() if ax is None else ax
    for setting in _settings(_plane(curve)):
        _lines(ax, setting, "logp_margin", "chosen")
        path = np.asarray(ax.get_lines()[-1].get_xydata())
        ax.plot(*path[-1], "o", color=setting.color)
        ax.plot(*path[0], "o", markerfacecolor="white", markeredgecolor=NEUTRAL, zorder=3)
    ax.set(
        xlabel="chosen − rejected log-prob (nats per token)",
        ylabel="chosen log-prob\n(nats per token)",
    )
    ax.legend(loc="best")
    return ax


def _plane(curve: pd.DataFrame) -> pd.DataFrame:
    wide = curve.pivot(
        index=["run", "setting", "alpha", "step"], columns="response", values="logp_mean"
    ).reset_index()
    wide["logp_margin"] = wide["chosen"] - wide["rejected"]
    return wide


def plot_final_displacement(summary: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """At the end of each run: change of chosen and rejected (above) and share of pairs fallen (below), against α.

    Bars are the interval over pairs of each run; the line joins the means over seeds.

    Parameters
    ----------
    summary : DataFrame
        As `displacement_summary` returns it.
    axes : two Axes, optional
    """
    if axes is None:
        axes = plt.gcf().subplots(2, 1, sharex=True, height_ratios=[2, 1])
    settings = _settings(summary)
    changes, shares = axes
    changes.axhline(0, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
    for response in ("chosen", "rejected"):
        _points(changes, settings, f"{response}_change", RESPONSE_COLORS[response], response)
    _points(shares, settings, "share_fallen", RESPONSE_COLORS["chosen"], "chosen")
    changes.set_ylabel("change in log-prob\n(nats per token)")
    changes.legend(loc="best")
    shares.set(ylabel="share of\npairs fallen", ylim=(-0.03, 1.03))
    for ax in axes:
        _settings_axis(ax, settings)
        ax.label_outer()
    return axes


def plot_at_equal(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Change of the chosen response at equal margin, equal KL or equal step, against α.

    Bars are the interval over pairs of each run; the line joins the means over seeds. Runs that never reach the
    common value are left out.

    Parameters
    ----------
    rows : DataFrame
        As `compare_at_equal` returns it.
    """
    ax = plt.gca() if ax is None else ax
    value = rows["value"].iloc[0]
    common = {
        "logp_margin": f"margin gain {value:.2g} nats per token",
        "kl": f"KL {value:.2g} nats",
        "step": f"step {value:g}",
    }[rows["axis"].iloc[0]]
    settings = _settings(rows[rows["reached"]])
    ax.axhline(0, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
    _points(ax, settings, "chosen_change", RESPONSE_COLORS["chosen"], "chosen")
    ax.set_ylabel("change in chosen log-prob\n(nats per token)")
    _settings_axis(ax, settings)
    ax.set_xlabel(f"{ax.get_xlabel()}, at {common}")
    return ax


def plot_fallen_at_equal(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of pairs whose chosen response fell, at equal margin, KL or step, against α.

    Parameters
    ----------
    rows : DataFrame
        As `compare_at_equal` returns it.
    """
    ax = plt.gca() if ax is None else ax
    settings = _settings(rows[rows["reached"]])
    for setting in settings:
        ax.plot(
            [setting.place] * len(setting.rows), setting.rows["share_fallen"], "o", color=CHOSEN, alpha=0.45
        )
    means = [setting.rows["share_fallen"].mean() for setting in settings]
    ax.plot([setting.place for setting in settings], means, "o-", color=CHOSEN, linewidth=0.9)
    ax.set(ylabel="share of pairs whose\nchosen response fell", ylim=(-0.03, 1.03))
    _settings_axis(ax, settings)
    return ax


def _points(ax: Axes, settings: list[_Setting], name: str, color: str, label: str) -> None:
    several = any(len(setting.rows) > 1 for setting in settings)
    look = {"alpha": 0.45, "markersize": 2, "capsize": 0} if several else {"capsize": 2}
    for x, row in _seed_places(settings):
        bar = [[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]]
        ax.errorbar(x, row[name], yerr=np.clip(bar, 0, None), fmt="o", color=color, elinewidth=0.9, **look)
    places = [setting.place for setting in settings]
    means = [setting.rows[name].mean() for setting in settings]
    ax.plot(places, means, "o-", color=color, linewidth=0.9, label=label)


def _seed_places(settings: list[_Setting]) -> Iterator[tuple[float, pd.Series]]:
    """Seeds of one setting side by side, within a quarter of the distance to the next setting."""
    places = [setting.place for setting in settings]
    room = 0.25 * min(np.diff(places), default=1.0)
    for setting in settings:
        shifts = np.linspace(-room / 2, room / 2, len(setting.rows)) if len(setting.rows) > 1 else [0.0]
        for shift, (_, row) in zip(shifts, setting.rows.iterrows(), strict=True):
            yield setting.place + shift, row


def _settings_axis(ax: Axes, settings: list[_Setting]) -> None:
    numeric = all(setting.label.startswith("α") for setting in settings)
    ax.set_xticks([setting.place for setting in settings])
    ax.set_xticklabels([setting.label.removeprefix("α = ") for setting in settings])
    ax.set_xlabel("α" if numeric else "run")

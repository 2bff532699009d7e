"""What means hide: every pair before and after. Takes the tables of `rewardshape.analysis.distributions`."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy import stats

from rewardshape.numbers import number
from rewardshape.plotting.axes import (
    axis,
    has_diverged,
    mark_end,
    percent_axis,
    require_one_run,
    step_axis,
    styled,
    zero_line,
)
from rewardshape.plotting.overoptimization import DISTANCE_LABEL
from rewardshape.plotting.settings import by_setting, legend_of, settings_axis
from rewardshape.plotting.style import FAINT, MARKERS, NEUTRAL, RESPONSE_COLORS, RESPONSE_MARKERS, plain
from rewardshape.plotting.sweep import name_lines, plot_lines

MOMENTS = {"before": ("--", 0.9), "after": ("-", 1.6)}


@styled
def plot_ecdf(levels: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of pairs below each log-prob, chosen and rejected, before (dashed) and after (solid), of one run.

    Parameters
    ----------
    levels : DataFrame
        As `pair_levels` returns it, of one run.
    """
    ax = axis(ax)
    require_one_run(levels)
    for response, color in RESPONSE_COLORS.items():
        for moment, (dashes, width) in MOMENTS.items():
            values = np.sort(levels.loc[levels["moment"] == moment, response].to_numpy(float))
            values, share = np.r_[values[0], values], np.arange(len(values) + 1) / len(values)
            label = f"{response}, {moment}"
            ax.step(
                values, share, where="post", color=color, linestyle=dashes, linewidth=width, label=label,
                marker=RESPONSE_MARKERS[response], markevery=0.25, markersize=2.5 * width,
            )  # fmt: skip
    ax.set(xlabel="log-prob of a response (nats per token)", ylabel="share of pairs below")
    percent_axis(ax)
    ax.legend(loc="upper left")
    return ax


@styled
def plot_margins(levels: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Histogram of the log-prob margin over pairs, before (outline) and after (filled), of one run.

    Parameters
    ----------
    levels : DataFrame
        As `pair_levels` returns it, of one run.
    """
    ax = axis(ax)
    require_one_run(levels)
    edges = np.histogram_bin_edges(levels["margin"].to_numpy(float), bins=24).tolist()
    before, after = (levels.loc[levels["moment"] == moment, "margin"] for moment in MOMENTS)
    ax.hist(after, edges, color=NEUTRAL, alpha=0.45, label="after")
    ax.hist(before, edges, histtype="step", color="black", linestyle="--", label="before")
    ax.axvline(0, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
    ax.set(xlabel="chosen − rejected log-prob (nats per token)", ylabel="pairs")
    ax.legend(loc="upper right")
    return ax


@styled
def plot_quantiles(levels: pd.DataFrame, ax: Axes | None = None, *, value: str = "chosen") -> Axes:
    """Quartiles and the middle nine tenths of a quantity over pairs at the last step, by setting.

    Parameters
    ----------
    levels : DataFrame
        As `pair_levels` returns it.
    value : {"chosen", "rejected", "margin"}
        Whose level. The dotted line is its median before training.
    """
    ax = axis(ax)
    settings = by_setting(levels[levels["moment"] == "after"])
    places = [setting.place for setting in settings]
    width = 0.35 * min(np.diff(places), default=1.0)
    for setting in settings:
        low, first, middle, third, high = np.quantile(setting.rows[value], [0.05, 0.25, 0.5, 0.75, 0.95])
        ax.vlines(setting.place, low, high, color=setting.color, linewidth=1)
        ax.bar(setting.place, third - first, width, first, color=setting.color, alpha=0.35, linewidth=0)
        ax.hlines(
            middle, setting.place - width / 2, setting.place + width / 2, color=setting.color, linewidth=1.8
        )
    start = float(levels.loc[levels["moment"] == "before", value].median())
    ax.axhline(start, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
    names = {"margin": "chosen − rejected log-prob"}
    ax.set_ylabel(f"{names.get(value, f'{value} log-prob')}\n(nats per token)")
    settings_axis(ax, settings)
    return ax


@styled
def plot_length(levels: pd.DataFrame, ax: Axes | None = None, *, moment: str = "after") -> Axes:
    """Log-prob per token of every response against its length, with the rank correlation of each kind.

    Parameters
    ----------
    levels : DataFrame
        As `pair_levels` returns it, of one run.
    """
    ax = axis(ax)
    require_one_run(levels)
    rows = levels[levels["moment"] == moment]
    for response, color in RESPONSE_COLORS.items():
        length, level = rows[f"{response}_tokens"], rows[response]
        varied = length.nunique() > 1
        rho = f", ρ = {number(stats.spearmanr(length, level).statistic, 2)}" if varied else ""
        marker = RESPONSE_MARKERS[response]
        ax.plot(length, level, marker, color=color, alpha=0.5, mew=0, ms=3, label=f"{response}{rho}")
    ax.set(xlabel="length (tokens)", ylabel=f"log-prob {moment} training\n(nats per token)")
    ax.legend(loc="best", handletextpad=0.2)
    return ax


@styled
def plot_tokens(moved: pd.DataFrame, ax: Axes | None = None, *, response: str = "chosen") -> Axes:
    """The tokens that gained and lost most at the positions of a response, of one run.

    Parameters
    ----------
    moved : DataFrame
        As `moved_tokens` returns it, of one run.
    """
    ax = axis(ax)
    require_one_run(moved)
    rows = moved[moved["response"] == response].sort_values("change", kind="stable")
    places = np.arange(len(rows))
    ax.barh(places, rows["change"], color=[NEUTRAL if change > 0 else FAINT for change in rows["change"]])
    ax.set_yticks(places, [plain(f"“{token}”".replace("\n", "↵")) for token in rows["token"]])
    ax.axvline(0, color="black", linewidth=0.7)
    ax.set_xlabel(f"probability gained at the positions\nof {response} (tokens, whole probe set)")
    return ax


@styled
def plot_win_rate(rates: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Win rate of the samples against those of step 0, over the distance that they cost, with each setting's front.

    The front is the most that any of its steps wins at no more KL, step 0 (one half, at no KL) among them; a setting
    whose front lies higher buys more with the same distance. The last step of each run is ringed, the one that half of
    the prompts would choose by gold reward marked with a diamond.

    Parameters
    ----------
    rates : DataFrame
        As `win_rates` returns it.
    """
    ax = axis(ax)
    ax.axhline(0.5, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
    handles = []
    markers = MARKERS.replace("D", "")  # the diamond marks the step that is chosen
    for setting, marker in zip(by_setting(rates), itertools.cycle(markers), strict=False):
        color, rows = setting.color, setting.rows.sort_values("kl")
        rows = rows.assign(distance=np.sqrt(np.maximum(rows["kl"], 0)))  # an estimate, which may be below 0
        ax.plot(
            rows["distance"], rows["win_rate"], marker, color=color, markersize=3, alpha=0.6, label="_steps"
        )
        ax.vlines(
            rows["distance"],
            rows["win_rate_low"],
            rows["win_rate_high"],
            color=color,
            linewidth=0.5,
            alpha=0.4,
        )
        reach = np.concatenate([[0.0], rows["distance"].to_numpy(float)])
        front = np.maximum.accumulate(np.concatenate([[0.5], rows["win_rate"].to_numpy(float)]))
        end = int(front.argmax()) + 1  # beyond it nothing more is won
        ax.step(reach[:end], front[:end], where="post", color=color, linewidth=1.2, label=setting.label)
        handles.append(Line2D([], [], color=color, marker=marker, markersize=3, label=setting.label))
        last = rows.sort_values("step").groupby("run", sort=False).tail(1)
        ax.plot(last["distance"], last["win_rate"], "o", color=color, markerfacecolor="white", label="_last")
        chosen = rows.dropna(subset="picked")
        picked = chosen.loc[chosen["picked"].astype(bool), ["distance", "win_rate"]].to_numpy(float)
        at_start = [[0.0, 0.5]] * (chosen["run"].nunique() - len(picked))  # step 0 has no row
        ax.plot(
            *np.vstack([picked, *at_start]).T, "D", color=color, markeredgecolor="black", markeredgewidth=0.6,
            label="_picked",
        )  # fmt: skip
    ax.set(xlabel=DISTANCE_LABEL, ylabel="win rate against step 0")
    percent_axis(ax)
    if len(handles) > 1:
        legend_of(ax, handles, loc="best")
    return ax


@styled
def plot_kl(curve: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """KL to the reference over the steps, by setting, ± 2 standard errors over prompts where a setting has one seed.

    Parameters
    ----------
    curve : DataFrame
        As `kl_curve` returns it.
    """
    ax = axis(ax)
    zero_line(ax)
    plot_lines(curve, ax, "kl")
    step_axis(ax)
    ax.set_ylabel("KL to the reference\n(nats per response)")
    if curve["setting"].nunique() > 1:
        name_lines(ax)
    return ax


@styled
def plot_cosine(cosine: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The median pair's cosine of chosen and rejected gradient over the steps, with its quartiles, by setting.

    Parameters
    ----------
    cosine : DataFrame
        run, setting, alpha, step, cosine: one row per pair and step.
    """
    ax = axis(ax)
    zero_line(ax)
    for setting in by_setting(cosine):
        quartiles = setting.rows.groupby("step")["cosine"].quantile(np.array([0.25, 0.5, 0.75])).unstack()
        ax.plot(quartiles.index, quartiles[0.5], color=setting.color, label=setting.label)
        ax.fill_between(
            quartiles.index, quartiles[0.25], quartiles[0.75], color=setting.color, alpha=0.12, linewidth=0
        )
        if has_diverged(setting.rows):
            mark_end(ax, quartiles.index.to_series(), quartiles[0.5], setting.color)
    ax.set_ylabel("cosine of the two gradients")
    step_axis(ax)
    name_lines(ax)
    return ax

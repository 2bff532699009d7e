"""Pictures of the theory: DataFrames of `rewardshape.figures.theory_tables` in, Axes out."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, SymLogNorm

from rewardshape.numbers import parameter, shortest
from rewardshape.plotting.axes import axis, styled
from rewardshape.plotting.style import FAINT, NEUTRAL, alpha_color, looks, ordered_colors

OTHER_SHAPES = {"Jensen-Shannon": "--", "χ² mixed": "-.", "log-odds": ":"}
LOGP = "log-probability per token, s (nats)"


@styled
def plot_rewards(
    curves: pd.DataFrame, ax: Axes | None = None, *, over: str = "s", legend: bool = True
) -> Axes:
    """Rewards φ of all shapes at β = 1.

    Parameters
    ----------
    curves : DataFrame
        From `rewardshape.figures.theory_tables.shape_curves`.
    over : {"s", "probability"}
        The horizontal axis.
    """
    ax = _curves(curves, ax, over, "reward")
    ax.set_ylim(-6, 2.5)
    ax.set_ylabel("reward φ(s) at β = 1")
    return _legend(ax, legend)


@styled
def plot_slopes(curves: pd.DataFrame, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Slopes φ′ of all shapes over s: the weight of a response up to the pair's common factor."""
    ax = _curves(curves, ax, "s", "slope")
    ax.set_yscale("log")
    ax.set_ylim(5e-3, 1e2)
    ax.set_ylabel("slope φ′(s)")
    return _legend(ax, legend)


@styled
def plot_weight_map(
    weights: pd.DataFrame, ax: Axes | None = None, *, response: str = "chosen", bar: bool = True
) -> Axes:
    """Gradient weight of one response as a map over both scores, from `weight_map`; both weights share one scale.

    Parameters
    ----------
    response : {"chosen", "rejected"}
        Whose weight.
    bar : bool
        Whether to draw the scale.
    """
    ax = axis(ax)
    grid = weights.pivot(index="s_l", columns="s_w", values=f"weight_{response}")
    both = weights[["weight_chosen", "weight_rejected"]].to_numpy(float)
    top = float(np.nanmax(np.abs(both)))
    signed = bool((both < 0).any())
    norm: Any = SymLogNorm(1e-3 * top, vmin=-top, vmax=top) if signed else LogNorm(1e-3 * top, top)
    _map(ax, grid, norm, "PuOr" if signed else "viridis", bar)
    ax.set_title(f"weight of {response}")
    return ax


@styled
def plot_weight_ratio(weights: pd.DataFrame, ax: Axes | None = None, *, overlap: float | None = None) -> Axes:
    """The ratio w_w/w_l over both scores, from `weight_map`: a chosen response falls where b/a exceeds it.

    Parameters
    ----------
    overlap : float, optional
        A pair's b/a, drawn as a line: beyond it, on the side of the smaller ratios, the chosen response falls.
    """
    ax = axis(ax)
    ratio = weights.assign(ratio=weights["weight_chosen"] / weights["weight_rejected"])
    grid = ratio.pivot(index="s_l", columns="s_w", values="ratio")
    reach = float(np.nanmax(np.abs(np.log(grid.to_numpy(float)))))
    mesh = _map(ax, grid, LogNorm(np.exp(-reach), np.exp(reach)), "PuOr", False)
    scale = ax.figure.colorbar(mesh, ax=ax, shrink=0.85)
    scale.ax.set_title("$w_w/w_l$", fontsize="small")
    scale.set_ticks(
        [0.5, 1, 2] if reach < 1.3 else [0.2, 0.5, 1, 2, 5], labels=["½", "1", "2"] if reach < 1.3 else None
    )
    scale.minorticks_off()
    if overlap is not None:
        line = ax.contour(grid.columns, grid.index, grid.to_numpy(), [overlap], colors="black", linewidths=1)
        ax.clabel(line, fmt={overlap: f"b/a = {shortest(overlap)}"}, fontsize="x-small")
    ax.set_title("ratio of the two")
    return ax


def _map(ax: Axes, grid: pd.DataFrame, norm: Any, colors: str, bar: bool) -> Any:
    across, up = grid.columns.to_numpy(float), grid.index.to_numpy(float)
    extent = (across[0], across[-1], up[0], up[-1])
    mesh = ax.imshow(
        grid.to_numpy(),
        norm=norm,
        cmap=colors,
        origin="lower",
        extent=extent,
        interpolation="bilinear",
        aspect="equal",
    )
    ax.axline((-1, -1), slope=1, color="white", linewidth=1, linestyle=(0, (4, 2)))
    ax.set(xlabel="chosen s$_w$ (nats per token)", ylabel="rejected s$_l$ (nats per token)")
    if bar:
        scale = ax.figure.colorbar(mesh, ax=ax, shrink=0.85, extend="min" if norm.vmin > 0 else "neither")
        scale.ax.set_title("weight", fontsize="small")  # beside it, it would name the axis of the next panel
    return mesh


@styled
def plot_gradient_magnitude(magnitudes: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """|∇L| of the loss of single pairs against α, from `gradient_by_alpha`."""
    ax = axis(ax)
    pairs = magnitudes.groupby(["s_w", "s_l"], sort=False)
    for (key, pair), look in zip(pairs, looks(pairs.ngroups), strict=True):
        s_w, s_l = map(float, key)  # type: ignore[arg-type]
        order = "in order" if s_w > s_l else "in the wrong order"
        name = f"$s_w$ = {shortest(s_w)}, $s_l$ = {shortest(s_l)}: {order}"
        ax.plot(pair.alpha, pair.magnitude, linestyle=look["linestyle"], color=look["color"], label=name)
    ax.set_yscale("log")
    top = float(magnitudes["magnitude"].max())
    ax.set_ylim(1e-6, 1.5 * top)
    ax.axvline(0, color=NEUTRAL, linewidth=0.6, linestyle=":", zorder=0)
    ax.set(xlabel="shape α", ylabel="|∇L| of one pair, in the\nlog-prob gradients' units")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize="x-small")
    return ax


@styled
def plot_phase_portrait(portrait: pd.DataFrame, ax: Axes | None = None, *, alpha: float) -> Axes:
    """Flow, paths and the contour where the margin is met (z = 0) for one α, from `phase_portrait`.

    Arrows: the direction of the flow, longer where it is faster (by the fourth root). A ring without a path is a pair
    whose margin is met from the start.
    """
    ax = axis(ax)
    here = portrait[portrait.alpha == alpha]
    field = here[here.kind == "field"]
    pace = (field.speed / field.speed.max()) ** 0.25
    ax.quiver(
        field.s_w,
        field.s_l,
        field.ds_w * pace,
        field.ds_l * pace,
        color="0.55",
        scale=17,
        width=0.005,
        headwidth=4,
    )
    contour = here[here.kind == "contour"]
    ax.plot(contour.s_w, contour.s_l, color="black", linestyle="--", linewidth=1, label="z = 0: margin met")
    color = alpha_color(alpha)
    for _, line in here[here.kind == "path"].groupby("line"):
        ax.plot(line.s_w, line.s_l, color=color, linewidth=1.8)
        moved = np.hypot(line.s_w.iloc[-1] - line.s_w.iloc[0], line.s_l.iloc[-1] - line.s_l.iloc[0])
        ax.plot(line.s_w.iloc[:1], line.s_l.iloc[:1], "o", color=color, markerfacecolor="white", markersize=4)
        if moved > 0.1:
            place = int(0.8 * len(line))
            ends = line[["s_w", "s_l"]].to_numpy()[[place, place + 1]]
            arrow = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", ends[1], xytext=ends[0], arrowprops=arrow)
    ax.axline((-1, -1), slope=1, color=NEUTRAL, linewidth=0.6, linestyle=":")
    ax.set(xlim=(-3.1, 0), ylim=(-3.6, 0), title=parameter("alpha", alpha))
    ax.set(xlabel="chosen s$_w$ (nats per token)", ylabel="rejected s$_l$ (nats per token)")
    ax.set_aspect("equal")
    return ax


@styled
def plot_zoo(
    curves: pd.DataFrame,
    ax: Axes | None = None,
    *,
    value: str = "ratio",
    middle: float = -2.0,
    overlap: float | None = None,
) -> Axes:
    """The objectives on one axis, from `zoo_curves`.

    Parameters
    ----------
    value : {"ratio", "weight_chosen", "weight_rejected"}
        w_w/w_l, or one of the weights.
    middle : float
        Mean score of the pair, one of those in the table.
    overlap : float, optional
        A pair's b/a: below this line its chosen response falls.
    """
    ax = axis(ax)
    here = curves[curves.middle == middle]
    groups = _coinciding(here, value)
    for (names, line), look in zip(groups, looks(len(groups)), strict=True):
        label = textwrap.fill(", ".join(TITLES.get(name, name) for name in names), LEGEND_WIDTH)
        heights = _broken(line[value].to_numpy(float), value == "ratio")
        ax.plot(
            line.gap, heights, linestyle=look["linestyle"], color=look["color"], label=label,
            marker=look["marker"], markevery=(5, 24), markersize=3,
        )  # fmt: skip
    labels = {
        "ratio": "weight ratio $w_w / w_l$",
        "weight_chosen": "weight of the chosen response",
        "weight_rejected": "weight of the rejected response",
    }
    if value == "ratio":
        ax.set_yscale("log")
        ax.set_ylim(1e-2, 1e2)
        if overlap is not None:
            ax.axhline(overlap, color="black", linewidth=0.8, linestyle=(0, (2, 2)))
            said = f"b/a = {shortest(overlap)}:\nbelow, chosen falls"
            ax.annotate(
                said, (-6, overlap), xytext=(0, -8), textcoords="offset points", fontsize="x-small", va="top"
            )
    else:
        ax.set_ylim(-1.5, 4)
    ax.axvline(0, color=NEUTRAL, linewidth=0.6, linestyle=":", zorder=0)
    ax.set(xlabel="gap of the scores, s$_w$ − s$_l$ (nats)", ylabel=labels[value])
    ax.legend(
        fontsize="x-small", title=f"mean score {shortest(middle)} nats, β = 1", title_fontsize="x-small",
        loc="center left", bbox_to_anchor=(1.0, 0.5), alignment="left",
    )  # fmt: skip
    return ax


TITLES = {
    "alphapo": "AlphaPO, α = 0.25", "simpo": "SimPO", "dpo": "DPO", "cdpo": "cDPO", "slic": "SLiC", "ipo": "IPO",
    "gpo_exponential": "GPO (exponential)", "exo": "EXO", "apo_zero": "APO-zero", "kto": "KTO", "nca": "NCA",
    "sppo": "SPPO", "dpop": "DPOP", "bco": "BCO",
}  # fmt: skip
LEGEND_WIDTH = 26  # letters
JUMP = 0.25  # in log₁₀, between neighbouring points: a step of the ratio, not a slope


def _broken(values: np.ndarray, logarithmic: bool) -> np.ndarray:
    """The line with a gap where it jumps or changes sign, which is no slope."""
    values = values.copy()
    if logarithmic:
        values[values <= 0] = np.nan
        with np.errstate(invalid="ignore"):
            values[1:][np.abs(np.diff(np.log10(values))) > JUMP] = np.nan
    return values


@styled
def plot_displacement_by_alpha(displacement: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Change of the chosen score at z = 0 and at equal gap, against α, from `displacement_by_alpha`."""
    ax = axis(ax)
    at_margin = displacement[displacement["at"] == "equal margin"].groupby("start", sort=False)
    for (start, line), color, dashes in zip(at_margin, ordered_colors(4), ("-", "-.", "--"), strict=False):
        ax.plot(
            line.alpha,
            line.displacement,
            dashes,
            color=color,
            label=f"margin met, from s = {shortest(float(str(start)))}",
        )
    at_gap = displacement[displacement["at"] == "equal gap"]
    one = at_gap[at_gap.start == at_gap.start.iloc[-1]]
    ax.plot(one.alpha, one.displacement, color="black", linestyle=":", label="equal gap, from any s")
    ax.axhline(0, color=NEUTRAL, linewidth=0.6)
    ax.set(xlabel="shape α", ylabel="displacement of the chosen response\n(nats per token)")
    return _legend(ax, True)


@styled
def plot_softmax_paths(paths: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A softmax model's paths (solid) and the fixed-Gram paths (dashed), from `softmax_against_fixed_gram`.

    A dot marks where the margin reaches 0; the lines go on to a margin of 1.
    """
    ax = axis(ax)
    paths = paths[paths.margin <= 1]
    for alpha, line in paths.groupby("alpha"):
        color = alpha_color(float(alpha))  # type: ignore[arg-type]
        gap = line.s_w - line.s_l
        ax.plot(gap, line.s_w - line.s_w.iloc[0], color=color, label=parameter("alpha", float(alpha)))  # type: ignore[arg-type]
        ax.plot(gap, line.s_w_fixed - line.s_w.iloc[0], color=color, linestyle="--", linewidth=0.9)
        done = line[line.margin >= 0].head(1)
        ax.plot(done.s_w - done.s_l, done.s_w - line.s_w.iloc[0], "o", color=color, markersize=4)
    ax.axhline(0, color=NEUTRAL, linewidth=0.6)
    ax.set(xlabel="gap s$_w$ − s$_l$ (nats)", ylabel="displacement of the chosen response (nats)")
    return _legend(ax, True)


@styled
def plot_squeezing(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A distribution before and after one of its tokens was pushed down, from `squeezing`."""
    ax = axis(ax)
    places = np.arange(len(table))
    ax.bar(places - 0.2, table["before"], 0.38, color=FAINT, label="before")
    ax.bar(places + 0.2, table["after"], 0.38, color=NEUTRAL, label="after")
    pushed = int(np.flatnonzero(table["pushed"])[0])
    at = (pushed, float(table["before"].iloc[pushed]))
    arrow = {"arrowstyle": "-|>", "color": "black"}
    ax.annotate("pushed down", at, xytext=(pushed, 0.3), ha="center", arrowprops=arrow)
    ax.set_xticks(places, [str(rank) for rank in table["token"]])
    ax.set(xlabel="token, by its probability before", ylabel="probability")
    return _legend(ax, True)


def _coinciding(curves: pd.DataFrame, value: str) -> list[tuple[list[str], pd.DataFrame]]:
    """Objectives whose curves coincide wherever both have a value, as one line, the longest, under all their names."""
    groups: list[tuple[list[str], pd.DataFrame]] = []
    for name, line in curves.groupby("objective", sort=False):
        for place, (names, drawn) in enumerate(groups):
            ours, theirs = line[value].to_numpy(), drawn[value].to_numpy()
            both = np.isfinite(ours) & np.isfinite(theirs)
            if both.any() and np.allclose(ours[both], theirs[both], rtol=1e-6, atol=1e-9):
                longer = line if np.isfinite(ours).sum() > np.isfinite(theirs).sum() else drawn
                groups[place] = ([*names, str(name)], longer)
                break
        else:
            groups.append(([str(name)], line))
    return groups


def _curves(curves: pd.DataFrame, ax: Axes | None, over: str, value: str) -> Axes:
    ax = axis(ax)
    for name, curve in curves.groupby("shape", sort=False):
        alpha = curve.alpha.iloc[0]
        known = np.isfinite(alpha)
        style = "-" if known else OTHER_SHAPES[str(name)]
        ax.plot(
            curve[over],
            curve[value],
            style,
            color=alpha_color(alpha) if known else NEUTRAL,
            label=parameter("alpha", float(alpha)) if known else name,
        )
    ax.set_xlabel(LOGP if over == "s" else "probability per token, p = e$^s$")
    return ax


def _legend(ax: Axes, wanted: bool) -> Axes:
    if wanted:
        ax.legend(fontsize="x-small")
    return ax

"""Pictures of the theory: DataFrames of `rewardshape.figures.theory_tables` in, Axes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, SymLogNorm

from rewardshape.plotting.style import CHOSEN, NEUTRAL, REJECTED, alpha_color

OTHER_SHAPES = {"Jensen-Shannon": "--", "χ² mixed": "-.", "log-odds": ":"}
LOGP = "log-probability per token, s (nats)"


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


def plot_slopes(curves: pd.DataFrame, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Slopes φ′ of all shapes over s: the weight of a response up to the pair's common factor."""
    ax = _curves(curves, ax, "s", "slope")
    ax.set_yscale("log")
    ax.set_ylim(5e-3, 1e2)
    ax.set_ylabel("slope φ′(s)")
    return _legend(ax, legend)


def plot_weight_map(weights: pd.DataFrame, ax: Axes | None = None, *, response: str = "chosen") -> Axes:
    """Gradient weight of one response as a heat map over both scores, from `weight_map`.

    Parameters
    ----------
    response : {"chosen", "rejected"}
        Whose weight.
    """
    ax = _axes(ax)
    grid = weights.pivot(index="s_l", columns="s_w", values=f"weight_{response}")
    values = grid.to_numpy()
    top = np.nanmax(np.abs(values))
    norm: Any = (
        SymLogNorm(1e-3 * top, vmin=-top, vmax=top)
        if values.min() < 0
        else LogNorm(1e-3 * top, top, clip=True)
    )
    mesh = ax.pcolormesh(
        grid.columns,
        grid.index,
        values,
        norm=norm,
        cmap="RdBu" if values.min() < 0 else "viridis",
        rasterized=True,
    )
    limits = [grid.columns.min(), grid.columns.max()]
    ax.plot(limits, limits, color="white", linewidth=0.8, linestyle=":")
    ax.set(xlabel="chosen s$_w$ (nats per token)", ylabel="rejected s$_l$ (nats per token)")
    ax.set_aspect("equal")
    ax.figure.colorbar(mesh, ax=ax, label=f"weight of the {response} response", shrink=0.85)
    return ax


def plot_gradient_magnitude(magnitudes: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """|∇L| against α for several pairs, from `gradient_by_alpha`."""
    ax = _axes(ax)
    pairs = magnitudes.groupby(["s_w", "s_l"], sort=False)
    for (key, pair), style in zip(pairs, ("-", "--", ":", "-."), strict=False):
        s_w, s_l = map(float, key)  # type: ignore[arg-type]
        color = CHOSEN if s_w > s_l else REJECTED
        order = "ordered" if s_w > s_l else "not ordered"
        ax.plot(
            pair.alpha,
            pair.magnitude,
            style,
            color=color,
            label=f"$s_w$ = {s_w:g}, $s_l$ = {s_l:g} ({order})",
        )
    ax.set_yscale("log")
    ax.set_ylim(1e-6, None)
    ax.axvline(0, color=NEUTRAL, linewidth=0.6)
    ax.set(xlabel="shape α", ylabel="gradient magnitude |∇L|")
    return _legend(ax, True)


def plot_phase_portrait(portrait: pd.DataFrame, ax: Axes | None = None, *, alpha: float) -> Axes:
    """Flow, paths and the contour where training stops (z = 0) for one α, from `phase_portrait`."""
    ax = _axes(ax)
    here = portrait[portrait.alpha == alpha]
    field = here[here.kind == "field"]
    ax.quiver(field.s_w, field.s_l, field.ds_w, field.ds_l, color="0.78", scale=28, width=0.004)
    contour = here[here.kind == "contour"]
    ax.plot(contour.s_w, contour.s_l, color=NEUTRAL, linestyle="--", label="z = 0")
    for _, line in here[here.kind == "path"].groupby("line"):
        ax.plot(line.s_w, line.s_l, color=alpha_color(alpha))
        ax.plot(line.s_w.iloc[:1], line.s_l.iloc[:1], "o", color=alpha_color(alpha), markersize=3)
    ax.axline((-1, -1), slope=1, color=NEUTRAL, linewidth=0.6, linestyle=":")
    ax.set(xlim=(-3.1, 0), ylim=(-3.6, 0), title=f"α = {alpha:g}")
    ax.set(xlabel="chosen s$_w$ (nats per token)", ylabel="rejected s$_l$ (nats per token)")
    ax.set_aspect("equal")
    return _legend(ax, True)


def plot_zoo(
    curves: pd.DataFrame, ax: Axes | None = None, *, value: str = "ratio", middle: float = -2.0
) -> Axes:
    """The objectives on one axis, from `zoo_curves`.

    Parameters
    ----------
    value : {"ratio", "weight_chosen", "weight_rejected"}
        w_w/w_l, or one of the weights.
    middle : float
        Mean log-ratio of the pair, one of those in the table.
    """
    ax = _axes(ax)
    here = curves[curves.middle == middle]
    colors = plt.get_cmap("tab10")
    for number, (names, line) in enumerate(_coinciding(here, value)):
        style = "-" if number < 10 else "--"
        ax.plot(line.gap, line[value], color=colors(number % 10), linestyle=style, label=", ".join(names))
    labels = {
        "ratio": "weight ratio $w_w / w_l$",
        "weight_chosen": "weight of the chosen response",
        "weight_rejected": "weight of the rejected response",
    }
    if value == "ratio":
        ax.set_yscale("log")
        ax.set_ylim(1e-2, 1e2)
    else:
        ax.set_ylim(-1.5, 4)
    ax.axvline(0, color=NEUTRAL, linewidth=0.6)
    ax.set(xlabel="margin of log-ratios, s$_w$ − s$_l$ (nats)", ylabel=labels[value])
    ax.legend(fontsize="x-small", title=f"mean log-ratio {middle:g} nats", title_fontsize="x-small")
    return ax


def plot_displacement_by_alpha(displacement: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Change of the chosen score where training stops, against α, from `displacement_by_alpha`."""
    ax = _axes(ax)
    shades = ("#9ecae1", "#4292c6", "#08306b")
    at_margin = displacement[displacement["at"] == "equal margin"].groupby("start", sort=False)
    for (start, line), color in zip(at_margin, shades, strict=False):
        ax.plot(line.alpha, line.displacement, color=color, label=f"equal margin, from s = {start:g}")
    at_gap = displacement[displacement["at"] == "equal gap"]
    one = at_gap[at_gap.start == at_gap.start.iloc[-1]]
    ax.plot(one.alpha, one.displacement, color=REJECTED, linestyle="--", label="equal gap, from any s")
    ax.axhline(0, color=NEUTRAL, linewidth=0.6)
    ax.set_ylim(-0.5, 0.3)
    ax.set(xlabel="shape α", ylabel="displacement of the chosen response\n(nats per token)")
    return _legend(ax, True)


def plot_softmax_paths(paths: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A softmax model's paths (solid) and the fixed-Gram paths (dashed), from `softmax_against_fixed_gram`.

    A dot marks where the margin reaches 0; the lines go on to a margin of 1.
    """
    ax = _axes(ax)
    paths = paths[paths.margin <= 1]
    for alpha, line in paths.groupby("alpha"):
        color = alpha_color(float(alpha))  # type: ignore[arg-type]
        gap = line.s_w - line.s_l
        ax.plot(gap, line.s_w - line.s_w.iloc[0], color=color, label=f"α = {alpha:g}")
        ax.plot(gap, line.s_w_fixed - line.s_w.iloc[0], color=color, linestyle="--", linewidth=0.9)
        done = line[line.margin >= 0].head(1)
        ax.plot(done.s_w - done.s_l, done.s_w - line.s_w.iloc[0], "o", color=color, markersize=4)
    ax.axhline(0, color=NEUTRAL, linewidth=0.6)
    ax.set(xlabel="gap s$_w$ − s$_l$ (nats)", ylabel="displacement of the chosen response (nats)")
    return _legend(ax, True)


def _coinciding(curves: pd.DataFrame, value: str) -> list[tuple[list[str], pd.DataFrame]]:
    """Objectives whose curves coincide, as one line under all their names."""
    groups: list[tuple[list[str], pd.DataFrame]] = []
    for name, line in curves.groupby("objective", sort=False):
        for names, drawn in groups:
            ours, theirs = line[value].to_numpy(), drawn[value].to_numpy()
            both = np.isfinite(ours) & np.isfinite(theirs)
            if np.allclose(ours[both], theirs[both], rtol=1e-6, atol=1e-9):
                names.append(str(name))
                break
        else:
            groups.append(([str(name)], line))
    return groups


def _curves(curves: pd.DataFrame, ax: Axes | None, over: str, value: str) -> Axes:
    ax = _axes(ax)
    for name, curve in curves.groupby("shape", sort=False):
        alpha = curve.alpha.iloc[0]
        known = np.isfinite(alpha)
        style = "-" if known else OTHER_SHAPES[str(name)]
        ax.plot(curve[over], curve[value], style, color=alpha_color(alpha) if known else NEUTRAL, label=name)
    ax.set_xlabel(LOGP if over == "s" else "probability per token, p = e$^s$")
    return ax


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def _legend(ax: Axes, wanted: bool) -> Axes:
    if wanted:
        ax.legend(fontsize="x-small")
    return ax

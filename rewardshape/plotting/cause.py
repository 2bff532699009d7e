"""Why pairs moved. Takes the tables of `rewardshape.analysis.cause` and of `pair_correlations`.

Intervals are 95 % over pairs. Every function returns its Axes, neither saves nor shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from rewardshape.errors import InputError
from rewardshape.numbers import number, shortest
from rewardshape.plotting.axes import axis, label_ends, require_one_run, step_axis, styled, zero_line
from rewardshape.plotting.style import (
    CHOSEN,
    GOLD,
    NEUTRAL,
    OTHERS,
    PROXY,
    RESPONSE_COLORS,
    RESPONSE_MARKERS,
    looks,
    plain,
)
from rewardshape.plotting.sweep import plot_lines

PART_LOOKS = {
    "straight": (GOLD, "-"),
    "shape": (PROXY, "-."),
    "drift": (OTHERS[2], ":"),
    "rest": (NEUTRAL, "--"),
}


@styled
def plot_predicted_vs_measured(
    predictions: pd.DataFrame,
    quality: pd.DataFrame | None = None,
    ax: Axes | None = None,
    *,
    predictor: str = "update",
) -> Axes:
    """Predicted against measured one-step changes of the scores; on the diagonal the prediction is right.

    Parameters
    ----------
    predictions : DataFrame
        As `rewardshape.analysis.predictions` returns it, of one run.
    quality : DataFrame, optional
        As `prediction_quality` returns it; R² and slope per pair are then written into the legend.
    predictor : str
        ``update``, ``descent`` or ``own pair``.
    """
    ax = axis(ax)
    require_one_run(predictions)
    points = predictions[predictions["predictor"] == predictor]
    if points.empty:
        raise InputError(f"no predictor {predictor!r}: choose {', '.join(predictions['predictor'].unique())}")
    for side, rows in points.groupby("response", sort=False):
        label = str(side)
        if quality is not None:
            of_side = quality.query("predictor == @predictor and response == @side and level == 'pair'").iloc[
                0
            ]
            label += f": R² = {number(of_side['r_squared'], 2)}, slope {number(of_side['slope'], 2)}"
        ax.plot(
            rows["predicted"], rows["measured"], RESPONSE_MARKERS[str(side)], color=RESPONSE_COLORS[str(side)],
            alpha=0.5, mew=0, ms=3, label=label,
        )  # fmt: skip
    both = points[["predicted", "measured"]].to_numpy(float)
    low, high = both.min(), both.max()
    ax.plot([low, high], [low, high], color=NEUTRAL, linewidth=0.8, zorder=0)
    ax.set(xlabel="predicted change in one step (nats)", ylabel="measured change in one step (nats)")
    _spread(ax, both)
    ax.legend(loc="upper left", handletextpad=0.2)
    return ax


def _spread(ax: Axes, values: np.ndarray) -> None:
    """Both axes straight up to the median size of a change, logarithmic beyond: no outlier hides the rest."""
    middle = float(np.median(np.abs(values)))
    if middle <= 0:
        return
    straight = float(10.0 ** np.round(np.log10(middle)))
    decades = [straight * 10.0**k for k in range(int(np.ceil(np.log10(np.abs(values).max() / straight))) + 1)]
    for scale, place in ((ax.set_xscale, ax.xaxis), (ax.set_yscale, ax.yaxis)):
        scale("symlog", linthresh=straight, linscale=1.0)
        place.set_major_locator(FixedLocator([*(-tick for tick in reversed(decades)), 0, *decades]))
        place.set_major_formatter(FuncFormatter(lambda tick, _: shortest(tick)))
        place.set_minor_locator(NullLocator())
    edge = 1.3 * np.abs(values).max()
    low, high = (-edge if values.min() < 0 else 0), (edge if values.max() > 0 else 0)
    ax.set(xlim=(low, high), ylim=(low, high))
    ax.tick_params(axis="x", labelrotation=30)


@styled
def plot_correlations(correlations: dict[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """What tells which chosen responses fall: rank correlations with their change, for one or several sets of pairs.

    A descriptor left of zero goes with a deeper fall. Bars are intervals.

    Parameters
    ----------
    correlations : dict
        Name of a set of pairs → `pair_correlations` of one run on it.
    """
    ax = axis(ax)
    tables = {name: table[table["change"] == "chosen_change"] for name, table in correlations.items()}
    labels = {str(row.descriptor): str(row.label) for table in tables.values() for row in table.itertuples()}
    known = list(labels)
    marks = looks(len(tables))
    ax.axvline(0, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
    for k, (name, table) in enumerate(tables.items()):
        require_one_run(table)
        found = table.set_index("descriptor").reindex(known)
        height = np.arange(len(known)) + 0.24 * (k - (len(tables) - 1) / 2)
        bars = found["rho"] - found["rho_low"], found["rho_high"] - found["rho"]
        ax.errorbar(
            found["rho"],
            height,
            xerr=bars,
            fmt=marks[k]["marker"],
            ms=3,
            color=marks[k]["color"],
            linewidth=1,
            label=plain(name),
        )
    ax.set(
        xlabel="Spearman's ρ with the change\nof the chosen response",
        xlim=(-1, 1),
        xticks=(-1, -0.5, 0, 0.5, 1),
    )
    ax.set_yticks(range(len(known)), list(labels.values()))
    ax.invert_yaxis()
    if len(tables) > 1:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(tables), handletextpad=0.2)
    return ax


@styled
def plot_entanglement(condition: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What chosen responses did against b/a over w_w/w_l: where that exceeds 1, a step on the pair alone lowers it.

    Points in the shaded quarters did what the condition says.

    Parameters
    ----------
    condition : DataFrame
        As `fall_condition` returns it, of one run; its first measured step is drawn.
    """
    ax = axis(ax)
    require_one_run(condition)
    first = condition[condition["step"] == condition["step"].min()].dropna(subset=["change", "weight_ratio"])
    ax.plot(
        first["overlap"] / first["weight_ratio"], first["change"], "o", color=CHOSEN, alpha=0.6, mew=0, ms=3.5
    )
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    left, right, low, high = min(left, 0.5), max(right, 1.5), min(low, 0), max(high, 0)
    for x, y in (((left, 1), (0, high)), ((1, right), (low, 0))):
        ax.fill_between(x, *y, color=NEUTRAL, alpha=0.12, linewidth=0, zorder=0)
    ax.set(xlim=(left, right), ylim=(low, high))
    right_said = (first["should_fall"] == first["fell"]).sum()
    said = f"{right_said} of {len(first)} as the condition says"
    ax.text(1, 1.02, said, transform=ax.transAxes, ha="right", va="bottom")
    ax.set(
        xlabel="overlap b/a over weight ratio $w_w/w_l$",
        ylabel="change of the chosen response\n(nats per token)",
    )
    return ax


@styled
def plot_overlap_map(cosines: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Cosine of chosen and rejected gradient of every pair (rows) at every measured step (columns) of one run.

    Pairs are ordered by how far their chosen response moved, the one that fell most on top: where falling goes with
    gradients that point the same way, the upper rows are darker.

    Parameters
    ----------
    cosines : DataFrame
        As `gradient_cosines` returns it, of one run.
    """
    ax = axis(ax)
    require_one_run(cosines)
    order = cosines.drop_duplicates("pair_id").sort_values("chosen_change", kind="stable")["pair_id"]
    grid = cosines.pivot(index="pair_id", columns="step", values="cosine").loc[order]
    steps = grid.columns.to_numpy(float)
    between = (steps[1:] + steps[:-1]) / 2
    half = (steps[1] - steps[0]) / 2 if len(steps) > 1 else 0.5
    edges = np.concatenate([[steps[0] - half], between, [steps[-1] + half]])
    mesh = ax.pcolormesh(
        edges, np.arange(len(grid) + 1), grid, cmap="PuOr_r", vmin=-1, vmax=1, rasterized=True
    )
    ax.invert_yaxis()
    ax.set(xlabel="step", ylabel="pairs, the one that fell most on top", yticks=[])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.figure.colorbar(mesh, ax=ax, label="cosine of the two gradients", shrink=0.85)
    return ax


@styled
def plot_kernel(
    cosines: pd.DataFrame, ax: Axes | None = None, *, step: int | None = None, bar: bool = True
) -> Axes:
    """Cosines of the gradients of every two responses of some probe pairs: the empirical neural tangent kernel.

    First the chosen responses of all pairs, then the rejected ones, in the same order. Where a field is dark, pushing
    one response down pushes the other down with it.

    Parameters
    ----------
    cosines : DataFrame
        As `kernel_cosines` returns it, of one run.
    step : int, optional
        Which; the last where left out.
    bar : bool
        Whether to draw the scale.
    """
    ax = axis(ax)
    require_one_run(cosines)
    rows = cosines[cosines["step"] == (cosines["step"].max() if step is None else step)]
    pairs = list(dict.fromkeys(rows["pair_id"]))
    order = [(response, pair) for response in RESPONSE_COLORS for pair in pairs]
    grid = rows.pivot(
        index=["response", "pair_id"], columns=["other_response", "other_pair_id"], values="cosine"
    ).reindex(index=order, columns=order)
    # Vectors, not an image: a page that allows nothing but itself shows no images.
    mesh = ax.pcolormesh(
        grid.to_numpy(float), cmap="PuOr_r", vmin=-1, vmax=1, edgecolors="face", linewidth=0.5
    )
    ax.set_aspect("equal")
    ax.invert_yaxis()
    middle = len(pairs)
    ax.axvline(middle, color="black", linewidth=0.7)
    ax.axhline(middle, color="black", linewidth=0.7)
    places = [len(pairs) / 2, 1.5 * len(pairs)]
    names = list(RESPONSE_COLORS)
    ax.set_xticks(places, names)
    ax.set_yticks(places, names, rotation=90, va="center")
    ax.tick_params(length=0)
    ax.set_title(f"step {rows['step'].iloc[0]}")
    if bar:
        scale = ax.figure.colorbar(mesh, ax=ax, shrink=0.85)
        solids: Any = scale.solids
        solids.set(rasterized=False, edgecolor="face", linewidth=0.5)
        scale.ax.set_title("cosine", fontsize="small")
    return ax


@styled
def plot_condition(condition: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The median pair's b/a over w_w/w_l at every measured step, by setting: above 1 its chosen response falls.

    Parameters
    ----------
    condition : DataFrame
        As `fall_condition` returns it.
    """
    ax = axis(ax)
    ax.axhline(1, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
    ratio = condition.assign(excess=condition["overlap"] / condition["weight_ratio"])
    keys = ["run", "setting", "alpha", "step"]
    plot_lines(ratio.groupby(keys, sort=False, dropna=False)["excess"].median().reset_index(), ax, "excess")
    step_axis(ax)
    ax.set_ylabel("(b/a) / ($w_w/w_l$), median pair")
    if condition["setting"].nunique() > 1:
        ax.legend()
    return ax


@styled
def plot_destination(curve: pd.DataFrame, ax: Axes | None = None, *, response: str = "chosen") -> Axes:
    """Which tokens gained the probability that moved at the positions of a response, over the steps of one run.

    Parameters
    ----------
    curve : DataFrame
        As `destination_curve` returns it, of one run.
    """
    ax = axis(ax)
    require_one_run(curve)
    rows = curve[curve["response"] == response]
    groups = list(dict.fromkeys(rows["group"]))
    for group, look in zip(groups, looks(len(groups)), strict=True):
        line = rows[rows["group"] == group]
        ax.plot(line["step"], line["mass"], label=plain(str(group)), **{**look, "markersize": 2.5})
        bars = line["step"], line["mass_low"], line["mass_high"]
        ax.vlines(*bars, color=look["color"], linewidth=0.7, clip_on=False)
    zero_line(ax)
    step_axis(ax)
    ax.set_ylabel(f"probability gained at the positions\nof {response} (tokens per response)")
    label_ends(ax)
    return ax


@styled
def plot_split(split: pd.DataFrame, ax: Axes | None = None, *, response: str = "chosen") -> Axes:
    """Mean movement of a score and the parts it is made of, over the steps of one run.

    Parameters
    ----------
    split : DataFrame
        As `movement_split` returns it, of one run.
    """
    ax = axis(ax)
    require_one_run(split)
    rows = split[split["response"] == response]
    zero_line(ax)
    ax.plot(
        rows["step"],
        rows["measured"],
        color=RESPONSE_COLORS[response],
        linewidth=1.8,
        label=f"{response}, measured",
    )
    for part, (color, dashes) in PART_LOOKS.items():
        ax.plot(rows["step"], rows[part], color=color, linestyle=dashes, label=part)
    ax.set(ylabel="change of the mean score\nsince step 0 (nats)")
    step_axis(ax)
    ax.legend(loc="best")
    return ax


@styled
def plot_similarity(answers: pd.DataFrame, ax: Axes | None = None, *, x: str = "overlap") -> Axes:
    """How far a chosen answer moved against how much the rejected one resembles it; one line of points per answer.

    Parameters
    ----------
    answers : DataFrame
        ``chosen``, ``rejected`` (texts), ``change`` (of the chosen, nats) and the column `x`, one row per run.
    """
    ax = axis(ax)
    zero_line(ax)
    marks = looks(answers["chosen"].nunique())
    for mark, (chosen, rows) in zip(marks, answers.groupby("chosen", sort=False), strict=True):
        ax.plot(
            rows[x],
            rows["change"],
            mark["marker"],
            ms=4,
            mew=0,
            alpha=0.8,
            color=mark["color"],
            label=plain(str(chosen).strip()),
        )
    labels = {"overlap": "gradient overlap $b/a$ at step 0", "cosine": "cosine of the two output embeddings"}
    ax.set(xlabel=labels.get(x, x), ylabel="change of the chosen answer (nats)")
    ax.legend(title="chosen answer", loc="best", handletextpad=0.2)
    return ax

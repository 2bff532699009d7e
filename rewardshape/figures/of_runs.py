"""A trace to figures: every picture that a run or a sweep has, by name, drawn in the project's style."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rewardshape.analysis import (
    compare_at_equal,
    difference_curves,
    displacement_curve,
    displacement_summary,
    pair_correlations,
    pairs_table,
    prediction_quality,
    predictions,
)
from rewardshape.analysis.destination import destination_curve, moved_tokens
from rewardshape.analysis.distributions import pair_levels, win_rates
from rewardshape.analysis.overoptimization import best_of_n_curve, fitted_curves, gold_curve, turning_points
from rewardshape.analysis.panels import settings_table
from rewardshape.analysis.samples import samples_of
from rewardshape.errors import InputError
from rewardshape.plotting import cause, displacement, distributions, overoptimization, sweep
from rewardshape.plotting.style import BOTH_COLUMNS, COLUMN_WIDTH, RESPONSE_COLORS, plain, style
from rewardshape.trace import Trace

TABLES = {
    "responses": "a probe set",
    "geometry": "gradient geometry (--geometry-every)",
    "samples": "sampled responses (--sample-every)",
    "destination": "destinations (--destination-every)",
    "destination_tokens": "destinations (--destination-every)",
}


@dataclass(frozen=True)
class Picture:
    """One named figure: how it is drawn from a trace, what it shows, and what the trace must hold for it."""

    draw: Callable[[Trace], Figure]
    caption: str
    several: bool | None = None
    """True: needs several runs; False: shows one run, the α nearest to 0.25 of several; None: takes either."""
    table: str = "responses"
    """The table of the trace that must not be empty, one of `TABLES`."""

    def check(self, trace: Trace) -> None:
        """Raise an `InputError` that says what the trace lacks for this picture, if anything."""
        if self.several and len(trace.runs) == 1:
            raise InputError("needs several runs")
        if getattr(trace, self.table).empty:
            raise InputError(f"needs {TABLES[self.table]}")


def one_run(trace: Trace) -> Trace:
    """The run to show where a figure shows one: of several, the α nearest to 0.25."""
    if len(trace.runs) == 1:
        return trace
    summary = displacement_summary(trace)
    nearest = int((summary["alpha"] - 0.25).abs().fillna(np.inf).to_numpy().argmin())
    return trace.run(str(summary["run"].iloc[nearest]))


def _displacement(trace: Trace) -> Figure:
    figure, ax = plt.subplots()
    curve = displacement_curve(trace)
    displacement.plot_displacement(curve[curve["response"].isin(["chosen", "rejected"])], ax)
    return figure


def _responses(trace: Trace) -> Figure:
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 3.2))
    displacement.plot_responses(displacement_curve(trace), ax)
    return figure


def _sweep(trace: Trace) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(BOTH_COLUMNS, 2.3), width_ratios=[1, 1, 1])
    axes[1].sharey(axes[0])
    sweep.plot_sweep(displacement_curve(trace), axes[:2])
    sweep.plot_difference(difference_curves(trace), axes[2])
    axes[2].set_title("chosen, paired difference", color=RESPONSE_COLORS["chosen"])
    return figure


def _trajectories(trace: Trace) -> Figure:
    figure, ax = plt.subplots()
    sweep.plot_trajectory(displacement_curve(trace), ax)
    return figure


def _final(trace: Trace) -> Figure:
    figure, axes = plt.subplots(2, 1, figsize=(COLUMN_WIDTH, 3.4), sharex=True, height_ratios=[2, 1])
    sweep.plot_final_displacement(displacement_summary(trace), axes)
    return figure


def _equal_margin(trace: Trace) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(BOTH_COLUMNS, 2.4))
    rows = compare_at_equal(trace, "logp_margin")
    sweep.plot_at_equal(rows, axes[0])
    reached = rows[rows["reached"]]
    if len(reached) and reached["setting"].is_unique:
        base = str(reached["run"].iloc[int(reached["alpha"].abs().fillna(np.inf).to_numpy().argmin())])
        sweep.plot_paired_at_equal(compare_at_equal(trace, "logp_margin", baseline=base), axes[1])
        [label] = [run.label for run in trace.runs if run.name == base]
        axes[1].set_ylabel(f"chosen above that of {plain(label)}\n(nats per token, paired)")
    else:
        axes[1].set_axis_off()
    sweep.plot_fallen_at_equal(rows, axes[2])
    axes[0].set_xlabel(axes[2].get_xlabel())
    figure.suptitle(f"at {sweep.common_value(rows)}", fontsize="medium")
    return figure


def _predicted(trace: Trace) -> Figure:
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 3.0))
    table = predictions(trace)
    cause.plot_predicted_vs_measured(table, prediction_quality(table), ax)
    return figure


def _ches(trace: Trace) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(BOTH_COLUMNS, 2.5), sharey=True)
    table = pairs_table(trace)
    correlations = pair_correlations(table)
    for ax, descriptor in zip(axes, ("ches_normalised", "edit_distance"), strict=True):
        displacement.plot_descriptor(table, descriptor, ax, correlations=correlations)
    axes[1].set_ylabel("")
    return figure


def _gold(trace: Trace) -> Figure:
    figure, axes = plt.subplots(2, 1, figsize=(COLUMN_WIDTH, 4.4), sharex=True, height_ratios=[3, 2])
    curve, fits = gold_curve(trace), turning_points(trace)
    samples = samples_of(trace)
    start = samples[samples["step"] == 0]
    overoptimization.plot_gold(curve, fits, fitted_curves(fits), best_of_n_curve(start), axes[0])
    overoptimization.plot_proxy(curve, axes[1])
    axes[0].set_xlabel("")
    return figure


def _gold_sweep(trace: Trace) -> Figure:
    figure, ax = plt.subplots()
    overoptimization.plot_gold_sweep(gold_curve(trace), fitted_curves(turning_points(trace)), ax)
    return figure


def _distributions(trace: Trace) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(BOTH_COLUMNS, 2.4))
    levels = pair_levels(trace)
    distributions.plot_ecdf(levels, axes[0])
    distributions.plot_margins(levels, axes[1])
    return figure


def _quantiles(trace: Trace) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(BOTH_COLUMNS, 2.4))
    levels = pair_levels(trace)
    for ax, value in zip(axes, ("chosen", "margin"), strict=True):
        distributions.plot_quantiles(levels, ax, value=value)
    return figure


def _length(trace: Trace) -> Figure:
    figure, ax = plt.subplots()
    distributions.plot_length(pair_levels(trace), ax)
    return figure


def _grid(trace: Trace) -> Figure:
    table = settings_table(trace)
    varied = [
        name
        for name in table.columns
        if name not in ("run", "setting", "alpha", "seed") and table[name].nunique() > 1
    ]
    if not varied or table["alpha"].nunique() < 2:
        raise InputError("needs runs that differ in α and in another value")
    curve = displacement_curve(trace).merge(table[["run", *varied]], on="run")
    col, row = varied[0], (varied[1] if len(varied) > 1 else None)
    axes = sweep.plot_grid(curve, col=col, row=row)
    return axes[0].get_figure(root=True)  # type: ignore[return-value]


def _kl(trace: Trace) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(BOTH_COLUMNS, 2.5))
    rates = win_rates(trace)
    distributions.plot_win_rate(rates, axes[0])
    sweep.plot_lines(rates, axes[1], "kl")
    axes[1].set(xlabel="step", ylabel="KL to the reference\n(nats per response)")
    return figure


def _cosine(trace: Trace) -> Figure:
    figure, ax = plt.subplots()
    rows = trace.geometry
    cosine: pd.Series = rows["gram_wl"] / np.sqrt(rows["gram_ww"] * rows["gram_ll"])
    table = rows[["run", "step"]].assign(cosine=cosine).merge(settings_table(trace), on="run")
    distributions.plot_cosine(table, ax)
    return figure


def _tokens_gained(trace: Trace) -> Figure:
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 3.2))
    distributions.plot_tokens(moved_tokens(trace), ax)
    return figure


def _destination(trace: Trace) -> Figure:
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 2.8))
    cause.plot_destination(destination_curve(trace), ax)
    return figure


PICTURES = {
    "displacement": Picture(
        _displacement,
        "Chosen and rejected log-probability of the fixed probe set over the steps of one run. Bands: 95 % intervals "
        "of the change since step 0, over pairs.",
        several=False,
    ),
    "responses": Picture(
        _responses,
        "Every kind of response measured on the probe set, and the greedy response at the positions of the chosen "
        "one: where the probability goes while chosen and rejected move. One colour for each kind: like the chosen, "
        "like the rejected, irrelevant, random. Bands: 95 % over pairs, of chosen and rejected.",
        several=False,
    ),
    "sweep": Picture(
        _sweep,
        "Change of chosen (left) and rejected (middle) log-probability over the steps, one line per setting; bands: "
        "95 % over the pairs of each run alone. Right: how far the chosen responses of each setting stand above those "
        "of the setting named at the axis, pair by pair; these bands tell whether two settings differ.",
        several=True,
    ),
    "trajectories": Picture(
        _trajectories,
        "Training as a path in the plane of log-prob margin and chosen log-probability. Ring: step 0; ticks: equal "
        "numbers of steps; dot: the last step. A path that falls to the right buys its margin with the probability of "
        "the chosen response. Of several settings: on the dashed line all have the same margin.",
    ),
    "final": Picture(
        _final,
        "At the last step, by α: change of chosen and rejected log-probability, and the share of pairs whose chosen "
        "response lost probability.",
        several=True,
    ),
    "equal_margin": Picture(
        _equal_margin,
        "Each run at the step where its log-prob margin has grown by the same amount: what is left of the effect of α "
        "once its effect on the speed is taken out. Left: change of the chosen log-probability. Middle: how far above "
        "the setting named at the axis it stands, pair by pair. Right: share of pairs whose chosen response fell. "
        "Bars: 95 % over pairs.",
        several=True,
    ),
    "predicted_vs_measured": Picture(
        _predicted,
        "What first-order theory predicts for the score of each probe response in one optimiser step, against what "
        "was measured after it. Both axes are straight near zero and logarithmic beyond. On the line the prediction is "
        "right.",
        several=False,
        table="geometry",
    ),
    "ches_vs_displacement": Picture(
        _ches,
        "Do similar pairs fall further? Change of each pair's chosen log-probability against its length-normalised "
        "CHES score (hidden-state similarity, arXiv:2410.08847) and against the edit distance of its responses. "
        "Diamonds: means of fifths of the pairs, ± 2 standard errors.",
        several=False,
        table="geometry",
    ),
    "gold": Picture(
        _gold,
        "Over-optimization of one run: gold reward of sampled responses against the distance from the reference, "
        "with both published fits (the preferred one thick; a triangle marks its peak where it has one within the run) "
        "and best-of-n sampling from the reference as the baseline; below, the objective's own implicit reward of the "
        "same samples. Bars: 95 % over prompts, and √ of KL ± 2 standard errors.",
        several=False,
        table="samples",
    ),
    "gold_sweep": Picture(
        _gold_sweep,
        "Gold reward of sampled responses against the distance from the reference, by α, with 95 % intervals over "
        "prompts. Lines: the form of smaller AIC for each run, dashed for d(a − bd), solid for d(a − b ln d), as far "
        "as the distances that the fit finds, which is short of points that sampling error has pushed outwards.",
        several=True,
        table="samples",
    ),
    "grid": Picture(
        _grid,
        "Chosen log-probability over the steps of a sweep over α and one or two other values: a panel for each of "
        "these, a line for each α; seeds thin under their mean.",
        several=True,
    ),
    "distributions": Picture(
        _distributions,
        "Every pair of the probe set, before training (dashed) and after: share of pairs below each log-probability of "
        "chosen and rejected (left), and the histogram of the log-prob margin (right).",
        several=False,
    ),
    "quantiles": Picture(
        _quantiles,
        "At the last step, over the pairs of each setting: median, quartiles and middle nine tenths of the chosen "
        "log-probability (left) and of the log-prob margin (right). Dotted: the median before training.",
        several=True,
    ),
    "length": Picture(
        _length,
        "Log-probability per token after training against the length of the response, with Spearman's rank correlation "
        "for chosen and rejected: whether the objective has come to favour short or long responses.",
        several=False,
    ),
    "win_rate": Picture(
        _kl,
        "What the distance from the reference buys: win rate of the sampled responses against those of step 0, by "
        "gold reward, over their KL (left; bars: 95 % over prompts; ring: the last step); KL over the steps (right).",
        table="samples",
    ),
    "cosine": Picture(
        _cosine,
        "Cosine of the gradients of chosen and rejected log-probability, median and quartiles over pairs, over the "
        "steps: near 1, pushing one down pushes the other down with it.",
        table="geometry",
    ),
    "tokens_gained": Picture(
        _tokens_gained,
        "The tokens that gained and lost most probability at the positions of the chosen responses, summed over the "
        "probe set, at the last step measured.",
        several=False,
        table="destination_tokens",
    ),
    "destination": Picture(
        _destination,
        "Where the probability went that moved at the positions of the chosen responses, by kind of token, over the "
        "steps; means over pairs.",
        several=False,
        table="destination",
    ),
}


def draw_all(trace: Trace, folder: Path) -> list[Path]:
    """Draw every picture that the trace has the numbers for into `folder`, as SVG and PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in PICTURES:
        with contextlib.suppress(InputError):  # what the trace has no numbers for
            written += draw(name, trace, folder)
    return written


def draw(name: str, trace: Trace, folder: Path) -> list[Path]:
    """Draw one picture of `PICTURES` from a trace.

    Raises
    ------
    InputError
        If the trace lacks what the picture needs.
    """
    picture = PICTURES[name]
    picture.check(trace)
    return save(lambda: picture_of(picture, trace), folder / name)


def picture_of(picture: Picture, trace: Trace) -> Figure:
    """A picture drawn from a trace; one that shows one run of several says which."""
    if picture.several is not False or len(trace.runs) == 1:
        return picture.draw(trace)
    one = one_run(trace)
    figure = picture.draw(one)
    figure.suptitle(
        plain(next(run.label for run in trace.runs if run.name == one.runs[0].name)), fontsize="medium"
    )
    return figure


def save(figure_of: Callable[[], Figure], stem: Path) -> list[Path]:
    """Draw in the project's style and write ``stem.svg`` and ``stem.png``: the same bytes from the same numbers."""
    paths = [stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png")]
    with style():
        figure = figure_of()
        figure.savefig(paths[0], metadata={"Date": None, "Creator": None})
        figure.savefig(paths[1], metadata={"Software": None})
        plt.close(figure)
    return paths

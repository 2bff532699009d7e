"""A trace to figures: every picture that a run or a sweep has, by name, drawn in the project's style."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rewardshape.analysis import (
    compare_along,
    difference_curves,
    displacement_curve,
    displacement_summary,
    pair_correlations,
    pairs_table,
    prediction_quality,
    predictions,
    settings_along,
)
from rewardshape.analysis.comparison import baseline_setting
from rewardshape.analysis.destination import destination_curve, moved_tokens
from rewardshape.analysis.distributions import pair_levels, win_rates
from rewardshape.analysis.overlaps import gradient_cosines, kernel_cosines
from rewardshape.analysis.overoptimization import best_of_n_curve, fitted_curves, gold_curve, turning_points
from rewardshape.analysis.samples import kl_curve, samples_of
from rewardshape.analysis.what_if import what_if_beside
from rewardshape.errors import InputError
from rewardshape.figures.picture import Picture, one_run, varied_values, with_ends
from rewardshape.plotting import cause, displacement, distributions, overoptimization, sweep, what_if
from rewardshape.plotting.style import (
    BOTH_COLUMNS,
    COLUMN_WIDTH,
    RESPONSE_COLORS,
    closing_figures,
    plain,
    style,
)
from rewardshape.trace import Trace


def _main_curve(trace: Trace) -> pd.DataFrame:
    curve = displacement_curve(trace)
    return curve[curve["response"].isin(["chosen", "rejected"])]


def _sweep(trace: Trace) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(BOTH_COLUMNS, 2.3), width_ratios=[1, 1, 1])
    axes[1].sharey(axes[0])
    sweep.plot_sweep(displacement_curve(trace), axes[:2])
    sweep.plot_difference(difference_curves(trace), axes[2])
    axes[2].set_title("chosen, paired difference", color=RESPONSE_COLORS["chosen"])
    return figure


def _final(trace: Trace) -> Figure:
    figure, axes = plt.subplots(2, 1, figsize=(COLUMN_WIDTH, 3.4), sharex=True, height_ratios=[2, 1])
    sweep.plot_final_displacement(displacement_summary(trace), axes)
    return figure


def _along_margin(trace: Trace) -> pd.DataFrame:
    return compare_along(trace, "logp_margin", baseline=baseline_setting(trace))


def _above_baseline(runs: pd.DataFrame, ax: Axes | None = None) -> Axes:
    settings = settings_along(runs)
    lost = runs.groupby("setting", observed=True)["diverged"].all()
    return sweep.plot_along(settings.assign(diverged=settings["setting"].map(lost).astype(bool)), ax)


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
    curves = with_ends(gold_curve(trace), trace)
    overoptimization.plot_gold_sweep(curves, fitted_curves(turning_points(trace)), ax)
    return figure


def _distributions(trace: Trace) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(BOTH_COLUMNS, 2.4))
    levels = pair_levels(trace)
    distributions.plot_ecdf(levels, axes[0])
    distributions.plot_margins(levels, axes[1])
    return figure


def _quantiles(trace: Trace) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(BOTH_COLUMNS, 2.4))
    levels = with_ends(pair_levels(trace), trace)
    for ax, value in zip(axes, ("chosen", "margin"), strict=True):
        distributions.plot_quantiles(levels, ax, value=value)
    return figure


def _grid(trace: Trace) -> Figure:
    varied = [name for name in varied_values(trace) if name not in ("alpha", "seed")]
    if not varied or "alpha" not in varied_values(trace):
        raise InputError("needs runs that differ in α and in another value")
    return PICTURES["sweep"].faceted(
        trace, hue="alpha", col=varied[0], row=varied[1] if len(varied) > 1 else None
    )


def _kl(trace: Trace) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(BOTH_COLUMNS, 2.5))
    distributions.plot_win_rate(with_ends(win_rates(trace), trace), axes[0])
    distributions.plot_kl(with_ends(kl_curve(trace), trace), axes[1])
    return figure


def _kernel(trace: Trace) -> Figure:
    cosines = kernel_cosines(trace)
    steps = sorted(cosines["step"].unique())
    figure, axes = plt.subplots(1, len(steps), figsize=(COLUMN_WIDTH * len(steps), 3.0), squeeze=False)
    for ax, step in zip(axes[0], steps, strict=True):
        cause.plot_kernel(cosines, ax, step=step, bar=step == steps[-1])
    return figure


def _what_if(trace: Trace) -> Figure:
    table = what_if_beside(trace.folder)
    if table is None:
        raise InputError(f"{trace.folder}: no table of a what-if; run the probe with --what-if")
    return what_if.plot_what_if(table)[0].get_figure(root=True)  # type: ignore[return-value]


PICTURES = {
    "displacement": Picture(
        "Chosen and rejected log-probability of the fixed probe set over the steps of one run. Dotted: their level at "
        "step 0. Bands: 95 % intervals of the change since then, over pairs.",
        several=False,
        panel=(_main_curve, displacement.plot_displacement),
    ),
    "responses": Picture(
        "Every kind of response measured on the probe set, and the greedy response at the positions of the chosen "
        "one: where the probability goes while chosen and rejected move. Colours follow the order in which the "
        "responses are given. Bands: 95 % over pairs, of chosen and rejected.",
        several=False,
        panel=(displacement_curve, displacement.plot_responses),
        size=(COLUMN_WIDTH, 3.2),
    ),
    "sweep": Picture(
        "Change of chosen (left) and rejected (middle) log-probability over the steps, one line per setting; bands: "
        "95 % over the pairs of each run alone. Right: how far the chosen responses of each setting stand above those "
        "of the setting named at the axis, pair by pair, bands of each step alone.",
        several=True,
        panel=(displacement_curve, sweep.plot_change),
        drawn=_sweep,
    ),
    "trajectories": Picture(
        "Training as a path in the plane of log-prob margin and chosen log-probability. Ring: step 0; ticks: equal "
        "numbers of steps; dot: the last step; band: 95 % over pairs, of the chosen change of that run alone. A path "
        "that falls to the right buys its margin with the probability of the chosen response. A vertical "
        "cuts all paths at the same margin.",
        panel=(displacement_curve, sweep.plot_trajectory),
    ),
    "final": Picture(
        "At the last step, by α: change of chosen and rejected log-probability, and the share of pairs whose chosen "
        "response lost probability. Bars: 95 % over pairs.",
        several=True,
        panel=(displacement_summary, sweep.plot_final_change),
        drawn=_final,
    ),
    "equal_margin": Picture(
        "How far the chosen responses of each setting stand above those of the setting at zero where their log-prob "
        "margins have grown by the same amount, pair by pair, along all that each gained: what is left of the effect "
        "of α once its effect on the speed is taken out. Bands: 95 % over prompts, or over seeds where there are "
        "several.",
        several=True,
        panel=(_along_margin, _above_baseline),
    ),
    "predicted_vs_measured": Picture(
        "What first-order theory predicts for the score of each probe response in one optimiser step, against what "
        "was measured after it. Both axes are straight near zero and logarithmic beyond. On the line the prediction is "
        "right.",
        several=False,
        table="geometry",
        panel=(predictions, cause.plot_predicted_vs_measured),
        drawn=_predicted,
    ),
    "ches_vs_displacement": Picture(
        "Do similar pairs fall further? Change of each pair's chosen log-probability against its length-normalised "
        "CHES score (hidden-state similarity, arXiv:2410.08847) and against the edit distance of its responses. "
        "Diamonds: means of fifths of the pairs, ± 2 standard errors.",
        several=False,
        table="geometry",
        drawn=_ches,
    ),
    "gold": Picture(
        "Over-optimization of one run: gold reward of sampled responses against the distance from the reference, "
        "with both published fits (the preferred one thick; a triangle marks its peak where it has one within the run) "
        "and best-of-n sampling from the reference as the baseline; below, the objective's own implicit reward of the "
        "same samples. Bars: 95 % over prompts, and √ of KL ± 2 standard errors.",
        several=False,
        table="samples",
        drawn=_gold,
    ),
    "gold_sweep": Picture(
        "Gold reward of sampled responses against the distance from the reference, by α, with 95 % intervals over "
        "prompts. Lines: the form of smaller AIC for each run, dashed for d(a − bd), solid for d(a − b ln d), as far "
        "as the distances that the fit finds, which is short of points that sampling error has pushed outwards.",
        several=True,
        table="samples",
        panel=(gold_curve, overoptimization.plot_gold_sweep),
        drawn=_gold_sweep,
    ),
    "grid": Picture(
        "Chosen log-probability over the steps of a sweep over α and one or two other values: a panel for each of "
        "these, a line for each α; seeds thin under their mean.",
        several=True,
        drawn=_grid,
    ),
    "distributions": Picture(
        "Every pair of the probe set, before training (dashed) and after: share of pairs below each log-probability of "
        "chosen and rejected (left), and the histogram of the log-prob margin (right).",
        several=False,
        panel=(pair_levels, distributions.plot_ecdf),
        drawn=_distributions,
    ),
    "quantiles": Picture(
        "At the last step, over the pairs of each setting: median, quartiles and middle nine tenths of the chosen "
        "log-probability (left) and of the log-prob margin (right). Dotted: the median before training.",
        several=True,
        panel=(pair_levels, distributions.plot_quantiles),
        drawn=_quantiles,
    ),
    "length": Picture(
        "Log-probability per token after training against the length of the response, with Spearman's rank correlation "
        "for chosen and rejected: whether the objective has come to favour short or long responses.",
        several=False,
        panel=(pair_levels, distributions.plot_length),
    ),
    "win_rate": Picture(
        "What the distance from the reference buys: win rate of the sampled responses against those of step 0, by gold "
        "reward, over the square root of their KL (left; bars: 95 % over prompts; line: the front, the most that any "
        "step wins at no more KL; ring: the last step; diamond: the step that half of the prompts would choose by "
        "gold); KL over the steps, ± 2 standard errors (right).",
        table="samples",
        panel=(win_rates, distributions.plot_win_rate),
        drawn=_kl,
    ),
    "cosine": Picture(
        "Cosine of the gradients of chosen and rejected log-probability, median and quartiles over pairs, over the "
        "steps: near 1, pushing one down pushes the other down with it.",
        table="geometry",
        panel=(gradient_cosines, distributions.plot_cosine),
    ),
    "overlap_map": Picture(
        "Cosine of the gradients of chosen and rejected log-probability of every pair (rows) at every measured step. "
        "The pair that fell most is on top: where falling goes with gradients that point the same way, upper rows are "
        "darker.",
        several=False,
        table="geometry",
        panel=(gradient_cosines, cause.plot_overlap_map),
        size=(COLUMN_WIDTH, 3.2),
    ),
    "kernel": Picture(
        "The empirical neural tangent kernel of the score: cosines of the gradients of every two responses of the "
        "first probe pairs, chosen before rejected in the same order, before and after. Brown off the diagonal: "
        "pushing one down pushes the other with it; purple: it lifts the other. Between different pairs estimated to "
        "about ± 1/64.",
        several=False,
        table="kernel",
        panel=(kernel_cosines, cause.plot_kernel),
        drawn=_kernel,
    ),
    "tokens_gained": Picture(
        "The tokens that gained and lost most probability at the positions of the chosen responses, summed over the "
        "probe set, at the last step measured.",
        several=False,
        table="destination_tokens",
        panel=(moved_tokens, distributions.plot_tokens),
        size=(COLUMN_WIDTH, 3.2),
    ),
    "what_if": Picture(
        "What each change of a what-if did (rows) to the chosen responses at equal margin, to gold and to accuracy. "
        "Dots: against the run as it is; diamonds: against a run that leaves out as many pairs at random, which has a "
        "row of its own. Chosen: a mark at every margin that both runs reach, from a small one (on top, faint) to the "
        "largest. Bars: 95 % over prompts and seeds, for all marks of a panel together.",
        drawn=_what_if,
    ),
    "destination": Picture(
        "Where the probability went that moved at the positions of the chosen responses, over the steps, means over "
        "pairs: to the response's own tokens where they gained, the end token, the other response's token where the "
        "two part, the token that the untouched model would have taken (greedy), the ten nearest by output embedding, "
        "or the rest. Bars: 95 % over prompts.",
        several=False,
        table="destination",
        panel=(destination_curve, cause.plot_destination),
        size=(COLUMN_WIDTH, 2.8),
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


def draw(name: str, trace: Trace, folder: Path, **by: str | None) -> list[Path]:
    """Draw one picture of `PICTURES` from a trace.

    Parameters
    ----------
    **by
        ``hue``, ``col``, ``row``: values by which the runs differ (`varied_values`), a panel for each of the last two.

    Raises
    ------
    InputError
        If there is no such picture, or the trace lacks what it needs.
    """
    return save(lambda: picture_of(name, trace, **by), folder / name)


def picture_of(name: str, trace: Trace, **by: str | None) -> Figure:
    """A picture drawn from a trace; one that shows one run of several says which. Raises as `draw` does."""
    if name not in PICTURES:
        near = difflib.get_close_matches(name, PICTURES) or PICTURES
        raise InputError(f"no figure {name!r} of runs; there is {', '.join(near)}")
    picture = PICTURES[name]
    picture.check(trace)
    if any(value is not None for value in by.values()):
        return picture.faceted(trace, **by)
    if picture.several is not False or len(trace.runs) == 1:
        return picture.draw(trace)
    one = one_run(trace)
    figure = picture.draw(one)
    label = next(run.label for run in trace.runs if run.name == one.runs[0].name)
    figure.suptitle(plain(label), fontsize="medium")
    return figure


def save(figure_of: Callable[[], Figure], stem: Path) -> list[Path]:
    """Draw in the project's style and write ``stem.svg`` and ``stem.png``: the same bytes from the same numbers."""
    paths = [stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png")]
    with style(), closing_figures():
        figure = figure_of()
        figure.savefig(paths[0], metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")  # as it is laid out now: to do it again takes a third of the time
        figure.savefig(paths[1], metadata={"Software": None})
    return paths

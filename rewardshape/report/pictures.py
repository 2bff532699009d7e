"""Which pictures a page has, in order, and what each says of itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rewardshape.analysis.cause import fall_condition
from rewardshape.analysis.comparison import baseline_setting, difference_curves
from rewardshape.analysis.decomposition import decompose
from rewardshape.analysis.destination import GROUPS, destination_curve
from rewardshape.analysis.distributions import win_rates
from rewardshape.analysis.equal import Axis
from rewardshape.analysis.generations import chosen_checkpoint
from rewardshape.analysis.overlaps import kernel_cosines
from rewardshape.analysis.overoptimization import fitted_curves, gold_curve, turning_points
from rewardshape.analysis.samples import has_gold, kl_curve
from rewardshape.analysis.what_if import what_if_beside
from rewardshape.errors import InputError
from rewardshape.figures.picture import with_ends
from rewardshape.numbers import interval, signed
from rewardshape.plotting import cause, displacement, distributions, overoptimization, sweep, what_if
from rewardshape.plotting.style import RESPONSE_COLORS
from rewardshape.plotting.thinning import extremes
from rewardshape.report.charts import MAX_POINTS, Chart, Drawer, rounded
from rewardshape.trace import Trace
from rewardshape.verdict.findings import Tables

MAX_STEPS = 400  # of the accuracy of a setting


def pictures(tables: Tables, drawer: Drawer) -> list[Chart]:
    """Every picture that the trace has the numbers for."""
    several = len(tables.trace.runs) > 1
    curve = thinned(tables.curve)
    charts = list((_sweep if several else _single)(tables, drawer, curve))
    charts += _samples(tables, drawer)
    charts += [*_geometry(tables, drawer), *_destination(tables, drawer)]
    return charts


def thinned(curve: pd.DataFrame) -> pd.DataFrame:
    """Fewer steps of a long curve, the same for all seeds; no extreme of chosen or rejected is left out."""
    main = curve[curve["response"].isin(["chosen", "rejected"])]
    most = MAX_POINTS // (2 * curve["setting"].nunique())
    return _at_fewer_steps(curve, main, ["run", "response"], "logp_mean_change", most)


def _at_fewer_steps(
    table: pd.DataFrame, lines: pd.DataFrame, line: list[str], value: str, most: int
) -> pd.DataFrame:
    """A table at about `most` steps of each setting, those of every extreme of its `lines` among them."""
    kept = []
    for setting, rows in table.groupby("setting", sort=False):
        mine = lines[lines["setting"] == setting]
        wide = mine.pivot(index="step", columns=line, values=value)
        steps = wide.index[extremes(wide.to_numpy(float), max(most // (2 * wide.shape[1]), 20))]
        kept.append(rows[rows["step"].isin(steps)])
    return pd.concat(kept)


def _named(chart: Chart, name: str) -> Chart:
    chart.data["name"] = name
    return chart


def what_changes_did(tables: Tables, drawer: Drawer) -> Iterator[Chart]:
    """What each change of a what-if in or beside the folder did to the chosen responses."""
    table = what_if_beside(tables.trace.folder)
    if table is None or "chosen" not in what_if.measured(table):
        return
    rows = table[table["measure"] == "chosen"]
    matched = " Diamonds: against as many pairs dropped at random." if rows["matched"].any() else ""
    yield drawer.draw(
        lambda ax: what_if.plot_what_if(rows, [ax]),
        "What each change did to the chosen responses at equal margin, from a small one (on top, faint) to the largest "
        f"that both runs reach. Dots: against the run as it is.{matched} Bars: 95 % over prompts and seeds, for all "
        "marks together.",
        "still",
        height=1.1 + what_if.HEIGHT * rows["intervention"].nunique(),
    )


def _single(tables: Tables, drawer: Drawer, curve: pd.DataFrame) -> Iterator[Chart]:
    yield _named(
        drawer.draw(
            lambda ax: displacement.plot_displacement(curve, ax),
            "Chosen and rejected log-prob of the probe set; dotted: their level at step 0."
            + (" Band: interval of the change since then." if _has_bands(curve) else ""),
        ),
        "log-prob",
    )
    yield _path(
        drawer,
        curve,
        "The path of the run: chosen log-prob against the log-prob margin. Ring: step 0; dot: the last step."
        + _path_band(curve)
        + _parts(tables.trace),
    )
    if curve["response"].nunique() > 2 or "greedy_mean_change" in curve:
        yield _named(
            drawer.draw(
                lambda ax: displacement.plot_responses(curve, ax),
                "Every response measured: change of its log-prob since step 0."
                + (
                    " Dashed: the tokens that greedy decoding would take at the positions of the chosen response."
                    if "greedy_mean_change" in curve
                    else ""
                ),
                height=3.0,
            ),
            "change",
        )
    yield from _accuracy(tables, drawer)
    if len(tables.correlations):
        found = tables.correlations.query("change == 'chosen_change'").head(1)
        yield drawer.draw(
            lambda ax: displacement.plot_descriptor(
                tables.pairs, found["descriptor"].iloc[0], ax, correlations=found
            ),
            "The pairs, by what goes most closely with how far they moved. Diamonds: means of fifths of them.",
            "still",
        )


def _sweep(tables: Tables, drawer: Drawer, curve: pd.DataFrame) -> Iterator[Chart]:
    with contextlib.suppress(InputError):  # one setting, or seeds that cannot be paired
        differences = difference_curves(tables.trace)
        kept = differences[differences["step"].isin(curve["step"].unique())]
        yield _named(
            drawer.draw(
                lambda ax: sweep.plot_difference(kept, ax),
                "How far the chosen responses of each setting stand above those of the setting at the axis, pair by "
                "pair." + _difference_band(kept),
            ),
            "difference",
        )
    seeds = curve.groupby("setting")["run"].nunique().max() > 1
    bands = "Bands: interval over the pairs of each run alone." if _has_bands(curve) else ""
    drawn = "Thin lines: single seeds." if seeds else bands
    limits = _limits(curve)
    for response in ("chosen", "rejected"):
        rows = curve[curve["response"] == response]

        def one(ax: Axes, rows: pd.DataFrame = rows, response: str = response) -> None:
            sweep.plot_change(rows, ax, response=response, limits=limits)

        same = "" if response == "chosen" else " On the same scale."
        caption = f"{response.capitalize()} log-prob over the steps. {drawn}{same}".strip()
        yield _named(drawer.draw(one, caption), response)
    yield _path(
        drawer,
        curve,
        "The path of each setting: chosen log-prob against the log-prob margin. Ring: step 0; dots: the last step."
        + _path_band(curve),
    )
    yield from _accuracy(tables, drawer)
    yield from _along(tables, drawer)


def _along(tables: Tables, drawer: Drawer) -> Iterator[Chart]:
    """What the settings differ by at equal margin and at equal KL, as curves."""
    base = tables.setting_labels[baseline_setting(tables.trace)]
    axes: dict[Axis, str] = {"logp_margin": "margin", "kl": "KL to the reference"}
    for axis, what in axes.items():
        settings = tables.along(axis)
        if settings is None or settings["value"].max() <= 0:
            continue
        seeds = int(settings["num_seeds"].max())
        caption = (
            f"At equal {what}: how far the chosen responses of each setting stand above those of {base}, pair by pair, "
            "each setting to where it got."
        )
        for setting, why in tables.left_out.items():
            caption += f" {tables.setting_labels[setting]} is left out: {why}."
        paired = settings["difference_low" if "difference" in settings else "chosen_change_low"]
        if paired.notna().any():
            caption += f" Band: 95 % interval over {f'{seeds} seeds' if seeds > 1 else 'prompts'}."
        marked = with_ends(settings, tables.trace)
        yield _named(drawer.draw(partial(sweep.plot_along, marked), caption, "path"), f"at equal {what}")


def _has_bands(curve: pd.DataFrame) -> bool:
    """Whether the change since step 0 has intervals: too few prompts have none."""
    return bool(curve["logp_mean_change_low"].notna().any())


def _difference_band(differences: pd.DataFrame) -> str:
    if differences["difference_low"].isna().all():
        return ""
    over = "pairs" if (differences["num_seeds"] == 1).all() else "seeds"
    return (
        f" Band: 95 % interval over {over}, of each step alone: at some of many steps it clears zero by chance more "
        "often than one in twenty."
    )


def _limits(curve: pd.DataFrame) -> tuple[float, float]:
    both = curve[curve["response"].isin(list(RESPONSE_COLORS))]
    seeds = both.groupby("setting")["run"].nunique().max() > 1
    ends = ["logp_mean_change"] + ([] if seeds else ["logp_mean_change_low", "logp_mean_change_high"])
    values = both[ends].to_numpy(float)
    low, high = min(np.nanmin(values), 0.0), max(np.nanmax(values), 0.0)
    room = 0.05 * (high - low or 1.0)
    return float(low - room), float(high + room)


def _path(drawer: Drawer, curve: pd.DataFrame, caption: str) -> Chart:
    if curve["setting"].nunique() > 1:
        caption += " A vertical cuts all paths at the same margin."
    chart = drawer.draw(lambda ax: sweep.plot_trajectory(curve, ax), caption, "path")
    steps = {setting: _steps_of_all(rows) for setting, rows in curve.groupby("setting")}
    for one in chart.data["lines"]:
        if one["setting"] is not None:
            one["steps"] = steps[drawer.settings[one["setting"]]]
    return _named(chart, "path")


def _steps_of_all(rows: pd.DataFrame) -> list[int]:
    """The steps at which every run of a setting was measured, of which its line is made."""
    runs = rows.groupby("step")["run"].nunique()
    return [int(step) for step in runs.index[runs == rows["run"].nunique()]]


def _path_band(curve: pd.DataFrame) -> str:
    alone = (curve.groupby("setting")["run"].nunique() == 1).all()
    return " Band: interval of the chosen change over pairs." if alone and _has_bands(curve) else ""


NEAR = 1  # nats: beyond, the divergence that the samples know, KL(π‖π₀), is not the one that the identity has


def _parts(trace: Trace) -> str:
    """The change of chosen as minus the divergence, half the gain of margin, and the excess, where they are known."""
    with contextlib.suppress(InputError):
        known = decompose(trace).dropna(subset=["kl", "excess_low"])
        near = known[(known["step"] > 0) & (known["kl"] <= NEAR)]
        if len(near):
            row = near.iloc[-1]
            return (
                f" At step {row['step']}, the last that was sampled within a divergence of {NEAR} nat, chosen stands "
                f"at {signed(row['chosen'], 2)} nats per response: minus the divergence {signed(-row['kl'], 2)}, plus "
                f"half of the gain of margin {signed(row['margin_part'], 2)}, plus an excess of "
                f"{signed(row['excess'], 2)} ({interval(row, 'excess', 2)}), about 0 where the pairs are the policy's "
                "own samples."
            )
    return ""


def _accuracy(tables: Tables, drawer: Drawer) -> Iterator[Chart]:
    shown = _at_fewer_steps(tables.margins, tables.margins, ["run"], "accuracy", MAX_STEPS)
    yield _named(
        drawer.draw(
            lambda ax: sweep.plot_accuracy(shown, ax),
            "Accuracy: share of the probe pairs whose chosen response scores higher. Dotted: one half.",
        ),
        "accuracy",
    )


def _samples(tables: Tables, drawer: Drawer) -> Iterator[Chart]:
    trace = tables.trace
    if trace.samples.empty or not {"logp_sum", "ref_logp_sum"} <= set(trace.samples):
        return
    kl = with_ends(kl_curve(trace), trace)
    if kl["step"].nunique() > 1:
        alone = (kl.groupby("setting", observed=True)["run"].nunique() == 1).any()
        band = " Band: ± 2 standard errors over prompts." if alone and kl["kl_low"].notna().any() else ""
        caption = f"KL to the reference, from the sampled responses.{band}"
        yield _named(drawer.draw(lambda ax: distributions.plot_kl(kl, ax), caption), "KL")
    if not has_gold(trace.samples):
        return
    with contextlib.suppress(InputError):
        curve = with_ends(gold_curve(trace), trace)
        fitted = None
        with contextlib.suppress(InputError):  # too few steps for a fit
            fitted = fitted_curves(turning_points(trace))
        fits = " Lines: the form of smaller AIC." if fitted is not None else ""
        chart = drawer.draw(
            lambda ax: overoptimization.plot_gold_sweep(curve, fitted, ax),
            f"Gold reward of the samples against the distance from the reference. Bars: 95 % over prompts.{fits}",
            "path",
        )
        for one in chart.data["lines"]:  # of each setting the first run's points
            mine = _of_setting(curve, one["setting"], drawer)
            rows = mine[mine["run"] == mine["run"].iloc[0]]
            one["steps"] = rows["step"].sort_values().tolist() if len(rows) == len(one["x"]) else None
        yield _named(chart, "gold")
    with contextlib.suppress(InputError):  # samples of one step
        yield _front(tables, drawer)


def _of_setting(table: pd.DataFrame, setting: int | None, drawer: Drawer) -> pd.DataFrame:
    """The rows of the setting of a line, all for a line that is no setting's."""
    return table if setting is None else table[table["setting"] == drawer.settings[setting]]


def _front(tables: Tables, drawer: Drawer) -> Chart:
    """What the distance from the reference buys, and which step half of the prompts would choose."""
    rates = with_ends(win_rates(tables.trace), tables.trace)
    first = int(tables.trace.samples["step"].min())
    line = (
        "Line: the front, the most that any step wins at no more KL." if rates["win_rate"].max() > 0.5 else ""
    )
    chart = drawer.draw(
        partial(distributions.plot_win_rate, rates),
        f"What the distance from the reference buys: win rate against step {first}, by gold, over √KL. Bars: 95 % over "
        f"prompts. {line or 'No step wins more than half.'} Ring: the last step.{_judged_apart(tables)}",
        "path",
    )
    for one in chart.data["lines"]:  # what is asked of it are the steps that were measured, not the front
        mine = _of_setting(rates, one["setting"], drawer)
        mine = mine[mine["run"] == mine["run"].iloc[0]].sort_values("step")
        one["steps"] = [0, *mine["step"].tolist()]
        one["x"] = [0, *(rounded(x) for x in np.sqrt(mine["kl"].clip(lower=0)))]
        one["y"] = [0.5, *(rounded(y) for y in mine["win_rate"])]
    return _named(chart, "win rate")


MOST_NAMED = 4  # runs whose chosen step a caption names


def _judged_apart(tables: Tables) -> str:
    """What a diamond is, and what the other half of the prompts says of each run's chosen step."""
    found = chosen_checkpoint(tables.trace)
    if found.empty:
        return ""
    diamond = " Diamond: the step that half of the prompts would choose by gold."
    if len(found) > MOST_NAMED:
        found = found[found["run"] == tables.deepest]
    said = []
    for _, row in found.iterrows():
        label = f"{tables.labels[row['run']]}, " if len(tables.trace.runs) > 1 else ""
        gain = (
            f"{signed(row['gain'], 2)} ({interval(row, 'gain', 2)})"
            if row["step"]
            else "none chosen above it"
        )
        said.append(f"{label}step {row['step']}: {gain}")
    gained = f" What it gained since step 0 on the other half: {'; '.join(said)}." if said else ""
    return diamond + gained


def _destination(tables: Tables, drawer: Drawer) -> Iterator[Chart]:
    trace = tables.trace
    mine = (
        trace.destination[trace.destination["run"] == tables.deepest]
        if len(trace.destination)
        else trace.destination
    )
    if mine.empty or mine["step"].nunique() < 2:
        return
    curve = destination_curve(trace)
    curve = curve[curve["run"] == tables.deepest]
    which = f" in {tables.labels[tables.deepest]}" if len(trace.runs) > 1 else ""
    groups = "; ".join(
        f"{name}: {meaning}" for name, meaning in GROUPS.items() if name in set(curve["group"])
    )
    yield _named(
        drawer.draw(
            lambda ax: cause.plot_destination(curve, ax),
            f"Which tokens gained probability at the positions of the chosen responses{which}, means over pairs; "
            f"{groups}. Bars: 95 % over prompts.",
        ),
        "destination",
    )


def _geometry(tables: Tables, drawer: Drawer) -> Iterator[Chart]:
    trace = tables.trace
    if trace.geometry.empty or not {"gram_ww", "weight_chosen"} <= set(trace.geometry):
        return
    with contextlib.suppress(InputError):
        condition = fall_condition(trace)
        if condition["step"].nunique() > 1:
            yield _named(
                drawer.draw(
                    lambda ax: cause.plot_condition(condition, ax),
                    "Overlap of the two gradients b/a over the ratio of weights, of the median pair whose two weights "
                    "are positive. Above 1 (dotted), a step on that pair alone lowers its chosen response. Batches and "
                    "Adam do otherwise: single pairs may be below 1 and fall.",
                ),
                "overlap over weight ratio",
            )
    if trace.kernel.empty:
        return
    cosines = kernel_cosines(trace)
    cosines = cosines[cosines["run"] == tables.deepest]
    if len(cosines):
        which = f" in {tables.labels[tables.deepest]}" if len(trace.runs) > 1 else ""
        yield drawer.draw(
            lambda ax: cause.plot_kernel(cosines, ax),
            f"Which responses move together{which}: cosines of the gradients of every two responses of the first "
            f"{cosines['pair_id'].nunique()} pairs, chosen before rejected, at the last step. Brown off the diagonal: "
            "pushing one down pushes the other with it; purple: it lifts the other. Between different pairs estimated "
            "to about ± 1/64.",
            "still",
            height=3.0,
        )

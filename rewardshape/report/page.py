"""One self-contained page for a run or a sweep: ``report.html``, without scripts and without network.

Everything on it is computed from the trace; everything that comes from data is text, escaped by the template engine.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

import rewardshape
from rewardshape.analysis.pairs import DESCRIPTORS
from rewardshape.numbers import GREEK, interval, number, shortest, signed
from rewardshape.plotting import displacement as run_plots
from rewardshape.plotting import sweep as sweep_plots
from rewardshape.plotting.style import COLUMN_WIDTH, alpha_color, style
from rewardshape.trace import RunFolder, Trace, read_probe_set, read_trace, write_whole
from rewardshape.verdict.findings import Tables, findings

MAX_POINTS = 12_000  # steps drawn, over all runs of a figure: keeps the page small, and no eye sees the rest
MAX_PAIRS = 5
MAX_TOKENS = 300  # of a response on the page
MAX_PROMPT = 1_200  # characters of a prompt on the page: its end, which the response answers
SHADES = 4


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder or a sweep folder, from what its trace holds so far.

    Parameters
    ----------
    folder : path
        A run folder, or the folder of several.

    Returns
    -------
    Path
        The file, self-contained and under 3 MB.

    Raises
    ------
    InputError
        If the folder holds no trace, or a trace without a probe set at step 0.

    Examples
    --------
    >>> write_report("runs/embedded")        # doctest: +SKIP
    PosixPath('runs/embedded/report.html')
    """
    page = render(read_trace(folder))
    file = RunFolder(Path(folder)).report
    write_whole(file, page)
    return file


def render(trace: Trace) -> str:
    """The page as text."""
    tables = Tables(trace)
    environment = Environment(
        loader=PackageLoader("rewardshape"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
    )
    pairs, scale = _pairs(tables)
    return environment.get_template("report.html").render(
        title=trace.folder.resolve().name,
        facts=_facts(trace),
        unfinished=_unfinished(trace),
        findings=findings(trace, tables),
        verdicts=list(tables.verdicts.values()),
        tiles=_tiles(tables) if len(trace.runs) == 1 else [],
        figures=list(_figures(tables)),
        table=_table(tables),
        num_pairs=tables.summary["num_pairs"].max(),
        pairs=pairs,
        pairs_note=_pairs_note(tables),
        scale=number(scale, 2) if scale else "",
        correlations=_correlations(tables),
        correlations_note=f"Of {tables.labels[tables.deepest]}." if len(trace.runs) > 1 else "",
        commands=_commands(trace),
        manifests=[
            {"name": run.name, "text": json.dumps(run.manifest, indent=1, ensure_ascii=False)}
            for run in trace.runs
        ],
        version=rewardshape.__version__,
    )


_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def _printable(value: Any) -> Any:
    """Control characters, which HTML forbids, become the replacement character."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _CONTROL.sub("\ufffd", value)


# What stands above the fold


def _facts(trace: Trace) -> list[str]:
    settings = trace.runs[0].manifest
    run, model, data = settings.get("run", {}), settings.get("model", {}), settings.get("data", {})
    checkpoint = model.get("checkpoint")
    files = data.get("files") or run.get("data") or []
    facts = [
        *_objectives(trace),
        f"model {Path(checkpoint).name}" if checkpoint else "",
        f"data {', '.join(Path(str(file)).name for file in files)}" if files else "",
        f"{trace.steps['step'].max()} steps",
        f"learning rate {run['learning_rate']:g}" if run.get("learning_rate") else "",
        f"{len(trace.runs)} runs" if len(trace.runs) > 1 else f"seed {run.get('seed')}",
    ]
    return [fact for fact in facts if fact]


def _objectives(trace: Trace) -> list[str]:
    """The objectives of the runs, and every value that each of their parameters takes."""
    stated = [run.manifest.get("objective", {}) for run in trace.runs]
    values: dict[str, dict[str, None]] = {}
    for objective in stated:
        for name, value in objective.get("parameters", {}).items():
            text = shortest(value) if isinstance(value, float) else str(value)
            values.setdefault(GREEK.get(name, name), {})[text] = None
    names = dict.fromkeys(str(objective.get("name")) for objective in stated)
    return [", ".join(names), *(f"{name} {', '.join(texts)}" for name, texts in values.items())]


def _unfinished(trace: Trace) -> list[str]:
    lines = []
    for run in trace.runs:
        status = run.manifest.get("status", "done")
        if status != "done":
            last = trace.steps.loc[trace.steps["run"] == run.name, "step"].max()
            which = run.label if len(trace.runs) > 1 else "The run"
            lines.append(f"{which} is not finished ({status}): what follows is as of step {last}.")
    return lines


def _tiles(tables: Tables) -> list[dict[str, str]]:
    row, start = tables.summary.iloc[0], tables.margins.iloc[0]
    percent = f"{row['share_fallen_low']:.0%} to {row['share_fallen_high']:.0%}"
    unit = "nats per token"
    return [
        _tile("chosen", "chosen, change", signed(row["chosen_change"]), unit),
        _tile("rejected", "rejected, change", signed(row["rejected_change"]), unit),
        _tile("", "chosen responses fallen", f"{row['share_fallen']:.0%}", percent),
        _tile("", "accuracy", f"{row['accuracy']:.0%}", f"{start['accuracy']:.0%} at step 0"),
        _tile("", "margin", signed(row["margin"], 2), f"{signed(start['margin'], 2)} at step 0"),
    ]


def _tile(kind: str, name: str, value: str, note: str) -> dict[str, str]:
    return {"kind": kind, "name": name, "value": value, "note": note}


# Pictures


def _figures(tables: Tables) -> Iterator[dict[str, Any]]:
    curve = _thinned(tables.curve)
    if len(tables.trace.runs) == 1:
        yield from _draw(
            lambda axes: run_plots.plot_displacement(curve, axes[0]),
            "Chosen and rejected log-prob of the probe set. Band: interval of the change since step 0 (dotted).",
        )
        yield from _draw(
            lambda axes: sweep_plots.plot_trajectory(curve, axes[0]),
            "The path of the run: what its margin cost in chosen log-prob. Ring: step 0; dot: the last step.",
        )
        if curve["response"].nunique() > 2 or "greedy_mean_change" in curve:
            yield from _draw(
                lambda axes: run_plots.plot_responses(curve, axes[0]),
                "Where the mass went: change of every response measured. Greedy: the tokens that greedy decoding would"
                " take at the positions of the chosen response.",
            )
        if len(tables.correlations):
            found = tables.correlations.query("change == 'chosen_change'").head(1)
            yield from _draw(
                lambda axes: run_plots.plot_descriptor(
                    tables.pairs, found["descriptor"].iloc[0], axes[0], correlations=found
                ),
                "The pairs, by what goes most closely with how far they fell.",
            )
        return
    yield from _draw(
        lambda axes: _side_by_side(sweep_plots.plot_sweep(curve, axes)),
        "Chosen log-prob over the steps. Bands: interval over pairs; thin lines: single seeds.",
        "Rejected log-prob over the steps, on the same scale.",
    )
    yield from _draw(
        lambda axes: sweep_plots.plot_trajectory(curve, axes[0]),
        "The path of each setting: what its margin cost in chosen log-prob. Ring: step 0; dots: the last step.",
    )
    rows = tables.at_equal_margin
    if rows["value"].iloc[0] > 0:
        yield from _draw(
            lambda axes: sweep_plots.plot_at_equal(rows, axes[0]),
            "Chosen log-prob at the step where each setting first reaches one common margin gain.",
        )
    yield from _draw(
        lambda axes: sweep_plots.plot_final_displacement(tables.summary, axes),
        "The last step: change of chosen and rejected.",
        "The last step: share of pairs whose chosen response fell.",
    )


def _draw(draw: Callable[[Sequence[Axes]], object], *captions: str) -> list[dict[str, Any]]:
    """One picture per caption, each a figure of its own, so that they fall below one another on a phone."""
    with style():
        figures = [plt.figure(figsize=(COLUMN_WIDTH, 2.5)) for _ in captions]
        draw([figure.add_subplot() for figure in figures])
        pictures = []
        for figure, caption in zip(figures, captions, strict=True):
            target = io.StringIO()
            figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            plt.close(figure)
            pictures.append({"svg": _inline(target.getvalue(), caption), "caption": caption})
    return pictures


def _side_by_side(axes: Sequence[Axes]) -> None:
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        ax.set_ylabel(axes[0].get_ylabel())


def _inline(svg: str, caption: str) -> Markup:
    """An SVG document as part of a page: no header, no comments, no global style, ids of its own."""
    prefix = f"f{zlib.crc32(caption.encode()):08x}-"
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    label = Markup('<svg role="img" aria-label="{}" stroke-linejoin="round"').format(caption)
    return Markup(re.sub(r'^<svg([^>]*?) width="[^"]*"|^<svg', str(label).replace("\\", ""), svg, count=1))


def _thinned(curve: pd.DataFrame) -> pd.DataFrame:
    steps = np.unique(curve["step"])
    per_run = max(MAX_POINTS // curve.groupby(["run", "response"]).ngroups, 50)
    kept = steps[np.unique(np.linspace(0, len(steps) - 1, per_run).round().astype(int))]
    return curve[curve["step"].isin(kept)]


# The table


def _table(tables: Tables) -> dict[str, Any]:
    summary = tables.summary
    columns = ["run", "chosen", "rejected", "chosen fell", "accuracy", "margin", "onset", "deepest"]
    greedy = "greedy_change" in summary
    rows = []
    for _, row in summary.iterrows():
        cells = [
            _cell(signed(row["chosen_change"]), interval(row, "chosen_change")),
            _cell(signed(row["rejected_change"]), interval(row, "rejected_change")),
            _cell(f"{row['share_fallen']:.0%}", _percents(row, "share_fallen")),
            _cell(f"{row['accuracy']:.0%}", _percents(row, "accuracy")),
            _cell(signed(row["margin"], 2), interval(row, "margin", 2)),
            _cell("none" if pd.isna(row["onset"]) else f"step {row['onset']}"),
            _cell(signed(row["depth"]), f"step {row['depth_step']}") if row["depth"] < 0 else _cell("none"),
            *([_cell(signed(row["greedy_change"]), interval(row, "greedy_change"))] if greedy else []),
        ]
        color = _hex(alpha_color(row["alpha"])) if len(summary) > 1 and np.isfinite(row["alpha"]) else ""
        rows.append({"name": tables.labels[row["run"]], "color": color, "cells": cells})
    return {"columns": columns + ["greedy"] * greedy, "rows": rows}


def _hex(color: tuple[float, ...]) -> str:
    return to_hex((color[0], color[1], color[2]))


def _cell(value: str, note: str = "") -> dict[str, str]:
    return {"value": value, "note": note}


def _percents(row: pd.Series, name: str) -> str:
    return f"{row[f'{name}_low']:.0%} to {row[f'{name}_high']:.0%}"


# The pairs


def _pairs(tables: Tables) -> tuple[list[dict[str, Any]], float]:
    """The pairs that fell most, with the tokens of the deepest run, and the change at which the shading ends."""
    run = tables.deepest
    pairs = tables.pairs[tables.pairs["run"] == run]
    [shown_run] = [known for known in tables.trace.runs if known.name == run]
    texts = {pair["pair_id"]: pair for pair in read_probe_set(shown_run.folder)}
    worst = pairs[pairs["fallen"]].head(MAX_PAIRS)
    changes = _token_changes(tables.trace, run, worst["pair_id"].tolist())
    scale = float(np.quantile(np.abs(np.concatenate(list(changes.values()))), 0.95)) if changes else 0.0
    shown = []
    for _, row in worst.iterrows():
        pair_id, text = row["pair_id"], texts.get(row["pair_id"], {})
        note = (
            f"chosen {signed(row['chosen_change'])} nats per token over {row['chosen_tokens']} tokens, rejected"
            f" {signed(row['rejected_change'])} over {row['rejected_tokens']}"
        )
        if "similarity" in row and np.isfinite(row["similarity"]):
            note += f"; {row['edit_distance']:.0f} token edits apart"
        responses = [
            _response(name, row, text["tokens"][name], changes.get((pair_id, name)), scale)
            for name in ("chosen", "rejected")
            if name in text.get("tokens", {})
        ]
        shown.append({"pair_id": pair_id, "note": note, "prompt": _prompt(text), "responses": responses})
    return shown, scale


def _token_changes(trace: Trace, run: str, pair_ids: list[str]) -> dict[tuple[str, str], np.ndarray]:
    """Change of each token's log-prob between the first and the last step that recorded tokens, nats."""
    tokens = trace.tokens
    if tokens.empty:
        return {}
    tokens = tokens[(tokens["run"] == run) & tokens["pair_id"].isin(pair_ids)]
    tokens = tokens[tokens["response"].isin(["chosen", "rejected"])]
    first, last = tokens["step"].min(), tokens["step"].max()
    if tokens.empty or first == last:
        return {}
    wide = tokens[tokens["step"].isin([first, last])].pivot_table(
        index=["pair_id", "response", "position"], columns="step", values="logp"
    )
    change = (wide[last] - wide[first]).fillna(0.0)
    return {
        (str(pair), str(response)): rows.to_numpy()
        for (pair, response), rows in change.groupby(["pair_id", "response"])
    }


def _response(
    name: str, row: pd.Series, tokens: list[str], changes: np.ndarray | None, scale: float
) -> dict[str, Any]:
    shown = [{"text": str(text), "shade": "", "change": ""} for text in tokens[:MAX_TOKENS]]
    if changes is not None:
        for token, change in zip(shown, changes, strict=False):
            token |= {"shade": _shade(change, scale), "change": f"{signed(change, 2)} nats"}
    return {
        "name": name,
        "note": f"{signed(row[f'{name}_sum_change'], 2)} nats in all",
        "tokens": shown,
        "left_out": max(len(tokens) - MAX_TOKENS, 0),
    }


def _shade(change: float, scale: float) -> str:
    level = min(int(abs(change) / scale * SHADES), SHADES) if scale > 0 else 0
    return f"{'f' if change < 0 else 'r'}{level}" if level else ""


def _prompt(text: dict[str, Any]) -> str:
    prompt = str(text.get("prompt", ""))
    return prompt if len(prompt) <= MAX_PROMPT else f"… {prompt[-MAX_PROMPT:]}"


def _pairs_note(tables: Tables) -> str:
    where = f", in {tables.labels[tables.deepest]}, which fell deepest" if len(tables.trace.runs) > 1 else ""
    return f"By change of the chosen response per token at the last step{where}."


def _correlations(tables: Tables) -> list[dict[str, str]]:
    found = tables.correlations.query("change == 'chosen_change'")
    labels = {descriptor.name: descriptor.label for descriptor in DESCRIPTORS}
    return [
        {
            "name": labels[row["descriptor"]],
            "rho": signed(row["rho"], 2),
            "interval": interval(row, "rho", 2),
            "num_pairs": str(row["num_pairs"]),
        }
        for _, row in found.iterrows()
    ]


def _commands(trace: Trace) -> list[str]:
    """The command that makes it again: of the whole sweep where its folder has one, else of each run."""
    whole = RunFolder(trace.folder).command
    if whole.is_file():
        return [str(json.loads(whole.read_text(encoding="utf-8"))["command"])]
    commands = (run.manifest.get("command") for run in trace.runs)
    return [str(command) for command in dict.fromkeys(commands) if command]

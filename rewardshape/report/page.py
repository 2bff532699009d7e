"""One self-contained page for a run or a sweep: ``report.html``, without network.

Everything on it is computed from the trace. Everything that comes from data is text: escaped by the template engine, or
JSON that the page's one script, allowed by its hash, reads and shows as text. Without script the page still reads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

import rewardshape
from rewardshape.analysis.destination import moved_tokens
from rewardshape.analysis.generations import CHANCE
from rewardshape.analysis.influence import pair_influence
from rewardshape.analysis.pairs import DESCRIPTORS
from rewardshape.analysis.what_if import by_place, what_if_beside
from rewardshape.numbers import (
    counted,
    interval,
    moment,
    percent,
    percents,
    signed,
    significant,
)
from rewardshape.report.charts import Drawer, Palette
from rewardshape.report.data import script_data
from rewardshape.report.facts import facts_of
from rewardshape.report.pairs import pair_text, read_texts, worst_pairs
from rewardshape.report.pictures import pictures, what_changes_did
from rewardshape.report.samples import SHOWN, then_and_now
from rewardshape.report.text import as_json, printable
from rewardshape.trace import RunFolder, Trace, read_trace, write_whole
from rewardshape.verdict.findings import Tables, findings

REFRESH = (
    10  # seconds between two looks of a live page at its own file; later where the reader is busy with it
)


def write_report(source: str | Path | Trace, *, live: bool = False) -> Path:
    """Write ``report.html`` into a run folder or a sweep folder, from what its trace holds so far.

    Parameters
    ----------
    source : path or Trace
        A run folder, the folder of several, or what was read of one.
    live : bool
        Whether the page is to read itself again while a run is going on.

    Returns
    -------
    Path
        The file, self-contained and under 1.5 MB a run.

    Raises
    ------
    InputError
        If the folder holds no trace, or a trace without a probe set at step 0.

    Examples
    --------
    >>> write_report("runs/embedded")        # doctest: +SKIP
    PosixPath('runs/embedded/report.html')
    """
    trace = source if isinstance(source, Trace) else read_trace(source, repair=True)
    file = RunFolder(trace.folder).report
    write_whole(file, render(trace, live=live and unfinished(trace)))
    return file


def unfinished(trace: Trace) -> bool:
    """Whether a run of the trace is still going on, or one of its command is yet to begin."""
    states = [run.status for run in trace.runs]
    if "running" in states:
        return True
    begun = {run.name for run in trace.runs}
    settled = all(state == "done" or state.startswith("diverged") for state in states)
    return settled and not begun.issuperset(RunFolder(trace.folder).planned_runs())


def render(trace: Trace, *, live: bool = False) -> str:
    """The page as text."""
    trace = trace.begun()
    tables = Tables(trace)
    palette = Palette.of(trace.runs, tables.curve["response"].unique())
    drawer = Drawer(trace.runs, palette)
    charts, of_changes = pictures(tables, drawer), list(what_changes_did(tables, drawer))
    worst, scale = worst_pairs(tables)
    samples = then_and_now(trace)
    found = findings(trace, tables)
    script = Markup(_template("portrait.js") + _template("report.js"))
    environment = Environment(
        loader=PackageLoader("rewardshape"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
    )
    return environment.get_template("report.html").render(
        title=trace.folder.resolve().name,
        refresh=REFRESH if live else 0,
        facts=facts_of(trace),
        damage=trace.damage,
        unfinished=_unfinished(trace),
        forecast=_forecast(tables),
        findings=found,
        advice=[_flags(line) for line in found.advice],
        verdicts=_verdicts(tables),
        tiles=_tiles(tables) if len(trace.runs) == 1 else [],
        figures=charts,
        figures_of_changes=of_changes,
        table=_table(tables),
        num_pairs=tables.summary["num_pairs"].max(),
        worst=worst,
        fell_unknown=bool(tables.pairs["fallen"].isna().any()),
        worst_note=_worst_note(tables),
        chance=CHANCE,
        tried=_tried(trace),
        samples=_first_samples(tables, samples),
        scale=significant(scale, 2) if scale else "",
        moved=_moved(tables),
        influence=_influence(tables),
        correlations=_correlations(tables),
        correlations_note=_correlations_note(tables),
        commands=_commands(trace),
        manifests=[
            {"name": run.name, "text": json.dumps(run.manifest, indent=1, ensure_ascii=False)}
            for run in trace.runs
        ],
        colors=palette.pairs,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(as_json(script_data(tables, [*charts, *of_changes], samples, scale))),
        version=rewardshape.__version__,
    )


def _flags(line: str) -> Markup:
    """A line of advice, its flags as code, which no line break parts."""
    return Markup(re.sub(r"--[a-z][a-z-]*", r"<code>\g<0></code>", str(escape(printable(line)))))


def _template(name: str) -> str:
    return files("rewardshape").joinpath("templates", name).read_text(encoding="utf-8")


# What stands above the fold


def _unfinished(trace: Trace) -> list[str]:
    lines = []
    for run in trace.runs:
        status, reason = run.status, run.manifest.get("reason")
        if status != "done":
            if status == "killed":
                reason = "no process of this machine is at work in its folder"
            status = f"{status}: {reason}" if reason else status
            last = trace.steps.loc[trace.steps["run"] == run.name, "step"].max()
            which = run.label if len(trace.runs) > 1 else "The run"
            lines.append(f"{which} is not finished ({status}): what follows is as of step {last}.")
    return lines


def _forecast(tables: Tables) -> str:
    """Where the runs that go on are heading, as far as that can be told."""
    lines = []
    for run in tables.trace.runs:
        if ahead := tables.verdicts[run.name].evidence.ahead:
            one = len(tables.trace.runs) == 1
            lines.append(f"{ahead[0].upper()}{ahead[1:]}." if one else f"{run.label}: {ahead}.")
    return " ".join(lines)


def _verdicts(tables: Tables) -> list[dict[str, Any]]:
    """The judgement of every run."""
    settings = list(dict.fromkeys(run.setting for run in tables.trace.runs))
    return [
        {
            "run": run.name,
            "label": run.label,
            "setting": settings.index(run.setting),
            "word": str(tables.verdicts[run.name].word),
            "sentence": tables.verdicts[run.name].sentence,
            "how_sure": tables.verdicts[run.name].how_sure,
            "answers": tables.verdicts[run.name].answers,
        }
        for run in tables.trace.runs
    ]


def _tiles(tables: Tables) -> list[dict[str, str]]:
    row, start = tables.summary.iloc[0], tables.margins.iloc[0]
    unit = "nats per token"
    margin, before = (_change(each, "margin", 2)["value"] for each in (row, start))
    return [
        _tile("chosen", "chosen, change", _change(row, "chosen_change")["value"], unit),
        _tile("rejected", "rejected, change", _change(row, "rejected_change")["value"], unit),
        _tile("", "chosen responses fallen", *_share(row, "share_fallen").values()),
        _tile(
            "",
            "accuracy",
            _share(row, "accuracy")["value"],
            f"{_share(start, 'accuracy')['value']} at step 0",
        ),
        _tile("", "margin", margin, f"{before} at step 0, reward units"),
    ]


def _tile(kind: str, name: str, value: str, note: str) -> dict[str, str]:
    return {"kind": kind, "name": name, "value": value, "note": note}


# The table


def _table(tables: Tables) -> dict[str, Any]:
    summary = tables.summary
    columns = [
        "run",
        "verdict",
        "chosen",
        "rejected",
        "chosen fell",
        "accuracy",
        "margin",
        "onset",
        "deepest",
    ]
    greedy = "greedy_change" in summary
    settings = list(dict.fromkeys(run.setting for run in tables.trace.runs))
    rows = []
    for _, row in summary.iterrows():
        verdict = tables.verdicts[row["run"]]
        onset = verdict.onset_step
        cells = [
            _cell(str(verdict.word), verdict.how_sure),
            _change(row, "chosen_change"),
            _change(row, "rejected_change"),
            _share(row, "share_fallen"),
            _share(row, "accuracy"),
            _change(row, "margin", 2),
            _cell("none" if onset is None else f"step {moment(onset)}"),
            _cell(signed(row["depth"]), f"step {row['depth_step']}") if row["depth"] < 0 else _cell("none"),
            *([_change(row, "greedy_change")] if greedy else []),
        ]
        setting = settings.index(row["setting"]) if len(settings) > 1 else None
        rows.append({"name": tables.labels[row["run"]], "setting": setting, "cells": cells})
    return {"columns": columns + ["greedy"] * greedy, "rows": rows}


def _cell(value: str, note: str = "") -> dict[str, str]:
    return {"value": value, "note": note}


UNKNOWN = _cell("–")  # at the last step of a run that broke; a margin that summed log-probs do not tell


def _change(row: pd.Series, name: str, digits: int = 3) -> dict[str, str]:
    known = pd.notna(row[name])
    return _cell(signed(row[name], digits), interval(row, name, digits)) if known else UNKNOWN


def _share(row: pd.Series, name: str) -> dict[str, str]:
    known = pd.notna(row[name])
    return _cell(percent(row[name]), percents(row[f"{name}_low"], row[f"{name}_high"])) if known else UNKNOWN


# Words about pairs, true whether they fell or rose


def _fell(tables: Tables) -> bool:
    """Whether the chosen responses of the deepest run fell beyond the interval."""
    row = tables.summary.set_index("run").loc[tables.deepest]
    return bool(row["chosen_change_high"] < 0)


def _worst_note(tables: Tables) -> str:
    many = len(tables.trace.runs) > 1
    which = "which fell deepest" if _fell(tables) else "where the chosen responses ended lowest"
    where = f", in {tables.labels[tables.deepest]}, {which}" if many else ""
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


def _correlations_note(tables: Tables) -> str:
    then = (
        "the deeper the chosen response fell"
        if _fell(tables)
        else "the less the chosen response rose, or the more it fell"
    )
    which = f" Of {tables.labels[tables.deepest]}." if len(tables.trace.runs) > 1 else ""
    return f"Negative: the larger the quantity, {then} (per token).{which}"


MAX_ROWS = 8  # of a table of tokens or training pairs


def _moved(tables: Tables) -> dict[str, Any] | None:
    """The tokens that gained most over the whole probe set, where that was measured."""
    if tables.trace.destination_tokens.empty:
        return None
    found = moved_tokens(tables.trace)
    found = found[(found["run"] == tables.deepest) & (found["response"] == "chosen") & (found["change"] > 0)]
    rows = found.head(MAX_ROWS).to_dict("records")
    shown = [
        {"token": str(r["token"]), "change": signed(r["change"], 2), "num_pairs": r["num_pairs"]}
        for r in rows
    ]
    return {"label": tables.labels[tables.deepest], "rows": shown}


def _influence(tables: Tables) -> dict[str, Any] | None:
    """The training pairs that pushed the chosen responses of the probe set down most, where that was measured."""
    if tables.trace.influence.empty:
        return None
    found = pair_influence(tables.trace)
    rows = (
        found[(found["run"] == tables.deepest) & (found["influence"] < 0)].head(MAX_ROWS).to_dict("records")
    )
    [run] = [run for run in tables.trace.runs if run.name == tables.deepest]
    texts = read_texts(RunFolder(run.folder).pushing)
    shown = [
        {
            "pair_id": str(r["pair_id"]),
            "visits": r["visits"],
            "influence": signed(r["influence"], 4),
            "text": pair_text(texts.get(str(r["pair_id"]))),
        }
        for r in rows
    ]
    return {"label": tables.labels[tables.deepest], "rows": shown}


def _tried(trace: Trace) -> dict[str, Any] | None:
    """What each change of a what-if in or beside the folder did."""
    table = what_if_beside(trace.folder)
    if table is None:
        return None
    places, changes = by_place(table), table.drop_duplicates("intervention")
    rows = [
        {
            "flags": str(row["flags"]),
            "against": "as many at random" if row["matched"] else "the run as it is",
            "cells": [
                _cell(signed(found["difference"]), interval(found, "difference"))
                if (found := at.get(str(row["intervention"])))
                else _cell("not compared" if place.margin_gain is None else "not reached")
                for place, at in places.items()
            ],
        }
        for row in changes.to_dict("records")
    ]
    first = table.iloc[0]
    titles = [
        place.measure if place.margin_gain is None else f"chosen at {significant(place.margin_gain, 2)}"
        for place in places
    ]
    out = table[table["left_out"].notna()].to_dict("records")
    return {
        "columns": titles,
        "rows": rows,
        "over": f"{counted(first['steps'], 'step')} and {counted(first['num_seeds'], 'seed')}",
        "left_out": [f"Chosen of {row['flags']} is not compared: {row['left_out']}." for row in out],
    }


def _first_samples(tables: Tables, samples: dict[str, Any]) -> dict[str, Any] | None:
    """What is shown of the samples without a script: a few prompts of the deepest run that drew some."""
    if not samples["prompts"]:
        return None
    runs = tables.trace.runs
    deepest = [run.name for run in runs].index(tables.deepest)
    drawn = [place for place, of in enumerate(samples["runs"]) if of is not None]
    place = deepest if deepest in drawn else drawn[0]
    of = samples["runs"][place]
    shown = list(zip(samples["prompts"], samples["asked"], of["texts"], strict=True))[:SHOWN]
    return {"label": runs[place].label, "steps": of["steps"], "prompts": shown}


def _commands(trace: Trace) -> list[str]:
    """The command that makes it again: of the whole sweep where its folder has one, else of each run."""
    whole = RunFolder(trace.folder).read_command()
    if "command" in whole:
        return [str(whole["command"])]
    commands = (run.manifest.get("command") for run in trace.runs)
    return [str(command) for command in dict.fromkeys(commands) if command]

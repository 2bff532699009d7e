"""What a finished command leaves for people: pictures, the report, tables on the terminal."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rewardshape.analysis import compare_along, displacement_summary, settings_along
from rewardshape.analysis.comparison import baseline_setting
from rewardshape.analysis.equal import Axis
from rewardshape.analysis.what_if import Place, by_place, read_what_if, what_if_table
from rewardshape.errors import InputError, printable
from rewardshape.figures.of_runs import draw_all
from rewardshape.numbers import bracketed, counted, moment, number, percent, significant
from rewardshape.probe.settings import Settings
from rewardshape.report import write_report
from rewardshape.terminal import columns_of, read_enough
from rewardshape.trace import Trace
from rewardshape.trace.folder import RunFolder
from rewardshape.verdict import judge_all
from rewardshape.verdict.findings import not_compared

COLUMNS = {  # the most wanted first: a narrow terminal shows the rest below
    "chosen_change": "chosen [nats/token]",
    "rejected_change": "rejected [nats/token]",
    "word": "verdict",
    "share_fallen": "chosen fell",
    "onset": "fall began",
    "accuracy": "accuracy",
    "at_target": "at target",
    "gold": "gold reward",
}
CHANGES = ("chosen_change", "rejected_change")
PERCENT = ("share_fallen", "accuracy", "at_target")
AXES: dict[Axis, str] = {  # along which the runs of a sweep are compared
    "logp_margin": "where the margin has grown by (nats per token)",
    "kl": "where the KL to the reference is (nats per response)",
}
SHOWN = 4  # values along an axis that are printed


@dataclass(frozen=True)
class Results:
    """What was made of a finished trace.

    Attributes
    ----------
    compared : list of DataFrame
        The runs of a sweep along what they have in common: margin and KL.
    problems : list of str
        What could not be made, and why: nothing of it takes anything from the trace.
    """

    compared: list[pd.DataFrame]
    problems: list[str]


def present(trace: Trace, settings: Settings, say: Callable[[str], object]) -> None:
    """Write what people look at, `say` what of it could not be made, and print the tables."""
    results = write_results(trace)
    for line in results.problems:
        say(f"note: {line}")
    try:
        show(trace, results.compared, settings, columns_of(sys.stdout))
        sys.stdout.flush()
    except OSError as error:
        if settings.output.json or isinstance(error, BrokenPipeError):
            raise
        say(f"note: the tables could not be printed ({error.strerror}); the page has them")
        read_enough()


def write_results(trace: Trace) -> Results:
    """Draw the pictures and write the report and, of a sweep, the comparison."""
    files, problems = RunFolder(trace.folder), list[str]()
    compared: list[pd.DataFrame] = []

    def made(what: str, make: Callable[[], object]) -> None:
        try:
            make()
        except OSError:  # no room, no permission: said as it is everywhere
            raise
        except Exception as error:
            line = (str(error).splitlines() or [""])[0]
            problems.append(f"{what} could not be made ({type(error).__name__}: {line}); the trace is whole")

    def compare() -> None:
        compared.extend(comparisons(trace))
        if compared:
            pd.concat(compared).to_csv(files.comparison, index=False)

    def try_out() -> None:
        files.what_if.unlink(
            missing_ok=True
        )  # of an interrupted or older command: the verdicts would quote it
        what_if_table(trace, not_compared(judge_all(trace))).to_csv(
            files.what_if, index=False, float_format="%.9g"
        )

    if len(trace.runs) > 1:
        made("the comparison", compare)
    if any("what_if" in run.manifest for run in trace.runs):
        made("the table of what each change did", try_out)
    made("the figures", lambda: draw_all(trace, files.figures))
    made("the report", lambda: write_report(trace))
    return Results(compared, problems)


def diverged(trace: Trace) -> list[str]:
    """Of each run that diverged its name, the step and the pair, as its manifest has it."""
    found = [run for run in trace.runs if run.diverged]
    return [printable(f"{run.name}: diverged: {run.manifest.get('reason')}") for run in found]


def show(trace: Trace, compared: list[pd.DataFrame], settings: Settings, width: int | None = None) -> None:
    """Print the tables, no wider than a terminal of `width` columns, or all of it as JSON."""
    summary, tried = ends(trace), read_what_if(trace.folder)
    if settings.output.json:
        parts = {"runs": summary} if tried is None else {"runs": summary, "what_if": tried}
        told = {name: json.loads(part.to_json(orient="records")) for name, part in parts.items()}
        print(json.dumps({"folder": str(trace.folder), **told}))
        return
    if settings.output.quiet:
        return
    lines = [*_run_lines(trace, summary, width), *_compared_lines(trace, summary, compared, width)]
    if tried is not None:
        lines += ["", *what_if_lines(tried, width)]
    files = RunFolder(trace.folder)
    lines += ["", f"report: {printable(files.report)}", f"trace and figures: {printable(trace.folder)}"]
    print(*lines, sep="\n")


def _run_lines(trace: Trace, summary: pd.DataFrame, width: int | None) -> list[str]:
    """The table of the runs, and what is to be said of each."""
    steps, pairs = int(summary["step"].max()), int(summary["num_pairs"].max())
    after = f"after {counted(steps, 'step')}: change since step 0 on {counted(pairs, 'probe pair')}"
    said = [*diverged(trace), *_answers(summary), *_apart(summary)]
    lines = [wrapped(f"{after}, 95 % intervals over prompts", width), "", text_table(summary, "run", width)]
    return [*lines, *(["", *(wrapped(line, width) for line in said)] if said else [])]


def _compared_lines(
    trace: Trace, summary: pd.DataFrame, compared: list[pd.DataFrame], width: int | None
) -> list[str]:
    """The settings of a sweep along what they have in common, without those that are not set beside others."""
    lost, lines = set(summary.loc[summary["apart"].notna(), "setting"]), list[str]()
    for rows in compared:
        beside = rows[~rows["setting"].isin(lost)]
        if {baseline_setting(trace)} < set(beside["setting"]):
            lines += along(settings_along(beside), trace, width)
    return lines


def _answers(summary: pd.DataFrame) -> list[str]:
    """Whether each run's answers got worse."""
    several = len(summary) > 1
    return [
        f"{row['run']}: {line}" if several else line
        for row in summary.to_dict("records")
        for line in row["answers"]
    ]


def _apart(summary: pd.DataFrame) -> list[str]:
    """The runs that are not set beside the others by their means, and why."""
    rows = summary[summary["apart"].notna()]
    apart = ", and not set beside the others" if len(summary) > 1 else ""
    return [f"{row['run']}: {row['apart']}{apart}" for row in rows.to_dict("records")]


def what_if_lines(tried: pd.DataFrame, width: int | None = None) -> list[str]:
    """The tables of a what-if for the terminal: chosen along equal margin, then the rest at the last step."""
    first, places = tried.iloc[0], by_place(tried)
    over = (
        "prompts and seeds" if first["num_seeds"] > 1 else "prompts (one seed: not over orders of the data)"
    )
    parts = {
        "chosen [nats/token] where both margins have grown by (nats per token)": [
            place for place in places if place.margin_gain is not None
        ],
        "at the last step": [place for place in places if place.margin_gain is None],
    }
    tried_over = f"{counted(first['steps'], 'step')} and {counted(first['num_seeds'], 'seed')}"
    head = (
        f"what each change did over {tried_over}, against what it is set against; 95 % intervals over {over}, for all "
        "numbers of a measure together"
    )
    lines = [wrapped(head, width)]
    for title, shown in parts.items():
        if shown:
            table = _what_if_table(tried, {place: places[place] for place in shown})
            lines += ["", wrapped(title, width), "", fitted(table, width, labels=2)]
    out = tried[tried["left_out"].notna()].to_dict("records")
    said = (f"chosen of {row['intervention']} is not compared: {row['left_out']}" for row in out)
    return [*lines, *(wrapped(line, width) for line in said)]


def _what_if_table(tried: pd.DataFrame, places: dict[Place, dict[str, dict[str, Any]]]) -> pd.DataFrame:
    """The changes in rows; a column for each place, whose numbers hold together with those of the same measure."""
    changes = tried.drop_duplicates("intervention")
    shown = pd.DataFrame({"change": changes["intervention"], "against": changes["against"]})
    for place, rows in places.items():
        title = place.measure if place.margin_gain is None else significant(place.margin_gain)
        shown[title] = [
            bracketed(*(row[part] for part in _with_ends("difference"))) if (row := rows.get(name)) else "–"
            for name in changes["intervention"]
        ]
    return shown


def along(settings: pd.DataFrame, trace: Trace, width: int | None = None) -> list[str]:
    """How far the chosen responses of each setting stand above the baseline's, at a few values of an axis."""
    labels = {run.setting: run.setting_label for run in trace.runs}
    others = settings[settings["setting"] != baseline_setting(trace)]
    if "difference" not in others:
        return []
    known = np.sort(others.loc[others["difference"].notna() & (others["value"] > 0), "value"].unique())
    if not len(known):  # no run has come further than its start
        return []
    shown = known[np.unique(np.linspace(0, len(known) - 1, SHOWN + 1).round().astype(int))[1:]]
    seeds = int(others["num_seeds"].max())
    over = ", 95 % intervals over prompts" if others["difference_low"].notna().any() else ""
    over = f", 95 % intervals over {seeds} seeds, and how many agree on the sign" if seeds > 1 else over
    names = others["setting"].unique()
    table = pd.DataFrame({"setting": [labels[name] for name in names]})
    for value in shown:
        at = others[others["value"] == value]
        cells = {row["setting"]: _cell(row) for row in at.to_dict("records")}
        table[significant(value)] = [cells.get(name, "–") for name in names]
    title = f"chosen above that of {labels[baseline_setting(trace)]} [nats/token{over}]"
    return ["", wrapped(f"{title} {AXES[settings['axis'].iloc[0]]}", width), "", fitted(table, width)]


def _cell(row: dict[Any, Any]) -> str:
    if pd.isna(row["difference"]):
        return "–"
    agree = f" {row['seeds_agreeing']}/{row['num_seeds']}" if row["num_seeds"] > 1 else ""
    return bracketed(*(row[name] for name in _with_ends("difference"))) + agree


def ends(trace: Trace) -> pd.DataFrame:
    """The end of every run: its verdict's word, interval and onset, and what was measured beside them."""
    summary, verdicts = displacement_summary(trace), judge_all(trace)
    mine = [verdicts[run] for run in summary["run"]]
    summary["word"] = [str(verdict.word) for verdict in mine]
    summary["onset"] = [verdict.onset_step for verdict in mine]
    summary["answers"] = [verdict.answers for verdict in mine]
    lost = not_compared(verdicts)
    summary["apart"] = [lost.get(run) for run in summary["run"]]
    for verdict, row in zip(mine, summary.index, strict=True):
        if verdict.interval is not None:
            summary.loc[row, ["chosen_change_low", "chosen_change_high"]] = verdict.interval
    return summary


def comparisons(trace: Trace) -> Iterator[pd.DataFrame]:
    """The runs of a sweep along their margin, and along their KL where it was measured, each to where it got."""
    for axis in AXES:
        try:
            yield compare_along(trace, axis, baseline=baseline_setting(trace))
        except InputError:  # no samples, or probe sets that cannot be paired: nothing to compare on this axis
            continue


def text_table(rows: pd.DataFrame, label: str, width: int | None = None) -> str:
    """Runs or settings in rows, what was measured in columns, with intervals; no column without a number."""
    shown = pd.DataFrame({label: rows[label]})
    for column, title in COLUMNS.items():
        if column in rows and (column == "onset" or rows[column].notna().any()):
            shown[title] = [_text(row, column) for row in rows.to_dict("records")]
    return fitted(shown, width)


def _text(row: dict[Any, Any], column: str) -> str:
    if column == "word":
        return str(row[column])
    if column == "onset":
        return "–" if pd.isna(row[column]) else f"step {moment(row[column])}"
    if column in PERCENT and not pd.isna(row[column]):
        return percent(row[column])
    if pd.isna(row[column]):
        return "–"
    if column in CHANGES:
        return bracketed(*(row.get(name, np.nan) for name in _with_ends(column)))
    return number(row[column])


def _with_ends(column: str) -> tuple[str, str, str]:
    """The names of a value and of the ends of its interval."""
    return column, f"{column}_low", f"{column}_high"


def fitted(table: pd.DataFrame, width: int | None = None, *, labels: int = 1) -> str:
    """A table of texts; where `width` does not hold its columns, in blocks that each begin with the `labels` first.

    Examples
    --------
    >>> print(fitted(pd.DataFrame({"run": ["a"], "chosen": ["−0.1"], "rejected": ["−0.2"]}), 15))
    run chosen
      a   −0.1
    <BLANKLINE>
    run rejected
      a     −0.2
    """
    named, rest, blocks = list(table.columns[:labels]), list(table.columns[labels:]), list[str]()
    while rest or not blocks:
        for count in range(
            max(len(rest), 1), 0, -1
        ):  # as many columns as there is room for, but one at least
            block = table[named + rest[:count]].to_string(index=False)
            if width is None or count <= 1 or max(map(len, block.splitlines())) <= width:
                break
        rest = rest[count:]
        blocks.append(block)
    return "\n\n".join(blocks)


def wrapped(line: str, width: int | None = None) -> str:
    """A line of prose within `width`, parted between words only."""
    if width is None:
        return line
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)

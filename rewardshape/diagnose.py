"""``python -m rewardshape.diagnose PATH…``: what happened in a run, from the log you have.

A PATH is a run or sweep folder of ours, or the log of another trainer in any form that
`rewardshape.logs.read` understands. The answer is in words, with numbers and how sure they are, what the log
cannot tell, and what to try; one figure per PATH is saved. ``--json`` prints the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from rewardshape.errors import InputError
from rewardshape.logs.read import Log, read_logs
from rewardshape.trace import RunFolder
from rewardshape.verdict.judge import Verdict, judge
from rewardshape.verdict.thresholds import BEYOND_NOISE

WIDTH, TITLE = 96, 48
MEANS = {
    "displaced": "the chosen responses ended {depth} below {baseline}",
    "recovered": "the chosen responses fell below {baseline} and came back",
    "not displaced": "the chosen responses did not end below {baseline}",
    "saturated": "the loss has vanished and nothing more is learnt",
    "collapsed": "chosen fell, and the preference is no better than chance",
    "not training": "nothing moves",
    "undetermined": "the log does not let it be told",
}


class Case(NamedTuple):
    """One run: its log and the verdict on it."""

    log: Log
    verdict: Verdict


def diagnose(
    path: str | Path, *, beta: float | None = None, columns: Mapping[str, str] | None = None
) -> list[Case]:
    """Read a log (or our own run or sweep folder) and judge every run in it.

    Parameters
    ----------
    path : path
    beta : float, optional
        β, where you know it and the log does not let it be recovered.
    columns : mapping, optional
        For a plain CSV or JSONL, which column holds what: see `rewardshape.logs.read.read_logs`.

    Raises
    ------
    InputError
        If nothing in the path is understood.

    Examples
    --------
    >>> for log, verdict in diagnose("trainer_state.json"):        # doctest: +SKIP
    ...     print(verdict.verdict, verdict.depth_nats, verdict.onset_step)
    """
    path = Path(path)
    record = RunFolder(path).trace
    if record.is_file() or list(path.glob(f"*/{record.name}")):
        # Only a run of ours needs the theory of its objective
        from rewardshape.trace import read_trace
        from rewardshape.verdict.run_logs import logs_of_trace

        logs = logs_of_trace(read_trace(path))
    else:
        logs = read_logs(path, columns)
    return [Case(log, judge(log, beta=beta)) for log in logs]


# --- in words ----------------------------------------------------------------------------------------------------


def report(case: Case) -> str:
    """The verdict in words, for a terminal."""
    verdict, log = case.verdict, case.log
    depth = f"{abs(verdict.depth):.3g} {verdict.unit}" if verdict.depth is not None else ""
    means = MEANS[verdict.verdict].format(depth=depth, baseline=verdict.baseline or "their start")
    counts = " and ".join(
        f"{len(log.split(split))} {name} rows"
        for split, name in (("eval", "evaluation"), ("train", "training"))
        if len(log.split(split))
    )
    first, last = log.table["step"].min(), log.table["step"].max()
    parts = [
        f"{verdict.name}  ({verdict.form}: {counts}, {log.counts}s {first:g} to {last:g})",
        f"{verdict.verdict.upper()}: {means}.",
        _part("What happened", [*_happened(verdict, log), *verdict.reasons]),
        _part("How sure", _how_sure(verdict)),
        _part("Found", _found(verdict)),
        _part("Check", [*verdict.checks, *log.notes]),
        _part("Cannot tell", verdict.cannot_tell),
        _part("What to try", verdict.advice),
    ]
    return "\n".join(part for part in parts if part)


def _part(title: str, sentences: list[str]) -> str:
    if not sentences:
        return ""
    lines = []
    for sentence in sentences:
        first = sentence[0].upper() if sentence[0].isascii() else sentence[0]  # β stays β
        sentence = first + sentence[1:] + ("" if sentence.endswith(".") else ".")
        lines += textwrap.wrap(sentence, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return "\n".join([f"{title}:", *lines])


def _happened(verdict: Verdict, log: Log) -> list[str]:
    if verdict.depth is None:
        return []
    counts, evaluated = log.counts, log.split("eval")
    last_evaluation = evaluated.index[-1] if len(evaluated) else None
    ends = "below" if verdict.depth > 0 else "above"
    sentences = [
        f"chosen ends {abs(verdict.depth):.3g} {verdict.unit} {ends} {verdict.baseline} ({verdict.basis})"
    ]
    if verdict.onset_step is not None:
        logged = " (the first that is logged)" if verdict.onset_step == verdict.curve["step"].iloc[0] else ""
        sentences.append(f"the fall begins at {counts} {verdict.onset_step:g}{logged}")
    if verdict.deepest is not None and verdict.deepest > max(verdict.depth, 0) + (verdict.depth_noise or 0):
        sentences.append(
            f"the deepest point is {verdict.deepest:.3g} {verdict.unit} below, at {counts} {verdict.deepest_step:g}"
        )
    if verdict.highest is not None and verdict.highest > max(-verdict.depth, 0) + 2 * (
        verdict.depth_noise or 0
    ):
        sentences.append(
            f"before it fell, chosen rose: its highest point is {verdict.highest:.3g} {verdict.unit} above, at "
            f"{counts} {verdict.highest_step:g}, {verdict.highest + verdict.depth:.3g} above where it ends"
        )
    rejected = verdict.curve["rejected"].dropna() if "rejected" in verdict.curve else pd.Series(dtype=float)
    if len(rejected):
        moved = float(rejected.iloc[-1])
        sentences.append(f"rejected ends {abs(moved):.3g} {verdict.unit} {'below' if moved < 0 else 'above'}")
    greedy = evaluated["logp_greedy"].dropna() if "logp_greedy" in evaluated else pd.Series(dtype=float)
    if len(greedy) > 1:
        moved = float(greedy.iloc[-1] - greedy.iloc[0])
        sentences.append(
            f"the log-probability of the most likely tokens {'rose' if moved > 0 else 'fell'} by {abs(moved):.3g} nats"
            + (": what the other responses lost went there (the squeezing effect)" if moved > 0 else "")
        )
    names = {"margin": "margin", "accuracy": "accuracy", "loss": "loss"}
    ends_at = [f"{name} {verdict.ends[key]:.3g}" for key, name in names.items() if key in verdict.ends]
    if ends_at:
        sentences.append("at the end: " + ", ".join(ends_at))
    if verdict.over_optimized:
        sentences.append(
            f"over-optimized: the held-out loss was best at {counts} {verdict.best_step:g} and has risen since"
        )
    elif verdict.over_optimized is False and verdict.best_step == last_evaluation:
        sentences.append("not over-optimized: the held-out loss is at its best at the end")
    elif verdict.over_optimized is False:
        sentences.append(
            f"not over-optimized: the held-out loss was best at {counts} {verdict.best_step:g} and has not risen "
            "beyond noise since"
        )
    return sentences


def _how_sure(verdict: Verdict) -> list[str]:
    if verdict.depth is None or verdict.depth_noise is None:
        return []
    return [
        f"{verdict.confidence}: the noise of that number is {verdict.depth_noise:.2g} {verdict.unit}, and a fall "
        f"counts from {BEYOND_NOISE:g} times the noise on"
    ]


def _found(verdict: Verdict) -> list[str]:
    reference, found = verdict.reference, []
    spread = f" ± {reference.beta_spread:.1g}" if reference.beta_spread else ""
    if reference.beta is not None:
        found.append(f"β = {reference.beta:.4g}{spread} ({verdict.beta_source})")
    if reference.free:
        found.append("there is no reference: rewards are β times the log-probabilities")
    if reference.chosen is not None:
        rejected = f", of rejected {reference.rejected:.2f}" if reference.rejected is not None else ""
        noise = f" ± {reference.spread:.1g}" if reference.spread else ""
        found.append(
            f"the reference's log-probability of chosen is {reference.chosen:.2f}{noise} nats{rejected}"
        )
    if verdict.per_token is not None:
        found.append(
            f"log-probabilities are {'means per token' if verdict.per_token else 'sums over the response'}"
        )
    if verdict.nonfinite_steps:
        series = ", ".join(verdict.nonfinite_series)
        found.append(f"{series}: NaN or infinite at step {_few(verdict.nonfinite_steps)}")
    if verdict.missing:
        found.append(f"the log lacks {', '.join(verdict.missing)}")
    return found


def _few(steps: list[int | float]) -> str:
    shown = ", ".join(f"{step:g}" for step in steps[:5])
    return shown + (f" and {len(steps) - 5} more" if len(steps) > 5 else "")


def _short(name: str) -> str:
    return name if len(name) <= TITLE else name[: TITLE - 1] + "…"


# --- as a figure -------------------------------------------------------------------------------------------------


def save_figure(cases: Sequence[Case], file: Path) -> Path:
    """One row per run: chosen and rejected on the left, loss and margin on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from rewardshape.plotting.diagnosis import plot_fall, plot_progress
    from rewardshape.plotting.style import style

    with style():
        figure, axes = plt.subplots(
            len(cases), 2, figsize=(8.6, 3.1 * len(cases)), squeeze=False, layout="constrained"
        )
        for (fall, progress), (log, verdict) in zip(axes, cases, strict=True):
            if verdict.curve.empty:
                fall.text(
                    0.5, 0.5, "the log does not say what\nchosen responses did", ha="center", va="center"
                )
                fall.set_axis_off()
            else:
                plot_fall(
                    verdict.curve, fall, unit=verdict.unit or "", baseline=verdict.baseline, limit=verdict.limit,
                    onset=verdict.onset_step, steps=log.counts,
                )  # fmt: skip
            plot_progress(log.table, progress, best=verdict.best_step, steps=log.counts)
            fall.set_title(
                f"{_short(verdict.name.split(' · ')[-1])}: {verdict.verdict}",
                loc="left",
                fontsize="small",
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=150)
        plt.close(figure)
    return file


# --- the command line --------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `diagnose` takes to a parser."""
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a run or sweep folder, or the log of another trainer"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON: an object for one run, a list for several"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where figures are saved (default: the working folder)"
    )
    parser.add_argument(
        "--beta", type=float, metavar="B", help="β, where you know it and the log does not say it"
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="WHAT=COLUMN",
        help="for a plain CSV or JSONL, which column holds what: step=iteration chosen=lp_good eval_chosen=…",
    )


DESCRIPTION = """\
Say what happened to chosen and rejected responses in a run, in words and one figure: did chosen fall, since when,
by how many nats, how sure is that, and what to try. Reads a run of ours or the log of another trainer."""

EPILOG = """\
examples
  %(prog)s trainer_state.json                    transformers or TRL, also the trainer's output folder
  %(prog)s train.log README.md                   standard output, the tables of a model card
  %(prog)s runs/my-model                         a run or a sweep of ours
  %(prog)s mine.csv --columns step=iteration chosen=lp_good rejected=lp_bad
  %(prog)s train.log --beta 0.1 --json           for scripts"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m rewardshape.diagnose") -> int:
    """Run the command; 0 when every path was understood, 2 when one was not."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    found: list[dict[str, Any]] = []
    status = 0
    try:
        columns = _columns(arguments.columns)
        if arguments.beta is not None and not arguments.beta > 0:
            raise InputError(f"--beta {arguments.beta:g}: β is positive")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in arguments.paths:
        try:
            cases = diagnose(path, beta=arguments.beta, columns=columns)
            file = save_figure(cases, _figure_file(Path(path), arguments.output))
        except (InputError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
            continue
        found += [{**case.verdict.to_json(), "figure": str(file)} for case in cases]
        if not arguments.json:
            print("\n\n".join(report(case) for case in cases), f"\nFigure: {file}\n", sep="\n")
    if arguments.json and found:
        print(
            json.dumps(found[0] if len(found) == 1 else found, indent=2, ensure_ascii=False, allow_nan=False)
        )
    return status


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    columns = {}
    for pair in (part for text in pairs for part in text.split(",")):
        what, equals, column = pair.partition("=")
        if not (what and equals and column):
            raise InputError(f"--columns {pair}: write WHAT=COLUMN, for example chosen=logp_good")
        columns[what] = column
    return columns


def _figure_file(path: Path, folder: Path | None) -> Path:
    name = re.sub(r"[^\w.=-]+", "-", path.resolve().name)
    return (folder or Path()) / f"{name}.diagnosis.png"


if __name__ == "__main__":
    sys.exit(main())

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewardshape.errors import InputError
from rewardshape.numbers import moment, number, significant, typed
from rewardshape.terminal import answered, parser_of, read_enough, refused
from rewardshape.verdict.judge import Verdict, judge_all
from rewardshape.verdict.sentences import how_sure, story

WIDTH, TITLE = 96, 48
FEW = 5  # steps that are named one by one


# --- in words ----------------------------------------------------------------------------------------------------


def report(verdict: Verdict) -> str:
    """The verdict in words, for a terminal."""
    evidence = verdict.evidence
    parts = [
        f"{verdict.name}  ({evidence.form}: {evidence.rows})",
        textwrap.fill(f"{verdict.word.upper()}: {verdict.sentence}", WIDTH + 4),
        _part("What happened", story(verdict.word, evidence)),
        _part("Where it is heading", [evidence.ahead] if evidence.ahead else []),
        _part("How sure", how_sure(verdict.word, verdict.how_sure, evidence)),
        _part("Found", _found(verdict)),
        _part("Check", list(evidence.checks)),
        _part("Answers", verdict.answers),
        _part("Cannot tell", verdict.cannot_tell),
        _part("What to try", verdict.advice),
    ]
    return "\n".join(part for part in parts if part)


def _part(title: str, sentences: list[str]) -> str:
    if not sentences:
        return ""
    lines = []
    for sentence in sentences:
        word = sentence.split(" ", 1)[0].strip(",:")
        plain = word.isascii() and word.replace("-", "").isalpha()  # β and grad_norm stay as they are
        sentence = (sentence[0].upper() if plain else sentence[0]) + sentence[1:]
        sentence += "" if sentence.endswith((".", "?")) else "."
        lines += textwrap.wrap(sentence, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return "\n".join([f"{title}:", *lines])


def _found(verdict: Verdict) -> list[str]:
    evidence = verdict.evidence
    reference, found = evidence.reference, []
    rounding = 1e-6 * abs(reference.beta or 0.0)
    scatter = reference.beta_spread or 0.0
    spread = f" ± {significant(scatter, 1)}" if scatter > rounding else ""
    if reference.beta is not None:
        found.append(f"β = {significant(reference.beta, 4)}{spread} ({evidence.beta_source})")
    if reference.free:
        of = (
            "come of the log-probabilities alone"
            if evidence.num_pairs
            else "are β times the log-probabilities"
        )
        found.append(f"there is no reference: rewards {of}")
    if reference.chosen is not None:
        rejected = f", of rejected {number(reference.rejected, 2)}" if reference.rejected is not None else ""
        noise = f" ± {significant(reference.spread, 1)}" if reference.spread else ""
        unit = "nats per token" if evidence.per_token else "nats"
        found.append(
            f"the reference's log-probability of chosen is {number(reference.chosen, 2)}{noise} {unit}{rejected}"
        )
    if evidence.per_token is not None:
        what = "means per token" if evidence.per_token else "sums over the response"
        taken = f"are {what}" if evidence.num_pairs else f"are taken for {what}, by their size"
        found.append(f"log-probabilities {taken}")
    if evidence.nonfinite_steps:
        series, steps = ", ".join(evidence.nonfinite_series), evidence.nonfinite_steps
        shown = ", ".join(map(moment, steps[:FEW]))
        more = f" and {len(steps) - FEW} more" if len(steps) > FEW else ""
        found.append(f"{series}: NaN or infinite at {evidence.counts} {shown}{more}")
    if evidence.missing:
        found.append(f"the log lacks {', '.join(evidence.missing)}")
    return found


def _short(name: str) -> str:
    return name if len(name) <= TITLE else name[: TITLE - 1] + "…"


# --- as a figure -------------------------------------------------------------------------------------------------


def save_figure(verdicts: Sequence[Verdict], file: Path) -> Path:
    """One row per run: chosen and rejected on the left, loss and margin on the right."""
    import matplotlib.pyplot as plt

    from rewardshape.plotting.diagnosis import plot_fall, plot_progress
    from rewardshape.plotting.style import plain, style

    with style():
        figure, axes = plt.subplots(
            len(verdicts), 2, figsize=(8.6, 3.1 * len(verdicts)), squeeze=False, layout="constrained"
        )
        for (fall, progress), verdict in zip(axes, verdicts, strict=True):
            evidence = verdict.evidence
            if evidence.curve.empty:
                fall.text(0.5, 0.5, "not told: what\nchosen responses did", ha="center", va="center")
                fall.set_axis_off()
            else:
                plot_fall(
                    evidence.curve, fall, unit=evidence.unit, baseline=evidence.baseline.what,
                    limit=None if evidence.exact else evidence.smallest_fall,
                    onset=verdict.onset_step, steps=evidence.counts,
                )  # fmt: skip
            plot_progress(evidence.progress, progress, best=verdict.best_step, steps=evidence.counts)
            title = f"{_short(evidence.part or verdict.name)}: {verdict.word}"
            fall.set_title(plain(title), loc="left", fontsize="small")
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
    parser = parser_of(prog, DESCRIPTION, EPILOG)
    add_arguments(parser)
    return answered(parser, argv, _main)


def _main(arguments: argparse.Namespace) -> int:
    found: list[dict[str, Any]] = []
    status = 0
    columns = _columns(arguments.columns)
    if arguments.beta is not None and not arguments.beta > 0:
        raise InputError(f"--beta {typed(arguments.beta)}: β is positive")
    files: set[Path] = set()
    for path in arguments.paths:
        try:
            verdicts = list(judge_all(path, beta=arguments.beta, columns=columns).values())
            file = save_figure(verdicts, _figure_file(Path(path), arguments.output, files))
        except (InputError, OSError) as error:
            status = refused(error)
            continue
        found += [{**verdict.to_dict(), "figure": str(file)} for verdict in verdicts]
        if not arguments.json:
            _say("\n\n".join(map(report, verdicts)) + f"\n\nFigure: {file}\n")
    if arguments.json and found:
        shown = found[0] if len(found) == 1 else found
        _say(json.dumps(shown, indent=2, ensure_ascii=False, allow_nan=False))
    return status


def _say(text: str) -> None:
    """Print; a reader that has seen enough (``| head``) closes the pipe, which is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        read_enough()


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    columns = {}
    for pair in (part for text in pairs for part in text.split(",")):
        what, equals, column = pair.partition("=")
        if not (what and equals and column):
            raise InputError(f"--columns {pair}: write WHAT=COLUMN, for example chosen=logp_good")
        columns[what] = column
    return columns


def _figure_file(path: Path, folder: Path | None, given: set[Path]) -> Path:
    """Named after what was read, with as many folders before it as tell it from those `given` before; added to them."""
    parts, depth = path.resolve().parts, 1
    while True:
        name = re.sub(r"[^\w.=-]+", "-", "-".join(parts[-depth:])).lstrip("-")
        again = "" if depth <= len(parts) else f"-{depth - len(parts) + 1}"
        file = (folder or Path()) / f"{name}{again}.diagnosis.png"
        if file not in given:
            given.add(file)
            return file
        depth += 1


if __name__ == "__main__":
    sys.exit(main())

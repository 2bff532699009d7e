"""Did the answers get worse, as people see it: a file of answers to judge, written and read back.

Of every prompt it sets one answer of the first sampled step beside one of the last, in an order that the file does not
give away: a digest of the run, the prompt and the temperature decides it, so that reading back takes the run and the
file alone. The judge writes 1, 2, or 0 for neither into the column ``better``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rewardshape.analysis.generations import Judgement, judgement_of
from rewardshape.analysis.samples import samples_of, temperatures
from rewardshape.errors import InputError
from rewardshape.terminal import answered, parser_of
from rewardshape.trace import Run, Trace, read_prompts, read_trace

COLUMNS = ("run", "temperature", "prompt_id", "prompt", "answer_1", "answer_2", "better")
DELIMITERS = ",;\t"
WORDS = {"1": 1.0, "2": 0.0, "0": 0.5}  # who wins, where the first answer is that of now


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt: a row of the file, and what the file does not give away.

    Attributes
    ----------
    run, prompt_id, prompt, answer_1, answer_2 : str
    temperature : float
    now_first : bool
        Whether the first answer is that of the last step.
    longer : float
        Tokens that the answer of now has more than that of then.
    first_step, step : int
        Then and now.
    """

    run: str
    temperature: float
    prompt_id: str
    prompt: str
    answer_1: str
    answer_2: str
    now_first: bool
    longer: float
    first_step: int
    step: int


def write_judgements(trace: Trace, file: Path) -> int:
    """Write the answers of all runs, then and now, for people to judge; the number of comparisons.

    Raises
    ------
    InputError
        If the file is there already, or no run has samples of two steps.
    """
    rows = list(_comparisons(trace))
    if not rows:
        raise InputError(f"{trace.folder}: no samples of two steps; run the probe with --sample-every K")
    try:
        with file.open("x", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore")  # what is not given away
            writer.writeheader()
            writer.writerows(map(vars, rows))
    except FileExistsError:
        raise InputError(
            f"{file}: exists already and is kept; fill its column better, or name another file"
        ) from None
    return len(rows)


def read_judgements(trace: Trace, file: Path) -> dict[str, list[Judgement]]:
    """What people judged: of every run a judgement a temperature, from the rows that are filled.

    Parameters
    ----------
    trace : Trace
        That the file was written from.
    file : Path
        With ``better`` filled: 1, 2 or 0; rows left empty do not count.

    Raises
    ------
    InputError
        With file and line: a word that is none of the three, a row that is not of this trace; or no row is filled.
    """
    known = {(row.run, row.temperature, row.prompt_id): row for row in _comparisons(trace)}
    found: dict[tuple[str, float], list[tuple[float, Comparison]]] = {}
    for line, row in _rows(file):
        word = re.sub(r"[.,]0*$", "", row["better"].strip())  # as a spreadsheet writes numbers
        if not word:
            continue
        if word not in WORDS:
            raise InputError(f"{file}:{line}: better is {word!r}; write 1, 2 or 0, or leave it empty")
        key = (row["run"], _number(row["temperature"].replace(",", ".")), row["prompt_id"])
        if key not in known:
            raise InputError(
                f"{file}:{line}: no such comparison in {trace.folder}; read it with the run it is of"
            )
        made = known[key]
        won = WORDS[word] if made.now_first else 1 - WORDS[word]
        found.setdefault((made.run, made.temperature), []).append((won, made))
    if not found:
        raise InputError(f"{file}: nothing is judged yet; write 1, 2 or 0 into the column better")
    judged: dict[str, list[Judgement]] = {}
    for (name, temperature), rows in found.items():
        outcomes = np.array([won for won, _ in rows])
        longer = np.array([made.longer for _, made in rows])
        _, made = rows[0]
        one = judgement_of(
            outcomes,
            longer,
            np.arange(len(rows)),  # one comparison a prompt
            step=made.step,
            first_step=made.first_step,
            temperature=temperature,
        )
        judged.setdefault(name, []).append(one)
    return judged


def _comparisons(trace: Trace) -> Iterator[Comparison]:
    for run in trace.runs:
        yield from _of_run(trace, run)


def _of_run(trace: Trace, run: Run) -> Iterator[Comparison]:
    texts = read_prompts(run.folder)
    for temperature in temperatures(trace):
        samples = samples_of(trace, run, temperature=temperature).drop_duplicates(["step", "prompt_id"])
        steps = sorted(samples["step"].unique()) if len(samples) else []
        if len(steps) < 2:
            continue
        then, now = (
            samples[samples["step"] == step].set_index("prompt_id") for step in (steps[0], steps[-1])
        )
        for prompt in (name for name in then.index if name in now.index):
            digest = hashlib.sha256(f"{run.name}\n{temperature:g}\n{prompt}".encode()).digest()
            now_first = bool(digest[0] % 2)
            answers = [_cell(str(side.loc[prompt, "text"])) for side in (then, now)]
            yield Comparison(
                run=run.name,
                temperature=temperature,
                prompt_id=prompt,
                prompt=_cell(texts.get(str(then.loc[prompt, "pair_id"]), "")),
                answer_1=answers[now_first],
                answer_2=answers[not now_first],
                now_first=now_first,
                longer=float(now.loc[prompt, "num_tokens"] - then.loc[prompt, "num_tokens"]),
                first_step=int(steps[0]),
                step=int(steps[-1]),
            )


def _cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f" {text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as given:
            delimiter = max(DELIMITERS, key=given.readline().count)  # a spreadsheet writes its country's
            given.seek(0)
            reader = csv.DictReader(given, delimiter=delimiter)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{file}:1: no column {missing[0]!r}; keep the columns {', '.join(COLUMNS)}")
            for row in reader:
                yield reader.line_num, {name: row[name] or "" for name in COLUMNS}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read ({error})") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


DESCRIPTION = """\
Let people judge whether the answers of a run got worse. The first call writes a file of answers, step 0 beside now in
an order that it does not give away; people write 1, 2, or 0 for neither into its last
column; the second call reads it back."""

EPILOG = """\
examples
  %(prog)s runs/my-model answers.csv     writes the file, where there is none
  %(prog)s runs/my-model answers.csv     reads it once its column "better" is filled"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m rewardshape.judgements") -> int:
    """Write the file where there is none, else read it; exit status 0, or 2 with one ``error:`` line."""
    parser = parser_of(prog, DESCRIPTION, EPILOG)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run folder, or the folder of several")
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV; written where there is none, else read")
    return answered(parser, argv, _main)


def _main(arguments: argparse.Namespace) -> int:
    trace = read_trace(arguments.folder)
    if not arguments.file.exists():
        print(f"{arguments.file}: {write_judgements(trace, arguments.file)} comparisons to judge")
        return 0
    for name, judged in read_judgements(trace, arguments.file).items():
        for one in judged:
            print(f"{name}: {one.sentence}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m rewardshape.figures``: every figure of the project, the same bytes from the same inputs.

Figures of the theory are computed from formulas; figures of training from the traces below ``figures/runs``, or from
your own runs with ``--runs DIR``.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from rewardshape.errors import InputError
from rewardshape.pictures import PICTURES, draw, save
from rewardshape.trace import read_trace

OUTPUT = Path("figures")

DESCRIPTION = "Draw figures as SVG and PNG: those of the theory from formulas, those of training from traces."
EPILOG = """\
examples
  %(prog)s                                  every figure, from the traces in figures/runs
  %(prog)s reward_shapes phase_portrait     two figures of the theory
  %(prog)s sweep --runs runs/my-sweep --output my-figures"""


@dataclass(frozen=True)
class TheoryFigure:
    """A figure computed from formulas alone."""

    draw: Callable[[], Figure]
    caption: str


@dataclass(frozen=True)
class Source:
    """A run or sweep kept below ``figures/runs``: the command that makes it, and the figures drawn from it."""

    command: str
    pictures: tuple[str, ...]


THEORY: dict[str, TheoryFigure] = {}
SOURCES: dict[str, Source] = {}


def main(argv: Sequence[str] | None = None, prog: str = "python -m rewardshape.figures") -> int:
    """Exit status 0, or 2 with one ``error:`` line."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures to draw; default all")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="a run or sweep folder to draw from")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="DIR", help="where to write (default figures)"
    )
    arguments = parser.parse_args(argv)
    try:
        for path in draw_figures(arguments.names, runs=arguments.runs, output=arguments.output):
            print(path)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def draw_figures(names: Sequence[str] = (), *, runs: Path | None = None, output: Path = OUTPUT) -> list[Path]:
    """Draw the named figures, or all, into `output`; without names also ``README.md``, the index of them.

    Parameters
    ----------
    names : sequence of str
        From `THEORY` and `PICTURES`; empty for every figure there are numbers for.
    runs : Path, optional
        A run or sweep folder; default the traces below ``figures/runs``.
    output : Path
        The folder of the figures.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    InputError
        For an unknown name, or a figure the runs have no numbers for.
    """
    for name in names:
        if name not in {*THEORY, *PICTURES}:
            near = difflib.get_close_matches(name, [*THEORY, *PICTURES]) or [*THEORY, *PICTURES]
            raise InputError(f"no figure {name!r}; there is {', '.join(near)}")
    output.mkdir(parents=True, exist_ok=True)
    written = [
        path
        for name, figure in THEORY.items()
        if name in names or not (names or runs)
        for path in save(figure.draw, output / name)
    ]
    if runs is not None:
        written += _from_runs(names, runs, output)
    else:
        for folder, source in SOURCES.items():
            wanted = [name for name in source.pictures if not names or name in names]
            if wanted:
                written += _from_runs(wanted, OUTPUT / "runs" / folder, output)
    if not names and runs is None:
        index = output / "README.md"
        index.write_text(_index(), encoding="utf-8")
        written.append(index)
    return written


def _from_runs(names: Sequence[str], runs: Path, output: Path) -> list[Path]:
    trace = read_trace(runs)
    for name in names:
        if name in PICTURES and not PICTURES[name].can_draw(trace):
            needs = (
                "several runs"
                if PICTURES[name].several
                else f"{PICTURES[name].table}, which this trace lacks"
            )
            raise InputError(f"{runs}: figure {name} needs {needs}")
    wanted = [name for name in PICTURES if name in names] if names else list(PICTURES)
    return [path for name in wanted if PICTURES[name].can_draw(trace) for path in draw(name, trace, output)]


def _index() -> str:
    """The page of all figures: each picture, what it shows, the command that draws it."""
    parts = [
        "# Figures",
        "Written by `python -m rewardshape.figures`. Each is also there as SVG; "
        "`--runs DIR` draws the ones below from your own runs.",
    ]
    for name, figure in THEORY.items():
        parts += [
            f"## {name}",
            f"![{name}]({name}.png)",
            figure.caption,
            f"`python -m rewardshape.figures {name}`",
        ]
    for folder, source in SOURCES.items():
        for name in source.pictures:
            parts += [
                f"## {name}",
                f"![{name}]({name}.png)",
                PICTURES[name].caption,
                f"`python -m rewardshape.figures {name}`, from `figures/runs/{folder}`, which this made:",
                f"```\n{source.command}\n```",
            ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())

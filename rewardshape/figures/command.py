"""``python -m rewardshape.figures``: all that can be drawn, the same bytes from the same inputs.

Figures of the theory are computed from formulas; figures of training from the run or sweep given with ``--runs DIR``.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rewardshape.errors import InputError, printable
from rewardshape.figures.of_runs import PICTURES, draw, save
from rewardshape.figures.of_theory import THEORY
from rewardshape.figures.papers import PAPERS
from rewardshape.terminal import answered, parser_of
from rewardshape.trace import Trace, read_trace

OUTPUT = Path("figures")

DESCRIPTION = "Draw figures as SVG and PNG: those of the theory from formulas, those of training from traces."
EPILOG = """\
examples
  %(prog)s                                  every figure of the theory
  %(prog)s --runs runs/my-sweep             and all that can be drawn from these runs
  %(prog)s reward_shapes phase_portrait     two figures of the theory
  %(prog)s --paper alphapo --runs runs/my-sweep
  %(prog)s sweep --runs runs/my-sweep --output my-figures
  %(prog)s trajectories --runs runs/my-grid --col beta --row seed   small multiples, colours by alpha"""


class Drawn(NamedTuple):
    """What was drawn, and what was not and why."""

    files: list[Path]
    left_out: dict[str, str]
    """Name of a figure → the reason."""


def main(argv: Sequence[str] | None = None, prog: str = "python -m rewardshape.figures") -> int:
    """Exit status 0, or 2 with one ``error:`` line."""
    parser = parser_of(prog, DESCRIPTION, EPILOG)
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures to draw; default all that can be")
    parser.add_argument(
        "--paper",
        choices=PAPERS,
        metavar="NAME",
        help=f"the figures of a paper, in kind: {', '.join(PAPERS)}",
    )
    parser.add_argument("--runs", type=Path, metavar="DIR", help="a run or sweep folder to draw from")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="DIR", help="where to write (default figures)"
    )
    layout = parser.add_argument_group("layout", "by what the runs differ in: alpha, beta, gamma, seed, …")
    layout.add_argument("--hue", metavar="VALUE", help="colours; default alpha, where the runs differ in it")
    layout.add_argument("--col", metavar="VALUE", help="a panel for each, side by side")
    layout.add_argument("--row", metavar="VALUE", help="a panel for each, one below the other")
    return answered(parser, argv, _main)


def _main(arguments: argparse.Namespace) -> int:
    by = {name: getattr(arguments, name) for name in ("hue", "col", "row")}
    names, output = arguments.names, arguments.output
    drawn = draw_figures(names, runs=arguments.runs, output=output, paper=arguments.paper, **by)
    for path in drawn.files:
        print(printable(path))
    if drawn.left_out:
        print(f"left out: {_reasons(drawn.left_out)}")
    return 0


def draw_figures(
    names: Sequence[str] = (),
    *,
    runs: str | Path | None = None,
    output: str | Path = OUTPUT,
    paper: str | None = None,
    **by: str | None,
) -> Drawn:
    """Draw the named figures, or all that can be, into `output`.

    Parameters
    ----------
    names : sequence of str
        From `THEORY` and `PICTURES`; empty for every figure there are numbers for.
    runs : path, optional
        A run or sweep folder, for the figures of training.
    output : path
        The folder of the figures; made where it is missing.
    paper : str, optional
        A name of `PAPERS`: draw the figures that show what this paper's figures show.
    **by
        ``hue``, ``col``, ``row``: the values by which pictures of runs are laid out, as `draw` takes them.

    Returns
    -------
    Drawn
        The files written, and what was left out (of `names`, nothing ever is).

    Raises
    ------
    InputError
        For an unknown name, a folder without a trace, or a named figure that cannot be drawn.
    """
    for name in names:
        if name not in {*THEORY, *PICTURES}:
            near = difflib.get_close_matches(name, [*THEORY, *PICTURES]) or [*THEORY, *PICTURES]
            raise InputError(f"no figure {name!r}; there is {', '.join(near)}")
    if names and paper is not None:
        raise InputError(
            f"--paper {paper}: draws figures of its own; give figures by name or a paper, not both"
        )
    if runs is None and (asked := [name for name, value in by.items() if value is not None]):
        raise InputError(f"--{asked[0]}: lays out pictures of runs; give --runs DIR, too")
    if runs is None and (of_runs := [name for name in names if name in PICTURES]):
        raise InputError(f"figure {of_runs[0]}: drawn from runs, give --runs DIR")
    wanted = {*THEORY, *PICTURES} if paper is None else set(PAPERS[paper].names)
    trace = None if runs is None else read_trace(runs)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    files = [
        path
        for name, figure in THEORY.items()
        if name in (names or wanted)
        for path in save(figure.draw, output / name)
    ]
    left_out = {}
    for name in PICTURES:
        if name not in (names or wanted):
            continue
        try:
            files += _of_runs(name, trace, output, by)
        except InputError as error:
            if names:
                raise InputError(f"figure {name}: {error}") from error
            left_out[name] = str(error)
    return Drawn(files, left_out)


def _of_runs(name: str, trace: Trace | None, output: Path, by: Mapping[str, str | None]) -> list[Path]:
    if trace is None:
        raise InputError("drawn from runs, give --runs DIR")
    return draw(name, trace, output, **by)


def _reasons(left_out: dict[str, str]) -> str:
    """What was left out, the names that share a reason together."""
    together: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        together.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in together.items())

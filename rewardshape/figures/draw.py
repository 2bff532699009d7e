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

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rewardshape.errors import InputError
from rewardshape.figures import theory_tables as tables
from rewardshape.figures.of_runs import BOTH_COLUMNS, PICTURES, draw, save
from rewardshape.plotting import theory
from rewardshape.plotting.style import COLUMN_WIDTH
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


def _reward_shapes() -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(BOTH_COLUMNS, 2.7), sharey=True)
    curves = tables.shape_curves()
    theory.plot_rewards(curves, axes[0], over="probability", legend=False)
    theory.plot_rewards(curves, axes[1], over="s")
    axes[1].set_ylabel("")
    return figure


def _reward_slopes() -> Figure:
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 2.9))
    theory.plot_slopes(tables.shape_curves(), ax)
    return figure


def _gradient_weights() -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(BOTH_COLUMNS, 2.9), sharey=True)
    weights = tables.weight_map()
    for ax, response in zip(axes, ("chosen", "rejected"), strict=True):
        theory.plot_weight_map(weights, ax, response=response)
    axes[1].set_ylabel("")
    return figure


def _gradient_magnitude() -> Figure:
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 2.7))
    theory.plot_gradient_magnitude(tables.gradient_by_alpha(), ax)
    return figure


def _phase_portrait() -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(BOTH_COLUMNS, 2.7), sharey=True)
    portrait = tables.phase_portrait()
    for ax, alpha in zip(axes, (-1.0, 0.0, 1.0), strict=True):
        theory.plot_phase_portrait(portrait, ax, alpha=alpha)
    for ax in axes[1:]:
        ax.set_ylabel("")
    return figure


def _zoo() -> Figure:
    figure, ax = plt.subplots(figsize=(BOTH_COLUMNS, 3.2))
    theory.plot_zoo(tables.zoo_curves(), ax)
    return figure


def _displacement_theory() -> Figure:
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 2.7))
    theory.plot_displacement_by_alpha(tables.displacement_by_alpha(), ax)
    return figure


THEORY = {
    "reward_shapes": TheoryFigure(
        _reward_shapes,
        "Reward φ of every shape over the probability (left) and the log-probability (right) of a response. Negative "
        "α bounds the reward from below; positive α makes it fall ever faster as a response becomes improbable.",
    ),
    "reward_slopes": TheoryFigure(
        _reward_slopes,
        "Slope φ′ of every shape: how strongly a response of that log-probability is pulled or pushed, before the "
        "link's common factor.",
    ),
    "gradient_weights": TheoryFigure(
        _gradient_weights,
        "Gradient weights of AlphaPO (α = 0.25, β = 2.5, γ = 0.25) over the scores of the two responses: how hard the "
        "chosen one is pulled up (left) and the rejected one pushed down (right). Dashed: equal scores.",
    ),
    "gradient_magnitude": TheoryFigure(
        _gradient_magnitude,
        "Gradient magnitude of the AlphaPO loss against α for three pairs. Large |α| of either sign switches off "
        "pairs that are in order; a pair in the wrong order (dotted) is pushed ever harder by positive α.",
    ),
    "phase_portrait": TheoryFigure(
        _phase_portrait,
        "Where a pair of similar responses goes (Gram matrix a = 1, b = 1.1, c = 1.5): flow, paths from several "
        "starts, and the contour at which the margin is met. α bends the paths and moves the contour.",
    ),
    "zoo": TheoryFigure(
        _zoo,
        "The objectives of the field on one axis: ratio of the chosen to the rejected gradient weight against the gap "
        "of their scores. Below b/a of a pair (gradient overlap), the chosen response falls.",
    ),
    "displacement_theory": TheoryFigure(
        _displacement_theory,
        "Displacement of the chosen response that the path theorem predicts at equal margin, and at equal gap, "
        "against α, for pairs of three log-probabilities.",
    ),
}
STORIES = "python -m rewardshape.probe ../shared/checkpoints/stories260K --data ../shared/data/"
SOURCES = {
    "embedded": Source(
        "python -m rewardshape.probe --output figures/runs/embedded --sample-every 15 --samples 128 --best-of 8 "
        "--geometry-every 15 --probe-every 3",
        (
            "sweep",
            "trajectories",
            "final",
            "equal_margin",
            "displacement",
            "predicted_vs_measured",
            "gold",
            "gold_sweep",
        ),
    ),
    "polite": Source(
        f"{STORIES}llms_from_scratch_polite.jsonl --alpha 0 --steps 60 --learning-rate 3e-4 --no-end-token "
        "--probe-pairs 96 --probe-every 10 --geometry-every 60 --output figures/runs/polite",
        ("ches_vs_displacement",),
    ),
    "response-kinds": Source(
        f"{STORIES}learning_dynamics_helpful_probe.jsonl --alpha 0 --steps 60 --learning-rate 1e-4 "
        "--max-prompt-tokens 192 --max-response-tokens 128 --no-end-token --skip-bad-rows --probe-pairs 32 "
        "--probe-every 10 --probe-responses chosen_initial chosen_selfr chosen_gptsemantic chosen_gptformat "
        "reject_gptsemantic reject_gptformat irr_train irr_test irr_hum random_permute random_nonhum "
        "--output figures/runs/response-kinds",
        ("responses",),
    ),
}


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
            command = f"`python -m rewardshape.figures {name}`, from [runs/{folder}](#the-runs)"
            parts += [f"## {name}", f"![{name}]({name}.png)", PICTURES[name].caption, command]
    commands = "\n".join(source.command for source in SOURCES.values())
    parts += [
        "## The runs",
        "What these commands made is kept in `runs/`, without the checkpoints:",
        f"<!-- not run: it writes the runs that are kept here -->\n```bash\n{commands}\n```",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())

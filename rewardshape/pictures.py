"""A trace to figures: which pictures a run or a sweep has, drawn in the project's style."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rewardshape.analysis import displacement_curve, displacement_summary
from rewardshape.plotting import displacement, sweep
from rewardshape.plotting.style import COLUMN_WIDTH, style
from rewardshape.trace import Trace


def draw_displacement(trace: Trace) -> Figure:
    """Chosen and rejected log-prob of the probe set over the steps of one run."""
    figure, ax = plt.subplots()
    displacement.plot_displacement(displacement_curve(trace).query("response in ('chosen', 'rejected')"), ax)
    return figure


def draw_responses(trace: Trace) -> Figure:
    """Every response kind of the probe set over the steps of one run: where the probability went."""
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 3.2))
    displacement.plot_responses(displacement_curve(trace), ax)
    return figure


def draw_sweep(trace: Trace) -> Figure:
    """Chosen and rejected log-prob over the steps, by α."""
    figure = plt.figure(figsize=(2 * COLUMN_WIDTH, 2.5))
    sweep.plot_sweep(displacement_curve(trace))
    return figure


def draw_trajectories(trace: Trace) -> Figure:
    """The path of every run in the plane of margin and chosen log-prob."""
    figure, ax = plt.subplots()
    sweep.plot_trajectory(displacement_curve(trace), ax)
    return figure


def draw_final(trace: Trace) -> Figure:
    """Displacement and share of pairs fallen at the last step, against α."""
    figure = plt.figure(figsize=(COLUMN_WIDTH, 3.4))
    sweep.plot_final_displacement(displacement_summary(trace))
    return figure


ONE_RUN: dict[str, Callable[[Trace], Figure]] = {"displacement": draw_displacement, "responses": draw_responses}
SEVERAL_RUNS: dict[str, Callable[[Trace], Figure]] = {
    "sweep": draw_sweep,
    "trajectories": draw_trajectories,
    "final": draw_final,
}


def draw_all(trace: Trace, folder: Path) -> list[Path]:
    """Draw every picture that the trace has into `folder`, as SVG and PNG."""
    pictures = ONE_RUN if len(trace.runs) == 1 else SEVERAL_RUNS
    folder.mkdir(parents=True, exist_ok=True)
    return [path for name, draw in pictures.items() for path in save(draw, trace, folder / name)]


def save(draw: Callable[[Trace], Figure], trace: Trace, stem: Path) -> list[Path]:
    """Draw in the project's style and write ``stem.svg`` and ``stem.png``: the same bytes from the same trace."""
    with style():
        figure = draw(trace)
        paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".svg", ".png")]
        figure.savefig(paths[0], metadata={"Date": None, "Creator": None})
        figure.savefig(paths[1], metadata={"Software": None})
        plt.close(figure)
    return paths

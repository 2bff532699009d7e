"""The figures that are computed from formulas alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rewardshape.figures import theory_tables as tables
from rewardshape.numbers import parameter
from rewardshape.plotting import theory
from rewardshape.plotting.style import BOTH_COLUMNS, COLUMN_WIDTH
from rewardshape.theory import objective


@dataclass(frozen=True)
class TheoryFigure:
    """A figure computed from formulas alone."""

    draw: Callable[[], Figure]
    caption: str


def _made_with(table: Callable[..., object]) -> str:
    """The Gram matrix, β and γ that a table is made with where nothing else is said."""
    given = {name: one.default for name, one in inspect.signature(table).parameters.items()}
    gram = ", ".join(parameter(name, value) for name, value in zip("abc", given["gram"], strict=True))
    return f"{gram}; {', '.join(parameter(name, given[name]) for name in ('beta', 'gamma'))}"


WEIGHTS_OF = ", ".join(parameter(*stated) for stated in objective("alphapo").parameters.items())
MAGNITUDE_OF = _made_with(tables.gradient_by_alpha)
PORTRAIT_OF = _made_with(tables.phase_portrait)
DISPLACEMENT_OF = _made_with(tables.displacement_by_alpha)


def _reward_shapes() -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(BOTH_COLUMNS, 2.7), sharey=True)
    curves = tables.shape_curves()
    theory.plot_rewards(curves, axes[0], over="probability")
    theory.plot_rewards(curves, axes[1], over="s", legend=False)
    axes[1].set_ylabel("")
    return figure


def _reward_slopes() -> Figure:
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 2.9))
    theory.plot_slopes(tables.shape_curves(), ax)
    return figure


def _gradient_weights() -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(BOTH_COLUMNS, 2.3), sharey=True)
    weights = tables.weight_map()
    for ax, response in zip(axes, ("chosen", "rejected"), strict=False):
        theory.plot_weight_map(weights, ax, response=response, bar=response == "rejected")
    theory.plot_weight_ratio(weights, axes[2], overlap=tables.OVERLAP)
    for ax in axes[1:]:
        ax.set_ylabel("")
    figure.suptitle(f"AlphaPO, {WEIGHTS_OF}", fontsize="small")
    return figure


def _gradient_magnitude() -> Figure:
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 3.0))
    figure.suptitle(f"AlphaPO; {MAGNITUDE_OF}", fontsize="small")
    theory.plot_gradient_magnitude(tables.gradient_by_alpha(), ax)
    return figure


def _phase_portrait() -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(BOTH_COLUMNS, 3.05), sharey=True)
    portrait = tables.phase_portrait()
    for ax, alpha in zip(axes, (-1.0, 0.0, 1.0), strict=True):
        theory.plot_phase_portrait(portrait, ax, alpha=alpha)
    for ax in axes[1:]:
        ax.set_ylabel("")
    figure.suptitle(PORTRAIT_OF, fontsize="small")
    axes[1].legend(loc="upper left", fontsize="x-small", frameon=True, framealpha=0.9, edgecolor="none")
    return figure


def _zoo() -> Figure:
    figure, ax = plt.subplots(figsize=(BOTH_COLUMNS, 3.2))
    theory.plot_zoo(tables.zoo_curves(), ax, overlap=tables.OVERLAP)
    return figure


def _displacement_theory() -> Figure:
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 2.8))
    figure.suptitle(DISPLACEMENT_OF, fontsize="small")
    theory.plot_displacement_by_alpha(tables.displacement_by_alpha(), ax)
    return figure


def _squeezing() -> Figure:
    figure, ax = plt.subplots(figsize=(COLUMN_WIDTH, 2.5))
    theory.plot_squeezing(tables.squeezing(), ax)
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
        f"Gradient weights of AlphaPO ({WEIGHTS_OF}) over the scores of the two responses, on one "
        "scale: how hard the chosen one is pulled up (left), the rejected one pushed down (middle), and their ratio "
        "(right). White, dashed: equal scores. Black: where the ratio is b/a = 1.1; below it that pair's chosen "
        "response falls.",
    ),
    "gradient_magnitude": TheoryFigure(
        _gradient_magnitude,
        f"Gradient magnitude of the AlphaPO loss against α for three pairs ({MAGNITUDE_OF}). "
        "Large |α| of either sign switches off pairs that are in order; a pair in the wrong "
        "order (dash-dotted) is pushed ever harder by positive α.",
    ),
    "phase_portrait": TheoryFigure(
        _phase_portrait,
        f"Where a pair of similar responses goes (Gram matrix {PORTRAIT_OF}): the flow, with "
        "longer arrows where it is faster; paths from several starts (rings); and, dashed, the contour z = 0, where "
        "the margin is γ and half of the pull is left: paths are drawn to there, training goes on. A ring without a "
        "path has met it from the start. Dotted: equal scores. α bends the paths and moves the contour.",
    ),
    "zoo": TheoryFigure(
        _zoo,
        "Published objectives on one axis: ratio of the chosen to the rejected gradient weight against the gap of "
        "their scores, at a mean score of −2 nats. Below the dashed line, b/a = 1.1 (the overlap of a pair's "
        "gradients), that pair's chosen response falls. Lines break where a weight jumps and end where the chosen "
        "response is no longer pushed up or the rejected down (NCA, SPPO), or where a log-prob would exceed 0 "
        "(AlphaPO); of lines that coincide the longest is drawn.",
    ),
    "squeezing": TheoryFigure(
        _squeezing,
        "Squeezing in a softmax over eight tokens: gradient steps that only push down a token that was improbable "
        "already take probability from nearly every token and give it to the most probable one.",
    ),
    "displacement_theory": TheoryFigure(
        _displacement_theory,
        "Displacement of the chosen response that the path theorem predicts against α, for pairs that start level at "
        f"three log-probabilities ({DISPLACEMENT_OF}). Lines end where a log-prob would exceed 0. "
        "Equal reward margin: each α is followed until its own margin is γ (z = 0), where half of the pull is left. "
        "Equal gap (dotted): all are followed until the two scores stand γ/β apart; there a larger α always costs "
        "more.",
    ),
}

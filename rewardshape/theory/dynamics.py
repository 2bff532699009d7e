"""Two-response dynamics: where an objective moves the chosen and the rejected response of a pair.

With the Gram matrix of the pair's score gradients, a = ‖∇s_w‖², b = ⟨∇s_w, ∇s_l⟩, c = ‖∇s_l‖², gradient flow obeys

    ds_w/dt = w_w·a − w_l·b,      ds_l/dt = w_w·b − w_l·c.

Dividing out the common clock −ℓ′(z)·β leaves a direction that depends on the shape and the Gram matrix alone: link,
β and γ decide how fast a pair travels its path, never where the path leads. All of this holds with the Gram matrix
fixed; `rewardshape.theory.softmax` is a model in which it moves. How far a pair has come at a given margin is the
subject of `rewardshape.theory.at_margin`. `docs/theory.md` derives the formulas.

Scores are in nats (per token where the objective's score is); Δ = s_w − s_l is the gap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rewardshape.errors import InputError
from rewardshape.theory._arrays import Array, Pair, exprel
from rewardshape.theory.links import Logistic
from rewardshape.theory.objectives import Objective, Pairwise
from rewardshape.theory.scores import Score
from rewardshape.theory.shapes import Alpha, Shape


class Gram(NamedTuple):
    """Gram matrix of a pair's score gradients: a = `ww`, b = `wl`, c = `ll`; floats or arrays that broadcast."""

    ww: Array
    wl: Array
    ll: Array


class Stall(NamedTuple):
    """A gap at which Δ no longer moves, and whether flow runs into it (or away from it)."""

    gap: Array
    attracts: Array


def flow(made: Objective, s_w: Array, s_l: Array, gram: Gram) -> Pair:
    """(ds_w/dt, ds_l/dt) of gradient flow on the objective's loss of one pair.

    Parameters
    ----------
    made : Objective
        Anything with `weights` of two scores.
    s_w, s_l : array
        Scores in nats, broadcast with the Gram entries.

    Examples
    --------
    >>> from rewardshape.theory import objective
    >>> rise, fall = flow(objective("simpo", beta=1.0, gamma=0.0), -1.0, -1.0, Gram(1.0, 0.5, 1.0))
    >>> rise, fall
    (0.25, -0.25)
    """
    w_w, w_l = made.weights(s_w, s_l)
    return w_w * gram.ww - w_l * gram.wl, w_w * gram.wl - w_l * gram.ll


def weight_ratio(shape: Shape, s_w: Array, s_l: Array) -> Array:
    """ρ = w_w/w_l = φ′(s_w)/φ′(s_l): the shape's alone, whatever link, β and γ."""
    sign = _direction(shape, s_w) * _direction(shape, s_l)
    return sign * np.exp(shape.log_slope(s_w) - shape.log_slope(s_l))


def _direction(shape: Shape, s: Array) -> Array:
    return shape.compute_direction(np, _array(s))


def chosen_falls(shape: Shape, s_w: Array, s_l: Array, gram: Gram) -> Array:
    """Whether the chosen response loses probability now: a·φ′(s_w) < b·φ′(s_l).

    At α = 0 that is b > a (gradient entanglement, arXiv:2410.13828).
    """
    towards = _direction(shape, s_l)
    return towards * np.asarray(gram.wl) > towards * weight_ratio(shape, s_w, s_l) * gram.ww


def disentanglement_band(gram: Gram) -> tuple[Array, Array]:
    """The ratios w_w/w_l between which the chosen response rises and the rejected one falls: (b/a, c/b).

    The band is never empty (b² ≤ ac), and its middle on a logarithmic scale is √(c/a), towards which the reward
    calibration of the reference rescales both weights. Where b ≤ 0 every ratio lies in it: (0, ∞).

    References
    ----------
    Disentangled preference optimization, arXiv:2604.18239, and the authors' dpo_trainer.py.
    """
    a, b, c = map(_array, gram)
    apart = b <= 0
    with np.errstate(all="ignore"):
        return np.where(apart, 0.0, b / a)[()], np.where(apart, np.inf, c / b)[()]


def probability_gradient_ratio(shape: Shape, s_w: Array, s_l: Array) -> Array:
    """|∂L/∂π(y_l)| / |∂L/∂π(y_w)| of a pairwise loss on s = log π: how much steeper it is in the rejected probability.

    It is (π_w/π_l)·w_l/w_w, for the alpha family e^((1+α)(s_w − s_l)): as a rejected response vanishes the loss sees
    little else, except at α = −1, where both probabilities are pushed alike.

    References
    ----------
    The ratio at α = 0 is that of 3D-Properties, arXiv:2406.07327.
    """
    return np.exp(_array(s_w) - _array(s_l)) / weight_ratio(shape, s_w, s_l)


def turning_gap(alpha: Array, gram: Gram) -> Array:
    """Δ* = ln(a/b)/α: the gap at which the chosen response turns; NaN where it never does (b ≤ 0 or α = 0).

    For α > 0 it falls beyond Δ*; for α < 0 it rises beyond Δ*.
    """
    alpha, a, b = np.broadcast_arrays(*map(_array, (alpha, gram.ww, gram.wl)))
    turns = (alpha != 0) & (b > 0) & (a > 0)
    with np.errstate(all="ignore"):
        return np.where(turns, np.log(a / b) / alpha, np.nan)[()]


def stall_gap(alpha: Array, gram: Gram) -> Stall:
    r"""The gap at which both responses move at the same rate, so that Δ stands still; NaN where there is none.

    .. math:: \Delta_s = \frac{1}{\alpha} \ln \frac{a - b}{b - c}

    It exists where exactly one of a, c is below b. It attracts where α(a − b) > 0: then Δ never passes Δ_s, and a
    margin beyond it is bought by moving both responses together: down for α > 0 (c < b), up for α < 0 (a < b).
    Otherwise it repels, and a pair below it drifts the wrong way although its margin still grows.
    """
    alpha, a, b, c = np.broadcast_arrays(*map(_array, (alpha, *gram)))
    stalls = (alpha != 0) & ((a - b) * (c - b) < 0)
    ratio = np.where(stalls, (a - b) / np.where(stalls, b - c, 1.0), 1.0)
    gap = np.where(stalls, np.log(ratio) / np.where(stalls, alpha, 1.0), np.nan)
    return Stall(gap[()], (stalls & (alpha * (a - b) > 0))[()])


def path(alpha: Array, gram: Gram, s_w: Array, s_l: Array, gap: Array) -> Pair:
    r"""The point at which a pair that sets out from (s_w, s_l) has the given gap, in closed form.

    The path is followed forwards in time only: the gap moves at the rate w_l·f, so it grows where f₀ > 0 and shrinks
    where f₀ < 0.

    With ρ = e^(−αΔ), f = (a−b)ρ + (c−b), h = Δ − Δ₀ and L(y) = −ln(1−y)/y,

    .. math:: s_w(\Delta) - s_w(\Delta_0) = a J_1 - b J_0, \qquad
              J_1 = \int \frac{\rho}{f} = \frac{\rho_0 U}{f_0} L\!\left(\frac{\alpha (a-b) \rho_0 U}{f_0}\right), \qquad
              J_0 = \int \frac{1}{f} = \frac{V}{f_0} L\!\left(-\frac{\alpha (c-b) V}{f_0}\right)

    with U = (1 − e^(−αh))/α and V = (e^(αh) − 1)/α. The limits α = 0, a = b and c = b are ordinary points of this
    form. It is the flow of every objective with this shape, whatever its link, β and γ.

    Returns
    -------
    tuple of arrays
        (s_w, s_l); NaN where the pair never comes to that gap: it lies beyond a stall, or in the direction the pair
        comes from. A link whose pull ends (a hinge) may let the pair go before.
    """
    alpha, a, b, c, s_w, s_l, gap = map(_array, (alpha, *gram, s_w, s_l, gap))
    p, q, start = a - b, c - b, s_w - s_l
    h = gap - start
    with np.errstate(all="ignore"):
        rho_0, rho = np.exp(-alpha * start), np.exp(-alpha * gap)
        f_0, f = p * rho_0 + q, p * rho + q
        u, v = h * exprel(np, -alpha * h), h * exprel(np, alpha * h)
        change = -alpha * p * rho_0 * u / f_0  # f/f₀ − 1
        other = alpha * q * v / f_0  # f·e^(αh)/f₀ − 1
        j_1 = rho_0 * u / f_0 * _log_over(change, f / f_0)
        j_0 = v / f_0 * _log_over(other, (p * rho_0 + q * np.exp(alpha * h)) / f_0)
        moved = a * j_1 - b * j_0
    reached = ((f * f_0 > 0) & (h * f_0 > 0)) | (h == 0)
    end = s_w + np.where(h == 0, 0.0, moved)
    end = np.where(reached, end, np.nan)
    return end[()], (end - gap)[()]


def integrated_path(shape: Shape, gram: Gram, s_w: float, s_l: float, gaps: Array) -> Pair:
    """The path from one point (s_w, s_l) at gaps Δ ≥ s_w − s_l, in any order, for any shape, by integration.

    The equation is ds_w/dΔ = (aρ − b)/((a−b)ρ + (c−b)) with ρ = φ′(s_w)/φ′(s_w − Δ).

    Raises
    ------
    InputError
        Where the pair does not get that far: its gap stalls, or shrinks; or where a gap lies behind its start.
    """
    from scipy.integrate import solve_ivp

    a, b, c = gram
    gaps, start = np.atleast_1d(_array(gaps)), s_w - s_l
    rounding = 4 * np.finfo(np.float64).eps * max(abs(s_w), abs(s_l))
    if gaps.min() < start - rounding:
        raise InputError(f"a gap of {gaps.min():g} lies behind the start of the pair, whose gap is {start:g}")
    wanted, back = np.unique(np.maximum(gaps, start), return_inverse=True)
    if wanted[-1] == start:
        return np.full_like(gaps, s_w), s_w - gaps

    def speed(gap: float, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rho = weight_ratio(shape, s, s - gap)
        return rho, (a - b) * rho + (c - b)

    def slope(gap: float, s: np.ndarray) -> np.ndarray:
        rho, f = speed(gap, s)
        return np.asarray((a * rho - b) / f)

    def stalled(gap: float, s: np.ndarray) -> float:
        rho, f = speed(gap, s)
        return float((f / (abs(a - b) * rho + abs(c - b)) - _STALLED)[0])

    if stalled(start, np.array([s_w])) <= 0:
        raise InputError(
            f"the gap of the pair ({s_w:g}, {s_l:g}) does not grow: training leads away from {gaps.max():g}"
        )
    stalled.terminal = True  # type: ignore[attr-defined]
    done = solve_ivp(
        slope,
        (start, float(wanted[-1])),
        np.array([s_w]),
        method="DOP853",
        t_eval=wanted,
        rtol=1e-11,
        atol=1e-12,
        events=stalled,
        max_step=0.5,
    )
    if done.status != 0:
        end = done.t_events[0][-1]
        raise InputError(f"the path from ({s_w:g}, {s_l:g}) stalls near a gap of {end:g} and goes no further")
    return done.y[0][back], done.y[0][back] - gaps


def gradient_magnitude(
    alpha: Array, s_w: Array, s_l: Array, *, beta: Array, gamma: Array, gram: Gram
) -> Array:
    """|∇L| of one pair of the AlphaPO loss: the square root of w_w²a − 2·w_w·w_l·b + w_l²c.

    It is not monotone in α (AlphaPO, arXiv:2501.03884, Theorem 3.1): for α → −∞ it vanishes where both scores are
    negative; for α → +∞ it vanishes for an ordered pair, s_w > s_l, and grows without bound otherwise.
    """
    score = Score(reference=False, per_token=True)
    w_w, w_l = Pairwise(score, Alpha(alpha), Logistic(), beta, gamma).weights(s_w, s_l)
    a, b, c = gram
    largest = np.maximum(w_w, w_l)  # factored out: its square may over- or underflow
    scale = np.where(largest == 0, 1.0, largest)
    beyond = np.isinf(scale)
    w_w, w_l = (
        np.where(beyond, np.isinf(weight), weight / np.where(beyond, 1.0, scale)) for weight in (w_w, w_l)
    )
    return scale * np.sqrt(np.maximum(w_w**2 * a - 2 * w_w * w_l * b + w_l**2 * c, 0.0))


_STALLED = 1e-6  # of the speed that the two responses have: below it the gap is taken to stand still


def _log_over(change: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """ln(1 + y)/y for y = `change`, 1 at y = 0; through `ratio` = 1 + y where y is large, which may be more exact."""
    zero = change == 0
    logarithm = np.where(np.abs(change) < 0.5, np.log1p(change), np.log(ratio))
    return np.where(zero, 1.0, logarithm / np.where(zero, 1.0, change))


def _array(value: Array) -> np.ndarray:
    return np.asarray(value, dtype=np.float64)

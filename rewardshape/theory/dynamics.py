"""Two-response dynamics: where an objective moves the chosen and the rejected response of a pair.

With the Gram matrix of the pair's score gradients, a = ‖∇s_w‖², b = ⟨∇s_w, ∇s_l⟩, c = ‖∇s_l‖², gradient flow obeys

    ds_w/dt = w_w·a − w_l·b,      ds_l/dt = w_w·b − w_l·c.

Dividing out the common clock −ℓ′(z)·β leaves a direction that depends on the shape and the Gram matrix alone: link,
β and γ decide how fast a pair travels its path and where it stops, never where the path leads. All of this holds
with the Gram matrix fixed; `softmax_flow` is a model in which it moves. `docs/theory.md` derives the formulas.

Scores are in nats (per token where the objective's score is); Δ = s_w − s_l is the gap.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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


class Sensitivity(NamedTuple):
    """d(displacement)/dα at α = 0 and equal margin, in its two parts."""

    stopping: Array
    bending: Array


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
    return np.exp(shape.log_slope(s_w) - shape.log_slope(s_l))


def chosen_falls(shape: Shape, s_w: Array, s_l: Array, gram: Gram) -> Array:
    """Whether the chosen response loses probability now: b > a·φ′(s_w)/φ′(s_l).

    At α = 0 that is b > a (gradient entanglement, arXiv:2410.13828).
    """
    return np.asarray(gram.wl) > weight_ratio(shape, s_w, s_l) * gram.ww


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
    r"""The point (s_w, s_l) at which the path from (s_w, s_l) has the given gap, in closed form.

    With ρ = e^(−αΔ), f = (a−b)ρ + (c−b), h = Δ − Δ₀ and L(y) = −ln(1−y)/y,

    .. math:: s_w(\Delta) - s_w(\Delta_0) = a J_1 - b J_0, \qquad
              J_1 = \int \frac{\rho}{f} = \frac{\rho_0 U}{f_0} L\!\left(\frac{\alpha (a-b) \rho_0 U}{f_0}\right), \qquad
              J_0 = \int \frac{1}{f} = \frac{V}{f_0} L\!\left(-\frac{\alpha (c-b) V}{f_0}\right)

    with U = (1 − e^(−αh))/α and V = (e^(αh) − 1)/α. The limits α = 0, a = b and c = b are ordinary points of this
    form. It is the flow of every objective with this shape, whatever its link, β and γ.

    Returns
    -------
    tuple of arrays
        NaN where the path never has that gap: beyond a stall.
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
    reached = (f * f_0 > 0) | (h == 0)
    end = s_w + np.where(h == 0, 0.0, moved)
    end = np.where(reached, end, np.nan)
    return end[()], (end - gap)[()]


def integrated_path(shape: Shape, gram: Gram, s_w: float, s_l: float, gaps: Array) -> Pair:
    """The path from one point (s_w, s_l) at increasing gaps Δ ≥ s_w − s_l, for any shape, by integration.

    The equation is ds_w/dΔ = (aρ − b)/((a−b)ρ + (c−b)) with ρ = φ′(s_w)/φ′(s_w − Δ).

    Raises
    ------
    InputError
        Where the path does not get that far (a stall).
    """
    from scipy.integrate import solve_ivp

    a, b, c = gram
    gaps = np.atleast_1d(_array(gaps))

    def speed(gap: float, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rho = weight_ratio(shape, s, s - gap)
        return rho, (a - b) * rho + (c - b)

    def slope(gap: float, s: np.ndarray) -> np.ndarray:
        rho, f = speed(gap, s)
        return np.asarray((a * rho - b) / f)

    def stalled(gap: float, s: np.ndarray) -> float:
        rho, f = speed(gap, s)
        return float((f / (abs(a - b) * rho + abs(c - b)) - _STALLED)[0])

    stalled.terminal = True  # type: ignore[attr-defined]
    span = (s_w - s_l, float(gaps.max()))
    done = solve_ivp(
        slope,
        span,
        np.array([s_w]),
        method="DOP853",
        t_eval=gaps,
        rtol=1e-11,
        atol=1e-12,
        events=stalled,
        max_step=0.5,
    )
    if done.status != 0:
        end = done.t_events[0][-1]
        raise InputError(f"the path from ({s_w:g}, {s_l:g}) stalls near a gap of {end:g} and goes no further")
    return done.y[0], done.y[0] - gaps


def stopping_point(
    alpha: Array, gram: Gram, s_w: Array, s_l: Array, *, margin: Array, beta: Array, gamma: Array
) -> Pair:
    r"""Where on its path a pair reaches the margin z: the point at which training on it effectively stops.

    The margin grows along every path, :math:`dz/dt \propto \|\varphi'(s_w)\nabla s_w - \varphi'(s_l)\nabla s_l\|^2`,
    so there is at most one such point. It is found on the path written in the accumulated weights
    W_w = ∫w_w dt and W_l = ∫w_l dt, which stays regular where the gap stalls:

    .. math:: s_w = s_w(0) + a W_w - b W_l, \qquad s_l = s_l(0) + b W_w - c W_l, \qquad
              \frac{e^{\alpha (a-b) W_w} - 1}{\alpha (a-b)} = \rho_0\, \frac{1 - e^{-\alpha (c-b) W_l}}{\alpha (c-b)}

    Returns
    -------
    tuple of arrays
        (s_w, s_l); the start where the margin is already reached, NaN where it never is. A score without a
        reference cannot exceed 0: a stopping point with s_w > 0 means that the target is out of the pair's reach.
    """
    from scipy.optimize import elementwise

    inputs = (alpha, *gram, s_w, s_l, (_array(margin) + _array(gamma)) / _array(beta))
    alpha, a, b, c, s_w, s_l, wanted = (
        x.astype(np.float64) for x in np.broadcast_arrays(*map(_array, inputs))
    )

    def missing(x: np.ndarray, *pair: np.ndarray) -> np.ndarray:
        return np.asarray(pair[-1] - _difference(pair[0], *travelled(x, *pair[:-1])))

    pair = (alpha, a, b, c, s_w, s_l, wanted)
    with np.errstate(all="ignore"):
        start = missing(np.zeros_like(alpha), *pair)
        rho = np.exp(-alpha * (s_w - s_l))
        rate = np.exp(-alpha * s_l) * (a * rho**2 - 2 * b * rho + c)
        rate = np.where(_by_chosen(alpha, a, b, c, rho), rate / rho, rate)
        far = np.where((start > 0) & (rate > 0), start / rate, 1.0)
        for _ in range(_DOUBLINGS):
            short = missing(far, *pair) > 0
            if not short.any():
                break
            far = np.where(short, 2 * far, far)
        found = elementwise.find_root(missing, (np.zeros_like(far), far), args=pair)
        end_w, end_l = travelled(found.x, *pair[:-1])
    done = start <= 0
    end_w, end_l = np.where(found.success, end_w, np.nan), np.where(found.success, end_l, np.nan)
    return np.where(done, s_w, end_w)[()], np.where(done, s_l, end_l)[()]


def displacement_at_margin(
    alpha: Array, gram: Gram, s_w: Array, s_l: Array, *, margin: Array, beta: Array, gamma: Array
) -> Array:
    """s_w at the stopping point minus s_w now, in nats (per token): below 0 the chosen response has lost.

    Examples
    --------
    Two like responses at −2 nats per token: α = 1 reaches the margin with less displacement than α = 0.

    >>> near = Gram(1.0, 1.1, 1.5)
    >>> lost = displacement_at_margin(np.array([0.0, 1.0]), near, -2.0, -2.0, margin=0.0, beta=2.0, gamma=1.0)
    >>> lost.round(3)
    array([-0.167, -0.028])
    """
    end_w, _ = stopping_point(alpha, gram, s_w, s_l, margin=margin, beta=beta, gamma=gamma)
    return end_w - s_w


def alpha_sensitivity(
    gram: Gram, s_w: Array, s_l: Array, *, margin: Array, beta: Array, gamma: Array
) -> Sensitivity:
    r"""How displacement at equal margin changes with α, at α = 0: the two effects that pull apart.

    .. math:: \left.\frac{d}{d\alpha}\right|_0 (s_w^{\text{stop}} - s_w) =
              \underbrace{\kappa\, m\, \bar s}_{\text{stopping}} -
              \underbrace{\frac{(ac - b^2)(m^2 - \Delta_0^2)}{2 (a + c - 2b)^2}}_{\text{bending}}, \qquad
              \kappa = \frac{a - b}{a + c - 2b}, \quad m = \frac{z + \gamma}{\beta}

    s̄ is the mean of the two scores where α = 0 stops. Where κ < 0 (the chosen response falls) and s̄ < 0, stopping
    is positive: α > 0 saves probability. Bending is what a steeper push on the rejected response costs.
    """
    a, b, c = map(_array, gram)
    s_w, s_l = _array(s_w), _array(s_l)
    wanted, start, spread = (_array(margin) + gamma) / _array(beta), s_w - s_l, a + c - 2 * b
    kappa = (a - b) / spread
    middle = s_w + kappa * (wanted - start) - wanted / 2
    bending = -(a * c - b * b) * (wanted**2 - start**2) / (2 * spread**2)
    return Sensitivity((kappa * wanted * middle)[()], bending[()])


def effective_beta(alpha: Array, s_w: Array, s_l: Array, *, beta: Array) -> Array:
    r"""The β at which α = 0 has the same margin at (s_w, s_l).

    .. math:: \beta_{\text{eff}} = \beta\, e^{-\alpha \bar s}\, \frac{\sinh(\alpha\Delta/2)}{\alpha\Delta/2}, \qquad
              \bar s = \tfrac12 (s_w + s_l)

    With s̄ < 0, α > 0 acts as a larger β at unchanged γ, hence as a smaller γ/β.
    """
    alpha, s_w, s_l = map(_array, (alpha, s_w, s_l))
    half = alpha * (s_w - s_l) / 2
    return _array(beta) * np.exp(-alpha * (s_w + s_l) / 2) * _sinhc(half)


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
    w_w, w_l = w_w / scale, w_l / scale
    return scale * np.sqrt(np.maximum(w_w**2 * a - 2 * w_w * w_l * b + w_l**2 * c, 0.0))


def softmax_flow(
    made: Objective, features: Array, chosen: int, rejected: int, times: Array, start: Array | None = None
) -> dict[str, np.ndarray]:
    """Gradient flow of a softmax model over a vocabulary of responses, where the Gram matrix moves with the policy.

    The policy is π = softmax(X·θ); the pair's score gradients are ∇s_y = x_y − E_π[x].

    Parameters
    ----------
    made : Objective
        Anything with `weights` of two scores; scores are log π(y), minus their value at the start if it has a
        reference.
    features : array, shape (responses, dimensions)
        X, one row for each response of the vocabulary.
    chosen, rejected : int
        Their rows.
    times : array, shape (times,)
        Increasing, from 0.
    start : array, shape (dimensions,), optional
        θ at time 0; zero, the uniform policy, where left out.

    Returns
    -------
    dict of arrays, shape (times,)
        logp_chosen, logp_rejected (log π), gram_ww, gram_wl, gram_ll.
    """
    from scipy.integrate import solve_ivp

    features, times = _array(features), _array(times)
    theta = np.zeros(features.shape[1]) if start is None else _array(start)

    def log_policy(theta: np.ndarray) -> np.ndarray:
        logits: np.ndarray = features @ theta
        return np.asarray(logits - np.logaddexp.reduce(logits))

    def gradients(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centred = features - np.exp(log_policy(theta)) @ features
        return centred[chosen], centred[rejected]

    initial = log_policy(theta)
    reference = initial if made.scorer.reference else np.zeros(len(initial))

    def slope(_: float, theta: np.ndarray) -> np.ndarray:
        s = log_policy(theta) - reference
        w_w, w_l = made.weights(s[chosen], s[rejected])
        up, down = gradients(theta)
        return np.asarray(w_w * up - w_l * down)

    states = solve_ivp(slope, (0, times[-1]), theta, t_eval=times, method="DOP853", rtol=1e-9, atol=1e-11).y.T
    logps = np.array([log_policy(state)[[chosen, rejected]] for state in states])
    pairs = [gradients(state) for state in states]
    return {
        "logp_chosen": logps[:, 0],
        "logp_rejected": logps[:, 1],
        "gram_ww": np.array([up @ up for up, _ in pairs]),
        "gram_wl": np.array([up @ down for up, down in pairs]),
        "gram_ll": np.array([down @ down for _, down in pairs]),
    }


_STALLED = 1e-6  # of the speed that the two responses have: below it the gap is taken to stand still
_DOUBLINGS = 200  # of the first guess at how far to go: past any reachable margin in float64


def _by_chosen(alpha: Any, a: Any, b: Any, c: Any, rho: Any) -> Any:
    """Whether W_w rather than W_l is the accumulated weight that runs from 0 to infinity along the path."""
    p, q = a - b, c - b
    return (alpha * p < 0) & ~((alpha * q > 0) & (np.abs(q) > np.abs(p) * rho))


def travelled(x: Any, alpha: Any, a: Any, b: Any, c: Any, s_w: Any, s_l: Any) -> tuple[Any, Any]:
    """The point on the path after the accumulated weight `x`: W_l, or W_w where W_l would end at a finite value."""
    rho = np.exp(-alpha * (s_w - s_l))
    by_chosen = _by_chosen(alpha, a, b, c, rho)
    ap, aq = alpha * (a - b), alpha * (c - b)
    pulled = np.where(by_chosen, x, _accumulated(rho * x * exprel(np, -aq * x), ap))
    pushed = np.where(by_chosen, _accumulated(x * exprel(np, ap * x) / rho, -aq), x)
    return s_w + a * pulled - b * pushed, s_l + b * pulled - c * pushed


def _accumulated(t: Any, rate: Any) -> Any:
    """ln(1 + rate·t)/rate."""
    y = rate * t
    return t * np.where(y == 0, 1.0, np.log1p(y) / np.where(y == 0, 1.0, y))


def _difference(alpha: np.ndarray, s_w: np.ndarray, s_l: np.ndarray) -> np.ndarray:
    """φ_α(s_w) − φ_α(s_l) on bare arrays."""
    return np.asarray((s_w - s_l) * np.exp(-alpha * (s_w + s_l) / 2) * _sinhc(alpha * (s_w - s_l) / 2))


def _sinhc(x: np.ndarray) -> np.ndarray:
    return np.where(x == 0, 1.0, np.sinh(x) / np.where(x == 0, 1.0, x))


def _log_over(change: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """ln(1 + y)/y for y = `change`, 1 at y = 0; through `ratio` = 1 + y where y is large, which may be more exact."""
    zero = change == 0
    logarithm = np.where(np.abs(change) < 0.5, np.log1p(change), np.log(ratio))
    return np.where(zero, 1.0, logarithm / np.where(zero, 1.0, change))


def _array(value: Array) -> np.ndarray:
    return np.asarray(value, dtype=np.float64)

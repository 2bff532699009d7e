"""How far a pair of the alpha family has moved when it reaches a given margin, and how α changes that.

Training has no point at which it stops: at the margin z = 0 the logistic loss still pulls at half of its full
strength, at z = 2.94 at a twentieth. So every answer here is a function of the margin, or, which is the same, of the
pull that remains (`remaining_pull`). The Gram matrix is held fixed, as in `rewardshape.theory.dynamics`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rewardshape.theory._arrays import Array, Pair, exprel, sigmoid
from rewardshape.theory._check import number
from rewardshape.theory.dynamics import Gram


class Sensitivity(NamedTuple):
    """d(displacement)/dα at α = 0 and equal margin, in its two parts."""

    shortening: Array
    bending: Array


def remaining_pull(margin: Array) -> Array:
    """σ(−z): what is left, at the margin z, of the logistic loss's full pull on a pair.

    Examples
    --------
    >>> [round(float(remaining_pull(z)), 3) for z in (0.0, 1.0, 2.0, 2.944)]
    [0.5, 0.269, 0.119, 0.05]
    """
    return sigmoid(np, -_array(margin))[()]


def margin_at_pull(remaining: Array) -> Array:
    """The margin z at which that share of the logistic loss's full pull remains; the inverse of `remaining_pull`."""
    share = np.asarray(number("remaining", remaining, above=0, below=1))
    return (np.log1p(-share) - np.log(share))[()]


def point_at_margin(
    alpha: Array, gram: Gram, s_w: Array, s_l: Array, *, margin: Array, beta: Array, gamma: Array
) -> Pair:
    r"""Where on its path a pair reaches the margin z.

    The margin grows along every path, :math:`dz/dt \propto \|\varphi'(s_w)\nabla s_w - \varphi'(s_l)\nabla s_l\|^2`,
    so there is at most one such point. It is found on the path written in the accumulated weights
    W_w = ∫w_w dt and W_l = ∫w_l dt, which stays regular where the gap stalls:

    .. math:: s_w = s_w(0) + a W_w - b W_l, \qquad s_l = s_l(0) + b W_w - c W_l, \qquad
              \frac{e^{\alpha (a-b) W_w} - 1}{\alpha (a-b)} = \rho_0\, \frac{1 - e^{-\alpha (c-b) W_l}}{\alpha (c-b)}

    Returns
    -------
    tuple of arrays
        (s_w, s_l); the start where the margin is there already, NaN where the pair never reaches it, however long it
        is trained. A score without a reference cannot exceed 0: a point with s_w > 0 means that the target is out of
        the pair's reach.

    Raises
    ------
    ArithmeticError
        Where float64 cannot tell whether the margin is reached; NaN is never given for that.
    """
    from scipy.optimize import elementwise

    inputs = (alpha, *gram, s_w, s_l, (_array(margin) + _array(gamma)) / _array(beta))
    alpha, a, b, c, s_w, s_l, wanted = (
        x.astype(np.float64) for x in np.broadcast_arrays(*map(_array, inputs))
    )

    def missing(x: np.ndarray, *pair: np.ndarray) -> np.ndarray:
        end_w, gap = _travelled(x, *pair[:-1])
        return np.asarray(pair[-1] - _difference(pair[0], end_w, gap))

    pair = (alpha, a, b, c, s_w, s_l, wanted)
    with np.errstate(all="ignore"):
        start = missing(np.zeros_like(alpha), *pair)
        rho = np.exp(-alpha * (s_w - s_l))
        rate = np.exp(-alpha * s_l) * (a * rho**2 - 2 * b * rho + c)
        rate = np.where(_by_chosen(alpha, a, b, c, rho), rate / rho, rate)
        far = np.where((start > 0) & (rate > 0) & (rate < np.inf), start / rate, 1.0)
        for _ in range(_DOUBLINGS):
            left = missing(far, *pair)
            if not (left > 0).any():
                break
            far = np.where(left > 0, 2 * far, far)
        never = missing(far, *pair) > 0
        found = elementwise.find_root(missing, (np.zeros_like(far), far), args=pair)
        end_w, gap = _travelled(found.x, *pair[:-1])
    done = start <= 0
    _refuse(~(done | never | found.success), pair)
    lost = np.where(never, np.nan, 0.0)
    return np.where(done, s_w, end_w + lost)[()], np.where(done, s_l, end_w - gap + lost)[()]


def _refuse(unclear: np.ndarray, pair: tuple[np.ndarray, ...]) -> None:
    if unclear.any():
        at = tuple(np.argwhere(unclear)[0])
        names = ("alpha", "a", "b", "c", "s_w", "s_l", "difference of φ")
        values = ", ".join(f"{name} {float(value[at])!r}" for name, value in zip(names, pair, strict=True))
        raise ArithmeticError(f"float64 cannot tell whether this pair reaches its margin: {values}")


def displacement_at_margin(
    alpha: Array, gram: Gram, s_w: Array, s_l: Array, *, margin: Array, beta: Array, gamma: Array
) -> Array:
    """s_w at the point of that margin minus s_w now, in nats (per token): below 0 the chosen response has lost.

    Examples
    --------
    Two like responses at −2 nats per token: α = 1 reaches the margin with less displacement than α = 0.

    >>> near = Gram(1.0, 1.1, 1.5)
    >>> lost = displacement_at_margin(np.array([0.0, 1.0]), near, -2.0, -2.0, margin=0.0, beta=2.0, gamma=1.0)
    >>> lost.round(3)
    array([-0.167, -0.028])
    """
    end_w, _ = point_at_margin(alpha, gram, s_w, s_l, margin=margin, beta=beta, gamma=gamma)
    return end_w - s_w


def break_even_score(alpha: Array, gram: Gram, *, margin: Array, beta: Array, gamma: Array) -> Array:
    """The score at which a level pair (s_w = s_l) is displaced by α exactly as much as by α = 0, at that margin.

    Of pairs that start below it the α > 0 displaces less than α = 0, of pairs above it more. Nats (per token).

    Returns
    -------
    array
        NaN where no score between −50 and 0 does: of the two, one α displaces less at every score.

    Examples
    --------
    >>> near = Gram(1.0, 1.1, 1.5)
    >>> break_even_score(0.25, near, margin=np.array([0.0, 1.0]), beta=2.5, gamma=0.25).round(2)
    array([-0.33, -1.03])
    """
    from scipy.optimize import elementwise

    inputs = np.broadcast_arrays(*map(_array, (alpha, *gram, margin, beta, gamma)))

    def gain(s: np.ndarray, *pair: np.ndarray) -> np.ndarray:
        alpha, a, b, c, margin, beta, gamma = pair
        options: dict[str, Any] = {"margin": margin, "beta": beta, "gamma": gamma}
        level = displacement_at_margin(alpha, Gram(a, b, c), s, s, **options)
        return np.asarray(level - displacement_at_margin(0.0 * alpha, Gram(a, b, c), s, s, **options))

    ends = np.full(inputs[0].shape, _LOWEST), np.zeros(inputs[0].shape)
    found = elementwise.find_root(gain, ends, args=inputs)
    return np.where(found.success, found.x, np.nan)[()]


def alpha_sensitivity(
    gram: Gram, s_w: Array, s_l: Array, *, margin: Array, beta: Array, gamma: Array
) -> Sensitivity:
    r"""How displacement at equal margin changes with α, at α = 0: the two effects that pull apart.

    .. math:: \left.\frac{d}{d\alpha}\right|_0 (s_w^{z} - s_w) =
              \underbrace{\kappa\, m\, \bar s}_{\text{shortening}} -
              \underbrace{\frac{(ac - b^2)(m^2 - \Delta_0^2)}{2 (a + c - 2b)^2}}_{\text{bending}}, \qquad
              \kappa = \frac{a - b}{a + c - 2b}, \quad m = \frac{z + \gamma}{\beta}

    s̄ is the mean of the two scores where α = 0 has that margin. Where κ < 0 (the chosen response falls) and s̄ < 0,
    shortening is positive: α > 0 saves probability, because the margin is met after a smaller gap. Bending is what a
    steeper push on the rejected response costs. Both are 0 for a pair that has the margin already. A derivative at
    α = 0 need not decide for a larger α: `break_even_score` does.
    """
    a, b, c = map(_array, gram)
    s_w, s_l = _array(s_w), _array(s_l)
    wanted, start, spread = (_array(margin) + gamma) / _array(beta), s_w - s_l, a + c - 2 * b
    kappa = (a - b) / spread
    middle = s_w + kappa * (wanted - start) - wanted / 2
    bending = -(a * c - b * b) * (wanted**2 - start**2) / (2 * spread**2)
    moves = wanted > start
    return Sensitivity(np.where(moves, kappa * wanted * middle, 0.0)[()], np.where(moves, bending, 0.0)[()])


def effective_beta(alpha: Array, s_w: Array, s_l: Array, *, beta: Array) -> Array:
    r"""The β at which α = 0 has the same margin at (s_w, s_l).

    .. math:: \beta_{\text{eff}} = \beta\, e^{-\alpha \bar s}\, \frac{\sinh(\alpha\Delta/2)}{\alpha\Delta/2}, \qquad
              \bar s = \tfrac12 (s_w + s_l)

    With s̄ < 0, α > 0 acts as a larger β at unchanged γ, hence as a smaller γ/β.
    """
    alpha, s_w, s_l = map(_array, (alpha, s_w, s_l))
    half = np.abs(alpha * (s_w - s_l) / 2)
    # sinh(h)/h = e^h·(1 − e^(−2h))/(2h): the powers are added before one of them overflows.
    return _array(beta) * np.exp(half - alpha * (s_w + s_l) / 2) * exprel(np, -2 * half)


_DOUBLINGS = 200  # of the first guess at how far to go: past any reachable margin in float64
_LOWEST = -50.0  # nats: where break-even scores are looked for
_STEEP = 500.0  # beyond this exponent, well before e^x leaves float64, the path is taken through logarithms


def _by_chosen(alpha: Any, a: Any, b: Any, c: Any, rho: Any) -> Any:
    """Whether W_w rather than W_l is the accumulated weight that runs from 0 to infinity along the path."""
    p, q = a - b, c - b
    return (alpha * p < 0) & ~((alpha * q > 0) & (np.abs(q) > np.abs(p) * rho))


def _travelled(x: Any, alpha: Any, a: Any, b: Any, c: Any, s_w: Any, s_l: Any) -> tuple[Any, Any]:
    """(s_w, gap) after the accumulated weight `x`: W_l, or W_w where W_l would end at a finite value."""
    log_rho = -alpha * (s_w - s_l)
    by_chosen = _by_chosen(alpha, a, b, c, np.exp(log_rho))
    ap, aq = alpha * (a - b), alpha * (c - b)
    pulled = np.where(by_chosen, x, _accumulated(x, log_rho, -aq, ap))
    pushed = np.where(by_chosen, _accumulated(x, -log_rho, ap, -aq), x)
    return s_w + a * pulled - b * pushed, (s_w - s_l) + (a - b) * pulled + (c - b) * pushed


def _accumulated(x: Any, log_factor: Any, growth: Any, rate: Any) -> Any:
    """ln(1 + rate·t)/rate with t = e^log_factor·x·exprel(growth·x), also where t itself is beyond float64."""
    y = growth * x
    t = np.exp(log_factor) * x * exprel(np, np.minimum(y, _STEEP))
    direct = t * np.where(rate * t == 0, 1.0, np.log1p(rate * t) / np.where(rate * t == 0, 1.0, rate * t))
    steep = y > _STEEP
    log_t = log_factor + np.log(np.where(steep, x / np.where(steep, y, 1.0), 1.0)) + y
    through_logarithms = np.logaddexp(0.0, np.log(np.where(rate > 0, rate, 1.0)) + log_t) / np.where(
        rate > 0, rate, 1.0
    )
    grown = np.where(rate > 0, through_logarithms, np.exp(np.minimum(log_t, 700.0)))
    return np.where(steep, grown, direct)


def _difference(alpha: np.ndarray, s_w: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """φ_α(s_w) − φ_α(s_w − gap) on bare arrays; 0, not 0·∞, where a bounded reward has reached its bound."""
    product = alpha * gap
    steepest = -alpha * np.where(product > 0, s_w - gap, s_w)
    size = np.abs(product)
    return np.asarray(gap * exprel(np, -size) * np.exp(np.clip(steepest, -1e4, 700.0)))


def _array(value: Array) -> np.ndarray:
    return np.asarray(value, dtype=np.float64)

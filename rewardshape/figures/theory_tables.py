"""The data behind the pictures of the theory: each function returns one tidy DataFrame, drawn by `plotting.theory`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rewardshape.numbers import shortest
from rewardshape.theory.at_margin import displacement_at_margin, point_at_margin
from rewardshape.theory.dynamics import Gram, flow, gradient_magnitude, path
from rewardshape.theory.objectives import Objective, Pairwise, objective
from rewardshape.theory.shapes import Alpha, ChiSquared, JensenShannon, LogOdds, Shape
from rewardshape.theory.softmax import softmax_flow

if TYPE_CHECKING:
    import pandas as pd

ALPHAS = (-1.0, -0.5, 0.0, 0.25, 1.0)
ENTANGLED = Gram(1.0, 1.1, 1.5)
"""A pair whose gradients overlap so far that b > a: at α = 0 the chosen response falls."""
OVERLAP = ENTANGLED[1] / ENTANGLED[0]
"""b/a of that pair."""
ZOO = (
    "alphapo",
    "simpo",
    "dpo",
    "cdpo",
    "slic",
    "ipo",
    "gpo_exponential",
    "exo",
    "apo_zero",
    "kto",
    "nca",
    "sppo",
    "dpop",
    "bco",
)
"""Objectives whose weights depend on the two scores alone, so that they fit one axis."""

REFERENCE_FREE = ("alphapo", "simpo")  # of the zoo: their scores are log-probs, at most 0


def shape_curves(alphas: Sequence[float] = ALPHAS, points: int = 201) -> pd.DataFrame:
    """Every shape over s ≤ 0. Columns shape, alpha (NaN outside the family), s, probability, reward, slope."""
    import pandas as pd

    s = np.linspace(-4.0, -0.02, points)
    shapes: list[tuple[str, float, Shape]] = [
        (f"α = {shortest(alpha)}", alpha, Alpha(alpha)) for alpha in alphas
    ]
    shapes += [
        ("Jensen-Shannon", np.nan, JensenShannon()),
        ("χ² mixed", np.nan, ChiSquared()),
        ("log-odds", np.nan, LogOdds()),
    ]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "shape": name,
                    "alpha": alpha,
                    "s": s,
                    "probability": np.exp(s),
                    "reward": shape.reward(s),
                    "slope": shape.slope(s),
                }
            )
            for name, alpha, shape in shapes
        ],
        ignore_index=True,
    )


def weight_map(made: Objective | None = None, low: float = -4.0, points: int = 81) -> pd.DataFrame:
    """Both gradient weights over the (s_w, s_l) plane: columns s_w, s_l, weight_chosen, weight_rejected."""
    import pandas as pd

    made = objective("alphapo") if made is None else made
    axis = np.linspace(low, -0.02, points)
    s_w, s_l = (grid.ravel() for grid in np.meshgrid(axis, axis))
    w_w, w_l = made.weights(s_w, s_l)
    return pd.DataFrame({"s_w": s_w, "s_l": s_l, "weight_chosen": w_w, "weight_rejected": w_l})


def gradient_by_alpha(
    pairs: Sequence[tuple[float, float]] = ((-1.0, -1.4), (-1.0, -1.05), (-1.4, -1.0)),
    *,
    beta: float = 2.5,
    gamma: float = 0.25,
    gram: Gram = ENTANGLED,
    points: int = 401,
) -> pd.DataFrame:
    """|∇L| of the AlphaPO loss against α for some pairs of scores: columns s_w, s_l, alpha, magnitude."""
    import pandas as pd

    alphas = np.linspace(-4.0, 4.0, points)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "s_w": s_w,
                    "s_l": s_l,
                    "alpha": alphas,
                    "magnitude": gradient_magnitude(alphas, s_w, s_l, beta=beta, gamma=gamma, gram=gram),
                }
            )
            for s_w, s_l in pairs
        ],
        ignore_index=True,
    )


def phase_portrait(
    alphas: Sequence[float] = (-1.0, 0.0, 1.0),
    *,
    starts: Sequence[tuple[float, float]] = (
        (-2.0, -2.0),
        (-1.5, -1.3),
        (-1.0, -1.5),
        (-2.6, -2.2),
        (-0.8, -0.7),
    ),
    gram: Gram = ENTANGLED,
    beta: float = 2.5,
    gamma: float = 1.0,
    points: int = 61,
) -> pd.DataFrame:
    """Flow field, paths and stopping contour in the (s_w, s_l) plane for several α.

    Columns: alpha, kind (``field``, ``path``, ``contour``, ``stop``), line (number of the path), s_w, s_l,
    ds_w, ds_l (the field's direction, of length 1), speed (of the field).
    The contour and the stops are where the margin z is 0.
    """
    import pandas as pd

    across, up = np.linspace(-3.0, -0.1, 11), np.linspace(-3.5, -0.1, 13)
    grid_w, grid_l = (grid.ravel() for grid in np.meshgrid(across, up))
    parts = []
    for alpha in alphas:
        made = objective("alphapo", alpha=alpha, beta=beta, gamma=gamma)
        ds_w, ds_l = flow(made, grid_w, grid_l, gram)
        length = np.hypot(ds_w, ds_l)
        field = {
            "kind": "field",
            "line": 0,
            "s_w": grid_w,
            "s_l": grid_l,
            "ds_w": ds_w / length,
            "ds_l": ds_l / length,
            "speed": length,
        }
        parts.append(pd.DataFrame({"alpha": alpha} | field))
        for number, (s_w, s_l) in enumerate(starts):
            end_w, end_l = point_at_margin(alpha, gram, s_w, s_l, margin=0.0, beta=beta, gamma=gamma)
            end = min(end_w - end_l, s_w - s_l + 6.0)
            line_w, line_l = path(alpha, gram, s_w, s_l, np.linspace(s_w - s_l, end, points))
            line = {"kind": "path", "line": number, "s_w": line_w, "s_l": line_l}
            stop = {"kind": "stop", "line": number, "s_w": [end_w], "s_l": [end_l]}
            parts += [pd.DataFrame({"alpha": alpha} | line), pd.DataFrame({"alpha": alpha} | stop)]
        contour_w = np.linspace(-3.0, -0.05, points)
        parts.append(
            pd.DataFrame({"alpha": alpha, "kind": "contour", "line": 0} | _satisfied(made, contour_w))
        )
    return pd.concat(parts, ignore_index=True)


def _satisfied(made: Objective, s_w: np.ndarray) -> dict[str, np.ndarray]:
    """The rejected score at which the margin is 0: φ(s_l) = φ(s_w) − γ/β, inverted in closed form."""
    assert isinstance(made, Pairwise)
    assert isinstance(made.shape, Alpha)
    alpha = made.shape.alpha
    reward = made.shape.reward(s_w) - made.gamma / made.beta
    inner = 1.0 - alpha * reward
    s_l = (
        reward
        if alpha == 0
        else np.where(inner > 0, -np.log(np.where(inner > 0, inner, 1.0)) / alpha, np.nan)
    )
    return {"s_w": s_w, "s_l": s_l}


def zoo_curves(names: Sequence[str] = ZOO, points: int = 161) -> pd.DataFrame:
    """Objectives on one axis: their weights against the gap, at two mean log-ratios.

    Columns objective, gap (s_w − s_l, nats), middle (½(s_w + s_l)), weight_chosen, weight_rejected, ratio. β is 1 for
    all, so that they stand on one scale; NaN where a log-prob would exceed 0, and for the ratio where the rejected
    response is not pushed down: what is below b/a falls only where it is.
    """
    import pandas as pd

    gap = np.linspace(-6.0, 6.0, points)
    parts = []
    for name in names:
        options: dict[str, Any] = {"beta": 1.0}
        options |= {"penalty": 1.0} if name == "dpop" else {}
        options |= {"reference_point": 0.0} if name == "kto" else {}
        options |= {"gamma": 0.0} if name in REFERENCE_FREE else {}
        made = objective(name, **options)
        for middle in (0.0, -2.0):
            s_w, s_l = middle + gap / 2, middle - gap / 2
            inside = np.maximum(s_w, s_l) <= 0 if name in REFERENCE_FREE else np.full(points, True)
            w_w, w_l = (np.where(inside, w, np.nan) for w in made.weights(s_w, s_l))
            with np.errstate(all="ignore"):
                ratio = np.where(w_l > 1e-12, w_w / w_l, np.nan)
            columns = {
                "gap": gap,
                "middle": middle,
                "weight_chosen": w_w,
                "weight_rejected": w_l,
                "ratio": ratio,
            }
            parts.append(pd.DataFrame({"objective": name} | columns))
    return pd.concat(parts, ignore_index=True)


def displacement_by_alpha(
    scores: Sequence[float] = (-0.25, -1.0, -2.0),
    *,
    gram: Gram = ENTANGLED,
    beta: float = 2.5,
    gamma: float = 1.0,
    points: int = 81,
) -> pd.DataFrame:
    """Displacement of pairs that start level, s_w = s_l, at equal margin (z = 0) and at equal gap (γ/β) against α.

    Columns start (the level), alpha, at (``equal margin`` or ``equal gap``), displacement.
    """
    import pandas as pd

    alphas = np.linspace(-1.0, 1.5, points)
    parts = []
    for s in scores:
        at_margin = displacement_at_margin(alphas, gram, s, s, margin=0.0, beta=beta, gamma=gamma)
        at_gap = path(alphas, gram, s, s, gamma / beta)[0] - s
        for at, moved in (("equal margin", at_margin), ("equal gap", at_gap)):
            inside = np.where(s + moved <= 0, moved, np.nan)
            parts.append(pd.DataFrame({"start": s, "alpha": alphas, "at": at, "displacement": inside}))
    return pd.concat(parts, ignore_index=True)


def softmax_against_fixed_gram(
    alphas: Sequence[float] = (0.0, 0.25, 0.5, 1.0),
    *,
    overlap: float = 0.9,
    seed: int = 11,
    until: float = 20.0,
) -> pd.DataFrame:
    """A softmax model over 50 responses, whose Gram matrix moves, and the path with the Gram matrix of its start.

    The policy starts with about −3 nats for both responses of the pair. Columns alpha, time, margin, s_w, s_l,
    s_w_fixed (the fixed-Gram path at the model's gap), gram_ww, gram_wl, gram_ll.
    """
    import pandas as pd

    features, start = similar_pair(overlap, seed)
    times = np.concatenate([[0.0], np.geomspace(1e-3, until, 240)])
    parts = []
    for alpha in alphas:
        made = objective("alphapo", alpha=alpha, beta=1.0, gamma=1.0)
        out = softmax_flow(made, features, 0, 1, times, start)
        s_w, s_l = out["logp_chosen"], out["logp_rejected"]
        gram = Gram(*(out[name][0] for name in ("gram_ww", "gram_wl", "gram_ll")))
        fixed, _ = path(alpha, gram, s_w[0], s_l[0], s_w - s_l)
        columns = {"time": times, "margin": made.margin(s_w, s_l), "s_w": s_w, "s_l": s_l, "s_w_fixed": fixed}
        grams = {name: out[name] for name in ("gram_ww", "gram_wl", "gram_ll")}
        parts.append(pd.DataFrame({"alpha": alpha} | columns | grams))
    return pd.concat(parts, ignore_index=True)


def squeezing(
    logits: Sequence[float] = (3.0, 2.0, 1.5, 1.0, 0.5, 0.0, -1.0, -2.0),
    *,
    pushed: int = 6,
    rate: float = 0.2,
    steps: int = 12,
) -> pd.DataFrame:
    """A softmax over a few tokens, one of which is pushed down by gradient steps on its log-prob alone.

    Each step takes rate·∂log p_pushed/∂logits off the logits, the negative half of a preference update. Columns token
    (its rank before), pushed, before, after (probabilities).
    """
    import pandas as pd

    z = np.array(logits, dtype=float)
    before = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    for _ in range(steps):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        z = z - rate * (np.arange(len(z)) == pushed) + rate * p
    after = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    rank = np.argsort(np.argsort(-before)) + 1
    return pd.DataFrame(
        {"token": rank, "pushed": np.arange(len(z)) == pushed, "before": before, "after": after}
    )


def similar_pair(overlap: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of 50 responses, of which the first two share `overlap` of theirs, and a start that favours them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(50, 16)) / 4
    common = rng.normal(size=16) / 4
    own = np.sqrt(1 - overlap**2)
    features[0] = overlap * common + 0.3 * own * features[0]
    features[1] = overlap * common + own * features[1]
    return features, 0.8 * common / (common @ common)

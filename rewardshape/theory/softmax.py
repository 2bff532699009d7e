"""A softmax policy over a small vocabulary of responses: everything about it is exact, and its Gram matrix moves."""

from __future__ import annotations

import numpy as np

from rewardshape.theory._arrays import Array
from rewardshape.theory.objectives import Objective


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
        logp_chosen, logp_rejected (log π), logp_others (log of the mass on all other responses), gram_ww, gram_wl,
        gram_ll.
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
    policies = np.array([log_policy(state) for state in states])
    others = np.delete(policies, [chosen, rejected], axis=1)
    pairs = [gradients(state) for state in states]
    return {
        "logp_chosen": policies[:, chosen],
        "logp_rejected": policies[:, rejected],
        "logp_others": np.logaddexp.reduce(others, axis=1),
        "gram_ww": np.array([up @ up for up, _ in pairs]),
        "gram_wl": np.array([up @ down for up, down in pairs]),
        "gram_ll": np.array([down @ down for _, down in pairs]),
    }


def _array(value: Array) -> np.ndarray:
    return np.asarray(value, dtype=np.float64)

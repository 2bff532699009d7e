"""The score s of a response: the one number, in nats, that an objective sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from rewardshape.theory._arrays import Array


class Responses(NamedTuple):
    """One response of every pair, as an objective needs it. All arrays or tensors of one library, over pairs.

    Parameters
    ----------
    logp_sum : array, shape (pairs,)
        log π(y|x), summed over the response tokens, in nats.
    num_tokens : array, shape (pairs,)
        Response tokens \\|y\\|, at least 1.
    ref_logp_sum : array, shape (pairs,), optional
        log π_ref(y|x), for objectives with a reference.
    token_logps : array, shape (pairs, tokens), optional
        The response tokens' own log-probabilities, padded at the end with anything; `num_tokens` says where.
    ref_token_logps : array, shape (pairs, tokens), optional
        The same under the reference.
    log_sum_sq_probs : array, shape (pairs,), optional
        Σ_t log Σ_v π(v|x, y_<t)², summed over the response tokens: what WPO aligns its weights with.
    position_kl : array, shape (pairs,), optional
        Σ_t KL(π_ref(·|x, y_<t) ‖ π(·|x, y_<t)) over the response tokens, in nats: what TDPO adds to its margin.
    label : array, shape (pairs,), optional
        The annotator's score of the response, in its own units: what ODPO's offset is made of.
    token_draws : array, shape (pairs, tokens), optional
        A random number for each token, all distinct: SamPO keeps the tokens of the smallest.
    """

    logp_sum: Array
    num_tokens: Array
    ref_logp_sum: Array | None = None
    token_logps: Array | None = None
    ref_token_logps: Array | None = None
    log_sum_sq_probs: Array | None = None
    position_kl: Array | None = None
    label: Array | None = None
    token_draws: Array | None = None


@dataclass(frozen=True)
class Score:
    """s = (log π(y|x) − [log π_ref(y|x)]) / [|y|], each bracket optional, in nats or nats per token."""

    reference: bool
    per_token: bool

    def __call__(self, xp: Any, logp_sum: Array, num_tokens: Array, ref_logp_sum: Array) -> Array:
        s = logp_sum - ref_logp_sum if self.reference else logp_sum
        return s / num_tokens if self.per_token else s

    def per_nat(self, num_tokens: Array) -> Array:
        """∂s/∂log π(y|x): 1, or 1/|y|."""
        return 1.0 / num_tokens if self.per_token else 1.0

    @property
    def formula(self) -> str:
        """As the tables of objectives write it."""
        ratio = "log π/π_ref" if self.reference else "log π"
        return f"({ratio})/|y|" if self.per_token and self.reference else f"{ratio}{'/|y|' * self.per_token}"

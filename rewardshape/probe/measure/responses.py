"""What an objective needs of a batch of pairs: of one forward pass, and of what was known of the pairs before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.measure.logprobs import ResponseLogps, by_name
from rewardshape.probe.measure.probe_set import PAIR
from rewardshape.theory import Responses


def sides(
    logps: ResponseLogps, known: Mapping[str, Mapping[str, Shaped[Tensor, "pairs ..."]]]
) -> tuple[Responses, Responses]:
    """Chosen and rejected responses of a batch.

    Parameters
    ----------
    logps
        What its forward pass found.
    known
        What was known before, by field of `Responses`, then by response.
    """
    found = {
        "logp_sum": logps.logp_sum,
        "token_logps": logps.padded(),
        "log_sum_sq_probs": logps.rows(logps.log_sum_sq_probs).sum(-1),
    }
    if logps.kl is not None:
        found["position_kl"] = logps.rows(logps.kl).sum(-1)
    fields = {field: by_name(PAIR, rows) for field, rows in found.items()} | dict(known)
    chosen, rejected = (Responses(**{field: of[name] for field, of in fields.items()}) for name in PAIR)
    return chosen, rejected


def draws(
    seed: int, positions: Sequence[int], pairs: Sequence[EncodedPair]
) -> dict[str, Float[Tensor, "pairs longest"]]:
    """A random number for each token, the same whenever a place in the order of training comes up again."""
    rows = []
    for position, pair in zip(positions, pairs, strict=True):
        rng = np.random.default_rng([seed, position])
        rows += [torch.from_numpy(rng.random(len(pair.responses[name]))) for name in PAIR]
    return by_name(PAIR, pad_sequence(rows, batch_first=True))


def scores(asked_by: str, pairs: Sequence[EncodedPair]) -> dict[str, Float[Tensor, "pairs"]]:
    """The annotator's scores of chosen and rejected, which the flag `asked_by` asks for."""
    values: list[float] = []
    for pair in pairs:
        if pair.scores is None:
            raise InputError(
                f"{asked_by}: {pair.pair_id} has no scores of its responses; name their columns, as "
                "--columns chosen_score=… rejected_score=…"
            )
        if not pair.scores[0] > pair.scores[1]:
            raise InputError(
                f"{asked_by}: {pair.pair_id} has scores {pair.scores[0]:g} and {pair.scores[1]:g}; "
                "the chosen response's must be the higher one"
            )
        values += pair.scores
    return by_name(PAIR, torch.tensor(values, dtype=torch.float64))

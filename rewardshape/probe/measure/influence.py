r"""Which training pairs push the chosen responses of the probe set down.

With f the mean log-probability per token of the probe set's chosen responses, ℓ_i the loss of training pair i and P the
optimiser's preconditioner, a step on pair i alone moves f by −η·⟨∇f, P ∇ℓ_i⟩ to first order (the influence of TracIn,
arXiv 2002.08484, with the preconditioner of arXiv 2402.04333). All pairs share one factor, the direction v = P ∇f, so
no gradient of a training pair is needed: ⟨v, ∇ℓ_i⟩ is the derivative of ℓ_i along v, and two passes over the pairs,
at θ + εv and θ − εv, give it for every pair at once:

.. math:: \langle v, \nabla \ell_i\rangle = -w_w\,\frac{ds_w}{d\varepsilon} + w_l\,\frac{ds_l}{d\varepsilon}

with the objective's own weights w and scores s. The cost is one backward pass over the probe set and two forward passes
over the training pairs, the memory two copies of the trainable weights.

For one probe pair after the other that would be two passes over the training pairs each. So `strongest` sketches the
gradient of every training pair once (`sketch`), lets the sketches name a few candidates for each probe pair, and takes
the influence of those alone as above.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.measure.check import evaluating
from rewardshape.probe.measure.geometry import TOKENS, Tensors, inner
from rewardshape.probe.measure.layers import Layers
from rewardshape.probe.measure.logprobs import Reader, on_device
from rewardshape.probe.measure.probe_set import PAIR, ProbeSet, Score, group_by_tokens, only_pair
from rewardshape.probe.measure.sketch import Sketch
from rewardshape.theory import Objective, Responses

MOVE = 0.01  # nats per token by which f moves at θ ± εv: large against rounding, small against curvature


def chosen_gradient(parameters: Tensors, probe: ProbeSet, score: Score) -> Tensors:
    """∇f, the gradient of the mean log-probability per token of the probe set's chosen responses.

    Parameters
    ----------
    parameters : list of Tensor
        The trainable ones.
    probe : ProbeSet
        Whole on this process.
    score : callable
        From a collated batch to its log-probabilities, with gradient.
    """
    total = [
        torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        for weight in parameters
    ]
    for group, batch in zip(probe.groups, probe.batches, strict=True):
        names = [name for index in group for name in probe.pairs[index].responses]
        chosen = torch.tensor([name == "chosen" for name in names])
        with torch.enable_grad():
            logps = score(batch)
            per_token = logps.logp_sum / logps.logp_sum.new_tensor(logps.lengths)
            mean = per_token[chosen.to(per_token.device)].sum() / len(probe.pairs)
            gradients = torch.autograd.grad(mean, parameters, materialize_grads=True)
        torch._foreach_add_(total, [g.to(t.dtype) for g, t in zip(gradients, total, strict=True)])
    return total


def preconditioned(optimizer: torch.optim.Optimizer, parameters: Tensors, gradient: Tensors) -> Tensors:
    """P·g with the optimiser's state as it stands: Adam's division by its running size, else g itself.

    Before Adam's first step there is no state, and g is divided by its own size, as that step would do.

    Raises
    ------
    InputError
        For an optimiser of another kind.
    """
    known = (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD)
    plain = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
    if not isinstance(plain, known):
        raise InputError(
            f"--influence-every: knows AdamW, Adam and SGD, not {type(plain).__name__}; train with --optimizer"
            " adamw_torch"
        )
    groups = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    return [
        _preconditioned(optimizer.state.get(weight, {}), groups.get(id(weight), {}), part)
        for weight, part in zip(parameters, gradient, strict=True)
    ]


def _preconditioned(
    state: Mapping[str, Any], group: Mapping[str, Any], gradient: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    if "betas" not in group:
        return gradient
    if "exp_avg_sq" not in state:
        return gradient / (gradient.abs() + group["eps"])
    steps = float(state["step"])
    size = (state["exp_avg_sq"].to(gradient.dtype) / (1 - group["betas"][1] ** steps)).sqrt()
    return gradient / (size + group["eps"])


def influences(
    parameters: Tensors,
    direction: Tensors,
    gradient: Tensors,
    train: ProbeSet,
    score: Score,
    objective: Objective,
    reference: Mapping[str, Mapping[str, float]] | None = None,
) -> Float64[np.ndarray, "pairs"]:
    """−⟨∇f, P ∇ℓ_i⟩ of every training pair: what a step on it alone does to f, per unit of learning rate.

    Parameters
    ----------
    parameters : list of Tensor
        The trainable ones; moved and put back.
    direction, gradient : list of Tensor
        P ∇f and ∇f.
    train : ProbeSet
        The training pairs, chosen and rejected.
    score : callable
        From a collated batch to its log-probabilities.
    objective : Objective
    reference : mapping, optional
        pair_id → response → log-probability under the reference, nats.

    Returns
    -------
    array
        Nats per token of f and unit of learning rate; negative: pushes the chosen responses down.
    """
    slope = inner(direction, gradient)
    if not slope > 0:  # ∇f is zero: nothing moves it
        return np.zeros(len(train.pairs))
    size = MOVE / slope
    sums = []
    for sign in (1, -1):
        with moved(parameters, direction, sign * size):
            sums.append(
                np.array(train.measure(score).columns["logp_sum"]).reshape(len(train.pairs), len(PAIR))
            )
    middle = (sums[0] + sums[1]) / 2
    pair = [_responses(train.pairs, side, middle[:, i], reference) for i, side in enumerate(PAIR)]
    ahead = [_scores(objective, own, sums[0][:, i]) for i, own in enumerate(pair)]
    behind = [_scores(objective, own, sums[1][:, i]) for i, own in enumerate(pair)]
    weights = [np.asarray(weight, dtype=float) for weight in objective.pair_weights(*pair)]
    rates = [(a - b) / (2 * size) for a, b in zip(ahead, behind, strict=True)]
    return weights[0] * rates[0] - weights[1] * rates[1]


STRONGEST = 5  # training pairs named for each probe pair
CANDIDATES = 20  # whose influence on it is taken, the lowest by their sketches
NUMBERS = 8192  # of a sketch: enough to name candidates


class Pushed(NamedTuple):
    """A training pair that pushes the chosen response of a probe pair down."""

    pair_id: str
    probe_pair_id: str
    influence: float
    """As `influences` has it, of the probe pair's chosen response alone."""


def strongest(
    model: Any,
    optimizer: torch.optim.Optimizer,
    probe: Sequence[EncodedPair],
    train: Sequence[EncodedPair],
    reader: Reader,
    score: Score,
    objective: Objective,
    reference: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Pushed]:
    """For every probe pair, the training pairs that push its chosen response down most, the strongest first.

    Parameters
    ----------
    model : causal language model of transformers
        Moved and put back.
    optimizer : torch.optim.Optimizer
        Whose preconditioner counts.
    probe, train : sequences of EncodedPair
    reader, score
        How pairs become batches, and batches log-probabilities.
    objective, reference
        As for `influences`.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    device, sketch = weights[0].device, Sketch(weights, size=NUMBERS)
    with evaluating(model):
        sketched = sketches_of(Layers(model, weights), sketch, train, reader, score, objective, reference)
    found = []
    for pair in probe:
        alone = ProbeSet([only_pair(pair)], reader, device)
        gradient = chosen_gradient(weights, alone, score)
        direction = preconditioned(optimizer, weights, gradient)
        estimate = -(sketched @ sketch.of_all(direction.__getitem__).to(sketched.dtype))
        lowest = estimate.argsort(stable=True)[:CANDIDATES].tolist()
        candidates = [train[place] for place in lowest]
        theirs = ProbeSet(candidates, reader, device)
        exact = influences(weights, direction, gradient, theirs, score, objective, reference)
        for place in np.argsort(exact, kind="stable")[:STRONGEST]:
            if exact[place] < 0:
                found.append(Pushed(candidates[place].pair_id, pair.pair_id, float(exact[place])))
    return found


def sketches_of(
    layers: Layers,
    sketch: Sketch,
    pairs: Sequence[EncodedPair],
    reader: Reader,
    score: Score,
    objective: Objective,
    reference: Mapping[str, Mapping[str, float]] | None,
) -> Float[Tensor, "pairs size"]:
    """Of every pair's ∇ℓ = −w_w ∇s_w + w_l ∇s_l."""
    groups = [[place] for place in range(len(pairs))] if layers.one_by_one else group_by_tokens(pairs, TOKENS)
    found: dict[int, Tensor] = {}
    sums = np.zeros((len(pairs), len(PAIR)))
    for group in groups:
        texts = [
            replace(pairs[place], responses={side: pairs[place].responses[side]})
            for place in group
            for side in PAIR
        ]
        known = (
            None if reference is None else [reference[pairs[i].pair_id][side] for i in group for side in PAIR]
        )
        batch = on_device(reader.collate(texts), layers.parameters[0].device)

        def scores(logp_sum: Tensor, num_tokens: Tensor, known: list[float] | None = known) -> Tensor:
            return objective.score(
                logp_sum, num_tokens, None if known is None else logp_sum.new_tensor(known)
            )

        products = layers.products(batch, score, scores, sketch=sketch)
        sums[group] = products.logp_sum
        found |= dict(zip(group, products.sketches, strict=True))
    sides = [_responses(pairs, side, sums[:, i], reference) for i, side in enumerate(PAIR)]
    chosen, rejected = (np.asarray(weight, dtype=float) for weight in objective.pair_weights(*sides))
    both = torch.stack([found[place] for place in range(len(pairs))])
    signed = both.new_tensor(np.stack([-chosen, rejected], axis=1))
    return (both * signed[:, :, None]).sum(1)


def _responses(
    pairs: Sequence[EncodedPair],
    side: str,
    logp_sum: Float64[np.ndarray, "pairs"],
    reference: Mapping[str, Mapping[str, float]] | None,
) -> Responses:
    num_tokens = np.array([len(pair.responses[side]) for pair in pairs], dtype=float)
    ref = None if reference is None else np.array([reference[pair.pair_id][side] for pair in pairs])
    return Responses(logp_sum, num_tokens, ref)


def _scores(
    objective: Objective, own: Responses, logp_sum: Float64[np.ndarray, "pairs"]
) -> Float64[np.ndarray, "pairs"]:
    return np.asarray(objective.score(logp_sum, own.num_tokens, own.ref_logp_sum), dtype=float)


@contextmanager
def moved(parameters: Tensors, direction: Tensors, size: float) -> Iterator[None]:
    """Within it, the parameters stand at θ + size·direction; afterwards at θ again, to the last bit."""
    before = [weight.detach().clone() for weight in parameters]
    try:
        with torch.no_grad():
            for weight, part in zip(parameters, direction, strict=True):
                weight.add_(part.to(weight.dtype), alpha=size)
        yield
    finally:
        with torch.no_grad():
            for weight, kept in zip(parameters, before, strict=True):
                weight.copy_(kept)

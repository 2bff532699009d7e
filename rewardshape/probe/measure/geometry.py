"""Why a pair moves: overlaps of its gradients, similarity of its hidden states, and the first-order prediction.

Everything is about the objective's own score s of a response: log-probability in nats, summed or per token, less the
reference's where there is one, as `objective.score` has it. Gradients are over the trainable parameters (the adapters
alone with LoRA), taken layer by layer from one backward pass over all pairs (`layers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from transformers import TrainerCallback

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.distributed import gather
from rewardshape.probe.measure.check import evaluating
from rewardshape.probe.measure.layers import Layers, Tensors
from rewardshape.probe.measure.logprobs import on_device
from rewardshape.probe.measure.probe_set import PAIR, group_by_tokens
from rewardshape.probe.measure.sketch import Sketch
from rewardshape.probe.training import PairTrainer
from rewardshape.theory import Responses

OVERLAPS = ("ww", "wl", "ll")
KERNEL_PAIRS = 16  # whose gradients are set against each other, one by one
TOKENS = 256  # read at once: bounds the memory of their activations, which stand beside whole gradients


class OfPair(NamedTuple):
    """One pair at one state of the policy; arrays hold chosen, then rejected."""

    logp_sum: Float64[np.ndarray, "2"]
    score: Float64[np.ndarray, "2"]
    gram: Float64[np.ndarray, "3"]
    along: Float64[np.ndarray, "2 directions"]
    ches: float
    ches_normalised: float
    sketches: Float[Tensor, "2 size"]


class Measured(NamedTuple):
    """What is recorded of the geometry at a step."""

    geometry: dict[str, list[Any]]
    kernel: dict[str, list[Any]] | None
    metrics: dict[str, float]


class Geometry(TrainerCallback):
    """Measures the probe pairs' gradients along a run; `measure` gives the record its table.

    Steps 0, `every`, 2·`every`, … and the last are due. The table of step t has one row per probe pair:

    * with the weights *after* update t, as the probe set has it: ``gram_ww`` = ‖∇s_w‖², ``gram_wl`` = ⟨∇s_w, ∇s_l⟩,
      ``gram_ll`` = ‖∇s_l‖²; ``ches``, ``ches_normalised``; ``weight_chosen`` = −∂L/∂s_w and ``weight_rejected`` =
      ∂L/∂s_l (for a loss that couples the pairs of a batch: with the probe set as the batch);
    * of update t itself, from t = 1 on: ``predicted_chosen``, ``predicted_rejected`` = ⟨∇s, Δθ⟩ with ∇s at the
      weights *before* it; ``descent_chosen``, ``descent_rejected`` = −η·⟨∇s, g⟩, what a plain gradient step of the
      same learning rate η on the same clipped batch gradient g would do; ``moved_chosen``, ``moved_rejected``,
      what the scores then did.

    Δθ is the optimiser's own update. The batch gradient, the learning rate and the optimiser's state fix it before
    it is made, so it is read off the parameters instead of computed a second time: no optimiser is imitated, and
    clipping, momentum, preconditioner and weight decay are in it. With SGD, predicted and descent are the same.

    Beside the table stand three metrics, ``cross_gram_ww``, ``cross_gram_wl``, ``cross_gram_ll``: the same overlaps
    between the scores of two *different* probe pairs, averaged over all such pairs of pairs. They say what a gradient
    step on one pair does to another. At step 0 and at the last step a second table has them one by one, between every
    two responses of the first `KERNEL_PAIRS` pairs, the empirical neural tangent kernel of the score: estimated from
    sketches (`sketch`) but for a response with itself and the two of a pair, which are exact.

    Parameters
    ----------
    trainer : PairTrainer
    pairs : sequence of EncodedPair
        The probe pairs; of their responses only chosen and rejected count. Dealt out over the processes.
    every : int

    Raises
    ------
    InputError
        If the model is sharded: no process then holds a whole gradient.
    """

    def __init__(self, trainer: PairTrainer, pairs: Sequence[EncodedPair], *, every: int):
        if trainer.is_fsdp_enabled:
            raise InputError(
                "--geometry-every: a sharded model (FSDP) has no whole gradients; run it under DDP or on one process"
            )
        self.trainer = trainer
        self.every = every
        self.pairs = list(pairs)[trainer.args.process_index :: trainer.args.world_size]
        self._layers: Layers | None = None  # of the model as it is when first measured
        self._before: Tensors = []
        self._learning_rate = 0.0
        self._update: list[dict[str, float]] = []  # of every pair, what the update at hand does to it

    def due(self, step: int) -> bool:
        """Whether it is measured after this update: every so many steps, and after the last."""
        return step % self.every == 0 or step >= self.trainer.state.max_steps

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.due(state.global_step + 1):
            self._before = _copies(self._parameters())
            self._learning_rate = self.trainer._get_learning_rate()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.due(state.global_step + 1):
            return
        parameters = self._parameters()
        gradients = _batch_gradient(parameters)
        _exchange(parameters, self._before)  # what was kept is now what the update has made
        after, rate = self._before, self._learning_rate

        def update(number: int) -> Tensor:
            return after[number] - parameters[number].detach()

        def descent(number: int) -> Tensor:
            return -rate * gradients[number]

        self._update = [
            {
                f"{name}_{side}": value
                for i, side in enumerate(PAIR)
                for name, value in (
                    *zip(("predicted", "descent"), pair.along[i].tolist(), strict=True),
                    (
                        "moved",
                        -pair.score[i],
                    ),  # the score after the update is added when the step is recorded
                )
            }
            for pair in self._measured(directions=(update, descent))
        ]
        _exchange(parameters, after)
        self._before = []

    def measure(self, step: int) -> Measured:
        """Tables and metrics with the weights as they are; the same on every process."""
        parameters = self._parameters()
        totals = [[torch.zeros_like(weight, dtype=_wide(weight)) for weight in parameters] for _ in PAIR]
        own = np.zeros(len(OVERLAPS))
        mine: list[dict[str, Any]] = []
        ends = step == 0 or step >= self.trainer.state.max_steps
        measured = self._measured(totals=(totals[0], totals[1]), sketch=Sketch(parameters) if ends else None)
        kernel = self._kernel(measured) if ends else None
        for i, pair in enumerate(measured):
            row: dict[str, Any] = {"pair_id": self.pairs[i].pair_id}
            row |= {f"gram_{name}": value for name, value in zip(OVERLAPS, pair.gram.tolist(), strict=True)}
            row |= {"ches": pair.ches, "ches_normalised": pair.ches_normalised}
            if self._update:
                row |= self._update[i]
                for side, score in zip(PAIR, pair.score, strict=True):
                    row[f"moved_{side}"] += score
            num_tokens = [len(self.pairs[i].responses[side]) for side in PAIR]
            mine.append(row | {"logp_sum": pair.logp_sum, "num_tokens": np.array(num_tokens, dtype=float)})
            own += pair.gram
        self._update = []
        dealt = gather(mine)
        rows = [row for row in chain.from_iterable(zip_longest(*dealt)) if row is not None]
        weights = self._weights(rows)
        table = {
            name: [row[name] for row in rows] for name in rows[0] if name not in ("logp_sum", "num_tokens")
        }
        if len(rows) < 2:
            return Measured(table | weights, kernel, {})
        whole_w, whole_l = ([self.trainer.accelerator.reduce(tensor) for tensor in total] for total in totals)
        others = overlaps(whole_w, whole_l) - sum(gather(own))
        others /= len(rows) * (len(rows) - 1)
        metrics = dict(zip((f"cross_gram_{n}" for n in OVERLAPS), others.tolist(), strict=True))
        return Measured(table | weights, kernel, metrics)

    def _kernel(self, measured: Sequence[OfPair]) -> dict[str, list[Any]]:
        """⟨∇s, ∇s′⟩ of every two responses of the first pairs, each two once."""
        mine = {
            pair.pair_id: (found.sketches.cpu(), found.gram)
            for pair, found in zip(self.pairs[:KERNEL_PAIRS], measured, strict=False)
        }
        dealt = [list(of.items()) for of in gather(mine)]
        known = [one for one in chain.from_iterable(zip_longest(*dealt)) if one is not None][:KERNEL_PAIRS]
        texts = [(pair_id, side) for pair_id, _ in known for side in PAIR]
        sketches = torch.cat([sketched for _, (sketched, _) in known]).double()
        products = (sketches @ sketches.T).numpy()
        for i, (_, (_, (ww, wl, ll))) in enumerate(known):
            block = slice(len(PAIR) * i, len(PAIR) * (i + 1))
            products[block, block] = [[ww, wl], [wl, ll]]
        first, second = np.triu_indices(len(texts))
        return {
            "pair_id": [texts[i][0] for i in first],
            "response": [texts[i][1] for i in first],
            "other_pair_id": [texts[i][0] for i in second],
            "other_response": [texts[i][1] for i in second],
            "product": products[first, second].tolist(),
        }

    def _weights(self, rows: list[dict[str, Any]]) -> dict[str, list[float]]:
        logp_sum, num_tokens = (np.stack([row[name] for row in rows]) for name in ("logp_sum", "num_tokens"))
        reference = self.trainer.reference
        pair = [
            Responses(
                logp_sum[:, i],
                num_tokens[:, i],
                None if reference is None else np.array([reference[row["pair_id"]][side] for row in rows]),
            )
            for i, side in enumerate(PAIR)
        ]
        weights = self.trainer.objective.pair_weights(*pair)
        return {
            f"weight_{side}": np.asarray(weight).tolist() for side, weight in zip(PAIR, weights, strict=True)
        }

    def _measured(self, **asked: Any) -> list[OfPair]:
        """The pairs of this process, in their order."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        if self._layers is None:
            self._layers = Layers(model, self._parameters())
        with evaluating(model):
            found = {place: one for group in self._groups() for place, one in self._of_group(group, asked)}
        return [found[place] for place in range(len(self.pairs))]

    def _groups(self) -> list[list[int]]:
        assert self._layers is not None
        if self._layers.one_by_one:
            return [[place] for place in range(len(self.pairs))]
        return group_by_tokens(self.pairs, TOKENS)

    def _of_group(self, group: Sequence[int], asked: dict[str, Any]) -> list[tuple[int, OfPair]]:
        layers = self._layers
        assert layers is not None
        trainer, pairs = self.trainer, [self.pairs[place] for place in group]
        texts = [replace(pair, responses={side: pair.responses[side]}) for pair in pairs for side in PAIR]
        batch = on_device(trainer.reader.collate(texts), trainer.args.device)

        def scores(logp_sum: Tensor, num_tokens: Tensor) -> Tensor:
            ref = trainer.reference
            known = None if ref is None else [ref[pair.pair_id][side] for pair in pairs for side in PAIR]
            return trainer.objective.score(
                logp_sum, num_tokens, None if known is None else logp_sum.new_tensor(known)
            )

        found = layers.products(batch, lambda its: trainer.score(its, layers.model), scores, **asked)
        ways = [ches(*found.hidden[2 * i : 2 * i + 2]) for i in range(len(group))]
        return [
            (
                place,
                OfPair(
                    found.logp_sum[i],
                    found.score[i],
                    found.gram[i],
                    found.along[i],
                    *ways[i],
                    found.sketches[i],
                ),
            )
            for i, place in enumerate(group)
        ]

    def _parameters(self) -> Tensors:
        model: Any = self.trainer.model
        return [weight for weight in model.parameters() if weight.requires_grad]


def ches(
    chosen: Float[Tensor, "chosen_tokens width"], rejected: Float[Tensor, "rejected_tokens width"]
) -> tuple[float, float]:
    r"""Centered hidden embedding similarity of a pair, and its length-normalised form.

    With :math:`h_t` the last layer's hidden state, after the final norm, from which response token t is predicted, and
    :math:`H = \sum_t h_t`: :math:`\langle H_w, H_l\rangle - \lVert H_w\rVert^2`, and the same with
    :math:`H/\lvert y\rvert` (arXiv 2410.08847, Definition 2).

    Parameters
    ----------
    chosen, rejected
        The hidden states of each response. The first is that of the last prompt token, which predicts the response's
        first; that of the last response token predicts nothing and is not among them.

    Examples
    --------
    >>> ches(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 3.0]]))
    (6.0, 0.5833...)
    """
    pair = chosen.double(), rejected.double()
    (sum_w, sum_l), (mean_w, mean_l) = [h.sum(0) for h in pair], [h.mean(0) for h in pair]
    return (sum_w @ (sum_l - sum_w)).item(), (mean_w @ (mean_l - mean_w)).item()


def inner(first: Tensors, second: Tensors) -> float:
    """⟨first, second⟩ over all parameters."""
    products = [
        torch.linalg.vecdot(a.flatten().to(_wide(a)), b.flatten().to(_wide(a)))
        for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(products).double().sum().item()


def overlaps(chosen: Tensors, rejected: Tensors) -> Float64[np.ndarray, "3"]:
    """‖g_w‖², ⟨g_w, g_l⟩, ‖g_l‖² of two gradients."""
    return np.array([inner(chosen, chosen), inner(chosen, rejected), inner(rejected, rejected)])


def _batch_gradient(parameters: Tensors) -> Tensors:
    return [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in parameters]


def _wide(values: Float[Tensor, "..."]) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def _copies(parameters: Tensors) -> Tensors:
    return [weight.detach().clone() for weight in parameters]


def _exchange(parameters: Tensors, values: Tensors) -> None:
    """Put the values into the parameters and what was there into the values: one copy, not two."""
    with torch.no_grad():
        for number, (weight, value) in enumerate(zip(parameters, values, strict=True)):
            kept = weight.detach().clone()
            weight.copy_(value)
            values[number] = kept

r"""Inner products of the gradients of single responses, layer by layer, from one backward pass and without keeping one.

Texts that stand beside each other in a batch do not touch: one backward pass of the sum of their scores leaves at every
layer the gradient of each text's own score at its own positions. Of a linear layer with inputs a_t and gradients g_t at
its outputs, the gradient of text i is Σ_t g_t a_tᵀ over its positions, so that

.. math:: \langle \nabla_i, \nabla_j \rangle = \sum_{t \in i, s \in j} (g_t \cdot g_s)(a_t \cdot a_s), \qquad
          \langle \nabla_i, D \rangle = \sum_{t \in i} g_t \cdot D a_t ,

and neither takes the gradient itself. An embedding is a linear layer with one-hot inputs, an output projection one with
the gradient u_t (onehot − softmax) at its outputs; where the two share their weights, their products cross. A norm's
weight scales each feature. What is none of these is left to autograd, a pass per text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from rewardshape.probe.measure.logprobs import Batch, ResponseLogps
from rewardshape.probe.measure.predictions import AGREEMENT, Seen, disagreement, logps_of, watching
from rewardshape.probe.measure.projection import Head, NoLinearHead, head_of
from rewardshape.probe.measure.sketch import Sketch

Tensors = list[Float[Tensor, "..."]]  # one per trainable parameter
SIDES = 2  # chosen, rejected: every pair is two texts, one behind the other


class Products(NamedTuple):
    """Of the pairs of a batch."""

    gram: Float64[np.ndarray, "pairs 3"]
    """‖∇s_w‖², ⟨∇s_w, ∇s_l⟩, ‖∇s_l‖²."""
    along: Float64[np.ndarray, "pairs 2 directions"]
    """⟨∇s, D⟩ of chosen and rejected along each direction."""
    score: Float64[np.ndarray, "pairs 2"]
    logp_sum: Float64[np.ndarray, "pairs 2"]
    hidden: list[Float[Tensor, "tokens width"]]
    """The hidden states that predict each text's response, text by text."""
    sketches: Float[Tensor, "pairs 2 size"]
    """Of each ∇s, where a sketch is asked for; else of no size."""


class Layers:
    """The layers of a model, by what their gradients are made of.

    Parameters
    ----------
    model : causal language model of transformers
    parameters : list of Tensor
        The trainable ones, in the order of directions and totals.
    """

    def __init__(self, model: Any, parameters: Tensors):
        self.model = model
        self.parameters = parameters
        self.place = {id(weight): number for number, weight in enumerate(parameters)}
        self.head: Head | None
        try:
            self.head = head_of(model)
        except NoLinearHead:
            self.head = None
        self._sort()

    def _sort(self, refused: Sequence[torch.nn.Module] = ()) -> None:
        """Of every module with trainable weights of its own, which kind of layer it is."""
        self.refused = list(refused)
        output = self.model.get_output_embeddings()
        self.linear, self.norms, self.embeddings = (list[torch.nn.Module]() for _ in range(3))
        users: dict[int, int] = {}
        for module in self.model.modules():
            own = [weight for weight in module.parameters(recurse=False) if id(weight) in self.place]
            if not own or module is output:
                continue
            users |= {id(weight): users.get(id(weight), 0) + 1 for weight in own}
            if module in self.refused:
                continue
            if type(module) in (torch.nn.Linear, Conv1D):
                self.linear.append(module)
            elif type(module) is torch.nn.Embedding and module.max_norm is None:
                self.embeddings.append(module)
            elif not list(module.children()) and all(weight.ndim == 1 for weight in own):
                self.norms.append(module)
        kinds = (self.linear, self.norms, self.embeddings)
        for kind in kinds:
            kind[:] = [m for m in kind if all(users.get(id(w), 1) == 1 for w in m.parameters(recurse=False))]
        known = {
            id(weight) for kind in kinds for module in kind for weight in module.parameters(recurse=False)
        }
        head = self.head
        if head is not None and id(head.weight) in self.place:
            plain = head.softcap is None and head.bias is None and output not in self.refused
            tied = any(id(head.weight) in map(id, module.parameters()) for module in self.embeddings)
            if plain and users.get(id(head.weight), 0) == tied:
                known.add(id(head.weight))
            else:  # what a tied embedding adds is then autograd's too
                known.discard(id(head.weight))
                self.embeddings = [
                    m for m in self.embeddings if id(head.weight) not in map(id, m.parameters())
                ]
                self.head = None
        self.others = [weight for weight in self.parameters if id(weight) not in known]
        self.weights_by_layer = [weight for weight in self.parameters if id(weight) in known]

    @property
    def one_by_one(self) -> bool:
        """Whether some weights take a backward pass per text, so that a batch should hold one pair."""
        return bool(self.others)

    def products(
        self,
        batch: Batch,
        score: Callable[[Batch], ResponseLogps],
        scores: Callable[[Tensor, Tensor], Tensor],
        *,
        directions: Sequence[Callable[[int], Tensor]] = (),
        totals: tuple[Tensors, Tensors] | None = None,
        sketch: Sketch | None = None,
    ) -> Products:
        """Everything about the texts of a batch.

        Parameters
        ----------
        batch : Batch
            Of texts with one response each: chosen and rejected of the first pair, of the second, …
        score : callable
            From the batch to its log-probabilities, with gradient.
        scores : callable
            From summed log-probs and numbers of tokens, (texts,), to the objective's scores.
        directions : sequence of callables
            Each from a parameter's number to a tensor of its shape.
        totals : pair of lists of Tensor, optional
            The gradients of all chosen and of all rejected scores are added to them.
        sketch : Sketch, optional
            Of the same parameters.
        """
        while True:
            try:
                return _Pass(self, batch, directions, totals, sketch).run(score, scores)
            except _Irregular as found:  # nothing was added to the totals yet
                self._sort([*self.refused, found.module])


class _Irregular(Exception):
    """A layer that is called twice, or not at every position of the batch."""

    def __init__(self, module: torch.nn.Module):
        super().__init__(type(module).__name__)
        self.module = module


class _Pass:
    """One forward and one backward pass over a batch, and what its layers add up to."""

    def __init__(
        self,
        layers: Layers,
        batch: Batch,
        directions: Sequence[Callable[[int], Tensor]],
        totals: tuple[Tensors, Tensors] | None,
        sketch: Sketch | None,
    ):
        self.layers, self.batch, self.directions, self.totals = layers, batch, directions, totals
        self.sketch = sketch
        self.texts = len(batch["lengths"])
        self.pairs = self.texts // SIDES
        device = batch["input_ids"].device
        rows, width = batch["input_ids"].shape
        lengths = [sum(part) for part in batch["layout"]] if "layout" in batch else [width] * rows
        self.positions = sum(lengths)
        self.text_of = torch.arange(self.texts, device=device).repeat_interleave(
            torch.tensor(lengths, device=device)
        )
        per_pair = [lengths[2 * i] + lengths[2 * i + 1] for i in range(self.pairs)]
        places = torch.arange(self.positions, device=device).split(per_pair)
        self.places = torch.nn.utils.rnn.pad_sequence(
            list(places), batch_first=True, padding_value=self.positions
        )
        texts = torch.arange(self.positions, device=device).split(lengths)
        self.of_text = torch.nn.utils.rnn.pad_sequence(
            list(texts), batch_first=True, padding_value=self.positions
        )
        side = torch.cat([self.text_of % SIDES, self.text_of.new_tensor([-1])])[self.places]
        self.sides = torch.stack([side == 0, side == 1]).double()
        self.gram = torch.zeros(self.pairs, 3, dtype=torch.double, device=device)
        self.along = torch.zeros(self.texts, len(directions), dtype=torch.double, device=device)
        self.sketches = torch.zeros(self.texts, sketch.size if sketch else 0, device=device)
        self.embedded: list[tuple[torch.nn.Module, Int64[Tensor, "positions"], Tensor]] = []
        self.root: Tensor | None = None
        self.called: set[int] = set()
        self.listening = False

    def run(
        self, score: Callable[[Batch], ResponseLogps], scores: Callable[[Tensor, Tensor], Tensor]
    ) -> Products:
        layers, model = self.layers, self.layers.model
        with ExitStack() as hooks, torch.enable_grad():
            see: Any
            for kind, see in (
                (layers.linear, self._see_linear),
                (layers.norms, self._see_norm),
                (layers.embeddings, self._see_embedding),
                ([model.get_input_embeddings()], self._see_root),
            ):
                for module in kind:
                    hooks.callback(module.register_forward_hook(see).remove)
            for weight in layers.weights_by_layer:  # whose whole gradients autograd would make, for nobody
                weight.requires_grad_(False)
                hooks.callback(weight.requires_grad_, True)
            handed = hooks.enter_context(watching(model))
            logps = score(self.batch)
            [states] = handed
            hidden = states.flatten(0, 1)[self.batch["predicting"]]
            if layers.head is not None:
                seen = Seen(hidden, logps.token_logps.detach())
                if not disagreement(layers.head, seen, self.batch["targets"]) <= AGREEMENT:
                    raise _Irregular(model.get_output_embeddings())
            value = scores(logps.logp_sum, logps.logp_sum.new_tensor(logps.lengths))
            self._others(value)
            self.listening = True
            ends = [logps.token_logps, self.root, *(out for _, _, out in self.embedded)]
            upstream, _, *of_embeddings = torch.autograd.grad(value.sum(), ends)  # type: ignore[arg-type]
        with torch.no_grad():
            self._embeddings(of_embeddings)
            self._head(hidden, logps, upstream, of_embeddings)
        return Products(
            gram=_numpy(self.gram),
            along=_numpy(self.along).reshape(self.pairs, SIDES, -1),
            score=_numpy(value).reshape(self.pairs, SIDES),
            logp_sum=_numpy(logps.logp_sum).reshape(self.pairs, SIDES),
            hidden=list(hidden.split(logps.lengths)),
            sketches=self.sketches.reshape(self.pairs, SIDES, -1),
        )

    # --- what a forward pass is asked for ------------------------------------------------------------------------

    def _flat(self, module: torch.nn.Module, values: Tensor) -> Tensor:
        """Values at every position, one row each."""
        rows = values.flatten(0, 1) if values.ndim > 2 else values
        if len(rows) != self.positions or id(module) in self.called:
            raise _Irregular(module)
        return rows

    def _see_root(self, module: torch.nn.Module, _: Any, output: Tensor) -> None:
        self.root = output.requires_grad_()

    def _see_embedding(self, module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ids = inputs[0].flatten()
        self._flat(module, output)
        if len(ids) != self.positions:
            raise _Irregular(module)
        self.called.add(id(module))
        self.embedded.append((module, ids, output.requires_grad_()))

    def _see_linear(self, module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        given = self._flat(module, inputs[0]).detach()
        self.called.add(id(module))
        output.requires_grad_().register_hook(lambda gradient: self._linear(module, given, gradient))

    def _see_norm(self, module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self.listening:  # it is called again, for its slope
            return
        self._flat(module, output)
        if len(inputs) != 1 or output.shape != inputs[0].shape:
            raise _Irregular(module)
        self.called.add(id(module))
        given = inputs[0].detach()
        output.requires_grad_().register_hook(lambda gradient: self._norm(module, given, gradient))

    # --- what the backward pass adds -----------------------------------------------------------------------------

    def _linear(self, module: Any, given: Tensor, gradient: Tensor) -> None:
        if not self.listening:
            return
        given, gradient = _wide(given), _wide(gradient).reshape(self.positions, -1)
        if id(module.weight) in self.layers.place:
            number = self.layers.place[id(module.weight)]
            self._add(self._products(given) * self._products(gradient))
            flipped = isinstance(module, Conv1D)  # whose weight is (inputs, outputs)
            for column, direction in enumerate(self.directions):
                wanted = _wide(direction(number))
                moved = given @ (wanted if flipped else wanted.T)
                self._add_along(column, (moved * gradient).sum(-1))
            first, second = (given, gradient) if flipped else (gradient, given)
            if self.sketch is not None:
                self.sketches += self.sketch.of_terms(number, self._by_text(first), self._by_text(second))
            for side in self._sides():
                self.totals[side][number].addmm_(first[self._of(side)].T, second[self._of(side)])  # type: ignore[index]
        if module.bias is not None and id(module.bias) in self.layers.place:
            self._vector(module.bias, gradient)

    def _norm(self, module: torch.nn.Module, given: Tensor, gradient: Tensor) -> None:
        if not self.listening:
            return
        gradient = _wide(gradient)
        for name, weight in module.named_parameters(recurse=False):
            if id(weight) not in self.layers.place:
                continue

            def at(value: Tensor, name: str = name) -> Any:
                return torch.func.functional_call(module, {name: value}, (given,))

            # How each feature of the output moves with its own weight: a norm's output is affine in its weights.
            slope = at(torch.ones_like(weight)) - at(torch.zeros_like(weight))
            self._vector(weight, (gradient * _wide(slope)).reshape(self.positions, -1, len(weight)).sum(1))

    def _vector(self, weight: Tensor, per_position: Tensor) -> None:
        """A weight whose gradient is a sum over positions."""
        summed = per_position.new_zeros(self.texts, per_position.shape[1]).index_add_(
            0, self.text_of, per_position
        )
        self._of_texts(self.layers.place[id(weight)], summed)

    def _of_texts(self, number: int, gradients: Tensor) -> None:
        """A weight whose gradient of every text is at hand, (texts, size)."""
        chosen, rejected = (gradients[side::SIDES].double() for side in range(SIDES))
        for column, (first, second) in enumerate(
            ((chosen, chosen), (chosen, rejected), (rejected, rejected))
        ):
            self.gram[:, column] += (first * second).sum(-1)
        for column, direction in enumerate(self.directions):
            self.along[:, column] += gradients.double() @ direction(number).flatten().double()
        if self.sketch is not None:
            shape = self.layers.parameters[number].shape
            self.sketches += self.sketch.of_gradients(number, gradients.reshape(-1, *shape))
        for side in self._sides():
            total = self.totals[side][number]  # type: ignore[index]
            total += gradients[side::SIDES].sum(0).view_as(total)

    def _others(self, value: Tensor) -> None:
        """The weights of layers that are none of the known kinds: by autograd, text by text."""
        weights = self.layers.others
        found = [
            torch.autograd.grad(one, weights, retain_graph=True, materialize_grads=True) if weights else ()
            for one in value.unbind()
        ]
        for weight, gradients in zip(weights, zip(*found, strict=True), strict=False):
            self._of_texts(
                self.layers.place[id(weight)], torch.stack([_wide(g).flatten() for g in gradients])
            )

    def _embeddings(self, gradients: Sequence[Tensor]) -> None:
        for (module, ids, _), gradient in zip(self.embedded, gradients, strict=True):
            number = self.layers.place[id(module.weight)]
            gradient = self._embedding_gradient(module, ids, gradient)
            named = torch.cat([ids, ids.new_tensor([-1])])[self.places]
            self._add(self._products(gradient) * (named[:, :, None] == named[:, None, :]))
            for column, direction in enumerate(self.directions):
                self._add_along(column, (_wide(direction(number)[ids]) * gradient).sum(-1))
            if self.sketch is not None:
                of_texts = torch.cat([ids, ids.new_zeros(1)])[self.of_text]
                self.sketches += self.sketch.of_tokens(number, of_texts, self._by_text(gradient))
            for side in self._sides():
                total = self.totals[side][number]  # type: ignore[index]
                total.index_add_(0, ids[self._of(side)], gradient[self._of(side)].to(total.dtype))

    def _embedding_gradient(self, module: Any, ids: Tensor, gradient: Tensor) -> Tensor:
        """At every position; none at the padding token, which torch does not train."""
        gradient = _wide(gradient).reshape(self.positions, -1)
        return gradient if module.padding_idx is None else gradient * (ids != module.padding_idx)[:, None]

    def _head(
        self, hidden: Tensor, logps: ResponseLogps, upstream: Tensor, of_embeddings: Sequence[Tensor]
    ) -> None:
        head = self.layers.head
        if head is None or id(head.weight) not in self.layers.place:
            return
        number, targets, seen = (
            self.layers.place[id(head.weight)],
            self.batch["targets"],
            Seen(hidden, logps.token_logps.detach()),
        )
        inputs, upstream = _wide(hidden) * head.scale, _wide(upstream)
        tied = [
            (ids, self._embedding_gradient(module, ids, gradient))
            for (module, ids, _), gradient in zip(self.embedded, of_embeddings, strict=True)
            if module.weight is head.weight
        ]
        starts = [0, *np.cumsum(logps.lengths).tolist()]
        for pair in range(self.pairs):
            middle, end = starts[SIDES * pair + 1], starts[SIDES * pair + 2]
            rows = torch.arange(starts[SIDES * pair], end, device=hidden.device)
            outputs = logps_of(head, seen, rows, targets[rows]).exp_().mul_(-upstream[rows, None])
            outputs[torch.arange(len(rows), device=hidden.device), targets[rows]] += upstream[rows]
            given, length = inputs[rows], middle - starts[SIDES * pair]
            mine = torch.arange(len(rows), device=hidden.device) < length
            sides = torch.stack([mine, ~mine]).double()
            self._add_to(pair, sides, (given @ given.T) * (outputs @ outputs.T), sides)
            for ids, gradient in tied:
                places = self.places[pair][self.places[pair] < self.positions]
                across = outputs[:, ids[places]] * (given @ gradient[places].T)
                theirs = self.sides[:, pair, : len(places)]
                self._add_to(pair, sides, across, theirs)
                self._add_to(pair, theirs, across.T, sides)
            for column, direction in enumerate(self.directions):
                moved = ((given @ _wide(direction(number)).T) * outputs).sum(-1).double()
                self.along[SIDES * pair : SIDES * pair + SIDES, column] += sides @ moved
            for side, which in enumerate((mine, ~mine)):
                if self.sketch is not None:
                    own = self.sketch.of_terms(number, outputs[None, which], given[None, which])
                    self.sketches[SIDES * pair + side] += own[0]
                if self.totals is not None:
                    self.totals[side][number].addmm_(outputs[which].T, given[which])

    # --- sums ----------------------------------------------------------------------------------------------------

    def _products(self, values: Tensor) -> Tensor:
        """Inner products of all positions of a pair: (pairs, longest, longest)."""
        padded = torch.cat([values, values.new_zeros(1, values.shape[1])])[self.places]
        return torch.bmm(padded, padded.mT)

    def _by_text(self, values: Tensor) -> Tensor:
        """Values of all positions, text by text: (texts, longest, …)."""
        return torch.cat([values, values.new_zeros(1, values.shape[1])])[self.of_text]

    def _add(self, products: Tensor) -> None:
        wide = products.double()
        for column, (first, second) in enumerate(((0, 0), (0, 1), (1, 1))):
            self.gram[:, column] += torch.einsum("pt,pts,ps->p", self.sides[first], wide, self.sides[second])

    def _add_to(self, pair: int, first: Tensor, products: Tensor, second: Tensor) -> None:
        found = first @ products.double() @ second.T
        self.gram[pair] += torch.stack([found[0, 0], found[0, 1], found[1, 1]])

    def _add_along(self, column: int, per_position: Tensor) -> None:
        self.along[:, column] += self.along.new_zeros(self.texts).index_add_(
            0, self.text_of, per_position.double()
        )

    def _sides(self) -> range:
        return range(0 if self.totals is None else SIDES)

    def _of(self, side: int) -> Tensor:
        return self.text_of % SIDES == side


def _wide(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))


def _numpy(values: Float[Tensor, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    return values.detach().double().cpu().numpy()

"""Is this a model whose log-probabilities mean what they should? What is found before the first number is recorded.

A causal language model's prediction does not change with later tokens. A pair's number does not depend on what else
lies in its batch: rotary embeddings that stretch with the longest text make it so. And two readers are compared in
float32, whatever the weights are, so that rounding cannot hide a wrong mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from rewardshape.errors import InputError
from rewardshape.numbers import significant

CAUSAL_TOKENS = 64  # of the longest text; a model that looks ahead does so everywhere
LOOKS_AHEAD = 0.05  # nats; with the same shapes a causal model's earlier predictions move by rounding only
NARROW = (torch.bfloat16, torch.float16)


def check_causal(model: torch.nn.Module, ids: Sequence[int]) -> None:
    """`InputError` where an earlier prediction of the model changes with the last token.

    Masked language models (BERT and its kin) load as causal ones and see the very token they are asked for.
    """
    ids = list(ids)[:CAUSAL_TOKENS]
    if len(ids) < 2:
        return
    device = next(model.parameters()).device
    other = next((token for token in ids if token != ids[-1]), 0)
    earlier = [
        model(input_ids=torch.tensor([[*ids[:-1], last]], device=device), use_cache=False)
        .logits[0, :-1]
        .float()
        .log_softmax(-1)
        for last in (ids[-1], other)
    ]
    moved = (earlier[0] - earlier[1]).gather(-1, torch.tensor(ids[1:], device=device)[:, None]).abs()
    if not moved.max().item() <= LOOKS_AHEAD:
        raise InputError(
            f"{type(model).__name__}: its predictions change with later tokens (by "
            f"{significant(moved.max().item(), 2)} nats), so it is no causal "
            "language model, and what it says of a response is no log-probability"
        )


def check_positions(config: Any, lengths: Sequence[int]) -> None:
    """`InputError` where a text's number would depend on the longest text in its batch.

    Phi-3's rotary embeddings (`longrope`) take one set of frequencies for batches up to a length and another beyond;
    `dynamic` ones stretch with the longest text that the model has seen.

    Parameters
    ----------
    config : configuration of transformers
    lengths : sequence of int
        Tokens of every prompt with one of its responses.
    """
    for rope in _ropes(config.get_text_config()):
        kind, switch = str(rope.get("rope_type", "")), rope.get("original_max_position_embeddings")
        switch = switch or getattr(config.get_text_config(), "max_position_embeddings", None)
        beyond = sum(length > switch for length in lengths) if switch else 0
        if not beyond or ("dynamic" not in kind and (kind != "longrope" or beyond == len(lengths))):
            continue
        raise InputError(
            f"{beyond:,} of {len(lengths):,} texts are longer than {switch:,} tokens, where this model's {kind} "
            "positions change for all texts of a batch, so that a number would depend on its batch; let "
            f"--max-prompt-tokens and --max-response-tokens together be {switch:,} at most"
        )


def _ropes(config: Any) -> list[dict[str, Any]]:
    """The parameters of the model's rotary embeddings: one set, or one for each kind of layer."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return [found] if "rope_type" in found else [value for value in found.values() if isinstance(value, dict)]


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Every module in evaluation mode within, and as it was afterwards.

    In training mode gradient checkpointing would switch the cache of a generation off.
    """
    were = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in were:
            module.training = training


@contextmanager
def without_autocast(model: Any) -> Iterator[None]:
    """Let a model that accelerate prepared for mixed precision compute in the type of its weights."""
    prepared = []
    while model is not None:
        if "_original_forward" in vars(model):  # around which accelerate put the autocast
            prepared.append((model, model.forward))
            model.forward = model._original_forward
        model = getattr(model, "module", None)
    try:
        yield
    finally:
        for module, forward in prepared:
            module.forward = forward


@contextmanager
def computed_in_float32(model: torch.nn.Module) -> Iterator[None]:
    """Let the model compute in float32 with its narrow weights: those of each layer are widened while it runs.

    So one layer's weights at a time are held twice, never the whole model's.
    """
    narrow: dict[torch.nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def widen(tensors: list[Tensor], module: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        narrow[module] = [(tensor, tensor.data) for tensor in tensors if tensor.dtype in NARROW]
        for tensor, data in narrow[module]:
            tensor.data = data.float()
        return tuple(one.float() if getattr(one, "dtype", None) in NARROW else one for one in given)

    def restore(module: torch.nn.Module, *_: Any) -> None:
        for tensor, data in narrow.pop(module, []):
            tensor.data = data

    hooks = []
    for module, tensors in _units(model):
        hooks.append(module.register_forward_pre_hook(partial(widen, tensors), prepend=True))
        hooks.append(module.register_forward_hook(restore, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in list(narrow):
            restore(module)


def _units(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, list[Tensor]]]:
    """Every layer with all its weights, since its parts may reach for each other's, and what lies outside layers."""
    inside: set[torch.nn.Module] = set()
    for module in model.modules():
        if module in inside:
            continue
        layer = isinstance(module, GradientCheckpointingLayer)
        inside |= set(module.modules()) if layer else set()
        tensors = [*module.parameters(recurse=layer), *module.buffers(recurse=layer)]
        if tensors:
            yield module, tensors

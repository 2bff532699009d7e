"""Attention over one packed row in which a prompt stands once and all its responses follow it.

The row is ``prompt | response | response | prompt | response | …``. A response attends to its prompt and to itself,
as if it stood alone behind the prompt; nothing else is different. The model is transformers' own: an attention
function registered under a name of ours cuts the row and hands every piece, with the mask transformers makes for
it, to the attention the model was loaded with.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    causal_mask_function,
    sliding_window_causal_mask_function,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PREFIX = "shared_prefix_over_"
IMPLEMENTATIONS = ("sdpa", "eager", "flex_attention")

Layout = Sequence[Sequence[int]]
"""Of each pair the number of rows of its prompt, then of each response."""


class CannotSharePrefix(Exception):
    """This model's attention cannot be asked to share a prefix; the message says why."""


def share_prefixes(model: PreTrainedModel) -> None:
    """Let the model attend by layout where one is given; ordinary calls go on as before.

    For good, not for one call: a checkpointed layer runs again in the backward pass and must attend as it did.
    """
    implementation = model.config._attn_implementation
    if implementation.startswith(PREFIX):
        return
    if implementation not in IMPLEMENTATIONS:
        known = ", ".join(IMPLEMENTATIONS)
        raise CannotSharePrefix(f"its attention is {implementation}, and prefixes are shared with {known}")
    model.set_attn_implementation(_registered(implementation))
    if not model.config._attn_implementation.startswith(PREFIX):
        raise CannotSharePrefix("its attention cannot be replaced")


def keep_prefixes_apart(model: PreTrainedModel) -> None:
    """Undo `share_prefixes`."""
    implementation = model.config._attn_implementation
    if implementation.startswith(PREFIX):
        model.set_attn_implementation(implementation.removeprefix(PREFIX))


@cache
def _registered(implementation: str) -> str:
    name = PREFIX + implementation
    AttentionInterface.register(name, partial(_attend, implementation))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name


def _attend(
    implementation: str,
    module: torch.nn.Module,
    query: Float[Tensor, "batch heads rows width"],
    key: Float[Tensor, "batch key_heads keys width"],
    value: Float[Tensor, "batch key_heads keys value_width"],
    attention_mask: Any,
    *,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch rows heads value_width"], Float[Tensor, "batch heads rows keys"] | None]:
    """Attention as transformers calls it, with a mask in the implementation's own form; by layout `batch` is 1."""
    attend = partial(_attention_function(implementation, module), module)
    if layout is None:
        return attend(query, key, value, attention_mask, **kwargs)
    window = kwargs.get("sliding_window")
    _refuse_hidden_mask(module, window, layout)
    if implementation == "flex_attention":
        return attend(query, key, value, _block_mask(layout, window, query.device), **kwargs)

    def behind(
        prefix: list[Float[Tensor, "1 key_heads prompt_rows _"]],
        query: Float[Tensor, "1 heads rows width"],
        key: Float[Tensor, "1 key_heads rows width"],
        value: Float[Tensor, "1 key_heads rows value_width"],
    ) -> Float[Tensor, "1 rows heads value_width"]:
        if prefix:
            key, value = (torch.cat(pair, 2) for pair in zip(prefix, (key, value), strict=True))
        mask = _mask(implementation, query.shape[2], key.shape[2], window, query.dtype, query.device)
        return attend(query, key, value, mask, **kwargs)[0]

    # One split and one concatenation: slices would each fill a gradient of the whole row on the way back.
    rows = list(chain.from_iterable(layout))
    pieces = zip(*(tensor.split(rows, 2) for tensor in (query, key, value)), strict=True)
    outputs = []
    for _, *responses in layout:
        prompt_query, *prefix = next(pieces)
        outputs.append(behind([], prompt_query, *prefix))
        outputs += [
            behind(prefix, *piece) for length, piece in zip(responses, pieces, strict=False) if length
        ]
    return torch.cat(outputs, 1), None


def _refuse_hidden_mask(module: torch.nn.Module, window: int | None, layout: Layout) -> None:
    """Refuse a layer whose configuration names a mask that its attention is not told of, where texts are long enough.

    Sequences here are cut from the row and masked anew, so of a mask nothing is known but the window that is passed.
    Of layers without a name `choose_reader` finds out, by the longest text.
    """
    config: Any = getattr(module, "config", None)
    kinds, index = getattr(config, "layer_types", None), getattr(module, "layer_idx", None)
    if window is not None or not kinds or index is None or index >= len(kinds):
        return
    size = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    if (kind := kinds[index]) == "full_attention":
        return
    limit = (getattr(config, size[kind], None) or 0) if kind in size else 0
    longest = max(prompt + max(responses, default=0) for prompt, *responses in layout)
    if longest > limit:
        raise CannotSharePrefix(f"its mask for {kind} is its own, and texts have up to {longest} tokens")


def _attention_function(implementation: str, module: torch.nn.Module) -> Callable[..., Any]:
    """What the model would have called; its eager attention lives in the file of the model itself."""
    eager = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    return ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)


def _mask_function(window: int | None) -> Callable[..., Any]:
    return causal_mask_function if window is None else sliding_window_causal_mask_function(window)


@lru_cache(maxsize=64)
def _mask(
    implementation: str, queries: int, keys: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> Any:
    """The mask transformers makes for the last `queries` of `keys` tokens; all layers of a batch share it."""
    return ALL_MASK_ATTENTION_FUNCTIONS[implementation](
        batch_size=1,
        q_length=queries,
        kv_length=keys,
        q_offset=keys - queries,
        mask_function=_mask_function(window),
        local_size=window,
        dtype=dtype,
        device=device,
    )


@lru_cache(maxsize=8)
def _block_mask(layout: Layout, window: int | None, device: torch.device) -> Any:
    """The whole row's mask for FlexAttention, which skips the blocks in which nothing is attended to."""
    pair, part, position = (torch.tensor(numbers, device=device) for numbers in _coordinates(layout))
    in_sequence = _mask_function(window)

    def attends(batch: Tensor, head: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        seen = (pair[q] == pair[kv]) & ((part[kv] == 0) | (part[kv] == part[q]))
        return seen & in_sequence(batch, head, position[q], position[kv])

    rows = len(position)
    return ALL_MASK_ATTENTION_FUNCTIONS["flex_attention"](
        batch_size=1, q_length=rows, kv_length=rows, mask_function=attends, device=device
    )


def _coordinates(layout: Layout) -> tuple[list[int], list[int], list[int]]:
    """Of each row its pair, its part (0 the prompt, then the responses) and its position in the sequence."""
    coordinates = [
        (number, part, row + (prompt_rows if part else 0))
        for number, (prompt_rows, *_) in enumerate(layout)
        for part, rows in enumerate(layout[number])
        for row in range(rows)
    ]
    pair, part, position = zip(*coordinates, strict=True)
    return list(pair), list(part), list(position)


def positions(layout: Layout) -> list[int]:
    """Position of each row in its own sequence: every response goes on where its prompt ends."""
    return _coordinates(layout)[2]

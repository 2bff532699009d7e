"""The one piece of the theory that needs torch: a value that carries a given derivative."""

from __future__ import annotations

from typing import Any

import torch


class _Attach(torch.autograd.Function):
    """Identity on its first argument; the derivative to each further (argument, slope) is the slope."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: torch.Tensor, *pairs: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.set_materialize_grads(False)
        ctx.shapes = [x.shape for x in inputs[1::2]]
        ctx.save_for_backward(*inputs[2::2])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        result: list[torch.Tensor | None] = [None]
        for shape, slope, needed in zip(
            ctx.shapes, ctx.saved_tensors, ctx.needs_input_grad[1::2], strict=True
        ):
            if grad is None or not needed:
                result += [None, None]
                continue
            # Where the gradient that arrives is 0 the pair is switched off, however steep it is.
            product = torch.where(grad == 0, torch.zeros_like(grad), grad * slope)
            result += [product.sum_to_size(shape), None]
        return tuple(result)


def attach(value: torch.Tensor, *slopes: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """See `rewardshape.theory._arrays.with_gradient`."""
    value = value.detach()
    pairs = [part for x, slope in slopes for part in (x, slope.expand_as(value))]
    attached: torch.Tensor = _Attach.apply(value, *pairs)  # type: ignore[no-untyped-call]
    return attached

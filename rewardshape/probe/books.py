"""The bytes of tensors: of one, and of all that come and go within some code."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def size_of(tensor: torch.Tensor) -> int:
    """Of a tensor, or of all that a quantised one is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(size_of(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.numel() * tensor.element_size()


class Moment(NamedTuple):
    """How many bytes were alive at a moment, and how many of them were gradients of weights."""

    alive: int = 0
    gradients: int = 0


class Books(TorchDispatchMode):
    """Counts the bytes of all tensors made within it, real ones or such without contents, views not twice.

    Attributes
    ----------
    alive : int
        Bytes now. The model's own weights are not among them.
    early, late : Moment
        When most were alive, before and after half of the weights had their gradients. A backward pass makes
        gradients as it frees activations, layer by layer, so the most is alive near one of its ends, and each of the
        two grows linearly with the number of layers, which the larger of them does not.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.alive = 0
        self.early = self.late = Moment()
        self._gradients = self._done = 0
        self._known = {weight.untyped_storage()._cdata for weight in model.parameters()}
        self._hooks = [
            weight.register_post_accumulate_grad_hook(self._count_gradient)
            for weight in model.parameters()
            if weight.requires_grad
        ]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._grouped_mm.default and args[0].dtype != torch.bfloat16:
            # Of a mixture of experts; without contents torch knows its shapes in bfloat16 alone.
            first, second, *others = args
            narrow = func(first.bfloat16(), second.bfloat16(), *others, **(kwargs or {}))
            result = narrow.to(first.dtype)
        else:
            result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._enter(tensor.untyped_storage())
        return result

    def _enter(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        weakref.finalize(storage, self._leave, storage._cdata, storage.nbytes())
        self.alive += storage.nbytes()
        half = "late" if 2 * self._done > len(self._hooks) else "early"
        if self.alive > getattr(self, half).alive:
            setattr(self, half, Moment(self.alive, self._gradients))

    def _leave(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size

    def _count_gradient(self, weight: torch.Tensor) -> None:
        assert weight.grad is not None
        self._gradients += size_of(weight.grad)
        self._done += 1

    def __exit__(self, *exception: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*exception)

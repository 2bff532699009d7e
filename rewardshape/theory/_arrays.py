"""One body for Python floats, numpy arrays and torch tensors.

Formulas are written once, against an array namespace ``xp``, in float64. `apply` lifts the arguments there and
brings the result back to the caller's library, dtype and device, rounding once. So float32 and bfloat16 results
carry one rounding of their own and nothing else. Torch is never imported from here unless a tensor arrives.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, is_torch_array

Array: TypeAlias = Any
"""A Python float, a numpy array or a torch tensor."""
Pair: TypeAlias = tuple[Array, Array]
"""One array for the chosen responses, one for the rejected."""

HUGE = np.finfo(np.float64).max
TINY = np.finfo(np.float64).tiny
_PACKAGE = __name__.rpartition(".")[0]
NO_FLOAT64 = ("mps",)  # devices of torch that have no float64
BLOCK = 1 << 14  # elements: the dozen temporaries of one block stay in the second-level cache


def lift(*values: Array) -> tuple[Any, list[Array], Callable[[Array], Array]]:
    """Array namespace, the values in float64 there, and the way back to the caller's kind."""
    tensors = [value for value in values if is_torch_array(value)]
    if tensors:
        return _lift_torch(values, tensors)
    plain = not any(hasattr(value, "dtype") or isinstance(value, list | tuple) for value in values)
    kinds = [value.dtype for value in values if hasattr(value, "dtype")]
    kinds = [kind for kind in kinds if np.issubdtype(kind, np.floating)]  # lengths are integers
    dtype = np.result_type(*kinds) if kinds else np.dtype(np.float64)

    def back(result: Array) -> Array:
        if plain and np.ndim(result) == 0:
            return float(result)
        return np.asarray(result).astype(dtype, copy=False)[()]

    return np, [np.asarray(value, dtype=np.float64) for value in values], back


def _lift_torch(
    values: Sequence[Array], tensors: list[Array]
) -> tuple[Any, list[Array], Callable[[Array], Array]]:
    xp = array_namespace(*tensors)
    device = next((tensor.device for tensor in tensors if tensor.ndim), tensors[0].device)
    working = xp.float32 if device.type in NO_FLOAT64 else xp.float64
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = xp.result_type(dtype, tensor.dtype)
    dtype = dtype if dtype.is_floating_point else xp.float64

    def up(value: Array) -> Array:
        if is_torch_array(value):
            return value.to(device=device, dtype=working)
        return xp.asarray(np.asarray(value, dtype=np.float64), dtype=working, device=device)

    return xp, [up(value) for value in values], lambda result: result.to(dtype)


def constant(xp: Any, value: Array, like: Array) -> Array:
    """A parameter (float or numpy array) as something that mixes with `like`."""
    if xp is np or isinstance(value, float | int):
        return value
    if not is_torch_array(value):
        value = np.array(value)  # a copy: torch warns of one that it may not write to
    return xp.asarray(value, dtype=like.dtype, device=like.device)


def apply(
    function: Callable[..., Any], *values: Array, what: str, blocks: bool = True, logarithm: bool = False
) -> Any:
    """Evaluate ``function(xp, *values)`` in float64 and return it as the caller's kind of array.

    `function` returns one array or a tuple of arrays. A result too large for the caller's dtype becomes inf in
    its own element, and for numpy arrays and Python floats a RuntimeWarning names `what` and the first such
    element; on tensors, whose values may sit on a GPU, the inf itself is the report. A `function` that couples the
    elements, or holds array parameters, must not be split into blocks. A `logarithm` may be −∞, that of 0.
    """
    xp, lifted, back = lift(*values)
    if xp is not np:
        result = function(xp, *lifted)
        return tuple(map(back, result)) if isinstance(result, tuple) else back(result)
    with np.errstate(all="ignore"):  # overflow is reported below, by name; underflow to 0 is the right value
        result = _in_blocks(function, lifted) if blocks else function(np, *lifted)
        several = isinstance(result, tuple)
        results = tuple(back(part) for part in (result if several else (result,)))
    for part in results:
        _report_overflow(part, np.isposinf(part) if logarithm else np.isinf(part), what)
    return results if several else results[0]


def apply_of(
    part: Any, function: Callable[..., Any], *values: Array, what: str, logarithm: bool = False
) -> Any:
    """`apply` of a formula of a shape or link, block by block where none of its parameters is an array."""
    numbers = not any(isinstance(value, np.ndarray) for value in vars(part).values())
    return apply(function, *values, what=what, blocks=numbers, logarithm=logarithm)


def _in_blocks(function: Callable[..., Any], values: list[np.ndarray]) -> Any:
    """Large flat arrays go through the formula block by block, which is several times faster than in one sweep."""
    shape = values[0].shape
    size = values[0].size
    if size <= BLOCK or len(shape) != 1 or any(value.shape != shape for value in values):
        return function(np, *values)
    first = function(np, *(value[:BLOCK] for value in values))
    parts = first if isinstance(first, tuple) else (first,)
    outputs = tuple(np.empty(shape) for _ in parts)
    for output, part in zip(outputs, parts, strict=True):
        output[:BLOCK] = part
    for start in range(BLOCK, size, BLOCK):
        block = function(np, *(value[start : start + BLOCK] for value in values))
        for output, part in zip(outputs, block if isinstance(block, tuple) else (block,), strict=True):
            output[start : start + BLOCK] = part
    return outputs if isinstance(first, tuple) else outputs[0]


def _report_overflow(result: Array, infinite: Array, what: str) -> None:
    if not np.any(infinite):
        return
    where = np.argwhere(np.atleast_1d(infinite))[0].tolist()
    index = where[0] if len(where) == 1 else where
    warnings.warn(
        f"{what} is beyond {np.asarray(result).dtype} in {np.count_nonzero(infinite)} of {np.size(result)} elements, "
        f"the first at index {index}: there it is infinite; check the score and alpha",
        RuntimeWarning,
        stacklevel=callers_level(),
    )


def callers_level() -> int:
    """The stack level, for a warning, of the first caller outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def with_gradient(xp: Any, value: Array, *slopes: tuple[Array, Array]) -> Array:
    """`value`, whose derivative with respect to each argument x is the given slope, for ``(x, slope)`` in `slopes`.

    Automatic differentiation of an accurate formula is not itself accurate: it multiplies 0 by infinity, and
    cancels where the closed form does not. Slopes that are part of a graph can be differentiated again.
    """
    if xp is np or not any(x.requires_grad for x, _ in slopes):
        return value
    from rewardshape.theory._torch import attach

    return attach(value, *slopes)


def exprel(xp: Any, x: Array) -> Array:
    """(eˣ − 1)/x, and 1 at x = 0: accurate to a few eps, because both parts see the same x."""
    zero = x == 0
    return xp.where(zero, 1.0, xp.expm1(x) / xp.where(zero, 1.0, x))


def softplus(xp: Any, x: Array) -> Array:
    """log(1 + eˣ) without overflow."""
    return positive_part(xp, x) + xp.log1p(xp.exp(-xp.abs(x)))


def sigmoid(xp: Any, x: Array) -> Array:
    """1/(1 + e⁻ˣ) with full relative accuracy on both sides."""
    small = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1.0, small) / (1.0 + small)


def log1mexp(xp: Any, x: Array) -> Array:
    """log(1 − eˣ) for x < 0; the switch at −log 2 is Mächler's."""
    near = x > -0.6931471805599453
    # Each branch is fed only arguments it is good at, so that neither makes a NaN gradient for the other.
    close = xp.log(-xp.expm1(xp.where(near, x, -1.0)))
    far = xp.log1p(-xp.exp(xp.where(near, -1.0, x)))
    return xp.where(near, close, far)


def positive_part(xp: Any, x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0.0) if xp is np else xp.clip(x, 0.0, None)


def bounded(xp: Any, x: Array) -> Array:
    """`x` with infinities replaced by the largest finite numbers, so that they never meet a zero."""
    _, largest = limits(xp, x)
    return xp.clip(x, -largest, largest)


def limits(xp: Any, x: Array) -> tuple[float, float]:
    """The smallest normal and the largest number of the dtype of `x`."""
    if xp is np:
        return TINY, HUGE
    info = xp.finfo(x.dtype)
    return float(info.smallest_normal), float(info.max)


def negative_part(xp: Any, x: Array) -> Array:
    """max(−x, 0)."""
    return positive_part(xp, -x)


def detached(x: Array) -> Array:
    """`x` as a constant of the graph."""
    return x.detach() if hasattr(x, "detach") else x

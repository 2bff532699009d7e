r"""Short sketches of gradients, whose inner products estimate those of the gradients without bias.

A count sketch adds every entry, with a random sign, to one of `SIZE` numbers (Charikar, Chen and Farach-Colton 2002).
Entry (i, j) of a matrix goes to place :math:`h(i) + h'(j)` modulo `SIZE` with sign :math:`s(i)\,s'(j)`, so that the
sketch of a rank-one term :math:`u v^\top` is the circular convolution of those of u and v, and a layer's gradient, a
sum of such terms over positions, is sketched by fast Fourier transforms without ever being formed (Pham and Pagh 2013);
one of few entries is formed, which takes less. An embedding's gradient has one row a token, whose entries are few.
All weights share the numbers: their signs are independent, so that in the mean only like meets like. The standard error
of an inner product is at most :math:`\sqrt{11 / \mathrm{SIZE}}` times the product of the two lengths (Avron, Nguyen and
Woodruff 2014), and about :math:`1/\sqrt{\mathrm{SIZE}}` of two gradients that have little in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

SIZE = 4096
POSITIONS, AT_ONCE = 256, 2**20  # positions, and entries of a matrix, whose places are held together
FORMED = (
    32  # times a sketch's size: a gradient of so many entries is formed sooner than two transforms a position
)


class Hash(NamedTuple):
    """Of every index of one axis the sign, and the place among `SIZE`."""

    signs: Float[Tensor, "axis"]
    places: Int64[Tensor, "axis"]
    size: int

    def short(self, values: Float[Tensor, "*batch axis"]) -> Float[Tensor, "*batch size"]:
        """The count sketch of the last axis."""
        target = values.new_zeros(*values.shape[:-1], self.size)
        return target.index_add_(-1, self.places, values * self.signs.to(values.dtype))


class Sketch:
    """The random signs and places of every trainable weight, by its number.

    Parameters
    ----------
    parameters : sequence of Tensor
        The trainable ones.
    size : int
        Of a sketch; the memory and time of a layer's are in proportion to it.
    seed : int
    """

    def __init__(self, parameters: Sequence[Tensor], *, size: int = SIZE, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)

        def drawn(length: int, device: torch.device) -> Hash:
            signs = 2.0 * torch.randint(0, 2, (length,), generator=generator) - 1
            places = torch.randint(0, size, (length,), generator=generator)
            return Hash(signs.to(device), places.to(device), size)

        self.number_of_weights, self.size = len(parameters), size
        self.matrices: dict[int, tuple[Hash, Hash]] = {}
        self.others: dict[int, Hash] = {}
        for number, weight in enumerate(parameters):
            if weight.ndim == 2:
                rows, columns = weight.shape
                self.matrices[number] = drawn(rows, weight.device), drawn(columns, weight.device)
            else:
                self.others[number] = drawn(weight.numel(), weight.device)

    def of_terms(
        self,
        number: int,
        u: Float[Tensor, "texts positions rows"],
        v: Float[Tensor, "texts positions columns"],
    ) -> Float[Tensor, "texts size"]:
        """Of Σ_t u_t v_tᵀ, the gradient of a matrix; positions that are padding are zero."""
        rows, columns = self.matrices[number]
        entries = u.shape[2] * v.shape[2]
        if entries <= FORMED * self.size:
            texts = max(1, AT_ONCE // entries)
            some = zip(u.mT.split(texts), v.split(texts), strict=True)
            return torch.cat([self.of_gradients(number, a @ b) for a, b in some])
        return torch.cat([_convolved(rows.short(a), columns.short(b)) for a, b in _few_at_once(u, v)])

    def of_tokens(
        self,
        number: int,
        tokens: Int64[Tensor, "texts positions"],
        v: Float[Tensor, "texts positions columns"],
    ) -> Float[Tensor, "texts size"]:
        """Of a matrix whose u_t are one-hot at `tokens`: an embedding's."""
        rows, columns = self.matrices[number]
        found = []
        for some, b in _few_at_once(tokens, v):
            places = (rows.places[some][..., None] + columns.places) % self.size
            signs = (rows.signs[some][..., None] * columns.signs).to(b.dtype)
            short = b.new_zeros(len(b), self.size)
            found.append(short.scatter_add_(1, places.flatten(1), (b * signs).flatten(1)))
        return torch.cat(found)

    def of_gradients(
        self, number: int, gradients: Float[Tensor, "texts *shape"]
    ) -> Float[Tensor, "texts size"]:
        """Of gradients that are at hand, one for each text."""
        if number in self.others:
            return self.others[number].short(gradients.flatten(1))
        rows, columns = self.matrices[number]
        found = gradients.new_zeros(len(gradients), self.size)
        step = max(1, AT_ONCE // gradients.shape[2])
        for start in range(0, gradients.shape[1], step):
            part = slice(start, start + step)
            places = (rows.places[part, None] + columns.places) % self.size
            signs = (rows.signs[part, None] * columns.signs).to(gradients.dtype)
            found.index_add_(1, places.flatten(), (gradients[:, part] * signs).flatten(1))
        return found

    def of_all(self, gradient: Callable[[int], Tensor]) -> Float[Tensor, "size"]:
        """Of a whole gradient, given for each weight's number."""
        parts = [
            self.of_gradients(number, gradient(number)[None])[0] for number in range(self.number_of_weights)
        ]
        return torch.stack(parts).sum(0)


def _few_at_once(first: Tensor, second: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Texts of a few positions together: what is held of each is `SIZE` wide."""
    texts = max(1, POSITIONS // first.shape[1])
    return zip(first.split(texts), second.split(texts), strict=True)


def _convolved(
    first: Float[Tensor, "texts positions size"], second: Float[Tensor, "texts positions size"]
) -> Float[Tensor, "texts size"]:
    """Circular convolutions, summed over positions."""
    both = torch.fft.rfft(first).mul_(torch.fft.rfft(second)).sum(1)
    return torch.fft.irfft(both, n=first.shape[-1])

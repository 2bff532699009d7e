"""Hidden states to log-probabilities without the logits: the vocabulary is projected piece by piece.

A batch of N predicted tokens over a vocabulary of V words has N × V logits, and training would hold several copies
of them. Only a few numbers per token are wanted. So the vocabulary is cut into tiles that fit the cache; each tile's
logits are made, folded into the running sums and forgotten, and the backward pass makes each tile again, unless what
it needs of all tiles is small enough to be kept. A tile's slice of the weight and of its gradient is then touched
exactly once, and the softmax of a tile is turned into the softmax over everything by one factor per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CPU_TILE_ELEMENTS = 2**20
GPU_TILE_ELEMENTS = 2**26
SMALLEST_TILE = 512
MOST_KEPT = 2**29
"""Bytes of softmax that may wait for the backward pass: saves one of four products with the vocabulary."""


class Head(NamedTuple):
    """What turns a hidden state h into logits: c·tanh((scale·h Wᵀ + b)/c), without the cap where there is none."""

    weight: Float[Tensor, "vocabulary width"]
    bias: Float[Tensor, "vocabulary"] | None
    scale: float
    softcap: float | None

    def copied(self) -> Head:
        """The same as it stands now, which training does not change."""
        bias = None if self.bias is None else self.bias.detach().clone()
        return self._replace(weight=self.weight.detach().clone(), bias=bias)

    def logits(self, hidden: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
        """Of hidden states, float32 or wider."""
        logits = torch.nn.functional.linear(
            (hidden * self.scale).to(self.weight.dtype), self.weight, self.bias
        )
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)


def head_of(model: Any) -> Head:
    """The output projection of a causal language model of transformers.

    Raises
    ------
    NoLinearHead
        If it is not a plain linear layer.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or not head.weight.is_floating_point():
        raise NoLinearHead(f"its output projection is a {type(head).__name__}, not a linear layer")
    config = model.config.get_text_config()
    return Head(
        weight=head.weight,
        bias=head.bias,
        scale=(getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1),
        softcap=getattr(config, "final_logit_softcapping", None),
    )


Hear = Callable[[slice, Float[Tensor, "tokens tile"]], None]


class NoLinearHead(Exception):
    """The model's output projection is something else than one matrix."""


class TokenLogps(NamedTuple):
    """Of each predicted token, in nats, float32 or wider."""

    logps: Float[Tensor, "tokens"]
    greedy_logps: Float[Tensor, "tokens"]
    entropies: Float[Tensor, "tokens"]
    log_sum_sq_probs: Float[Tensor, "tokens"]
    """log Σ_v π(v)² of the prediction."""
    kl: Float[Tensor, "tokens"] | None = None
    """KL(π_ref ‖ π) of the predictions, where those of the reference were given."""


class Predictions(NamedTuple):
    """What another model predicts at the same positions: enough to make its whole distributions again."""

    head: Head
    hidden: Float[Tensor, "tokens width"]
    normalizer: Float[Tensor, "tokens"]
    """logsumexp of its logits."""

    def tile(self, tile: slice) -> tuple[Float[Tensor, "tokens tile"], Float[Tensor, "tokens tile"]]:
        """The logits of a slice of the vocabulary, and their probabilities."""
        bias = None if self.head.bias is None else self.head.bias[tile]
        logits = self.head._replace(weight=self.head.weight[tile], bias=bias).logits(self.hidden)
        return logits, (logits - self.normalizer[:, None]).exp_()


def project(
    hidden: Float[Tensor, "tokens width"],
    weight: Float[Tensor, "vocabulary width"],
    targets: Int64[Tensor, "tokens"],
    *,
    bias: Float[Tensor, "vocabulary"] | None = None,
    softcap: float | None = None,
    reference: Predictions | None = None,
    hear: Hear | None = None,
) -> TokenLogps:
    r"""Log-probability of each target token and of the greedy token; entropy and peakedness of the prediction.

    With :math:`x = h W^\top + b`, capped as :math:`c \tanh(x / c)` where the model does so, and
    :math:`Z = \log \sum_v e^{x_v}`: the log-probability is :math:`x_y - Z`, the greedy one
    :math:`\max_v x_v - Z`, the entropy :math:`Z - \sum_v e^{x_v - Z} x_v`, and with a reference of logits
    :math:`x'` the divergence :math:`\sum_v e^{x'_v - Z'} (x'_v - x_v) + Z - Z'`.

    Parameters
    ----------
    hidden
        What the model's last norm gives, at the positions that predict a token.
    weight
        Of the output projection.
    targets
        The tokens that came.
    bias
        Of the output projection, where it has one.
    softcap
        Cap of the logits (Gemma 2).
    reference
        What the reference predicts there; costs one more product forwards and one backwards.
    hear
        Is given the logits of every tile on their way, with the words of the tile; the next tile overwrites them.

    Returns
    -------
    TokenLogps
        `logps` and `kl` with a gradient to `hidden`, `weight` and `bias`; the others without.

    Examples
    --------
    Two words, of which the first is thrice as likely:

    >>> hidden, weight = torch.tensor([[1.0]]), torch.tensor([[3.0], [1.0]]).log()
    >>> project(hidden, weight, torch.tensor([1])).logps.exp()
    tensor([0.2500])
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    hidden = hidden.to(weight.dtype)
    softmaxes = 1 if reference is None else 2
    bytes_of_all = softmaxes * len(hidden) * len(weight) * hidden.element_size()
    keeps = softmaxes if torch.is_grad_enabled() and bytes_of_all <= MOST_KEPT else 0
    return TokenLogps(*_Projection.apply(hidden, weight, targets, bias, softcap, reference, keeps, hear))


class Tile(NamedTuple):
    """What the tokens predict of a slice of the vocabulary."""

    words: slice
    logits: Float[Tensor, "tokens tile"]
    shares: Float[Tensor, "tokens tile"]
    """Softmax within the tile."""
    greedy: Float[Tensor, "tokens"]
    """Largest logit."""
    normalizer: Float[Tensor, "tokens"]
    """logsumexp of the logits."""


class Spare:
    """The block of memory in which a step's softmax waited, for the next step: a new one is faulted in page by page.

    One that waits for its backward pass is not here, so no other step gets it. A GPU has an allocator for this.
    """

    def __init__(self) -> None:
        self.block: Tensor | None = None

    def take(self, like: Tensor, softmaxes: int, entries: int) -> Float[Tensor, "softmaxes entries"]:
        """Room for so many numbers of the type of `like`, as they come."""
        size = softmaxes * entries
        block, self.block = self.block, None
        if block is None or block.dtype != like.dtype or block.device != like.device or len(block) < size:
            block = like.new_empty(size)
        return block[:size].unflatten(0, (softmaxes, entries))

    def put(self, taken: Float[Tensor, "softmaxes entries"]) -> None:
        """What was taken, once nobody reads it; of several the last."""
        if taken.device.type == "cpu":
            self.block = taken._base

    def forget(self) -> None:
        """Give it back to the system."""
        self.block = None


SPARE = Spare()


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "tokens width"],
        weight: Float[Tensor, "vocabulary width"],
        targets: Int64[Tensor, "tokens"],
        bias: Float[Tensor, "vocabulary"] | None,
        softcap: float | None,
        reference: Predictions | None,
        keeps: int,
        hear: Hear | None,
    ) -> tuple[Float[Tensor, "tokens"] | None, ...]:
        tiles_greedy, tiles_normalizer, tiles_mean, tiles_target, tiles_square = [], [], [], [], []
        kl = (
            torch.zeros((), dtype=hidden.dtype)
            if reference is None
            else torch.zeros_like(reference.normalizer)
        )
        kept = SPARE.take(hidden, keeps, len(hidden) * len(weight)) if keeps else None
        for tile in _tiles(hidden, weight, bias, softcap):
            words, logits, shares = tile.words, tile.logits, tile.shares
            if hear is not None:
                hear(words, logits)
            their_shares = None
            tiles_greedy.append(tile.greedy)
            tiles_normalizer.append(tile.normalizer)
            place = (targets - words.start).clamp(0, logits.shape[1] - 1)
            here = (targets >= words.start) & (targets < words.stop)
            tiles_target.append(logits.gather(1, place[:, None]).squeeze(1).where(here, -torch.inf))
            if reference is not None:
                theirs, their_shares = reference.tile(words)
                kl += torch.linalg.vecdot(their_shares, theirs - logits)
            if kept is not None:
                slopes = _slopes(logits, softcap, shares, their_shares)
                for place, slope in zip(_kept_slopes(kept, words, len(hidden)), slopes, strict=True):
                    place.copy_(slope)
            # In place: room for one more tile each time would leave holes in the heap, as many as there are tiles.
            tiles_mean.append(logits.mul_(shares).sum(-1))
            tiles_square.append(shares.square_().sum(-1))
        normalizers = torch.stack(tiles_normalizer)
        normalizer = normalizers.logsumexp(0)
        target = torch.stack(tiles_target).amax(0)
        greedy_logps = torch.stack(tiles_greedy).amax(0) - normalizer
        # Entropy of which tile, and of which word within it: both terms are positive, so nothing cancels.
        tile_shares = normalizers.softmax(0)
        within = normalizers - torch.stack(tiles_mean)
        entropies = torch.special.entr(tile_shares).sum(0) + (tile_shares * within).sum(0)
        log_sum_sq_probs = (2 * (normalizers - normalizer) + torch.stack(tiles_square).log()).logsumexp(0)
        if reference is not None:
            kl += normalizer - reference.normalizer
        ctx.save_for_backward(hidden, weight, targets, bias, normalizer, target, normalizers, kept)
        ctx.softcap, ctx.reference = softcap, reference
        ctx.mark_non_differentiable(greedy_logps, entropies, log_sum_sq_probs)
        return (
            target - normalizer,
            greedy_logps,
            entropies,
            log_sum_sq_probs,
            None if reference is None else kl,
        )

    @staticmethod
    def backward(
        ctx: Any, *upstreams: Any
    ) -> tuple[
        Float[Tensor, "tokens width"],
        Float[Tensor, "vocabulary width"] | None,
        None,
        Float[Tensor, "vocabulary"] | None,
        None,
        None,
        None,
        None,
    ]:
        """For a token y with upstream gradient u: u (1[v = y] − p_v) at logit v, summed over the tiles.

        The tiles hold the softmax alone; the term of the targets is added at the end, as one row per token. The
        divergence, of upstream gradient k, adds k (p_v − p′_v).
        """
        upstream, of_kl, reference = upstreams[0], upstreams[-1], ctx.reference
        hidden, weight, targets, bias, normalizer, target, normalizers, kept = ctx.saved_tensors
        to_hidden = torch.zeros_like(hidden, dtype=upstream.dtype)
        to_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        to_bias = torch.empty_like(bias) if ctx.needs_input_grad[3] else None
        tiles: Iterator[tuple[Any, ...]] = (
            _slopes_anew(hidden, weight, bias, ctx.softcap, reference)
            if kept is None
            else ((words, *_kept_slopes(kept, words, len(hidden))) for words in _slices(hidden, weight))
        )
        for (words, own, *theirs), tile_normalizer in zip(tiles, normalizers, strict=True):
            scale = -upstream * (tile_normalizer - normalizer).exp()
            if theirs:
                # Two softmaxes cannot share a factor: the rows are scaled here, and by 1 below.
                factor = (of_kl - upstream) * (tile_normalizer - normalizer).exp()
                own = own * factor[:, None] - theirs[0] * of_kl[:, None]
                scale = torch.ones_like(scale)
            shares = own.to(hidden.dtype)
            to_hidden += torch.mm(shares, weight[words]) * scale[:, None]
            if to_weight is not None:
                torch.mm(shares.T, (hidden * scale[:, None]).to(weight.dtype), out=to_weight[words])
            if to_bias is not None:
                torch.mv(shares.T, scale.to(shares.dtype), out=to_bias[words])
        if kept is not None:
            SPARE.put(kept)
        if ctx.softcap is not None:
            upstream = upstream * (1 - (target / ctx.softcap).square())
        to_hidden += weight[targets] * upstream[:, None]
        if to_weight is not None:
            to_weight.index_add_(0, targets, (hidden * upstream[:, None]).to(weight.dtype))
        if to_bias is not None:
            to_bias.index_add_(0, targets, upstream.to(bias.dtype))
        return to_hidden.to(hidden.dtype), to_weight, None, to_bias, None, None, None, None


def _slices(hidden: Float[Tensor, "tokens width"], weight: Float[Tensor, "vocabulary width"]) -> list[slice]:
    """The vocabulary cut into tiles, of which only the last may be smaller."""
    elements = CPU_TILE_ELEMENTS if hidden.device.type == "cpu" else GPU_TILE_ELEMENTS
    tile_width = min(len(weight), max(SMALLEST_TILE, elements // len(hidden)))
    return [slice(start, min(start + tile_width, len(weight))) for start in range(0, len(weight), tile_width)]


def _tiles(
    hidden: Float[Tensor, "tokens width"],
    weight: Float[Tensor, "vocabulary width"],
    bias: Float[Tensor, "vocabulary"] | None,
    softcap: float | None,
) -> Iterator[Tile]:
    """The vocabulary in tiles. The next one overwrites the last one's logits and softmax."""
    slices = _slices(hidden, weight)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    raw = hidden.new_empty(len(hidden) * slices[0].stop)
    soft = hidden.new_empty(len(hidden) * slices[0].stop, dtype=wide)
    for words in slices:
        shape = len(hidden), words.stop - words.start
        size = shape[0] * shape[1]
        logits = torch.mm(hidden, weight[words].T, out=raw[:size].view(shape))
        if bias is not None:
            logits += bias[words]
        if softcap is not None:
            logits.div_(softcap).tanh_().mul_(softcap)
        logits = logits.to(wide)
        shares = torch.softmax(logits, -1, out=soft[:size].view(shape))
        greedy = logits.amax(-1)
        # Of a softmax the largest share is the best conditioned: its logarithm is the maximum less the logsumexp.
        yield Tile(words, logits, shares, greedy, greedy - shares.amax(-1).log())


def _slopes(
    logits: Float[Tensor, "tokens tile"],
    softcap: float | None,
    *softmaxes: Float[Tensor, "tokens tile"] | None,
) -> list[Float[Tensor, "tokens tile"]]:
    """Softmaxes as the backward pass needs them: times the slope of the cap, where there is one."""
    there = [shares for shares in softmaxes if shares is not None]
    if softcap is None:
        return there
    slope = 1 - (logits / softcap).square()
    return [shares * slope for shares in there]


def _slopes_anew(
    hidden: Float[Tensor, "tokens width"],
    weight: Float[Tensor, "vocabulary width"],
    bias: Float[Tensor, "vocabulary"] | None,
    softcap: float | None,
    reference: Predictions | None,
) -> Iterator[tuple[Any, ...]]:
    """Of each tile its words and `_slopes`: the policy's, then the reference's where there is one."""
    for tile in _tiles(hidden, weight, bias, softcap):
        theirs = None if reference is None else reference.tile(tile.words)[1]
        yield tile.words, *_slopes(tile.logits, softcap, tile.shares, theirs)


def _kept_slopes(
    kept: Float[Tensor, "softmaxes entries"], words: slice, tokens: int
) -> Float[Tensor, "softmaxes tokens tile"]:
    """Where those of a tile wait for the backward pass: all in one block, which goes back to the system whole."""
    return kept[:, tokens * words.start : tokens * words.stop].unflatten(1, (tokens, -1))

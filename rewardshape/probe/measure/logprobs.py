"""What does the model say of each response: its tokens' log-probabilities, in nats.

Two readers give the same numbers. `PlainReader` is the reference: one padded row per response, whole logits,
transformers' own forward. `SharedPrefixReader` is what a run uses: no padding, each prompt read once for all
its responses, the vocabulary projected only where a response token is predicted and never held as a whole.
`choose_reader` compares the two on the model at hand.

Both take encoded pairs with any number of responses. Responses come out in row-major order: pair by pair,
within a pair in the order of its `responses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.numbers import significant
from rewardshape.probe.measure.check import (
    NARROW,
    check_causal,
    check_positions,
    computed_in_float32,
    evaluating,
    without_autocast,
)
from rewardshape.probe.measure.projection import Predictions, TokenLogps, head_of, project
from rewardshape.probe.measure.shared_prefix import (
    keep_prefixes_apart,
    positions,
    share_prefixes,
)

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Difference in nats on any token up to which two readers agree: rounding in these types, not another model."""
RELATIVE = 1e-5  # of the log-probability itself, which float32 rounds
NARROW_TOLERANCE = 0.5  # where a model cannot compute in float32


Batch = dict[str, Any]
"""Tensors, which whoever trains moves to the model's device, and plain Python lists of lengths, which stay on
the CPU: cutting tensors to length then never waits for a GPU."""


@dataclass(frozen=True)
class ResponseLogps:
    """Log-probabilities of a batch's responses, row-major.

    Attributes
    ----------
    token_logps
        Log-probability of every response token in nats, float32 or wider, with gradient.
    greedy_logps
        Log-probability of the token the model would rather have said there, in nats; no gradient.
    entropies
        Entropy of the prediction there, in nats; no gradient.
    log_sum_sq_probs
        log Σ_v π(v)² of the prediction there; no gradient.
    lengths
        Number of tokens of each response; they add up to `tokens`.
    kl
        KL(π_ref ‖ π) of the predictions in nats, with gradient, where the batch holds those of the reference.
    """

    token_logps: Float[Tensor, "tokens"]
    greedy_logps: Float[Tensor, "tokens"]
    entropies: Float[Tensor, "tokens"]
    log_sum_sq_probs: Float[Tensor, "tokens"]
    lengths: list[int]
    kl: Float[Tensor, "tokens"] | None = None

    def rows(self, values: Float[Tensor, "tokens"]) -> Float[Tensor, "responses longest"]:
        """One of the per-token attributes as one row per response, zero after the end."""
        return pad_sequence(list(values.split(self.lengths)), batch_first=True)

    def padded(self) -> Float[Tensor, "responses longest"]:
        """Token log-probs as one row per response, zero after the end."""
        return self.rows(self.token_logps)

    @property
    def logp_sum(self) -> Float[Tensor, "responses"]:
        """Log-probability of each response in nats, with gradient."""
        return self.padded().sum(-1)


@runtime_checkable
class Reader(Protocol):
    """A way from encoded pairs to log-probabilities."""

    name: str

    def collate(self, pairs: Sequence[EncodedPair]) -> Batch:
        """Encoded pairs as one batch."""
        ...

    def logps(self, model: torch.nn.Module, batch: Batch) -> ResponseLogps:
        """Log-probabilities of a batch that this reader collated."""
        ...


class PlainReader:
    """The reference: one right-padded row per response, the whole logits, log-softmax.

    Parameters
    ----------
    pad_token_id : int
        What stands in the padding; any id of the vocabulary gives the same numbers.
    """

    name = "plain"

    def __init__(self, *, pad_token_id: int = 0):
        self.pad_token_id = pad_token_id

    def collate(self, pairs: Sequence[EncodedPair]) -> Batch:
        """Encoded pairs as one batch; every pair may have any number of responses."""
        rows = [(pair.prompt_ids, ids) for pair in _checked(pairs) for ids in pair.responses.values()]
        width = max(len(prompt) + len(response) for prompt, response in rows)
        input_ids = torch.full((len(rows), width), self.pad_token_id)
        for row, (prompt, response) in enumerate(rows):
            length = len(prompt) + len(response)
            input_ids[row, :length] = torch.tensor([*prompt, *response])
        predicting = [
            torch.arange(len(response)) + row * width + len(prompt) - 1
            for row, (prompt, response) in enumerate(rows)
        ]
        return {
            "input_ids": input_ids,
            "predicting": torch.cat(predicting),
            "targets": _targets(pairs),
            "lengths": _lengths(pairs),
        }

    def logps(self, model: torch.nn.Module, batch: Batch) -> ResponseLogps:
        """Log-probabilities of a batch that this reader collated."""
        # No mask: to a causal model the padding behind a text is as if it were not there.
        logits = model(input_ids=batch["input_ids"], use_cache=False).logits
        logits = without_virtual(logits, batch).flatten(0, 1)[batch["predicting"]]
        logp = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        every = logp.detach()
        reference = predictions_of(batch)
        return ResponseLogps(
            token_logps=logp.gather(-1, batch["targets"][:, None]).squeeze(-1),
            greedy_logps=every.amax(-1),
            entropies=torch.special.entr(every.exp()).sum(-1),
            log_sum_sq_probs=(2 * every).logsumexp(-1),
            lengths=batch["lengths"],
            kl=None if reference is None else _divergence(reference, logp),
        )


class SharedPrefixReader:
    """The fast way: one packed row without padding, each prompt once, no logits but the wanted ones.

    A response's last token is predicted but predicts nothing, so it is not read at all.
    """

    name = "shared prefix"

    def collate(self, pairs: Sequence[EncodedPair]) -> Batch:
        """Encoded pairs as one batch; every pair may have any number of responses."""
        input_ids: list[int] = []
        predicting: list[int] = []
        layout = []
        for pair in _checked(pairs):
            input_ids += pair.prompt_ids
            end_of_prompt = len(input_ids) - 1
            for ids in pair.responses.values():
                predicting += [end_of_prompt, *range(len(input_ids), len(input_ids) + len(ids) - 1)]
                input_ids += ids[:-1]
            layout.append([len(pair.prompt_ids), *(len(ids) - 1 for ids in pair.responses.values())])
        return {
            "input_ids": torch.tensor([input_ids]),
            "position_ids": torch.tensor([positions(layout)]),
            "predicting": torch.tensor(predicting),
            "targets": _targets(pairs),
            "lengths": _lengths(pairs),
            "layout": layout,
        }

    def logps(self, model: torch.nn.Module, batch: Batch) -> ResponseLogps:
        """Log-probabilities of a batch that this reader collated.

        Raises
        ------
        CannotSharePrefix, NoLinearHead
            If this model cannot be asked to; `choose_reader` finds out beforehand.
        """
        inner = _unwrapped(model)
        share_prefixes(inner)
        found: list[TokenLogps] = []

        def project_here(
            _: torch.nn.Module, args: tuple[Float[Tensor, "1 rows width"]]
        ) -> tuple[Float[Tensor, "1 0 width"]]:
            """In place of the head, where sharded weights are at hand: it is given no rows to project."""
            hidden, head = args[0], head_of(inner)
            wanted = hidden.flatten(0, 1).index_select(0, batch["predicting"])
            found.append(
                project(
                    wanted * head.scale,
                    head.weight,
                    batch["targets"],
                    bias=head.bias,
                    softcap=head.softcap,
                    reference=predictions_of(batch),
                    hear=batch.get("hear"),
                )
            )
            return (hidden[:, :0],)

        head_of(inner)  # refused here, before anything is computed
        hook = inner.get_output_embeddings().register_forward_pre_hook(project_here)
        try:
            model(
                input_ids=batch["input_ids"],
                position_ids=batch["position_ids"],
                # Four dimensions say that the mask is made already; the layout is what attention goes by.
                attention_mask=batch["input_ids"].new_empty(0, 0, 0, 0),
                use_cache=False,
                layout=tuple(map(tuple, batch["layout"])),
            )
        finally:
            hook.remove()
        [tokens] = found
        return ResponseLogps(
            tokens.logps,
            tokens.greedy_logps,
            tokens.entropies,
            tokens.log_sum_sq_probs,
            batch["lengths"],
            tokens.kl,
        )


def choose_reader(model: torch.nn.Module, pairs: Sequence[EncodedPair]) -> tuple[Reader, str]:
    """The fastest reader that is right for this model, and a sentence on why where it is not the fast one.

    The two readers are compared token by token, in float32, on the pair with the longest text and on the shortest, so
    that a window of attention that is shorter than the texts counts.

    Parameters
    ----------
    model : causal language model of transformers
        Its mode (training or evaluation) is left as it was.
    pairs : sequence of EncodedPair
        All the pairs the readers will be used on, the probe set's too.

    Returns
    -------
    reader : Reader
        With `.collate(pairs)` and `.logps(model, batch)`.
    note : str
        Empty, or why the plain reader was taken.

    Raises
    ------
    InputError
        A model whose predictions depend on later tokens, or, with these pairs, on what else is in the batch.
    """
    inner = _unwrapped(model)
    by_length = sorted(_checked(pairs), key=_longest_text)
    check_positions(
        inner.config, [len(pair.prompt_ids) + len(ids) for pair in pairs for ids in pair.responses.values()]
    )
    with evaluating(model), torch.no_grad():
        longest = by_length[-1]
        check_causal(inner, [*longest.prompt_ids, *max(longest.responses.values(), key=len)])
        reason = _disagreement(model, [longest, by_length[0]])
    if not reason:
        return SharedPrefixReader(), ""
    keep_prefixes_apart(inner)
    return (
        PlainReader(),
        f"{type(inner).__name__} cannot read a prompt once for all its responses ({reason}): each is read alone.",
    )


def by_name(
    names: Sequence[str], rows: Float[Tensor, "responses ..."]
) -> dict[str, Float[Tensor, "pairs ..."]]:
    """Rows of a batch whose pairs all have the responses `names`, in this order: of each name one row a pair."""
    return dict(zip(names, rows.unflatten(0, (-1, len(names))).unbind(1), strict=True))


def predictions_of(batch: Batch) -> Predictions | None:
    """What a reference predicts at the batch's response tokens, where whoever trains has added it."""
    if "reference_head" not in batch:
        return None
    return Predictions(batch["reference_head"], batch["reference_hidden"], batch["reference_normalizer"])


def _divergence(reference: Predictions, logp: Float[Tensor, "tokens vocabulary"]) -> Float[Tensor, "tokens"]:
    logits, probabilities = reference.tile(slice(None))
    theirs = logits - reference.normalizer[:, None]
    return torch.linalg.vecdot(probabilities, theirs - logp)


def without_virtual(rows: Tensor, batch: Batch) -> Tensor:
    """What a model computed, at the tokens it was given only: peft's prompt tuning puts virtual ones before them."""
    return rows[:, -batch["input_ids"].shape[1] :]


def on_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with its tensors moved; lengths stay plain numbers."""
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


def _longest_text(pair: EncodedPair) -> int:
    """Tokens of the prompt with the longest response."""
    return len(pair.prompt_ids) + max(map(len, pair.responses.values()))


def _disagreement(model: torch.nn.Module, pairs: Sequence[EncodedPair]) -> str:
    """Why the shared reader is not right for this model; empty where it is."""
    narrow = next(model.parameters()).dtype in NARROW
    try:
        with without_autocast(model), computed_in_float32(_unwrapped(model)):
            return _difference(model, pairs, TOLERANCE[torch.float32] if narrow else None)
    except RuntimeError:
        if not narrow:
            raise
        return _difference(model, pairs, NARROW_TOLERANCE)  # its kernels know no float32


def _difference(model: torch.nn.Module, pairs: Sequence[EncodedPair], tolerance: float | None) -> str:
    """How the two readers differ on some token; empty where they do not."""
    plain, shared = PlainReader(), SharedPrefixReader()
    device = next(model.parameters()).device
    expected = plain.logps(model, on_device(plain.collate(pairs), device)).token_logps
    try:
        found = shared.logps(model, on_device(shared.collate(pairs), device)).token_logps
    except Exception as problem:  # whatever an unknown architecture trips over, the plain reader still stands
        return f"{type(problem).__name__}: {problem}".splitlines()[0].rstrip(".")
    allowed = tolerance or TOLERANCE.get(next(model.parameters()).dtype, TOLERANCE[torch.float32])
    off = (found - expected).abs()
    if (off <= allowed + RELATIVE * expected.abs()).all():
        return ""
    return f"its log-probability of a token would be off by {significant(off.max().item(), 2)} nats"


def _unwrapped(model: torch.nn.Module) -> Any:
    """The transformers model inside the wrappers of distributed training and of peft."""
    inner: Any = model
    while hasattr(inner, "module"):
        inner = inner.module
    return base_of(inner)


def base_of(model: Any) -> Any:
    """The transformers model that carries peft's adapters; one without adapters as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _checked(pairs: Sequence[EncodedPair]) -> Sequence[EncodedPair]:
    """The pairs, once it is sure that each has a prompt and responses: without them nothing is predicted."""
    if not pairs:
        raise InputError("no pairs to collate; give at least one")
    for pair in pairs:
        if not pair.prompt_ids:
            raise InputError(
                f"{pair.pair_id}: the prompt has no tokens; start it with the model's first token (bos)"
            )
        if not pair.responses:
            raise InputError(f"{pair.pair_id}: no responses; give at least one")
        for name, ids in pair.responses.items():
            if not ids:
                raise InputError(
                    f"{pair.pair_id}: the {name} response has no tokens; drop the row or end it (eos)"
                )
    return pairs


def _targets(pairs: Sequence[EncodedPair]) -> Int64[Tensor, "tokens"]:
    return torch.tensor([token for pair in pairs for ids in pair.responses.values() for token in ids])


def _lengths(pairs: Sequence[EncodedPair]) -> list[int]:
    return [len(ids) for pair in pairs for ids in pair.responses.values()]

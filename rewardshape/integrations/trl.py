"""In TRL's trainers: our objectives as a DPO loss. `ProbeCallback`, which needs no TRL, is here under its old name too.

`shaped` makes a `DPOTrainer` that minimises any objective of `rewardshape.theory`.

>>> from rewardshape import objective
>>> trainer = shaped(objective("chipo", beta=0.1))(model, args=args, ...)  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from rewardshape.data.cells import SCORES
from rewardshape.errors import InputError
from rewardshape.integrations.callback import ProbeCallback
from rewardshape.integrations.models import has_adapters
from rewardshape.probe.measure.logprobs import base_of
from rewardshape.probe.measure.projection import Predictions, head_of, project
from rewardshape.theory import Objective, Responses

__all__ = ["ProbeCallback", "left_aligned", "shaped"]


NOT_OF_THE_MODEL = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")
"""Of a batch of TRL's, beside what its model is given."""


def shaped(objective: Objective) -> type:
    """A `trl.DPOTrainer` class whose loss is `objective`, and what balances the experts of a mixture.

    Tokenising, the reference model and everything else stay TRL's; the loss is ours, and so is what is logged of the
    pairs: ``logps/…``, and ``rewards/margins`` and ``rewards/accuracies`` of the objective. ``loss_type`` and ``beta``
    of its arguments have no effect on training.

    Parameters
    ----------
    objective : Objective
        Any objective of `rewardshape.theory`. One that needs the annotator's scores reads them from the data set's
        columns ``chosen_score`` and ``rejected_score``; one that compares whole predictions (TDPO) needs a model that
        is not sharded.

    Raises
    ------
    InputError
        When the trainer is made: ``ld_alpha``, or ``precompute_ref_log_probs`` of an objective that compares token by
        token, by which the reference would be another kind of number than the policy's.
    """
    from trl import DPOTrainer
    from trl.trainer.utils import add_fused_lm_head

    needs = set(objective.needs)
    per_token = bool(needs & {"ref_token_logps", "position_kl"})

    class ShapedTrainer(DPOTrainer):
        def __init__(self, *arguments: Any, **named: Any):
            for callback in named.get("callbacks") or ():
                if isinstance(callback, ProbeCallback):
                    callback.will_train(objective)
            super().__init__(*arguments, **named)
            self._refuse_another_reference()
            if "log_sum_sq_probs" in needs:
                add_fused_lm_head(base_of(self.model), outputs=("log_probs", "log_sum_sq_probs"))
            if "label" in needs:
                self.data_collator = _with_scores(self.data_collator)

        def _refuse_another_reference(self) -> None:
            if self.ld_alpha is not None and objective.needs_reference and not per_token:
                raise InputError(
                    "ld_alpha: TRL would weigh the reference by it and not the policy; leave it out, and for LD-DPO "
                    f'give shaped(objective("ld_dpo", tail={self.ld_alpha}))'
                )
            if per_token and self.ref_model is None and not has_adapters(self.model):  # type: ignore[arg-type]
                raise InputError(
                    f"precompute_ref_log_probs: keeps sums, and {objective.name} compares token by token; leave it out"
                )

        def _precompute_ref_logps(self, *arguments: Any, **named: Any) -> Any:
            self._refuse_another_reference()  # not after hours
            return super()._precompute_ref_logps(*arguments, **named)

        def add_callback(self, callback: Any) -> None:
            if isinstance(callback, ProbeCallback):
                callback.trains(objective)
            super().add_callback(callback)

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            if "label" in needs:
                self._signature_columns = [*(self._signature_columns or []), *SCORES]  # type: ignore[assignment]

        def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
            labels = inputs.pop("label", None)
            mask = inputs["completion_mask"][:, 1:]
            given = {name: value for name, value in inputs.items() if name not in NOT_OF_THE_MODEL}
            if self.aux_loss_enabled:
                given["output_router_logits"] = True
            with _last_hidden(base_of(self.accelerator.unwrap_model(model))) as own:
                outputs = model(
                    **given,
                    labels=inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100),
                    fused_lm_head=True,
                    use_cache=False,
                )
            token_logps = outputs.log_probs[:, -mask.size(1) :]
            known: dict[str, Any] = {"num_tokens": mask.sum(1)}
            if labels is not None:
                known["label"] = labels
            if "token_draws" in needs:
                known["token_draws"] = torch.rand(mask.shape).to(mask.device)
            if "log_sum_sq_probs" in needs:
                known["log_sum_sq_probs"] = outputs.log_sum_sq_probs[:, -mask.size(1) :].sum(1)
            if per_token:
                theirs, their_states = self._reference_tokens(inputs)
                theirs = theirs[:, -mask.size(1) :]
                known |= {"ref_logp_sum": theirs.sum(1), "ref_token_logps": left_aligned(theirs, mask)}
                if "position_kl" in needs:
                    before = slice(-mask.size(1) - 1, -1)  # the states that predict the tokens
                    token_logps, known["position_kl"] = self._diverged(
                        own[-1][:, before],
                        their_states[-1][:, before],
                        inputs["input_ids"][:, 1:],
                        theirs,
                        mask,
                    )
            elif objective.needs_reference:
                sums = (
                    [inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]
                    if self.precompute_ref_logps
                    else self.compute_ref_log_probs(self.ref_model or self.model, inputs)
                )
                known["ref_logp_sum"] = torch.cat(list(sums))
            known |= {"logp_sum": token_logps.sum(1), "token_logps": left_aligned(token_logps, mask)}
            halves = {name: value.chunk(2) for name, value in known.items()}
            chosen, rejected = (
                Responses(**{name: half[side] for name, half in halves.items()}) for side in (0, 1)
            )
            loss = objective.pair_loss(chosen, rejected).mean()
            if self.aux_loss_enabled:
                loss = loss + self.router_aux_loss_coef * outputs.aux_loss
            with torch.no_grad():
                self._log_pairs(chosen, rejected)
            if not return_outputs:
                return loss
            with torch.no_grad():  # the fused head makes no logits, which `compute_metrics` is given
                return loss, model(**given, use_cache=False)

        def _reference_tokens(self, inputs: dict[str, Any]) -> tuple[Any, list[Any]]:
            """Log-probs of every token under the reference, and its last hidden states, as TRL runs it."""
            reference, seen = self.ref_model or self.model, []

            def remembered(**named: Any) -> Any:
                seen.append(reference(**named))  # type: ignore[misc]
                return seen[-1]

            with _last_hidden(base_of(self.accelerator.unwrap_model(reference))) as states:
                self.compute_ref_log_probs(remembered, inputs)
            return seen[-1].log_probs, states

        def _diverged(
            self, own: Any, theirs: Any, targets: Any, their_logps: Any, mask: Any
        ) -> tuple[Any, Any]:
            """Token log-probs, and per response KL(π_ref ‖ π) over its tokens."""
            counted = mask.bool()
            head, their_head = (
                head_of(base_of(self.accelerator.unwrap_model(model)))
                for model in (self.model, self.ref_model or self.model)
            )
            hidden, their_hidden, wanted = own[counted], theirs[counted], targets[counted]
            weight, bias = (
                their_head.weight[wanted],
                None if their_head.bias is None else their_head.bias[wanted],
            )
            logits = (their_hidden * their_head.scale * weight).sum(-1) + (0 if bias is None else bias)
            if their_head.softcap is not None:
                logits = their_head.softcap * torch.tanh(logits / their_head.softcap)
            predictions = Predictions(their_head, their_hidden, (logits - their_logps[counted]).detach())
            found = project(
                hidden * head.scale,
                head.weight,
                wanted,
                bias=head.bias,
                softcap=head.softcap,
                reference=predictions,
            )
            rows = mask.new_zeros(mask.shape, dtype=found.logps.dtype)
            return (
                rows.masked_scatter(counted, found.logps),
                rows.masked_scatter(counted, found.kl).sum(1),
            )

        def _log_pairs(self, chosen: Responses, rejected: Responses) -> None:
            scores = objective.pair_scores(chosen, rejected)
            values = {
                "logps/chosen": chosen.logp_sum,
                "logps/rejected": rejected.logp_sum,
                "rewards/margins": objective.pair_margin(chosen, rejected),
                "rewards/accuracies": (scores[0] > scores[1]).float(),
            }
            mode = "train" if self.model.training else "eval"  # type: ignore[union-attr]
            for name, value in values.items():
                self._metrics[mode][name].append(self.accelerator.gather_for_metrics(value).mean().item())

    return ShapedTrainer


@contextlib.contextmanager
def _last_hidden(model: Any) -> Iterator[list[Any]]:
    """Within it, the last hidden states of every forward pass are added to the list."""
    seen: list[Any] = []
    hook = model.base_model.register_forward_hook(lambda *args: seen.append(args[-1].last_hidden_state))
    try:
        yield seen
    finally:
        hook.remove()


def _with_scores(collate: Callable[..., Any]) -> Callable[..., Any]:
    """The collator, and the annotator's scores of chosen, then of rejected responses under ``label``."""

    def collated(examples: list[dict[str, Any]]) -> Any:
        for name in SCORES:
            if name not in examples[0]:
                raise InputError(
                    f"the data set has no column {name!r}, which the objective needs; rename yours"
                )
        scores = torch.tensor([float(example[name]) for name in SCORES for example in examples])
        return {**collate(examples), "label": scores}

    return collated


def left_aligned(logps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Each row's response tokens moved to its start, shape kept."""
    start = mask.long().argmax(1, keepdim=True)
    place = (start + torch.arange(mask.size(1), device=mask.device)).clamp(max=mask.size(1) - 1)
    return logps.gather(1, place)

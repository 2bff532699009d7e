"""In transformers' and TRL's trainers: a callback that measures displacement, and our objectives as a DPO loss.

`ProbeCallback` works in any trainer built on transformers' (DPO, CPO with SimPO or AlphaPO, ORPO, KTO, …): it measures
a fixed probe set beside the training and touches nothing of it. `shaped` makes a `DPOTrainer` that minimises any
objective of `rewardshape.theory`.

>>> from rewardshape import objective
>>> trainer = DPOTrainer(model, args=args, ...)  # doctest: +SKIP
>>> trainer.add_callback(ProbeCallback("pairs.jsonl", objective("dpo", beta=0.1)))  # doctest: +SKIP
>>> trainer = shaped(objective("chipo", beta=0.1))(model, args=args, ...)  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import extract_model_from_parallel
from transformers import TrainerCallback

import rewardshape
from rewardshape.data import EncodedPair, encode_pairs, read_preferences
from rewardshape.data.forms import SCORES
from rewardshape.errors import InputError
from rewardshape.probe.inputs import probe_texts
from rewardshape.probe.measure.logprobs import choose_reader
from rewardshape.probe.measure.probe_set import ProbeSet
from rewardshape.probe.measure.projection import Predictions, head_of, project
from rewardshape.probe.training import call_inside
from rewardshape.theory import Objective, Responses
from rewardshape.trace import RunFolder, TraceWriter, write_json, write_whole

LOGGED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
}  # a trainer's word -> ours


class ProbeCallback(TrainerCallback):
    """Measure a fixed probe set at step 0 and every K steps, and write our trace beside the run.

    Parameters
    ----------
    pairs : path, sequence of paths, or sequence of EncodedPair
        The probe set, best pairs that are not trained on; files in any form that `read_preferences` knows.
    objective : Objective
        What the trainer optimises: `rewardshape.objective("dpo", beta=0.1)`. The trace needs it for margins; where
        it has a reference, that is the policy as it stands at step 0.
    every : int
        Steps between two measurements.
    folder : path, optional
        Where the trace is written; default ``rewardshape/`` below the trainer's output folder. It must be new.
    max_pairs : int
        Only so many pairs of the files, from the start.
    max_prompt_tokens, max_response_tokens : int
        As in the probe; give the trainer's own limits.
    stop_below : float, optional
        Stop training once the mean chosen log-prob per token has fallen by more than this many nats per token.
    """

    def __init__(
        self,
        pairs: str | PathLike[str] | Sequence[Any],
        objective: Objective,
        *,
        every: int = 1,
        folder: str | PathLike[str] | None = None,
        max_pairs: int = 64,
        max_prompt_tokens: int = 1024,
        max_response_tokens: int = 1024,
        stop_below: float | None = None,
    ):
        if every < 1:
            raise InputError(f"every={every}: must be at least 1")
        if stop_below is not None and stop_below <= 0:
            raise InputError(f"stop_below={stop_below}: must be positive, a fall in nats per token")
        self.pairs = pairs
        self.objective = objective
        self.every = every
        self.folder = Path(folder) if folder is not None else None
        self.max_pairs = max_pairs
        self.max_prompt_tokens = max_prompt_tokens
        self.max_response_tokens = max_response_tokens
        self.stop_below = stop_below
        self._writer: TraceWriter | None = None
        self._pending: dict[str, Any] | None = (
            None  # the record of a step, until the trainer has logged its loss
        )
        self._start: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model, tokenizer = kwargs["model"], kwargs["processing_class"]
        place = PartialState()
        encoded = self._encoded(tokenizer)
        inner = extract_model_from_parallel(model)
        self._reader, _ = choose_reader(inner, encoded)
        self._probe = ProbeSet(encoded, self._reader, args.device)
        folder = self._folder = self.folder or Path(args.output_dir) / "rewardshape"
        measured, tokens = self._measure(model)
        self._start = self._probe.means(measured)
        if place.is_main_process:
            if RunFolder(folder).trace.exists():
                raise InputError(
                    f"{folder}: holds a trace already, which is kept; give ProbeCallback another folder"
                )
            folder.mkdir(parents=True, exist_ok=True)
            self._describe(folder, args, encoded, tokenizer)
            table = self._probe.table(self._reference(measured) if self.objective.needs_reference else None)
            self._writer = TraceWriter(folder, table)
            self._writer.append(state.global_step, metrics={}, probe=measured, tokens=tokens)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._flush()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        last = state.global_step >= state.max_steps
        if state.global_step % self.every and not last:
            return
        measured, tokens = self._measure(kwargs["model"])
        now = self._probe.means(measured)
        change = {name: now[name] - self._start[name] for name in now}
        chosen, rejected = change["probe_chosen_logp_mean"], change["probe_rejected_logp_mean"]
        if PartialState().is_main_process:
            print(
                f"step {state.global_step}: chosen {chosen:+.4f}, rejected {rejected:+.4f} nats per token since step 0",
                flush=True,
            )
        self._pending = {"step": state.global_step, "metrics": {}, "probe": measured}
        if last:
            self._pending["tokens"] = tokens
        if self.stop_below is not None and -chosen > self.stop_below:
            control.should_training_stop = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if self._pending is not None and state.global_step == self._pending["step"]:
            self._pending["metrics"] |= {LOGGED[k]: float(v) for k, v in (logs or {}).items() if k in LOGGED}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            RunFolder(self._folder).set_status("done")

    def _flush(self) -> None:
        if self._pending is not None and self._writer is not None:
            self._writer.append(**self._pending)
        self._pending = None

    def _encoded(self, tokenizer: Any) -> list[EncodedPair]:
        if (
            not isinstance(self.pairs, str | PathLike)
            and self.pairs
            and isinstance(self.pairs[0], EncodedPair)
        ):
            return list(self.pairs)[: self.max_pairs]
        read, _ = read_preferences(self.pairs)
        return encode_pairs(
            read[: self.max_pairs],
            tokenizer,
            max_prompt_tokens=self.max_prompt_tokens,
            max_response_tokens=self.max_response_tokens,
        )[0]

    def _measure(self, model: torch.nn.Module) -> tuple[dict[str, list[float]], list[list[float]]]:
        """The probe set under the policy as it stands, in evaluation mode; the trainer's mode is put back."""
        inner = extract_model_from_parallel(model)
        training = model.training
        model.eval()
        try:
            return self._probe.measure(lambda batch: call_inside(model, inner, self._reader.logps, batch))
        finally:
            model.train(training)

    def _reference(self, measured: dict[str, list[float]]) -> dict[str, dict[str, float]]:
        sums = iter(measured["logp_sum"])
        return {pair.pair_id: {name: next(sums) for name in pair.responses} for pair in self._probe.pairs}

    def _describe(self, folder: Path, args: Any, pairs: Sequence[EncodedPair], tokenizer: Any) -> None:
        manifest = {
            "rewardshape": rewardshape.__version__,
            "status": "running",
            "run": {
                "objective": self.objective.name,
                **self.objective.parameters,
                "learning_rate": args.learning_rate,
                "steps": args.max_steps,
                "seed": args.seed,
            },
            "objective": {"name": self.objective.name, "parameters": dict(self.objective.parameters)},
        }
        files = RunFolder(folder)
        write_json(files.manifest, manifest)
        texts = (json.dumps(r, ensure_ascii=False) + "\n" for r in probe_texts(pairs, tokenizer))
        write_whole(files.probe_set, "".join(texts))


def shaped(objective: Objective) -> type:
    """A `trl.DPOTrainer` class whose loss is `objective`.

    Tokenising, the reference model, logging and everything else stay TRL's; only the loss is ours. ``loss_type`` and
    ``beta`` of its arguments have no effect on training; the logged ``rewards/…`` are the objective's own.

    Parameters
    ----------
    objective : Objective
        Any objective of `rewardshape.theory`. One that needs the annotator's scores reads them from the data set's
        columns ``chosen_score`` and ``rejected_score``; one that compares whole predictions (TDPO) needs a model that
        is not sharded.
    """
    from trl import DPOTrainer
    from trl.trainer.utils import add_fused_lm_head

    needs = set(objective.needs)
    per_token = bool(needs & {"ref_token_logps", "position_kl"})

    class ShapedTrainer(DPOTrainer):
        def __init__(self, *arguments: Any, **named: Any):
            super().__init__(*arguments, **named)
            if "log_sum_sq_probs" in needs:
                add_fused_lm_head(_inner(self.model), outputs=("log_probs", "log_sum_sq_probs"))
            if "label" in needs:
                self.data_collator = _with_scores(self.data_collator)

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            if "label" in needs:
                self._signature_columns = [*(self._signature_columns or []), *SCORES]  # type: ignore[assignment]

        def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
            labels = inputs.pop("label", None)
            mask = inputs["completion_mask"][:, 1:]
            with _last_hidden(_inner(self.accelerator.unwrap_model(model))) as own:
                outputs = model(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
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
            with torch.no_grad():
                self._log_pairs(chosen, rejected)
            return (loss, outputs) if return_outputs else loss

        def _reference_tokens(self, inputs: dict[str, Any]) -> tuple[Any, list[Any]]:
            """Log-probs of every token under the reference, and its last hidden states, as TRL runs it."""
            reference, seen = self.ref_model or self.model, []

            def remembered(**named: Any) -> Any:
                seen.append(reference(**named))  # type: ignore[misc]
                return seen[-1]

            with _last_hidden(_inner(self.accelerator.unwrap_model(reference))) as states:
                self.compute_ref_log_probs(remembered, inputs)
            return seen[-1].log_probs, states

        def _diverged(
            self, own: Any, theirs: Any, targets: Any, their_logps: Any, mask: Any
        ) -> tuple[Any, Any]:
            """Token log-probs, and per response KL(π_ref ‖ π) over its tokens."""
            counted = mask.bool()
            head, their_head = (
                head_of(_inner(self.accelerator.unwrap_model(model)))
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


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


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

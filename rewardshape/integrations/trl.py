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

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import extract_model_from_parallel
from transformers import TrainerCallback

import rewardshape
from rewardshape.data import EncodedPair, encode_pairs, read_preferences
from rewardshape.errors import InputError
from rewardshape.probe.inputs import probe_texts
from rewardshape.probe.measure.logprobs import choose_reader
from rewardshape.probe.measure.probe_set import ProbeSet
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
        Any objective of `rewardshape.theory` that needs no more than log-probs of response tokens.

    Raises
    ------
    InputError
        For an objective that needs more than TRL's trainer computes.
    """
    from trl import DPOTrainer

    missing = set(objective.needs) - {"logp_sum", "num_tokens", "ref_logp_sum", "token_logps"}
    if missing:
        raise InputError(
            f"{objective.name} needs {', '.join(sorted(missing))}, which DPOTrainer does not compute"
        )

    class ShapedTrainer(DPOTrainer):
        def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
            mask = inputs["completion_mask"][:, 1:]
            outputs = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                labels=inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100),
                fused_lm_head=True,
                use_cache=False,
            )
            token_logps = outputs.log_probs[:, -mask.size(1) :]
            reference = [None, None]
            if objective.needs_reference:
                reference = (
                    [inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]
                    if self.precompute_ref_logps
                    else self.compute_ref_log_probs(self.ref_model or self.model, inputs)
                )
            chosen, rejected = (
                Responses(logps.sum(1), lengths, ref, left_aligned(logps, own_mask))
                for logps, own_mask, lengths, ref in zip(
                    token_logps.chunk(2), mask.chunk(2), mask.sum(1).chunk(2), reference, strict=True
                )
            )
            loss = objective.pair_loss(chosen, rejected).mean()
            with torch.no_grad():
                self._log_pairs(chosen, rejected)
            return (loss, outputs) if return_outputs else loss

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


def left_aligned(logps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Each row's response tokens moved to its start, shape kept."""
    start = mask.long().argmax(1, keepdim=True)
    place = (start + torch.arange(mask.size(1), device=mask.device)).clamp(max=mask.size(1) - 1)
    return logps.gather(1, place)

"""The optimisation, on transformers' Trainer: its optimisers, schedules, precision, accumulation and distribution.

Ours are the loss, the log-probabilities it is made of, and the numbers of a step, `StepNumbers`. They are of the
weights *before* the update: what the step's own forward passes saw.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from safetensors import SafetensorError
from torch import Tensor
from torch.utils._pytree import register_pytree_node
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.checkpoints import ASIDE, checkpoint_name, keep_whole
from rewardshape.probe.distributed import gather, gather_attempts, here
from rewardshape.probe.grid import PlannedRun
from rewardshape.probe.measure.logprobs import Batch, Reader, ResponseLogps, by_name
from rewardshape.probe.measure.probe_set import PAIR, ReferenceLogps, num_tokens
from rewardshape.probe.measure.responses import draws, scores, sides
from rewardshape.probe.order import Item
from rewardshape.probe.policy import TORCHAO
from rewardshape.probe.reference import FollowingReference, ReferenceTokens, reference_tokens
from rewardshape.probe.room import give_back
from rewardshape.theory import MovingReference, Objective, Responses
from rewardshape.trace.folder import RunFolder


def _parted(logps: ResponseLogps) -> tuple[list[Any], Any]:
    tensors = [logps.token_logps, logps.greedy_logps, logps.entropies, logps.log_sum_sq_probs, logps.kl]
    return tensors, logps.lengths


def _joined(tensors: Iterable[Any], lengths: Any) -> ResponseLogps:
    token_logps, greedy_logps, entropies, log_sum_sq_probs, kl = tensors
    return ResponseLogps(token_logps, greedy_logps, entropies, log_sum_sq_probs, lengths, kl)


# FSDP looks for tensors in what a forward pass returns, to gather the weights again when gradients reach them.
register_pytree_node(ResponseLogps, _parted, _joined)


def training_arguments(run: PlannedRun, folder: Path) -> TrainingArguments:
    """Our settings in transformers' words."""
    training, decided = run.settings.training, run.decided
    report_to = run.settings.output.report_to
    place = here()
    arguments = TrainingArguments(
        output_dir=str(RunFolder(folder).checkpoints),
        max_steps=training.steps,
        per_device_train_batch_size=decided.micro_batch_size,
        gradient_accumulation_steps=decided.batch_size // place.processes // decided.micro_batch_size,
        learning_rate=decided.learning_rate,
        lr_scheduler_type=decided.schedule,
        warmup_steps=math.ceil(decided.warmup_ratio * training.steps),
        max_grad_norm=training.max_grad_norm,
        optim=decided.optimizer,
        optim_args="bf16_stochastic_round=True" if decided.optimizer in TORCHAO else None,
        seed=training.seed,
        save_strategy="steps",
        save_steps=decided.checkpoint_every,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[] if report_to == "none" else [report_to],
        run_name=str(folder),
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=[],
        bf16=run.settings.model.precision == "mixed",
        use_cpu=place.device.type == "cpu",
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    # One process uses one device: several in sight would otherwise split our packed rows (DataParallel).
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def require_trainer(version: str, trainer: type = Trainer) -> None:
    """Refuse a transformers of this version if its trainer cannot be asked for what a step measures.

    Raises
    ------
    InputError
        Below 5.6. `rewardshape measure`, the recorder and the callback do with 4.57.
    """
    if not hasattr(trainer, "_get_grad_norm"):
        raise InputError(
            f"rewardshape probe: needs transformers 5.6 or newer to train, and {version} is installed; update it, or "
            "measure what another trainer trains (rewardshape measure, ProbeCallback)"
        )


PerPair = Float[Tensor, "pairs"] | Float64[np.ndarray, "pairs"]


@dataclass(frozen=True)
class StepNumbers:
    """What the forward passes of a step measured, one entry per pair.

    Attributes
    ----------
    positions
        Places of the pairs in the order of training.
    pair_ids
        Their names.
    losses, margins
        Margins in reward units, γ subtracted.
    gaps
        Score of chosen minus score of rejected, in the objective's own unit.
    chosen, rejected
        `logp_sum` and `ref_logp_sum` (nats; None without a reference) and `num_tokens`.
    tokens
        Tokens of the pairs, each prompt counted once.

    Tensors as a forward pass leaves them, float64 arrays once `joined`.
    """

    positions: list[int]
    pair_ids: list[str]
    losses: PerPair
    margins: PerPair
    gaps: PerPair
    chosen: Responses
    rejected: Responses
    tokens: int

    @classmethod
    def joined(cls, parts: Sequence[StepNumbers]) -> StepNumbers:
        """Several forward passes as one, in the order of training."""
        order = np.argsort([position for part in parts for position in part.positions])

        def ordered(values: Sequence[Any]) -> Any:
            return np.concatenate([_array(each) for each in values])[order]

        def side(responses: Sequence[Responses]) -> Responses:
            reference = [each.ref_logp_sum for each in responses]
            return Responses(
                logp_sum=ordered([each.logp_sum for each in responses]),
                num_tokens=ordered([each.num_tokens for each in responses]),
                ref_logp_sum=None if reference[0] is None else ordered(reference),
            )

        positions = [position for part in parts for position in part.positions]
        pair_ids = [pair_id for part in parts for pair_id in part.pair_ids]
        return cls(
            positions=[positions[index] for index in order],
            pair_ids=[pair_ids[index] for index in order],
            losses=ordered([part.losses for part in parts]),
            margins=ordered([part.margins for part in parts]),
            gaps=ordered([part.gaps for part in parts]),
            chosen=side([part.chosen for part in parts]),
            rejected=side([part.rejected for part in parts]),
            tokens=sum(part.tokens for part in parts),
        )

    def metrics(self) -> dict[str, float]:
        """Means of loss and margin, and the share of pairs whose chosen response scores higher."""
        return {
            "loss": float(self.losses.mean()),
            "margin": float(self.margins.mean()),
            "accuracy": float((self.gaps > 0).mean()),
        }

    def table(self) -> dict[str, Any]:
        """The trace's ``train`` table: two rows a pair."""

        def rows(name: str) -> Any:
            sides = [getattr(side, name) for side in (self.chosen, self.rejected)]
            return [None] * (2 * len(self.pair_ids)) if sides[0] is None else np.stack(sides, 1).ravel()

        return {
            "pair_id": [pair_id for pair_id in self.pair_ids for _ in PAIR],
            "response": list(PAIR) * len(self.pair_ids),
            "logp_sum": rows("logp_sum"),
            "ref_logp_sum": rows("ref_logp_sum"),
            "num_tokens": rows("num_tokens"),
        }


def _array(
    values: Shaped[Tensor, "pairs"] | Shaped[np.ndarray, "pairs"],
) -> Shaped[np.ndarray, "pairs"]:
    """Of a tensor the numbers, the real ones in float64."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    return (values.double() if values.is_floating_point() else values).cpu().numpy()


def call_inside(
    model: torch.nn.Module, inner: torch.nn.Module, function: Callable[..., Any], *args: Any
) -> Any:
    """`function(inner, *args)`, run as the forward pass of `model`.

    DDP and FSDP gather weights and synchronise gradients around the forward pass of what they wrap. Our forward
    pass is a function of the inner model, so for its duration it takes the place of the model's own.
    """
    if model is inner and not hasattr(inner, "unshard"):
        return function(inner, *args)
    own_forward = inner.forward

    def forward(*inputs: Any) -> Any:
        inner.forward = own_forward
        return function(inner, *inputs)

    inner.forward = forward
    try:
        return model(*args)
    finally:
        inner.forward = own_forward


class PairTrainer(Trainer):
    """transformers' Trainer with our objective on our log-probabilities."""

    def __init__(
        self,
        model: PreTrainedModel,
        arguments: TrainingArguments,
        items: Sequence[Item],
        *,
        objective: Objective,
        reader: Reader,
        keep_checkpoints: int,
        tokenizer: Any = None,
    ):
        self.objective: Objective = objective
        self.reader = reader
        self.reference: ReferenceLogps | None = None  # set before the first step where the objective needs it
        self.reference_tokens: ReferenceTokens | None = None  # as above
        self.following: FollowingReference | None = None  # as above
        self.keep_checkpoints = keep_checkpoints
        self.measured: list[StepNumbers] = []  # one entry per micro-batch since the last update
        self.grad_norm = math.nan
        self._save_into: str | None = None
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=items,  # type: ignore[arg-type]
            data_collator=self._collate,
            processing_class=tokenizer,
        )
        self.remove_callback(PrinterCallback)  # our progress line says more

    def _collate(self, items: Sequence[Item]) -> dict[str, Any]:
        pairs = [item.pair for item in items]
        batch: dict[str, Any] = {
            "batch": self.reader.collate(pairs),
            "pair_ids": [pair.pair_id for pair in pairs],
            "positions": [item.position for item in items],
            "known": {
                "num_tokens": {
                    name: torch.tensor([len(pair.responses[name]) for pair in pairs]) for name in PAIR
                }
            },
            "tokens": num_tokens(*pairs),
        }
        known, needs = batch["known"], self.objective.needs
        if self.reference is not None:
            known["ref_logp_sum"] = {
                name: torch.tensor([self.reference[pair.pair_id][name] for pair in pairs]) for name in PAIR
            }
        if self.reference_tokens is not None:
            known["ref_token_logps"] = self.reference_tokens.padded(pairs)
            batch["batch"] |= self.reference_tokens.predictions(pairs)
        if "token_draws" in needs:
            known["token_draws"] = draws(self.args.seed, batch["positions"], pairs)
        if "label" in needs:
            known["label"] = scores(f"--objective {self.objective.name}", pairs)
        return batch

    def compute_loss(  # type: ignore[override]
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        batch = inputs["batch"]
        if self.reference_tokens is not None and self.reference_tokens.head is not None:
            batch = batch | {"reference_head": self.reference_tokens.head}
        logps, known = self.score(batch, model), inputs["known"]
        if self.following is not None:
            with torch.no_grad():
                known |= {"ref_logp_sum": by_name(PAIR, self.score(batch, self.following.model).logp_sum)}
        chosen, rejected = sides(logps, known)
        losses = self.objective.pair_loss(chosen, rejected)
        with torch.no_grad():
            margins = self.objective.pair_margin(chosen, rejected)
            s_w, s_l = self.objective.pair_scores(chosen, rejected)
        self.measured.append(
            StepNumbers(
                positions=inputs["positions"],
                pair_ids=inputs["pair_ids"],
                losses=losses.detach(),
                margins=margins.detach(),
                gaps=(s_w - s_l).detach(),
                chosen=Responses(chosen.logp_sum.detach(), chosen.num_tokens, chosen.ref_logp_sum),
                rejected=Responses(rejected.logp_sum.detach(), rejected.num_tokens, rejected.ref_logp_sum),
                tokens=inputs["tokens"],
            )
        )
        loss = losses.mean()
        return (loss, logps) if return_outputs else loss

    def keep_reference(self, untouched: PreTrainedModel, pairs: Sequence[EncodedPair]) -> None:
        """Keep of the model before it is trained what the objective needs: what it says of every token, or itself."""
        needs = set(self.objective.needs)
        if needs & {"ref_token_logps", "position_kl"}:
            self.reference_tokens = reference_tokens(
                pairs,
                self.reader,
                self.args.device,
                self.score,
                untouched,
                predictions="position_kl" in needs,
            )
        if isinstance(self.objective, MovingReference):
            self.following = FollowingReference(untouched, self.objective)
            self.add_callback(self.following)

    def score(self, batch: Batch, model: torch.nn.Module | None = None) -> ResponseLogps:
        """Log-probabilities of a collated batch under the policy as it stands."""
        model = self.model_wrapped if model is None else model
        with self.accelerator.autocast():
            return call_inside(model, self.accelerator.unwrap_model(model), self.reader.logps, batch)

    def gather_step(self) -> StepNumbers:
        """What this step's forward passes measured, over all micro-batches and processes, in the order of training."""
        mine = StepNumbers.joined(self.measured)
        self.measured = []
        return StepNumbers.joined(gather(mine))

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.grad_norm = float(norm)
        return norm

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.is_fsdp_enabled and self.args.optim in TORCHAO:
            from torchao.optim import _AdamW

            # The quantised state of torchao 0.18 cannot be sharded; this one is bfloat16 and rounds the same way.
            _, keywords = self.get_optimizer_cls_and_kwargs(self.args)
            keywords.pop("block_size")
            self.optimizer_cls_and_kwargs = _AdamW, keywords
        try:
            optimizer = super().create_optimizer(model)
        except ImportError as error:
            raise InputError(f"--optimizer {self.args.optim}: {str(error).splitlines()[0]}") from error
        if self.args.device.type == "cpu":
            # torchao compiles its update for every shape; on a CPU that takes longer than it saves.
            eagerly = torch.compiler.set_stance("force_eager")(type(optimizer).step)
            optimizer.step = MethodType(eagerly, optimizer)  # type: ignore[method-assign]
        return optimizer

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # the estimate of transformers does not know our batches

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.following is not None:
            self.following.load(Path(resume_from_checkpoint))

    # --- checkpoints: written aside, then renamed, so that one is whole or absent ---------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return self._save_into or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        folder = Path(str(self.args.output_dir))
        self._save_into = str(folder / ASIDE)

        def write() -> None:
            try:
                give_back()
                super(PairTrainer, self)._save_checkpoint(model, trial)
                if self.following is not None and self.is_world_process_zero():
                    self.following.save(folder / ASIDE / checkpoint_name(self.state.global_step))
            except (OSError, RuntimeError, SafetensorError) as error:
                shutil.rmtree(folder / ASIDE, ignore_errors=True)
                raise InputError(
                    f"{folder / checkpoint_name(self.state.global_step)}: the checkpoint cannot be written "
                    f"({str(error).splitlines()[0]}); the trace and the older checkpoints are kept, make room and go "
                    "on with --resume"
                ) from error
            finally:
                self._save_into = None

        gather_attempts(write)
        if self.is_world_process_zero():
            record = RunFolder(folder.parent).trace
            keep_whole(folder, self.state.global_step, keep=self.keep_checkpoints, record=record)

"""The optimisation, on transformers' Trainer: its optimisers, schedules, precision, accumulation and distribution.

Ours are the loss, the log-probabilities it is made of, and the record of every step. The record keeps to this
timing: the pairs of a batch as the step's own forward pass saw them (weights before the update), the probe set
after the update.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors import SafetensorError
from torch.utils._pytree import register_pytree_node
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.distributed import gather, gather_attempts
from rewardshape.probe.inputs import Reference
from rewardshape.probe.measure.geometry import Geometry
from rewardshape.probe.measure.logprobs import Batch, Reader, ResponseLogps
from rewardshape.probe.measure.probe_set import PAIR, ProbeSet, only_pair
from rewardshape.probe.policy import TORCHAO
from rewardshape.probe.settings import Settings, TrainingSettings
from rewardshape.theory import Objective, Responses
from rewardshape.trace import TraceWriter
from rewardshape.trace.format import TRACE_FILE

COMPLETE = "complete.json"  # written last into a checkpoint: the size of each of its files

# FSDP looks for tensors in what a forward pass returns, to gather the weights again when gradients reach them.
register_pytree_node(
    ResponseLogps,
    lambda logps: ([logps.token_logps, logps.greedy_logps, logps.entropies], logps.lengths),
    lambda tensors, lengths: ResponseLogps(*tensors, lengths=lengths),  # type: ignore[misc]
)


@dataclass(frozen=True, slots=True)
class Item:
    """One place in the training schedule: its position and the pair trained there."""

    position: int
    pair: EncodedPair


def schedule(pairs: Sequence[EncodedPair], training: TrainingSettings) -> list[Item]:
    """The pairs in the order of training: whole epochs, each freshly shuffled, cut at steps × batch size."""
    assert training.batch_size is not None
    places = training.steps * training.batch_size
    rng = np.random.default_rng(training.seed)
    epochs = [rng.permutation(len(pairs)) for _ in range(math.ceil(places / len(pairs)))]
    bare = [only_pair(pair) for pair in pairs]
    return [Item(position, bare[index]) for position, index in enumerate(np.concatenate(epochs)[:places])]


def training_arguments(settings: Settings, folder: Path) -> TrainingArguments:
    """Our settings in transformers' words."""
    training, output = settings.training, settings.output
    assert training.batch_size is not None  # `Inputs` decided what was left open
    assert training.learning_rate is not None
    assert training.optimizer is not None
    assert output.checkpoint_every is not None
    processes = PartialState().num_processes
    share = training.batch_size // processes
    micro = training.micro_batch_size or max(1, share)
    if training.batch_size % (micro * processes):
        raise InputError(
            f"--batch-size {training.batch_size}: must be a multiple of {processes} processes × "
            f"--micro-batch-size {micro}"
        )
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=training.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=share // micro,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=math.ceil(training.warmup_ratio * training.steps),
        max_grad_norm=training.max_grad_norm,
        optim=training.optimizer,
        optim_args="bf16_stochastic_round=True" if training.optimizer in TORCHAO else None,
        seed=training.seed,
        save_strategy="steps",
        save_steps=output.checkpoint_every,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[] if output.report_to == "none" else [output.report_to],
        run_name=str(folder),
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=[],
        bf16=settings.model.precision == "mixed",
        use_cpu=PartialState().device.type == "cpu",
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    # One process uses one device: several in sight would otherwise split our packed rows (DataParallel).
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


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
        self.reference: Reference | None = None  # set before the first step where the objective needs it
        self.keep_checkpoints = keep_checkpoints
        self.measured: list[dict[str, Any]] = []  # one entry per micro-batch since the last update
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
            "num_tokens": torch.tensor([[len(pair.responses[name]) for name in PAIR] for pair in pairs]),
            "tokens": sum(len(p.prompt_ids) + sum(map(len, p.responses.values())) for p in pairs),
        }
        if self.reference is not None:
            batch["ref_logp_sum"] = torch.tensor(
                [[self.reference[pair.pair_id][name] for name in PAIR] for pair in pairs]
            )
        return batch

    def compute_loss(  # type: ignore[override]
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        logps = self.score(inputs["batch"], model)
        logp_sum = logps.logp_sum.view(-1, 2)
        num_tokens = inputs["num_tokens"]
        ref = inputs.get("ref_logp_sum")
        chosen, rejected = (
            Responses(logp_sum[:, side], num_tokens[:, side], None if ref is None else ref[:, side])
            for side in (0, 1)
        )
        losses = self.objective.pair_loss(chosen, rejected)
        with torch.no_grad():
            margins = self.objective.pair_margin(chosen, rejected)
        self.measured.append(
            {
                "positions": inputs["positions"],
                "pair_ids": inputs["pair_ids"],
                "tokens": inputs["tokens"],
                "values": torch.cat(
                    [
                        losses.detach().double()[:, None],
                        margins.detach().double()[:, None],
                        logp_sum.detach().double(),
                        (torch.full_like(logp_sum, math.nan) if ref is None else ref).double(),
                        num_tokens.double(),
                    ],
                    dim=1,
                ),
            }
        )
        loss = losses.mean()
        return (loss, logps) if return_outputs else loss

    def score(self, batch: Batch, model: torch.nn.Module | None = None) -> ResponseLogps:
        """Log-probabilities of a collated batch under the policy as it stands."""
        model = self.model_wrapped if model is None else model
        with self.accelerator.autocast():
            return call_inside(model, self.accelerator.unwrap_model(model), self.reader.logps, batch)

    def gather_step(self) -> dict[str, Any]:
        """What this step's forward passes measured, over all micro-batches and processes, in schedule order."""
        mine = {
            "positions": [p for part in self.measured for p in part["positions"]],
            "pair_ids": [p for part in self.measured for p in part["pair_ids"]],
            "tokens": sum(part["tokens"] for part in self.measured),
            "values": torch.cat([part["values"] for part in self.measured]).cpu().numpy(),
        }
        self.measured = []
        parts = gather(mine)
        order = np.argsort(np.concatenate([part["positions"] for part in parts]))
        pair_ids = [p for part in parts for p in part["pair_ids"]]
        return {
            "pair_ids": [pair_ids[index] for index in order],
            "tokens": sum(part["tokens"] for part in parts),
            "values": np.concatenate([part["values"] for part in parts])[order],
        }

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

    # --- checkpoints: written aside, then renamed, so that one is whole or absent ---------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return self._save_into or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        final = Path(str(self.args.output_dir))
        aside = final / "writing"
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self._save_into = str(aside)

        def write() -> None:
            try:
                super(PairTrainer, self)._save_checkpoint(model, trial)
            except (OSError, RuntimeError, SafetensorError) as error:
                shutil.rmtree(aside, ignore_errors=True)
                raise InputError(
                    f"{final / name}: the checkpoint cannot be written ({str(error).splitlines()[0]}); the trace "
                    "and the older checkpoints are kept, make room and go on with --resume"
                ) from error
            finally:
                self._save_into = None

        gather_attempts(write)
        if not self.is_world_process_zero():
            return
        sizes = dict(sorted(_sizes(aside / name)))
        (aside / name / COMPLETE).write_text(json.dumps(sizes, indent=1), encoding="utf-8")
        shutil.rmtree(final / name, ignore_errors=True)
        os.replace(aside / name, final / name)
        shutil.rmtree(aside, ignore_errors=True)
        for old in checkpoints(final)[self.keep_checkpoints :]:
            shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, newest first; a torn one (a file missing or cut) is passed over."""
    numbered = {
        int(path.name.rpartition("-")[2]): path
        for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.name.rpartition("-")[2].isdigit()
    }
    return [numbered[step] for step in sorted(numbered, reverse=True) if _is_whole(numbered[step])]


def _sizes(checkpoint: Path) -> Iterator[tuple[str, int]]:
    for file in checkpoint.rglob("*"):
        if file.is_file():
            yield file.relative_to(checkpoint).as_posix(), file.stat().st_size


def _is_whole(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


class Recorder(TrainerCallback):
    """Writes one record a step; stops the run before the update when a number is not finite, or when asked to.

    Parameters
    ----------
    trainer : PairTrainer
    folder : Path
        Where the main process writes the trace.
    probe : ProbeSet
    reference : callable
        Gives the reference's log-probs; called once, before the first step, where the objective needs them.
    probe_every : int
        Steps between two measurements of the probe set; the last step is always measured.
    samples : callable, optional
        Gives the samples table of a step; called at step 0, every `sample_every` steps and at the last one.
    geometry : Geometry, optional
        Gives the geometry table, and metrics, of a step that is due.
    stop : threading.Event
        Set from outside (a signal) to checkpoint after the step in hand and stop.
    on_step : callable
        Called with the step, its metrics and the probe measurement (None where there was none): progress.
    """

    def __init__(
        self,
        trainer: PairTrainer,
        folder: Path,
        probe: ProbeSet,
        *,
        reference: Callable[[], Reference],
        probe_every: int,
        samples: Callable[[int], dict[str, list[Any]]] | None = None,
        sample_every: int = 1,
        geometry: Geometry | None = None,
        stop: threading.Event,
        on_step: Callable[[int, dict[str, float], dict[str, list[float]] | None], None],
    ):
        self.trainer = trainer
        self.folder = folder
        self.writer: TraceWriter | None = None
        self.probe = probe
        self.reference = reference
        self.probe_every = probe_every
        self.samples = samples
        self.sample_every = sample_every
        self.geometry = geometry
        self.stop = stop
        self.on_step = on_step
        self._began = time.perf_counter()
        self._step: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.trainer.objective.needs_reference:
            self.trainer.reference = self.reference()
        if self.trainer.is_world_process_zero():
            begun = state.global_step > 0
            self.writer = TraceWriter(
                self.folder, None if begun else self.probe.table(self.trainer.reference)
            )
        self._began = time.perf_counter()
        if state.global_step == 0:
            self._record(0, {}, None, last=False)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.measured = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step = self.trainer.gather_step()
        self._step["learning_rate"] = self.trainer._get_learning_rate()
        self._refuse_non_finite(state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        values, ids = self._step["values"], self._step["pair_ids"]
        logp_sum, ref, num_tokens = values[:, 2:4], values[:, 4:6], values[:, 6:8]
        has_reference = self.trainer.reference is not None
        scores = self.trainer.objective.score(logp_sum, num_tokens, ref if has_reference else None)
        metrics = {
            "loss": float(values[:, 0].mean()),
            "margin": float(values[:, 1].mean()),
            "accuracy": float((scores[:, 0] > scores[:, 1]).mean()),
            "learning_rate": self._step["learning_rate"],
            "grad_norm": self.trainer.grad_norm,
            "tokens": self._step["tokens"],
        }
        train = {
            "pair_id": [pair_id for pair_id in ids for _ in PAIR],
            "response": list(PAIR) * len(ids),
            "logp_sum": logp_sum.ravel(),
            "ref_logp_sum": ref.ravel() if has_reference else [None] * (2 * len(ids)),
            "num_tokens": num_tokens.astype(int).ravel(),
        }
        self._record(state.global_step, metrics, train, last=state.global_step >= state.max_steps)
        if any(gather(self.stop.is_set())):
            self.stop.set()
            control.should_save = control.should_training_stop = True

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _record(self, step: int, metrics: dict[str, float], train: Any, *, last: bool) -> None:
        measured = tokens = None
        if step % self.probe_every == 0 or last:
            measured, tokens = self.probe.measure(self.trainer.score)
        sampled = None
        if self.samples is not None and (step % self.sample_every == 0 or last):
            sampled = self.samples(step)
        geometry = None
        if self.geometry is not None and self.geometry.due(step):
            geometry, overlaps = self.geometry.measure()
            metrics |= overlaps
        now = time.perf_counter()
        if self.writer is not None:
            self.writer.append(
                step,
                metrics=metrics,
                train=train,
                probe=measured,
                geometry=geometry,
                samples=sampled,
                tokens=self._kept(tokens) if tokens is not None and (step == 0 or last) else None,
                seconds=now - self._began,
            )
        self._began = now
        if self.trainer.args.report_to:
            said: dict[str, Any] = {**metrics, **self.probe.means(measured)}
            self.trainer.log(said | {"trace": str(self.folder / TRACE_FILE)})
        self.on_step(step, metrics, measured)

    def _kept(self, tokens: list[list[float]]) -> list[list[float]]:
        """Per-token log-probs of the chosen and rejected responses, to a millionth of a nat: for people to look at."""
        names = self.probe.table(None)["response"]
        return [
            [round(logp, 6) for logp in row] if name in PAIR else []
            for name, row in zip(names, tokens, strict=True)
        ]

    def _refuse_non_finite(self, step: int) -> None:
        losses, ids = self._step["values"][:, 0], self._step["pair_ids"]
        bad = [pair_id for pair_id, loss in zip(ids, losses, strict=True) if not math.isfinite(loss)]
        what = "loss"
        if not bad and not math.isfinite(self.trainer.grad_norm):
            bad, what = ids, "gradient"
        if bad:
            named = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
            raise InputError(
                f"step {step}: the {what} is not finite, on pair {named}; stopped before the update, the trace is "
                "kept; look at that pair, or lower --learning-rate or |--alpha|"
            )

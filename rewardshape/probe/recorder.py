"""The record of a run: after every step its numbers, and what is measured beside training, on disk before the next.

The pairs of a batch stand in it as the step's own forward passes saw them (weights before the update), everything else
as the weights are after the update.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.distributed import gather, here
from rewardshape.probe.inputs import Inputs, probe_texts
from rewardshape.probe.measure.destination import Destination, Tables
from rewardshape.probe.measure.geometry import Geometry
from rewardshape.probe.measure.influence import Pushed, chosen_gradient, influences, preconditioned, strongest
from rewardshape.probe.measure.probe_set import ProbeSet, ReferenceLogps
from rewardshape.probe.order import TrainingOrder
from rewardshape.probe.room import give_back
from rewardshape.probe.stopping import Diverged, Stop
from rewardshape.probe.training import PairTrainer, StepNumbers
from rewardshape.trace import TraceWriter
from rewardshape.trace.folder import RunFolder, json_lines, write_whole
from rewardshape.trace.records import lines_of, parsed

OnStep = Callable[[int, dict[str, float], dict[str, float]], None]

KEPT = ("pair_id", "prompt", "responses")  # of a training pair's texts
KEPT_TEXTS = 50  # of the training pairs that push chosen down most, at every measurement


class InfluenceTables(NamedTuple):
    """What is recorded of influence at a step."""

    influence: dict[str, list[Any]] | None = None
    influence_pairs: dict[str, list[Any]] | None = None


@dataclass(frozen=True)
class Measures:
    """What is measured along a run, and how often. Step 0 and the last step are always measured.

    Attributes
    ----------
    probe : ProbeSet
    probe_every : int
    samples : callable, optional
        Gives the samples table of a step.
    sample_every : int
    geometry : Geometry, optional
        Knows itself when it is due.
    destination : Destination, optional
        Has seen the untouched model. Where it is due, the probe set is measured too: it looks on.
    destination_every : int
    influence : callable, optional
        Gives the influence tables of a step, of the policy as it stands.
    influence_every : int
    """

    probe: ProbeSet
    probe_every: int
    samples: Callable[[int], dict[str, list[Any]]] | None = None
    sample_every: int = 1
    geometry: Geometry | None = None
    destination: Destination | None = None
    destination_every: int = 1
    influence: Callable[[int], InfluenceTables] | None = None
    influence_every: int = 1


class Recorder(TrainerCallback):
    """Writes one record a step; stops the run before the update when a number is not finite, or when asked to.

    Parameters
    ----------
    trainer : PairTrainer
    folder : Path
        Where the main process writes the trace.
    measures : Measures
    reference : callable
        Gives the reference's log-probs; called once, before the first step, where the objective needs them.
    stop : Stop
        Set from outside (a signal) to checkpoint after the step in hand and stop.
    on_step : callable
        Called with the step, its metrics and the probe set's means (empty where it was not due): progress.
    begins_at : int
        Step of the checkpoint that the run goes on from.
    """

    def __init__(
        self,
        trainer: PairTrainer,
        folder: Path,
        measures: Measures,
        *,
        reference: Callable[[], ReferenceLogps],
        stop: Stop,
        on_step: OnStep,
        begins_at: int = 0,
    ):
        self.trainer = trainer
        self.folder = folder
        self.measures = measures
        self.reference = reference
        self.stop = stop
        self.on_step = on_step
        self.begins_at = begins_at
        self._writer: TraceWriter | None = None
        self._began = time.perf_counter()
        self._step: StepNumbers  # of the step in hand, from its forward passes to its record

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step != self.begins_at:
            raise InputError(
                f"{self.folder}: its checkpoint of step {self.begins_at} says that it was made at step "
                f"{state.global_step}; delete that checkpoint and go on with --resume"
            )
        if self.trainer.objective.needs_reference:
            self.trainer.reference = self.reference()
        if self.trainer.is_world_process_zero():
            begun = state.global_step > 0
            head = None if begun else self.measures.probe.table(self.trainer.reference)
            self._writer = TraceWriter(self.folder, head)
        self._began = time.perf_counter()
        if state.global_step == 0:
            self._record(0, {}, None, last=False)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.measured = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step = self.trainer.gather_step()
        self._learning_rate = self.trainer._get_learning_rate()  # of this update, not yet of the next
        refuse_non_finite(state.global_step + 1, self._step, self.trainer.grad_norm)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        metrics = {
            **self._step.metrics(),
            "learning_rate": self._learning_rate,
            "grad_norm": self.trainer.grad_norm,
            "tokens": self._step.tokens,
        }
        self._record(
            state.global_step, metrics, self._step.table(), last=state.global_step >= state.max_steps
        )
        if any(gather(self.stop.is_set())):
            self.stop.set()
            self.stop.heard.set()
            control.should_save = control.should_training_stop = True

    def close(self) -> None:
        """Close the files of the trace."""
        if self._writer is not None:
            self._writer.close()

    def _record(
        self, step: int, metrics: dict[str, float], train: dict[str, Any] | None, *, last: bool
    ) -> None:
        due = self.measures
        probe = tokens = samples = geometry = kernel = None
        destination, influence = Tables(), InfluenceTables()
        followed = due.destination if step % due.destination_every == 0 or last else None
        if followed is not None or step % due.probe_every == 0 or last:
            give_back()
        if followed is not None:
            policy = self.trainer.accelerator.unwrap_model(self.trainer.model)
            probe, tokens = due.probe.measure(followed.watch(policy, self.trainer.score))
            destination = followed.tables()
        elif step % due.probe_every == 0 or last:
            probe, tokens = due.probe.measure(self.trainer.score)
        if due.influence is not None and (step % due.influence_every == 0 or last):
            influence = due.influence(step)
        if due.samples is not None and (step % due.sample_every == 0 or last):
            samples = due.samples(step)
        if due.geometry is not None and due.geometry.due(step):
            geometry, kernel, overlaps = due.geometry.measure(step)
            metrics |= overlaps
        means = {} if probe is None else due.probe.means(probe)
        if not all(map(math.isfinite, means.values())):
            raise Diverged(
                f"step {step}: the log-probabilities of the probe set are not finite after its update; the trace is "
                "kept up to the step before; lower --learning-rate"
            )
        now = time.perf_counter()
        if self._writer is not None:
            self._writer.append(
                step,
                metrics=metrics,
                train=train,
                probe=probe,
                geometry=geometry,
                kernel=kernel,
                samples=samples,
                **destination._asdict(),
                **influence._asdict(),
                tokens=due.probe.tokens_to_show(tokens)
                if tokens is not None and (step == 0 or last)
                else None,
                seconds=now - self._began,
            )
        self._began = now
        if self.trainer.args.report_to:
            self.trainer.log({**metrics, **means, "trace": str(RunFolder(self.folder).trace)})  # type: ignore[dict-item]
        self.on_step(step, metrics, means)


def refuse_non_finite(step: int, numbers: StepNumbers, grad_norm: float) -> None:
    """Raise `Diverged` that names the pairs where a loss, or the gradient, is not finite."""
    pairs = zip(numbers.pair_ids, numbers.losses, strict=True)
    bad, what = [pair_id for pair_id, loss in pairs if not math.isfinite(loss)], "loss"
    if not bad and not math.isfinite(grad_norm):
        bad, what = numbers.pair_ids, "gradient"
    if bad:
        named = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise Diverged(
            f"step {step}: the {what} is not finite, on pair {named}; stopped before the update, the trace is "
            "kept; look at that pair, or lower --learning-rate or |--alpha|"
        )


# --- where probability went, and which pairs sent it --------------------------------------------------------------


def destination_of(
    trainer: PairTrainer, policy: PreTrainedModel, probe: ProbeSet, inputs: Inputs
) -> Destination:
    """The destinations of the probe set's probability; `policy` is still untouched."""
    if trainer.is_fsdp_enabled:
        raise InputError(
            "--destination-every: a sharded model (FSDP) has no whole output projection; run it under DDP or on one"
            " process"
        )
    tokenizer = inputs.tokenizer
    destination = Destination(probe, end_token=tokenizer.eos_token_id, decode=tokenizer.decode)
    destination.begin(policy, lambda batch: trainer.score(batch, policy))
    return destination


def influence_of(
    trainer: PairTrainer,
    policy: PreTrainedModel,
    probe: ProbeSet,
    order: TrainingOrder,
    inputs: Inputs,
    files: RunFolder,
    *,
    every: int,
) -> Callable[[int], InfluenceTables]:
    """What the record asks for when the influence of the pairs is due; `files` keeps the texts of the strongest."""
    if here().processes > 1:
        raise InputError("--influence-every: takes whole gradients; run it on one process")
    pairs = order.pairs()
    by_id = {pair.pair_id: pair for pair in pairs}
    train = ProbeSet(pairs, trainer.reader, trainer.args.device)

    def influence(step: int) -> InfluenceTables:
        assert trainer.optimizer is not None, "training has begun"
        weights: list[Tensor] = [weight for weight in policy.parameters() if weight.requires_grad]
        gradient = chosen_gradient(weights, probe, trainer.score)
        direction = preconditioned(trainer.optimizer, weights, gradient)
        found = influences(
            weights, direction, gradient, train, trainer.score, trainer.objective, trainer.reference
        )
        near = order.visited(*nearest_updates(step, every, trainer.args.max_steps))
        pushed = strongest(
            policy, trainer.optimizer, probe.pairs, near, trainer.reader,
            lambda batch: trainer.score(batch, policy), trainer.objective, trainer.reference,
        ) if near else []  # fmt: skip
        lowest = [pairs[place] for place in np.argsort(found, kind="stable")[:KEPT_TEXTS]]
        keep_texts(files.pushing, [*lowest, *(by_id[one.pair_id] for one in pushed)], inputs.tokenizer)
        columns = {name: [getattr(one, name) for one in pushed] for name in Pushed._fields}
        return InfluenceTables(
            {"pair_id": [pair.pair_id for pair in pairs], "influence": found.tolist()}, columns
        )

    return influence


def nearest_updates(step: int, every: int, last: int) -> tuple[int, int]:
    """The first and the last update made with weights that lie nearer to this measurement than to another.

    Update u is made with the weights of step u − 1; of two that are as near, the earlier counts.

    Examples
    --------
    >>> nearest_updates(0, 4, 10), nearest_updates(4, 4, 10), nearest_updates(10, 4, 10)
    ((1, 3), (4, 7), (11, 10))
    """
    before, after = (step - 1) // every * every, min(step + every, last)
    first = 1 if step == 0 else (before + step) // 2 + 2
    return first, last if step >= last else (step + after) // 2 + 1


def keep_texts(file: Path, pairs: Sequence[EncodedPair], tokenizer: Any) -> None:
    """Add the texts of pairs to those that a file has already."""
    lines = [line for _, line in lines_of(file)] if file.is_file() else []
    known = {row["pair_id"] for line in lines if (row := parsed(line)) is not None}
    new = list({pair.pair_id: pair for pair in pairs if pair.pair_id not in known}.values())
    rows = [{name: row[name] for name in KEPT} for row in probe_texts(new, tokenizer)]
    write_whole(file, "".join(lines) + json_lines(rows))

"""Will it fit? The memory of a run, part by part, before anything is loaded (``--dry-run``).

One training step and one measurement of the probe set are gone through on tensors that have shapes but no contents,
by the code that runs later, and every byte is counted as it comes and goes. Nothing is assumed about the
architecture but that its layers are alike: a deep model is gone through at two small depths and the rest follows,
since every part grows by the same amount with each further layer.

Outside it lie the CUDA context (about 0.5 GB) and what the allocator loses to fragmentation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, Trainer
from transformers.modeling_layers import GradientCheckpointingLayer

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.numbers import counted, shortest
from rewardshape.probe.books import Books, Moment, size_of
from rewardshape.probe.distributed import here, is_sharded
from rewardshape.probe.grid import ModelFacts, PlannedRun, plan_run
from rewardshape.probe.inputs import Inputs
from rewardshape.probe.measure import projection, shared_prefix
from rewardshape.probe.measure.logprobs import Batch, SharedPrefixReader, base_of
from rewardshape.probe.measure.probe_set import TOKENS_PER_BATCH, group_by_tokens, num_tokens
from rewardshape.probe.order import LOOKED_AT, TrainingOrder
from rewardshape.probe.policy import DTYPES, TORCHAO, made_ready
from rewardshape.probe.process import MAPPED
from rewardshape.probe.room import at_most, device_memory, process_memory
from rewardshape.probe.samples import sampled
from rewardshape.probe.training import training_arguments
from rewardshape.theory import MovingReference

DEPTHS = (2, 4)  # layers gone through in place of a deeper model's; even, for layers that alternate
SURELY = 0.25  # share of the memory below which a bound needs no closer look, and a plan no alternatives
ROOM = 0.92  # share of a device's memory a plan may fill: the rest is context and fragmentation
CARDS = (24, 40, 80)  # GB, the columns of the table
GB = 1e9

PLANS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32", "gradient_checkpointing": False, "lora_rank": None},
    "mixed": {"precision": "mixed", "gradient_checkpointing": False, "lora_rank": None},
    "mixed, checkpointed": {"precision": "mixed", "gradient_checkpointing": True, "lora_rank": None},
    "bfloat16, checkpointed": {"precision": "bfloat16", "gradient_checkpointing": True, "lora_rank": None},
    "bfloat16, LoRA 16, checkpointed": {
        "precision": "bfloat16",
        "gradient_checkpointing": True,
        "lora_rank": 16,
    },
}


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes
    ----------
    parameters, trainable : int
        Numbers, not bytes.
    weights, gradients, optimizer : int
        Whole: all gradients, the state after the first step.
    reference : int
        What is kept of the untouched model: a copy to sample from, one that follows the policy (`MovingReference`), the
        output projection (an objective that compares whole predictions).
    saved : int
        Activations kept for the backward pass, at the end of the forward pass.
    activations : int
        Everything else that is alive at the worst moment of a step: activations and their gradients.
    gradients_then : int
        The gradients that are there at that moment; they come as activations go.
    measuring : int
        Activations while the probe set is measured, without gradients.
    log_probs : int
        Buffers for one tile of the vocabulary.
    process : int
        What this process holds of the device already: libraries and data, on a GPU nothing.
    kept : int
        Of a CPU: places of the last step's gradients, where activations now lie, so that the next need others.
        The C library gives back what it maps singly (`process.MAPPED`).
    """

    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    reference: int
    saved: int
    activations: int
    gradients_then: int
    measuring: int
    log_probs: int
    process: int = 0
    kept: int = 0

    @property
    def peak(self) -> int:
        """The most that is alive at once: in the backward pass, in the update, or measuring."""
        step = max(self.kept + self.gradients_then + self.activations, self.measuring) + self.log_probs
        return self.process + self.weights + self.optimizer + self.reference + max(step, self.gradients)


def memory(
    config: Any, run: PlannedRun, train: Sequence[EncodedPair], probe: Sequence[EncodedPair], device: str
) -> Memory:
    """What one process needs.

    Parameters
    ----------
    config : configuration of transformers
    run : PlannedRun
        Precision, LoRA, checkpointing, attention and optimiser count.
    train, probe : sequence of EncodedPair
        The largest micro-batch and the largest batch of the probe set.
    device : str
        ``cpu`` or ``cuda``: how large the tiles of the vocabulary are.

    Examples
    --------
    >>> memory(config, run, train, probe, "cuda").peak / 1e9  # doctest: +SKIP
    48.3
    """
    depth = config.get_text_config().num_hidden_layers
    if depth <= DEPTHS[1]:
        found = _rehearse(config, run, train, probe, depth)
    else:
        low, high = (_rehearse(config, run, train, probe, layers) for layers in DEPTHS)
        further = (depth - DEPTHS[1]) / (DEPTHS[1] - DEPTHS[0])
        found = {name: round(high[name] + further * (high[name] - low[name])) for name in high}
    found["kept"] *= device == "cpu"
    early, late = (Moment(found.pop(half), found.pop(f"{half}_gradients")) for half in ("early", "late"))
    worst = max(early, late)
    responses = [ids for pair in train for ids in pair.responses.values()]
    tile = tile_bytes(config, run, sum(map(len, responses)), device)
    return Memory(
        **found,
        activations=worst.alive - worst.gradients,
        gradients_then=worst.gradients,
        process=process_memory(),
        log_probs=tile - tile_bytes(config, run, sum(map(len, responses)), "cpu"),
    )


def tile_bytes(config: Any, run: PlannedRun, rows: int, device: str) -> int:
    """Bytes of the logits and their softmax for one tile of the vocabulary."""
    elements = projection.CPU_TILE_ELEMENTS if device == "cpu" else projection.GPU_TILE_ELEMENTS
    width = min(config.get_text_config().vocab_size, max(projection.SMALLEST_TILE, elements // rows))
    # In float32 the logits and the softmax; in bfloat16 each of them in both types.
    return rows * width * (8 if run.settings.model.precision == "float32" else 12)


def _rehearse(
    config: Any, run: PlannedRun, train: Sequence[EncodedPair], probe: Sequence[EncodedPair], depth: int
) -> dict[str, int]:
    """Go through a step of the model cut to `depth` layers; what `Memory` holds, but for the tile."""
    reader = SharedPrefixReader()
    with torch.device("meta"):
        model = _empty_policy(config, run, depth)
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    numbers = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trainable": sum(weight.numel() for weight in trainable),
        "weights": sum(map(size_of, model.parameters())),
        "gradients": sum(map(size_of, trainable)),
        "kept": sum(size for size in map(size_of, trainable) if size < MAPPED),
        "optimizer": _optimizer_state(model, run),
        "reference": _kept_of_reference(model, run),
    }
    projection.SPARE.forget()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device="cpu")
            base_of(model).tie_weights()
            with Books(model) as step, _autocast(run):
                logps = reader.logps(model, _empty(reader.collate(train)))
                saved = step.alive
                logps.token_logps.sum().backward()
            del logps
            model.zero_grad()
            projection.SPARE.forget()
            with Books(model) as measuring, _autocast(run), torch.no_grad():
                reader.logps(model, _empty(reader.collate(probe)))
    finally:
        projection.SPARE.forget()
        shared_prefix._mask.cache_clear()  # these are without contents
    return numbers | {
        "saved": saved,
        "early": step.early.alive,
        "early_gradients": step.early.gradients,
        "late": step.late.alive,
        "late_gradients": step.late.gradients,
        "measuring": measuring.early.alive,
    }


def _autocast(run: PlannedRun) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, run.settings.model.precision == "mixed")


def _empty_policy(config: Any, run: PlannedRun, depth: int) -> Any:
    """The policy as `load_policy` makes it, without contents and with its first `depth` layers only."""
    chosen = run.settings.model
    model: Any = AutoModelForCausalLM.from_config(
        config,
        dtype=DTYPES[chosen.precision],
        attn_implementation=chosen.attention,
        trust_remote_code=chosen.trust_remote_code,
    )
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and isinstance(module[0], GradientCheckpointingLayer):
            del module[depth:]
    return made_ready(model, chosen).train()


def _empty(batch: Batch) -> Batch:
    return {name: torch.empty_like(v) if torch.is_tensor(v) else v for name, v in batch.items()}


def _optimizer_state(model: Any, run: PlannedRun) -> int:
    """Bytes of the optimiser's state, from the optimiser itself after one step."""
    kind, arguments = Trainer.get_optimizer_cls_and_kwargs(training_arguments(run, Path("unused")), model)
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    arguments.pop("fused", None)  # the same state, by kernels that want contents
    optimizer = kind(trainable, **arguments)
    for weight in trainable:
        weight.grad = torch.empty_like(weight)
    with torch.compiler.set_stance("force_eager"):
        optimizer.step()
    model.zero_grad()
    return sum(
        size_of(value)
        for state in optimizer.state.values()
        for value in state.values()
        if torch.is_tensor(value)
    )


def _kept_of_reference(model: Any, run: PlannedRun) -> int:
    """Bytes of the device that hold the untouched model beside the policy."""
    copies = isinstance(run.objective, MovingReference) + (sampled(run) and not run.settings.model.lora_rank)
    head = model.get_output_embeddings() if "position_kl" in run.objective.needs else None
    return copies * sum(map(size_of, model.parameters())) + (
        sum(map(size_of, head.parameters())) if head else 0
    )


# --- the plan of a command ----------------------------------------------------------------------------------------


def largest_batches(run: PlannedRun, inputs: Inputs) -> tuple[list[EncodedPair], list[EncodedPair]]:
    """The micro-batch and the batch of the probe set that have the most tokens."""
    size, order = run.decided.micro_batch_size, TrainingOrder.of(run, inputs.train)
    tokens = order.counted(num_tokens, -(-LOOKED_AT // size) * size)
    start = size * int(np.add.reduceat(tokens, np.arange(0, len(tokens), size)).argmax())
    groups = group_by_tokens(inputs.probe, TOKENS_PER_BATCH)
    return [item.pair for item in order[start : start + size]], max(
        ([inputs.probe[index] for index in group] for group in groups), key=lambda pairs: num_tokens(*pairs)
    )


def sharded(memory: Memory, run: PlannedRun) -> Memory:
    """The same where several processes share the work: FSDP divides the state, DDP holds the gradients twice."""
    processes = here().processes
    if processes == 1:
        return memory
    if not is_sharded():
        return replace(
            memory,
            gradients=2 * memory.gradients,
            gradients_then=memory.gradients_then + memory.gradients,
        )
    if run.decided.optimizer in TORCHAO:
        memory = replace(memory, optimizer=2 * memory.gradients)  # bfloat16: 8 bits cannot be sharded
    parts = ("weights", "gradients", "gradients_then", "kept", "optimizer")
    return replace(memory, **{name: -(-getattr(memory, name) // processes) for name in parts})


def plans(
    run: PlannedRun, model: ModelFacts, train: Sequence[EncodedPair], probe: Sequence[EncodedPair]
) -> dict[str, Memory]:
    """Memory of the run as it was given, then of the usual alternatives where it does not surely fit."""
    place, found = here(), dict[str, Memory]()
    plenty = SURELY * min(device_memory()[1], CARDS[0] * GB)
    for name, changes in {"as asked": {}, **PLANS}.items():
        other = run
        if changes:
            if found["as asked"].peak < plenty:
                break
            settings = run.settings.replace(**changes, optimizer=None)
            if settings.model == run.settings.model:
                continue
            other = plan_run(settings, model, run.objective, processes=place.processes)
        found[name] = sharded(memory(model.config, other, train, probe, place.device.type), other)
    return found


def require_room(runs: Sequence[PlannedRun], model: ModelFacts, inputs: Inputs) -> None:
    """Refuse a run that the device has not the memory for, before anything is loaded.

    Where a bound far above the need is far below the memory, nothing is gone through.

    Raises
    ------
    InputError
        With both numbers.
    """
    device, total = device_memory()
    together = min(runs[0].settings.output.jobs, len(runs))
    if here().device.type == "cuda":
        share = total / math.ceil(together / torch.cuda.device_count())
    else:
        share = total / here().processes / together
    for_each = f" for each of --jobs {together}" if together > 1 else ""
    seen = set()
    for run in runs:
        key = repr(
            (run.objective.name, run.settings.model, run.decided.micro_batch_size, run.decided.optimizer)
        )
        if key in seen:
            continue
        seen.add(key)
        train, probe = largest_batches(run, inputs)
        if max(at_most(model.config, model.parameters, pairs) for pairs in (train, probe)) < SURELY * share:
            continue
        need = sharded(memory(model.config, run, train, probe, here().device.type), run).peak
        if need > share:
            raise InputError(
                f"{device}: {share / GB:.1f} GB{for_each}, and the run needs about {need / GB:.1f}; --dry-run says "
                "what fits; a smaller --micro-batch-size, --gradient-checkpointing or --lora-rank needs less"
            )


def text(
    run: PlannedRun,
    train: Sequence[EncodedPair],
    probe: Sequence[EncodedPair],
    found: dict[str, Memory],
) -> str:
    """The plan for people."""
    model, decided = run.settings.model, run.decided
    asked = found["as asked"]
    device, total = device_memory()
    names = "process weights gradients optimizer reference activations kept log_probs peak".split()
    lines = [
        f"{asked.parameters:,} parameters, {asked.trainable:,} of them trained",
        f"{counted(run.settings.training.steps, 'step')} of {counted(decided.batch_size, 'pair')} on "
        f"{here().processes} process{'es' if here().processes > 1 else ''}, "
        f"learning rate {shortest(decided.learning_rate)}, {decided.optimizer}, {model.precision}",
        f"the largest micro-batch: {counted(len(train), 'pair')}, {counted(num_tokens(*train), 'token')}; "
        f"of the probe set: {counted(len(probe), 'pair')}, {counted(num_tokens(*probe), 'token')}",
        "",
        "GB per process".ljust(34)
        + "".join(f"{name.replace('_', '-'):>13}" for name in names)
        + "".join(f"{f'{card} GB':>8}" for card in CARDS),
    ]
    for name, plan in found.items():
        sizes = [getattr(plan, part) / GB for part in names]
        marks = ["fits" if fits(plan, card * GB) else "no" for card in CARDS]
        lines.append(
            name.ljust(34) + "".join(f"{size:>13.3f}" for size in sizes) + "".join(f"{m:>8}" for m in marks)
        )
    suited = [name for name, plan in found.items() if fits(plan, total)]
    lines += [
        "",
        f"{device}, {total / GB:.1f} GB: "
        + (_suited(suited) if suited else "nothing fits; fewer --micro-batch-size, shorter texts"),
    ]
    return "\n".join(lines)


def _suited(names: Sequence[str]) -> str:
    return f"{'; '.join(names)} fit" if len(names) > 1 else f"{names[0]} fits"


def fits(plan: Memory, total: float) -> bool:
    """Whether a plan leaves the room on a device that fragments and kernels take."""
    return plan.peak <= ROOM * total


def describe(run: PlannedRun, model: ModelFacts, inputs: Inputs) -> str:
    """What ``--dry-run`` prints: a table, or with ``--json`` the same as JSON."""
    train, probe = largest_batches(run, inputs)
    found = plans(run, model, train, probe)
    if not run.settings.output.json:
        return text(run, train, probe, found)
    device, total = device_memory()
    return json.dumps(
        {
            "device": device,
            "device_bytes": total,
            "plans": {name: {**asdict(plan), "peak": plan.peak} for name, plan in found.items()},
        }
    )

"""A probe run from beginning to end: `run(settings) → Trace`, for one run or a grid of them.

Data, policy, reference, training, and the record of it, one folder per run. What the runs of a grid share (the
tokenised pairs, the reference's log-probabilities) is made once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from rewardshape.errors import InputError
from rewardshape.probe import manifest, plan
from rewardshape.probe.distributed import join, on_main
from rewardshape.probe.inputs import Inputs
from rewardshape.probe.measure.geometry import Geometry
from rewardshape.probe.measure.probe_set import ProbeSet
from rewardshape.probe.progress import Progress
from rewardshape.probe.settings import Settings, build_objective, check_batches, expand
from rewardshape.probe.training import PairTrainer, Recorder, checkpoints, schedule, training_arguments
from rewardshape.theory import Objective
from rewardshape.trace import Trace, read_trace
from rewardshape.trace.format import TRACE_FILE, read_lines, rewind


class Interrupted(Exception):
    """A signal stopped the run after a step; its checkpoint and its trace are on disk."""

    def __init__(self, signal_number: int, folder: Path):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number
        self.folder = folder


def run(settings: Settings) -> Trace:
    """Run what the settings say and read back the trace.

    Parameters
    ----------
    settings : Settings
        As `rewardshape.probe.settings.parse` makes them from a command line.

    Returns
    -------
    Trace
        Of the run; of all runs of a grid together.

    Raises
    ------
    InputError
        Bad input; or a loss or gradient that is not finite, which stops the run before that update.
    Interrupted
        A signal asked the run to stop.

    Examples
    --------
    >>> trace = run(parse(["./model", "--data", "pairs.jsonl", "--alpha", "0", "0.25"]))  # doctest: +SKIP
    """
    quieten()
    join()
    objectives = {name: build_objective(single.objective) for name, single in expand(settings)}
    for goal in objectives.values():
        check_batches(goal, settings.training, PartialState().num_processes)
    inputs = Inputs(settings)
    folder = on_main(lambda: manifest.make_folder(inputs.settings))
    settings = inputs.settings.replace(output=str(folder))
    on_main(lambda: manifest.write_command(folder, settings))
    quiet = settings.output.quiet or settings.output.json or not PartialState().is_main_process
    with Progress(len(objectives) * settings.training.steps, quiet=quiet) as progress:
        for line in inputs.notes:
            progress.say(line)
        for name, single in expand(settings):
            run_one(name, single, folder / name, objectives[name], inputs, progress)
    return read_trace(folder)


def dry_run(settings: Settings) -> str:
    """What the settings would do and the memory they need, with nothing loaded and nothing written."""
    quieten()
    join()
    for _, single in expand(settings):
        build_objective(single.objective)
    inputs = Inputs(settings)
    return plan.describe(inputs)


def run_one(
    name: str, settings: Settings, folder: Path, objective: Objective, inputs: Inputs, progress: Progress
) -> None:
    """One training run into `folder`: from the start, or on from its newest whole checkpoint."""
    if on_main(lambda: manifest.read_manifest(folder).get("status")) == "done":
        progress.skip(settings.training.steps)
        return
    set_seed(settings.training.seed)
    trainer = PairTrainer(
        inputs.policy(),
        training_arguments(settings, folder),
        schedule(inputs.train, settings.training),
        objective=objective,
        reader=inputs.reader,
        keep_checkpoints=settings.output.keep_checkpoints,
        tokenizer=inputs.tokenizer,
    )
    place = {"process": trainer.args.process_index, "processes": trainer.args.world_size}
    probe = ProbeSet(inputs.probe, inputs.reader, trainer.args.device, **place)

    def begin() -> Path | None:
        checkpoint = next(iter(checkpoints(folder / "checkpoints")), None)
        if not (folder / TRACE_FILE).is_file():
            checkpoint = None
        manifest.write_manifest(
            folder, settings, objective, inputs, trainer.args.device, trainer.args.world_size
        )
        rewind(folder, step_of(checkpoint) if checkpoint else -1)
        return checkpoint

    checkpoint = on_main(begin)
    if checkpoint:
        progress.skip(step_of(checkpoint))
    home = Path(settings.output.output or folder)
    every = settings.probing.geometry_every
    geometry = Geometry(trainer, inputs.probe, every=every) if every else None
    with stop_on_signal() as stop:
        recorder = Recorder(
            trainer,
            folder,
            probe,
            reference=lambda: inputs.reference(trainer.score, trainer.args.device, home),
            probe_every=settings.probing.probe_every,
            samples=samples_of(trainer, settings, inputs),
            sample_every=settings.probing.sample_every or 1,
            geometry=geometry,
            stop=stop,
            on_step=progress_of(progress, name or objective.name, probe, folder),
        )
        for callback in (geometry, recorder):
            if callback is not None:
                trainer.add_callback(callback)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except InputError as error:
            if PartialState().is_main_process:
                manifest.set_status(folder, f"failed: {error}")
            raise
        finally:
            recorder.close()
    if stop.is_set():
        on_main(lambda: manifest.set_status(folder, "interrupted"))
        raise Interrupted(stop.signal_number, home)
    on_main(lambda: manifest.set_status(folder, "done"))


def samples_of(
    trainer: PairTrainer, settings: Settings, inputs: Inputs
) -> Callable[[int], dict[str, list[Any]]] | None:
    """What the record asks for when samples are due; None where no sampling is asked for."""
    if settings.probing.sample_every is None:
        return None
    if trainer.is_fsdp_enabled:
        raise InputError(
            "--sample-every: a sharded model (FSDP) cannot sample; run it under DDP or on one process"
        )
    sampler = inputs.sampler(trainer.args.device)
    several = -(-settings.probing.samples // len(sampler.prompts))

    def samples(step: int) -> dict[str, list[Any]]:
        policy = trainer.accelerator.unwrap_model(trainer.model)
        return sampler.measure(policy, step, per_prompt=settings.probing.best_of if step == 0 else several)

    return samples


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def progress_of(
    progress: Progress, name: str, probe: ProbeSet, folder: Path
) -> Callable[[int, dict[str, float], dict[str, list[float]] | None], None]:
    """What to show after each step: loss, margin, and the change of both log-probs since step 0, per token."""
    start: dict[str, float] = {}
    change = {"probe_chosen_logp_mean": "–", "probe_rejected_logp_mean": "–"}

    def show(step: int, metrics: dict[str, float], measured: dict[str, list[float]] | None) -> None:
        if not start:  # a resumed run: step 0 stands in its trace
            first = measured if step == 0 else read_lines(folder / TRACE_FILE)[1][1]["probe"]
            start.update(probe.means(first))
        if step == 0:
            return
        for response, now in probe.means(measured).items():
            change[response] = f"{now - start[response]:+.3f}"
        progress.step(
            name,
            {
                "step": step,
                "loss": f"{metrics['loss']:.3f}",
                "margin": f"{metrics['margin']:+.2f}",
                "chosen": change["probe_chosen_logp_mean"],
                "rejected": change["probe_rejected_logp_mean"],
            },
            tokens=int(metrics["tokens"]),
        )

    return show


class Stop(threading.Event):
    """Set when a signal asked the run to stop."""

    signal_number = int(signal.SIGINT)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Within it, SIGINT or SIGTERM asks for a stop after the step in hand; a second SIGINT stops at once.

    A second SIGTERM does not: launchers and schedulers pass one on that the process itself has had already.
    """
    stop = Stop()

    def ask(number: int, _: object) -> None:
        if stop.is_set():
            if number == stop.signal_number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        stop.signal_number = number
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def quieten() -> None:
    """Set-up that belongs to the process: flush denormals, and let transformers speak only of errors."""
    # A saturated loss leaves gradients below 1e-38; on such denormals a CPU is 10 to 100 times slower.
    torch.set_flush_denormal(True)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)  # peft

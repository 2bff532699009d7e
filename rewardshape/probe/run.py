"""A probe run from beginning to end: `run(settings) → Trace`, for one run or a grid of them.

Data, policy, reference, training, and the record of it, one folder per run. What the runs of a grid share is made once:
for all of them the reader, for those of one seed the pairs, their split and the reference's log-probabilities.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, __version__, set_seed

from rewardshape.errors import InputError
from rewardshape.probe import manifest, plan
from rewardshape.probe.beginning import Beginning, beginnings_of
from rewardshape.probe.checkpoints import forget_later, step_of
from rewardshape.probe.distributed import gather, here, is_sharded, join, on_main, refuse_deepspeed
from rewardshape.probe.dropped import dropped_pairs
from rewardshape.probe.grid import Grid, PlannedRun, build_objective, plan_runs, scores_asked_by
from rewardshape.probe.inputs import Inputs, as_tokens
from rewardshape.probe.jobs import in_processes
from rewardshape.probe.live import live_page
from rewardshape.probe.lock import locked
from rewardshape.probe.measure.geometry import Geometry
from rewardshape.probe.measure.gold import Gold
from rewardshape.probe.measure.logprobs import Reader, choose_reader
from rewardshape.probe.measure.probe_set import ProbeSet
from rewardshape.probe.measure.responses import scores
from rewardshape.probe.order import TrainingOrder
from rewardshape.probe.outline import optimizer_notes, outline
from rewardshape.probe.policy import load_policy
from rewardshape.probe.process import keep_few_kernels, set_up
from rewardshape.probe.progress import Progress, changes_shown
from rewardshape.probe.recorder import Measures, Recorder, destination_of, influence_of
from rewardshape.probe.reference import untouched_model
from rewardshape.probe.resume import at_step_0, fingerprint_of, going_on, looked_over
from rewardshape.probe.samples import gold_of, sampled, samples_of
from rewardshape.probe.settings import Settings
from rewardshape.probe.stopping import (
    Diverged,
    Interrupted,
    Stop,
    end_by_force,
    ending_recorded,
    is_settled,
    record_ending,
    stop_on_signal,
)
from rewardshape.probe.training import PairTrainer, require_trainer, training_arguments
from rewardshape.trace import Trace, read_trace
from rewardshape.trace.folder import RunFolder
from rewardshape.trace.records import rewind


@dataclass(frozen=True)
class Shared:
    """What the runs of a command have in common; `beginnings` by seed."""

    grid: Grid
    gold: Gold | None
    reader: Reader
    home: Path
    beginnings: dict[int, Beginning]
    progress: Progress
    by_force: Callable[[int], object] | None = None
    begins: dict[str, Path] = field(default_factory=dict)
    """The checkpoint that a run goes on from, by its name."""

    def of(self, planned: PlannedRun) -> Beginning:
        """What this run begins with."""
        return self.beginnings[planned.settings.training.seed]


def run(
    settings: Settings,
    *,
    checkpoint: str | None = None,
    data: Any = None,
    on_folder: Callable[[Path], object] = lambda folder: None,
    by_force: Callable[[int], object] | None = None,
) -> Trace:
    """Run what the settings say and read back the trace.

    Parameters
    ----------
    settings : Settings
        As `rewardshape.probe.command.parse` makes them from a command line.
    checkpoint : str, optional
        Where the checkpoint lies, where that is not what the settings call it.
    data : table, optional
        The pairs as rows in memory, where they are not what the settings name.
    on_folder : callable
        Told the folder once it is made.
    by_force : callable, optional
        Called with the number of a signal that the run is too busy to hear, from another thread, to end the process.

    Returns
    -------
    Trace
        Of the run; of all runs of a grid together.

    Raises
    ------
    InputError
        Bad input; or a loss or gradient that is not finite (`Diverged`), which ends the run before that update. A sweep
        goes on without the run; its manifest says so.
    Interrupted
        A signal asked the run to stop.

    Examples
    --------
    >>> trace = run(parse(["./model", "--data", "pairs.jsonl", "--alpha", "0", "0.25"]))  # doctest: +SKIP
    """
    objects = {"checkpoint": checkpoint, "data": data}
    in_memory = tuple(name for name, given in objects.items() if given is not None)
    manifest.require_objects(settings, in_memory)
    refuse_deepspeed()
    require_trainer(__version__)
    with set_up():
        join()
        grid = replace(plan_runs(settings, checkpoint), in_memory=in_memory)
        notes = optimizer_notes(grid)
        inputs = Inputs(grid.runs[0], grid.runs[0].checkpoint, data)
        plan.require_room(grid.runs, grid.model, inputs)
        output = settings.output
        quiet = output.quiet or output.json or not here().is_main
        with Progress(sum(planned.settings.training.steps for planned in grid.runs), quiet=quiet) as progress:
            for line in [*notes, *inputs.notes]:
                progress.say(line)
            return read_trace(run_all(grid, inputs, progress, on_folder, by_force))


def dry_run(settings: Settings) -> str:
    """What the settings would do and the memory they need, with nothing loaded and nothing written."""
    with set_up():
        join()
        grid = plan_runs(settings)
        optimizer_notes(grid)
        inputs = Inputs(grid.runs[0], grid.runs[0].checkpoint)
        described = plan.describe(grid.runs[0], grid.model, inputs)
        if settings.output.json:
            return described
        pair = as_tokens(inputs.train[0], inputs.tokenizer)
        return "\n".join([*inputs.notes, *pair, "", *outline(grid, inputs), "", described])


def run_all(
    grid: Grid,
    inputs: Inputs,
    progress: Progress,
    on_folder: Callable[[Path], object],
    by_force: Callable[[int], object] | None,
) -> Path:
    """Every run of the grid that is not settled yet, one after the other; the folder they lie in."""
    gold, output = gold_of(grid), grid.settings.output
    resumed = Path(output.output) if output.resume and output.output else None
    shared: Shared | None = None
    with contextlib.ExitStack() as held:
        if resumed is not None:
            on_main(lambda: hold(resumed, held))
            on_folder(resumed)
            for line in on_main(lambda: looked_over(resumed, grid.names, repair=output.repair)):
                progress.say(line)
        left = list(unsettled(grid, resumed, progress))
        for planned in left:
            policy = fresh_policy(planned)
            if shared is None:  # nothing is written before the checkpoint has shown that it can be used
                shared = replace(
                    begin(grid, inputs, gold, policy, planned, progress, held), by_force=by_force
                )
                on_folder(shared.home)
                if output.jobs > 1 and len(left) > 1:
                    del policy
                    run_together(left, shared)
                    break
            try:
                run_one(planned, policy, shared)
            except Diverged as error:  # a result of the sweep like any other
                if len(grid.runs) == 1:
                    raise
                progress.say(f"{planned.name}: {error}")
            del policy
            gc.collect()  # trainer and callbacks hold one another and the weights; before the next ones are loaded
    return Path(str(resumed)) if shared is None else shared.home


def unsettled(grid: Grid, resumed: Path | None, progress: Progress) -> Iterator[PlannedRun]:
    """The runs that something is left to do for; the steps of the others count as done."""
    for planned in grid.runs:
        if resumed is not None and on_main(lambda: is_settled(RunFolder(resumed / planned.name))):  # noqa: B023
            progress.skip(planned.settings.training.steps)
        else:
            yield planned


def run_together(left: Sequence[PlannedRun], shared: Shared) -> None:
    """The runs, several at a time, each in a process of its own."""
    if here().processes > 1:
        raise InputError("--jobs: starts its own processes; leave the launcher out, or --jobs")
    jobs, progress = shared.grid.settings.output.jobs, shared.progress
    needs_reference = {planned.name for planned in left if planned.objective.needs_reference}

    def measures_reference(planned: PlannedRun) -> bool:
        return planned.name in needs_reference and not shared.of(planned).reference.is_kept()

    def may_begin(planned: PlannedRun, running: Sequence[PlannedRun]) -> bool:
        """Not while another measures a reference: this one needs it, or would write beside it."""
        return not measures_reference(planned) or not any(map(measures_reference, running))

    def handed(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """An objective may be of a user's own code: each process makes it again."""
        return [replace(planned, objective=None) for planned in runs]  # type: ignore[arg-type]

    grid = replace(shared.grid, runs=handed(shared.grid.runs))
    common = replace(shared, grid=grid, gold=None, progress=None, by_force=None)  # type: ignore[arg-type]
    with stop_on_signal() as stop:
        ended = in_processes(
            run_apart, common, handed(left), jobs=jobs, may_begin=may_begin, progress=progress, stop=stop
        )
    if stop.is_set():
        raise Interrupted(stop.signal_number, shared.home)
    for planned in (run for run, how in ended if how.kind == "killed"):
        record_ending(RunFolder(shared.home / planned.name), "failed", "killed")
    for planned, how in ended:
        if how.kind == "diverged":
            progress.say(f"{planned.name}: {how.reason}")
        elif how.kind in ("refused", "killed"):
            raise InputError(f"{planned.name}: {how.reason}")
        elif how.kind == "failed":
            raise RuntimeError(f"{planned.name}: {how.reason}")
    for planned in (run for run, how in ended if how.kind == "interrupted"):
        raise InputError(f"{planned.name}: a signal asked its process alone to end; go on with --resume")


def run_apart(common: Shared, run: PlannedRun, progress: Progress) -> None:
    """One run in a process of its own."""
    planned = replace(run, objective=build_objective(run.settings.objective))
    shared = replace(
        common,
        gold=gold_of(common.grid),
        progress=progress,
        by_force=lambda number: os._exit(128 + number),
    )
    run_one(planned, fresh_policy(planned), shared)


def fresh_policy(planned: PlannedRun) -> PreTrainedModel:
    """The checkpoint's model, loaded for one run, where it will be trained."""
    keep_few_kernels(planned.decided.micro_batch_size)
    set_seed(planned.settings.training.seed)  # adapters begin at random
    policy = load_policy(planned.checkpoint, planned.settings.model)
    return policy if is_sharded() else policy.to(here().device)  # type: ignore[arg-type]


def begin(
    grid: Grid,
    inputs: Inputs,
    gold: Gold | None,
    policy: PreTrainedModel,
    planned: PlannedRun,
    progress: Progress,
    held: contextlib.ExitStack,
) -> Shared:
    """Choose the reader on the first policy, that of `planned`, make and lock the folder, and record the command in it.

    A resumed command is first asked whether it goes on with what it began with.
    """
    for asked_by in scores_asked_by(grid):
        scores(asked_by, inputs.train)  # refused here, before anything is written
    reader, note = on_main(lambda: choose_reader(policy, [*inputs.train, *inputs.probe]))
    if note:
        progress.say(note)
    fingerprints = {planned.checkpoint: on_main(lambda: fingerprint_of(policy))}
    home = on_main(lambda: manifest.make_folder(grid.settings))
    if not grid.settings.output.resume:
        on_main(lambda: hold(home, held))
    on_main(lambda: forget_reference(home, grid))
    beginnings = beginnings_of(grid, inputs, fingerprints, RunFolder(home).reference)
    shared = Shared(grid, gold, reader, home, beginnings, progress)
    notes, begins = on_main(lambda: checked(shared))
    shared.begins.update(begins)
    for line in notes:
        progress.say(line)
    names = [planned.name for planned in grid.runs if planned.name]
    written = grid.settings.replace(output=str(home), resume=False, repair=False)  # which are of one start
    on_main(lambda: manifest.write_command(home, written, names, grid.in_memory))
    if grid.settings.output.live and here().is_main:
        held.enter_context(live_page(home))
        progress.say(f"the page, while it runs: {RunFolder(home).report}")
    return shared


def forget_reference(home: Path, grid: Grid) -> None:
    """Delete reference log-probs that a start left which came to nothing, of whatever data."""
    begun = any(RunFolder(home / planned.name).manifest.is_file() for planned in grid.runs)
    if grid.settings.output.resume and not begun:
        RunFolder(home).reference.unlink(missing_ok=True)


def hold(folder: Path, held: contextlib.ExitStack) -> None:
    """Keep every other process out of the folder as long as `held` lasts."""
    held.callback(locked(folder).release)


def checked(shared: Shared) -> tuple[list[str], dict[str, Path]]:
    """Notes on the runs that are there already, and the checkpoint that each goes on from, by its name.

    `InputError` where one of them would become another.
    """
    notes: list[str] = []
    begins: dict[str, Path] = {}
    for planned in shared.grid.runs:
        files, beginning = RunFolder(shared.home / planned.name), shared.of(planned)
        if not files.manifest.is_file():  # a start that came to nothing, of whatever data
            files.dropped.unlink(missing_ok=True)
            continue
        rows = ProbeSet(beginning.inputs.probe, shared.reader, here().device).table(None)
        checkpoint, said = going_on(files, manifest_now(planned, shared), rows)
        notes += said
        if checkpoint:
            begins[planned.name] = checkpoint
            if planned.objective.needs_reference:
                beginning.reference.require(checkpoint)
    return list(dict.fromkeys(notes)), begins


def manifest_now(planned: PlannedRun, shared: Shared) -> dict[str, Any]:
    """What ``run.json`` says when this run begins."""
    return manifest.manifest_of(
        planned,
        home=shared.home,
        model=shared.grid.model,
        fingerprint=shared.of(planned).fingerprint,
        inputs=shared.of(planned).inputs,
        reader=shared.reader,
        place=here(),
    )


def run_one(planned: PlannedRun, policy: PreTrainedModel, shared: Shared) -> None:
    """One training run, however it ends."""
    files = RunFolder(shared.home / planned.name)
    with (
        stop_on_signal() as stop,
        end_by_force(stop, files, shared.by_force),
        ending_recorded(files, shared.home),
    ):
        train(planned, policy, shared, stop)
    stopped = any(gather(stop.is_set()))
    on_main(lambda: files.set_status("interrupted" if stopped else "done"))
    if stopped:
        raise Interrupted(stop.signal_number, shared.home)


def train(planned: PlannedRun, policy: PreTrainedModel, shared: Shared, stop: Stop) -> None:
    """From the start, or on from the newest whole checkpoint."""
    inputs, settings = shared.of(planned).inputs, planned.settings
    folder = shared.home / planned.name
    untouched = (
        untouched_model(policy, adapters=settings.model.lora_rank is not None) if sampled(planned) else None
    )
    order = TrainingOrder.of(
        planned,
        inputs.train,
        without=dropped_pairs(RunFolder(folder).dropped, planned, policy, shared.of(planned), shared.reader),
    )
    trainer = PairTrainer(
        policy,
        training_arguments(planned, folder),
        order,
        objective=planned.objective,
        reader=shared.reader,
        keep_checkpoints=settings.output.keep_checkpoints,
        tokenizer=inputs.tokenizer,
    )
    trainer.keep_reference(policy, order.pairs())
    probe = ProbeSet(inputs.probe, shared.reader, trainer.args.device)
    probing = settings.probing
    every = probing.geometry_every
    measures = Measures(
        probe,
        probing.probe_every,
        samples=samples_of(trainer, planned, inputs, shared.gold, untouched, folder) if untouched else None,
        sample_every=probing.sample_every or 1,
        geometry=Geometry(trainer, inputs.probe, every=every) if every else None,
        destination=destination_of(trainer, policy, probe, inputs) if probing.destination_every else None,
        destination_every=probing.destination_every or 1,
        influence=influence_of(
            trainer, policy, probe, order, inputs, RunFolder(folder), every=probing.influence_every
        )
        if probing.influence_every
        else None,
        influence_every=probing.influence_every or 1,
    )
    checkpoint = on_main(lambda: begin_or_rewind(planned, shared))
    if checkpoint:
        shared.progress.skip(step_of(checkpoint))
    shared.progress.begin(
        counted(planned, shared.grid), "" if checkpoint else "step 0: measuring the untouched model"
    )
    recorder = Recorder(
        trainer,
        folder,
        measures,
        reference=lambda: shared.of(planned).reference.logps(
            shared.reader, trainer.score, trainer.args.device
        ),
        stop=stop,
        begins_at=step_of(checkpoint) if checkpoint else 0,
        on_step=changes_shown(
            shared.progress,
            settings.training.steps,
            start=lambda: probe.means(at_step_0(RunFolder(folder))),
        ),
    )
    for callback in (measures.geometry, recorder):
        if callback is not None:
            trainer.add_callback(callback)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        recorder.close()


def counted(planned: PlannedRun, grid: Grid) -> str:
    """The run for the progress line: which one of how many."""
    if len(grid.runs) == 1:
        return planned.name or planned.objective.name
    return f"{planned.name} ({grid.names.index(planned.name) + 1}/{len(grid.runs)})"


def begin_or_rewind(planned: PlannedRun, shared: Shared) -> Path | None:
    """Write the manifest; the checkpoint to go on from, with everything later dropped from the record."""
    files = RunFolder(shared.home / planned.name)
    checkpoint = shared.begins.get(planned.name)
    inputs = shared.of(planned).inputs
    step = step_of(checkpoint) if checkpoint else -1
    forget_later(files.checkpoints, step)
    rewind(files.path, step)
    manifest.write_manifest(files.path, manifest_now(planned, shared), inputs.probe, inputs.tokenizer)
    return checkpoint

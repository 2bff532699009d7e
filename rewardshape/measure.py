"""``python -m rewardshape.measure``: a row of saved checkpoints, of any trainer, becomes the trace of a run.

Each checkpoint or adapter is loaded once, measured on the same pairs, and let go before the next: what
`rewardshape.integrations.recorder` records in a loop is recorded here afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardshape.data import parse_columns, parse_template_arguments
from rewardshape.errors import InputError, needing
from rewardshape.numbers import signed
from rewardshape.probe.__main__ import guarded, is_main, say
from rewardshape.probe.command import Formatter, Parser, add_flags, parsed
from rewardshape.probe.process import quiet_imports
from rewardshape.probe.settings import SETTINGS, ModelSettings, Settings, flag

if TYPE_CHECKING:
    from rewardshape.integrations.pairs import ReadPairs
    from rewardshape.integrations.recorder import Recorder
    from rewardshape.theory import Objective
    from rewardshape.trace import Trace

PROGRAM = "python -m rewardshape.measure"
OF_TRAINING = {"lora_rank", "gradient_checkpointing", "drop"}
FLAGS = [
    name
    for name, setting in SETTINGS.items()
    if (setting.group in ("objective", "data", "model") and name not in OF_TRAINING)
    or name in ("probe_pairs", "probe_responses", "output", "resume", "quiet", "json")
]
STEP, EPOCH = (
    re.compile(rf"(?:^|[-_.])(?:{words})[-_=]?(\d+)", re.IGNORECASE)
    for words in ("checkpoint|ckpt|(?:global[-_]?)?step|iter(?:ation)?", "epoch")
)


@dataclass(frozen=True)
class Saved:
    """One checkpoint of the row: the updates that it has had, and where it lies."""

    step: int
    checkpoint: str


@dataclass(frozen=True)
class Asked:
    """What a command line asks for: the checkpoints by their steps, and settings of the probe that apply here."""

    row: list[Saved]
    settings: Settings
    command: str


def main(argv: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """Exit status: 0 done; 2 bad input, said in one ``error:`` line; 128 + signal when stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    again = "--resume" if "--output" in words else "--resume --output FOLDER"
    return guarded(lambda: _main(words, prog), lambda: f"stopped; the same command with {again} goes on")


def _main(words: list[str], prog: str) -> int:
    asked = parse(words, prog)
    with needing("probe", prog), quiet_imports():
        from rewardshape.probe.show import present
        from rewardshape.probe.stopping import Interrupted
    try:
        trace = measure(asked)
    except Interrupted as stopped:
        again = [word for word in words if word != "--resume"]
        again += [] if "--output" in again else ["--output", str(stopped.folder)]
        say(f"stopped; the trace is whole. Go on with:\n  {prog} {shlex.join(again)} --resume")
        return 128 + stopped.signal_number
    if is_main():
        present(trace, asked.settings, say)
    return 0


def parse(argv: Sequence[str], prog: str = PROGRAM) -> Asked:
    """What the command line asks for.

    Raises
    ------
    InputError
        A checkpoint whose folder does not say its step, or a step twice; no pairs; several values of a setting.
    """
    parser = Parser(
        prog=prog,
        usage="%(prog)s CHECKPOINT ... --data FILE ... [--objective NAME] [flags]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", nargs="+", metavar="CHECKPOINT", help="folders, hub ids or adapters")
    parser.add_argument(
        "--at",
        nargs="+",
        type=int,
        metavar="STEP",
        default=argparse.SUPPRESS,
        help="the step of each checkpoint, in their order; default: as the folders' names say (checkpoint-100, "
        "global_step_100, …), 0 for the first where its name says none",
    )
    add_flags(parser, FLAGS)
    given = parsed(parser, argv, FLAGS)
    row = by_step(given.pop("checkpoint"), given.pop("at", None))
    settings = Settings.from_dict({"checkpoint": row[0].checkpoint, **given})
    others = [
        name for name in ("alpha", "gamma", "gamma_beta_ratio", "add_nll", "parameter") if name in given
    ]
    if others and not is_stated(settings):
        raise InputError(
            f"{flag(others[0])}: of which objective? give --objective, too (alphapo, simpo, dpo, …)"
        )
    for name in settings.sweep:
        raise InputError(f"{flag(name)}: takes one value here; measure again with another --output")
    if not settings.data.data:
        raise InputError("--data: name the preference pairs to measure the checkpoints on")
    words = [word for word in argv if word != "--resume"]
    return Asked(row, settings, shlex.join([*shlex.split(prog), *words]))


def by_step(checkpoints: Sequence[str], at: Sequence[int] | None = None) -> list[Saved]:
    """The checkpoints in the order of their steps.

    >>> [saved.step for saved in by_step(["out/checkpoint-100", "out/checkpoint-20", "base"])]
    Traceback (most recent call last):
    ...
    rewardshape.errors.InputError: base: its name says no step; put the untouched model first, or give --at, a step each
    >>> [saved.step for saved in by_step(["base", "out/checkpoint-100", "out/checkpoint-20"])]
    [0, 20, 100]
    """
    if at is not None and len(at) != len(checkpoints):
        raise InputError(f"--at: {len(at)} steps for {len(checkpoints)} checkpoints; give one each")
    if at is not None and min(at) < 0:
        raise InputError(f"--at {min(at)}: steps count from 0, the untouched model")
    steps = [step_of(place) for place in checkpoints] if at is None else list(at)
    row = []
    for number, (checkpoint, step) in enumerate(zip(checkpoints, steps, strict=True)):
        if step is None and number:
            raise InputError(
                f"{checkpoint}: its name says no step; put the untouched model first, or give --at, a step each"
            )
        row.append(Saved(step or 0, checkpoint))
    row.sort(key=lambda saved: saved.step)
    for one, other in itertools.pairwise(row):
        if one.step == other.step:
            raise InputError(
                f"{one.checkpoint} and {other.checkpoint}: both are of step {one.step}; give --at, a step each"
            )
    return row


def step_of(checkpoint: str) -> int | None:
    """The step that a folder's name says, its own or that of the nearest folder above it; epochs where none does.

    >>> step_of("out/checkpoint-250"), step_of("global_step_40/actor/huggingface"), step_of("Qwen2.5-0.5B")
    (250, 40, None)
    """
    for unit in (STEP, EPOCH):
        for name in reversed(Path(checkpoint).parts):
            if found := unit.findall(name):
                return int(found[-1])
    return None


def measure(asked: Asked) -> Trace:
    """Measure the row and read back the trace; what a folder holds of it already is not measured again.

    Raises
    ------
    InputError
        A row without its untouched model; checkpoints of different architectures; a folder that holds another run.
    Interrupted
        A signal asked for a stop.
    """
    with quiet_imports():
        from rewardshape.probe import manifest
        from rewardshape.probe.distributed import here, join, on_main
        from rewardshape.probe.process import set_up
        from rewardshape.probe.progress import Progress
        from rewardshape.probe.stopping import Interrupted, stop_on_signal
        from rewardshape.trace import read_trace

    settings, row = asked.settings, with_untouched(asked.row)
    with set_up():
        join()
        pairs, goal = read_pairs(settings), objective_of(settings)  # before anything is loaded
        home = on_main(lambda: manifest.make_folder(settings))
        output = settings.output
        quiet = output.quiet or output.json or not here().is_main
        done = on_main(lambda: measured_already(home, row, goal, pairs)) if output.resume else set()
        recorder: Recorder | None = None
        with (
            contextlib.ExitStack() as held,
            Progress(len(row), quiet=quiet) as progress,
            stop_on_signal() as stop,
        ):
            progress.skip(len(done))
            for saved in row:
                if saved.step in done:
                    continue
                progress.begin(saved.checkpoint, "loading")
                model = load(saved.checkpoint, settings)
                if recorder is None:
                    recorder = held.enter_context(made_recorder(model, pairs, goal, row, asked, home))
                    for line in [*pairs.notes, recorder.note]:
                        progress.say(line) if line else None
                progress.begin(saved.checkpoint, "measuring")
                taken = recorder.take(saved.step, model)
                recorder.write(taken, {}, tokens=saved.step == 0)
                recorder.model = model = None  # before the next is loaded
                progress.step(
                    {
                        "step": saved.step,
                        "chosen": signed(taken.told["probe_chosen_change"]),
                        "rejected": signed(taken.told["probe_rejected_change"]),
                    },
                    tokens=recorder.num_tokens,
                )
                if stop.is_set() and saved is not row[-1]:
                    recorder.close("interrupted")
                    raise Interrupted(stop.signal_number, home)
        return read_trace(home)


def with_untouched(row: list[Saved]) -> list[Saved]:
    """The row with its step 0: of adapters, the base that they name where it was not given."""
    from rewardshape.probe.policy import parts_of

    if row[0].step == 0:
        return row
    parts = [parts_of(saved.checkpoint) for saved in row]
    bases = {part.base for part in parts}
    if len(bases) == 1 and all(part.adapter and part.base != part.adapter for part in parts):
        return [Saved(0, bases.pop()), *row]
    raise InputError(
        f"{row[0].checkpoint}: is of step {row[0].step}, and what changed is told from step 0; put the model that "
        "training began with first, and where names say other steps than you mean, give --at 0 …, a step each"
    )


def load(checkpoint: str, settings: Settings) -> Any:
    """A checkpoint's model, where it is measured."""
    from rewardshape.probe.distributed import here
    from rewardshape.probe.policy import load_policy

    return load_policy(checkpoint, settings.model).to(here().device)  # type: ignore[arg-type]


def read_pairs(settings: Settings) -> ReadPairs:
    """The pairs as the settings say."""
    from rewardshape.integrations.pairs import ReadPairs

    return ReadPairs(
        list(settings.data.data),
        parse_columns(settings.data.columns),
        settings.probing.probe_pairs,
        skip_bad_rows=settings.data.skip_bad_rows,
        extra_responses=settings.probing.probe_responses,
    )


def is_stated(settings: Settings) -> bool:
    """Whether the command says what was optimised."""
    return bool(settings.objective.objective or settings.objective.preset)


def objective_of(settings: Settings) -> Objective:
    """What margins are told by: the objective that was stated, else DPO's log-ratio."""
    from rewardshape.probe.grid import build_objective
    from rewardshape.theory import objective

    if is_stated(settings):
        return build_objective(settings.objective)
    return objective("dpo", beta=settings.objective.beta)


def tokenizer_of(row: list[Saved], settings: ModelSettings) -> Any:
    """What training left at the end, or where it saved weights only, began with."""
    from rewardshape.probe.policy import load_tokenizer

    last = row[-1].checkpoint
    try:
        return load_tokenizer(last, settings)
    except InputError:
        if any(Path(last).glob("tokenizer*")):
            raise
        return load_tokenizer(row[0].checkpoint, settings)


def made_recorder(
    model: Any, pairs: ReadPairs, goal: Objective, row: list[Saved], asked: Asked, home: Path
) -> Recorder:
    """The recorder of the row."""
    from rewardshape.integrations.recorder import Recorder

    data = asked.settings.data
    recorder = Recorder(
        model,
        tokenizer_of(row, asked.settings.model),
        pairs,
        goal,
        home,
        max_prompt_tokens=data.max_prompt_tokens,
        max_response_tokens=data.max_response_tokens,
        end_token=not data.no_end_token,
        chat_template=data.chat_template,
        template_arguments=parse_template_arguments(data.template_argument),
        template_opening=data.template_opening,
        skip_bad_rows=data.skip_bad_rows,
    )
    recorder.about |= {
        "command": asked.command,
        "checkpoints": {str(saved.step): saved.checkpoint for saved in row},
        "objective_is_loss": is_stated(asked.settings),  # else no verdict is drawn from its loss
    }
    return recorder


def measured_already(home: Path, row: list[Saved], goal: Objective, pairs: ReadPairs) -> set[int]:
    """The steps that the folder's record holds; `InputError` where they are those of another row, or of other pairs."""
    from rewardshape.probe.manifest import stated
    from rewardshape.trace import RunFolder
    from rewardshape.trace.records import read_records

    files = RunFolder(home)
    if not files.trace.is_file():
        return set()
    recorded = files.read_manifest()
    before = recorded.get("checkpoints")
    if before is None:
        raise InputError(f"--output {home}: holds a run, not a row of checkpoints; give another folder")
    began, now_as = recorded["objective"], stated(goal)
    if began != now_as:
        raise InputError(
            f"--resume: {home} was measured by {began['name']} with {began['parameters']}, and this is "
            f"{now_as['name']} with {now_as['parameters']}; give the same, or another --output"
        )
    if recorded["data"]["fingerprint"] != pairs.report["fingerprint"]:
        raise InputError(
            f"--resume: the pairs of {home} were others; give the same --data, or another --output"
        )
    done = {record.step for record in read_records(files.trace)[1]}
    if not done:
        raise InputError(f"--resume: {home} holds no measured step; remove it, or give another --output")
    now = {saved.step: saved.checkpoint for saved in row}
    for step in sorted(done):
        if now.get(step) != before.get(str(step)):
            raise InputError(
                f"--resume: step {step} in {home} is {before.get(str(step))}, and now {now.get(step, 'is not given')}; "
                "give the same checkpoints, or another --output"
            )
    if late := [step for step in now if step not in done and step < max(done)]:
        raise InputError(
            f"--resume: {now[late[0]]} is of step {late[0]}, earlier than what {home} ends with; give another --output"
        )
    return done


DESCRIPTION = """\
Measure saved checkpoints or adapters of any trainer on preference pairs, in the order of their steps, and write the
trace, the report and the figures of a run."""

EPILOG = """\
examples
  %(prog)s ./base out/checkpoint-* --data probe.jsonl --objective dpo --beta 0.1
      the untouched model first: it is step 0, and the reference of DPO
  %(prog)s adapters/checkpoint-* --data probe.jsonl
      LoRA adapters; the base that they name is step 0
  %(prog)s ./base global_step_*/actor/huggingface --data probe.jsonl --output runs/verl
      the step stands in a folder above
  %(prog)s ./base epoch_0 epoch_1 --at 0 500 1000 --data probe.jsonl --columns prompt=question
      steps given by hand, and which column is which
  %(prog)s ./base out/checkpoint-* --data probe.jsonl --output runs/mine --resume
      go on after an interruption, or with checkpoints that came since

Without --objective no verdict is drawn from losses; margins are DPO's with β = 0.1. What is measured is the same as
by rewardshape probe: log-probs in nats, the first pairs of the files (--probe-pairs, default 64)."""

if __name__ == "__main__":
    sys.exit(main())

"""Every setting of the probe: one dataclass per concern, checked when made. The command line is generated from them.

A setting's flag is its name with dashes; its help stands beside it. ``None`` means: chosen for you, by the rule
that the help states, and written into the manifest.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from rewardshape.errors import InputError
from rewardshape.theory import Objective, objective, objective_names, preset, preset_names

MEASURED = {"logp_sum", "num_tokens", "ref_logp_sum"}  # what training knows of a response
DEFAULT_OBJECTIVE = "alphapo"
DEFAULT_PRESETS = {"alphapo": "alphapo/mistral-7b-instruct", "simpo": "simpo/mistral-7b-instruct"}
EMBEDDED_RATE = 2e-4
EMBEDDED = {"alpha": (-0.5, 0.0, 0.25, 1.0), "beta": (2.5,), "gamma": (2.5,), "learning_rate": EMBEDDED_RATE}
SCHEDULES = ("constant", "linear", "cosine", "constant_with_warmup")
TRACKERS = ("none", "tensorboard", "wandb", "trackio")
LORA_RATE = 10  # adapters learn at this multiple of the rate that suits the weights
PRECISIONS = ("float32", "mixed", "bfloat16")
ATTENTIONS = ("sdpa", "eager", "flash_attention_2", "flex_attention")


def _flag(default: Any, help: str, metavar: str | None = None, choices: Sequence[str] | None = None) -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar, "choices": choices})


def _require(condition: bool, flag: str, value: object, wanted: str) -> None:
    if not condition:
        raise InputError(f"--{flag.replace('_', '-')} {value}: must be {wanted}")


def _require_positive(settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        for item in value if isinstance(value, tuple) else (value,):
            _require(item is None or (math.isfinite(item) and item > 0), name, item, "positive")


@dataclass(frozen=True)
class ObjectiveSettings:
    """What is optimised."""

    objective: tuple[str, ...] = _flag(
        (), "what to optimise, from the list below; several make a sweep; default alphapo", "NAME"
    )
    alpha: tuple[float, ...] = _flag((), "shape parameter of the α family; several make a sweep", "A")
    beta: tuple[float, ...] = _flag((), "inverse temperature β; several make a sweep", "B")
    gamma: tuple[float, ...] = _flag((), "target margin γ in reward units; several make a sweep", "G")
    gamma_beta_ratio: tuple[float, ...] = _flag((), "γ/β, the other way to give γ", "R")
    parameter: tuple[str, ...] = _flag((), "any other parameter of the objective, NAME=VALUE", "NAME=VALUE")
    preset: str | None = _flag(None, "a published setting such as simpo/mistral-7b-instruct", "NAME")

    def __post_init__(self) -> None:
        for name in ("alpha", "gamma", "gamma_beta_ratio"):
            for value in getattr(self, name):
                _require(math.isfinite(value), name, value, "a finite number")
        _require_positive(self, "beta")
        if self.gamma and self.gamma_beta_ratio:
            raise InputError("--gamma and --gamma-beta-ratio: give one of them, not both")
        if self.preset and self.objective:
            raise InputError("--preset and --objective: give one of them, a preset names its objective")


@dataclass(frozen=True)
class TrainingSettings:
    """How it is optimised."""

    steps: int = _flag(150, "optimiser steps", "N")
    batch_size: int | None = _flag(None, "pairs per optimiser step, over all devices; default 16", "N")
    micro_batch_size: int | None = _flag(
        None, "pairs per forward pass and device; default: the whole batch", "N"
    )
    learning_rate: float | None = _flag(
        None, "peak learning rate; default 1e-6·√(7e9/parameters), ten times that with LoRA", "LR"
    )
    schedule: str = _flag("cosine", "learning-rate schedule", choices=SCHEDULES)
    warmup_ratio: float = _flag(0.1, "share of the steps that warm up", "R")
    max_grad_norm: float = _flag(1.0, "clip the gradient to this norm", "C")
    optimizer: str | None = _flag(
        None,
        "any optimiser name of transformers; default adamw_torch_fused, with --precision bfloat16 "
        "adamw_torch_8bit (stochastic rounding)",
        "NAME",
    )
    seed: int = _flag(0, "seed of the data order and the probe set", "N")
    seeds: int = _flag(1, "repeat every setting with this many seeds", "N")

    def __post_init__(self) -> None:
        _require_positive(self, "steps", "batch_size", "micro_batch_size", "learning_rate", "seeds")
        _require(0 <= self.warmup_ratio <= 1, "warmup_ratio", self.warmup_ratio, "between 0 and 1")
        _require_positive(self, "max_grad_norm")
        if self.batch_size and self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise InputError(
                f"--micro-batch-size {self.micro_batch_size}: must divide --batch-size {self.batch_size}"
            )


@dataclass(frozen=True)
class DataSettings:
    """Which pairs, and how they become tokens."""

    data: tuple[str, ...] = _flag(
        (), "preference pairs (prompt, chosen, rejected): JSONL, JSON, Parquet, CSV or a hub id", "FILE"
    )
    max_prompt_tokens: int | None = _flag(
        None, "prompts keep their last N tokens; default half the context, at most 1024", "N"
    )
    max_response_tokens: int | None = _flag(
        None, "responses keep their first N tokens; default half the context, at most 1024", "N"
    )
    no_end_token: bool = _flag(False, "do not append the end token to responses")
    chat_template: str | None = _flag(None, "chat template for a tokenizer without one: a file or text", "T")
    skip_bad_rows: bool = _flag(False, "skip malformed rows and count them, instead of stopping")

    def __post_init__(self) -> None:
        _require_positive(self, "max_prompt_tokens", "max_response_tokens")


@dataclass(frozen=True)
class ProbingSettings:
    """What is measured, and how often."""

    probe_pairs: int = _flag(64, "size of the fixed probe set", "N")
    probe_every: int = _flag(1, "measure the probe set every K steps", "K")
    probe_in_training: bool = _flag(False, "let the probe pairs be trained on as well")
    probe_responses: tuple[str, ...] = _flag(
        (), "further columns that hold responses to measure on the probe set", "COLUMN"
    )

    geometry_every: int | None = _flag(
        None, "measure gradient overlaps and CHES of the probe pairs every K steps", "K"
    )
    sample_every: int | None = _flag(None, "sample responses every K steps: KL to the reference, gold", "K")
    samples: int = _flag(256, "responses sampled each time, over the prompts of the probe set", "N")
    best_of: int = _flag(16, "samples per prompt at step 0, for the best-of-n baseline", "N")
    gold: str | None = _flag(
        None,
        "gold reward, a function of prompt and response; the embedded task has its own",
        "MODULE:FUNCTION",
    )
    gold_model: str | None = _flag(None, "gold reward from a reward-model checkpoint", "PATH")

    def __post_init__(self) -> None:
        _require_positive(
            self, "probe_pairs", "probe_every", "geometry_every", "sample_every", "samples", "best_of"
        )
        if self.gold and self.gold_model:
            raise InputError("--gold and --gold-model: give one of them, not both")
        if (self.gold or self.gold_model) and self.sample_every is None:
            raise InputError("--gold and --gold-model score samples: add --sample-every K")


@dataclass(frozen=True)
class ModelSettings:
    """Where the policy comes from, and how it fits."""

    precision: str = _flag(
        "float32", "float32; mixed (float32 weights, bfloat16 compute); bfloat16 weights", choices=PRECISIONS
    )
    lora_rank: int | None = _flag(
        None, "train LoRA adapters of this rank on all linear layers instead of the weights (α = 2R)", "R"
    )
    gradient_checkpointing: bool = _flag(False, "recompute activations in the backward pass")
    attention: str = _flag("sdpa", "attention of transformers", choices=ATTENTIONS)
    allow_pickle: bool = _flag(False, "load pickled weights, which can run code; safetensors needs no leave")
    trust_remote_code: bool = _flag(False, "run the model code that a checkpoint brings along")

    def __post_init__(self) -> None:
        _require_positive(self, "lora_rank")


@dataclass(frozen=True)
class OutputSettings:
    """Files and what is said on the terminal."""

    output: str | None = _flag(None, "folder of the run; default runs/NAME, a new one each time", "DIR")
    resume: bool = _flag(False, "continue the run in --output with its own settings")
    checkpoint_every: int | None = _flag(None, "steps between checkpoints; default a fifth of --steps", "K")
    keep_checkpoints: int = _flag(1, "how many of the newest checkpoints stay", "N")
    report_to: str = _flag("none", "also send every step to a tracker", choices=TRACKERS)
    quiet: bool = _flag(False, "no progress, no table")
    json: bool = _flag(False, "print the final table as JSON, and nothing else")
    dry_run: bool = _flag(False, "print the plan and stop")

    def __post_init__(self) -> None:
        _require_positive(self, "checkpoint_every", "keep_checkpoints")
        if self.resume and self.output is None:
            raise InputError("--resume: say which run with --output DIR")


GROUPS = (ObjectiveSettings, TrainingSettings, DataSettings, ProbingSettings, ModelSettings, OutputSettings)
# A resumed run may change these; everything else would make it another run.
CHANGEABLE = {
    "probe_every", "checkpoint_every", "keep_checkpoints", "quiet", "json", "dry_run", "resume", "output",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """All settings of one command: one run, or the grid that several values of a parameter span."""

    checkpoint: str | None = None
    objective: ObjectiveSettings = ObjectiveSettings()
    training: TrainingSettings = TrainingSettings()
    data: DataSettings = DataSettings()
    probing: ProbingSettings = ProbingSettings()
    model: ModelSettings = ModelSettings()
    output: OutputSettings = OutputSettings()

    def as_dict(self) -> dict[str, Any]:
        """Flat, JSON-able: what the manifest holds and `from_dict` reads."""
        flat = {"checkpoint": self.checkpoint}
        for group in _group_names().values():
            flat |= dataclasses.asdict(getattr(self, group))
        return flat

    @classmethod
    def from_dict(cls, flat: Mapping[str, Any]) -> Settings:
        groups = {}
        for group_class, name in _group_names().items():
            kinds = get_type_hints(group_class)
            values = {f.name: flat[f.name] for f in fields(group_class) if f.name in flat}
            groups[name] = group_class(
                **{
                    key: tuple(value) if get_origin(kinds[key]) is tuple else value
                    for key, value in values.items()
                }
            )
        return cls(checkpoint=flat.get("checkpoint"), **groups)

    def replace(self, **changes: Any) -> Settings:
        return Settings.from_dict({**self.as_dict(), **changes})


def _group_names() -> dict[type, str]:
    return {cls: cls.__name__.removesuffix("Settings").lower() for cls in GROUPS}


# --- the command line -------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one ``error:`` line and exit status 2."""

    def error(self, message: str) -> Any:
        raise InputError(f"{message} (see --help)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one flag per setting, grouped by concern."""
    parser.add_argument(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="causal-LM folder or hub id; default the embedded model",
    )
    for cls in GROUPS:
        group = parser.add_argument_group((cls.__doc__ or "").rstrip("."))
        kinds = get_type_hints(cls)
        for f in fields(cls):
            group.add_argument(f"--{f.name.replace('_', '-')}", **_argument(f, kinds[f.name]))


def _argument(f: dataclasses.Field[Any], kind: Any) -> dict[str, Any]:
    shown = f" (default {f.default})" if f.default not in (None, False, ()) else ""
    arguments: dict[str, Any] = {"help": f.metadata["help"] + shown, "default": argparse.SUPPRESS}
    if kind is bool:
        return arguments | {"action": "store_true"}
    several = get_origin(kind) is tuple
    plain = next(t for t in (get_args(kind) or (kind,)) if t is not type(None))
    arguments |= {"type": plain, "metavar": f.metadata["metavar"], "choices": f.metadata["choices"]}
    return arguments | ({"nargs": "+"} if several else {})


def parse(argv: Sequence[str] | None = None, prog: str = "python -m rewardshape.probe") -> Settings:
    """Settings from a command line; with ``--resume`` the recorded ones, changed only where that is harmless."""
    parser = Parser(
        prog=prog,
        usage="%(prog)s [CHECKPOINT] [--data FILE ...] [--alpha A ...] [flags]",
        description=DESCRIPTION,
        epilog=EPILOG.format(objectives=_listed(objective_names()), presets=_listed(preset_names())),
        formatter_class=_Formatter,
    )
    add_arguments(parser)
    given = vars(parser.parse_args(argv))
    if given.get("resume") and given.get("output") is not None:
        from rewardshape.probe.manifest import recorded_settings

        recorded = recorded_settings(Path(given["output"])).as_dict()
        for name, value in given.items():
            value = tuple(value) if isinstance(value, list) else value
            if name not in CHANGEABLE and value is not None and value != recorded[name]:
                raise InputError(
                    f"--{name.replace('_', '-')}: cannot change on --resume, the run was started with "
                    f"{recorded[name]}; leave it out, or start a new run"
                )
        given = {**recorded, **{name: value for name, value in given.items() if name in CHANGEABLE}}
    return complete(Settings.from_dict(given), set(given))


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)


DESCRIPTION = """\
Train a language model on preference pairs and log what happens to chosen and rejected log-probs at every step.
Without CHECKPOINT: the embedded model and task, a sweep over α that takes a few minutes on two cores."""

EPILOG = """\
examples
  %(prog)s
      the embedded model, four values of α
  %(prog)s ./my-model --data pairs.jsonl --alpha 0 0.25 --steps 100
      your checkpoint and pairs, two runs to compare: α = 0 is SimPO, α = 0.25 AlphaPO
  %(prog)s ./my-model --data pairs.parquet --objective dpo --beta 0.1
      DPO; the untouched checkpoint is the reference
  %(prog)s ./my-model --data pairs.jsonl --preset alphapo/mistral-7b-instruct
      a published setting
  %(prog)s ./my-model --data pairs.jsonl --alpha 0.25 --geometry-every 10 --sample-every 10
      also why pairs fall (overlaps of gradients), and what the model now says
  %(prog)s ./my-model --data pairs.jsonl --dry-run
      read the data, print the plan, train nothing
  %(prog)s --resume --output runs/my-model
      go on after an interruption

objectives
{objectives}

presets
{presets}

A run folder holds run.json (the manifest), trace.jsonl (the record), checkpoints/, figures/ and report.html.
Read it in Python with rewardshape.read_trace(folder). Log-probs are in nats; a step is one optimiser update."""


def _listed(names: Sequence[str]) -> str:
    return textwrap.fill(
        ", ".join(names), 108, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )


# --- from settings to runs --------------------------------------------------------------------------------------


def complete(settings: Settings, given: set[str]) -> Settings:
    """Fill in what a preset or the embedded task decides, where no flag was given."""
    if settings.objective.preset:
        published = preset(settings.objective.preset)
        known = {"learning_rate", "batch_size", "schedule", "warmup_ratio"}
        settings = settings.replace(
            **{k: v for k, v in published.training.items() if k in known and k not in given}
        )
    if settings.checkpoint is None:
        if settings.data.data:
            raise InputError(
                "--data: name the CHECKPOINT to train on these pairs; the embedded model has its own"
            )
        defaults = dict(EMBEDDED)
        if {"objective", "preset"} & given:
            defaults = {"learning_rate": EMBEDDED["learning_rate"]}
        if "gamma_beta_ratio" in given:
            defaults.pop("gamma", None)
        if settings.model.lora_rank:
            defaults["learning_rate"] = EMBEDDED_RATE * LORA_RATE
        settings = settings.replace(**{k: v for k, v in defaults.items() if k not in given})
    elif not settings.data.data:
        raise InputError("--data: name the preference pairs to train CHECKPOINT on")
    return settings


def build_objective(settings: ObjectiveSettings) -> Objective:
    """The objective of a single run (every parameter has at most one value).

    What is not given comes from the preset; for an objective without one, from its published setting for
    Mistral-7B-Instruct where there is one, so that ``--alpha 0.25`` says enough.
    """
    given: dict[str, Any] = {
        name: getattr(settings, name)[0]
        for name in ("alpha", "beta", "gamma", "gamma_beta_ratio")
        if getattr(settings, name)
    }
    for item in settings.parameter:
        name, equals, text = item.partition("=")
        if not equals:
            raise InputError(f"--parameter {item}: write NAME=VALUE")
        given[name] = _number_or_text(text)
    name = settings.objective[0] if settings.objective else DEFAULT_OBJECTIVE
    published = settings.preset or DEFAULT_PRESETS.get(name)
    base: dict[str, Any] = {}
    if published:
        name, base = preset(published).objective_name, dict(preset(published).parameters)
    if "gamma" in given:
        base.pop("gamma_beta_ratio", None)
    goal = objective(name, **{**base, **given})
    if missing := set(goal.needs) - MEASURED:
        raise InputError(
            f"--objective {name}: needs {', '.join(sorted(missing))}, which the probe does not measure"
        )
    return goal


def check_batches(goal: Objective, training: TrainingSettings, processes: int) -> None:
    """Refuse to split the batch of an objective whose pairs need each other."""
    if goal.coupled and (processes > 1 or training.micro_batch_size not in (None, training.batch_size)):
        raise InputError(
            f"--objective {goal.name}: its loss couples the pairs of a batch; leave out --micro-batch-size and use "
            "one process"
        )


def _number_or_text(text: str) -> float | str | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def expand(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """The single runs of a grid with their names: the parameters that vary, ``alpha=0.25-seed=1``."""
    axes: dict[str, list[Any]] = {
        name: list(getattr(settings.objective, name)) or [None]
        for name in ("objective", "alpha", "beta", "gamma", "gamma_beta_ratio")
    }
    first = settings.training.seed
    axes["seed"] = list(range(first, first + settings.training.seeds))
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        name = "-".join(
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in point.items()
            if len(axes[key]) > 1
        )
        single = {key: (value,) for key, value in point.items() if value is not None and key != "seed"}
        yield name, settings.replace(**single, seed=point["seed"], seeds=1)

"""Every setting of the probe: one dataclass per concern, checked when made.

A field's name is its keyword in Python and, with dashes, its flag; its help stands beside it. ``None`` means: off, or
left open, and then `rewardshape.probe.grid` decides it by the rule that the help states.

A setting has one value. `Settings.sweep` holds the others of those that have several: together they span a grid.
Long because every setting stands here, once, with its help and its bounds.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from os import PathLike, fspath
from typing import Any, get_args, get_origin, get_type_hints

from rewardshape.data import parse_columns, parse_template_arguments
from rewardshape.errors import InputError, printable
from rewardshape.numbers import typed
from rewardshape.probe.drops import CRITERIA, Drop

SHUFFLED, BY_MARGIN, BY_LENGTH = "shuffled", "margin", "length"
ORDERS = (SHUFFLED, BY_MARGIN, BY_LENGTH, "given")
SCHEDULES = ("constant", "linear", "cosine", "constant_with_warmup")
TRACKERS = ("none", "tensorboard", "wandb", "trackio")
LORA_RATE = 10  # adapters learn at this multiple of the rate that suits the weights
PRECISIONS = ("float32", "mixed", "bfloat16")
ATTENTIONS = ("sdpa", "eager", "flash_attention_2", "flex_attention")
LARGEST_COUNT = 10**15  # of anything: what is larger is a slip of the hand, and no number of a machine
LARGEST = {"samples": 1_000_000, "best_of": 10_000, "lora_rank": 65_536}
LARGEST_SEED = 2**32 - 1  # numpy knows none beyond


def _setting(
    default: Any,
    help: str,
    metavar: str | None = None,
    choices: Sequence[str] | None = None,
    axis: bool = False,
) -> Any:
    """A field with what the command line says of it; an `axis` may have several values, which make a sweep."""
    return field(
        default=default, metadata={"help": help, "metavar": metavar, "choices": choices, "axis": axis}
    )


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise InputError(f"{flag(name)} {value}: must be {wanted}")


def _require_positive(settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        _require(value is None or (math.isfinite(value) and value > 0), name, value, "positive")
        if isinstance(value, int):
            most = LARGEST.get(name, LARGEST_COUNT)
            _require(value <= most, name, value, f"at most {most:,}")


def flag(name: str) -> str:
    """The setting's flag.

    >>> flag("batch_size")
    '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class ObjectiveSettings:
    """What is optimised."""

    objective: str | None = _setting(
        None,
        "what to optimise, from the list below; several make a sweep; default alphapo",
        "NAME",
        axis=True,
    )
    alpha: float | None = _setting(
        None, "shape parameter of the α family; several make a sweep", "A", axis=True
    )
    beta: float | None = _setting(None, "inverse temperature β; several make a sweep", "B", axis=True)
    gamma: float | None = _setting(
        None, "target margin γ in reward units; several make a sweep", "G", axis=True
    )
    gamma_beta_ratio: float | None = _setting(None, "γ/β, the other way to give γ", "R", axis=True)
    add_nll: float | None = _setting(
        None, "add this many times the chosen response's negative log-likelihood per token", "L", axis=True
    )
    parameter: tuple[str, ...] = _setting(
        (), "any other parameter of the objective, NAME=VALUE", "NAME=VALUE"
    )
    preset: str | None = _setting(None, "a published setting such as simpo/mistral-7b-instruct", "NAME")

    def __post_init__(self) -> None:
        for name in ("alpha", "gamma", "gamma_beta_ratio"):
            value = getattr(self, name)
            _require(value is None or math.isfinite(value), name, value, "a finite number")
        _require_positive(self, "beta", "add_nll")
        for item in self.parameter:
            if "=" not in item:
                raise InputError(f"--parameter {item}: write NAME=VALUE")
        if self.gamma is not None and self.gamma_beta_ratio is not None:
            raise InputError("--gamma and --gamma-beta-ratio: give one of them, not both")
        if self.preset and self.objective:
            raise InputError("--preset and --objective: give one of them, a preset names its objective")


@dataclass(frozen=True)
class TrainingSettings:
    """How it is optimised."""

    steps: int = _setting(150, "optimiser steps", "N", axis=True)
    batch_size: int | None = _setting(
        None,
        "pairs per optimiser step, over all devices; default 16, of the embedded task 32",
        "N",
        axis=True,
    )
    micro_batch_size: int | None = _setting(
        None, "pairs per forward pass and device; default: the whole batch", "N", axis=True
    )
    learning_rate: float | None = _setting(
        None,
        "peak learning rate; default 1e-6·√(7e9/parameters), ten times that with LoRA",
        "LR",
        axis=True,
    )
    schedule: str | None = _setting(None, "learning-rate schedule; default cosine", choices=SCHEDULES)
    warmup_ratio: float | None = _setting(
        None, "share of the steps that warm up; default 0.1", "R", axis=True
    )
    max_grad_norm: float = _setting(1.0, "clip the gradient to this norm", "C", axis=True)
    optimizer: str | None = _setting(
        None,
        "any optimiser name of transformers; default adamw_torch_fused, with --precision bfloat16 "
        "adamw_torch_8bit (stochastic rounding)",
        "NAME",
    )
    order: str = _setting(
        SHUFFLED,
        "order of the pairs: shuffled anew every epoch; margin (of the annotator's scores, largest first); length "
        "(shortest first); given",
        choices=ORDERS,
    )
    seed: int = _setting(
        0,
        "seed of the data order, the probe set and the samples; in the embedded task also of its annotator and model",
        "N",
        axis=True,
    )
    seeds: int = _setting(1, "repeat every setting with this many seeds", "N")
    what_if: bool = _setting(
        False,
        "try changes one at a time for a third of the steps, each with two seeds or --seeds, and say what each would "
        "do: the further values of any setting, --drop and --add-nll; by default all ways to drop, a likelihood term "
        "and half the rate",
    )

    def __post_init__(self) -> None:
        _require_positive(
            self, "steps", "batch_size", "micro_batch_size", "learning_rate", "seeds", "max_grad_norm"
        )
        ratio = self.warmup_ratio
        _require(ratio is None or 0 <= ratio <= 1, "warmup_ratio", ratio, "between 0 and 1")
        last = self.seed + self.seeds - 1
        _require(0 <= self.seed and last <= LARGEST_SEED, "seed", self.seed, f"from 0 to {LARGEST_SEED}")
        if self.batch_size and self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise InputError(
                f"--micro-batch-size {self.micro_batch_size}: must divide --batch-size {self.batch_size}"
            )


@dataclass(frozen=True)
class DataSettings:
    """Which pairs, and how they become tokens."""

    data: tuple[str, ...] = _setting(
        (), "preference pairs in any common form: JSONL, JSON, Parquet, CSV, TSV or a hub id", "FILE"
    )
    columns: tuple[str, ...] = _setting(
        (),
        "which column is which where the form is not known: prompt=instruction chosen=good rejected=bad",
        "TARGET=COLUMN",
    )
    max_prompt_tokens: int | None = _setting(
        None, "prompts keep their last N tokens; default half the context, at most 1024", "N"
    )
    max_response_tokens: int | None = _setting(
        None, "responses keep their first N tokens; default half the context, at most 1024", "N"
    )
    no_end_token: bool = _setting(False, "do not append the end token to responses")
    chat_template: str | None = _setting(
        None, "chat template for a tokenizer without one: a file or text", "T"
    )
    template_argument: tuple[str, ...] = _setting(
        (), "an argument of the chat template, as enable_thinking=false", "NAME=VALUE"
    )
    template_opening: str = _setting(
        "response",
        "where tokens count that the chat template puts before a response's content (an empty think block)",
        choices=("response", "prompt"),
    )
    drop: str | None = _setting(
        None,
        f"leave out this share of the training pairs, by {', '.join(CRITERIA)}; several make a sweep",
        "CRITERION=SHARE",
        axis=True,
    )
    skip_bad_rows: bool = _setting(False, "skip malformed rows and count them, instead of stopping")

    def __post_init__(self) -> None:
        _require_positive(self, "max_prompt_tokens", "max_response_tokens")
        if self.drop is not None:
            Drop.read(self.drop)
        parse_columns(self.columns)
        parse_template_arguments(self.template_argument)


@dataclass(frozen=True)
class ProbingSettings:
    """What is measured, and how often."""

    probe_pairs: int = _setting(64, "size of the fixed probe set", "N")
    probe_every: int = _setting(1, "measure the probe set every K steps", "K")
    probe_in_training: bool = _setting(False, "let the probe pairs be trained on as well")
    probe_responses: tuple[str, ...] = _setting(
        (), "further columns that hold responses to measure on the probe set", "COLUMN"
    )

    geometry_every: int | None = _setting(
        None, "measure gradient overlaps and CHES of the probe pairs every K steps", "K"
    )
    destination_every: int | None = _setting(
        None, "measure which tokens gained what chosen and rejected lost, every K steps", "K"
    )
    influence_every: int | None = _setting(
        None, "measure which training pairs push the probe set's chosen responses down, every K steps", "K"
    )
    sample_every: int | None = _setting(
        None, "sample responses every K steps: KL to the reference, gold", "K"
    )
    samples: int = _setting(256, "responses sampled each time, over the prompts of the probe set", "N")
    sample_temperatures: tuple[float, ...] = _setting(
        (1.0, 0.0), "sample at each of these temperatures; 0 is greedy decoding, one answer a prompt", "T"
    )
    best_of: int = _setting(16, "samples per prompt at step 0, for the best-of-n baseline", "N")
    gold: str | None = _setting(
        None,
        "gold reward, a function of prompt and response; the embedded task has its own",
        "MODULE:FUNCTION",
    )
    gold_model: str | None = _setting(None, "gold reward from a reward-model checkpoint", "PATH")

    def __post_init__(self) -> None:
        _require_positive(
            self, "probe_pairs", "probe_every", "geometry_every", "destination_every", "influence_every",
            "sample_every", "samples", "best_of",
        )  # fmt: skip
        temperatures = self.sample_temperatures
        for value in temperatures:
            _require(math.isfinite(value) and value >= 0, "sample_temperatures", value, "at least 0")
        if 1.0 not in temperatures or len(set(temperatures)) < len(temperatures):
            raise InputError(
                f"--sample-temperatures {' '.join(map(typed, temperatures))}: each once, and 1 among them: KL and "
                "best-of-n are of the policy itself"
            )
        if self.gold and self.gold_model:
            raise InputError("--gold and --gold-model: give one of them, not both")
        if (self.gold or self.gold_model) and self.sample_every is None:
            raise InputError("--gold and --gold-model score samples: add --sample-every K")


@dataclass(frozen=True)
class ModelSettings:
    """Where the policy comes from, and how it fits."""

    precision: str = _setting(
        "float32", "float32; mixed (float32 weights, bfloat16 compute); bfloat16 weights", choices=PRECISIONS
    )
    lora_rank: int | None = _setting(
        None,
        "train LoRA adapters of this rank on all linear layers instead of the weights (α = 2R)",
        "R",
        axis=True,
    )
    gradient_checkpointing: bool = _setting(False, "recompute activations in the backward pass")
    attention: str | None = _setting(
        None, "attention of transformers; default: its own choice for the model", choices=ATTENTIONS
    )
    allow_pickle: bool = _setting(
        False, "load pickled weights, which can run code; safetensors needs no leave"
    )
    trust_remote_code: bool = _setting(False, "run the model code that a checkpoint brings along")

    def __post_init__(self) -> None:
        _require_positive(self, "lora_rank")


@dataclass(frozen=True)
class OutputSettings:
    """Files and what is said on the terminal."""

    output: str | None = _setting(None, "folder of the run; default runs/NAME, a new one each time", "DIR")
    resume: bool = _setting(False, "continue the run in --output with its own settings")
    repair: bool = _setting(
        False, "with --resume: cut a damaged record where it is whole no more, and do the rest again"
    )
    checkpoint_every: int | None = _setting(
        None, "steps between checkpoints; default a fifth of --steps", "K"
    )
    keep_checkpoints: int = _setting(1, "how many of the newest checkpoints stay", "N")
    jobs: int = _setting(
        1,
        "run so many runs of a sweep at a time, each in a process of its own, with one GPU each in turn",
        "N",
    )
    report_to: str = _setting("none", "also send every step to a tracker", choices=TRACKERS)
    live: bool = _setting(False, "write report.html while the run goes on; opened once, it refreshes itself")
    quiet: bool = _setting(False, "no progress, no table")
    json: bool = _setting(False, "print the final table as JSON, and nothing else")
    dry_run: bool = _setting(False, "print the plan and stop")

    def __post_init__(self) -> None:
        _require_positive(self, "checkpoint_every", "keep_checkpoints", "jobs")
        if self.output is not None:
            _require(
                self.output != "", "output", "''", "a folder; an empty name would be the folder you are in"
            )
            _require(
                self.output.encode("utf-8", "ignore").decode() == self.output,
                "output",
                printable(self.output),
                "a name in UTF-8",
            )
        if self.resume and self.output is None:
            raise InputError("--resume: say which run with --output DIR")
        if self.repair and not self.resume:
            raise InputError("--repair: goes with --resume --output DIR")


# A resumed run may change these; everything else would make it another run.
CHANGEABLE = {
    "probe_every", "checkpoint_every", "keep_checkpoints", "jobs", "live", "quiet", "json", "dry_run", "resume",
    "repair", "output",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """All settings of one command: of one run, or of the grid that several values of some settings span.

    Attributes
    ----------
    checkpoint : str, optional
        Folder or hub id; None is the embedded model.
    objective, training, data, probing, model, output
        One dataclass per concern.
    sweep : mapping
        Of each setting that has several values, all of them, by name; the setting itself holds the first.

    Examples
    --------
    >>> settings = Settings().replace(alpha=[0, 0.25], steps=100)
    >>> settings.sweep["alpha"], settings.training.steps
    ((0.0, 0.25), 100)
    """

    checkpoint: str | None = None
    objective: ObjectiveSettings = ObjectiveSettings()
    training: TrainingSettings = TrainingSettings()
    data: DataSettings = DataSettings()
    probing: ProbingSettings = ProbingSettings()
    model: ModelSettings = ModelSettings()
    output: OutputSettings = OutputSettings()
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.sweep.items():
            for value in values:
                dataclasses.replace(getattr(self, SETTINGS[name].group), **{name: value})
        if "seed" in self.sweep and self.training.seeds > 1:
            raise InputError("--seed and --seeds: give several of the one, or a number of the other")

    def value(self, name: str) -> Any:
        """What a setting is set to; of a swept one the first of its values."""
        return getattr(getattr(self, SETTINGS[name].group), name)

    def as_dict(self) -> dict[str, Any]:
        """Flat, JSON-able: what the manifest holds and `from_dict` reads; a swept setting is the list of its values."""
        flat: dict[str, Any] = {"checkpoint": self.checkpoint}
        for name in SETTINGS:
            value = self.sweep.get(name, self.value(name))
            flat[name] = list(value) if isinstance(value, tuple) else value
        return flat

    @classmethod
    def from_dict(cls, flat: Mapping[str, Any]) -> Settings:
        """The settings that `as_dict` wrote, or any mapping of names to values.

        Raises
        ------
        InputError
            For a name that is no setting (the nearest one is named), or a value that it cannot have.
        """
        return cls().replace(**flat)

    def replace(self, **changes: Any) -> Settings:
        """The same with other values; several values of a setting that can be swept make a sweep.

        Raises
        ------
        InputError
            For a name that is no setting (the nearest one is named), or a value that it cannot have.
        """
        sweep = {name: values for name, values in self.sweep.items() if name not in changes}
        groups: dict[str, dict[str, Any]] = {}
        checkpoint = self.checkpoint
        for name, given in changes.items():
            if name == "checkpoint":
                if not isinstance(given, str | PathLike | None):
                    raise InputError(
                        f"checkpoint {given!r}: one path or hub id, and no {type(given).__name__}"
                    )
                checkpoint = None if given is None else fspath(given)
                continue
            setting = named(name)
            values = setting.read(given)
            groups.setdefault(setting.group, {})[name] = values[0]
            if len(values) > 1:
                sweep[name] = values
        changed = {
            group: dataclasses.replace(getattr(self, group), **values) for group, values in groups.items()
        }
        return dataclasses.replace(self, checkpoint=checkpoint, sweep=sweep, **changed)


# --- what is known of each setting ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One setting, as its dataclass declares it.

    Attributes
    ----------
    name, group : str
        Of the field, and of the group in `Settings` that has it.
    kind : type
        bool, int, float or str; of a list, that of its items.
    many : bool
        Whether its one value is a list.
    axis : bool
        Whether it may have several values, which make a sweep.
    default : object
    help : str
    metavar : str or None
    choices : sequence of str or None
    """

    name: str
    group: str
    kind: type
    many: bool
    axis: bool
    default: Any
    help: str
    metavar: str | None
    choices: Sequence[str] | None

    def read(self, given: Any) -> tuple[Any, ...]:
        """The setting's values, of its kind: one, or several of an axis.

        Raises
        ------
        InputError
            If it cannot have such a value.
        """
        if self.many:
            items = [given] if isinstance(given, str | PathLike) else list(_iterable(self.name, given))
            return (tuple(self._one(item) for item in items),)
        if not _is_list(given):
            return (self.default if given is None else self._one(given),)
        values = tuple(self._one(item) for item in given)
        if not values:
            return (self.default,)
        if len(values) > 1 and not self.axis:
            raise InputError(f"{flag(self.name)}: takes one value, {len(values)} were given")
        if twice := [value for number, value in enumerate(values) if value in values[:number]]:
            raise InputError(f"{flag(self.name)} {twice[0]}: given twice; the runs of a sweep must differ")
        return values

    def _one(self, value: Any) -> Any:
        read = _READ[self.kind](value)
        if read is None:
            raise InputError(f"{flag(self.name)} {value!r}: must be {_WANTED[self.kind]}")
        if self.choices is not None and read not in self.choices:
            raise InputError(f"{flag(self.name)} {value}: must be one of {', '.join(self.choices)}")
        return read


def named(name: str) -> Setting:
    """The setting of that name; `InputError` with the nearest one where there is none."""
    if name not in SETTINGS:
        [close] = get_close_matches(name, SETTINGS, 1, cutoff=0.0)
        raise InputError(
            f"no setting {name!r}; the nearest is {close!r}, and rewardshape probe --help lists them all"
        )
    return SETTINGS[name]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | range) or getattr(value, "ndim", 0) > 0


def _iterable(name: str, value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise InputError(f"{flag(name)} {value!r}: must be a list of texts")
    return value


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


_READ: dict[type, Any] = {
    bool: lambda value: value if isinstance(value, bool) else None,
    int: _whole,
    float: _number,
    str: lambda value: fspath(value) if isinstance(value, str | PathLike) else None,
}
_WANTED = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}


GROUPS: dict[str, Any] = {
    group.name: type(group.default)
    for group in dataclasses.fields(Settings)
    if group.name not in ("checkpoint", "sweep")
}


def _declared() -> dict[str, Setting]:
    found = {}
    for group, cls in GROUPS.items():
        kinds = get_type_hints(cls)
        for f in dataclasses.fields(cls):
            hint = kinds[f.name]
            many = get_origin(hint) is tuple
            kind = next(kind for kind in (get_args(hint) or (hint,)) if kind not in (type(None), ...))
            found[f.name] = Setting(f.name, group, kind, many, default=f.default, **f.metadata)
    return found


SETTINGS = _declared()

"""From settings to runs: the grid is spanned once, and every open value is decided in one place, `decide`."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rewardshape.data import embedded
from rewardshape.errors import InputError
from rewardshape.numbers import typed
from rewardshape.probe.distributed import here
from rewardshape.probe.drops import CRITERIA, INFLUENCE, Drop
from rewardshape.probe.policy import (
    context_length,
    default_learning_rate,
    default_optimizer,
    load_config,
)
from rewardshape.probe.settings import (
    BY_MARGIN,
    LORA_RATE,
    SETTINGS,
    ModelSettings,
    ObjectiveSettings,
    Settings,
    flag,
)
from rewardshape.probe.what_if import SEEDS, Intervention, base_of, interventions
from rewardshape.theory import MovingReference, Objective, load_objective, objective, preset

DEFAULT_OBJECTIVE = "alphapo"
DEFAULT_ALPHA = 0.25  # of the embedded task, where one setting alone is looked at
DEFAULT_PRESETS = {"alphapo": "alphapo/mistral-7b-instruct", "simpo": "simpo/mistral-7b-instruct"}
MAX_TOKENS = 1024  # default limit of a prompt and of a response, where the model's context allows it
BATCH_SIZE = 16
SCHEDULE, WARMUP_RATIO = "cosine", 0.1
LARGEST_GRID = 10_000  # runs: more were asked by mistake
CHECKPOINTS = 5  # a run without --checkpoint-every makes this many


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a checkpoint before its weights are loaded.

    Attributes
    ----------
    checkpoint : str
        Where it is loaded from.
    config : configuration of transformers
    parameters : int
        Number of its weights, adapters aside.
    """

    checkpoint: str
    config: Any
    parameters: int


@dataclass(frozen=True)
class Decided:
    """What the settings left open, decided. Units and meaning are those of the settings of the same names."""

    max_prompt_tokens: int
    max_response_tokens: int
    batch_size: int
    micro_batch_size: int
    learning_rate: float
    schedule: str
    warmup_ratio: float
    optimizer: str
    checkpoint_every: int


@dataclass(frozen=True)
class PlannedRun:
    """One run of the grid.

    Attributes
    ----------
    name : str
        Of its folder; empty where the command makes one run.
    swept : mapping
        The values that tell it from the grid's other runs, by the names of the settings.
    objective : Objective
    settings : Settings
        Of this run alone, every open value filled in.
    decided : Decided
        The values that were filled in, and those that were given in their place.
    checkpoint : str
        Where its model is loaded from: in the embedded task, which of its models is the seed's.
    intervention : Intervention, optional
        What it tries, of a command with ``--what-if``.
    """

    name: str
    swept: Mapping[str, Any]
    objective: Objective
    settings: Settings
    decided: Decided
    checkpoint: str
    intervention: Intervention | None = None


@dataclass(frozen=True)
class Grid:
    """Everything that a command does.

    Attributes
    ----------
    settings : Settings
        Of the whole command; what all its runs have in common is filled in.
    model : ModelFacts
    runs : list of PlannedRun
    in_memory : tuple of str
        What was given as an object and not by its path: ``checkpoint``, ``data``.
    """

    settings: Settings
    model: ModelFacts
    runs: list[PlannedRun]
    in_memory: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Of the runs, in their order; a single one has an empty name."""
        return [run.name for run in self.runs]


def plan_runs(settings: Settings, checkpoint: str | None = None) -> Grid:
    """The runs that the settings mean.

    Parameters
    ----------
    settings : Settings
    checkpoint : str, optional
        Where the checkpoint is loaded from, where that is not what the settings call it.

    Raises
    ------
    InputError
        For an objective that does not exist or that the probe cannot train, limits that the model's context does not
        hold, a batch that cannot be divided.
    """
    settings = with_task(settings)
    if settings.training.what_if:
        return plan_what_if(settings, checkpoint)
    points = [
        (name, swept, single, build_objective(single.objective)) for name, swept, single in span(settings)
    ]
    model = _model_of(settings, checkpoint)
    processes = here().processes
    runs = [
        plan_run(single, model, made, name=name, swept=swept, processes=processes)
        for name, swept, single, made in points
    ]
    return Grid(in_common(settings, runs), model, runs)


def plan_what_if(settings: Settings, checkpoint: str | None = None) -> Grid:
    """The runs of a command with ``--what-if``: every intervention with every seed."""
    model, base = _model_of(settings, checkpoint), base_of(settings)
    rate = decide(base, model, here().processes).learning_rate
    criteria = [
        name for name in CRITERIA if name != INFLUENCE or has_gradients(build_objective(base.objective))
    ]
    runs = []
    for one in interventions(settings, rate, criteria):
        for seed in seeds_of(settings, fewest=SEEDS):
            single = base.replace(**one.changes, seed=seed, seeds=1)
            name, swept = f"{one.name}-seed={seed}", {**one.changes, "seed": seed}
            planned = plan_run(single, model, name=name, swept=swept, processes=here().processes)
            runs.append(dataclasses.replace(planned, intervention=one))
    return Grid(settings, model, runs)


def _model_of(settings: Settings, checkpoint: str | None) -> ModelFacts:
    return model_facts(checkpoint or settings.checkpoint or str(embedded.checkpoint_path()), settings.model)


def plan_run(
    settings: Settings,
    model: ModelFacts,
    made: Objective | None = None,
    *,
    name: str = "",
    swept: Mapping[str, Any] | None = None,
    processes: int = 1,
) -> PlannedRun:
    """The run of settings that have one value each; `made` is their objective, where it is built already."""
    made = build_objective(settings.objective) if made is None else made
    decided = decide(settings, model, processes)
    drop = settings.data.drop
    at_start = [f"--drop {drop}"] if drop is not None and Drop.read(drop).criterion == INFLUENCE else []
    along = [flag(name) for name in ("geometry_every", "influence_every") if getattr(settings.probing, name)]
    for asked in [*at_start, *along]:
        if not has_gradients(made):
            raise InputError(
                f"{asked}: takes gradients of scores that are functions of a response's summed log-prob; those of "
                f"{made.name} are not"
            )
    for asked in along:
        if isinstance(made, MovingReference):
            raise InputError(
                f"{asked}: weighs pairs against the untouched model; the reference of {made.name} moves"
            )
    if made.coupled and (processes > 1 or decided.micro_batch_size != decided.batch_size):
        raise InputError(
            f"--objective {made.name}: its loss couples the pairs of a batch; leave out --micro-batch-size and use "
            "one process"
        )
    filled = settings.replace(**_recorded(decided))
    first = settings.checkpoint is not None or settings.training.seed == 0
    checkpoint = model.checkpoint if first else str(embedded.checkpoint_path(settings.training.seed))
    return PlannedRun(name, dict(swept or {}), made, filled, decided, checkpoint)


def has_gradients(objective: Objective) -> bool:
    """Whether each score is a function of its own response's summed log-prob, so that it has a gradient of its own."""
    return objective.sums_suffice and objective.alone


def decide(settings: Settings, model: ModelFacts, processes: int) -> Decided:
    """Every value that the settings left open: as given, else of the embedded task, of the preset, or by default."""
    training, data = settings.training, settings.data
    published: Mapping[str, Any] = (
        preset(settings.objective.preset).training if settings.objective.preset else {}
    )
    usual = BATCH_SIZE if settings.checkpoint else embedded.DEFAULTS["batch_size"]
    batch_size = training.batch_size or published.get("batch_size", usual)
    prompt, response = token_limits(
        data.max_prompt_tokens, data.max_response_tokens, context_length(model.config)
    )
    return Decided(
        max_prompt_tokens=prompt,
        max_response_tokens=response,
        batch_size=batch_size,
        micro_batch_size=_micro_batch_size(training.micro_batch_size, batch_size, processes),
        learning_rate=training.learning_rate or _learning_rate(settings, model, published),
        schedule=training.schedule or published.get("schedule", SCHEDULE),
        warmup_ratio=published.get("warmup_ratio", WARMUP_RATIO)
        if training.warmup_ratio is None
        else training.warmup_ratio,
        optimizer=training.optimizer or default_optimizer(settings.model),
        checkpoint_every=settings.output.checkpoint_every or -(-training.steps // CHECKPOINTS),
    )


def token_limits(prompt: int | None, response: int | None, context: int) -> tuple[int, int]:
    """Most tokens of a prompt and of a response: as given, else half the context, at most 1024."""
    given = {"--max-prompt-tokens": prompt, "--max-response-tokens": response}
    if prompt is None:
        prompt = min(MAX_TOKENS, context - response if response else context // 2)
    if response is None:
        response = min(MAX_TOKENS, context - prompt)
    if prompt < 1 or response < 1 or prompt + response > context:
        flags = " and ".join(f"{flag} {value}" for flag, value in given.items() if value is not None)
        raise InputError(
            f"{flags}: prompt and response together must fit the model's context of {context} tokens"
        )
    return prompt, response


def _micro_batch_size(given: int | None, batch_size: int, processes: int) -> int:
    micro = given or max(1, batch_size // processes)
    if batch_size % (micro * processes):
        raise InputError(
            f"--batch-size {batch_size}: must be a multiple of {processes} processes × --micro-batch-size {micro}"
        )
    return micro


def _learning_rate(settings: Settings, model: ModelFacts, published: Mapping[str, Any]) -> float:
    if settings.checkpoint is None:
        return embedded.DEFAULTS["learning_rate"] * (LORA_RATE if settings.model.lora_rank else 1)
    return published.get("learning_rate") or default_learning_rate(model.parameters, settings.model)


def _recorded(decided: Decided) -> dict[str, Any]:
    """What is written into the settings: all but the micro-batch, which another number of devices decides anew."""
    return {name: value for name, value in asdict(decided).items() if name != "micro_batch_size"}


def in_common(settings: Settings, runs: list[PlannedRun]) -> Settings:
    """The settings with every open value filled in on which all runs agree."""
    flat = settings.as_dict()
    agreed = {
        name: value
        for name, value in _recorded(runs[0].decided).items()
        if flat[name] is None and all(getattr(run.decided, name) == value for run in runs)
    }
    return settings.replace(**agreed)


def model_facts(checkpoint: str, settings: ModelSettings) -> ModelFacts:
    """What is known of a checkpoint from its configuration alone."""
    config = load_config(checkpoint, settings)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, trust_remote_code=settings.trust_remote_code)
    return ModelFacts(checkpoint, config, sum(weight.numel() for weight in empty.parameters()))


# --- what is optimised ------------------------------------------------------------------------------------------


def with_task(settings: Settings) -> Settings:
    """The settings with the embedded task's own sweep over α, where that is what runs and nothing else was asked."""
    given = settings.objective
    if settings.checkpoint is not None:
        if not settings.data.data:
            raise InputError("--data: name the preference pairs to train CHECKPOINT on")
        return settings
    if settings.data.data:
        raise InputError(
            "--data: name the CHECKPOINT to train on these pairs; the embedded model has its own"
        )
    if given.objective or given.preset:
        return settings
    own = {name: embedded.DEFAULTS[name] for name in ("alpha", "beta", "gamma")}
    if settings.training.what_if:
        own["alpha"] = DEFAULT_ALPHA
    if given.gamma_beta_ratio is not None:
        del own["gamma"]
    return settings.replace(**{name: value for name, value in own.items() if getattr(given, name) is None})


def scores_asked_by(grid: Grid) -> list[str]:
    """The flags of a command's runs that need an annotator's scores."""
    asked = [
        flag
        for run in grid.runs
        for flag, needed in (
            (f"--objective {run.objective.name}", "label" in run.objective.needs),
            (f"--order {BY_MARGIN}", run.settings.training.order == BY_MARGIN),
        )
        if needed
    ]
    return list(dict.fromkeys(asked))


def build_objective(settings: ObjectiveSettings) -> Objective:
    """The objective of a single run.

    What is not given comes from the preset; for an objective without one, from its published setting for
    Mistral-7B-Instruct where there is one, so that ``--alpha 0.25`` says enough.
    """
    given: dict[str, Any] = {
        name: value
        for name in ("alpha", "beta", "gamma", "gamma_beta_ratio")
        if (value := getattr(settings, name)) is not None
    }
    for item in settings.parameter:
        name, _, text = item.partition("=")
        if name in given:
            raise InputError(f"--parameter {item}: {name} is given already; keep one")
        given[name] = _number_or_text(text)
    name = settings.objective or DEFAULT_OBJECTIVE
    published = settings.preset or DEFAULT_PRESETS.get(name)
    base: dict[str, Any] = {}
    if published:
        name, base = preset(published).objective_name, dict(preset(published).parameters)
    if "gamma" in given:
        base.pop("gamma_beta_ratio", None)
    make = load_objective if ":" in name else objective
    made = make(name, **{**base, **given})
    return made if settings.add_nll is None else made + settings.add_nll * objective("sft")


def _number_or_text(text: str) -> float | str | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


# --- the grid ---------------------------------------------------------------------------------------------------


def seeds_of(settings: Settings, *, fewest: int = 1) -> Sequence[int]:
    """The seeds of a command: those given, or as many as asked from the first on."""
    first, asked = settings.training.seed, settings.training.seeds
    several: Sequence[int] = settings.sweep.get("seed", range(first, first + max(asked, fewest)))
    return several


def span(settings: Settings) -> Iterator[tuple[str, dict[str, Any], Settings]]:
    """The single runs of a grid: name, the values that vary (``alpha=0.25-seed=1``), and settings of one value each."""
    axes: dict[str, Sequence[Any]] = {
        name: settings.sweep[name] for name in SETTINGS if name in settings.sweep and name != "seed"
    }
    seeds = seeds_of(settings)
    if len(seeds) > 1:
        axes["seed"] = seeds
    if (number := math.prod(map(len, axes.values()))) > LARGEST_GRID:
        raise InputError(
            f"a sweep of {number:,} runs: at most {LARGEST_GRID:,}; give fewer values or --seeds"
        )
    for values in itertools.product(*axes.values()):
        swept = dict(zip(axes, values, strict=True))
        name = "-".join(f"{key}={typed(value)}" for key, value in swept.items())
        yield name, swept, settings.replace(**swept, seeds=1)

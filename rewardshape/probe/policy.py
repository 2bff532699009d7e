"""The policy: a causal language model from a checkpoint, ready to be trained and measured.

Dropout and the noise of routers are off: a recorded log-probability must not depend on chance, and the policy that is
updated must be the policy that is measured. So all that lies below the layers stays in evaluation mode for good.

A checkpoint is a folder in Hugging Face layout, a hub id, a LoRA adapter (also one of our own), whose base is found and
into which it is merged, or a GGUF file, which transformers reads into ordinary weights.

Three precisions. ``float32``. ``mixed``: float32 weights, bfloat16 compute. ``bfloat16``: weights too, and an
optimiser that rounds stochastically, since an update at the usual learning rates is smaller than half the distance
to the next bfloat16 number and rounding to nearest would lose it. LoRA adapters are float32 in every precision.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.training_args import OptimizerNames

from rewardshape.data.sources import is_hub_id
from rewardshape.errors import InputError, printable
from rewardshape.probe.settings import LORA_RATE, ModelSettings

STOCHASTIC = "adamw_torch_8bit"
TORCHAO = ("adamw_torch_4bit", STOCHASTIC)
ADAPTER_FILE = "adapter_config.json"
WHOLE = ("model*.safetensors", "pytorch_model*.bin")  # the files of a model's own weights
OF_TORCHTUNE = "adapter_model.pt"  # which saves an adapter beside weights that have it already
OTHER_MODEL = "the weights are of another model than the configuration; save both anew with save_pretrained"
DTYPES = {"float32": torch.float32, "mixed": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Parts:
    """Where the parts of a checkpoint lie: the base model, the file in it where it is GGUF, and an adapter."""

    base: str
    gguf: str | None = None
    adapter: str | None = None


def parts_of(checkpoint: str) -> Parts:
    """What a checkpoint is made of.

    Raises
    ------
    InputError
        An adapter whose base is not there; a folder with several GGUF files.
    """
    folder = Path(checkpoint)
    if folder.is_file() and folder.suffix == ".gguf":
        return Parts(str(folder.parent), gguf=folder.name)
    if not folder.is_dir():
        return Parts(checkpoint)
    has_config, has_adapter = (folder / "config.json").is_file(), (folder / ADAPTER_FILE).is_file()
    has_weights = has_config and any(file for form in WHOLE for file in folder.glob(form))
    if has_adapter and not (has_weights and (folder / OF_TORCHTUNE).is_file()):
        return Parts(checkpoint if has_weights else _base_of(folder), adapter=checkpoint)
    files = sorted(folder.glob("*.gguf"))
    if has_config or not files:
        return Parts(checkpoint)
    if len(files) > 1:
        raise InputError(f"{checkpoint}: {len(files)} GGUF files; name one, as {files[0]}")
    return Parts(checkpoint, gguf=files[0].name)


def _base_of(folder: Path) -> str:
    """The base that an adapter names: a path as it stands, or beside the adapter, or a hub id."""
    try:
        name = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))["base_model_name_or_path"]
        beside = folder / str(name)
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder}: a LoRA adapter whose {ADAPTER_FILE} names no base model") from None
    if Path(name).exists():
        return str(name)
    if beside.exists():
        return str(beside)
    if is_hub_id(str(name)):
        return str(name)
    raise InputError(
        f"{folder}: a LoRA adapter of {name}, which is not there; put the base in that place, or merge the "
        "adapter into it and give the merged model"
    )


def load_tokenizer(checkpoint: str, settings: ModelSettings) -> Any:
    """The checkpoint's tokenizer, that of the base where an adapter has none; `InputError` where there is none."""
    parts = parts_of(checkpoint)
    if (
        parts.adapter
        and parts.base != checkpoint
        and not (Path(checkpoint) / "tokenizer_config.json").is_file()
    ):
        return load_tokenizer(parts.base, settings)
    place = parts.base if parts.gguf else checkpoint
    try:
        return AutoTokenizer.from_pretrained(
            place, trust_remote_code=settings.trust_remote_code, **_gguf(checkpoint, parts)
        )
    except InputError:
        raise
    except Exception as error:
        raise _unusable(checkpoint, "tokenizer", error) from error


def load_config(checkpoint: str, settings: ModelSettings) -> Any:
    """The checkpoint's configuration, with every dropout rate and every noise of a router set to zero.

    Raises
    ------
    InputError
        No configuration, or one of no causal language model.
    """
    parts = parts_of(checkpoint)
    if parts.adapter and parts.base != checkpoint:
        return load_config(parts.base, settings)
    try:
        config = AutoConfig.from_pretrained(
            parts.base, trust_remote_code=settings.trust_remote_code, **_gguf(checkpoint, parts)
        )
    except InputError:
        raise
    except Exception as error:
        raise _unusable(checkpoint, "configuration", error) from error
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"{checkpoint}: {config.model_type} is an encoder and a decoder; give a causal language model"
        )
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not remote:
        raise InputError(
            f"{checkpoint}: {config.model_type} is no causal language model that transformers knows"
        )
    leave_nothing_to_chance(config)
    return config


def leave_nothing_to_chance(config: Any) -> None:
    """Set every dropout rate and every noise of a router to zero."""
    text = config.get_text_config()
    for name, value in vars(text).items():
        if ("drop" in name or "jitter" in name) and isinstance(value, float):
            setattr(text, name, 0.0)


def vocabulary_size(checkpoint: str, settings: ModelSettings) -> int | None:
    """How many token ids the model embeds; None where its configuration does not say."""
    return getattr(load_config(checkpoint, settings).get_text_config(), "vocab_size", None)


def load_policy(checkpoint: str, settings: ModelSettings) -> PreTrainedModel:
    """The checkpoint's weights in the precision asked for, adapters merged.

    Raises
    ------
    InputError
        If the folder has no safetensors weights (a pickle is refused unless asked for), or weights are missing
        from them: transformers would fill those with noise.
    """
    model = _loaded(checkpoint, settings)
    with torch.no_grad():
        # Weights of its own: safetensors maps the file, and a file written over would change under a running model.
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
    return made_ready(model, settings)


def _loaded(checkpoint: str, settings: ModelSettings) -> Any:
    parts = parts_of(checkpoint)
    if parts.adapter and parts.base != checkpoint:
        return _merged(_loaded(parts.base, settings), checkpoint, settings)
    config = load_config(checkpoint, settings)
    try:
        with _without_adapter(parts) as folder:
            loading: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=DTYPES[settings.precision],
                attn_implementation=settings.attention,
                use_safetensors=None if settings.allow_pickle or parts.gguf else True,
                trust_remote_code=settings.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # said below, with their names
                **_gguf(checkpoint, parts),
            )
    except InputError:
        raise
    except Exception as error:
        raise _unusable(checkpoint, "weights", error) from error
    model, loaded = loading
    _check_loaded(checkpoint, model, loaded)
    model.config._name_or_path = checkpoint
    if parts.gguf:
        _dequantized(model)
    return _merged(model, checkpoint, settings) if parts.adapter else model


def _check_loaded(checkpoint: str, model: Any, loaded: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of the model that the configuration describes, or no numbers."""

    def refuse(what: str, first: object, then: str) -> NoReturn:
        raise InputError(f"{checkpoint}: {what}, the first is {first}; {then}")

    if mismatched := sorted(loaded["mismatched_keys"]):
        name, shape, due = mismatched[0]
        first = f"{name}, {tuple(shape)} where {tuple(due)} belongs"
        refuse(f"{len(mismatched)} weights have another shape than config.json says", first, OTHER_MODEL)
    if missing := sorted(loaded["missing_keys"]):
        refuse(
            f"{len(missing)} weights are missing from the checkpoint",
            missing[0],
            "training would start from noise",
        )
    alike = {_any_layer(name) for name, _ in model.named_parameters()}
    unused = sorted(loaded["unexpected_keys"])
    if deeper := [name for name in unused if _any_layer(name) in alike]:
        refuse(f"config.json says nothing of {len(deeper)} weights of further layers", deeper[0], OTHER_MODEL)
    if unused:
        warnings.warn(
            f"{checkpoint}: {len(unused)} weights are no part of the language model and are left out, the first is "
            f"{printable(unused[0])}",
            stacklevel=2,
        )
    broken = [
        name for name, w in model.named_parameters() if w.is_floating_point() and not bool(w.isfinite().all())
    ]
    if broken:
        refuse(
            f"{len(broken)} weights hold NaN or infinity",
            broken[0],
            "the checkpoint is of a run that diverged",
        )


def _any_layer(name: str) -> str:
    """The name of a weight without the number of its layer."""
    return re.sub(r"\.\d+\.", ".#.", name)


def _dequantized(model: Any) -> None:
    """Ordinary weights, which a GGUF file's are once read: they are trained and saved as such."""
    model.is_quantized = False
    for holder, name in (
        (model, "hf_quantizer"),
        (model, "quantization_method"),
        (model.config, "quantization_config"),
    ):
        if hasattr(holder, name):
            delattr(holder, name)


@contextmanager
def _without_adapter(parts: Parts) -> Iterator[str]:
    """The base alone: transformers would load the adapter too, and a new one would take its place."""
    if not (Path(parts.base) / ADAPTER_FILE).is_file():
        yield parts.base
        return
    with TemporaryDirectory() as folder:
        for file in Path(parts.base).iterdir():
            if not file.name.startswith("adapter_"):
                (Path(folder) / file.name).symlink_to(file.resolve())
        yield folder


def _merged(model: Any, adapter: str, settings: ModelSettings) -> Any:
    """The base with the adapter's updates added to its weights."""
    if find_spec("peft") is None:
        raise InputError(f"{adapter}: a LoRA adapter, which needs peft; pip install 'rewardshape[gpu]'")
    from peft import PeftModel

    if not (Path(adapter) / "adapter_model.safetensors").is_file() and not settings.allow_pickle:
        raise InputError(
            f"{adapter}: there is no adapter_model.safetensors in it; a pickled adapter can run code, say "
            "--allow-pickle to load one"
        )
    try:
        merged: Any = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except Exception as error:
        raise _unusable(adapter, "adapter", error) from error
    merged.config._name_or_path = adapter
    return merged.requires_grad_(True)


def _gguf(checkpoint: str, parts: Parts) -> dict[str, str]:
    if not parts.gguf:
        return {}
    if find_spec("gguf") is None:
        raise InputError(f"{checkpoint}: a GGUF file, which needs gguf; pip install 'rewardshape[gguf]'")
    return {"gguf_file": parts.gguf}


def made_ready(model: Any, settings: ModelSettings) -> Any:
    """Without dropout, noise and cache; with checkpointed layers and adapters where asked for."""
    hold_still(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        # The newer name where it exists: transformers renamed it in 5.20 and warns of the old one.
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
    return with_adapters(model, settings.lora_rank) if settings.lora_rank else model


def hold_still(model: torch.nn.Module) -> None:
    """Keep in evaluation mode, for good, all that only chance needs to be told of training.

    Routers of some mixtures of experts sample, or shake their inputs, in training mode (Phi-3.5-MoE, Mixtral with
    jitter). Only what checkpoints its activations, and what such modules lie in, must know the mode.
    """
    told = {
        name
        for name, module in model.named_modules()
        if isinstance(module, GradientCheckpointingLayer) or hasattr(module, "gradient_checkpointing")
    }
    told |= {name[:end] for name in told for end in range(len(name)) if name[end] == "."} | {""}
    for name, module in model.named_modules():
        if name not in told:
            module.eval()
            module.train = partial(_stay, module)  # type: ignore[method-assign]


def _stay(module: torch.nn.Module, mode: bool = True) -> torch.nn.Module:
    return module


def with_adapters(model: PreTrainedModel, rank: int) -> Any:
    """The model frozen, with a trainable LoRA adapter on every linear layer but the output projection.

    The adapter's scale α is 2·rank, so the update is 2·BA, as in TRL's defaults (rank 16, α 32). A fresh adapter
    changes nothing: B is zero.
    """
    if find_spec("peft") is None:
        raise InputError("--lora-rank: needs peft; pip install 'rewardshape[gpu]'")
    from peft import LoraConfig, get_peft_model

    # No dropout: what is updated is what is measured.
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


BEGUN_WITH = "ref"
"""TRL's name for a copy of the adapter that a training begins with."""


@contextmanager
def untouched(policy: Any) -> Iterator[Any]:
    """A policy with adapters as it was before training: with those that it began with, or with none."""
    if BEGUN_WITH not in policy.peft_config:
        with policy.disable_adapter():
            yield policy
        return
    trained = policy.active_adapter
    policy.set_adapter(BEGUN_WITH)
    try:
        yield policy
    finally:
        policy.set_adapter(trained)


def context_length(config: Any) -> int:
    """Tokens the model can read at once; a large number where the configuration states no limit."""
    limits = (
        getattr(config.get_text_config(), name, None) for name in ("max_position_embeddings", "n_positions")
    )
    return next((int(limit) for limit in limits if limit), 1 << 20)


def default_learning_rate(parameters: int, settings: ModelSettings) -> float:
    """1e-6·√(7e9/parameters), two digits: the published rates of 7B models, larger for smaller models.

    Ten times that for LoRA. A rule of thumb that makes a first run move; the published settings are presets.
    """
    rate = 1e-6 * math.sqrt(7e9 / parameters) * (LORA_RATE if settings.lora_rank else 1)
    return float(f"{rate:.1e}")


def default_optimizer(settings: ModelSettings) -> str:
    """AdamW; where the trained weights are bfloat16, torchao's, which rounds stochastically and has 8-bit state."""
    return STOCHASTIC if rounds_stochastically(settings) else "adamw_torch_fused"


def rounds_stochastically(settings: ModelSettings) -> bool:
    """Whether the weights that are trained are bfloat16."""
    return settings.precision == "bfloat16" and not settings.lora_rank


def check_optimizer(name: str, settings: ModelSettings) -> str:
    """What is worth saying about this optimiser at this precision; `InputError` where it cannot be had."""
    known = [str(kind.value) for kind in OptimizerNames]
    if name not in known:
        nearest = get_close_matches(name, known, 3) or ["adamw_torch", "sgd"]
        raise InputError(
            f"--optimizer {name}: transformers knows none of this name; try {', '.join(nearest)}"
        )
    if name in TORCHAO and find_spec("torchao") is None:
        raise InputError(
            f"--optimizer {name}: needs torchao, without which bfloat16 weights cannot be trained; "
            "pip install 'rewardshape[gpu]'"
        )
    if not rounds_stochastically(settings):
        return ""
    if name in TORCHAO:
        return f"bfloat16 weights are updated by {name} with stochastic rounding"
    return (
        f"bfloat16 weights are updated by {name}, which rounds to nearest: updates below 1/512 of a weight are "
        f"lost; --optimizer {STOCHASTIC} keeps them"
    )


def _unusable(checkpoint: str, part: str, error: Exception) -> InputError:
    folder = Path(checkpoint)
    if not folder.exists():
        reason = "no such folder, and it could not be had from the hub"
    elif not (folder / "config.json").is_file():
        reason = "there is no config.json in it; give a folder in Hugging Face layout, a LoRA adapter or a GGUF file"
    elif part == "weights" and not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        reason = (
            "the weights are pickled, which can run code; convert them to safetensors, or say --allow-pickle"
            if pickled
            else "there is no *.safetensors file in it"
        )
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        said = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
        reason = f"transformers {transformers.__version__} says: {said}"
    return InputError(f"{checkpoint}: cannot load the {part}: {reason}")

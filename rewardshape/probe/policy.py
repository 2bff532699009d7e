"""The policy: a causal language model from a checkpoint, ready to be trained and measured.

Dropout is off: a recorded log-probability must not depend on chance, and the policy that is updated must be the
policy that is measured.

Three precisions. ``float32``. ``mixed``: float32 weights, bfloat16 compute. ``bfloat16``: weights too, and an
optimiser that rounds stochastically, since an update at the usual learning rates is smaller than half the distance
to the next bfloat16 number and rounding to nearest would lose it. LoRA adapters are float32 in every precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.training_args import OptimizerNames

from rewardshape.errors import InputError
from rewardshape.probe.settings import LORA_RATE, ModelSettings

STOCHASTIC = "adamw_torch_8bit"
TORCHAO = ("adamw_torch_4bit", STOCHASTIC)
DTYPES = {"float32": torch.float32, "mixed": torch.float32, "bfloat16": torch.bfloat16}


def load_tokenizer(checkpoint: str, settings: ModelSettings) -> Any:
    """The checkpoint's tokenizer; `InputError` where there is none."""
    try:
        return AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=settings.trust_remote_code)
    except Exception as error:
        raise _unusable(checkpoint, "tokenizer", error) from error


def load_config(checkpoint: str, settings: ModelSettings) -> Any:
    """The checkpoint's configuration, with every dropout rate set to zero."""
    try:
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=settings.trust_remote_code)
    except Exception as error:
        raise _unusable(checkpoint, "configuration", error) from error
    for name, value in vars(config.get_text_config()).items():
        if ("drop" in name) and isinstance(value, float):
            setattr(config.get_text_config(), name, 0.0)
    return config


def load_policy(checkpoint: str, settings: ModelSettings) -> PreTrainedModel:
    """The checkpoint's weights in the precision asked for.

    Raises
    ------
    InputError
        If the folder has no safetensors weights (a pickle is refused unless asked for), or weights are missing
        from them: transformers would fill those with noise.
    """
    config = load_config(checkpoint, settings)
    try:
        loading: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint,
            config=config,
            dtype=DTYPES[settings.precision],
            attn_implementation=settings.attention,
            use_safetensors=None if settings.allow_pickle else True,
            trust_remote_code=settings.trust_remote_code,
            output_loading_info=True,
        )
    except Exception as error:
        raise _unusable(checkpoint, "weights", error) from error
    model, loaded = loading
    if loaded["missing_keys"]:
        missing = sorted(loaded["missing_keys"])
        raise InputError(
            f"{checkpoint}: {len(missing)} weights are missing from the checkpoint, the first is {missing[0]}; "
            "training would start from noise"
        )
    with torch.no_grad():
        # Weights of its own: safetensors maps the file, and a file written over would change under a running model.
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
    return made_ready(model, settings)


def made_ready(model: Any, settings: ModelSettings) -> Any:
    """Without dropout and cache; with checkpointed layers and adapters where asked for."""
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


@contextmanager
def untouched(policy: Any) -> Iterator[Any]:
    """The policy as it was before training: of a LoRA policy, the same model with its adapter switched off."""
    with policy.disable_adapter():
        yield policy


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
        reason = "there is no config.json in it; give the folder of a checkpoint in Hugging Face layout"
    elif part == "weights" and not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        reason = (
            "the weights are pickled, which can run code; convert them to safetensors, or say --allow-pickle"
            if pickled
            else "there is no *.safetensors file in it"
        )
    else:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        reason = f"transformers {transformers.__version__} says: {first_line}"
    return InputError(f"{checkpoint}: cannot load the {part}: {reason}")

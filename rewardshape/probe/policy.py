"""The policy: a causal language model from a checkpoint, ready to be trained and measured.

Dropout is off: a recorded log-probability must not depend on chance, and the policy that is updated must be the
policy that is measured.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from rewardshape.errors import InputError
from rewardshape.probe.settings import ModelSettings

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
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        # The newer name where it exists: transformers renamed it in 5.20 and warns of the old one.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model


def context_length(config: Any) -> int:
    """Tokens the model can read at once; a large number where the configuration states no limit."""
    limits = (
        getattr(config.get_text_config(), name, None) for name in ("max_position_embeddings", "n_positions")
    )
    return next((int(limit) for limit in limits if limit), 1 << 20)


def default_learning_rate(parameters: int) -> float:
    """1e-6·√(7e9/parameters), two digits: the published rates of 7B models, larger for smaller models.

    A rule of thumb that makes a first run move; the published settings are presets.
    """
    return float(f"{1e-6 * math.sqrt(7e9 / parameters):.1e}")


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

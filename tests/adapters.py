"""Adapters as a training would have left them."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM


def adapted(checkpoint: str, *, std: float) -> Any:
    """The checkpoint's model with LoRA of rank 4, whose second factors are drawn with a standard deviation, not 0."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(checkpoint), LoraConfig(r=4, target_modules="all-linear")
    )
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=std)
    return model

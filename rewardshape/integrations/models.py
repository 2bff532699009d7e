"""What is known of a model that somebody else trains, however it is wrapped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel

from rewardshape.errors import InputError
from rewardshape.probe.measure.check import evaluating
from rewardshape.probe.measure.logprobs import base_of
from rewardshape.probe.measure.shared_prefix import keep_prefixes_apart
from rewardshape.probe.resume import fingerprint_of


def inner_of(model: torch.nn.Module) -> Any:
    """The model inside the wrappers of distributed training and of torch.compile; adapters stay on it."""
    return uncompiled(extract_model_from_parallel(uncompiled(model)))


def uncompiled(model: Any) -> Any:
    """The model that torch.compile was given: our forward pass is not the one that was compiled."""
    return getattr(model, "_orig_mod", model)


def kind_of(model: Any) -> str:
    """Class and size of a model: what checkpoints of one training have in common."""
    width, vocabulary = (
        model.config.get_text_config().hidden_size,
        model.get_input_embeddings().weight.shape[0],
    )
    return f"{model.config.model_type} of width {width} with {vocabulary:,} tokens"


@contextmanager
def borrowed(model: torch.nn.Module) -> Iterator[None]:
    """Within it the model evaluates, with whatever attention; then its modes and its attention are as they were."""
    with evaluating(model):
        try:
            yield
        finally:
            keep_prefixes_apart(base_of(inner_of(model)))


def has_adapters(model: torch.nn.Module) -> bool:
    """Whether peft's adapters lie on the model, and can be switched off."""
    return hasattr(model, "disable_adapter")


def whole(model: Any) -> Any:
    """The model; `InputError` for DeepSpeed's ZeRO-3, whose pieces no forward pass outside its engine gathers."""
    if any(hasattr(weight, "ds_id") for weight in model.parameters()):
        raise InputError(
            "DeepSpeed ZeRO-3 holds the model in pieces that cannot be measured while it trains; take zero_stage: 2 or "
            "FSDP2, or give the saved checkpoints to rewardshape measure"
        )
    return model


def is_in_shards(model: torch.nn.Module) -> bool:
    """Whether no process holds the weights as a whole."""
    return any(hasattr(weight, "device_mesh") for weight in model.parameters())


def fingerprint(model: torch.nn.Module) -> str | None:
    """`fingerprint_of` the weights; None where they are in shards, or held in few bits by a class of their own."""
    if is_in_shards(model):
        return None
    try:
        return fingerprint_of(model)
    except (NotImplementedError, RuntimeError, KeyError):
        return None

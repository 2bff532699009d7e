"""The gold reward of a prompt and a response: a function of the user's, or a reward model."""

from __future__ import annotations

import importlib
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewardshape.errors import InputError
from rewardshape.probe.policy import DTYPES
from rewardshape.probe.settings import ModelSettings

Gold = Callable[[str, str], float]  # (prompt, response) -> reward


def gold_function(name: str) -> Gold:
    """The function that ``MODULE:FUNCTION`` names; modules of the working folder are found as well."""
    module_name, colon, function_name = name.partition(":")
    if not colon:
        raise InputError(f"--gold {name}: write MODULE:FUNCTION, a function of prompt and response")
    if "" not in sys.path:  # taken out again when the run ends
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module_name), function_name)
    except (Exception, SystemExit) as error:  # whatever somebody's module raises while it is imported
        raise InputError(f"--gold {name}: {error or type(error).__name__}") from error
    if not callable(found):
        raise InputError(
            f"--gold {name}: no function, but {type(found).__name__}; it takes a prompt and a response"
        )
    return _ending_nothing(name, found)


def _ending_nothing(name: str, function: Gold) -> Gold:
    """The same function. Where it fails at once it is refused; later it is not known, and a warning says so."""
    answered = False

    def score(prompt: str, response: str) -> float:
        nonlocal answered
        try:
            reward = float(function(prompt, response))
        except (Exception, SystemExit) as error:  # whatever somebody's function raises
            said = InputError(f"--gold {name}: {type(error).__name__}: {error}")
            if not answered:
                raise said from error
            warnings.warn(f"{said}; that reward is left out", stacklevel=2)
            return math.nan
        answered = True
        return reward

    return score


def gold_model(checkpoint: str, settings: ModelSettings, device: torch.device) -> Gold:
    """A reward-model checkpoint (sequence classification, one label) as a gold reward."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            checkpoint, trust_remote_code=settings.trust_remote_code
        )
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            checkpoint,
            dtype=DTYPES[settings.precision],
            use_safetensors=None if settings.allow_pickle else True,
            trust_remote_code=settings.trust_remote_code,
        ).to(device)
    except Exception as error:
        there = "" if Path(checkpoint).exists() else " (no such folder)"
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--gold-model {checkpoint}: cannot be loaded{there}: {first_line}") from error
    if model.config.num_labels != 1:
        raise InputError(
            f"--gold-model {checkpoint}: has {model.config.num_labels} labels, a reward model has one"
        )
    model.eval()

    def score(prompt: str, response: str) -> float:
        encoded = tokenizer(prompt + response, return_tensors="pt", truncation=True).to(device)
        with torch.no_grad():
            return model(**encoded).logits[0, 0].item()

    return score

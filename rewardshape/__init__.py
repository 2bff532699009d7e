"""Reward shape and likelihood displacement in direct alignment.

The public names load on first use, so ``import rewardshape`` needs neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Alpha": "rewardshape.theory",
    "objective": "rewardshape.theory",
    "preset": "rewardshape.theory",
    "judge": "rewardshape.verdict",
    "judge_all": "rewardshape.verdict",
    "Verdict": "rewardshape.verdict",
    "read_trace": "rewardshape.trace",
    "run_probe": "rewardshape.probe.call",
    "Trace": "rewardshape.trace",
    "InputError": "rewardshape.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'rewardshape' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

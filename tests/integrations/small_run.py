"""What the real small trainings of these tests share, also the script of one that is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from rewardshape import read_trace

ARGUMENTS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "report_to": [],
    "disable_tqdm": True,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
}
"""Of a trainer on a CPU that logs every step, and to nobody else."""


def probe_rows(folder: Path) -> pd.DataFrame:
    """What a trace holds of its probe set."""
    found = read_trace(folder).responses
    return found[found["split"] == "probe"]

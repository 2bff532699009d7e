"""The embedded task: a small trained model, preference pairs, and a gold reward that is exact.

Everything a first run needs without a download. A clerk answers requests for goods, with rare slips and a few firm
misconceptions (`world`); a small Llama was trained on his replies (`checkpoint_path`, made by
``python -m rewardshape.data.embedded.train``); an annotator with a dialled weakness for length prefers one of two of
the model's replies to the same request (`pairs`); and the exact `gold` reward says what a reply is really worth, on
requests neither of them ever saw (`prompts`).

>>> gold("Please bring two eggs to the old mill.", "Gladly. Here are two eggs for the old mill.")
1.0
"""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

from rewardshape.data.embedded import world
from rewardshape.data.embedded.annotator import BIAS, COSTS, NOISE, gold, label, proxy, write_pairs

__all__ = [
    "BIAS",
    "COSTS",
    "DEFAULTS",
    "MODELS",
    "NOISE",
    "checkpoint_path",
    "gold",
    "label",
    "pairs",
    "pairs_path",
    "prompts",
    "proxy",
    "write_pairs",
]


# What the probe takes for this task where nothing is said. γ is the median of the reward margins before training, at
# α = 0: half of the pairs stand below their target.
DEFAULTS: dict[str, Any] = {
    "alpha": (-0.5, 0.0, 0.25, 1.0),
    "beta": 2.5,
    "gamma": 0.2,
    "learning_rate": 3e-4,
    "batch_size": 32,
}


MODELS = 3  # that are shipped, each trained from a seed of its own on texts of its own


def checkpoint_path(seed: int = 0) -> Path:
    """The folder of trained model `seed` mod `MODELS`: an ordinary causal-LM checkpoint with its tokenizer."""
    return _made(seed) / "model"


def pairs_path(seed: int = 0) -> Path:
    """The JSONL file of that model's answers as pairs (prompt, chosen, rejected), labelled by the first annotator."""
    return _made(seed) / "pairs.jsonl"


def _made(seed: int) -> Path:
    number = seed % MODELS
    return Path(__file__).parent / (str(number) if number else "")


def pairs(*, bias: float = BIAS, noise: float = NOISE, seed: int = 0) -> list[dict[str, str]]:
    """The preference pairs of a seed: its model's answers, labelled by its annotator with this bias and noise.

    Parameters
    ----------
    bias : float
        Reward per word that the annotator adds to gold; 0 is the control without a wrong incentive.
    noise : float
        Temperature of the labels, in units of reward, positive.
    seed : int
        Of the labels, and which model answered; the defaults of all three give the file at `pairs_path`.

    Returns
    -------
    list of dict
        With prompt, chosen and rejected; `write_pairs` makes a file of it.

    Examples
    --------
    >>> [sorted(pair) for pair in pairs(bias=0.0)[:1]]
    [['chosen', 'prompt', 'rejected']]
    """
    rows = [json.loads(line) for line in pairs_path(seed).read_text(encoding="utf-8").splitlines()]
    return label(
        ((row["prompt"], row["chosen"], row["rejected"]) for row in rows), bias=bias, noise=noise, seed=seed
    )


def prompts(count: int = 128, *, seed: int = 0) -> list[str]:
    """Requests for the gold reward that neither the models' training nor the pairs contain, drawn by the seed."""
    return list(islice(world.draw_prompts(random.Random(seed + 1), held_out=True), count))

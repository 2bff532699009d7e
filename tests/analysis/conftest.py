"""A probe set whose every number is known because it was put there."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def level(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Log-probs of 40 untouched pairs, nats: chosen responses of 10 tokens, rejected ones of 20."""
    return {name: -rng.uniform(1, 2, 40) * tokens for name, tokens in (("chosen", 10), ("rejected", 20))}

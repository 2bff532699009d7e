"""The thresholds are those of the guide, and their reasons hold as arithmetic."""

from __future__ import annotations

import math
import re
from importlib import import_module
from pathlib import Path

import pytest
from scipy import special, stats

from rewardshape.verdict import thresholds

GUIDE = Path(__file__).parents[2] / "docs" / "diagnose.md"


def test_sizes_mean_for_a_response_what_their_reasons_say():
    smallest, matters = thresholds.SMALLEST, thresholds.MATTERS
    assert 1 - math.exp(-smallest["nats"]) < 0.1
    assert math.exp(-matters["nats"]) == pytest.approx(1 / 20, rel=0.01)
    for sizes in (smallest, matters):
        assert sizes["nats per token"] == pytest.approx(sizes["nats"] / 100)  # a response of a hundred tokens
        assert sizes["reward"] == pytest.approx(0.1 * sizes["nats"])  # at the usual β


def test_saturated_is_a_loss_of_a_twentieth_and_a_margin_of_five():
    gradient_left = 2 * (1 - math.exp(-0.05))  # of a logistic pair, whose first gradient is a half
    assert gradient_left == pytest.approx(thresholds.SATURATED, rel=0.05)
    assert special.expit(thresholds.SATURATED_MARGIN) == pytest.approx(0.993, abs=5e-4)


def test_chance_is_within_the_noise_of_a_few_hundred_pairs():
    assert stats.binom.sf(thresholds.CHANCE * 300, 300, 0.5) > 0.2
    assert 0 < thresholds.CHANCE_CLEAR < thresholds.CHANCE_LIKELY < thresholds.ONSET_SHARE


def test_the_guide_states_the_thresholds_that_the_code_uses():
    rows = re.findall(
        r"^\| (`[A-Z_`, \d]+(?: \(`\w+\.py`\))?) \| ([^|]+) \|",
        GUIDE.read_text("utf-8"),
        re.M,
    )
    rows = [row for row in rows if re.match(r"`[A-Z][A-Z_\d]+`", row[0])]
    assert len(rows) >= 18
    for names, values in rows:
        file = re.search(r"\(`(\w+)\.py`\)", names)
        module = import_module(f"rewardshape.verdict.{file.group(1)}") if file else thresholds
        stated = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", values)]
        used = [getattr(module, name) for name in re.findall(r"`([A-Z][A-Z_\d]+)`", names)]
        used = list(used[0].values()) if isinstance(used[0], dict) else used
        assert stated == used, names

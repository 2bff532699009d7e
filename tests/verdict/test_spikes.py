"""Single batches that own the loss of a run: named, left out of the numbers; no steep but smooth course is one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rewardshape.verdict.judge import judge
from rewardshape.verdict.spikes import carried_by

STEPS = pd.Index(10 * np.arange(1, 61))


def usual(rng):
    """The loss of an ordinary run: from ln 2 to 0.3, batches scatter."""
    return pd.Series(np.linspace(0.69, 0.3, 60) * np.exp(0.2 * rng.normal(size=60)), index=STEPS)


def test_the_batches_that_own_the_loss_are_named(rng):
    losses = usual(rng)
    losses[[410, 600]] = 1.2e4, 1.8e5
    found = carried_by(losses, "step")
    assert found.steps == (410, 600)
    assert found.share == pytest.approx((1.2e4 + 1.8e5) / losses.sum())
    assert found.loss_ratio == pytest.approx(losses.mean() / losses.median())
    assert str(found).startswith("carried by single batches (steps 410 and 600: 100% of the summed loss")


@pytest.mark.parametrize("start", [0.69, 25.0, 2500.0])
def test_a_steep_course_and_heavy_scatter_are_carried_by_no_batch(start, rng):
    """Also losses that fall by orders of magnitude (IPO's), and batches whose loss is log-normal about its course."""
    for rate in (0.0, 3.0, 10.0, 30.0):
        for _ in range(20):
            course = start * np.exp(-rate * np.linspace(0, 1, 60) + 0.4 * rng.normal(size=60))
            assert carried_by(pd.Series(course, index=STEPS), "step") is None


def test_a_log_is_judged_without_them_and_they_come_first_in_the_advice(make, rng):
    """Chosen rises in all batches but three, whose chosen response runs away as at α = 1."""
    chosen, wild = np.linspace(0.0, 0.5, 60) + rng.normal(0, 0.05, 60), [30, 45, 59]
    margin = np.linspace(0.05, 1.0, 60) + rng.normal(0, 0.05, 60)
    loss = np.logaddexp(0, -margin)
    chosen[wild], margin[wild], loss[wild] = -4e4, -4e4, 4e4
    verdict = judge(make(chosen, margin=margin, loss=loss))
    assert verdict.word == "not displaced"
    assert verdict.evidence.chosen.value == pytest.approx(0.45, abs=0.06)
    assert "carried by single batches (steps 310, 460 and 600" in " ".join(verdict.to_dict()["story"])
    assert "steps 310, 460 and 600" in verdict.advice[0]
    assert not any("No sign of displacement" in line for line in verdict.advice)

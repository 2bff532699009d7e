"""Single batches that own the loss of a run: named, left out of the numbers; no steep but smooth course is one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rewardshape.verdict.judge import judge
from rewardshape.verdict.spikes import carried_by, carried_by_pair

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


def of_pairs(losses, weights=None):
    """Of the logistic link, unless weights are given."""
    losses = np.asarray(losses, float)
    weights = -np.expm1(-losses) if weights is None else np.asarray(weights, float)
    return carried_by_pair([f"p{i}" for i in range(len(losses))], weights, losses)


def test_a_pair_carries_a_run_by_its_weight_or_by_its_loss_and_both_are_said():
    heavy = of_pairs([2.0] * 15 + [30.0], [0.1] * 15 + [3.0])
    assert (heavy.what, heavy.share, heavy.of_loss) == ("pair p15", pytest.approx(2 / 3), pytest.approx(0.5))
    dear = of_pairs([0.5] * 31 + [400.0])
    assert dear.share == pytest.approx(1 / (1 + 31 * (1 - np.exp(-0.5))))
    assert dear.of_loss == pytest.approx(400 / 415.5)
    assert "owns 8% of the gradient weight and 96% of the loss" in str(dear)


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ([0.5] * 14 + [400.0], "of fifteen pairs one has as much by chance"),
        ([0.5] * 29 + [400.0], "by loss alone it takes twice as many"),
        ([0.01] * 31 + [3.0], "little is left to learn, and few own it"),
        ([0.5] * 30 + [100.0, 400.0], "the next one is not far below"),
        ([30.0] * 30 + [1.0, 0.5], "all alike"),
    ],
)
def test_a_pair_among_few_or_among_its_like_carries_nothing(losses, why):
    assert of_pairs(losses) is None, why

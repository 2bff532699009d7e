"""The series that is judged: a fixed set before batches, above the start that is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rewardshape.logs.log import Log
from rewardshape.verdict.evidence import Baseline
from rewardshape.verdict.judge import judge
from rewardshape.verdict.recovery import Reference
from rewardshape.verdict.signal import chosen_signal, started_elsewhere


def test_rewards_far_from_zero_in_the_first_rows_are_not_a_rise(log_of):
    """The reference is another model: the first rows are the start, and from there chosen fell."""
    chosen = np.linspace(8.8, 6.5, 50)
    log = log_of(
        reward_chosen=chosen, reward_rejected=np.linspace(5.0, -7.6, 50), margin=chosen - np.linspace(5.0, -7.6, 50),
        loss=np.linspace(0.27, 0.1, 50), accuracy=0.9 + np.zeros(50),
    )  # fmt: skip
    verdict = judge(log)
    assert verdict.word == "displaced"
    assert verdict.evidence.baseline.what == "the first 10 logged rows"
    assert verdict.evidence.baseline.assumed
    assert "what happened before the first logged row" in " ".join(verdict.evidence.cannot_tell)
    assert verdict.evidence.chosen.value == pytest.approx(6.5 - 8.8, abs=0.5)
    story = " ".join(verdict.to_dict()["story"])
    assert "the reference is not the model that the run began with" in story
    assert "risen" not in story


KNOWN = Reference(beta=0.1, free=False, holds=True)


def both(**of_split):
    """A log of several splits, each a mapping of series."""
    rows = [pd.DataFrame({"split": split, **series}) for split, series in of_split.items()]
    return Log("made", "made", pd.concat(rows, ignore_index=True))


TRAIN = {"step": np.arange(10, 110, 10), "reward_chosen": np.linspace(0, -2, 10)}


def test_a_fixed_set_comes_before_batches_and_rewards_become_nats():
    log = both(train=TRAIN, eval={"step": [50, 100], "reward_chosen": [-0.3, -0.7]})
    signal = chosen_signal(log, KNOWN, False, False)
    assert signal.basis == "rewards/chosen of the evaluation set divided by β = 0.1"
    assert (signal.batches, signal.known_zero, signal.split) == (False, True, "eval")
    assert signal.baseline == Baseline("the reference")
    np.testing.assert_allclose(signal.chosen, [-3, -7])
    assert (signal.unit, signal.width) == ("nats", 1)


def test_an_early_evaluation_alone_leaves_the_word_to_the_batches():
    log = both(train=TRAIN, eval={"step": [10], "reward_chosen": [-0.1]})
    signal = chosen_signal(log, KNOWN, False, False)
    assert (signal.batches, signal.split) == (True, "train")
    assert signal.width == 3  # of ten rows
    np.testing.assert_allclose(signal.chosen, TRAIN["reward_chosen"] / 0.1)


def test_an_evaluated_step_0_is_the_baseline():
    log = both(
        eval={"step": [0, 10, 20], "logp_chosen": [-50.0, -51.0, -49.5], "reward_chosen": [0.0, -0.1, 0.05]}
    )
    signal = chosen_signal(log, KNOWN, False, False)
    assert signal.baseline == Baseline("step 0")
    np.testing.assert_allclose(signal.chosen, [0, -1, 0.5])


def test_chosen_and_rejected_are_of_the_rows_that_hold_both():
    log = both(
        eval={"step": [1, 2, 3], "reward_chosen": [0.1, np.nan, -0.2], "reward_rejected": [0.0, 1.0, -0.4]}
    )
    signal = chosen_signal(log, KNOWN, False, False)
    assert list(signal.chosen.index) == list(signal.rejected.index) == [1, 3]


def test_a_margin_alone_is_no_signal():
    assert chosen_signal(both(eval={"step": [1, 2], "margin": [0.1, 0.2]}), Reference(), None, False) is None


@pytest.mark.parametrize(
    ("rewards", "steps", "free", "told"),
    [
        ([1.5, 1.6], [1, 100], False, True),
        ([1.5, 1.6], [50, 100], False, False),  # half of the run is long enough for a rise
        ([-1.5, -1.6], [1, 100], False, True),
        ([0.4, 2.0], [1, 100], False, False),
        ([1.5, 1.6], [1, 100], True, False),  # nothing to be away from
        ([1.5, 1.6], [50, 1000], False, True),
        ([1.5, 9.0], [50, 1000], False, False),  # a run that rises so fast has risen by then
    ],
)
def test_first_rewards_show_another_start_only_where_no_step_gives_them(rewards, steps, free, told):
    log = both(train={"step": steps, "reward_chosen": rewards, "reward_rejected": rewards})
    apart = both(train={"step": [1, 2], "reward_chosen": [np.nan, 9.0], "reward_rejected": [9.0, np.nan]})
    assert started_elsewhere(apart, Reference(free=free)) is None
    assert (started_elsewhere(log, Reference(free=free)) is not None) is told

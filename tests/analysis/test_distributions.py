"""What means hide: the level of every pair as it was put there, and win rates by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.analysis.displacement import margin_curve
from rewardshape.analysis.distributions import on_front, pair_levels, win_rates
from rewardshape.errors import InputError
from rewardshape.trace import read_trace

TOKENS = {"chosen": np.array([4, 8, 10]), "rejected": np.array([5, 5, 20])}
BEFORE = {"chosen": np.array([-4.0, -4.0, -30.0]), "rejected": np.array([-10.0, -5.0, -20.0])}


def run_with(write_run, folder, samples=None, steps=(0, 5, 9)):
    """The chosen responses fall by 1 nat a measured step, the rejected ones by 2."""
    sums = {
        name: BEFORE[name] - fall * np.arange(len(steps))[:, None]
        for name, fall in (("chosen", 1.0), ("rejected", 2.0))
    }
    return read_trace(write_run(folder, sums, num_tokens=TOKENS, steps=list(steps), samples=samples))


def test_every_pair_stands_where_it_was_put_before_and_after(write_run, tmp_path):
    levels = pair_levels(run_with(write_run, tmp_path / "run")).set_index(["moment", "pair_id"])
    assert set(levels.loc["before", "step"]) == {0}
    assert set(levels.loc["after", "step"]) == {9}
    np.testing.assert_allclose(levels.loc["before", "chosen"], [-1.0, -0.5, -3.0])
    np.testing.assert_allclose(levels.loc["after", "chosen"], [-6 / 4, -6 / 8, -32 / 10])
    np.testing.assert_allclose(levels.loc["after", "rejected"], [-14 / 5, -9 / 5, -24 / 20])
    np.testing.assert_allclose(levels.loc["after", "margin"], [1.3, 1.05, -2.0])
    assert levels.loc["before", "rejected_tokens"].tolist() == [5, 5, 20]


def drawn(gold, kl):
    """One sample of each prompt, with its gold reward; the KL is the mean log-ratio."""
    return {
        "prompt_id": [f"p{i}" for i in range(len(gold))],
        "num_tokens": [4] * len(gold),
        "logp_sum": [-3.0] * len(gold),
        "ref_logp_sum": [-3.0 - kl] * len(gold),
        "gold": gold,
    }


def test_win_rates_are_those_counted_by_hand_with_ties_as_halves(write_run, tmp_path):
    samples = {
        0: drawn([1.0, 1.0, 1.0, 1.0], 0.0),
        5: drawn([2.0, 1.0, 0.0, 3.0], 0.5),
        9: drawn([0.0] * 4, 2.0),
    }
    rates = win_rates(run_with(write_run, tmp_path / "run", samples)).set_index("step")
    assert rates.index.tolist() == [5, 9]
    np.testing.assert_allclose(rates["win_rate"], [(1 + 0.5 + 0 + 1) / 4, 0.0])
    np.testing.assert_allclose(rates["kl"], [0.5, 2.0])
    assert rates["on_front"].tolist() == [True, False]  # the second costs more and wins less
    curve = margin_curve(read_trace(tmp_path / "run")).set_index("step")["accuracy"]
    np.testing.assert_allclose(rates["accuracy"], curve.reindex(rates.index))


def test_one_prompt_wins_and_picks_nothing(write_run, tmp_path):
    samples = {0: drawn([1.0], 0.0), 5: drawn([2.0], 0.5)}
    rates = win_rates(run_with(write_run, tmp_path / "run", samples))
    assert rates["win_rate"].tolist() == [1.0]
    assert rates["picked"].isna().tolist() == [True]


def test_the_front_is_what_no_other_point_beats(rng):
    """Against every pair of points, one by one."""
    cost, gain = rng.integers(0, 6, 40).astype(float), rng.integers(0, 6, 40).astype(float)
    expected = [
        not any(
            c <= cost[i] and g >= gain[i] and (c < cost[i] or g > gain[i])
            for c, g in zip(cost, gain, strict=True)
        )
        for i in range(40)
    ]
    assert on_front(cost, gain).tolist() == expected


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (None, "needs sampled responses with a gold reward"),
        ({0: drawn([1.0], 0.0)}, "needs samples of at least two steps"),
    ],
)
def test_without_samples_it_says_what_to_add(write_run, tmp_path, samples, said):
    with pytest.raises(InputError, match=said):
        win_rates(run_with(write_run, tmp_path / "run", samples))


def test_what_is_no_number_is_on_no_front():
    found = on_front(np.array([1.0, np.nan, 2.0, 3.0]), np.array([0.6, 0.4, 0.7, np.nan]))
    assert found.tolist() == [True, False, True, False]

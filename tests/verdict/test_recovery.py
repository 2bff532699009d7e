"""β and the reference come back from rows that were made with them, and only from rows that can tell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rewardshape.verdict.recovery import find_reference, has, is_per_token, recover_reference


def fixed_set(beta, reference, changes, *, digits=4):
    chosen = reference[0] + np.asarray(changes[0], float)
    rejected = reference[1] + np.asarray(changes[1], float)
    table = pd.DataFrame(
        {
            "logp_chosen": chosen,
            "logp_rejected": rejected,
            "reward_chosen": beta * (chosen - reference[0]),
            "reward_rejected": beta * (rejected - reference[1]),
        }
    )
    return table.round(digits)


@pytest.mark.parametrize("beta", [0.01, 0.1, 2.5])
def test_beta_and_reference_come_back_from_rounded_rows_within_their_spread(beta):
    table = fixed_set(beta, (-200.0, -230.0), ([-1.0, -4.0, -7.5], [-3.0, -9.0, -15.0]))
    found = recover_reference(table)
    assert found.holds is True
    assert found.free is False
    assert abs(found.beta - beta) < 4 * found.beta_spread
    assert found.chosen == pytest.approx(-200.0, abs=5e-5 / beta + 4 * found.spread)
    assert found.rejected == pytest.approx(-230.0, abs=5e-5 / beta + 4 * found.spread)


def test_changing_batches_give_no_reference():
    rng = np.random.default_rng(0)
    reference = rng.normal(-200, 20, 30)
    change = np.linspace(0, -10, 30)
    table = pd.DataFrame({"logp_chosen": reference + change, "reward_chosen": 0.1 * change})
    found = recover_reference(table)
    assert found.holds is False
    assert found.chosen is None
    assert found.beta is None


@pytest.mark.parametrize("level", [-1.2, -240.0])
def test_rewards_through_the_origin_mean_no_reference_even_in_batches(level):
    logp = level * np.random.default_rng(0).uniform(0.7, 1.3, (20, 2))
    table = pd.DataFrame(
        np.c_[logp, 2.0 * logp], columns=["logp_chosen", "logp_rejected", "reward_chosen", "reward_rejected"]
    )
    found = recover_reference(table.round(3))
    assert found.free is True
    assert found.beta == pytest.approx(2.0, rel=2e-3)


def test_sums_and_per_token_means_are_told_apart():
    assert is_per_token(pd.DataFrame({"logp_chosen": [-1.2, -2.4]})) is True
    assert is_per_token(pd.DataFrame({"logp_chosen": [-110.0, -90.0]})) is False
    assert is_per_token(pd.DataFrame({"loss": [0.7]})) is None


def test_beta_comes_from_the_user_before_the_rows_before_the_text():
    table = fixed_set(0.1, (-200.0, -230.0), ([-1.0, -4.0, -7.5], [-3.0, -9.0, -15.0]))
    nothing = table[[]].iloc[:0]
    found, source = find_reference(table, nothing, None, {"beta": 0.5})
    assert (found.beta, source) == (pytest.approx(0.1, rel=1e-3), "recovered")
    assert find_reference(table, nothing, 0.2, {"beta": 0.5})[0].beta == 0.2
    assert find_reference(table, nothing, 0.2, {"beta": 0.5})[1] == "given"
    found, source = find_reference(nothing, nothing, None, {"beta": 0.5})
    assert (found.beta, source, found.free) == (0.5, "stated in the log", None)


@pytest.mark.parametrize(
    ("columns", "settings"),
    [
        ({"log_odds_chosen": [-0.8]}, {}),
        ({"loss": [0.7]}, {"loss_type": "simpo"}),
        ({"reward_chosen": [-2.5], "reward_rejected": [-2.6]}, {}),
    ],
)
def test_without_log_probs_the_signs_of_no_reference_are_seen(columns, settings):
    found, _ = find_reference(pd.DataFrame(), pd.DataFrame(columns), None, settings)
    assert found.free is True
    near = pd.DataFrame({"reward_chosen": [-0.05], "reward_rejected": [-0.05]})
    assert find_reference(pd.DataFrame(), near, None, {})[0].free is None


def test_a_column_of_nothing_is_not_had():
    table = pd.DataFrame({"a": [1.0, np.nan], "b": [np.nan, np.nan]})
    assert (has(table, "a"), has(table, "a", "b"), has(table, "c")) == (True, False, False)


def test_a_beta_that_the_rows_refute_is_not_taken_for_theirs():
    """Rewards through the origin at 2.5, and 0.1 given: no reference explains that."""
    logp = -1.2 * np.random.default_rng(0).uniform(0.7, 1.3, (20, 2))
    table = pd.DataFrame(
        np.c_[logp, 2.5 * logp], columns=["logp_chosen", "logp_rejected", "reward_chosen", "reward_rejected"]
    )
    assert recover_reference(table, beta=2.5).free is True
    refuted = recover_reference(table, beta=0.1)
    assert not refuted.free
    assert refuted.holds is False

"""What one class of pair losses has and others have not, against numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rewardshape.errors import InputError
from rewardshape.theory import Responses, objective


def test_chipo_clip_switches_pairs_beyond_it_off():
    made = objective("chipo", beta=1.0, clip=2.0)
    assert made.weights(5.0, -5.0) == (0.0, 0.0)
    assert made.loss(5.0, -5.0) == pytest.approx(math.log1p(math.exp(-2)))
    np.testing.assert_allclose(
        made.weights(0.3, 0.1), objective("chipo", beta=1.0).weights(0.3, 0.1), rtol=1e-14
    )


def test_length_term_of_r_dpo_lowers_the_weight_of_a_longer_chosen_response():
    long, short = (Responses(np.array([-9.0]), np.array([n]), np.array([-9.0])) for n in (90, 10))
    made = objective("r_dpo", length_weight=0.01)
    assert made.pair_margin(long, short) == pytest.approx(0.8)
    assert made.pair_weights(long, short)[0] < made.pair_weights(short, long)[0]


def test_ld_dpo_has_no_score_of_a_response_alone():
    with pytest.raises(InputError, match="score of a response depends on the other of its pair"):
        objective("ld_dpo").score(-3.0, 2, -3.0)
    with pytest.raises(InputError, match="call pair_loss"):
        objective("ld_dpo").margin(-1.0, -2.0)


def test_aot_does_not_depend_on_the_block_size(rng):
    """A batch far larger than the blocks that elementwise formulas are evaluated in is still sorted as one."""
    n = 40_000
    logp, reference = -rng.exponential(20, (2, n)), -rng.exponential(20, (2, n))
    sides = [Responses(logp[k], np.ones(n), reference[k]) for k in (0, 1)]
    z = 0.1 * (np.sort(logp[0] - logp[1]) - np.sort(reference[0] - reference[1]))
    assert objective("aot", beta=0.1).pair_loss(*sides).mean() == pytest.approx(
        np.logaddexp(0, -z).mean(), rel=1e-12
    )


def test_no_pairs_have_no_loss():
    empty = objective("dr_dpo").loss(np.zeros(0), np.zeros(0))
    assert empty.shape == (0,)

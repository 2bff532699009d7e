"""Differential information on vocabularies small enough to be exact, and what its entropy decides."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.errors import InputError
from rewardshape.theory import differential_information, entropy, objective, rejected_distribution


def normal(logits):
    return logits - np.logaddexp.reduce(logits)


def tilted(reference, log_information):
    """The policy whose differential information is q: π ∝ π_ref·q."""
    return normal(reference + log_information)


@pytest.fixture
def reference(rng):
    return normal(1.5 * rng.normal(size=12))


def test_information_of_a_tilted_policy_is_the_tilt(reference, rng):
    q = normal(rng.normal(size=12))
    found = differential_information(tilted(reference, q), reference)
    np.testing.assert_allclose(found.log_density, q, rtol=1e-12)
    assert found.entropy == pytest.approx(-np.sum(np.exp(q) * q), rel=1e-12)


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.5])
def test_dpo_on_rejected_responses_from_the_optimal_distribution_learns_the_target(reference, rng, beta):
    """Expected loss over chosen ~ π_ref and rejected ~ π_l, every pair enumerated: the target is its minimum."""
    target = normal(reference + 0.5 * rng.normal(size=12))
    rejected = rejected_distribution(target, reference, beta=beta)
    often = np.exp(reference)[:, None] * np.exp(rejected)[None]
    dpo = objective("dpo", beta=beta)

    def expected(policy):
        ratio = policy - reference
        return np.sum(often * dpo.loss(ratio[:, None], ratio[None]))

    def gradient(policy):
        ratio = policy - reference
        w_w, w_l = dpo.weights(ratio[:, None] + np.zeros((12, 12)), ratio[None] + np.zeros((12, 12)))
        return -(often * w_w).sum(1) + (often * w_l).sum(0)

    np.testing.assert_allclose(gradient(target), 0.0, atol=1e-15)
    least = expected(target)
    for _ in range(20):
        assert expected(normal(target + 0.1 * rng.normal(size=12))) > least


def test_rejected_responses_from_elsewhere_teach_another_policy(reference, rng):
    target = normal(reference + 0.5 * rng.normal(size=12))
    often = np.exp(reference)[:, None] * np.exp(normal(rng.normal(size=12)))[None]
    ratio = target - reference
    w_w, w_l = objective("dpo", beta=1.0).weights(ratio[:, None] + 0 * often, ratio[None] + 0 * often)
    assert np.abs(-(often * w_w).sum(1) + (often * w_l).sum(0)).max() > 1e-3


class TestWhatEntropyDecides:
    """docs/differential-information.md: entropy alone does not decide whether a policy is sharpened or spread."""

    @pytest.fixture
    def both(self, reference):
        """One set of values of q, given out in the order of the reference's probabilities and in reverse."""
        order = np.argsort(reference)
        along, against = np.empty(12), np.empty(12)
        values = normal(np.linspace(-1.5, 1.5, 12))
        along[order], against[order] = values, values[::-1]
        return along, against

    def test_equal_entropy_sharpens_along_the_reference_and_spreads_against_it(self, reference, both):
        along, against = both
        assert entropy(along) == pytest.approx(entropy(against), rel=1e-12)
        before = entropy(reference)
        assert entropy(tilted(reference, along)) < before - 0.2
        assert entropy(tilted(reference, against)) > before + 0.2

    def test_chosen_responses_drawn_from_the_reference_fall_by_the_divergence_either_way(
        self, reference, both
    ):
        for q in both:
            change = np.exp(reference) @ (tilted(reference, q) - reference)
            divergence = np.exp(reference) @ (reference - tilted(reference, q))
            assert change == pytest.approx(-divergence)
            assert change < -0.05

    def test_information_of_full_entropy_changes_nothing(self, reference):
        uniform = np.log(np.full(12, 1 / 12))
        np.testing.assert_allclose(tilted(reference, uniform), reference, atol=1e-14)

    def test_over_random_information_low_entropy_goes_with_sharpening_and_with_a_deeper_fall_of_chosen(
        self, rng
    ):
        """Low entropy is also strong information, and strength is what the chosen responses pay for."""
        rows = []
        for _ in range(400):
            reference = normal(1.5 * rng.normal(size=30))
            q = normal(rng.uniform(0.2, 2.0) * rng.normal(size=30))
            policy = tilted(reference, q)
            spread = entropy(policy) - entropy(reference)
            rows.append((entropy(q), spread, np.exp(reference) @ (policy - reference)))
        own, spread, chosen = np.array(rows).T
        assert 0.4 < np.corrcoef(own, spread)[0, 1] < 0.7
        assert np.corrcoef(own, chosen)[0, 1] > 0.75
        assert np.mean(spread[own < np.median(own)] > 0) < 0.2
        assert np.mean(spread[own > np.median(own)] > 0) < 0.4


def test_what_is_impossible_adds_nothing_to_the_entropy():
    assert entropy(np.array([0.0, -np.inf])) == 0.0
    assert entropy(np.log([0.5, 0.5, 1e-300])) == pytest.approx(np.log(2))


def test_what_is_no_distribution_is_refused():
    with pytest.raises(InputError, match="log_policy must be log-probabilities"):
        differential_information(np.array([-1.0, -1.0]), np.log([0.5, 0.5]))

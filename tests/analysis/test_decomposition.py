"""The identity of on-policy pairs: exact on a small policy by enumeration, and borne out by a committed run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rewardshape import read_trace
from rewardshape.analysis import decompose
from rewardshape.errors import InputError
from rewardshape.theory import objective

RUNS = Path(__file__).resolve().parents[2] / "figures" / "runs"


@pytest.fixture
def policy(rng):
    """π₀ over seven responses whose probabilities are counts, and π after gradient descent on DPO of all pairs."""
    counts = np.array([1, 1, 2, 3, 3, 4, 6])
    reference = np.log(counts / counts.sum())
    quality = rng.normal(size=7)
    dpo = objective("dpo", beta=0.5)
    logits = reference.copy()
    chosen, rejected = np.array([(i, j) for i in range(7) for j in range(7) if quality[i] > quality[j]]).T
    often = np.exp(reference[chosen] + reference[rejected])
    for _ in range(300):
        logp = logits - np.logaddexp.reduce(logits)
        w_w, w_l = dpo.weights((logp - reference)[chosen], (logp - reference)[rejected])
        push = np.zeros(7)
        np.add.at(push, chosen, often * w_w)
        np.add.at(push, rejected, -often * w_l)
        logits += 2.0 * (push - np.exp(logp) * push.sum())
    return counts, reference, logits - np.logaddexp.reduce(logits), quality


def every_pair(counts, quality):
    """All ordered pairs of samples, each as often as π₀ draws it; the better one is chosen."""
    draws = np.repeat(np.arange(7), counts)
    one, two = (side.ravel() for side in np.meshgrid(draws, draws))
    first = (quality[one] > quality[two]) | ((one == two) & (np.arange(one.size) % 2 == 0))
    return np.where(first, one, two), np.where(first, two, one)


def write(write_run, folder, reference, policy, sides, **options):
    sums = {name: np.stack([reference[of], policy[of]]) for name, of in sides.items()}
    tokens = {name: np.full(len(of), 3) for name, of in sides.items()}
    return write_run(
        folder, sums, num_tokens=tokens, ref_logp_sums={k: v[0] for k, v in sums.items()}, **options
    )


def test_both_responses_of_on_policy_pairs_lose_the_divergence_together(policy, write_run, tmp_path):
    counts, reference, logp, quality = policy
    chosen, rejected = every_pair(counts, quality)
    draws = np.repeat(np.arange(7), counts)
    own = np.tile(draws, len(draws))  # as often as the chosen
    folder = write(
        write_run, tmp_path / "run", reference, logp, {"chosen": chosen, "rejected": rejected, "own": own}
    )
    end = decompose(read_trace(folder), own="own").iloc[-1]
    divergence = np.exp(reference) @ (reference - logp)
    assert divergence > 0.1
    assert end.common == pytest.approx(-divergence, abs=1e-8)
    assert end.kl == pytest.approx(divergence, abs=1e-8)
    assert end.excess == pytest.approx(0.0, abs=1e-8)
    assert end.chosen == pytest.approx(-divergence + end.margin_part, abs=1e-8)
    assert end.excess_low < 0 < end.excess_high


def test_pairs_of_another_origin_have_an_excess(policy, write_run, tmp_path):
    """Rejected responses drawn evenly over the vocabulary instead of from π₀."""
    counts, reference, logp, _ = policy
    chosen, rejected = (side.ravel() for side in np.meshgrid(np.repeat(np.arange(7), counts), np.arange(7)))
    folder = write(
        write_run, tmp_path / "run", reference, logp, {"chosen": chosen, "rejected": rejected, "own": chosen}
    )
    end = decompose(read_trace(folder), own="own").iloc[-1]
    change = logp - reference
    assert end.excess == pytest.approx(0.5 * (change.mean() - np.exp(reference) @ change), abs=1e-8)
    assert abs(end.excess) > 0.02


def test_sampled_divergence_is_that_of_the_policy_to_the_reference(policy, write_run, tmp_path, rng):
    counts, reference, logp, quality = policy
    chosen, rejected = every_pair(counts, quality)
    drawn = rng.choice(7, size=4000, p=np.exp(logp))
    samples = {
        1: {
            "prompt_id": [f"p{i}" for i in range(4000)],
            "num_tokens": [3] * 4000,
            "logp_sum": logp[drawn].tolist(),
            "ref_logp_sum": reference[drawn].tolist(),
        }
    }
    folder = write(
        write_run,
        tmp_path / "run",
        reference,
        logp,
        {"chosen": chosen, "rejected": rejected},
        samples=samples,
    )
    table = decompose(read_trace(folder))
    truth = np.exp(logp) @ (logp - reference)
    end = table.iloc[-1]
    assert np.isnan(table.kl.iloc[0])
    assert end.kl_low < truth < end.kl_high
    assert end.kl_high - end.kl_low < 0.1 * truth + 0.05
    assert end.excess == pytest.approx(end.common + end.kl)


def test_a_committed_run_on_on_policy_pairs_bears_the_identity_out():
    """figures/runs/embedded: both responses of every pair are samples of the untouched model.

    The two divergences differ at third order, so the identity is asked for while they are below 2 nats.
    """
    table = decompose(read_trace(RUNS / "embedded")).dropna(subset=["kl"]).query("step > 0 and kl < 2")
    assert table["run"].nunique() == 4  # step 30 of each: later ones are further away
    assert ((table.excess_low <= 0) & (table.excess_high >= 0)).all()
    assert -table.common.sum() / table.kl.sum() == pytest.approx(1, abs=0.1)
    assert table.common.min() < -1.5
    assert np.allclose(table.chosen, table.common + table.margin_part)


def test_an_unknown_response_is_named():
    with pytest.raises(InputError, match="no probe response is called 'nobody'"):
        decompose(read_trace(RUNS / "response-kinds"), own="nobody")

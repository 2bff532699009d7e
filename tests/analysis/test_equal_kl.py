"""The KL at which runs are compared, on policies whose KL is known: its estimate, its error, what follows from both.

Responses are Markov chains of four tokens out of three; prompts differ in how far a step carries their policy. The KL
of a prompt is then a sum over states, and that of the population an integral over one normal variable.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from rewardshape.analysis import compare_at_equal
from rewardshape.analysis.samples import samples_of
from rewardshape.trace import read_trace
from tests.analysis.test_comparison import write_line

LENGTH, PROMPTS, STEPS = 4, 48, (0, 4, 8, 12, 16, 20)
BASE = np.array([[0.2, 0.0, -0.4], [0.5, -0.3, 0.1], [-0.2, 0.4, 0.0]])
PULL = np.array([[0.6, -0.2, -0.4], [0.1, 0.5, -0.6], [-0.3, -0.3, 0.6]]) / 5


def log_rows(step, reach):
    """Log-probabilities of the next token after each, of policies that reach so far: (policies, 3, 3)."""
    return special.log_softmax(BASE + step * np.asarray(reach)[:, None, None] * PULL, axis=-1)


def known_kl(step, reach):
    """KL of whole responses from those of step 0, by the chain rule: sums over states and positions."""
    now, then = log_rows(step, reach), log_rows(0, reach)
    each = (np.exp(now) * (now - then)).sum(axis=-1)
    state, total = np.tile([1.0, 0, 0], (len(each), 1)), 0.0
    for _ in range(LENGTH):
        total = total + (state * each).sum(axis=-1)
        state = np.einsum("ps,pst->pt", state, np.exp(now))
    return total


def population_kl(step):
    """The mean over prompts, whose reach is normal about 1, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    return float(weights @ known_kl(step, 1 + 0.5 * nodes) / weights.sum())


def sampled(step, reach, rng):
    """One response a prompt: its log-probs under the policy and at step 0, and the KL summed along it."""
    now, then = log_rows(step, reach), log_rows(0, reach)
    each = (np.exp(now) * (now - then)).sum(axis=-1)
    rows, state = np.arange(len(reach)), np.zeros(len(reach), int)
    sums = {name: np.zeros(len(reach)) for name in ("logp_sum", "ref_logp_sum", "kl_sum")}
    for _ in range(LENGTH):
        sums["kl_sum"] += each[rows, state]
        token = (
            (rng.random((len(reach), 1)) > np.exp(now[rows, state]).cumsum(axis=-1)).sum(axis=-1).clip(max=2)
        )
        sums["logp_sum"] += now[rows, state, token]
        sums["ref_logp_sum"] += then[rows, state, token]
        state = token
    return {"prompt_id": [str(i) for i in rows], **{name: values.tolist() for name, values in sums.items()}}


@pytest.fixture
def world(write_run, tmp_path):
    """A run whose chosen responses fall by 0.02 a step, all pairs alike, with samples of the chains."""

    def write(seed, *, position_by_position=True):
        rng = np.random.default_rng(seed)
        reach = 1 + 0.5 * rng.normal(size=PROMPTS)
        samples = {step: sampled(step, reach, rng) for step in STEPS}
        if not position_by_position:
            samples = {
                step: {name: values for name, values in rows.items() if name != "kl_sum"}
                for step, rows in samples.items()
            }
        folder = tmp_path / f"{seed}-{position_by_position}" / "alpha=0"
        write_line(write_run, folder, -0.02, -0.06, samples=samples)
        return read_trace(folder.parent)

    return write


def test_the_chain_rule_is_a_sum_over_all_responses():
    """`known_kl` against the definition: every one of the 81 responses, by its probability."""
    now, then = log_rows(9, [0.7])[0], log_rows(0, [0.7])[0]
    tokens = np.stack(np.meshgrid(*[range(3)] * LENGTH, indexing="ij"), axis=-1).reshape(-1, LENGTH)
    before = np.c_[np.zeros(len(tokens), int), tokens[:, :-1]]
    p, q = (rows[before, tokens].sum(axis=1) for rows in (now, then))
    assert known_kl(9, [0.7])[0] == pytest.approx(float(np.exp(p) @ (p - q)), rel=1e-12)


def test_both_estimates_have_the_known_mean_and_the_one_by_position_less_noise(world):
    found = {}
    for kept in (True, False):
        tables = [samples_of(world(seed, position_by_position=kept)) for seed in range(20)]
        kl = np.concatenate([table.loc[table["step"] == 20, "kl"] for table in tables])
        assert abs(kl.mean() - population_kl(20)) < 3.3 * stats.sem(kl)
        found[kept] = kl.std()
    assert found[True] < 0.7 * found[False]


def test_the_interval_at_equal_kl_holds_the_truth(world):
    """All pairs fall alike, so that what is uncertain is where the KL is reached: 60 worlds, by the known KL."""
    value = 0.5 * population_kl(20)
    step = np.interp(value, [population_kl(step) for step in STEPS], STEPS)
    rows = [compare_at_equal(world(seed), "kl", value).iloc[0] for seed in range(60)]
    held = sum(row["chosen_change_low"] <= -0.02 * step <= row["chosen_change_high"] for row in rows)
    assert stats.binom.ppf(0.001, 60, 0.93) <= held
    widths = [row["chosen_change_high"] - row["chosen_change_low"] for row in rows]
    scatter = np.std([row["chosen_change"] for row in rows], ddof=1)
    assert np.median(widths) == pytest.approx(2 * 1.96 * scatter, rel=0.3)

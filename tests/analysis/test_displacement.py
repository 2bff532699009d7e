"""Displacement of traces whose every number is known because it was put there."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.analysis import (
    displacement_curve,
    displacement_phases,
    displacement_summary,
    margin_curve,
)
from rewardshape.errors import InputError
from rewardshape.theory import objective
from rewardshape.trace import TraceWriter, read_trace

PAIRS = 40
TOKENS = {"chosen": np.full(PAIRS, 10), "rejected": np.full(PAIRS, 20)}


def run_of(write_run, folder, level, chosen, rejected=None, **more):
    """A run whose pairs all move as given, in nats per token: arrays (steps,) or (steps, pairs)."""
    moves = {"chosen": chosen, "rejected": chosen if rejected is None else rejected}
    moves = {name: np.reshape(move, (len(move), -1)) for name, move in moves.items()}
    sums = {name: level[name] + moves[name] * TOKENS[name] for name in moves}
    return read_trace(write_run(folder, sums, num_tokens=TOKENS, **more))


def test_change_is_since_step_zero_in_sums_and_per_token(write_run, tmp_path, level):
    trace = run_of(write_run, tmp_path / "run", level, [0, -0.1, 0.2], [0, -0.3, -0.4])
    curve = displacement_curve(trace).set_index(["response", "step"])
    np.testing.assert_allclose(curve.loc["chosen", "logp_mean_change"], [0, -0.1, 0.2], atol=1e-9)
    np.testing.assert_allclose(curve.loc["chosen", "logp_sum_change"], [0, -1, 2], atol=1e-8)
    np.testing.assert_allclose(curve.loc["rejected", "logp_sum_change"], [0, -6, -8], atol=1e-8)
    assert curve.loc["chosen", "share_fallen"].tolist() == [0, 1, 0]
    assert curve.loc[("chosen", 0), "logp_sum"] == pytest.approx(level["chosen"].mean())
    assert curve.loc[("chosen", 0), "logp_mean"] == pytest.approx((level["chosen"] / 10).mean())


def test_same_pairs_are_drawn_at_every_step(write_run, tmp_path, level, rng):
    pattern = rng.normal(size=PAIRS)
    moves = np.stack([np.zeros(PAIRS), pattern, 3 * pattern])
    curve = displacement_curve(run_of(write_run, tmp_path / "run", level, moves)).query(
        "response == 'chosen'"
    )
    width = (curve["logp_mean_change_high"] - curve["logp_mean_change_low"]).to_numpy()
    assert width[2] == pytest.approx(3 * width[1], rel=1e-6)


def known_course(noise: np.ndarray) -> np.ndarray:
    """Rest for 20 steps, a fall to −0.5 at step 60, a return to −0.2 at step 100: (101, pairs)."""
    mean = np.interp(np.arange(101), [0, 20, 60, 100], [0, 0, -0.5, -0.2])
    return mean[:, None] + noise * (np.arange(101) > 0)[:, None]


def test_onset_depth_and_recovery_are_found(write_run, tmp_path, level, rng):
    noise = rng.normal(0, 0.1, PAIRS)
    noise -= noise.mean()
    trace = run_of(write_run, tmp_path / "run", level, known_course(noise))
    phases = displacement_phases(trace).set_index("response").loc["chosen"]
    # A fall of 0.0125 a step clears the interval, half a width of 1.96·0.1/√40 = 0.031, at its third step.
    half_width = 1.96 * noise.std() / np.sqrt(PAIRS)
    assert abs(phases["onset"] - (20 + np.ceil(half_width / 0.0125))) <= 1
    assert phases["depth"] == pytest.approx(-0.5, abs=1e-6)
    assert phases["depth_step"] == 60
    assert phases["change"] == pytest.approx(-0.2, abs=1e-6)
    assert phases["recovery"] == pytest.approx(0.3, abs=1e-6)
    assert phases["recovered_share"] == pytest.approx(0.6, abs=1e-6)
    assert phases["depth_low"] < -0.5 < phases["depth_high"]


def test_onset_is_for_good(write_run, tmp_path, level):
    course = [0, -0.2, -0.2, 0.0, -0.1, -0.1]  # the first fall did not last
    trace = run_of(write_run, tmp_path / "run", level, course, [0, -0.2, -0.2, 0.2, 0.2, 0.2])
    phases = displacement_phases(trace).set_index("response")
    assert phases.loc["chosen", "onset"] == 4
    assert phases.loc["rejected", "onset"] == 3  # changing sides starts anew


def test_no_onset_without_a_change_beyond_its_interval(write_run, tmp_path, level, rng):
    still = rng.normal(0, 0.3, (6, PAIRS))
    still -= still.mean(axis=1, keepdims=True)
    still[0] = 0
    phases = displacement_phases(run_of(write_run, tmp_path / "run", level, still))
    assert phases["onset"].isna().all()


def test_a_rising_run_has_no_depth_to_recover_from(write_run, tmp_path, level):
    phases = displacement_phases(run_of(write_run, tmp_path / "run", level, [0, 0.1, 0.2]))
    assert phases["depth"].tolist() == [0, 0]
    assert phases["recovered_share"].isna().all()


def test_a_fall_from_a_peak_is_told_even_where_the_run_ends_above_its_start(write_run, tmp_path, level):
    phases = displacement_phases(run_of(write_run, tmp_path / "run", level, [0, 0.3, 0.5, 0.1])).iloc[0]
    assert phases["peak"] == pytest.approx(0.5)
    assert phases["peak_step"] == 2
    assert phases["fall_from_peak"] == pytest.approx(-0.4)
    assert phases["fall_from_peak_high"] < 0


def test_a_step_without_numbers_has_no_shares_and_is_no_extreme(write_run, tmp_path, level):
    """The last step of a run that broke; and a single pair of it makes the share of all unknown."""
    for name, lost in (("all", np.nan), ("one", np.where(np.arange(PAIRS) == 3, np.nan, -0.3))):
        moves = np.stack([np.zeros(PAIRS), np.full(PAIRS, 0.1), np.full(PAIRS, -0.2), np.full(PAIRS, lost)])
        trace = run_of(write_run, tmp_path / name, level, moves, moves - 0.1)
        curve = displacement_curve(trace).query("response == 'chosen'")
        np.testing.assert_array_equal(curve["share_fallen"], [0, 0, 1, np.nan])
        assert curve[["share_fallen_low", "share_fallen_high"]].iloc[-1].isna().all()
        accuracy = margin_curve(trace)["accuracy"]
        assert accuracy.notna().tolist() == [True, True, True, False]
        phases = displacement_phases(trace).set_index("response").loc["chosen"]
        assert (phases["depth_step"], phases["peak_step"]) == (2, 1)
        assert (phases["depth"], phases["peak"]) == pytest.approx((-0.2, 0.1))
        assert phases[["change", "recovery", "recovered_share", "fall_from_peak"]].isna().all()


def test_a_run_without_any_number_has_no_phases(write_run, tmp_path, level):
    phases = displacement_phases(run_of(write_run, tmp_path / "run", level, [np.nan, np.nan]))
    assert phases[["change", "depth", "peak", "onset"]].isna().all(axis=None)


def test_margin_and_accuracy_follow_the_objective_of_the_manifest(write_run, tmp_path, level):
    alpha, beta, gamma = 0.25, 2.5, 0.5
    stated = {"name": "alphapo", "parameters": {"alpha": alpha, "beta": beta, "gamma": gamma}}
    trace = run_of(write_run, tmp_path / "run", level, [0, 0.1], [0, -0.1], objective=stated)
    s_w = level["chosen"] / 10 + [[0], [0.1]]
    s_l = level["rejected"] / 20 + [[0], [-0.1]]
    # equation 7 of arXiv 2501.03884, literally
    margin = beta * ((1 - np.exp(-alpha * s_w)) - (1 - np.exp(-alpha * s_l))) / alpha - gamma
    curve = margin_curve(trace)
    np.testing.assert_allclose(curve["margin"], margin.mean(axis=1), rtol=1e-8)
    np.testing.assert_allclose(curve["logp_margin"], (s_w - s_l).mean(axis=1), atol=1e-8)
    np.testing.assert_allclose(curve["accuracy"], (s_w > s_l).mean(axis=1))
    np.testing.assert_allclose(curve["at_target"], (margin >= 0).mean(axis=1))
    assert 0 < curve["at_target"].iloc[1] < 1


def test_margin_is_unknown_where_sums_do_not_suffice(write_run, tmp_path, level):
    stated = {"name": "ld_dpo", "parameters": dict(objective("ld_dpo", beta=0.1, tail=0.5).parameters)}
    sums = {name: np.stack([level[name], level[name] - 3]) for name in TOKENS}
    trace = read_trace(
        write_run(tmp_path / "run", sums, num_tokens=TOKENS, objective=stated, ref_logp_sums=level)
    )
    assert margin_curve(trace)[["margin", "at_target"]].isna().all(axis=None)
    assert displacement_summary(trace)["chosen_change"].iloc[0] == pytest.approx(-0.3)


def test_summary_has_one_row_per_run_ordered_by_alpha(write_run, tmp_path, level):
    for alpha, fall in ((1.0, -0.1), (-0.5, -0.3), (0.0, -0.2)):
        stated = {"name": "alphapo", "parameters": {"alpha": alpha, "beta": 2.5, "gamma": 0.5}}
        run_of(write_run, tmp_path / f"alpha={alpha}", level, [0, fall], [0, -1.0], objective=stated)
    summary = displacement_summary(read_trace(tmp_path))
    assert summary["alpha"].tolist() == [-0.5, 0.0, 1.0]
    np.testing.assert_allclose(summary["chosen_change"], [-0.3, -0.2, -0.1], atol=1e-9)
    np.testing.assert_allclose(summary["rejected_change"], -1.0, atol=1e-9)
    assert (summary["share_fallen"] == 1).all()
    assert (summary["onset"] == 1).all()


def test_greedy_and_entropy_changes_are_told_where_measured(write_run, tmp_path, level):
    sums = {name: np.stack([level[name], level[name] - TOKENS[name]]) for name in TOKENS}
    greedy = {name: np.stack([-0.5 * TOKENS[name], -0.2 * TOKENS[name]]) for name in TOKENS}
    folder = write_run(tmp_path / "run", sums, num_tokens=TOKENS, measured={"greedy_logp_sum": greedy})
    curve = displacement_curve(read_trace(folder)).query("step == 1 and response == 'chosen'").iloc[0]
    assert curve["logp_mean_change"] == pytest.approx(-1)
    assert curve["greedy_mean_change"] == pytest.approx(0.3)
    assert "entropy_mean" not in curve


def test_further_responses_may_be_missing_from_some_pairs(tmp_path):
    probe_set = {
        "pair_id": ["a", "a", "a", "b", "b"],
        "response": ["chosen", "rejected", "shuffled", "chosen", "rejected"],
        "num_tokens": [2, 2, 4, 2, 2],
        "ref_logp_sum": [None] * 5,
    }
    with TraceWriter(tmp_path, probe_set) as writer:
        writer.append(0, probe={"logp_sum": [-1.0, -2.0, -8.0, -3.0, -4.0]})
        writer.append(1, probe={"logp_sum": [-2.0, -2.0, -4.0, -4.0, -4.0]})
    curve = displacement_curve(read_trace(tmp_path)).query("step == 1").set_index("response")
    assert curve.loc["shuffled", "num_pairs"] == 1
    assert curve.loc["shuffled", "logp_mean_change"] == pytest.approx(1.0)
    assert curve.loc["chosen", "logp_mean_change"] == pytest.approx(-0.5)


def test_a_trace_without_step_zero_is_refused(write_run, tmp_path, level):
    trace = run_of(write_run, tmp_path / "run", level, [0, -0.1], steps=[3, 4])
    with pytest.raises(InputError, match="no probe set at step 0"):
        displacement_curve(trace)

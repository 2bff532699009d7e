"""The probe set as arrays, and what its objective makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from rewardshape.analysis.panels import (
    chosen_and_rejected,
    logp_margins,
    pair_weights,
    probe_panels,
    reward_margins,
    run_objective,
    score_gaps,
    step_by_step,
)
from rewardshape.errors import InputError
from rewardshape.theory import Responses, objective, objective_names
from rewardshape.trace import read_trace
from tests.analysis.test_displacement import TOKENS


def test_objectives_that_look_at_the_batch_see_one_step_at_a_time(write_run, tmp_path, level):
    """BCO shifts rewards by the mean of the batch: here the probe set, at each step anew."""
    stated = {"name": "bco", "parameters": {"beta": 0.1, "shift": "batch_mean"}}
    sums = {name: np.stack([level[name], level[name] - 3]) for name in TOKENS}
    trace = read_trace(
        write_run(tmp_path / "run", sums, num_tokens=TOKENS, objective=stated, ref_logp_sums=level)
    )
    chosen, rejected = pair_weights(*next(chosen_and_rejected(trace)))
    goal = objective("bco", beta=0.1, shift="batch_mean")
    for step in (0, 1):
        pair = [Responses(sums[name][step], TOKENS[name], level[name]) for name in ("chosen", "rejected")]
        expected = goal.pair_weights(*pair)
        np.testing.assert_allclose([chosen[step], rejected[step]], expected, rtol=1e-8)


def test_a_panel_holds_the_rows_of_the_trace_by_step_and_pair(write_run, tmp_path, level):
    sums = {name: level[name] - np.array([[0.0], [1.0], [3.0]]) for name in TOKENS}
    [trace_run] = (trace := read_trace(write_run(tmp_path / "run", sums, num_tokens=TOKENS))).runs
    [(chosen, rejected)] = chosen_and_rejected(trace)
    assert (chosen.run, chosen.response, rejected.response) == (trace_run, "chosen", "rejected")
    assert chosen.steps.tolist() == [0, 1, 2]
    for panel in (chosen, rejected):
        rows = trace.responses[trace.responses["response"] == panel.response]
        for row in rows.sample(20, random_state=0).itertuples():
            place = panel.pair_ids.index(row.pair_id)
            assert panel.sums["logp_sum"][row.step, place] == row.logp_sum
    np.testing.assert_allclose(
        chosen.change(per_token=False), [[0.0] * 40, [-1.0] * 40, [-3.0] * 40], atol=1e-9
    )
    np.testing.assert_allclose(rejected.change()[2], -3 / 20, atol=1e-9)
    np.testing.assert_allclose(
        logp_margins(chosen, rejected)[0], level["chosen"] / 10 - level["rejected"] / 20
    )


def test_margins_and_weights_are_those_of_the_papers_formula(write_run, tmp_path, level):
    """SimPO, arXiv:2405.14734: −log σ(β(m_w − m_l) − γ), whose weights are β(1 − σ(margin)) for both."""
    stated = {"name": "simpo", "parameters": {"beta": 2.0, "gamma": 0.5}}
    sums = {name: np.stack([level[name], level[name] - 3]) for name in TOKENS}
    trace = read_trace(write_run(tmp_path / "run", sums, num_tokens=TOKENS, objective=stated))
    [pair] = chosen_and_rejected(trace)
    truth = 2.0 * (sums["chosen"] / 10 - sums["rejected"] / 20) - 0.5
    np.testing.assert_allclose(reward_margins(run_objective(trace.runs[0]), *pair), truth, atol=1e-8)
    for weights in pair_weights(*pair):
        np.testing.assert_allclose(weights, 2.0 * expit(-truth), rtol=1e-8)


def test_what_sums_do_not_tell_is_unknown_and_no_guess(write_run, tmp_path, level):
    stated = {"name": "ld_dpo", "parameters": dict(objective("ld_dpo").parameters)}
    sums = {name: level[name][None] for name in TOKENS}
    folder = write_run(tmp_path / "run", sums, num_tokens=TOKENS, objective=stated, ref_logp_sums=level)
    [pair] = chosen_and_rejected(read_trace(folder))
    assert np.isnan(pair_weights(*pair)).all()
    assert np.isnan(reward_margins(objective("ld_dpo"), *pair)).all()
    np.testing.assert_array_equal(score_gaps(objective("ld_dpo"), *pair), logp_margins(*pair))


def test_a_manifest_without_an_objective_is_named(write_run, tmp_path, level):
    folder = write_run(
        tmp_path / "run", {name: level[name][None] for name in TOKENS}, num_tokens=TOKENS, objective={"x": 1}
    )
    with pytest.raises(InputError, match="the manifest of run 'run' states no objective"):
        run_objective(read_trace(folder).runs[0])


MOVES = {"chosen": np.linspace(0.0, 3.0, 40), "rejected": np.linspace(4.0, 1.0, 40)}
TRAINED = [name for name in objective_names() if objective(name).sums_suffice]


@pytest.mark.parametrize("name", TRAINED)
def test_many_steps_at_once_are_what_each_step_alone_is(write_run, tmp_path, level, monkeypatch, name):
    """Of every objective that the probe trains: blocks of three steps, the last one short, against single steps."""
    goal = objective(name)
    stated = {"name": goal.name, "parameters": goal.parameters}
    sums = {side: np.stack([level[side] - step * move for step in range(7)]) for side, move in MOVES.items()}
    reference = level if goal.needs_reference else None
    folder = write_run(tmp_path, sums, num_tokens=TOKENS, objective=stated, ref_logp_sums=reference)
    chosen, rejected = next(chosen_and_rejected(read_trace(folder)))
    monkeypatch.setattr("rewardshape.analysis.panels.BLOCK", 3 * len(chosen.pair_ids))
    for function in (goal.pair_scores, goal.pair_margin, goal.pair_weights, goal.pair_loss):
        found = step_by_step(goal, function, chosen, rejected)
        for step in range(7):
            pair = [
                Responses(p.sums["logp_sum"][step], p.num_tokens, p.ref_logp_sum) for p in (chosen, rejected)
            ]
            np.testing.assert_array_equal(found[step], np.asarray(function(*pair)))


def test_responses_are_joined_by_their_pair_whatever_the_order_of_their_rows(write_run, tmp_path, level):
    sums = {name: np.stack([level[name], level[name] - np.arange(40.0)]) for name in TOKENS}
    trace = read_trace(write_run(tmp_path / "run", sums, num_tokens=TOKENS))
    rows = trace.responses
    of_rejected = rows["response"] == "rejected"
    turned = replace(trace, responses=pd.concat([rows[~of_rejected], rows[of_rejected].iloc[::-1]]))
    [pair], [same] = chosen_and_rejected(trace), chosen_and_rejected(turned)
    np.testing.assert_array_equal(logp_margins(*same), logp_margins(*pair))
    gone = of_rejected & (rows["pair_id"] == rows["pair_id"].iloc[5])
    with pytest.raises(InputError, match="of the probe set has no rejected response"):
        probe_panels(replace(trace, responses=rows[~gone]))


def test_a_pair_whose_prompt_is_not_recorded_stands_for_its_own(write_run, tmp_path, level):
    trace = read_trace(write_run(tmp_path / "run", {n: level[n][None] for n in TOKENS}, num_tokens=TOKENS))
    ids = trace.responses["pair_id"]
    known = ids.isin(ids.unique()[:20])
    some = replace(trace, responses=trace.responses.assign(prompt_id=ids.where(known, None)))
    for panel in probe_panels(some):
        assert len(set(panel.prompt_codes)) == 40
        assert min(panel.prompt_codes) == 0

"""The forecast: its clock against recorded learning rates, its forms on curves with a known end, real runs held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rewardshape import read_trace
from rewardshape.analysis.forecast import SCHEDULES, expected_end, forecast_end, schedule_clock
from rewardshape.analysis.panels import chosen_and_rejected
from rewardshape.errors import InputError

RUNS = Path(__file__).parents[2] / "figures" / "runs" / "embedded"
PLAN = {"steps": 100, "schedule": "cosine", "warmup_ratio": 0.1}


def test_the_clock_is_the_share_of_the_learning_rate_that_was_spent():
    trace = read_trace(RUNS)
    for run in trace.runs:
        steps = trace.steps[trace.steps["run"] == run.name].set_index("step")["learning_rate"].fillna(0)
        spent = steps.cumsum() / steps.sum()
        clock = schedule_clock(run.manifest["run"], steps.index.to_numpy())
        np.testing.assert_allclose(clock, spent, atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "constant_with_warmup", "cosine"])
def test_the_clock_is_that_of_transformers(schedule):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made = transformers.get_scheduler(schedule, optimizer, num_warmup_steps=10, num_training_steps=100)
    rates = []
    for _ in range(100):
        rates.append(made.get_last_lr()[0])
        optimizer.step()
        made.step()
    expected = np.cumsum(rates) / np.sum(rates)
    clock = schedule_clock({**PLAN, "schedule": schedule}, np.arange(101))
    np.testing.assert_allclose(clock[1:], expected, atol=1e-12)
    assert clock[0] == 0


@pytest.fixture
def trace_of(write_run, tmp_path):
    """A run of 100 steps whose chosen responses change as a function of the clock says, and rejected not at all."""

    def make(curve, *, noise=0.0, steps=range(0, 101, 5), pairs=40, schedule=PLAN["schedule"]):
        steps = list(steps)
        clock = schedule_clock(PLAN, np.array(steps))
        spread = noise * np.random.default_rng(0).normal(size=pairs)
        chosen = -50 + 10 * (curve(clock)[:, None] + clock[:, None] * spread)
        logps = {"chosen": chosen, "rejected": np.full_like(chosen, -60)}
        tokens = dict.fromkeys(logps, np.full(pairs, 10))
        plan = {"seed": 0, **PLAN, "schedule": schedule}
        return read_trace(
            write_run(tmp_path / f"run-{noise}", logps, num_tokens=tokens, steps=steps, run=plan)
        )

    return make


def row(trace, quantity="chosen", **how):
    return forecast_end(trace, **how).set_index("quantity").loc[quantity]


def test_a_straight_curve_is_foretold_by_both_forms(trace_of):
    found = row(trace_of(lambda clock: -0.3 * clock), seen=0.2)
    assert (found["parabola"], found["forecast"]) == pytest.approx((-0.3, -0.3))
    assert found["low"] == pytest.approx(-0.3)
    assert found["step"] == 20
    assert found["last_step"] == 100


def test_a_curve_that_starts_flat_is_the_parabola_halfway_to_the_edge_of_the_interval(trace_of):
    found = row(trace_of(lambda clock: -0.5 * clock**2), seen=0.4)
    assert found["parabola"] == pytest.approx(-0.5)
    assert (found["forecast"] + found["low"]) / 2 == pytest.approx(-0.5)
    assert -0.5 < found["forecast"] < found["now"]  # "it stays as it is" is further off


def test_pairs_that_differ_widen_the_interval(trace_of):
    close, apart = (row(trace_of(lambda c: -0.3 * c, noise=noise), seen=0.2) for noise in (0.01, 0.5))
    assert apart["high"] - apart["low"] > 10 * (close["high"] - close["low"])


def test_pairs_of_one_prompt_that_move_alike_are_one():
    """Eight pairs of each of eight prompts say what eight pairs say: t of 7 degrees of freedom, twice."""
    clock, slopes = np.linspace(0, 0.4, 9), np.linspace(-2, 1, 8)
    once = expected_end(clock, clock[:, None] * slopes)
    assert once["high"] - once["forecast"] == pytest.approx(2 * stats.t.ppf(0.975, 7) * stats.sem(slopes))
    copied = expected_end(clock, clock[:, None] * np.repeat(slopes, 8), np.repeat(np.arange(8), 8))
    assert copied == pytest.approx(once)
    alone = expected_end(clock, clock[:, None] * slopes, np.zeros(8, int))
    assert alone["forecast"] == pytest.approx(-0.5)
    assert np.isnan([alone["low"], alone["high"]]).all()


def test_the_prompts_of_a_run_are_those_of_its_forecast(write_run, tmp_path):
    """Forty pairs of two prompts: the interval is that of two numbers."""
    steps, prompts = np.arange(0, 41, 5), np.arange(40) % 2
    fall = schedule_clock(PLAN, steps)[:, None] * np.array([-0.2, -0.4])[prompts]
    sums = {"chosen": -50 + 10 * fall, "rejected": -60 + 0 * fall}
    tokens = dict.fromkeys(sums, np.full(40, 10))
    texts = [
        {"pair_id": f"pairs.jsonl:{i + 1}", "prompt": f"{prompt}", "responses": {}}
        for i, prompt in enumerate(prompts)
    ]
    found = row(read_trace(write_run(
        tmp_path / "run", sums, num_tokens=tokens, steps=steps.tolist(), texts=texts, run={"seed": 0, **PLAN}
    )))  # fmt: skip
    assert found["forecast"] - found["low"] == pytest.approx(2 * stats.t.ppf(0.975, 1) * 0.1, rel=1e-4)


def test_the_margin_is_chosen_less_rejected(trace_of):
    table = forecast_end(trace_of(lambda clock: -0.3 * clock**2), seen=0.3).set_index("quantity")
    assert table.loc["margin", "forecast"] == pytest.approx(table.loc["chosen", "forecast"])
    assert table.loc["rejected", "forecast"] == pytest.approx(0)


def test_a_run_that_is_still_going_is_foretold_from_all_there_is(trace_of):
    found = row(trace_of(lambda clock: -0.3 * clock, steps=range(0, 41, 5)))
    assert (found["step"], found["last_step"]) == (40, 100)
    assert found["forecast"] == pytest.approx(-0.3)


def test_too_little_is_not_foretold(trace_of):
    assert forecast_end(trace_of(lambda clock: -clock, steps=(0, 5, 10))).empty


@pytest.mark.parametrize("schedule", ["polynomial", "cosine_with_restarts", "inverse_sqrt", None])
def test_a_schedule_that_is_not_known_is_not_taken_for_another(schedule, trace_of):
    assert forecast_end(trace_of(lambda clock: -clock, schedule=schedule)).empty


def test_every_schedule_of_the_probe_is_known():
    from rewardshape.probe.settings import SCHEDULES as OF_THE_PROBE

    assert set(SCHEDULES) == set(OF_THE_PROBE)


def test_no_share_is_refused(trace_of):
    with pytest.raises(InputError, match="seen = 2"):
        forecast_end(trace_of(lambda clock: -clock), seen=2)


def test_on_real_runs_it_comes_nearer_than_staying_as_it_is_and_its_intervals_hold():
    """The kept runs were made after the form was fixed."""
    trace = read_trace(RUNS)
    table = forecast_end(trace, seen=0.2)
    off, stays = [], []
    for chosen, rejected in chosen_and_rejected(trace):
        mine = table[table["run"] == chosen.run.name].set_index("quantity")
        for quantity, panel in (("chosen", chosen), ("rejected", rejected)):
            end = panel.change()[-1].mean()
            assert mine.loc[quantity, "low"] <= end <= mine.loc[quantity, "high"]
            off.append(abs(mine.loc[quantity, "forecast"] - end))
            stays.append(abs(mine.loc[quantity, "now"] - end))
    assert np.mean(off) < np.mean(stays)

"""Whether answers got worse: win rates by hand, by statsmodels, and over many simulations with known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import special, stats

from rewardshape.analysis.generations import (
    _rate_interval,
    against,
    chosen_checkpoint,
    generation_curve,
    judge_generations,
    length_controlled_win_rate,
)
from rewardshape.errors import InputError
from rewardshape.trace import read_trace


def answers(step, gold, *, prompts=None, tokens=10):
    count = len(gold)
    return pd.DataFrame(
        {
            "step": step,
            "prompt_id": [f"p{i}" for i in range(count)] if prompts is None else prompts,
            "gold": gold,
            "num_tokens": tokens,
        }
    )


def test_win_rate_by_hand():
    """Prompt a: 1 of 4 comparisons won, 1 tied; prompt b: 2 of 2 won."""
    first = answers(0, [1.0, 3.0, 0.0], prompts=["a", "a", "b"])
    last = answers(9, [1.0, 2.0, 1.0, 2.0], prompts=["a", "a", "b", "b"])
    found = against(first, last)
    assert found.win_rate == pytest.approx(((0.5 + 1 + 0 + 0) / 4 + 1) / 2)
    assert (found.step, found.first_step, found.num_prompts) == (9, 0, 2)
    assert found.word == "cannot tell"  # two prompts


def simulated(rng, effect, prompts=128, each=2):
    """Two steps of answers whose quality differs by `effect` standard deviations; prompts differ in difficulty."""
    hard = rng.normal(size=prompts)
    steps = []
    for step, shift in ((0, 0.0), (1, effect)):
        gold = hard[:, None] + shift + rng.normal(size=(prompts, each))
        steps.append(answers(step, gold.ravel(), prompts=np.repeat([f"p{i}" for i in range(prompts)], each)))
    return against(*steps)


def test_words_are_right_at_their_rates():
    """No change is called better or worse in 5 % at most; a clear change is seen; equally good needs many prompts."""
    rng = np.random.default_rng(0)
    none = [simulated(rng, 0.0).word for _ in range(200)]
    assert np.mean([word in ("lost to worse answers", "answers got better") for word in none]) <= 0.08
    assert np.mean([simulated(rng, -0.6).word == "lost to worse answers" for _ in range(100)]) > 0.95
    assert np.mean([simulated(rng, 0.6).word == "answers got better" for _ in range(100)]) > 0.95
    assert {simulated(rng, 0.0, prompts=1000).word for _ in range(20)} <= {
        "lost to equally good ones",
        "cannot tell",
    } | {
        "answers got better",
        "lost to worse answers",
    }
    assert (
        np.mean([simulated(rng, 0.0, prompts=1000).word == "lost to equally good ones" for _ in range(40)])
        > 0.85
    )
    assert simulated(rng, 0.0, prompts=10).word == "cannot tell"


def test_interval_covers_the_true_rate():
    """Of two normals one effect apart, P(now wins) = Φ(effect/√2)."""
    from scipy.stats import norm

    rng = np.random.default_rng(1)
    truth = norm.cdf(0.5 / np.sqrt(2))
    found = [simulated(rng, 0.5, prompts=64, each=1) for _ in range(400)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.92 <= covered <= 0.98


def judged_by_length(rng, prompts, each, constant, slope, mean=5.0):
    """Outcomes by the model itself, several comparisons a prompt that share a length and an error."""
    lengths = np.repeat(rng.normal(mean, 20, size=prompts), each) + rng.normal(0, 5, size=prompts * each)
    chance = special.expit(constant + slope * np.tanh(lengths / lengths.std()))
    shared = stats.norm.cdf(np.repeat(rng.normal(size=prompts), each))  # as answers to one prompt are alike
    return (shared < chance).astype(float), lengths, np.repeat(np.arange(prompts), each)


def test_length_control_is_the_logistic_regression_of_statsmodels_with_clusters(rng):
    outcomes, lengths, prompts = judged_by_length(rng, 100, 4, 0.4, 1.2)
    model = sm.GLM(outcomes, sm.add_constant(np.tanh(lengths / lengths.std())), family=sm.families.Binomial())
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": prompts, "use_correction": False})
    half = stats.t.ppf(0.975, 99) * fit.bse[0] * np.sqrt(100 / 99)
    expected = special.expit([fit.params[0], fit.params[0] - half, fit.params[0] + half])
    assert length_controlled_win_rate(outcomes, lengths, prompts) == pytest.approx(expected, abs=1e-5)


def test_the_interval_at_equal_length_covers_the_true_rate(rng):
    truth = special.expit(0.4)
    found = [
        length_controlled_win_rate(*judged_by_length(rng, 64, each, 0.4, 1.2))
        for each in (1, 4)
        for _ in range(200)
    ]
    assert 0.92 <= np.mean([low <= truth <= high for _, low, high in found]) <= 0.98


def test_wins_by_length_alone_vanish_under_length_control(rng):
    outcomes, lengths, prompts = judged_by_length(rng, 4000, 1, 0.0, 1.5, mean=30)
    assert outcomes.mean() > 0.65  # now longer, and the judge likes length
    assert length_controlled_win_rate(outcomes, lengths, prompts)[0] == pytest.approx(0.5, abs=0.05)


def test_equal_lengths_leave_the_plain_rate():
    rate, low, high = length_controlled_win_rate(np.array([1.0, 0.0, 1.0]), np.zeros(3), np.arange(3))
    assert rate == pytest.approx(2 / 3)
    assert low < rate < high


@pytest.mark.parametrize(
    ("outcomes", "lengths"),
    [([1.0, 1.0, 1.0], [1.0, -2.0, 3.0]), ([1.0, 0.0, 1.0], [1.0, 2.0, 3.0])],  # all won; always the longer
)
def test_of_equal_length_nothing_is_said_where_nothing_is_known(outcomes, lengths):
    assert np.isnan(length_controlled_win_rate(np.array(outcomes), np.array(lengths), np.arange(3))).all()
    shorter = answers(0, np.zeros(64), tokens=10)
    longer = answers(9, np.arange(64.0) % 3 - 1, tokens=30)
    assert "equal length" not in against(shorter, longer).sentence
    alike = longer.assign(num_tokens=10 + np.arange(64) % 2)
    assert "; at equal length " in against(shorter, alike).sentence


@pytest.fixture
def write_samples(write_run, tmp_path):
    def write(samples, name="run", alpha=0.25):
        sums = {"chosen": np.full((len(samples), 3), -4.0), "rejected": np.full((len(samples), 3), -5.0)}
        objective = {"name": "alphapo", "parameters": {"alpha": alpha, "beta": 2.5, "gamma": 0.25}}
        return write_run(
            tmp_path / name,
            sums,
            num_tokens={"chosen": np.full(3, 4), "rejected": np.full(3, 4)},
            steps=sorted(samples),
            samples=samples,
            objective=objective,
        )

    return write


def table(gold, texts=None, tokens=4):
    count = len(gold)
    return {
        "prompt_id": [f"p{i}" for i in range(count)],
        "text": texts or ["a b"] * count,
        "num_tokens": [tokens] * count,
        "logp_sum": [-3.0] * count,
        "ref_logp_sum": [-3.5] * count,
        "gold": gold,
    }


def test_variety_of_a_step_by_hand(write_samples):
    texts = ["a b a b", "a c"]
    curve = generation_curve(
        read_trace(write_samples({0: table([1.0, 2.0], texts), 5: table([0.0, 3.0], texts)}))
    )
    row = curve.iloc[0]
    assert row["distinct_1"] == pytest.approx(3 / 6)  # a, b, c of six words
    assert row["distinct_2"] == pytest.approx(3 / 4)  # ab, ba, ac of ab, ba, ab, ac
    assert row["repetition"] == pytest.approx((1 / 3 + 0) / 2)
    assert row["kl"] == pytest.approx(0.5)
    assert curve["win_rate"].tolist() == [0.5, 0.5]


def test_the_checkpoint_is_judged_on_prompts_that_did_not_choose_it(write_samples):
    """Gold is pure noise at 12 steps: the choosing half looks better than the start, the judging half does not."""
    rng = np.random.default_rng(3)
    samples = {step: table(rng.normal(size=64).tolist()) for step in range(12)}
    trace = read_trace(write_samples(samples))
    rows = [chosen_checkpoint(trace, seed=seed).iloc[0] for seed in range(40)]
    assert np.mean([row["gold_of_choice"] for row in rows]) > 0.15
    assert abs(np.mean([row["gold"] for row in rows])) < 0.1


def test_a_run_without_two_prompts_at_every_step_chooses_no_checkpoint(write_samples, tmp_path):
    """One prompt at two steps; two prompts at one step each; greedy samples of none."""
    write_samples({0: table([1.0]), 9: table([2.0])}, "sweep/one", 0.0)
    other = table([2.0, 2.0]) | {"prompt_id": ["q0", "q1"]}
    write_samples({0: table([1.0, 1.0]), 9: other}, "sweep/others", 0.5)
    assert chosen_checkpoint(read_trace(tmp_path / "sweep")).empty
    write_samples({0: table([1.0, 1.0]), 9: table([2.0, 3.0])}, "sweep/two", 1.0)
    trace = read_trace(tmp_path / "sweep")
    assert chosen_checkpoint(trace)[["run", "step"]].to_numpy().tolist() == [["two", 9]]
    assert chosen_checkpoint(trace, temperature=0.0).empty


def test_runs_are_judged_by_name(write_samples, tmp_path):
    rng = np.random.default_rng(4)
    for name, alpha, shift in (("worse", 0.0, -2.0), ("same", 1.0, 0.0)):
        start = rng.normal(size=40)
        write_samples({0: table(start.tolist()), 9: table((start + shift).tolist())}, f"sweep/{name}", alpha)
    found = judge_generations(read_trace(tmp_path / "sweep")).set_index("run")
    assert found.loc["worse", "word"] == "lost to worse answers"
    assert "step 9 against step 0" in found.loc["worse", "sentence"]


def test_without_samples_or_gold_it_says_what_to_add(write_samples):
    ungraded = table([1.0, 2.0]) | {"gold": [None, None]}
    with pytest.raises(InputError, match="--sample-every K and --gold"):
        judge_generations(read_trace(write_samples({0: ungraded})))


def test_a_reward_that_failed_leaves_its_answer_out_and_no_other(write_run, tmp_path, rng):
    """64 prompts whose answers all got better; of one the gold reward is missing at step 0, of one at step 10."""
    prompts = [f"p{i}" for i in range(64)]
    gold = rng.normal(size=64)
    samples = {
        step: {
            "prompt_id": prompts, "text": ["so"] * 64, "num_tokens": [2] * 64,
            "gold": [None if i == missing else value for i, value in enumerate(gold + shift)],
            "logp_sum": [-2.0] * 64, "ref_logp_sum": [-2.0] * 64,
        }
        for step, shift, missing in ((0, 0.0, 3), (10, 1.0, 4))
    }  # fmt: skip
    level = {name: np.full((2, 4), -10.0) for name in ("chosen", "rejected")}
    tokens = {name: np.full(4, 5) for name in level}
    trace = read_trace(write_run(tmp_path, level, num_tokens=tokens, steps=[0, 10], samples=samples))
    [found] = judge_generations(trace).to_dict("records")
    assert (found["num_prompts"], found["win_rate"]) == (62, 1.0)
    assert generation_curve(trace).set_index("step").loc[10, "win_rate"] == 1.0


def test_equal_rates_that_are_no_round_number_have_the_exact_bound():
    low, high = _rate_interval(np.full(64, 0.45))
    bound = 1 - 0.025 ** (1 / 64)
    assert (low, high) == pytest.approx((0.45 - bound, 0.45 + bound))

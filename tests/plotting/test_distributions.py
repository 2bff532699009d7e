"""What means hide: every pair before and after, read back from the artists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from scipy import stats

from rewardshape.analysis.distributions import pair_levels, win_rates
from rewardshape.analysis.generations import chosen_checkpoint
from rewardshape.analysis.samples import kl_curve, samples_of
from rewardshape.errors import InputError
from rewardshape.plotting.distributions import (
    plot_cosine,
    plot_ecdf,
    plot_kl,
    plot_length,
    plot_margins,
    plot_quantiles,
    plot_win_rate,
)
from rewardshape.plotting.style import CHOSEN, alpha_color
from rewardshape.trace import read_trace

EMBEDDED = Path(__file__).resolve().parents[2] / "figures" / "runs" / "embedded"


@pytest.fixture(scope="module")
def sweep():
    return read_trace(EMBEDDED)


@pytest.fixture(scope="module")
def one(sweep):
    return sweep.run(sweep.runs[0].name)


def line(ax, label):
    return next(item for item in ax.get_lines() if item.get_label() == label)


def test_levels_are_those_of_the_trace(one):
    levels = pair_levels(one)
    rows = one.responses.query("split == 'probe' and response == 'chosen'")
    for moment, step in (("before", 0), ("after", rows["step"].max())):
        shown = levels[levels["moment"] == moment].set_index("pair_id")
        at = rows[rows["step"] == step].set_index("pair_id")
        np.testing.assert_allclose(shown["chosen"], (at["logp_sum"] / at["num_tokens"]).reindex(shown.index))
    np.testing.assert_allclose(levels["margin"], levels["chosen"] - levels["rejected"])


def test_ecdf_reaches_one_half_at_the_median(one):
    levels = pair_levels(one)
    ax = plot_ecdf(levels)
    x, share = line(ax, "chosen, after").get_data()
    after = levels.loc[levels["moment"] == "after", "chosen"]
    assert np.interp(0.5, share, x) == pytest.approx(after.median(), abs=np.diff(np.sort(after)).max())
    assert same_color(line(ax, "chosen, after").get_color(), CHOSEN)
    assert line(ax, "chosen, before").get_linestyle() == "--"


def test_histogram_holds_every_pair(one):
    levels = pair_levels(one)
    ax = plot_margins(levels)
    assert sum(patch.get_height() for patch in ax.patches[:24]) == levels["pair_id"].nunique()


def test_quantiles_are_those_of_numpy_by_alpha(sweep):
    levels = pair_levels(sweep)
    ax = plot_quantiles(levels)
    for box, run in zip(ax.patches, sorted(sweep.runs, key=lambda run: run.alpha), strict=True):
        values = levels.query("run == @run.name and moment == 'after'")["chosen"]
        low, high = np.quantile(values, [0.25, 0.75])
        assert (box.get_y(), box.get_y() + box.get_height()) == pytest.approx((low, high))
        assert same_color(box.get_facecolor()[:3], alpha_color(run.alpha)[:3])


def test_length_names_the_rank_correlation(one):
    levels = pair_levels(one)
    after = levels[levels["moment"] == "after"]
    rho = stats.spearmanr(after["chosen_tokens"], after["chosen"]).statistic
    labels = [text.get_text() for text in plot_length(levels).get_legend().get_texts()]
    assert labels[0] == f"chosen, ρ = {rho:.2f}".replace("-", "−")


def test_win_rate_counts_ties_half_against_step_0(sweep):
    rates = win_rates(sweep)
    run = sweep.runs[0].name
    samples = samples_of(sweep).query("run == @run")  # of one temperature
    last = samples["step"].max()
    won = []
    for prompt in samples["prompt_id"].unique():
        mine = samples[samples["prompt_id"] == prompt]
        then, now = (mine.loc[mine["step"] == step, "gold"].to_numpy() for step in (0, last))
        won.append(np.mean([(b > a) + 0.5 * (b == a) for a in then for b in now]))
    found = rates[(rates["run"] == run) & (rates["step"] == last)].iloc[0]
    assert found["win_rate"] == pytest.approx(np.mean(won))
    ax = plot_win_rate(rates)
    assert found["win_rate"] in np.concatenate([one.get_ydata() for one in ax.get_lines()])


def test_the_front_is_the_most_that_is_won_at_no_more_kl(line):
    rates = pd.DataFrame(
        {"run": "r", "setting": "alpha=0", "alpha": 0.0, "step": [5, 10, 15, 20], "kl": [1.0, 3.0, 2.0, 4.0],
         "win_rate": [0.6, 0.55, 0.7, 0.4]}
    ).assign(win_rate_low=0.3, win_rate_high=0.8, picked=[False, False, True, False])  # fmt: skip
    ax = plot_win_rate(rates)
    front = line(ax, "α = 0")
    np.testing.assert_allclose(front.get_xdata(), np.sqrt([0, 1, 2]))  # beyond, nothing more is won
    np.testing.assert_allclose(front.get_ydata(), [0.5, 0.6, 0.7])
    np.testing.assert_allclose(line(ax, "_picked").get_xydata(), [[np.sqrt(2), 0.7]])
    losing = plot_win_rate(rates.assign(win_rate=[0.4, 0.3, 0.2, 0.1], picked=False))
    np.testing.assert_allclose(line(losing, "α = 0").get_xydata(), [[0, 0.5]])  # step 0 itself
    np.testing.assert_allclose(line(losing, "_picked").get_xydata(), [[0, 0.5]])
    unknown = plot_win_rate(rates.assign(picked=pd.array([None] * 4, dtype="boolean")))
    assert line(unknown, "_picked").get_xydata().size == 0


def test_the_step_that_is_picked_is_the_one_that_half_of_the_prompts_chose(sweep):
    rates, chosen = win_rates(sweep), chosen_checkpoint(sweep).set_index("run")["step"]
    picked = rates[rates["picked"]].set_index("run")["step"]
    assert len(picked)
    assert picked.to_dict() == chosen[chosen > 0].to_dict()


def test_kl_is_drawn_with_its_standard_errors(sweep, line):
    curve = kl_curve(sweep)
    ax = plot_kl(curve)
    [run] = [one for one in sweep.runs if one.alpha == 1]
    samples = samples_of(sweep, run)
    kl = samples.groupby("step")["kl"]
    np.testing.assert_allclose(line(ax, "α = 1").get_ydata(), kl.mean())
    mine = curve[curve["run"] == run.name]
    of_prompts = samples.groupby(["step", "prompt_id"])["kl"].mean().groupby("step")
    np.testing.assert_allclose(mine["kl_high"] - mine["kl"], 2 * of_prompts.sem())
    assert len(ax.collections) == len(sweep.runs)


def test_win_rate_needs_gold(one):
    import dataclasses

    without = dataclasses.replace(one, samples=one.samples.drop(columns="gold"))
    with pytest.raises(InputError, match="gold"):
        win_rates(without)


def test_cosine_is_the_median_over_pairs(sweep):
    rows = sweep.geometry
    table = rows[["run", "step"]].assign(cosine=rows["gram_wl"] / np.sqrt(rows["gram_ww"] * rows["gram_ll"]))
    names = {run.name: run for run in sweep.runs}
    table["setting"] = [names[name].setting for name in table["run"]]
    table["alpha"] = [names[name].alpha for name in table["run"]]
    ax = plot_cosine(table)
    mine = table[table["alpha"] == 1].groupby("step")["cosine"].median()
    np.testing.assert_allclose(line(ax, "α = 1").get_ydata(), mine)

"""What docs/alpha.md says of the completed stages follows from the tables beside it, by scipy's own t-test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = " ".join((DOCS / "alpha.md").read_text(encoding="utf-8").split())
KEPT = {file.stem: pd.read_csv(file) for file in (DOCS / "alpha_study").glob("*.csv")}
RUNS = KEPT["shared"]
UNBIASED = pd.read_csv(DOCS / "alpha_study" / "bias0" / "shared.csv")


def told(value: float, digits: int = 3, sign: bool = True) -> str:
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def against(column: str, stage: str, alpha: float) -> str:
    """Mean difference with its interval to α = 0, or of the tuned run to its control; nothing where it is the same."""
    wide = KEPT[stage].pivot(index="seed", columns="alpha", values=column)
    if stage == "control":
        one, other = KEPT["judge"].pivot(index="seed", columns="alpha", values=column)[alpha], wide[alpha]
    elif alpha:
        one, other = wide[alpha], wide[0.0]
    else:
        return ""
    low, high = stats.ttest_rel(one, other).confidence_interval(0.95)
    return f"{told((one - other).mean())} [{told(low)}, {told(high)}]"


@pytest.mark.parametrize("stage", ["shared", "judge", "control"])
@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.0, 0.25, 0.5, 1.0])
def test_a_row_of_the_table_follows_from_the_runs(alpha, stage):
    rows = KEPT[stage][KEPT[stage]["alpha"] == alpha]
    if (alpha, stage) == (0.0, "control"):
        assert rows.empty
        return
    assert sorted(rows["seed"]) == list(range(3, 11))
    cells = [told(rows[name].mean(), sign=False) for name in ("gold T=0.7", "gold T=0")]
    cells += [against(name, stage, alpha) for name in ("gold T=0.7", "gold T=0")]
    cells += [told(rows["chosen_change"].mean()), against("chosen_change", stage, alpha)]
    cells += [
        f"{rows['at_target'].mean():.0%}".replace("%", " %"),
        told(rows["kl_end"].mean(), 2, sign=False),
    ]
    cells += [told(rows["end T=0.7"].mean(), sign=False)]
    row = f"| {alpha:g} | {' | '.join(cells)} |".replace("| -", "| −")
    assert " ".join(row.split()) in PAGE


def interval(differences, digits: int = 3) -> str:
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    return f"{told(np.mean(differences), digits)} [{told(low, digits)}, {told(high, digits)}]"


def of_unbiased(column: str) -> pd.DataFrame:
    return UNBIASED.pivot(index="seed", columns="alpha", values=column)


@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.0, 0.25, 0.5, 1.0])
def test_a_row_of_bias_0_follows_from_the_runs(alpha):
    """Over-optimization, last minus chosen checkpoint, with the bias and without."""
    rows, biased = (runs[runs["alpha"] == alpha].set_index("seed") for runs in (UNBIASED, RUNS))
    assert sorted(rows.index) == sorted(biased.index) == list(range(3, 11))
    gold = of_unbiased("gold T=0.7")
    cells = [told(rows["gold T=0.7"].mean(), sign=False), interval(gold[alpha] - gold[0.0]) if alpha else ""]
    cells += [told(rows[name].mean(), sign=False) for name in ("gold T=0", "end T=0.7")]
    cells += [interval(each["end T=0.7"] - each["gold T=0.7"]) for each in (rows, biased)]
    cells += [told(each["kl_end"].mean(), 2, sign=False) for each in (rows, biased)]
    row = f"| {alpha:g} | {' | '.join(cells)} |".replace("| -", "| −")
    assert " ".join(row.split()) in PAGE


def test_what_is_said_of_bias_0():
    lost = of_unbiased("end T=0.7") - of_unbiased("gold T=0.7")
    assert max(np.abs(np.array(stats.ttest_1samp(lost, 0).confidence_interval(0.95))).ravel()) < 0.02
    with_bias = RUNS.pivot(index="seed", columns="alpha", values="end T=0.7")
    lower = (of_unbiased("end T=0.7") - with_bias).mean()
    assert f"it stands {lower.min():.2f} to {lower.max():.2f} lower than without" in PAGE
    slopes = {
        name: [stats.linregress(row.index.to_numpy(float), row).slope for _, row in table.iterrows()]
        for name, table in ((name, of_unbiased(name)) for name in ("gold T=0.7", "gold T=0", "kl_end"))
    }
    assert f"over α is {interval(slopes['gold T=0.7'], 4)}" in PAGE
    assert f"divergence has a slope, too, {interval(slopes['kl_end'])} nats per unit of α" in PAGE
    assert stats.ttest_1samp(slopes["gold T=0"], 0).pvalue > 0.05
    along, biased = (
        pd.read_csv(DOCS / "alpha_study" / folder / "shared_along_margin.csv").query(
            "alpha == -1 and share == 1"
        )
        for folder in ("bias0", "")
    )
    assert f"higher, by {interval(along['difference'], 4)} nats per token" in PAGE
    assert 0.2 < along["difference"].mean() / biased["difference"].mean() < 0.3


@pytest.mark.parametrize("stage", ["shared", "judge"])
def test_the_six_tests_after_holm(stage):
    p = []
    for column in ("gold T=0.7", "gold T=0"):
        wide = KEPT[stage].pivot(index="seed", columns="alpha", values=column)
        slopes = [stats.linregress(wide.columns.to_numpy(float), row).slope for row in wide.to_numpy()]
        p += [stats.ttest_rel(wide[alpha], wide[0.0]).pvalue for alpha in (0.25, -0.5)]
        p.append(stats.ttest_1samp(slopes, 0).pvalue)
    adjusted = np.empty(6)
    order = np.argsort(p)
    for place, number in enumerate(order):
        before = adjusted[order[place - 1]] if place else 0
        adjusted[number] = min(1, max(before, (6 - place) * p[number]))
    quarter, half, slope, quarter_greedy, half_greedy, slope_greedy = (f"{value:.2f}" for value in adjusted)
    assert (
        f"Holm's p: α = 0.25 {quarter} at T = 0.7 and {quarter_greedy} greedy, "
        f"α = −0.5 {half} and {half_greedy}, the slope over α {slope} and {slope_greedy}" in PAGE
    )
    assert min(adjusted) > 0.05


def test_where_every_alpha_is_best():
    mean = KEPT["tune"].groupby(["alpha", "quantile", "rate"])["select"].mean()
    best = {alpha: mean[alpha].nlargest(2) for alpha in mean.index.unique("alpha")}
    assert {two.index[0] for two in best.values()} == {(0.75, 1e-4)}
    first, second = (sorted(two.iloc[place] for two in best.values()) for place in (0, 1))
    assert f"is {first[0]:.3f} to {first[-1]:.3f} on the mean of three seeds" in PAGE
    assert f"other eight settings has {second[0]:.3f} to {second[-1]:.3f}" in PAGE
    fastest = mean.xs(3e-4, level="rate")
    assert f"every α loses, to {fastest.min():.2f} to {fastest.max():.2f}" in PAGE


@pytest.mark.parametrize(("alpha", "words"), [(-1.0, "α = −1 stands {}"), (-0.5, "α = −0.5 {}")])
def test_chosen_at_the_whole_margin_that_both_reach(alpha, words):
    curves = pd.read_csv(DOCS / "alpha_study" / "shared_along_margin.csv")
    last = curves[(curves["alpha"] == alpha) & (curves["share"] == 1)]["difference"]
    found = stats.ttest_1samp(last, 0)
    low, high = found.confidence_interval(0.95)
    assert words.format(f"{told(last.mean())} [{told(low)}, {told(high)}]") in PAGE


def test_at_equal_divergence_there_is_nothing():
    curves = pd.read_csv(DOCS / "alpha_study" / "shared_along_kl.csv")
    halfway = np.sort(curves["share"].unique())[4]
    for alpha in (-1.0, -0.5, 0.25, 0.5, 1.0):
        for share in (halfway, 1.0):
            rows = curves[(curves["alpha"] == alpha) & np.isclose(curves["share"], share)]["difference"]
            interval = stats.ttest_1samp(rows, 0).confidence_interval(0.95)
            assert abs(rows.mean()) < 0.00125
            assert max(map(abs, interval)) < 0.0041


def test_the_model_decides_more_than_alpha():
    means = RUNS.groupby([RUNS["seed"] % 3, "alpha"])["end T=0.7"].mean()
    assert f"goes from {means[0, -1.0]:.2f} (α = −1) to {means[0, 1.0]:.2f} (α = 1) from model 0" in PAGE
    assert f"from {means[1, -1.0]:.2f} to {means[1, 1.0]:.2f} from model 1" in PAGE
    assert f"within {means[2].min():.2f} to {means[2].max():.2f} from model 2" in PAGE


def test_what_the_faq_says_of_the_rate():
    faq = " ".join((DOCS / "faq.md").read_text(encoding="utf-8").split())
    tune = KEPT["tune"].query("alpha == 0 and quantile == 0.5")
    wide = tune.pivot(index="seed", columns="rate", values="chosen_change")
    for lower, higher in ((1e-4, 3e-4), (3e-5, 1e-4)):
        assert interval(wide[lower] - wide[higher], 2) in faq

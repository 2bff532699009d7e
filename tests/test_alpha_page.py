"""What docs/alpha.md says of the completed stages follows from the tables beside it, by scipy's own t-test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rewardshape import read_trace
from rewardshape.analysis import displacement_curve

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
    assert f"level at the last step is {lower.min():.2f} to {lower.max():.2f} lower with it" in PAGE
    more = (with_bias - RUNS.pivot(index="seed", columns="alpha", values="gold T=0.7")) - lost
    mean, low, high = (
        f"{-value:.2f}"
        for value in (
            more.mean(axis=1).mean(),
            *stats.ttest_1samp(more.mean(axis=1), 0).confidence_interval(),
        )
    )
    assert f"by {mean} [{high}, {low}] over all α".replace("-", "−") in PAGE
    assert more.mean(axis=1).idxmin() == 10
    slopes = {
        name: [stats.linregress(row.index.to_numpy(float), row).slope for _, row in table.iterrows()]
        for name, table in ((name, of_unbiased(name)) for name in ("gold T=0.7", "gold T=0", "kl_end"))
    }
    assert f"over α is {interval(slopes['gold T=0.7'], 4)}" in PAGE
    assert f"divergence has a slope, too, {interval(slopes['kl_end'])} nats per unit of α" in PAGE
    assert stats.ttest_1samp(slopes["gold T=0"], 0).pvalue > 0.05
    unbiased, biased = (along(place, -1.0) for place in ("bias0/shared", "shared"))
    assert (
        f"stands {interval(unbiased, 4)} nats per token above α = 0, with the bias {interval(biased, 4)}"
        in PAGE
    )
    assert f"a difference of {interval(biased - unbiased, 4)}" in PAGE
    others = [
        stats.ttest_1samp(along("shared", a) - along("bias0/shared", a), 0).pvalue
        for a in (-0.5, 0.25, 0.5, 1.0)
    ]
    assert (f"{min(others):.2f}", f"{max(others):.2f}") == ("0.02", "0.05")


def along(stage: str, alpha: float, axis: str = "margin", place: int = 8) -> pd.Series:
    """Chosen above α = 0 (or the control) of each seed at so many ninths of what both reach."""
    curves = pd.read_csv(DOCS / "alpha_study" / f"{stage}_along_{axis}.csv")
    found = curves[(curves["alpha"] == alpha) & np.isclose(curves["share"], place / 9)]["difference"]
    assert len(found) == 8
    return found


def test_the_whole_margin_is_in_no_table():
    """The places that were read wrongly."""
    for file in (DOCS / "alpha_study").rglob("*along*.csv"):
        assert pd.read_csv(file)["share"].max() == pytest.approx(8 / 9, abs=1e-4)


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


def bare(values: pd.Series) -> str:
    return interval(values).replace("+", "")


def test_chosen_along_the_margin():
    whole, half = (along("shared", alpha) for alpha in (-1.0, -0.5))
    assert f"α = −1 stands {interval(whole)} above α = 0 and α = −0.5 {interval(half)}" in PAGE
    assert 6 < -RUNS.query("alpha == 0")["chosen_change"].mean() / whole.mean() < 8
    whole, half = (along("judge", alpha) for alpha in (-1.0, -0.5))
    assert f"keeps chosen higher by {bare(whole)} and α = −0.5 by {bare(half)}" in PAGE
    for stage, low, high in (
        ("shared", -0.0034, -0.0015),
        ("judge", -0.0015, -0.0005),
        ("control", -0.001, 0.001),
    ):
        for alpha in (0.25, 0.5, 1.0):
            rows = along(stage, alpha)
            assert low < rows.mean() < high
            assert stats.ttest_1samp(rows, 0).pvalue > 0.05
    whole, half = (along("control", alpha) for alpha in (-1.0, -0.5))
    assert f"α = −1 stands {interval(whole)} and α = −0.5 {interval(half)} above their controls" in PAGE


def test_at_equal_divergence_there_is_little():
    for alpha in (-1.0, -0.5, 0.25, 0.5, 1.0):
        for place in (5, 8):
            rows = along("shared", alpha, "kl", place)
            assert abs(rows.mean()) < 0.001
            assert max(map(abs, stats.ttest_1samp(rows, 0).confidence_interval(0.95))) < 0.003
        if alpha > -1:
            assert abs(along("judge", alpha, "kl").mean()) < 0.0025
            assert abs(along("control", alpha, "kl").mean()) < 0.00085
    assert (
        f"more than 0.0025 (α = −1, {interval(along('judge', -1.0, 'kl'), 4).split(' ', 1)[1].replace('+', '')}"
        in PAGE
    )
    assert f"α = −1 stands {interval(along('control', -1.0, 'kl'), 4)} above" in PAGE


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
        gold = tune.pivot(index="seed", columns="rate", values="end T=0.7")
        assert interval(gold[lower] - gold[higher], 2) in faq
    margin = (tune["chosen_change"] - tune["rejected_change"]).groupby(tune["rate"]).mean()
    assert [f"{value:.2f}" for value in margin.sort_index()] == ["0.01", "0.03", "0.06"]
    assert "a margin of 0.03 for 0.06" in faq
    assert "at 0.01 for 0.03" in faq


def test_where_the_faq_says_that_chosen_stands_in_the_default_run():
    run = read_trace(DOCS.parent / "figures" / "runs" / "embedded").run("alpha=0")
    means = displacement_curve(run).pivot(index="step", columns="response", values="logp_mean_change")
    gain = means["chosen"] - means["rejected"]
    early = gain[gain >= 0.0155].index[0]
    faq = " ".join((DOCS / "faq.md").read_text(encoding="utf-8").split())
    at_first = f"by {abs(means['chosen'][early]):.2f} at {gain[early]:.3f}"
    at_the_end = f"by {-means['chosen'].iloc[-1]:.2f} at {gain.iloc[-1]:.2f}"
    assert f"{at_first}, and {at_the_end}" in faq

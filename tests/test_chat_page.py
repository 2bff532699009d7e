"""What docs/chat_model.md says of the complete runs follows from the tables beside it, by scipy's own t-test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, PHENOMENA, FAQ, README = (
    " ".join((DOCS / f"{name}.md").read_text(encoding="utf-8").split())
    for name in ("chat_model", "phenomena", "faq", "../README")
)
KEPT = {file.stem: pd.read_csv(file) for file in (DOCS / "chat_model").glob("*.csv")}


def told(value: float, digits: int = 2, sign: bool = True) -> str:
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(values: pd.Series, digits: int = 2) -> str:
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return f"{told(values.mean(), digits)} [{told(low, digits)}, {told(high, digits)}]"


def ends(name: str) -> pd.DataFrame:
    table = KEPT[name]
    return table[table["step"] == 60].set_index("seed").drop(columns="phenomenon")


def row_of(name: str, alpha: float) -> str:
    table = ends(name)
    of_alpha, zero = table[table["alpha"] == alpha], table[table["alpha"] == 0]
    cells = [interval(of_alpha[f"Δ {side}"]) for side in ("chosen", "rejected", "own")]
    cells += [f"{of_alpha['fell'].mean():.0%}".replace("%", " %"), interval(of_alpha["margin gain"])]
    cells += [interval(of_alpha["Δ chosen"] - zero["Δ chosen"]) if alpha else ""]
    parts = [of_alpha[f"nats a response: {part}"] for part in ("chosen", "margin_part", "kl", "excess")]
    cells += [told(part.mean(), 1) for part in (parts[0], parts[1], -parts[2])] + [interval(parts[3], 1)]
    kind = {"polite": "polite", "hh": "HH"}[name]
    return f"| {kind} | {alpha:g} | {' | '.join(cells)} |".replace("| -", "| −")


RUNS = [(name, alpha) for name in ("polite", "hh") for alpha in sorted(KEPT[name]["alpha"].unique())]


@pytest.mark.parametrize(("name", "alpha"), RUNS)
def test_a_row_of_real_pairs_follows_from_the_runs(name, alpha):
    of_alpha = ends(name).query("alpha == @alpha")
    assert list(of_alpha.index.sort_values()) == [0, 1, 2]
    parts = of_alpha[
        [f"nats a response: {part}" for part in ("chosen", "margin_part", "kl", "excess")]
    ].to_numpy()
    np.testing.assert_allclose(
        parts[:, 0], parts[:, 1] - parts[:, 2] + parts[:, 3], atol=3e-5
    )  # the identity
    assert " ".join(row_of(name, alpha).split()) in PAGE


def first_at(value: float, run: pd.DataFrame) -> float:
    """Chosen where the margin gain first reaches a value: by walking along the curve in small steps."""
    place = np.linspace(0, len(run) - 1, 400_001)
    margin, chosen = (np.interp(place, range(len(run)), run[name]) for name in ("margin gain", "Δ chosen"))
    return float(chosen[np.argmax(margin >= value - 1e-9)])


def at_equal_margin(first: pd.DataFrame, second: pd.DataFrame) -> list[float]:
    """Chosen of one minus of the other, of each seed, where both runs first reach the margin that both reach."""
    found = []
    for seed in (0, 1, 2):
        runs = [table[table["seed"] == seed] for table in (first, second)]
        margin = min(run["margin gain"].max() for run in runs)
        if margin <= 0:  # one of them gained none, so they have none in common
            continue
        found.append(first_at(margin, runs[0]) - first_at(margin, runs[1]))
    return found


def test_the_benchmark_stands_where_the_curve_first_does(monkeypatch):
    """Also where a margin comes to its largest value before the end, and where it never grows."""
    monkeypatch.syspath_prepend(str(DOCS.parent / "benchmarks"))
    from chat_phenomena import against, stands_at

    gain, chosen = np.array([0.0, 0.2, 0.1, 0.2, 0.15]), np.array([0.0, -1.0, -2.0, -3.0, -4.0])
    assert stands_at(0.2, gain, chosen) == -1.0
    assert stands_at(0.1, gain, chosen) == -0.5
    assert stands_at(0.0, -gain, chosen) == 0.0
    shaped, zero = (KEPT["polite"].query("alpha == @value") for value in (1.0, 0.0))
    np.testing.assert_allclose(
        against(shaped, zero)["Δ chosen at equal margin"].dropna(), at_equal_margin(shaped, zero), atol=1e-4
    )


@pytest.mark.parametrize("alpha", [-0.5, 0.25, 1.0])
def test_what_is_said_of_a_shape(alpha):
    table = ends("polite")
    apart = table[table["alpha"] == alpha] - table[table["alpha"] == 0]
    assert interval(apart["Δ chosen"]) in PAGE
    shaped, zero = (KEPT["polite"][KEPT["polite"]["alpha"] == value] for value in (alpha, 0.0))
    equal = pd.Series(at_equal_margin(shaped, zero))
    if alpha == 1:
        assert (
            f"at the margin that both reach {' and '.join(told(value) for value in equal)} (one of its three"
            in PAGE
        )
    else:
        assert interval(equal) in PAGE
    if alpha != 0.25:
        assert f"p = {4 * stats.ttest_1samp(apart['Δ chosen'], 0).pvalue:.3f}" in PAGE
        assert interval(apart["margin gain"]) in PAGE
    if alpha < 0:
        assert interval(apart["nats a response: kl"], 1) in PAGE
        assert f"{interval(equal)} (p = {4 * stats.ttest_1samp(equal, 0).pvalue:.2f} so multiplied)" in PAGE
        for text in (FAQ, README):
            assert interval(equal) in text
            assert interval(apart["Δ chosen"]) in text


def test_what_is_said_of_hh_at_two_alphas():
    table = ends("hh")
    apart = table[table["alpha"] == 0.25] - table[table["alpha"] == 0]
    p = 4 * stats.ttest_1samp(apart["Δ chosen"], 0).pvalue
    assert f"ends {interval(apart['Δ chosen'])} above α = 0 (p = {p:.2f} after multiplying by four)" in PAGE
    assert f"{interval(apart['nats a response: kl'], 1)} nats a response of divergence" in PAGE
    shaped, zero = (KEPT["hh"][KEPT["hh"]["alpha"] == value] for value in (0.25, 0.0))
    assert f"nothing is seen ({interval(pd.Series(at_equal_margin(shaped, zero)))})" in PAGE


def test_shape_or_scale():
    control, polite = KEPT["control"], KEPT["polite"]
    shaped, zero = (polite[polite["alpha"] == value] for value in (-0.5, 0.0))
    assert f"stands {interval(pd.Series(at_equal_margin(control, zero)))} nats per token above α = 0" in PAGE
    assert f"another {interval(pd.Series(at_equal_margin(shaped, control)))} above the control" in PAGE
    apart = ends("polite").query("alpha == -0.5") - ends("control")
    lower, larger = (
        interval(ends("control")[name] - ends("polite").query("alpha == 0")[name])
        for name in ("Δ chosen", "margin gain")
    )
    assert f"by {lower}, at a margin larger by {larger}" in PAGE
    edges = [
        stats.ttest_1samp(at_equal_margin(*both), 0).pvalue for both in ((control, zero), (shaped, control))
    ]
    assert "(p = {:.2f} and {:.2f}, uncorrected)".format(*edges) in PAGE
    assert (
        f"stands {interval(apart['Δ chosen'])} above it for {interval(apart['nats a response: kl'], 1)}"
        in PAGE
    )


def by_fisher(values: list[float]) -> str:
    """Mean of correlations over seeds with its 95 % interval, by Fisher's z."""
    z = np.arctanh(values)
    ends_of = np.tanh([z.mean(), *stats.ttest_1samp(z, 0).confidence_interval(0.95)])
    mean, low, high = map(told, ends_of)
    return f"{mean} [{low}, {high}]"


def spearman(name: str, column: str) -> str:
    return by_fisher(
        [
            stats.spearmanr(rows[column], rows["chosen_change"]).statistic
            for _, rows in KEPT[name].groupby("seed")
        ]
    )


def test_which_pairs_fall():
    assert all(
        len(rows) == 64 for name in ("polite_pairs", "hh_pairs") for _, rows in KEPT[name].groupby("seed")
    )
    for column in ("ches", "chosen_tokens", "ches_normalised", "initial_logp_margin"):
        assert spearman("polite_pairs", column) in PHENOMENA
    for column in ("ches", "initial_logp_margin"):
        assert spearman("hh_pairs", column) in PHENOMENA
    pairs = KEPT["polite_pairs"]
    quarter = pairs.groupby("seed")["ches"].transform(lambda ches: pd.qcut(ches, 4, labels=False))
    fell = pairs.assign(quarter=quarter).groupby(["seed", "quarter"])["chosen_change"].mean().unstack()
    first, second, third, last = (interval(fell[quarter]) for quarter in range(4))
    assert f"{first}, {second}, {third} and {last}, no deeper in the highest than in the third" in PHENOMENA
    assert f"with both lengths held {lengths_held('ches')}" in PHENOMENA
    assert f"({lengths_held('ches_normalised')} with both held)" in PHENOMENA
    assert f"{lengths_held('initial_logp_margin')} with both lengths held" in PHENOMENA


def lengths_held(column: str) -> str:
    """Partial correlation of ranks with the change on polite pairs, from the inverse of their correlation matrix."""
    held = []
    for _, rows in KEPT["polite_pairs"].groupby("seed"):
        inverse = np.linalg.inv(
            rows[[column, "chosen_change", "chosen_tokens", "rejected_tokens"]].corr("spearman").to_numpy()
        )
        held.append(-inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1]))
    return by_fisher(held)


@pytest.mark.parametrize("measured", ["chosen", "rejected", "own", "greedy_logp", "entropy"])
def test_where_the_probability_went(measured):
    cells = [interval(ends(name).query("alpha == 0")[f"Δ {measured}"]) for name in ("polite", "hh")]
    assert " | ".join(cells) in PHENOMENA.replace("*", "")


def test_float32_is_what_the_page_says():
    whole, mixed = KEPT["polite_float32"].iloc[-1], ends("polite").query("alpha == 0").loc[0]
    spread = ends("polite").query("alpha == 0")
    for side in ("chosen", "rejected"):
        words = "for chosen where bfloat16 activations have {}" if side == "chosen" else "for {} for rejected"
        assert f"{told(whole[f'Δ {side}'], 3)} {words.format(told(mixed[f'Δ {side}'], 3))}" in PAGE
        assert abs(whole[f"Δ {side}"] - mixed[f"Δ {side}"]) < 0.34 * spread[f"Δ {side}"].std()


def test_the_control_is_as_steep_and_as_far_from_its_target(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS.parent / "benchmarks"))
    from chat_phenomena import CONTROL_SCALE, SCALE

    beta, ratio, matched, gamma = (
        float(flag) for flag in (*SCALE, *CONTROL_SCALE) if not flag.startswith("--")
    )
    pairs = KEPT["polite_pairs"]
    chosen = pairs["initial_logp_mean"]
    rejected = chosen - pairs["initial_logp_margin"]
    slope = np.exp(0.5 * np.concatenate([chosen, rejected]))  # φ′ = p^(−α) of the α family, with p per token
    assert matched == pytest.approx(beta * slope.mean(), rel=1e-3)
    reward = [(np.exp(0.5 * side) - 1) / 0.5 for side in (chosen, rejected)]
    below = (beta * (reward[0] - reward[1]) < beta * ratio).mean()
    assert gamma == pytest.approx(np.quantile(matched * (chosen - rejected), below), rel=1e-3)
    assert f"as many of them ({100 * below:.0f} %)" in PAGE


OWN = {file.stem: pd.read_csv(file) for file in (DOCS / "chat_model" / "own_answers").glob("*.csv")}


def own_row(stage: str, alpha: float) -> str:
    of_alpha, zero = (OWN[stage].query("alpha == @value").set_index("seed") for value in (alpha, 0.0))
    apart = of_alpha - zero
    cells = [told(of_alpha[f"gold T={t}"].mean(), 2, sign=False) for t in ("0.7", "0")]
    cells += [interval(apart[f"gold T={t}"]) if alpha else "" for t in ("0.7", "0")]
    cells += [interval(of_alpha["chosen_change"]), interval(of_alpha["rejected_change"])]
    cells += [
        f"{of_alpha['share_fallen'].mean():.0%}".replace("%", " %"),
        told(of_alpha["kl_end"].mean(), 1, sign=False),
    ]
    cells += [interval(apart["chosen_change"]) if alpha else ""]
    cells += [told((of_alpha["chosen_change"] - of_alpha["rejected_change"]).mean())]
    if stage == "judge":
        [(quantile, rate)] = {(row.quantile, row.rate) for row in of_alpha.itertuples()}
        cells = [f"{quantile:g}, {rate:.0e}".replace("e-0", "e-"), *cells]
    return f"| {alpha:g} | {' | '.join(cells)} |".replace("| -", "| −")


@pytest.mark.parametrize("stage", ["shared", "judge"])
@pytest.mark.parametrize("alpha", [-1, -0.5, 0, 0.25, 0.5, 1])
def test_a_row_of_the_models_own_answers_follows_from_the_runs(stage, alpha):
    assert sorted(OWN[stage].query("alpha == @alpha")["seed"]) == [1, 2, 3, 4, 5]
    assert " ".join(own_row(stage, alpha).split()) in PAGE


def test_each_alpha_was_judged_at_the_setting_that_tune_chose():
    """And the table of `tune` is that of its runs: means over γ on both halves, the choice and what it has on each."""
    tuned = OWN["tune"]
    assert len(tuned) == 6 * 3 * 3
    for alpha, rows in tuned.groupby("alpha"):
        best = rows.loc[rows["select"].idxmax()]
        judged = OWN["judge"].query("alpha == @alpha")
        assert {(row.quantile, row.rate) for row in judged.itertuples()} == {(best["quantile"], best["rate"])}
        halves = rows.groupby("rate")[["select", "gold T=0.7"]].mean()
        cells = [", ".join(f"{value:.2f}" for value in halves.loc[rate]) for rate in (3e-6, 1e-5, 3e-5)]
        chosen = f"{best['quantile']:g}, {best['rate']:.0e}".replace("e-0", "e-")
        cells += [chosen, f"{best['select']:.2f}", f"{best['gold T=0.7']:.2f}"]
        assert f"| {alpha:g} | {' | '.join(cells)} |".replace("| -", "| −") in PAGE


def six_tests(stage):
    p, found = [], []
    for column in ("gold T=0.7", "gold T=0"):
        wide = OWN[stage].pivot(index="seed", columns="alpha", values=column)
        slopes = [stats.linregress(wide.columns.to_numpy(float), row).slope for row in wide.to_numpy()]
        p += [stats.ttest_rel(wide[alpha], wide[0.0]).pvalue for alpha in (0.25, -0.5)]
        p.append(stats.ttest_1samp(slopes, 0).pvalue)
        found.append(interval(pd.Series(slopes)))
    return p, found


def test_the_six_tests_at_each_alphas_own_setting():
    p, _ = six_tests("judge")
    assert 6 * min(p) > 1
    assert f"the smallest of their p-values is {min(p):.2f}, after Holm 1." in PAGE


def test_what_the_settings_of_their_own_came_to():
    rows = OWN["judge"]
    gold = untouched_gold()
    told_of = {}
    for name, temperature in (("T=1", 1.0), ("T=0.7", 0.7), ("T=0", 0.0)):
        wide = rows.pivot(index="seed", columns="alpha", values=f"gold {name}") - gold["mean"][temperature]
        sure = [alpha for alpha in wide if stats.ttest_1samp(wide[alpha], 0).pvalue < 0.05]
        assert sure == ([-1, -0.5, 0.25, 0.5, 1] if name == "T=0.7" else [])
        told_of |= {name: wide.mean()[sure]}
    gained = told_of["T=0.7"]
    assert f"(by {gained.min():.2f} to {gained.max():.2f}, in each the interval" in PAGE
    ends_at, far = (
        rows.pivot(index="seed", columns="alpha", values=name) for name in ("chosen_change", "kl_end")
    )
    means = far.mean()
    assert f"{interval(ends_at[0.0])} at α = 0 (KL {means[0.0]:.1f})" in PAGE
    assert {told(ends_at[alpha].mean()) for alpha in (-1.0, -0.5)} == {"−0.03"}
    assert {f"{means[alpha]:.1f}" for alpha in (-1.0, -0.5)} == {"0.2"}
    assert f"{interval(ends_at[1.0])} at α = 1 (KL {means[1.0]:.1f})" in PAGE


def test_the_six_tests_on_own_answers_after_holm():
    p, found = six_tests("shared")
    assert f"the slope at T = 0.7, {found[0]} of gold for one more of α" in PAGE
    smallest = min(1, 6 * min(p))
    assert min(p) == p[2]  # of the slope at T = 0.7
    assert smallest > 0.05
    assert f"the smallest of the six p-values is {min(p):.2f}, after Holm {smallest:.2f}" in PAGE


@pytest.mark.parametrize("stage", ["shared", "judge"])
def test_too_few_runs_on_own_answers_have_a_margin_in_common(stage):
    """α = 0 never gained one with three seeds: its end is below 0, and the kept curves have no row of them."""
    along, runs = OWN[f"{stage}_along_margin"], OWN[stage]
    assert set(along["seed"]) == {1, 2}
    assert (along["margin"] > 0).all()
    zero = runs[runs["alpha"] == 0].set_index("seed")
    assert ((zero["chosen_change"] - zero["rejected_change"])[[3, 4, 5]] < 0).all()
    wide = runs.assign(margin=runs["chosen_change"] - runs["rejected_change"])
    grown = wide.pivot(index="seed", columns="alpha", values="margin")
    assert all(stats.ttest_1samp(grown[alpha], 0).pvalue > 0.05 for alpha in grown)
    if stage == "shared":
        upper, lower = along[along["alpha"] > 0], along[along["alpha"] == -0.5]
        ends_at = [rows.query("share == share.max()")["difference"] for rows in (upper, lower)]
        assert (ends_at[0] > 0).all()
        assert (ends_at[1] < 0).all()


def untouched_gold():
    rows = OWN["untouched"]
    judging = rows[rows["prompt_id"].str.removeprefix("held-out:").astype(int) % 2 == 0]
    return judging.groupby("temperature")["gold"].agg(["mean", "sem", "size"])


def test_no_gain_over_the_untouched_model_is_shown():
    gold = untouched_gold()
    assert list(gold["size"]) == [48, 48, 48]
    greedy, warm, one = (f"{gold['mean'][t]:.2f}" for t in (0.0, 0.7, 1.0))
    assert f"the untouched model has {greedy} greedy, {warm} at T = 0.7 and {one} at T = 1" in PAGE
    errors = ", ".join(f"{gold['sem'][t]:.2f}" for t in (0.0, 0.7, 1.0))
    assert f"(standard errors over requests {errors})" in PAGE
    ends_at = OWN["shared"].groupby("alpha")[["gold T=0", "gold T=0.7", "gold T=1"]].mean()
    greedy, warm, one = (f"{ends_at[name].min():.2f} to {ends_at[name].max():.2f}" for name in ends_at)
    assert f"trained ones end at {greedy} greedy, {warm} at T = 0.7 and {one} at T = 1" in PAGE
    sure = []
    for name in ("T=1", "T=0.7", "T=0"):
        for alpha, rows in OWN["shared"].groupby("alpha"):
            beyond = rows[f"gold {name}"] - gold["mean"][float(name[2:])]
            if stats.ttest_1samp(beyond, 0).pvalue < 0.05:
                sure.append((name, alpha))
                assert (name == "T=1" and alpha != 0) or interval(beyond) in PAGE
    lost, gained = ([alpha for name, alpha in sure if name == which] for which in ("T=1", "T=0.7"))
    assert (lost, gained, len(sure)) == ([-1, -0.5, 0, 0.5], [0, 0.5, 1], 7)


def test_chosen_fell_hardly_further_than_the_models_own_answers():
    zero = ends("polite").query("alpha == 0")
    assert f"chosen {interval(zero['Δ chosen'] - zero['Δ own'])} further" in PAGE
    low, high = sorted(-bound for bound in stats.ttest_1samp(zero["Δ own"], 0).confidence_interval(0.95))
    for text in (PAGE, README):
        assert f"by {-zero['Δ own'].mean():.2f} [{low:.2f}, {high:.2f}]" in text

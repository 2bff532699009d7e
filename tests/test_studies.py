"""The scripts of the studies: their statistics and their generations against other people's arithmetic."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rewardshape.data import embedded

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    yield
    for name in (
        "alpha_study",
        "alpha_tasks",
        "chat_task",
        "generations",
        "text_scores",
        "theories",
        "three_d",
    ):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def loaded():
    folder = embedded.checkpoint_path()
    return (
        transformers.AutoModelForCausalLM.from_pretrained(folder).eval(),
        transformers.AutoTokenizer.from_pretrained(folder),
    )


def test_the_divergence_of_greedy_decoding_is_what_the_models_own_loss_says(loaded):
    from generations import Prompt, answer

    model, tokenizer = loaded
    texts = embedded.prompts(3)
    asked = [Prompt(str(i), text, tokenizer(text)["input_ids"]) for i, text in enumerate(texts)]
    table = answer(model, model, tokenizer, asked, embedded.gold, temperature=0.0, max_tokens=72, seed=0)
    for row in table.itertuples():
        prompt = asked[int(row.prompt_id)].ids
        ids = [*prompt, *tokenizer(row.text)["input_ids"], tokenizer.eos_token_id]
        labels = torch.tensor([[-100] * len(prompt) + ids[len(prompt) :]])
        loss = model(input_ids=torch.tensor([ids]), labels=labels).loss.item()
        assert row.kl == pytest.approx(loss * (len(ids) - len(prompt)), rel=1e-4)
        assert row.finished
        assert row.gold == embedded.gold(texts[int(row.prompt_id)], row.text)


def test_the_untouched_model_at_temperature_one_went_nowhere_and_sharper_went_further(loaded):
    from generations import Prompt, at_equal_kl, tempered

    model, tokenizer = loaded
    asked = [Prompt(str(i), t, tokenizer(t)["input_ids"]) for i, t in enumerate(embedded.prompts(24))]
    table = tempered(
        model, tokenizer, asked, embedded.gold, grid=(1.0, 0.5, 0.0), max_tokens=72, seed=0
    ).set_index("temperature")
    assert table.loc[1.0, "kl"] == pytest.approx(0, abs=1e-4)
    assert 0 < table.loc[0.5, "kl"] < table.loc[0.0, "kl"]
    between = at_equal_kl(table, table["kl"].loc[[1.0, 0.5]].mean())
    assert between == pytest.approx(table["gold"].loc[[1.0, 0.5]].mean())
    assert np.isnan(at_equal_kl(table, table["kl"].max() + 1))


def test_the_best_of_n_is_the_one_that_the_labeller_prefers():
    from generations import best_of

    samples = pd.DataFrame(
        {"prompt_id": ["a"] * 4, "text": ["x", "xxx", "xx", "x"], "gold": [0.1, 0.2, 0.3, 0.4]}
    )
    found = best_of(samples, lambda _, text: len(text), {"a": "?"}, 2)
    assert found == {"n": 2, "gold": pytest.approx((0.2 + 0.3) / 2), "kl": pytest.approx(np.log(2) - 0.5)}


def test_contrasts_are_the_paired_t_test_of_scipy():
    from alpha_study import contrasts

    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        [
            {"seed": seed, "alpha": alpha, "gold": rng.normal() + alpha / 3}
            for seed in range(6)
            for alpha in (-0.5, 0.0, 0.25)
        ]
    )
    found = contrasts(table, "gold").set_index("alpha")
    wide = table.pivot_table(index="seed", columns="alpha", values="gold")
    expected = stats.ttest_rel(wide[0.25], wide[0.0])
    assert found.loc["0.25", "p"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert found.loc["0.25", "low"] == pytest.approx(interval.low)
    assert found.loc["0.25", "high"] == pytest.approx(interval.high)
    slopes = [stats.linregress(wide.columns.to_numpy(float), row).slope for row in wide.to_numpy()]
    assert found.loc["slope", "p"] == pytest.approx(stats.ttest_1samp(slopes, 0).pvalue)


def test_a_control_is_compared_with_the_run_that_it_belongs_to():
    from alpha_study import contrasts

    rng = np.random.default_rng(1)
    rows = [
        {"seed": seed, "alpha": alpha, "gold": rng.normal()} for seed in range(6) for alpha in (0.0, 0.25)
    ]
    tuned, control = pd.DataFrame(rows), pd.DataFrame(rows[1::2])
    control["gold"] -= rng.uniform(0, 1, len(control))
    found = contrasts(tuned, "gold", control.sample(frac=1, random_state=0)).set_index("alpha")
    expected = stats.ttest_rel(tuned.loc[tuned["alpha"] == 0.25, "gold"], control["gold"])
    assert list(found.index) == ["0.25"]
    assert found.loc["0.25", "p"] == pytest.approx(expected.pvalue)


def test_holm_is_the_worked_example():
    from alpha_study import holm

    # p = .01, .04, .03, .005 of four tests: 4 × .005, 3 × .01, 2 × .03, then never less than before
    assert holm(pd.Series([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(
    ("rule", "kept", "broken"),
    [
        ("Use at most 3 words.", "Rain is wet.", "Rain is very wet."),
        ("Use lowercase letters only.", "rain is wet.", "Rain is wet."),
        ('Use the word "quiet".', "A Quiet rain.", "A quieter rain."),
        ('End with "The end."', "It rains. The end.", "The end. It rains."),
        ("Use no comma.", "Rain and wind.", "Rain, wind."),
        ("Answer in 2 lines that each start with a dash.", "- rain\n- wind", "- rain\nwind"),
        ("Write one sentence.", "It rains in 1.5 towns.", "It rains. It pours."),
        ("Answer with a question.", "Is it wet?", "Is it wet? Yes."),
        ("Answer as a JSON object.", '{"rain": "wet"}', "[1]"),
    ],
)
def test_a_rule_is_kept_or_broken_as_a_reader_would_say(rule, kept, broken):
    from chat_task import gold

    prompt = f"user\nDescribe rain. {rule}\nassistant\n"
    assert (gold(prompt, kept), gold(prompt, broken)) == (1.0, 0.0)


def test_every_request_has_its_rules_and_no_held_out_one_is_trained_on():
    from chat_task import requests, rules_of

    trained, held = (set(islice(requests(seed, held_out=seed == 1), 500)) for seed in (0, 1))
    assert not trained & held
    assert {len(rules_of(text)) for text in trained | held} == {1, 2}


def test_the_four_theories_on_the_kept_runs_are_as_the_page_says():
    from theories import theories

    from rewardshape.trace import read_trace

    root = Path(__file__).parents[1]
    page = (root / "docs" / "three-d.md").read_text(encoding="utf-8")
    table = page[page.index("| α | `identity`") :].splitlines()[2:6]
    stated = [[float(cell.replace("−", "-")) for cell in line.split("|")[1:-1]] for line in table]
    found = theories(read_trace(root / "figures" / "runs" / "embedded")).drop(columns="step")
    np.testing.assert_allclose(found.to_numpy(float), stated, atol=0.0051)


def test_the_small_network_starts_where_it_says_and_disperses_where_a_softmax_must(monkeypatch):
    """To first order unseen responses gain exactly where the rejected response is the more probable one."""
    import three_d

    monkeypatch.setattr(three_d, "GAIN", 0.2)
    signs = {}
    for start, probabilities in three_d.STARTS.items():
        networks = three_d.Networks(3, *probabilities)
        state = networks.state()
        for part, probability in zip(state, probabilities, strict=False):
            np.testing.assert_allclose(part.exp().detach(), probability, rtol=1e-12)
        before, then, later = three_d.train(three_d.contestants()["DPO"], networks)
        for reached, gain in ((then, 0.2), (later, 0.6)):
            moved = ((reached.chosen - before.chosen) - (reached.rejected - before.rejected)).mean(1)
            np.testing.assert_allclose(moved, gain, rtol=1e-9)
        signs[start] = np.sign(three_d.interval(then.unseen - before.unseen)[0])
    assert signs["rejected improbable"] == -1
    assert signs["rejected probable"] == 1

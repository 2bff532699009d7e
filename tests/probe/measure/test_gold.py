"""The gold reward: a reward model as transformers runs it, and one line where it cannot be had."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from rewardshape import InputError, read_trace
from rewardshape.probe.measure.gold import gold_function, gold_model
from rewardshape.probe.settings import ModelSettings


@pytest.fixture(scope="module")
def reward_model(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward") / "model"
    config = LlamaConfig.from_pretrained(checkpoint)
    config.num_labels = 1
    config.pad_token_id = AutoTokenizer.from_pretrained(checkpoint).pad_token_id or 0
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    return folder


def test_a_reward_model_scores_as_transformers_has_it(reward_model):
    score = gold_model(str(reward_model), ModelSettings(), torch.device("cpu"))
    model = LlamaForSequenceClassification.from_pretrained(reward_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    with torch.no_grad():
        expected = model(**tokenizer("Once upon a time", return_tensors="pt")).logits.item()
    assert score("Once upon", " a time") == pytest.approx(expected, abs=1e-6)


def test_a_function_is_found_by_its_name():
    assert gold_function("operator:contains")("abc", "b") == 1.0


def test_a_function_that_fails_at_once_is_refused_and_later_leaves_one_reward_out(monkeypatch):
    def score(prompt: str, response: str) -> float:
        if response == "leaves":
            raise SystemExit(0)
        return {"good": 2.0, "none": None}[response]

    monkeypatch.setattr("math.sin", score)
    gold = gold_function("math:sin")
    with pytest.raises(InputError, match=r"^--gold math:sin: KeyError: 'bad'$"):
        gold("", "bad")
    with pytest.raises(InputError, match=r"^--gold math:sin: SystemExit: 0$"):
        gold("", "leaves")
    assert gold("", "good") == 2.0
    with pytest.warns(UserWarning, match="--gold math:sin: TypeError: .*; that reward is left out"):
        assert math.isnan(gold("", "none"))
    assert gold("", "good") == 2.0


def test_a_reward_model_checkpoint_scores_the_samples(probe, reward_model, tmp_path):
    flags = ["--steps", "1", "--sample-every", "1", "--samples", "4", "--best-of", "1"]
    assert probe(tmp_path / "run", *flags, "--gold-model", str(reward_model)) == 0
    gold = read_trace(tmp_path / "run").samples["gold"]
    assert gold.notna().all()
    assert gold.nunique() > 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--gold", "absent:f", "--sample-every", "2"], "--gold absent:f"),
        (["--gold", "math:absent", "--sample-every", "2"], "--gold math:absent"),
        (["--gold", "nothing", "--sample-every", "2"], "MODULE:FUNCTION"),
        (["--gold", "math:sqrt"], "--sample-every"),
        (["--gold-model", "absent", "--sample-every", "2"], "--gold-model absent"),
    ],
)
def test_a_gold_that_cannot_be_had_is_one_line(probe, tmp_path, capsys, flags, said):
    assert probe(tmp_path / "run", *flags) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_a_module_that_ends_the_program_is_refused(tmp_path, monkeypatch):
    (tmp_path / "ends_everything.py").write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"^--gold ends_everything:score: 0$"):
        gold_function("ends_everything:score")

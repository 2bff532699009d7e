"""The pairs beside somebody else's training come in every form, and what cannot be read is refused at once."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rewardshape import InputError, Recorder, objective, read_trace
from rewardshape.data import encode_pairs, read_preferences
from rewardshape.integrations.pairs import ReadPairs

DPO = objective("dpo", beta=0.1)


def probe_rows(folder: Path) -> pd.DataFrame:
    rows = read_trace(folder).responses
    return rows[rows["split"] == "probe"]


@pytest.mark.parametrize("form", ["list", "frame", "dataset", "path", "encoded"])
def test_pairs_are_taken_in_every_form(form, model, tokenizer, rows, pairs_file, tmp_path):
    from datasets import Dataset

    read = read_preferences(pairs_file)[0][:4]
    given = {
        "list": lambda: rows[:4],
        "frame": lambda: pd.DataFrame(rows[:4]),
        "dataset": lambda: Dataset.from_list(rows[:4]),
        "path": lambda: pairs_file,
        "encoded": lambda: encode_pairs(read, tokenizer, max_prompt_tokens=90, max_response_tokens=90)[0],
    }[form]()
    Recorder(model, tokenizer, given, DPO, tmp_path / form, max_pairs=4).measure(0)
    Recorder(model, tokenizer, rows[:4], DPO, tmp_path / "plain").measure(0)
    np.testing.assert_array_equal(
        probe_rows(tmp_path / form)["logp_sum"], probe_rows(tmp_path / "plain")["logp_sum"]
    )


def test_columns_say_which_is_which(model, tokenizer, rows, tmp_path):
    named = [{"frage": row["prompt"], "gut": row["chosen"], "schlecht": row["rejected"]} for row in rows[:3]]
    columns = {"prompt": "frage", "chosen": "gut", "rejected": "schlecht"}
    recorder = Recorder(model, tokenizer, named, DPO, tmp_path / "run", columns=columns)
    assert recorder.measure(0)["probe_chosen_change"] == 0
    with pytest.raises(InputError, match="--columns"):
        Recorder(model, tokenizer, named, DPO, tmp_path / "other")


def test_limits_are_half_the_context_and_tokens_are_made_once(model, tokenizer, rows):
    read = ReadPairs(rows, max_pairs=3)
    assert "the first 3 of 40 pairs are measured" in read.notes
    encoded = read.encode(tokenizer, model.config, None, None)
    assert len(encoded) == 3
    assert read.encode(tokenizer, model.config, None, None) is encoded
    assert {len(pair.prompt_ids) for pair in read.encode(tokenizer, model.config, 5, 5)} == {5}
    [short] = ReadPairs(rows[:1]).encode(tokenizer, model.config, 5, 4)
    assert len(short.prompt_ids) == 5
    assert {len(ids) for ids in short.responses.values()} == {4}
    with pytest.raises(
        InputError,
        match=r"^--max-prompt-tokens 1024 and --max-response-tokens 1024: prompt and response together",
    ):
        ReadPairs(rows).encode(tokenizer, model.config, 1024, 1024)
    with pytest.raises(InputError, match=r"^--max-response-tokens 1024: prompt"):
        ReadPairs(rows).encode(tokenizer, model.config, None, 1024)


def test_each_tokenizer_has_tokens_of_its_own_and_tokens_that_were_given_stay(model, tokenizer, rows):
    other = copy.deepcopy(tokenizer)
    other.add_tokens([" ".join(rows[0]["prompt"].split()[:2])])  # which are several tokens of the first
    read = ReadPairs(rows[:1])
    [first] = read.encode(tokenizer, model.config, None, None)
    config = copy.deepcopy(model.config)
    config.vocab_size = len(other)
    [second] = read.encode(other, config, None, None)
    assert list(first.prompt_ids) == tokenizer(rows[0]["prompt"])["input_ids"]
    assert list(second.prompt_ids) == other(rows[0]["prompt"])["input_ids"]
    assert first.prompt_ids != second.prompt_ids
    assert ReadPairs([first]).encode(other, config, None, None) == [first]

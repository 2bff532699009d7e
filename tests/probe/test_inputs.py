"""What a command reads: the split by prompt, and the text of every token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rewardshape.data import EncodedPair, embedded
from rewardshape.errors import InputError
from rewardshape.probe.grid import plan_runs
from rewardshape.probe.inputs import Inputs, as_tokens, probe_texts, split_probe, token_texts
from rewardshape.probe.settings import Settings


def pairs_of(prompts: list[int]) -> list[EncodedPair]:
    return [
        EncodedPair(f"a:{i}", [1, prompt], {"chosen": [5], "rejected": [6]})
        for i, prompt in enumerate(prompts)
    ]


@given(
    prompts=st.lists(st.integers(0, 5), min_size=3, max_size=30),
    size=st.integers(1, 10),
    seed=st.integers(0, 99),
)
def test_no_prompt_is_on_both_sides_and_no_pair_is_lost_for_another_reason(prompts, size, seed):
    pairs = pairs_of(prompts)
    try:
        train, probe = split_probe(pairs, size, seed=seed)
    except InputError:  # only where nothing could be left to train on
        assert size >= len(pairs) or len(set(prompts)) <= size
        return
    watched = {pair.prompt_ids[1] for pair in probe}
    assert len(probe) == size
    assert [pair.pair_id for pair in train] == [p.pair_id for p in pairs if p.prompt_ids[1] not in watched]
    assert (train, probe) == split_probe(pairs, size, seed=seed)


def test_the_probe_set_may_be_trained_on_where_asked():
    pairs = pairs_of([0] * 4)
    with pytest.raises(
        InputError, match=r"every pair shares its prompt with a probe pair .* --probe-in-training"
    ):
        split_probe(pairs, 2, seed=0)
    train, probe = split_probe(pairs, 4, seed=0, in_training=True)
    assert train == probe == pairs


@pytest.mark.parametrize("text", ["the cat sat", "  two  spaces ", "naïve 🙂 café\n"])
def test_texts_of_tokens_join_to_the_text_of_all(text):
    tokenizer = AutoTokenizer.from_pretrained(embedded.checkpoint_path())
    before, ids = (tokenizer(words, add_special_tokens=False)["input_ids"] for words in ("I see: ", text))
    texts = token_texts(tokenizer.decode, before, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode([*before, *ids])[len(tokenizer.decode(before)) :]


@pytest.fixture(scope="module")
def inputs(checkpoint: str, pairs_file: str) -> Inputs:
    settings = Settings().replace(checkpoint=checkpoint, data=(pairs_file,), probe_pairs=12, alpha=(0.25,))
    return Inputs(plan_runs(settings).runs[0], checkpoint)


def test_every_pair_of_the_file_is_accounted_for(inputs):
    report = inputs.report
    assert report["read"]["rows"] == 160
    dropped = [*report["read"]["dropped"].values(), *report["encoded"]["dropped"].values()]
    used = report["train_pairs"] + report["probe_pairs"] + report["left_out"]
    assert used + sum(reason["count"] for reason in dropped) == 160
    assert (report["train_pairs"], report["probe_pairs"]) == (len(inputs.train), len(inputs.probe)) != (0, 0)
    assert f"{report['train_pairs']} pairs to train on, 12 probe pairs" in inputs.notes[-1]


def test_the_texts_of_the_probe_set_are_those_of_the_tokenizer(inputs):
    for pair, record in zip(inputs.probe, probe_texts(inputs.probe, inputs.tokenizer), strict=True):
        assert record["pair_id"] == pair.pair_id
        for name, ids in pair.responses.items():
            assert record["responses"][name] == inputs.tokenizer.decode(ids)
            assert len(record["tokens"][name]) == len(ids)


def test_a_pair_is_shown_token_by_token(inputs):
    pair = inputs.probe[0]
    head, prompt, chosen, _ = as_tokens(pair, inputs.tokenizer)
    assert head.startswith(f"{pair.pair_id} as tokens")
    assert prompt.startswith(f"  prompt ({len(pair.prompt_ids)} tokens): ")
    assert chosen.startswith(f"  chosen ({len(pair.responses['chosen'])} tokens): ")
    shown = min(len(pair.responses["chosen"]), 24)
    assert chosen.count("|") == shown - (len(pair.responses["chosen"]) <= 24)

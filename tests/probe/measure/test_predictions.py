"""Distributions made of hidden states, in pieces, against transformers' own logits."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape.data import EncodedPair
from rewardshape.probe.measure import predictions, projection
from rewardshape.probe.measure.logprobs import PlainReader, SharedPrefixReader
from rewardshape.probe.measure.predictions import chunks, disagreement, logps_of, see
from rewardshape.probe.measure.projection import head_of


@pytest.mark.parametrize("reader", [PlainReader(), SharedPrefixReader()], ids=lambda reader: reader.name)
def test_distributions_are_those_of_transformers(checkpoint, reader, monkeypatch):
    monkeypatch.setattr(predictions, "CHUNK_ELEMENTS", 1)  # a position at a time
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    prompt, response = tokenizer("Once upon")["input_ids"], tokenizer(" a time")["input_ids"][-3:]
    batch = reader.collate([EncodedPair("a", prompt, {"sample": response})])
    with torch.no_grad():
        logps, seen = see(model, lambda its: reader.logps(model, its), batch)
        logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    head = head_of(model)
    pieces = chunks(len(response), len(head.weight), seen.hidden.device)
    assert [len(piece) for piece in pieces] == [1] * len(response)
    whole = torch.cat([logps_of(head, seen, piece, batch["targets"][piece]) for piece in pieces])
    torch.testing.assert_close(whole, logits.log_softmax(-1), atol=2e-5, rtol=0)
    torch.testing.assert_close(seen.logps, logps.token_logps.detach())
    assert disagreement(head, seen, batch["targets"]) < 1e-5


def test_logits_are_kept_as_the_pass_makes_them_if_they_are_no_more_than_asked_for(checkpoint, monkeypatch):
    monkeypatch.setattr(projection, "CPU_TILE_ELEMENTS", 1)  # in as many tiles as there can be
    monkeypatch.setattr(projection, "SMALLEST_TILE", 100)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model, reader = AutoModelForCausalLM.from_pretrained(checkpoint).eval(), SharedPrefixReader()
    prompt, response = tokenizer("Once upon")["input_ids"], tokenizer(" a time")["input_ids"][-3:]
    batch = reader.collate([EncodedPair("a", prompt, {"sample": response})])
    size = len(response) * len(model.get_output_embeddings().weight)
    with torch.no_grad():
        _, seen = see(model, lambda its: reader.logps(model, its), batch, most=size)
        _, without = see(model, lambda its: reader.logps(model, its), batch, most=size - 1)
        logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    torch.testing.assert_close(seen.logits, logits, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(seen.at(torch.tensor([1, 0])).logits, logits[[1, 0]], atol=2e-5, rtol=1e-5)
    assert without.logits is None


def test_a_head_that_is_not_the_models_own_disagrees(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    reader = PlainReader()
    batch = reader.collate([EncodedPair("a", tokenizer("Once upon")["input_ids"], {"sample": [5, 6, 7]})])
    with torch.no_grad():
        _, seen = see(model, lambda its: reader.logps(model, its), batch)
    assert disagreement(head_of(model)._replace(scale=2.0), seen, batch["targets"]) > predictions.AGREEMENT

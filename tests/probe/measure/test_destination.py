"""Where the probability went, against plain transformers code, by hand, and where it was moved on purpose."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.measure.destination import (
    GROUPS,
    Destination,
    Positions,
    Seen,
    compare,
    nearest_tokens,
)
from rewardshape.probe.measure.logprobs import PlainReader, SharedPrefixReader
from rewardshape.probe.measure.probe_set import ProbeSet
from rewardshape.probe.measure.projection import Head

VOCABULARY, END = 60, 2
PAIRS = [
    EncodedPair("a", [5, 6, 7], {"chosen": [10, 11, 12, END], "rejected": [10, 13, END], "third": [9, 9]}),
    EncodedPair("b", [8], {"chosen": [20, 21], "rejected": [22, 21, 23, END]}),
    EncodedPair("c", [8, 9], {"chosen": [30, 31], "rejected": [30, 31, 32]}),
]
ARCHITECTURES = {
    "llama": {},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0},
    "granite": {"logits_scaling": 2.0},
}


def tiny_model(architecture="llama", seed=0):
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.4,
        pad_token_id=0,
        eos_token_id=END,
        **ARCHITECTURES[architecture],
    )
    return AutoModelForCausalLM.from_config(config).eval()


def nudged(model, size=0.05):
    """A copy with every weight moved a little."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight += size * torch.randn(weight.shape, generator=generator)
    return other


def followed(before, after, pairs=PAIRS, reader=None):
    reader = reader or SharedPrefixReader()
    probe = ProbeSet(pairs, reader, torch.device("cpu"))
    followed = Destination(probe, end_token=END, decode=lambda ids: f"<{ids[0]}>")
    followed.begin(before, lambda batch: reader.logps(before, batch))
    columns, _ = probe.measure(followed.watch(after, lambda batch: reader.logps(after, batch)))
    return columns, *followed.tables()


def probabilities(model, prompt, response):
    """Plain transformers: the distribution at every position of a response, (tokens, V)."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *response]])).logits[0]
    return logits.double().softmax(-1)[len(prompt) - 1 : -1].numpy()


def by_hand(before, after, pair, side):
    """The row of one response, token by token."""
    response, other = pair.responses[side], pair.responses["rejected" if side == "chosen" else "chosen"]
    weight = before.get_output_embeddings().weight.detach().double().numpy()
    weight = weight - weight.mean(0)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    first, last = (probabilities(model, pair.prompt_ids, response) for model in (before, after))
    differ = next((i for i, (a, b) in enumerate(zip(response, other, strict=False)) if a != b), None)
    row = dict.fromkeys(["moved", "own", "own_gained", *(f"to_{name}" for name in (*GROUPS, "rest"))], 0.0)
    for i, own in enumerate(response):
        change = last[i] - first[i]
        row["moved"] += change[change > 0].sum()
        row["own"] += change[own]
        likeness = weight @ weight[own]
        likeness[own] = -np.inf
        near = list(np.argsort(-likeness)[:10])
        for token in np.flatnonzero(change > 0):
            if token == own:
                name = "own_gained"
            elif token == END:
                name = "to_end"
            elif i == differ and token == other[i]:
                name = "to_other"
            elif token == first[i].argmax():
                name = "to_greedy"
            else:
                name = "to_near" if token in near else "to_rest"
            row[name] += change[token]
    return row, (last - first).sum(0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("reader", [SharedPrefixReader(), PlainReader()], ids=lambda reader: reader.name)
def test_every_number_is_what_plain_code_finds(architecture, reader):
    before = tiny_model(architecture)
    after = nudged(before)
    _, table, tokens = followed(before, after, reader=reader)
    place = 0
    for pair in PAIRS:
        for side in ("chosen", "rejected"):
            expected, by_token = by_hand(before, after, pair, side)
            assert (table["pair_id"][place], table["response"][place]) == (pair.pair_id, side)
            for name, value in expected.items():
                assert table[name][place] == pytest.approx(value, abs=2e-6), name
            mine = [i for i, own in enumerate(tokens["pair_id"]) if own == pair.pair_id]
            mine = [i for i in mine if tokens["response"][i] == side]
            changes = [tokens["change"][i] for i in mine]
            order = np.argsort(-by_token)
            assert changes == pytest.approx(by_token[[*order[:5], *order[-5:]]], abs=2e-6)
            assert [tokens["token"][i] for i in mine] == [f"<{tokens['token_id'][i]}>" for i in mine]
            place += 1


def test_what_moved_is_accounted_for_whole():
    before = tiny_model()
    _, table, _ = followed(before, nudged(before))
    parts = np.sum(
        [table[name] for name in ("own_gained", "to_end", "to_other", "to_greedy", "to_near", "to_rest")], 0
    )
    np.testing.assert_allclose(parts, table["moved"], atol=1e-6)
    assert (np.array(table["moved"]) > 0).all()


def test_an_untouched_model_moved_nothing_and_the_pass_measures_what_it_did_before():
    model = tiny_model()
    columns, table, _ = followed(model, model)
    assert max(table["moved"]) == 0
    reader = SharedPrefixReader()
    plain = (
        ProbeSet(PAIRS, reader, torch.device("cpu")).measure(lambda batch: reader.logps(model, batch)).columns
    )
    assert columns == plain


def test_a_token_moved_by_hand_is_where_it_was_put():
    """The output row of one token is pushed along the hidden state that predicts the first chosen token."""
    before = tiny_model()
    after = copy.deepcopy(before)
    kept = {}
    after.get_output_embeddings().register_forward_pre_hook(lambda _, args: kept.update(h=args[0].detach()))
    with torch.no_grad():
        after(torch.tensor([PAIRS[1].prompt_ids]))
        state = kept["h"][0, -1]
        after.get_output_embeddings().weight[45] += 20 * state / state.norm()
    _, table, tokens = followed(before, after, PAIRS[1:2])
    gained = [
        token for token, change in zip(tokens["token_id"], tokens["change"], strict=True) if change > 0.2
    ]
    assert gained
    assert set(gained) == {45}
    assert table["to_rest"][0] + table["to_near"][0] + table["to_greedy"][0] == pytest.approx(
        table["moved"][0], rel=1e-3
    )


def test_two_words_by_hand():
    """Word 0 goes from 3/4 to 1/4: half a token of mass leaves it for word 1, which is the other response's."""
    before = Head(torch.tensor([[3.0], [1.0]]).log(), None, 1.0, None)
    after = Head(torch.tensor([[1.0], [3.0]]).log(), None, 1.0, None)
    asked = Positions(*(torch.tensor([value]) for value in (0, 0, 1, 0)))
    hidden = torch.ones(1, 1)
    seen = [Seen(hidden, torch.tensor([share]).log()) for share in (0.75, 0.25)]
    moved = compare(*seen, (before, after), asked, torch.tensor([[-1, 1, 0, *[-1] * 10]]))
    assert moved.moved.item() == pytest.approx(0.5)
    assert moved.own.item() == pytest.approx(-0.5)
    assert moved.gains[0].tolist() == pytest.approx([0, 0.5, 0, 0])
    assert moved.by_token[0].tolist() == pytest.approx([-0.5, 0.5])


def test_nearest_tokens_are_those_of_the_cosine():
    weight = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.2], [0.1, 0.9]])
    centred = weight - weight.mean(0)
    expected = torch.nn.functional.cosine_similarity(centred[0], centred, dim=-1)
    expected[0] = -np.inf
    assert nearest_tokens(weight, torch.tensor([0]), 2)[0].tolist() == expected.topk(2).indices.tolist()


def test_a_model_whose_output_is_something_else_is_refused():
    model = tiny_model()
    model.config.get_text_config().logits_scaling = 3.0  # stated, but not what this architecture does
    probe = ProbeSet(PAIRS, PlainReader(), torch.device("cpu"))
    with pytest.raises(InputError, match="--destination-every: cannot follow this model"):
        Destination(probe, end_token=END, decode=str).begin(
            model, lambda batch: PlainReader().logps(model, batch)
        )


def test_what_does_not_fit_is_projected_again_to_the_same_masses(monkeypatch):
    """With room for all probabilities of step 0, for some batches, and for none: bit for bit."""
    before = tiny_model()
    monkeypatch.setattr("rewardshape.probe.measure.probe_set.TOKENS_PER_BATCH", 12)  # several batches
    found = []
    for room in (2**26, 8 * VOCABULARY, 0):
        monkeypatch.setattr("rewardshape.probe.measure.destination.KEPT_ELEMENTS", room)
        found.append(followed(before, nudged(before))[1:])
    assert found[0] == found[1] == found[2]

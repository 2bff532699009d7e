"""Batches of a probe set: every pair once, none too large, alike lengths together."""

from __future__ import annotations

import pytest

from rewardshape.data import EncodedPair
from rewardshape.probe.measure.probe_set import group_by_tokens

PAIRS = [
    EncodedPair(f"a:{i}", [3] * (5 + i % 7), {"chosen": [4] * (3 + i % 5), "rejected": [5] * 4})
    for i in range(64)
]


def tokens(pair: EncodedPair) -> int:
    return len(pair.prompt_ids) + sum(len(ids) for ids in pair.responses.values())


@pytest.mark.parametrize("at_least", [1, 2, 7])
@pytest.mark.parametrize("limit", [25, 200, 10_000])
def test_groups_hold_every_pair_once_and_keep_the_limit(limit, at_least):
    groups = group_by_tokens(PAIRS, limit, at_least=at_least)
    assert sorted(index for group in groups for index in group) == list(range(64))
    assert len(groups) >= at_least
    assert max(sum(tokens(PAIRS[index]) for index in group) for group in groups) <= limit
    lengths = [tokens(PAIRS[index]) for group in groups for index in group]
    assert lengths == sorted(lengths, reverse=True)


def test_a_pair_above_the_limit_stands_alone():
    assert [len(group) for group in group_by_tokens(PAIRS, 1)] == [1] * 64

"""What a judgement rests on: the same fields from pairs and from rows, no claim where nothing is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rewardshape.trace import read_trace
from rewardshape.verdict import judge
from rewardshape.verdict.evidence import Carried, Evidence
from rewardshape.verdict.of_log import evidence_of_log
from rewardshape.verdict.of_trace import evidence_of_trace
from rewardshape.verdict.words import Word


def test_pairs_and_rows_fill_the_same_record(tmp_path, write_run, make, rng):
    sums = {name: -10 - rng.normal(0.1, 0.2, (5, 12)).cumsum(axis=0) for name in ("chosen", "rejected")}
    trace = read_trace(write_run(tmp_path / "run", sums, num_tokens={name: np.full(12, 8) for name in sums}))
    of_pairs, of_rows = (
        evidence_of_trace(trace)[0],
        evidence_of_log(make(np.linspace(0, -2, 12))),
    )
    for found in (of_pairs, of_rows):
        assert isinstance(found, Evidence)
        known = [
            found.chosen,
            found.rejected,
            found.lowest,
            found.highest,
            found.onset,
            found.learning.margin,
        ]
        assert None not in known
        assert {"step", "chosen", "smooth", "rejected"} <= set(found.curve)
        assert found.lowest.value <= found.chosen.value <= found.highest.value
    assert (of_pairs.num_pairs, of_rows.num_pairs) == (12, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        of_rows.unit = "nats"


def test_a_record_of_nothing_claims_nothing(make):
    empty = Evidence(name="a", form="b")
    assert {empty.chosen, empty.onset, empty.held_out, empty.broken, empty.learning.still} == {None}
    assert judge(make([-1.0])).word is Word.UNDETERMINED  # one row of a batch leaves as little


def test_a_pair_that_carries_a_run_says_its_share_and_the_loss_only_where_it_sticks_out():
    assert (
        str(Carried("p:7", 0.934, 1.2))
        == "carried by single pairs (pair p:7 owns 93% of the gradient weight)"
    )
    assert str(Carried("p:7", 0.934, 7.25)).endswith("its mean loss is 7.25 times the median)")

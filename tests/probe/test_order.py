"""The order of training: whole epochs, shuffled each anew, or from easy to hard in all of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.order import TrainingOrder
from rewardshape.probe.run import run
from rewardshape.trace import RunFolder
from tests.probe.test_objectives import SCORED, parse, scored, words

assert scored  # the fixture


@pytest.fixture
def pairs() -> list[EncodedPair]:
    """Lengths 9, 4, 8, 3, 7, 5 and differences of scores 1, 4, 2, 3, 0.5, 2."""
    lengths, gaps = (9, 4, 8, 3, 7, 5), (1, 4, 2, 3, 0.5, 2)
    return [
        EncodedPair(
            str(number), [1], {"chosen": [2] * (length - 2), "rejected": [3]}, scores=(10.0 + gap, 10.0)
        )
        for number, (length, gap) in enumerate(zip(lengths, gaps, strict=True))
    ]


def ids(order: TrainingOrder) -> str:
    return "".join(item.pair.pair_id for item in order)


def test_training_goes_through_whole_epochs_each_in_an_order_of_its_own(pairs):
    order = TrainingOrder(pairs, steps=5, batch_size=3, seed=1)
    assert [item.position for item in order] == list(range(15))
    assert set(Counter(ids(order)[:6]).values()) == set(Counter(ids(order)[6:12]).values()) == {1}
    assert ids(order)[:6] != ids(order)[6:12]
    assert ids(order) == ids(TrainingOrder(pairs, steps=5, batch_size=3, seed=1))


def test_an_order_without_end_is_made_as_it_is_asked_for():
    """Every epoch holds every pair once; the order is that of the whole one, from wherever it is asked."""
    pairs = [EncodedPair(f"a:{i}", [5], {"chosen": [7], "rejected": [9]}) for i in range(7)]
    endless = TrainingOrder(pairs, steps=10**12, batch_size=16, seed=3)
    assert len(endless) == 16 * 10**12
    rng = np.random.default_rng(3)
    whole = [f"a:{place}" for _ in range(5) for place in rng.permutation(7)]
    for position in (34, 0, 13, 20, 6):
        assert endless[position].pair.pair_id == whole[position]
        assert endless[position].position == position
    assert [item.pair.pair_id for item in endless[:35]] == whole
    assert [pair.pair_id for pair in endless.pairs()] == whole[:7]
    assert endless.counted(lambda pair: int(pair.pair_id[2:]), 35).tolist() == [
        int(name[2:]) for name in whole
    ]
    with pytest.raises(IndexError):
        endless[16 * 10**12]


@pytest.mark.parametrize(
    ("order", "expected"), [("given", "012345"), ("length", "315420"), ("margin", "132504")]
)
def test_from_easy_to_hard_in_every_epoch(order, expected, pairs):
    made = TrainingOrder(pairs, steps=5, batch_size=3, seed=1, order=order)
    assert ids(made) == (expected * 3)[:15]
    without = TrainingOrder(pairs, steps=5, batch_size=2, seed=1, order=order, without=["5"])
    assert ids(without) == expected.replace("5", "") * 2


def test_a_margin_that_no_pair_has_is_asked_for_in_vain(pairs, checkpoint, pairs_file, tmp_path):
    with pytest.raises(InputError, match=r"--order margin: .* has no scores of its responses"):
        run(parse([*words(checkpoint, pairs_file, "dpo", tmp_path / "run"), "--order", "margin"]))
    assert not RunFolder(tmp_path / "run").path.exists()


def test_a_run_trains_the_widest_margins_first(checkpoint, scored, tmp_path):
    trace = run(parse([*words(checkpoint, scored, "dpo", tmp_path / "run"), *SCORED, "--order", "margin"]))
    trained = trace.responses.query("split == 'train'")["pair_id"].unique()
    lines = [int(pair_id.rpartition(":")[2]) for pair_id in trained]
    assert all((line - 1) % 4 == 3 for line in lines)  # liked = 3 + number % 4
    assert lines == sorted(lines)

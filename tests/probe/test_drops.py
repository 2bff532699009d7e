"""Which pairs are left out: words read and refused, counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.errors import InputError
from rewardshape.probe.drops import CRITERIA, Drop, left_out
from rewardshape.probe.settings import Settings


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_is_read_and_written_alike(criterion):
    assert str(Drop.read(f"{criterion}=0.25")) == f"{criterion}=0.25"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chess=0.2", "nearest is 'ches'"),
        ("ches", "CRITERION=SHARE"),
        ("ches=1", "between 0 and 1"),
        ("ties=much", "ties=0.2"),
    ],
)
def test_what_is_no_drop_is_refused_by_its_flag(text, said):
    with pytest.raises(InputError, match=f"--drop {text}.*{said}"):
        Settings().replace(drop=text)


def test_the_highest_are_left_out_but_never_all():
    ids = ["a", "b", "c", "d", "e"]
    scores = np.array([0.0, 5.0, 1.0, 5.0, 2.0])
    assert left_out(ids, scores, Drop("ches", 0.4)) == ["b", "d"]
    assert left_out(ids, scores, Drop("ches", 0.01)) == ["b"]
    assert len(left_out(ids, scores, Drop("ches", 0.99))) == 4


def test_a_batch_larger_than_what_is_left_is_refused_before_training(probe, tmp_path, capsys):
    flags = ["--drop", "length=0.95", "--batch-size", "30"]
    assert probe(tmp_path / "run", *flags) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--batch-size 30: --drop length=0.95 leaves" in line
    assert not (tmp_path / "run").exists()

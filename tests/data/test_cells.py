"""A row while it is read: what was taken out of it, and which columns stand for which."""

from __future__ import annotations

import pytest

from rewardshape.data.cells import Cells, MissingColumn, parse_columns
from rewardshape.errors import InputError


def test_named_columns_stand_in_their_places_and_what_is_taken_is_remembered():
    cells = Cells({"q": "Sky?", "prompt": "other", "n": 3}, {"prompt": "q"})
    assert cells.said("prompt") == "Sky?"
    assert cells.not_read() == ["prompt", "n"]
    assert not cells.holds("q")
    with pytest.raises(InputError, match="field 'n' holds a number where text"):
        cells.text("n")


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(
        MissingColumn, match=r"no field 'ask', which --columns names as prompt \(the row has q\)"
    ):
        Cells({"q": "Sky?"}, {"prompt": "ask"})
    with pytest.raises(MissingColumn, match="no field 'chosen'"):
        Cells({"q": "Sky?"}).said("chosen")


@pytest.mark.parametrize("words", [["prompt"], ["prompt="], ["answer=a"], ["prompt=a", "prompt=b"]])
def test_columns_are_named_as_target_and_column_once(words):
    with pytest.raises(InputError, match="--columns"):
        parse_columns(words)

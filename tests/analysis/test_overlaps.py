"""Cosines of the two gradients against numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.analysis import gradient_cosines
from rewardshape.errors import InputError
from rewardshape.trace import read_trace

PAIRS = 3


@pytest.fixture
def write(write_run, tmp_path):
    def one(**more):
        sums = {"chosen": np.array([[-8.0, -8, -8], [-8, -4, -12]]), "rejected": np.full((2, PAIRS), -9.0)}
        return read_trace(
            write_run(tmp_path / "run", sums, num_tokens={name: np.full(PAIRS, 4) for name in sums}, **more)
        )

    return one


def test_cosines_are_those_of_the_gradients(write):
    """Gradients (3, 4) and (4, 3): cosine 24/25; (1, 0) and (0, 2): 0; and one response that has none."""
    rows = {
        "pair_id": [f"pairs.jsonl:{i + 1}" for i in range(PAIRS)],
        "gram_ww": [25.0, 1.0, 0.0],
        "gram_wl": [24.0, 0.0, 0.0],
        "gram_ll": [25.0, 4.0, 1.0],
    }
    found = gradient_cosines(write(geometry={0: rows})).set_index("pair_id")
    np.testing.assert_allclose(found["cosine"], [0.96, 0.0, np.nan])
    np.testing.assert_allclose(found["chosen_change"], [0.0, 1.0, -1.0])


def test_a_run_without_an_alpha_has_them_too(write):
    rows = {"pair_id": ["pairs.jsonl:2"], "gram_ww": [25.0], "gram_wl": [24.0], "gram_ll": [25.0]}
    found = gradient_cosines(
        write(geometry={0: rows}, objective={"name": "dpo", "parameters": {"beta": 0.1}})
    )
    assert found["pair_id"].tolist() == ["pairs.jsonl:2"]
    assert found["alpha"].isna().all()
    np.testing.assert_allclose(found["cosine"], 0.96)


def test_without_geometry_it_says_how_to_get_some(write):
    with pytest.raises(InputError, match="--geometry-every"):
        gradient_cosines(write())

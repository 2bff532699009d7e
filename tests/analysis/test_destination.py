"""Tables of where the probability went, from a record made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.analysis.destination import GROUPS, destination_curve, moved_tokens
from rewardshape.errors import InputError
from rewardshape.trace import TraceWriter, read_trace

PROBE = {
    "pair_id": ["a", "a", "b", "b"],
    "response": ["chosen", "rejected"] * 2,
    "num_tokens": [2, 2, 2, 2],
    "ref_logp_sum": [None] * 4,
}
MASSES = {
    "to_end": [0.1, 0, 0.3, 0],
    "to_other": [0.2, 0, 0, 0],
    "to_greedy": [0, 0.5, 0, 0.1],
    "to_near": [0.1, 0, 0, 0],
    "to_rest": [0.4, 0.0, 0.1, 0.2],
    "own_gained": [0.1, 0, 0, 0],
}


@pytest.fixture
def trace(tmp_path):
    table = {"pair_id": PROBE["pair_id"], "response": PROBE["response"], **MASSES}
    table |= {"own": [-0.7, -0.5, -0.3, -0.3], "moved": np.sum(list(MASSES.values()), 0)}
    tokens = {
        "pair_id": ["a", "a", "b", "b", "a"],
        "response": ["chosen"] * 4 + ["rejected"],
        "token_id": [7, 8, 7, 9, 7],
        "token": ["x", "y", "x", "z", "x"],
        "change": [0.3, -0.2, 0.1, -0.4, 0.9],
    }
    tmp_path.joinpath("run").mkdir()
    with TraceWriter(tmp_path / "run", PROBE) as writer:
        probe = {"logp_sum": [-1.0, -2.0, -3.0, -4.0]}
        writer.append(0, probe=probe)
        writer.append(1, probe=probe, destination=table, destination_tokens=tokens)
    return read_trace(tmp_path / "run")


def test_groups_are_means_over_pairs_and_shares_of_all_that_moved(trace):
    chosen = destination_curve(trace).query("response == 'chosen'").set_index("group")
    assert list(chosen.index) == list(GROUPS)
    assert chosen["mass"].to_dict() == pytest.approx(
        {"end": 0.2, "other": 0.1, "greedy": 0.0, "near": 0.05, "own": 0.05, "rest": 0.25}
    )
    assert chosen["share"].sum() == pytest.approx(1)
    assert chosen.loc["end", "share"] == pytest.approx(0.4 / 1.3)
    assert chosen["moved"].unique() == pytest.approx([0.65])
    assert chosen["own"].unique() == pytest.approx([-0.5])


def test_tokens_are_summed_over_the_probe_set(trace):
    found = moved_tokens(trace)
    chosen = found[found["response"] == "chosen"]
    assert chosen[["token", "change", "num_pairs"]].to_numpy().tolist() == [
        ["x", 0.4, 2],
        ["y", -0.2, 1],
        ["z", -0.4, 1],
    ]


def test_a_trace_without_destinations_says_what_to_add(tmp_path):
    tmp_path.joinpath("run").mkdir()
    with TraceWriter(tmp_path / "run", PROBE) as writer:
        writer.append(0, probe={"logp_sum": [-1.0, -2.0, -3.0, -4.0]})
    for table in (destination_curve, moved_tokens):
        with pytest.raises(InputError, match="--destination-every K"):
            table(read_trace(tmp_path / "run"))

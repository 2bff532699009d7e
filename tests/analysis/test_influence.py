"""Influence summed over a run's visits, by hand."""

from __future__ import annotations

import json

import pytest

from rewardshape.analysis.influence import pair_influence, probe_pair_influence
from rewardshape.errors import InputError
from rewardshape.trace import TraceWriter, read_trace

PROBE = {
    "pair_id": ["a", "a"],
    "response": ["chosen", "rejected"],
    "num_tokens": [2, 2],
    "ref_logp_sum": [None] * 2,
}


def train(*pairs):
    return {
        "pair_id": [pair for pair in pairs for _ in range(2)],
        "response": ["chosen", "rejected"] * len(pairs),
        "num_tokens": [2] * (2 * len(pairs)),
        "logp_sum": [-1.0] * (2 * len(pairs)),
        "ref_logp_sum": [None] * (2 * len(pairs)),
    }


@pytest.fixture
def folder(tmp_path):
    tmp_path.joinpath("run").mkdir()
    probe = {"logp_sum": [-1.0, -2.0]}
    measured = {"pair_id": ["x", "y", "z"]}
    with TraceWriter(tmp_path / "run", PROBE) as writer:
        on_pairs = {"probe_pair_id": ["a", "a"], "pair_id": ["y", "x"], "influence": [-3.0, -1.0]}
        writer.append(
            0, probe=probe, influence=measured | {"influence": [1.0, -2.0, 0.0]}, influence_pairs=on_pairs
        )
        writer.append(1, metrics={"learning_rate": 0.1}, train=train("x", "y"), probe=probe)
        writer.append(2, metrics={"learning_rate": 0.2}, train=train("y"), probe=probe)
        writer.append(
            3,
            metrics={"learning_rate": 0.2},
            train=train("x"),
            probe=probe,
            influence=measured | {"influence": [5.0, 3.0, 0.0]},
            influence_pairs={"probe_pair_id": ["a"], "pair_id": ["x"], "influence": [-4.0]},
        )
    (tmp_path / "run" / "run.json").write_text(json.dumps({"run": {"seed": 0}}))
    return tmp_path / "run"


def test_each_visit_counts_by_its_rate_its_batch_and_the_nearest_measurement(folder):
    """x: 0.1/2·1, then 0.2·5, the weights before update 3 being nearer to step 3 than to 0; y: 0.1/2·(−2), 0.2·(−2)."""
    table = pair_influence(read_trace(folder)).set_index("pair_id")
    assert table.loc["x", "influence"] == pytest.approx(0.05 + 1.0)
    assert table.loc["y", "influence"] == pytest.approx(-0.1 - 0.4)
    assert table["visits"].to_dict() == {"y": 2, "x": 2}
    assert list(table.index) == ["y", "x"]  # the one that pushed down most first; z was never trained on
    assert table["rank"].tolist() == [1, 2]


def test_on_a_single_probe_pair_the_same_visits_count(folder):
    """y: −3·(0.1/2 + 0.2), both near step 0; x: −1·0.1/2 there, and −4·0.2 near step 3."""
    table = probe_pair_influence(read_trace(folder))
    assert table["probe_pair_id"].unique().tolist() == ["a"]
    assert table["pair_id"].tolist() == ["x", "y"]
    assert table["influence"].tolist() == pytest.approx([-0.05 - 0.8, -3 * 0.25])
    assert table["visits"].tolist() == [2, 2]


def test_a_trace_without_influence_says_what_to_add(tmp_path):
    tmp_path.joinpath("run").mkdir()
    with TraceWriter(tmp_path / "run", PROBE) as writer:
        writer.append(0, probe={"logp_sum": [-1.0, -2.0]})
    with pytest.raises(InputError, match="--influence-every K"):
        pair_influence(read_trace(tmp_path / "run"))
    with pytest.raises(InputError, match="--influence-every K"):
        probe_pair_influence(read_trace(tmp_path / "run"))

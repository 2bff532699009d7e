"""The record: what is written is read back, torn lines are tolerated, a rewound trace is as if never written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from rewardshape.errors import InputError
from rewardshape.trace import TraceWriter, read_trace
from rewardshape.trace.format import read_lines, rewind

PROBE = {
    "pair_id": ["a", "a", "b", "b"],
    "response": ["chosen", "rejected"] * 2,
    "num_tokens": [3, 4, 5, 6],
    "ref_logp_sum": [None] * 4,
}


def write(folder: Path, steps: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with TraceWriter(folder, PROBE) as writer:
        for step in range(steps):
            train = {
                "pair_id": ["c", "c"],
                "response": ["chosen", "rejected"],
                "logp_sum": np.float32([-1.1, -2.2]),
            }
            writer.append(
                step,
                metrics={"loss": 1.0 / (step + 1)} if step else {},
                train={**train, "ref_logp_sum": [None, None], "num_tokens": [2, 2]} if step else None,
                probe={
                    "logp_sum": [-1.0 - step, -2.0, -3.0, -4.0 + step],
                    "entropy_sum": [1.0, 1.0, 1.0, math.nan],
                },
                samples={"prompt_id": ["p"], "text": ["hi"], "gold": [None], "logp_sum": [-0.5]}
                if step == 1
                else None,
                seconds=0.5 + step,
            )
    return folder


def test_what_is_written_is_read_back(tmp_path):
    trace = read_trace(write(tmp_path / "run"))
    assert [run.name for run in trace.runs] == ["run"]
    assert trace.steps["step"].tolist() == [0, 1, 2]
    assert trace.steps["loss"].tolist()[1:] == [0.5, 0.3333333333]
    assert trace.steps["seconds"].tolist() == [0.5, 1.5, 2.5]
    probe = trace.responses.query("split == 'probe' and step == 2")
    assert probe["logp_sum"].tolist() == [-3.0, -2.0, -3.0, -2.0]
    assert probe["num_tokens"].tolist() == [3, 4, 5, 6]
    assert probe["entropy_sum"].isna().tolist() == [False, False, False, True]
    train = trace.responses.query("split == 'train'")
    assert train["step"].tolist() == [1, 1, 2, 2]
    assert train["logp_sum"].tolist()[0] == pytest.approx(-1.1, abs=1e-7)
    assert train["entropy_sum"].isna().all()
    assert trace.responses["ref_logp_sum"].isna().all()
    assert trace.samples[["step", "text"]].to_numpy().tolist() == [[1, "hi"]]
    assert trace.samples["gold"].isna().all()
    assert trace.geometry.empty


def test_the_record_has_no_clock_in_it(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert (tmp_path / "a" / "trace.jsonl").read_bytes() == (tmp_path / "b" / "trace.jsonl").read_bytes()


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_ends_the_reading(tmp_path, cut):
    file = write(tmp_path / "run") / "trace.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    assert read_trace(tmp_path / "run").steps["step"].tolist() == [0, 1]


def test_a_rewound_trace_is_as_if_never_written_further(tmp_path):
    folder, shorter = write(tmp_path / "long", 5), write(tmp_path / "short", 2)
    rewind(folder, 1)
    for name in ("trace.jsonl", "timing.jsonl"):
        assert (folder / name).read_bytes() == (shorter / name).read_bytes()


def test_it_can_be_read_while_it_is_written(tmp_path):
    tmp_path.joinpath("run").mkdir()
    with TraceWriter(tmp_path / "run", PROBE) as writer:
        for step in range(3):
            writer.append(step, probe={"logp_sum": [-1.0, -2.0, -3.0, -4.0]})
            assert read_trace(tmp_path / "run").responses["step"].max() == step


def test_a_sweep_folder_is_read_run_by_run(tmp_path):
    write(tmp_path / "alpha=0")
    write(tmp_path / "alpha=1", 2)
    (tmp_path / "alpha=1" / "run.json").write_text('{"status": "done"}')
    trace = read_trace(tmp_path)
    assert [run.name for run in trace.runs] == ["alpha=0", "alpha=1"]
    assert trace.steps.groupby("run")["step"].max().to_dict() == {"alpha=0": 2, "alpha=1": 1}
    assert trace.settings["alpha=1"] == {"status": "done"}
    assert trace.run("alpha=1").settings == {"status": "done"}
    with pytest.raises(InputError, match="no run 'alpha=2'"):
        trace.run("alpha=2")


def test_a_sweep_of_one_run_gives_that_run_with_its_own_manifest(tmp_path):
    write(tmp_path / "alpha=1")
    (tmp_path / "alpha=1" / "run.json").write_text('{"status": "done"}')
    assert read_trace(tmp_path).run("alpha=1").settings == {"status": "done"}


@pytest.mark.parametrize("content", ["", "not json\n", json.dumps({"format": 99}) + "\n"])
def test_another_format_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "trace.jsonl").write_text(content)
    with pytest.raises(InputError, match="format"):
        read_trace(tmp_path)


def test_a_folder_without_a_trace_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no trace\.jsonl"):
        read_trace(tmp_path)


def test_numbers_keep_more_than_float32_holds(tmp_path):
    value = float(np.float32(-123.456789))
    folder = tmp_path / "run"
    folder.mkdir()
    with TraceWriter(folder, {name: column[:1] for name, column in PROBE.items()}) as writer:
        writer.append(0, probe={"logp_sum": [value]})
    record = read_lines(folder / "trace.jsonl")[1][1]
    assert np.float32(record["probe"]["logp_sum"][0]) == np.float32(value)

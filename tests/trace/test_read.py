"""What is written is read back, while it is written too; torn lines are tolerated, other formats refused."""

from __future__ import annotations

import json
import os

import pytest

from rewardshape import diagnose
from rewardshape.errors import InputError
from rewardshape.figures import command as figures
from rewardshape.report import command as report
from rewardshape.trace import TraceWriter, read_trace

SIMPO = {"name": "simpo", "parameters": {"beta": 2.0, "gamma": 1.0}}


def test_what_is_written_is_read_back(tmp_path, record):
    trace = read_trace(record(tmp_path / "run"))
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


def test_samples_name_the_prompt_also_where_an_older_record_called_the_pair_so(tmp_path):
    head = {
        "pair_id": ["a", "a"],
        "prompt_id": ["5f", "5f"],
        "response": ["chosen", "rejected"],
        "num_tokens": [3, 4],
    }
    old = {"prompt_id": ["a", "elsewhere"], "text": ["x", "y"]}
    new = {"prompt_id": ["5f"], "pair_id": ["a"], "text": ["z"]}
    with TraceWriter(tmp_path, {**head, "ref_logp_sum": [None, None]}) as writer:
        for step, samples in enumerate((old, new)):
            writer.append(step, metrics={}, probe={"logp_sum": [-1.0, -2.0]}, samples=samples, seconds=0.0)
    samples = read_trace(tmp_path).samples
    assert samples["prompt_id"].tolist() == ["5f", "elsewhere", "5f"]
    assert samples["pair_id"].tolist() == ["a", "elsewhere", "a"]


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_ends_the_reading(tmp_path, cut, record):
    file = record(tmp_path / "run") / "trace.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    assert read_trace(tmp_path / "run").steps["step"].tolist() == [0, 1]


def test_it_can_be_read_while_it_is_written(tmp_path, probe_set):
    tmp_path.joinpath("run").mkdir()
    with TraceWriter(tmp_path / "run", probe_set) as writer:
        for step in range(3):
            writer.append(step, probe={"logp_sum": [-1.0, -2.0, -3.0, -4.0]})
            assert read_trace(tmp_path / "run").responses["step"].max() == step


def test_a_sweep_folder_is_read_run_by_run(tmp_path, record):
    record(tmp_path / "alpha=0")
    record(tmp_path / "alpha=1", 2)
    (tmp_path / "alpha=1" / "run.json").write_text('{"status": "done"}')
    trace = read_trace(tmp_path)
    assert [run.name for run in trace.runs] == ["alpha=0", "alpha=1"]
    assert trace.steps.groupby("run")["step"].max().to_dict() == {"alpha=0": 2, "alpha=1": 1}
    assert trace.settings["alpha=1"] == {"status": "done"}
    assert trace.run("alpha=1").settings == {"status": "done"}
    with pytest.raises(InputError, match="no run 'alpha=2'"):
        trace.run("alpha=2")


def test_a_sweep_of_one_run_gives_that_run_with_its_own_manifest(tmp_path, record):
    record(tmp_path / "alpha=1")
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


def test_a_record_that_has_only_begun_has_no_steps_yet(tmp_path, probe_set):
    TraceWriter(tmp_path, probe_set).close()
    trace = read_trace(tmp_path)
    assert trace.steps["step"].tolist() == []
    assert trace.responses.columns[:2].tolist() == ["run", "step"]


@pytest.mark.parametrize("name", [b"x\xff", b"$\\frac{$", b"=1+1", b"esc\x1b]0;a\x07", b"\xf0\x9f\x92\xa9"])
def test_a_folder_of_any_name_is_read_judged_reported_and_drawn(tmp_path, record, capsys, name):
    folder = tmp_path / os.fsdecode(name)
    record(folder, 5)
    manifest = {"status": "done", "run": {"seed": 0}, "objective": SIMPO}
    (folder / "run.json").write_text(json.dumps(manifest))
    assert read_trace(folder).runs[0].name.encode("utf-8").decode("utf-8")
    assert report.main([str(folder)]) == 0
    assert diagnose.main([str(folder), "--output", str(tmp_path)]) == 0
    assert figures.main(["trajectories", "--runs", str(folder), "--output", str(tmp_path / "figures")]) == 0
    said = capsys.readouterr()
    assert not {"\x1b", "\x07"} & set(said.out + said.err)

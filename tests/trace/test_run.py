"""Runs are told apart by what their manifests state, never by their names."""

from __future__ import annotations

import fcntl
import json
import math
import os

import numpy as np
import pytest

from rewardshape.trace import read_trace
from rewardshape.trace.run import runs_of, stated_objective

SUMS = {"chosen": np.full((2, 3), -4.0), "rejected": np.full((2, 3), -5.0)}
TOKENS = {"chosen": np.full(3, 4), "rejected": np.full(3, 4)}


@pytest.fixture
def write(write_run):
    def one(folder, seed=0, name="alphapo", rate=1e-5, **parameters):
        stated = {"name": name, "parameters": parameters}
        run = {"seed": seed, "learning_rate": rate, "output": str(folder), "quiet": seed == 1}
        return write_run(folder, SUMS, num_tokens=TOKENS, objective=stated, run=run)

    return one


def told(folder):
    return [(run.setting, run.label) for run in read_trace(folder).runs]


def test_the_axes_of_a_grid_make_the_setting_whatever_the_folders_are_called(tmp_path, write):
    for number, (alpha, beta) in enumerate([(-0.5, 1.0), (-0.5, 2.0), (0.25, 1.0), (0.25, 2.0)]):
        write(tmp_path / f"x-seed={number}", alpha=alpha, beta=beta, gamma=0.1 * beta)
    assert told(tmp_path) == [
        ("alpha=-0.5, beta=1", "α = −0.5, β = 1"),
        ("alpha=-0.5, beta=2", "α = −0.5, β = 2"),
        ("alpha=0.25, beta=1", "α = 0.25, β = 1"),
        ("alpha=0.25, beta=2", "α = 0.25, β = 2"),
    ]


def test_a_margin_of_its_own_is_an_axis(tmp_path, write):
    for number, gamma in enumerate([0.1, 0.5]):
        write(tmp_path / str(number), alpha=0.0, beta=1.0 + number, gamma=gamma)
    assert [setting for setting, _ in told(tmp_path)] == ["beta=1, gamma=0.1", "beta=2, gamma=0.5"]


def test_seeds_alone_are_one_setting_with_its_alpha(tmp_path, write):
    for seed in (0, 1):
        write(tmp_path / f"seed={seed}", seed=seed, alpha=0.25, beta=2.0, gamma=0.1)
    assert told(tmp_path) == [("alpha=0.25", "α = 0.25, seed 0"), ("alpha=0.25", "α = 0.25, seed 1")]


def test_one_setting_repeated_and_one_not(tmp_path, write):
    write(tmp_path / "a", seed=0, alpha=0.0, beta=2.0)
    write(tmp_path / "b", seed=0, alpha=1.0, beta=2.0)
    write(tmp_path / "c", seed=1, alpha=1.0, beta=2.0)
    assert [label for _, label in told(tmp_path)] == ["α = 0", "α = 1, seed 0", "α = 1, seed 1"]


def test_objectives_are_an_axis_of_their_own(tmp_path, write):
    write(tmp_path / "0", name="dpo", beta=0.1)
    write(tmp_path / "1", name="simpo", beta=2.0, gamma=1.0)
    assert told(tmp_path) == [("dpo", "dpo"), ("simpo", "simpo")]
    assert math.isnan(read_trace(tmp_path).runs[0].alpha)


def test_a_sum_is_told_apart_by_the_numbers_of_its_terms(tmp_path, write):
    """As ``--alpha 0 0.25 --add-nll 0.5`` states it; its α is that of its first term."""
    for number, (alpha, weight) in enumerate([(0.0, 0.5), (0.25, 0.5), (0.25, 1.0)]):
        margin = {
            "weight": 1.0,
            "name": "alphapo",
            "parameters": {"alpha": alpha, "beta": 2.5, "gamma": 0.25},
        }
        likelihood = {"weight": weight, "name": "sft", "parameters": {"per_token": True}}
        write(tmp_path / str(number), name="sum", terms=[margin, likelihood])
    runs = read_trace(tmp_path).runs
    assert [run.label for run in runs] == [
        "α = 0, sft weight = 0.5", "α = 0.25, sft weight = 0.5", "α = 0.25, sft weight = 1"
    ]  # fmt: skip
    assert [run.alpha for run in runs] == [0.0, 0.25, 0.25]
    write(tmp_path / "plain", name="alphapo", alpha=0.0, beta=2.5)
    assert told(tmp_path)[0][1].startswith("alphapo + sft, α = 0, ")


def test_parts_and_lists_are_told_by_numbers_and_texts(tmp_path, write):
    for alpha in (0.5, 1.0):
        shape = {"name": "alpha", "alpha": alpha}
        write(tmp_path / f"{alpha:g}", name="composed", score="logp_mean", shape=shape, link="linear")
    assert [label for _, label in told(tmp_path)] == ["shape alpha = 0.5", "shape alpha = 1"]
    for run, data in ((tmp_path / "0.5", ["a.jsonl", "b.jsonl"]), (tmp_path / "1", ["a.jsonl"])):
        manifest = json.loads((run / "run.json").read_text())
        manifest["objective"]["parameters"]["shape"]["alpha"] = 1.0
        manifest["run"]["data"] = data
        (run / "run.json").write_text(json.dumps(manifest))
    assert [label for _, label in told(tmp_path)] == ["data = a.jsonl, b.jsonl", "data = a.jsonl"]


def test_a_learning_rate_is_an_axis_too(tmp_path, write):
    for number, rate in enumerate((1e-5, 3e-5)):
        write(tmp_path / str(number), alpha=0.0, beta=2.0, rate=rate)
    assert told(tmp_path) == [
        ("learning_rate=1e-05", "learning rate = 1e−05"),
        ("learning_rate=3e-05", "learning rate = 3e−05"),
    ]


def test_what_manifests_do_not_tell_apart_goes_by_its_folder(tmp_path, write):
    for name in ("first", "second"):
        write(tmp_path / name, alpha=0.25, beta=2.0)
    assert told(tmp_path) == [("first", "first"), ("second", "second")]


def test_the_folder_in_which_one_stands_has_its_name(tmp_path, write, monkeypatch):
    write(tmp_path / "my-run", alpha=0.25, beta=2.0)
    monkeypatch.chdir(tmp_path / "my-run")
    trace = read_trace(".")
    assert [run.name for run in trace.runs] == ["my-run"]
    assert set(trace.responses["run"]) == {"my-run"}
    assert trace.run("my-run").runs == trace.runs
    assert os.path.samefile(trace.runs[0].folder, tmp_path / "my-run")


def test_links_to_runs_of_one_name_are_called_as_the_sweep_calls_them(tmp_path, write):
    sweep = tmp_path / "both"
    sweep.mkdir()
    for name in ("first", "second"):
        write(tmp_path / name / "alpha=0.25", alpha=0.25, beta=2.0)
        (sweep / name).symlink_to(tmp_path / name / "alpha=0.25")
    trace = read_trace(sweep)
    assert [run.name for run in trace.runs] == ["first", "second"]
    assert trace.responses["run"].value_counts().to_dict() == {
        "first": 12,
        "second": 12,
    }  # 2 steps, 3 pairs, 2 sides


def test_a_sweep_in_a_folder_named_like_one_of_its_runs(tmp_path, write):
    for alpha in (0.0, 1.0):
        write(tmp_path / "alpha=0" / f"alpha={alpha:g}", alpha=alpha, beta=2.0)
    one = read_trace(tmp_path / "alpha=0").run("alpha=0")
    assert [run.name for run in one.runs] == ["alpha=0"]
    assert set(one.responses["run"]) == {"alpha=0"}
    assert one.folder == tmp_path / "alpha=0" / "alpha=0"
    assert one.settings["objective"]["parameters"]["alpha"] == 0.0


def test_a_run_that_diverged_says_so_wherever_it_is_named(write, tmp_path):
    write(tmp_path / "a", alpha=0.0)
    folder = write(tmp_path / "b", alpha=600.0)
    manifest = folder / "run.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "status": "diverged"}))
    assert told(tmp_path) == [("alpha=0", "α = 0"), ("alpha=600", "α = 600 (diverged)")]
    assert [(run.status, run.diverged) for run in read_trace(tmp_path).runs] == [
        ("done", False),
        ("diverged", True),
    ]


def test_a_run_that_nobody_works_at_was_killed(write, tmp_path):
    folder = write(tmp_path / "run", alpha=0.0)
    manifest = folder / "run.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "status": "running"}))
    [run] = read_trace(folder).runs
    assert run.status == "running"
    (folder / ".lock").touch()
    assert run.status == "killed"
    with open(folder / ".lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run.status == "running"
    assert run.status == "killed"


def test_runs_stand_in_the_order_in_which_they_were_asked_for(tmp_path, write):
    names = ["alpha=-1", "alpha=-0.5", "alpha=0"]  # by name −0.5 would come before −1
    for name in ["of another command", *reversed(names)]:
        write(tmp_path / name, alpha=float(name[6:]) if name in names else 2.0, beta=2.0)
    assert [run.name for run in read_trace(tmp_path).runs] == sorted([*names, "of another command"])
    (tmp_path / "command.json").write_text(json.dumps({"runs": names}))
    trace = read_trace(tmp_path)
    assert [run.name for run in trace.runs] == [*names, "of another command"]
    assert trace.responses["run"].drop_duplicates().tolist() == [*names, "of another command"]


def test_settings_that_differ_in_the_eighth_digit_have_names_of_their_own(tmp_path):
    manifests = [
        {"objective": {"name": "dpo", "parameters": {"beta": beta}}, "run": {"seed": 0}}
        for beta in (0.40000001, 0.40000002)
    ]
    found = runs_of([tmp_path] * 2, ["a", "b"], manifests)
    assert [run.setting for run in found] == ["beta=0.40000001", "beta=0.40000002"]


@pytest.mark.parametrize("terms", [[], None, [{"name": "dpo"}], "dpo"])
def test_a_sum_without_its_terms_is_a_sum(terms):
    assert (
        stated_objective({"objective": {"name": "sum", "parameters": {"terms": terms}}})["objective"] == "sum"
    )

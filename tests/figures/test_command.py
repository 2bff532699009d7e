"""Figures in any folder: all that can be drawn is, the rest is named, and the same inputs give the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardshape.figures import PICTURES, THEORY, draw_figures
from rewardshape.figures.command import main

RUNS = Path(__file__).resolve().parents[2] / "figures" / "runs"
EMBEDDED, POLITE = RUNS / "embedded", RUNS / "polite"


def test_without_runs_the_theory_is_drawn_and_the_rest_is_named_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    *files, last = capsys.readouterr().out.splitlines()
    assert {Path(file).stem for file in files} == set(THEORY)
    assert all((tmp_path / file).stat().st_size > 5000 for file in files)
    assert last == f"left out: {', '.join(PICTURES)} (drawn from runs, give --runs DIR)"


def test_a_run_without_geometry_and_samples_says_what_is_left_out_and_why(tmp_path, write_run, capsys, rng):
    sums = {name: -10 - rng.normal(size=(4, 8)).cumsum(axis=0) ** 2 for name in ("chosen", "rejected")}
    folder = write_run(tmp_path / "run", sums, num_tokens={name: [8] * 8 for name in sums})
    assert main(["--runs", str(folder), "--output", str(tmp_path / "out")]) == 0
    *files, last = capsys.readouterr().out.splitlines()
    drawn = {Path(file).stem for file in files} - set(THEORY)
    assert {"displacement", "trajectories"} <= drawn
    assert last.startswith("left out: ")
    for name, reason in (("sweep", "needs several runs"), ("gold", "(--sample-every)"), ("ches", "geometry")):
        assert name in last
        assert reason in last
    assert not any(f" {name}," in last for name in drawn)


def test_samples_without_gold_leave_out_the_gold_figures_alone(tmp_path, write_run, capsys, rng):
    """Exit status 0 where a table is there and a column of it is not."""
    sums = {name: -10 - rng.normal(size=(4, 8)).cumsum(axis=0) ** 2 for name in ("chosen", "rejected")}
    sample = {"prompt_id": ["a", "b"], "text": ["x", "y"], "num_tokens": [3, 4], "logp_sum": [-3.0, -4.0]}
    sample |= {"ref_logp_sum": [-3.0, -4.0], "gold": [None, None]}
    folder = write_run(
        tmp_path / "run",
        sums,
        num_tokens={name: [8] * 8 for name in sums},
        samples=dict.fromkeys(range(4), sample),
    )
    assert main(["--runs", str(folder), "--output", str(tmp_path / "out")]) == 0
    assert "have no gold" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("name", ["reward_shapes", "trajectories", "gold"])
def test_a_figure_drawn_twice_is_the_same_bytes(name, tmp_path):
    runs = None if name in THEORY else EMBEDDED
    once = draw_figures([name], runs=runs, output=tmp_path / "once").files
    twice = draw_figures([name], runs=runs, output=tmp_path / "twice").files
    assert [path.suffix for path in once] == [".svg", ".png"]
    for a, b in zip(once, twice, strict=True):
        assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["displacment"], "displacement"),
        (["sweep", "--runs", "no-such-folder"], "no-such-folder"),
        (["sweep"], "--runs DIR"),
        (["reward_slopes", "--paper", "yuan"], "not both"),
        (["reward_slopes", "--hue", "beta"], "--hue: lays out pictures of runs"),
        (["sweep", "--runs", str(POLITE)], "needs several runs"),
    ],
)
def test_a_mistake_is_one_line(words, said, tmp_path, capsys):
    assert main([*words, "--output", str(tmp_path / "out")]) == 2
    assert not list(tmp_path.glob("out/*"))
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line

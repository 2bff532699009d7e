"""Figures: the same bytes from the same inputs, from the committed runs and from anyone's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rewardshape.figures import draw as figures
from rewardshape.figures.of_runs import PICTURES

ROOT = Path(__file__).resolve().parents[2]


def test_every_picture_and_theory_figure_has_a_source_and_a_caption():
    drawn = [name for source in figures.SOURCES.values() for name in source.pictures]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) <= set(PICTURES)
    for name in drawn:
        assert len(PICTURES[name].caption) > 60
    for name, figure in figures.THEORY.items():
        assert len(figure.caption) > 60, name


@pytest.mark.parametrize("name", ["reward_shapes", "trajectories", "gold"])
def test_a_figure_drawn_twice_is_the_same_bytes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    once = figures.draw_figures([name], output=tmp_path / "once")
    twice = figures.draw_figures([name], output=tmp_path / "twice")
    assert [path.suffix for path in once] == [".svg", ".png"]
    for a, b in zip(once, twice, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_the_committed_svg_is_what_the_command_draws(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("reward_shapes", "trajectories"):
        svg, _ = figures.draw_figures([name], output=tmp_path)
        assert svg.read_text() == (ROOT / "figures" / f"{name}.svg").read_text()


def test_the_index_names_every_committed_figure():
    index = (ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    assert index == figures._index()
    shown = set(re.findall(r"\]\((\w+)\.png\)", index))
    assert shown == {path.stem for path in (ROOT / "figures").glob("*.png")}
    assert shown == {path.stem for path in (ROOT / "figures").glob("*.svg")}


def test_committed_runs_stay_small():
    runs = ROOT / "figures" / "runs"
    size = sum(path.stat().st_size for kind in ("json", "jsonl", "csv") for path in runs.rglob(f"*.{kind}"))
    assert size < 6_000_000


def test_figures_of_ones_own_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    runs = next(
        folder for folder in (ROOT / "figures" / "runs").iterdir() if (folder / "command.json").exists()
    )
    assert (
        figures.main(
            [
                "displacement",
                "--runs",
                str(next(runs.glob("*/trace.jsonl")).parent),
                "--output",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert (tmp_path / "displacement.png").stat().st_size > 10_000
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["displacment"], "displacement"),
        (["sweep", "--runs", "no-such-folder"], "no-such-folder"),
    ],
)
def test_a_mistake_is_one_line(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert figures.main([*words, "--output", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert said in lines[0]

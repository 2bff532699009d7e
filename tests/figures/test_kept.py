"""The figures kept in figures/ are those that figures/make.py draws from the runs kept there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import pytest

from rewardshape.figures import PICTURES, THEORY, draw_figures
from rewardshape.plotting.style import CHOSEN, REJECTED

FIGURES = Path(__file__).resolve().parents[2] / "figures"


def loaded(file: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make() -> ModuleType:
    return loaded(FIGURES / "make.py", "make_figures")


def test_every_kept_figure_is_known_and_has_a_caption(make):
    drawn = [name for source in make.SOURCES.values() for name in source.pictures]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) <= set(PICTURES)
    for name in drawn:
        assert len(PICTURES[name].caption) > 60
    for name, figure in THEORY.items():
        assert len(figure.caption) > 60, name


def test_the_index_names_every_kept_figure(make):
    index = (FIGURES / "README.md").read_text(encoding="utf-8")
    assert index == make.index()
    shown = set(re.findall(r"\]\((\w+)\.png\)", index))
    assert shown == {path.stem for path in FIGURES.glob("*.png")}
    assert shown == {path.stem for path in FIGURES.glob("*.svg")}


def test_the_kept_svg_is_what_the_command_draws(tmp_path):
    for name, runs in (("reward_shapes", None), ("trajectories", FIGURES / "runs" / "embedded")):
        svg, _ = draw_figures([name], runs=runs, output=tmp_path).files
        assert svg.read_text() == (FIGURES / f"{name}.svg").read_text()


def test_the_figures_of_the_guide_are_drawn_from_real_logs(shared, tmp_path):
    """One file each, as they lie beside the guide; the four losses of one table by their own names."""
    guide = FIGURES.parent / "docs" / "figures"
    module = loaded(guide / "real_logs.py", "real_logs")
    drawn = module.main(shared / "logs", tmp_path)
    assert {path.name for path in drawn} == {path.name for path in guide.glob("*.png")}
    _, axes = plt.subplots(1, 2)
    module.units_differ(shared / "logs", axes)
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == [
        "sigmoid",
        "kto pair",
        "ipo",
        "hinge",
    ]


def captions() -> dict[str, str]:
    every = {name: figure.caption for name, figure in {**THEORY, **PICTURES}.items()}
    return {name: caption for name, caption in every.items() if (FIGURES / f"{name}.svg").is_file()}


MARKS = {  # what a caption may name, and what the SVG then has
    r"[Dd]ashe[ds]|[Dd]otted": "stroke-dasharray",
    r"[Bb]ands?\b": "opacity: 0.",
    r"\b[Rr]ings?\b": "fill: #ffffff",
}


@pytest.mark.parametrize("name", captions())
def test_what_a_caption_names_is_drawn(name):
    svg = (FIGURES / f"{name}.svg").read_text(encoding="utf-8")
    for named, drawn in MARKS.items():
        if re.search(named, captions()[name]):
            assert re.search(drawn, svg), (named, name)


@pytest.mark.parametrize("name", captions())
def test_the_colours_of_chosen_and_rejected_are_used_for_nothing_else(name):
    svg = (FIGURES / f"{name}.svg").read_text(encoding="utf-8").lower()
    of_settings = {
        "gold",
        "gold_sweep",
        "win_rate",
        "quantiles",
        "cosine",
        "trajectories",
        "overlap_map",
        "grid",
    }
    if name in {*THEORY, *of_settings}:
        assert CHOSEN.lower() not in svg
        assert REJECTED.lower() not in svg


def test_kept_runs_stay_small():
    runs = FIGURES / "runs"
    size = sum(path.stat().st_size for kind in ("json", "jsonl", "csv") for path in runs.rglob(f"*.{kind}"))
    assert size < 12_000_000  # training batches of 32 and two temperatures

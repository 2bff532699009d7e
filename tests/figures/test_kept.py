"""The figures kept in figures/ are those that figures/make.py draws from the runs kept there."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.quiver import Quiver
from matplotlib.text import Text

from rewardshape.figures import PICTURES, THEORY, draw_figures
from rewardshape.figures.of_runs import picture_of
from rewardshape.plotting.style import CHOSEN, REJECTED, style
from rewardshape.trace import read_trace

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


def lines(figure, **wanted):
    """Lines and outlines of a figure that look so."""
    own = [a for ax in figure.axes for a in ax.get_children() if isinstance(a, Line2D | Patch)]
    styles = {"--": ("--", "dashed"), ":": (":", "dotted"), "-.": ("-.", "dashdot")}
    return [
        artist
        for artist in own
        if all(
            getattr(artist, f"get_{name}", lambda: None)() in styles.get(value, (value,))
            for name, value in wanted.items()
        )
    ]


def of_kind(figure, *kinds):
    return [artist for ax in figure.axes for artist in ax.collections if isinstance(artist, kinds)]


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


MARKS = {  # what a caption may name, and what the figure then has
    r"[Dd]ashed\b": lambda f: lines(f, linestyle="--"),
    r"[Dd]otted": lambda f: lines(f, linestyle=":"),
    r"[Dd]ash-dotted": lambda f: lines(f, linestyle="-."),
    r"\b[Bb]ands?\b": lambda f: of_kind(f, PolyCollection, PathCollection),
    r"\b[Rr]ings?\b": lambda f: lines(f, marker="o", markerfacecolor="white"),
    r"\b[Dd]iamonds?\b": lambda f: lines(f, marker="D"),
    r"\b[Dd]ots?\b": lambda f: len(lines(f, marker="o")) > len(lines(f, marker="o", markerfacecolor="white")),
    r"\b[Tt]riangle\b": lambda f: lines(f, marker="^"),
    r"\b[Tt]icks\b": lambda f: lines(f, marker="|"),
    r"\b[Bb]ars\b|quartiles and middle|with 95 % intervals": lambda f: of_kind(f, LineCollection),
    r"\bmedian, quartiles": lambda f: [a for ax in f.axes for a in ax.patches if isinstance(a, Rectangle)],
    r"\bmedian and quartiles": lambda f: of_kind(f, PolyCollection),
    r"\bhistogram\b": lambda f: len([a for ax in f.axes for a in ax.patches]) > 10,
    r"\b[Aa]rrows\b": lambda f: of_kind(f, Quiver),
    r"\bthick\b": lambda f: (
        len({line.get_linewidth() for line in lines(f) if line.get_label().startswith("fit")}) > 1
    ),
    r"\bdarker\b|\b[Bb]rown off": lambda f: of_kind(f, QuadMesh),
    r"\bSpearman": lambda f: "ρ = " in texts(f),
    r"\bbest-of-n\b": lambda f: "best of" in texts(f),
    r"β = [\d.]+, γ = [\d.]+": lambda f: re.search(r"β = [\d.]+, γ = [\d.]+", texts(f)),
    r"\(middle\)": lambda f: len(f.axes) >= 3,
    r"\((left|right)\)|\b(?:left|right)[;:]": lambda f: len(f.axes) >= 2,
}


@pytest.fixture(scope="module")
def drawn(make):
    """A kept figure as it is drawn, by its name; every trace is read once."""
    folders = {name: folder for folder, source in make.SOURCES.items() for name in source.pictures}
    read = functools.cache(lambda folder: read_trace(FIGURES / "runs" / folder))

    def one(name):
        with style():
            return THEORY[name].draw() if name in THEORY else picture_of(name, read(folders[name]))

    return one


@pytest.mark.parametrize("name", captions())
def test_what_a_caption_names_is_drawn(name, drawn):
    named = [mark for mark in MARKS if re.search(mark, captions()[name])]
    figure = drawn(name) if named else None
    for mark in named:
        assert MARKS[mark](figure), mark


def test_captions_name_what_the_figures_of_distributions_causes_and_fronts_are_made_of():
    """So that the test above looks at them."""
    for name in (
        "what_if", "quantiles", "distributions", "overlap_map", "kernel", "trajectories", "win_rate", "cosine",
        "equal_margin", "destination", "responses", "length",
    ):  # fmt: skip
        assert any(re.search(mark, captions()[name]) for mark in MARKS), name


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

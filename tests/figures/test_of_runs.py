"""A figure of runs is drawn from what the trace holds, says which run it shows, and names what it lacks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from rewardshape.analysis import displacement_curve
from rewardshape.errors import InputError
from rewardshape.figures.of_runs import PICTURES, draw, draw_all, picture_of, save
from rewardshape.figures.picture import TABLES, one_run
from rewardshape.trace import read_trace

PAIRS, STEPS = 8, 4


@pytest.fixture
def write(write_run, tmp_path):
    def one(*alphas):
        for alpha in alphas:
            pace = (
                np.random.default_rng(round(100 * alpha) + 500)
                .uniform(0.5, 1.5, (STEPS, PAIRS))
                .cumsum(axis=0)
            )
            sums = {"chosen": -10 - 0.2 * pace, "rejected": -12 - 0.6 * pace}
            stated = {"name": "alphapo", "parameters": {"alpha": alpha, "beta": 2.5, "gamma": 0.5}}
            folder = tmp_path / "runs" / f"alpha={alpha:g}"
            write_run(folder, sums, num_tokens={name: [8] * PAIRS for name in sums}, objective=stated)
        return read_trace(tmp_path / "runs")

    return one


def test_of_several_runs_the_one_nearest_to_a_quarter_is_shown_and_named(write):
    trace = write(-0.5, 0.0, 0.3, 1.0)
    assert one_run(trace).runs[0].alpha == 0.3
    figure = picture_of("displacement", trace)
    assert figure.get_suptitle() == "α = 0.3"
    curve = displacement_curve(trace.run("alpha=0.3"))
    [line] = [line for line in figure.axes[0].get_lines() if line.get_label() == "rejected"]
    np.testing.assert_array_equal(line.get_ydata(), curve.query("response == 'rejected'")["logp_mean"])


def test_a_run_alone_needs_no_title(write):
    assert picture_of("displacement", write(0.25)).get_suptitle() == ""


@pytest.mark.parametrize("name", PICTURES)
def test_what_a_trace_lacks_is_said_in_one_line(name, write, tmp_path):
    """Of a run alone, without geometry, samples and destinations."""
    picture, trace = PICTURES[name], write(0.25)
    if picture.several is not True and picture.table == "responses":
        picture.check(trace)
        return
    with pytest.raises(InputError) as refused:
        draw(name, trace, tmp_path)
    said = "needs several runs" if picture.several else f"needs {TABLES[picture.table]}"
    assert str(refused.value) == said
    assert not list(tmp_path.glob("*.svg"))


def test_all_that_can_be_drawn_is_in_both_forms(write, tmp_path):
    files = draw_all(write(0.25), tmp_path / "out")
    names = {file.stem for file in files}
    assert {"displacement", "trajectories", "distributions", "length"} <= names
    assert not {"gold", "cosine", "destination", "final"} & names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{name}.{form}" for name in names for form in ("png", "svg")
    )


def test_a_saved_figure_has_no_date_and_is_closed(tmp_path):
    svg, png = save(lambda: plt.subplots()[0], tmp_path / "a.b")
    assert (svg.name, png.name) == ("a.b.svg", "a.b.png")
    assert b"<dc:date>" not in svg.read_bytes()
    assert b"Matplotlib" not in png.read_bytes()
    assert plt.get_fignums() == []

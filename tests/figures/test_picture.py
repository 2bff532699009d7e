"""A picture laid out by what the runs differ in: every one that says it can."""

from __future__ import annotations

import pytest

from rewardshape.errors import InputError
from rewardshape.figures.of_runs import PICTURES, draw, picture_of
from rewardshape.figures.picture import varied_values
from rewardshape.trace import read_trace

PAIRS, STEPS = 8, 4
OWN = ("ches_vs_displacement", "gold", "grid", "what_if")  # pictures that have several panels already


@pytest.fixture
def grid(write_run, tmp_path, rng):
    for alpha in (0.0, 1.0):
        for beta in (1.0, 2.5):
            pace = rng.uniform(0.5, 1.5, (STEPS, PAIRS)).cumsum(axis=0)
            sums = {"chosen": -10 - 0.2 * pace, "rejected": -12 - 0.6 * pace}
            stated = {"name": "alphapo", "parameters": {"alpha": alpha, "beta": beta, "gamma": 0.5}}
            gram = {name: rng.uniform(1, 2, PAIRS).tolist() for name in ("gram_ww", "gram_ll")}
            rows = {"pair_id": [f"pairs.jsonl:{i + 1}" for i in range(PAIRS)], **gram}
            rows["gram_wl"] = rng.uniform(0, 1, PAIRS).tolist()
            write_run(
                tmp_path / f"{alpha}-{beta}",
                sums,
                num_tokens={name: [8] * PAIRS for name in sums},
                objective=stated,
                geometry={step: rows for step in (0, STEPS - 1)},
            )
    return read_trace(tmp_path)


def test_every_picture_of_one_table_can_be_laid_out():
    assert {name for name, picture in PICTURES.items() if picture.panel is None} == set(OWN)


DRAWN = [
    name
    for name, picture in PICTURES.items()
    if picture.panel is not None and (picture.table == "responses" or name in ("cosine", "overlap_map"))
]


@pytest.mark.parametrize("name", DRAWN)
def test_it_has_a_panel_for_every_value(name, grid):
    figure = picture_of(name, grid, col="alpha", row="beta")
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    own = "chosen, " if name == "sweep" else ""  # the response that the panel shows
    assert titles == [f"{own}β = {beta}, α = {alpha}" for beta in ("1", "2.5") for alpha in ("0", "1")]


def test_what_the_runs_do_not_differ_in_is_one_line(grid, tmp_path):
    assert varied_values(grid) == ["alpha", "beta"]
    with pytest.raises(InputError, match="col 'seed': the runs differ in alpha, beta"):
        draw("sweep", grid, tmp_path, col="seed")
    with pytest.raises(InputError, match="has panels of its own"):
        draw("grid", grid, tmp_path, col="beta")


def test_the_grid_finds_by_itself_what_to_lay_out(grid):
    figure = picture_of("grid", grid)
    assert [ax.get_title() for ax in figure.axes] == ["chosen, β = 1", "chosen, β = 2.5"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["α = 0", "α = 1"]

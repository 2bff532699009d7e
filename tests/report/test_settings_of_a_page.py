"""A setting looks alike in every picture of a page, whichever runs a picture holds."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rewardshape import read_trace
from rewardshape.analysis import compare_along, displacement_curve, settings_along
from rewardshape.plotting.settings import among, by_setting, colors_of, told_by_alpha
from rewardshape.plotting.style import hex_color
from rewardshape.report.charts import Palette
from rewardshape.report.page import render

PAIRS = 12
TOKENS = {"chosen": np.full(PAIRS, 10), "rejected": np.full(PAIRS, 10)}


def course(fall: float, steps: int = 4) -> dict[str, np.ndarray]:
    rng, share = np.random.default_rng(0), np.arange(steps)[:, None] / 3
    start = -20 + rng.normal(size=PAIRS)
    return {"chosen": start - fall * share, "rejected": start - 1 - 3 * fall * share}


def drawn() -> dict[str, list]:
    """Two samples of each of eight prompts, with gold."""
    rng = np.random.default_rng(1)
    rows = [(f"q{i}", j) for i in range(8) for j in range(2)]
    return {
        "prompt_id": [prompt for prompt, _ in rows],
        "text": [f"{prompt} {j}" for prompt, j in rows],
        "logp_sum": (-10 + rng.normal(size=16)).tolist(),
        "ref_logp_sum": (-11 + rng.normal(size=16)).tolist(),
        "gold": rng.random(16).tolist(),
        "num_tokens": [8] * 16,
    }


@pytest.fixture
def sweep(write_run, tmp_path):
    """A sweep of `(beta, alpha, seed, sampled, steps)`."""

    def write(*runs):
        for beta, alpha, seed, sampled, steps in runs:
            shape = {"name": "alphapo", "parameters": {"alpha": alpha, "beta": beta, "gamma": 0.25}}
            write_run(
                tmp_path / "sweep" / f"beta={beta:g}-alpha={alpha:g}-seed={seed}",
                course(beta + alpha + 1, steps),
                num_tokens=TOKENS,
                objective=shape,
                run={"seed": seed},
                samples={step: drawn() for step in (0, 2)} if sampled else None,
            )
        return tmp_path / "sweep"

    return write


def test_a_table_of_some_settings_has_the_colours_of_all(sweep):
    trace = read_trace(sweep(*((beta, alpha, 0, False, 4) for beta in (1.0, 2.5) for alpha in (0.0, 1.0))))
    palette, curve = Palette.of(trace.runs), displacement_curve(trace)
    names = list(dict.fromkeys(curve["setting"]))
    for some in (names[1:], names[2:], names[3:]):  # of which the last two are told apart by their α alone
        part = curve[curve["setting"].isin(some)]
        with among(trace.runs):
            looks = by_setting(part)
        colors = {str(one.rows["setting"].iloc[0]): hex_color(one.color) for one in looks}
        assert colors == {name: palette.light[name] for name in some}


def test_a_setting_has_in_its_own_panel_the_colour_that_it_has_among_all(sweep):
    """One α a panel: the panel's own settings would be told apart by nothing, or by α."""
    trace = read_trace(sweep(*((beta, alpha, 0, False, 4) for beta in (1.0, 2.5) for alpha in (0.0, 1.0))))
    light = set(Palette.of(trace.runs).light.values())
    lines = [line for ax in trace.plot("sweep", col="alpha", row="beta").axes for line in ax.get_lines()]
    assert {hex_color(line.get_color()) for line in lines if len(line.get_xdata()) == 4} == light


def test_alphas_that_share_a_colour_are_told_apart_in_order():
    assert told_by_alpha({"a": 0.0, "b": 2.0})
    assert not told_by_alpha({"a": 0.0, "b": 2.0, "c": 4.0})
    assert len({hex_color(color) for color in colors_of({"a": 0.0, "b": 2.0, "c": 4.0}).values()}) == 3


def test_a_page_of_which_only_some_runs_have_samples(sweep):
    page = render(read_trace(sweep((0.1, 0.0, 0, True, 4), (0.2, 0.0, 0, True, 4), (0.3, 0.0, 0, False, 4))))
    assert 'id="said"' in page  # of a run that drew some, though the deepest drew none


def test_a_seed_that_the_baseline_lacks_ends_no_page(sweep):
    trace = read_trace(sweep((1.0, 0.0, 0, False, 4), (1.0, 1.0, 0, False, 4), (1.0, 1.0, 1, False, 4)))
    assert "α = 1" in render(trace)
    base = trace.runs[0].setting
    along = settings_along(compare_along(trace, "logp_margin", baseline=base))
    known = along[along["setting"] != base].dropna(subset="difference")
    assert len(known) > 1
    assert (known["num_seeds"] == 1).all()


def test_the_mean_over_seeds_ends_where_one_of_them_ends(sweep):
    trace = read_trace(sweep((1.0, 0.0, 0, False, 6), (1.0, 0.0, 1, False, 4), (1.0, 1.0, 0, False, 6)))
    lines = trace.plot("sweep").axes[0].get_lines()
    assert {len(line.get_xdata()) for line in lines if line.get_label().startswith("α")} == {4, 6}


def test_steps_are_shown_with_every_digit(write_run, tmp_path):
    steps = [0, 4000, 12345, 12346]
    page = render(read_trace(write_run(tmp_path / "run", course(2.0), num_tokens=TOKENS, steps=steps)))
    assert re.search(r"\[0,4000,12345,12346\]", page.replace(" ", ""))

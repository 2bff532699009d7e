"""A fast slice of benchmarks/calibration.py: false alarms stay near their goal, real effects are seen."""

from __future__ import annotations

import importlib
import math
import re
import sys
from pathlib import Path

import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
calibration = importlib.import_module("calibration")
CELLS = {name: cell for cell in calibration.cells() for name in cell.names}

# name: simulations, and the rate that must not be passed (a goal of 5 %, or 10 %) or must be reached
FALSE_ALARMS = {
    "displaced or recovered (batches) | white | 25 rows": (150, 0.05),
    "displaced or recovered (batches) | AR .5 | 50 rows": (150, 0.05),
    "displaced or recovered (batches) | AR .9 | 25 rows": (100, 0.10),
    "displaced or recovered (evaluations) | white | 5 rows": (150, 0.05),
    "displaced or recovered (pairs) | skewed (exponential) | 16 prompts × 4": (60, 0.05),
    "over-optimized | white, sd 5.0% | 10 rows": (60, 0.05),
    "pairs that are … fell deeper | no relation | 64 pairs": (100, 0.05),
    "gold peaks | saturating | 11 steps × 128 prompts": (40, 0.05),
    "best against worst | over 5 seeds | 6 settings": (100, 0.05),
    "best against worst | over 64 pairs | 6 settings": (100, 0.05),
    "worse or better, of answers that win 50 % | graded | 32 prompts × 1": (100, 0.05),
    "worse or better, of answers that win 50 % | passed or not | 32 prompts × 1": (100, 0.05),
    "worse or better, of answers that win 50 % | five grades | 32 prompts × 1": (100, 0.05),
    "equally good, of answers that win 40 % | graded | 32 prompts × 1": (100, 0.05),
    "equally good, of answers that win 40 % | passed or not | 32 prompts × 1": (100, 0.05),
    "collapsed | nothing learnt, chosen falls; white | batches of 4, 25 rows": (15, 0.05),
    "another reference | rewards reach 6 within 60 steps; white | batches of 8, 10 rows": (5, 0.05),
    "too easy | saturates, from 5 of 10; white | batches of 8, 400 rows": (6, 0.05),
    "the squeezing effect | chosen falls by 20 nats | 5 evaluations": (10, 0.05),
    "β is recovered | examples change | 2 evaluations": (60, 0.05),
    "carried by single pairs | spread wide; white | 64 pairs": (200, 0.05),
    "carried by single pairs | nearly learnt; t(3) | 8 pairs": (200, 0.05),
    "carried by single batches, large losses | losses from 25 to 2, log-normal, σ = 1 | 100 rows": (60, 0.05),
    "saturated (pairs) | the median pair keeps a fifth | 16 pairs": (100, 0.05),
}
SEEN = {
    "power: displaced (batches) | white, sd .3, falls 0.2 | 400 rows": (40, 0.9),
    "power: over-optimized | white, sd 1.7%, rises 15% | 20 rows": (30, 0.7),
    "power: gold peaks | peak .3 at √KL .8 | 11 steps × 128 prompts": (20, 0.9),
    "power: pairs that are … fell deeper | ρ = 0.5 | 64 pairs": (40, 0.7),
    "power: worse, of answers that win 35 % | graded | 64 prompts × 4": (20, 0.9),
    "power: collapsed | came in order and lost it, chosen falls | batches of 16, 100 rows": (5, 0.8),
    "power: ties | 5 of 10 are ties | batches of 16, 100 rows": (5, 0.8),
    "power: the squeezing effect | chosen falls by 20 nats, greedy rises by 10 | 5 evaluations": (5, 0.8),
    "power: carried by single pairs | nearly learnt, one margin is −200 | 64 pairs": (40, 0.9),
    "the smallest fall that is named is seen (batches) | white, sd .3 | 25 rows": (60, 0.6),
}
COVERAGE = {
    "95 % interval holds | normal | 32 prompts × 1": 400,
    "95 % interval holds | skewed (log-normal) | 32 prompts × 1": 400,
    "95 % interval holds | normal | 64 prompts × 4": 400,
    "onset interval holds (batches) | white, straight | 400 rows, from 200": 40,
    "95 % interval of a share holds | 0.95 | 64 pairs": 400,
    "forecast: the interval holds the end | straight, 20% seen | 64 pairs": 100,
}


@pytest.mark.parametrize("name", FALSE_ALARMS)
def test_chance_says_nothing_more_often_than_its_goal(name):
    simulations, goal = FALSE_ALARMS[name]
    told = round(CELLS[name].rates(simulations)[name] * simulations)
    assert told <= stats.binom.ppf(0.999, simulations, goal)


@pytest.mark.parametrize("name", SEEN)
def test_a_real_effect_is_seen(name):
    simulations, least = SEEN[name]
    assert CELLS[name].rates(simulations)[name] >= least


@pytest.mark.parametrize("name", COVERAGE)
def test_an_interval_holds_the_truth(name):
    simulations = COVERAGE[name]
    held = round(CELLS[name].rates(simulations)[name] * simulations)
    assert stats.binom.ppf(0.001, simulations, 0.93) <= held


def test_an_interval_of_few_prompts_is_refused():
    for size in ("8 prompts × 1", "16 prompts × 1", "16 prompts × 4"):
        name = f"95 % interval holds | normal | {size}"
        assert math.isnan(CELLS[name].rates(20)[name])


def test_the_onset_is_on_time_in_the_median():
    name = "onset: median, late by this share of the run (batches) | white, slowing | 400 rows, from 200"
    assert abs(CELLS[name].rates(40)[name]) <= 0.05


def test_the_page_holds_what_was_measured():
    page = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    assert calibration.tables(calibration.measured()) in page
    assert {row["name"] for row in calibration.measured()} <= set(CELLS)


def test_every_cell_of_the_slice_is_one_of_the_plan():
    assert {*FALSE_ALARMS, *SEEN, *COVERAGE} <= set(CELLS)


def test_the_readme_counts_the_rates_as_the_page_does():
    page = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    goal, by_chance, beyond = map(
        int,
        re.search(
            r"Of (\d+) with a goal, \d+ lie within it, (\d+) beyond .* and (\d+) beyond that", page
        ).groups(),
    )
    told = (
        f"of {goal} with a goal, {by_chance + beyond} lie beyond it, {beyond} of them by more than the chance"
    )
    assert told in (ROOT / "README.md").read_text(encoding="utf-8")

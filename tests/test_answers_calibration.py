"""A fast slice of benchmarks/answers.py: answers are called worse or equally good by chance no more often than 5 %."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from scipy import stats

spec = importlib.util.spec_from_file_location(
    "answers_calibration", Path(__file__).parents[1] / "benchmarks" / "answers.py"
)
answers = importlib.util.module_from_spec(spec)
sys.modules["answers_calibration"] = answers
spec.loader.exec_module(answers)
CHANCE = [statement for statement in answers.STATEMENTS if not statement.startswith("power")]


@pytest.mark.parametrize("statement", CHANCE)
@pytest.mark.parametrize("kind", answers.GRADES)
def test_answers_are_called_other_than_they_are_no_more_often_than_the_goal(statement, kind):
    simulations = 100
    told = round(answers.rate(statement, kind, 32, 1, simulations) * simulations)
    assert told <= stats.binom.ppf(0.999, simulations, 0.05)


def test_worse_answers_are_seen():
    [power] = set(answers.STATEMENTS) - set(CHANCE)
    assert answers.rate(power, "graded", 64, 4, 20) > 0.9

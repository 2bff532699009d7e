"""Numbers for people keep their value: what is shown reads back as the number, to the digits shown."""

from __future__ import annotations

import ast
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardshape.numbers import (
    as_json,
    bracketed,
    interval,
    moment,
    number,
    parameter,
    percent,
    percents,
    shortest,
    signed,
    significant,
    typed,
)

PACKAGE = Path(__file__).resolve().parents[1] / "rewardshape"


@given(st.floats(-1e6, 1e6), st.integers(0, 6))
def test_what_is_shown_reads_back(value, digits):
    for shown in (number(value, digits), signed(value, digits)):
        assert float(shown.replace("−", "-")) == pytest.approx(value, abs=0.5000001 * 10**-digits)
        assert "-" not in shown
    assert float(shortest(value).replace("−", "-")) == pytest.approx(value, rel=1e-5)
    assert signed(value, digits)[0] in "+−"
    assert float(significant(value, 4).replace("−", "-")) == pytest.approx(value, rel=5.1e-4)
    assert float(typed(value)) == value


@given(st.integers(0, 10**15))
def test_a_step_keeps_its_digits_however_many_they_are(step):
    assert moment(step) == moment(float(step)) == str(step)
    assert moment(step / 4) == (str(step // 4) if step % 4 == 0 else shortest(step / 4))


def test_an_interval_that_is_not_known_is_said_to_be_none():
    assert interval({"a_low": math.nan, "a_high": 1.0}, "a") == "no interval"
    assert interval({"a_low": np.float64(-1.25), "a_high": 0.5}, "a", 2) == "−1.25 to +0.50"


def test_two_shares_that_look_alike_are_one():
    assert (percents(0.5, 0.504), percents(0.5, 0.506)) == ("50%", "50% to 51%")
    assert percent(0.5049, 1) == "50.5%"


def test_a_change_in_a_table_has_its_interval_where_that_is_known():
    assert bracketed(-1.25, -2.0, 0.5, 2) == "−1.25 [−2.00, +0.50]"
    assert bracketed(0.5, math.nan, math.nan) == "+0.500"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("gamma", 0.5, "γ = 0.5"),
        ("quiet", True, "quiet = True"),
        ("lora_rank", 8, "lora rank = 8"),
        ("a", "b", "a = b"),
    ],
)
def test_a_parameter_is_shown_with_its_name(name, value, shown):
    assert parameter(name, value) == shown


def test_json_holds_no_number_of_numpy_none_that_is_not_finite_and_as_many_digits_as_asked():
    value = {
        1: np.float32(0.1),
        "a": np.array([[1.5, np.inf], [-np.inf, np.nan]]),
        "b": (np.bool_(True), np.int64(3)),
    }
    found = json.loads(json.dumps(as_json(value, digits=4), allow_nan=False))
    assert found == {"1": 0.1, "a": [[1.5, None], [None, None]], "b": [True, 3]}
    assert as_json(np.float64(1 / 3)) == 1 / 3
    assert type(as_json(np.float64(1 / 3))) is float


SPEAKS = ["analysis", "figures", "integrations", "logs", "plotting", "report", "verdict"]
SPEAKS += ["diagnose.py", "judgements.py", "measure.py", "notebook.py", "probe/show.py", "probe/progress.py"]
FILES = [
    file
    for name in SPEAKS
    for file in sorted([PACKAGE / name, *(PACKAGE / name).rglob("*.py")])
    if file.is_file()
]
IN_A_HASH = "temperature:g"  # which no one reads, and which may not change


@pytest.mark.parametrize("file", FILES, ids=[file.relative_to(PACKAGE).as_posix() for file in FILES])
def test_what_speaks_to_people_writes_no_fraction_in_a_form_of_its_own(file):
    found = {
        f"{ast.unparse(node.value)}:{form}"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FormattedValue)
        and node.format_spec is not None
        and re.search(r"[eEfFgG%]$", form := ast.unparse(node.format_spec)[2:-1])
        and form != ",.0f"  # a whole number, its thousands apart
    }
    assert found <= ({IN_A_HASH} if file.name == "judgements.py" else set())

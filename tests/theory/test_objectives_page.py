"""docs/objectives.md: it is what the declarations say, and its formulas are the numbers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from rewardshape.theory import objective
from rewardshape.theory.objectives.zoo import ZOO

DOCS = Path(__file__).resolve().parents[2] / "docs"
PYTHON = {"−": "-", "·": "*", "^": "**", "[": "(", "]": ")", "αs_": "α*s_", "2(": "2*("}

_spec = importlib.util.spec_from_file_location("objectives_page", DOCS / "extensions" / "objectives_page.py")
page = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(page)


def test_the_page_of_objectives_is_up_to_date():
    written = (DOCS / "objectives.md").read_text(encoding="utf-8")
    assert written == page.markdown(), "run: python docs/extensions/objectives_page.py > docs/objectives.md"


def test_the_catalogue_has_every_objective_with_its_source_and_weights():
    rows = page.catalogue()
    assert {row["name"].split("`")[1] for row in rows} == {declared.name for declared in ZOO}
    assert all(row["source"] and row["w_w"] and row["w_l"] for row in rows)


def test_weights_in_the_catalogue_are_the_weights():
    """The text of the table, evaluated as a formula, against the numbers."""
    rows = {row["name"]: row for row in page.catalogue()}
    sigma = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    s_w, s_l = -1.3, -0.4
    for name in "alphapo simpo dpo chipo slic gpo_exponential ipo dpop nca bco kto exo".split():
        options = {"reference_point": 0.0} if name == "kto" else {}
        made = objective(name, **options)
        z = made.margin(s_w, s_l)
        values = {
            "σ": sigma,
            "z": z,
            "β": getattr(made, "beta", 1.0),
            "s_w": s_w,
            "s_l": s_l,
            "log": np.log,
            "e": np.e,
        }
        values |= {"r_w": made.reward(s_w), "r_l": made.reward(s_l), "α": made.parameters.get("alpha", 0.0)}
        values |= {
            "c": 1 / (2 * made.parameters["beta"]),
            "a": 1.0,
            "f": 0.5,
            "λ": made.parameters.get("penalty", 0.0),
        }
        values |= {"ε": made.parameters.get("label_smoothing", 0.0)}
        for column, weight in zip(("w_w", "w_l"), made.weights(s_w, s_l), strict=True):
            text = rows[f"`{name}`"][column]
            for written, python in PYTHON.items():
                text = text.replace(written, python)
            assert eval(text, {}, values) == pytest.approx(weight, rel=1e-12), (name, column)


def test_the_readme_counts_them():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    scored = [declared.name for declared in ZOO if "label" in objective(declared.name).needs]
    assert len(scored) == 2  # "two where rows carry an annotator's scores"
    assert f"| objectives | {len(ZOO)}, composed of" in readme

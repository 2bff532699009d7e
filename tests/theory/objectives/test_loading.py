"""Objectives of the user's own: found, checked, named, and made again."""

from __future__ import annotations

import json
import sys

import pytest

from rewardshape.errors import InputError
from rewardshape.theory import load_objective, objective, register

MODULE = """
from rewardshape.theory import Pairwise, objective
from rewardshape.theory.scores import Score
from rewardshape.theory.shapes import ChiSquared

def doubled(beta=0.1):
    return 2.0 * objective("dpo", beta=beta)

def unnamed(beta=0.1):
    return Pairwise(Score(True, False), ChiSquared(), beta=beta)

def broken():
    return 1 / 0

def nothing():
    return None

NUMBER = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of a fresh module in the working directory."""
    monkeypatch.chdir(tmp_path)
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE, encoding="utf-8")
    before = list(sys.path)
    yield name
    assert sys.path == before
    sys.modules.pop(name, None)


def test_what_rebuilds_from_its_own_name_keeps_it(own):
    made = load_objective(f"{own}:doubled", beta=0.5)
    assert made == 2.0 * objective("dpo", beta=0.5)
    assert objective(made.name, **json.loads(json.dumps(made.parameters))) == made


def test_what_does_not_is_named_after_its_function_and_made_again_by_it(own):
    made = load_objective(f"{own}:unnamed", beta=0.5)
    assert (made.name, made.parameters) == (f"{own}:unnamed", {"beta": 0.5})
    assert made.loss(0.3, -0.4) == objective("chipo", beta=0.5).loss(0.3, -0.4)
    assert objective(made.name, **made.parameters) == made


@pytest.mark.parametrize(
    ("where", "parameters", "message"),
    [
        ("dpo", {}, "write MODULE:FUNCTION"),
        ("no_such_module_here:make", {}, "no module 'no_such_module_here'"),
        ("OWN:absent", {}, "absent is not there"),
        ("OWN:NUMBER", {}, "NUMBER is not a function"),
        ("OWN:unnamed", {"gamma": 1.0}, "unexpected keyword argument 'gamma'"),
        ("OWN:broken", {}, "failed with ZeroDivisionError: division by zero"),
        ("OWN:nothing", {}, "must return a rewardshape.theory.Objective"),
        ("OWN:unnamed", {"beta": object()}, "must be numbers, text or lists"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(own, where, parameters, message):
    with pytest.raises(InputError, match=message) as refusal:
        load_objective(where.replace("OWN", own), **parameters)
    assert "\n" not in str(refusal.value)


def test_a_module_that_fails_on_import_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fails_on_import.py").write_text("import no_such_library\n", encoding="utf-8")
    with pytest.raises(InputError, match="needs the module 'no_such_library'"):
        load_objective("fails_on_import:make")
    (tmp_path / "has_a_typo.py").write_text("def f(:\n", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be imported, SyntaxError"):
        load_objective("has_a_typo:make")
    (tmp_path / "ends_the_program.py").write_text("raise SystemExit(0)\n", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be imported, SystemExit"):
        load_objective("ends_the_program:make")


def test_register_takes_no_published_name():
    with pytest.raises(InputError, match="register your own under another name"):
        register("dpo", lambda: objective("sft"))

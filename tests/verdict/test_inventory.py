"""Every sentence that is said by itself stands in docs/calibration.md, with its rate or the test that shows it."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8").partition("## Every statement")[2]
INFERENCES, _, EXACT = PAGE.partition("**Exact about what the file holds**")
SPEAKING = (
    "verdict/*.py", "diagnose.py", "analysis/generations.py", "analysis/overoptimization.py", "probe/show.py",
    "report/page.py", "report/pictures.py", "logs/log.py", "logs/read.py", "logs/documents.py", "logs/forms.py",
    "logs/kinds.py",
)  # fmt: skip
# Names of forms and of the command's options, refusals, HTML, and why nothing is printed: nothing is said of a run.
NO_STATEMENTS = {
    "diagnose.add_arguments", "diagnose.report", "forms._reads_json", "forms._reads_prose",
    "judge.Verdict._repr_html_", "show.present",
}  # fmt: skip
WORDS = 4  # that make a sentence, or a part of one


def is_prose(node: ast.AST) -> bool:
    """Whether a literal is a sentence or a part of one."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
    if not all(isinstance(text, str) for text in texts):
        return False
    text = "".join(texts)
    return text.count(" ") >= WORDS - 1 and len(re.findall(r"[^\W\d_]+", text)) >= WORDS


def literals(node: ast.AST) -> list[ast.AST]:
    """Literals below a node; not docstrings, nor what is raised, nor what stands in functions below it."""
    found = []
    for child in ast.iter_child_nodes(node):
        docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        if docstring or isinstance(child, ast.Raise | ast.FunctionDef | ast.ClassDef):
            continue
        found += [child] if isinstance(child, ast.Constant | ast.JoinedStr) else []
        found += literals(child)
    return found


def speakers(node: ast.AST, name: str) -> set[str]:
    """The functions and classes below a node that hold prose, by their dotted names."""
    found = set()
    for child in ast.walk(node):
        for own in ast.iter_child_nodes(child):
            own.parent = child  # type: ignore[attr-defined]
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and any(map(is_prose, literals(inner))):
            path, at = [], inner
            while not isinstance(at, ast.Module):
                path += [at.name] if isinstance(at, ast.FunctionDef | ast.ClassDef) else []
                at = at.parent  # type: ignore[attr-defined]
            found.add(".".join([name, *reversed(path)]))
    return found


def test_the_page_lists_whatever_speaks_and_nothing_else():
    found = set()
    for pattern in SPEAKING:
        for file in (ROOT / "rewardshape").glob(pattern):
            found |= speakers(ast.parse(file.read_text(encoding="utf-8")), file.stem)
    listed = set(re.findall(r"`(\w+(?:\.\w+)+)`", PAGE))
    assert found - listed == NO_STATEMENTS, "put them in a table of docs/calibration.md, 'Every statement'"
    assert listed - found == set(), "they say nothing (any more)"


def test_every_inference_has_a_table_and_every_table_of_false_alarms_a_statement():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    cells = importlib.import_module("calibration").cells()
    planned = {statement.name: statement for cell in cells for statement in cell.statements}
    rows = [line.split("|") for line in INFERENCES.splitlines() if line.startswith("| ")][1:]
    assert all(re.findall(r'"([^"]+)"', row[3]) for row in rows)
    named = set(re.findall(r'"([^"]+)"', " ".join(row[3] for row in rows)))
    assert named <= set(planned)
    alarms = {name for name, statement in planned.items() if statement.goal}
    within = {"a steady fall, said to be given back (pairs)"}  # the same statement in another world
    assert {name for name in alarms - named - within if "onset: median" not in name} == set()


EXACT_ROWS = [line.split("|") for line in EXACT.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", EXACT_ROWS, ids=[row[1].strip()[:40] for row in EXACT_ROWS])
def test_every_exact_statement_names_a_test_that_is_there(row):
    [(file, name)] = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[3])
    assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8")

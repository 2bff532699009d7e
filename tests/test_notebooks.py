"""The notebooks run from top to bottom, are short, and are committed with outputs that hold nothing private."""

from __future__ import annotations

import ast
import importlib.util
import re
import warnings
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
_spec = importlib.util.spec_from_file_location("execute_notebooks", ROOT / "notebooks" / "execute.py")
_execute = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_execute)
code_hash = _execute.code_hash
NAMES = [path.stem for path in NOTEBOOKS]
MOST_LINES = 40
MOST_BYTES = 450_000  # a slider holds a picture for each of its positions

# Fewer steps than a reader takes: every line runs, and what the committed outputs show was made with all of them.
SHORTER = {
    "steps=40": "steps=16",
    "steps=100": "steps=30",
    "steps=60": "steps=8",
    "samples=128": "samples=32",
}
SHORTER_STILL = {"2_alpha_sweep": {"steps=40": "steps=4"}}  # of a grid of eight runs
DRAWS = ("with style():", ".plot(", "slide(")  # what a cell that shows a picture says

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def test_there_is_one_notebook_for_each_question():
    assert [name.partition("_")[0] for name in NAMES] == ["1", "2", "3", "4", "5", "6"]
    questions = [read(path).cells[0].source.splitlines()[0] for path in NOTEBOOKS]
    assert all(re.fullmatch(r"# .*\?", question) for question in questions)


def shortened(path: Path) -> nbformat.NotebookNode:
    notebook = read(path)
    for cell in notebook.cells:
        for many, few in (SHORTER_STILL.get(path.stem, {}) | SHORTER).items():
            cell.source = re.sub(rf"{many}\b", few, cell.source)
    return notebook


@each_notebook
@pytest.mark.timeout(900)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    place = tmp_path / "notebooks"
    place.mkdir()
    (tmp_path / "figures").symlink_to(ROOT / "figures")
    notebook = shortened(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the kernel's transport warns of TCP
        NotebookClient(notebook, timeout=800, resources={"metadata": {"path": str(place)}}).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code" and any(word in cell.source for word in DRAWS):
            assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source


@each_notebook
def test_code_is_short_enough_to_read(path: Path):
    lines = [line for cell in code_cells(path) for line in cell.source.splitlines() if line.strip()]
    assert len(lines) < MOST_LINES
    for cell in code_cells(path):
        ast.parse(cell.source)  # plain Python, no magics
    assert max(map(len, lines)) <= 130


@each_notebook
def test_outputs_are_committed_complete_and_small(path: Path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    assert path.stat().st_size < MOST_BYTES
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)


@each_notebook
def test_outputs_are_those_of_the_code_that_stands_there(path: Path):
    notebook = read(path)
    assert notebook.metadata["executed"] == code_hash(notebook), (
        f"run: python notebooks/execute.py {path.name}"
    )
    streams = [
        output for cell in code_cells(path) for output in cell.outputs if output.output_type == "stream"
    ]
    assert all(output.name == "stdout" for output in streams)  # no red boxes


@each_notebook
def test_what_moves_moves_without_a_kernel(path: Path):
    """No widget that a saved notebook cannot show, and nothing fetched from elsewhere."""
    html = [
        output["data"].get("text/html", "")
        for cell in code_cells(path)
        for output in cell.outputs
        if "data" in output
    ]
    assert not any(
        "widget" in kind for cell in code_cells(path) for o in cell.outputs for kind in o.get("data", {})
    )
    assert not re.search(r'(?:src|href)="https?:', "".join(html))


def test_formulas_are_formulas():
    """No formula is typed as text: what has a subscript, a power or a norm stands between dollars."""
    for path in NOTEBOOKS:
        for cell in read(path).cells:
            if cell.cell_type == "markdown":
                words = re.sub(r"`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", "", cell.source, flags=re.DOTALL)
                assert re.findall(r"\bw_[wl]\b|\bs_[wl]\b|φ\(|e\^|ℓ|∇|√", words) == [], path.name


@each_notebook
def test_outputs_name_no_place_on_the_machine_they_were_made_on(path: Path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.:/])/(?:home|root|tmp|work|Users|usr|opt|mnt)/[^\s\"\\]*", text) == []

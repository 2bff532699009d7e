"""The notebooks run from top to bottom, are short, and are committed with outputs that hold nothing private."""

from __future__ import annotations

import ast
import importlib.util
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
_spec = importlib.util.spec_from_file_location("execute_notebooks", ROOT / "notebooks" / "execute.py")
_execute = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_execute)
code_hash = _execute.code_hash
NAMES = [path.stem for path in NOTEBOOKS]
MOST_LINES = 40
MOST_BYTES = 450_000  # a slider holds a picture for each of its positions

# Fewer steps, samples and pictures than a reader has: every line runs, and what the committed outputs show was made
# with all of them.
SHORTER = {
    "1_reward_shapes": {"[-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0]": "[-2.0, 0.0]",
                        "[0.5, 1.0, 2.5, 5.0, 10.0]": "[0.5, 10.0]", "[0.0, 0.25, 0.5, 1.0, 2.0, 3.0]": "[0.0, 3.0]"},
    "2_alpha_sweep": {"steps=40": "steps=3, batch_size=8, probe_pairs=32", "range(15, 151, 15)": "range(75, 151, 75)",
                      "(0.1, 0.25, 0.5, 0.75, 0.8)": "(0.5, 0.8)"},
    "3_anatomy_of_displacement": {"steps=40": "steps=8, batch_size=8"},
    "4_over_optimization": {"steps=100": "steps=12", "sample_every=5": "sample_every=2", "samples=128": "samples=32"},
    "5_your_own_checkpoint": {"steps=60": "steps=6, batch_size=8"},
    "6_is_this_fall_harmful": {"steps=60, batch_size=16": "steps=4, batch_size=8", "samples=128": "samples=32"},
}  # fmt: skip
# A name that no notebook may count on, its own folder, and no pictures but those that it shows itself.
BEFORE = """
%reset -f
import os, sys
os.chdir({place!r})
sys.path.insert(0, {root!r})
from tests import drawing
undrawn = drawing.undrawn()
undrawn.__enter__()
"""
AFTER = "undrawn.__exit__(None, None, None)"
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
    code = "\0".join(cell.source for cell in notebook.cells)
    for many, few in SHORTER[path.stem].items():
        assert code.count(many) == 1, many
        code = code.replace(many, few)
    for cell, source in zip(notebook.cells, code.split("\0"), strict=True):
        cell.source = source
    return notebook


@pytest.fixture(scope="module")
def kernel() -> Iterator[AsyncKernelManager]:
    """One for all notebooks, emptied before each: to start one and import torch takes longer than most of them."""
    manager = AsyncKernelManager(kernel_name="python3")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its transport warns of TCP
        patch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        run_sync(manager.start_kernel)()
    yield manager
    run_sync(manager.shutdown_kernel)(now=True)


@each_notebook
@pytest.mark.timeout(900)
def test_notebook_runs(path: Path, tmp_path: Path, kernel: AsyncKernelManager):
    place = tmp_path / "notebooks"
    place.mkdir()
    for kept in _execute.KEPT:
        (tmp_path / kept).symlink_to(ROOT / kept)
    notebook = shortened(path)
    before = BEFORE.format(place=str(place), root=str(ROOT))
    notebook.cells = [new_code_cell(before), *notebook.cells, new_code_cell(AFTER)]
    client = NotebookClient(notebook, km=kernel, timeout=800)
    client.execute()
    client.kc.stop_channels()
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

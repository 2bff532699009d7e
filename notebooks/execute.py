"""Execute notebooks and keep their outputs: ``python notebooks/execute.py [NOTEBOOK…]``; all of them without names.

What was executed is recorded in the notebook, so that a test can tell outputs that are older than their code.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
KEPT = ("docs", "figures")  # folders beside the notebooks that some of them read
TIMEOUT = 1800  # seconds a cell may take


def code_hash(notebook: nbformat.NotebookNode) -> str:
    """Of all that is executed, in order."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def execute(path: Path) -> None:
    """Run a notebook from top to bottom where the kept tables are in reach, and write it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "notebooks"
        place.mkdir()
        for kept in KEPT:
            (Path(folder) / kept).symlink_to(HERE.parent / kept)
        NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": str(place)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran
        if cell.cell_type == "code":  # progress and warnings say nothing of the result
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "executed": code_hash(notebook),
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        execute(path)
        print(path)

"""The notebooks as pages of the site, with the outputs that are kept in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add a page for every notebook, and its pictures beside it."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        page, resources = MarkdownExporter().from_filename(
            str(path), resources={"output_files_dir": f"{path.stem}_files"}
        )
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        for name, content in resources.get("outputs", {}).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """What a cell printed is marked, so that its lines are broken where the page ends."""
    if not page.file.src_uri.startswith("notebooks/"):
        return html
    return html.replace(
        '<div class="language-text highlight">', '<div class="language-text highlight printed">'
    )

"""The documentation as a reader meets it: formulas set, notebooks in it, both themes, no cut table, no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRAST = (Path(__file__).with_name("contrast.js")).read_text(encoding="utf-8").partition("\n")[2]
NOT_PROSE = {"code", "pre", "math", "script", "style", "svg", "title"}


@pytest.fixture(scope="module")
def site(made_once) -> Path:
    pytest.importorskip("mkdocs", reason="building the site needs rewardshape[docs]")

    def make(folder: Path) -> None:
        built = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
            cwd=ROOT,
            env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
            capture_output=True,
            text=True,
        )
        assert built.returncode == 0, built.stdout + built.stderr

    return made_once("site", make)


class Prose(HTMLParser):
    """The text of an article that is neither code nor formula; its headings, pictures and links."""

    def __init__(self, file: Path):
        super().__init__()
        self.text, self.paragraphs, self.inside, self.article = "", [], [], False
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.article |= tag == "article"
        if tag in NOT_PROSE:
            self.inside.append(tag)
        if tag == "p" and self.article:
            self.paragraphs.append("")

    def handle_endtag(self, tag):
        if tag in NOT_PROSE and self.inside:
            self.inside.pop()
        self.article &= tag != "article"

    def handle_data(self, data):
        if self.article and not self.inside:
            self.text += data
            if self.paragraphs:
                self.paragraphs[-1] += data


def guides(site: Path) -> list[Path]:
    return [page for page in site.glob("*.html") if page.name not in ("404.html", "portrait.html")]


def test_it_asks_nothing_of_a_network(site):
    asked = {
        link
        for page in site.rglob("*.html")
        for link in re.findall(
            r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text("utf-8")
        )
    }
    assert asked == set()


def test_formulas_are_set_not_typed(site):
    for page in guides(site):
        typed = re.findall(r"\b[a-zA-Zπ]_(?:w|l|ref)\b|e\^|\$\$|\\frac", Prose(page).text)
        assert typed == [], page.name
    assert (site / "theory.html").read_text(encoding="utf-8").count('display="block"') >= 8
    reference = (site / "api" / "theory.html").read_text(encoding="utf-8")
    assert "<math" in reference
    assert ".. math::" not in reference


def test_no_page_begins_with_a_command_to_build_it(site):
    for page in guides(site):
        assert "python docs/" not in Prose(page).paragraphs[0], page.name


def test_the_menu_says_nothing_twice(site):
    page = (site / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^"#]+)" class="md-nav__link *"', page)  # but for the page that is open
    assert len(links) > 25
    assert len(links) == len(set(links))


def test_every_figure_of_the_gallery_has_its_picture_and_its_code(site):
    page = (site / "gallery.html").read_text(encoding="utf-8")
    parts = page.split("<h2 ")[1:]
    assert len(parts) >= 20
    for part in parts:
        [picture] = re.findall(r'<img alt="\w+" src="(gallery/\w+\.png)"', part)
        assert (site / picture).is_file()
        assert "<code>" in part


def test_the_notebooks_are_pages_with_their_outputs(site):
    names = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert len(names) == 6
    for name in names:
        page = (site / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        assert "<img" in page, name


def test_sliders_move_without_a_kernel(tab, site):
    tab.open(site / "notebooks" / "1_reward_shapes.html")
    pictures = "[...s.querySelectorAll('img')].filter(i => i.offsetWidth).map(i => i.alt)"
    shown = f"[...document.querySelectorAll('.slider')].map(s => {pictures})"
    first = tab.run(shown)[0]
    assert first == ["α 2"]
    tab.run(
        "{ const s = document.querySelector('.slider input'); s.value = 1; s.dispatchEvent(new Event('input')); }"
    )
    assert tab.run(shown)[0] == ["α −1"]
    assert tab.run("document.querySelector('.slider output').textContent") == "−1"
    assert tab.run("document.querySelector('iframe').getAttribute('srcdoc').includes('phasePortrait')")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("page", ["index", "theory", "objectives", "notebooks/1_reward_shapes"])
def test_text_stands_out_in_both_themes(tab, site, page, dark):
    tab.open(site / f"{page}.html", dark=dark)
    tab.run("localStorage.clear()")  # the theme chosen on another page
    tab.open(site / f"{page}.html", dark=dark)
    assert (tab.run("document.body.dataset.mdColorScheme") == "slate") == dark
    texts = "article :is(p, li, a, td, th, em, strong), .md-nav__link"
    assert tab.run(f"({CONTRAST})({texts!r})") == []


@pytest.mark.parametrize("width", [1280, 390])
def test_tables_fit_or_scroll_within_their_page(tab, site, width):
    cut = (
        "[...document.querySelectorAll('article table')].filter(t => t.getBoundingClientRect().right > "
        "t.closest('.md-typeset__scrollwrap, article').getBoundingClientRect().right + 1).length"
    )
    for page in guides(site):
        tab.open(page, width=width)
        assert tab.run("document.documentElement.scrollWidth") <= width, page.name
        if width > 1000:
            assert tab.run(cut) == 0, page.name


def test_what_the_cells_of_a_notebook_printed_is_broken_where_the_page_ends(site, tab):
    tab.open(site / "notebooks" / "6_is_this_fall_harmful.html", width=800)
    printed = "[...document.querySelectorAll('.printed code')]"
    assert tab.run(f"{printed}.length") >= 2
    assert tab.run(f"{printed}.filter(one => one.scrollWidth > one.clientWidth + 1).length") == 0

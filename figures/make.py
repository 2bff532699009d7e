"""Every figure in this folder, and its README: ``python figures/make.py`` writes the same bytes from the same runs.

The runs they are drawn from lie in ``runs/``, without their checkpoints; `SOURCES` holds the commands that made them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image

from rewardshape.figures import PICTURES, THEORY, draw_figures
from rewardshape.figures.papers import table
from rewardshape.report.portrait import portrait_page

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"


@dataclass(frozen=True)
class Source:
    """A run or sweep kept in ``runs/``: the command that makes it, and the figures drawn from it."""

    command: str
    pictures: tuple[str, ...]


STORIES = "python -m rewardshape.probe ../shared/checkpoints/stories260K --data ../shared/data/"
SOURCES = {
    "embedded": Source(
        "python -m rewardshape.probe --output figures/runs/embedded --sample-every 10 --samples 128 --best-of 8 "
        "--geometry-every 30 --probe-every 3\n"
        "python -m rewardshape.probe --what-if --output figures/runs/embedded/what-if",
        (
            "sweep",
            "trajectories",
            "final",
            "equal_margin",
            "displacement",
            "predicted_vs_measured",
            "gold",
            "gold_sweep",
            "distributions",
            "quantiles",
            "length",
            "win_rate",
            "cosine",
            "overlap_map",
            "what_if",
        ),
    ),
    "causes": Source(
        "python -m rewardshape.probe --alpha 0.25 --output figures/runs/causes --destination-every 50 "
        "--influence-every 75 --geometry-every 150 --sample-every 50 --samples 64 --probe-every 3",
        ("kernel", "destination", "tokens_gained"),
    ),
    "polite": Source(
        f"{STORIES}llms_from_scratch_polite.jsonl --alpha 0 --steps 60 --learning-rate 3e-4 --no-end-token "
        "--probe-pairs 96 --probe-every 10 --geometry-every 60 --output figures/runs/polite",
        ("ches_vs_displacement",),
    ),
    "response-kinds": Source(
        f"{STORIES}learning_dynamics_helpful_probe.jsonl --alpha 0 --steps 60 --learning-rate 1e-4 "
        "--max-prompt-tokens 192 --max-response-tokens 128 --no-end-token --skip-bad-rows --probe-pairs 32 "
        "--probe-every 10 --probe-responses chosen_initial chosen_selfr chosen_gptsemantic chosen_gptformat "
        "reject_gptsemantic reject_gptformat irr_train irr_test irr_hum random_permute random_nonhum "
        "--output figures/runs/response-kinds",
        ("responses",),
    ),
}


def main(output: Path = HERE) -> None:
    """Draw every figure into `output`, with the page that shows them all."""
    draw_figures(list(THEORY), output=output)
    for folder, source in SOURCES.items():
        draw_figures(source.pictures, runs=HERE / "runs" / folder, output=output)
    (output / "README.md").write_text(index(), encoding="utf-8")
    if output == HERE:
        document()


def document() -> None:
    """What the documentation takes from here: small pictures with their code, the table of papers, the portrait."""
    pictures = DOCS / "gallery"
    pictures.mkdir(exist_ok=True)
    for path in sorted(HERE.glob("*.png")):
        with Image.open(path) as picture:
            width = WIDTH if picture.width > picture.height * 1.5 else WIDTH * 5 // 9
            size = (width, round(picture.height * width / picture.width))
            small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            small.quantize(COLORS, dither=Image.Dither.NONE).save(pictures / path.name, optimize=True)
    (DOCS / "gallery.md").write_text(gallery(), encoding="utf-8")
    (DOCS / "papers.md").write_text(f"{PAPERS_HEAD}\n\n{table()}", encoding="utf-8")
    (DOCS / "portrait.html").write_text(portrait_page(), encoding="utf-8")


WIDTH = 760  # pixels of a picture in the gallery
COLORS = 256  # of it: fewer, and chosen is no longer blue
PAPERS_HEAD = """\
# Published figures

Which figure shows what a paper's figure shows, from your own runs. The correspondence is of kind: the
same quantities on the axes. Numbers of a paper are not reproduced, and the descriptions of its figures are ours. Ours
are shown in the [gallery](gallery.md)."""


def gallery() -> str:
    """Every figure with what it shows and the code that draws it."""
    parts = [
        "# Gallery",
        "Every figure, with the Python that draws it; `trace` is a run or a sweep that `read_trace` read or "
        "`run_probe` made. On the command line it is `rewardshape figures NAME --runs DIR`. What the runs differ in "
        'lays most of them out: `trace.plot("trajectories", hue="alpha", col="beta", row="seed")`. Plot functions '
        "that are given no axes draw in the project's style; "
        '`with style("paper"):` and `with style("talk"):` are the others.',
    ]
    for name, figure in THEORY.items():
        code = f'from rewardshape.figures import draw_figures\n\ndraw_figures(["{name}"], output="figures")'
        parts += _shown(name, figure.caption, code)
    for source in SOURCES.values():
        for name in source.pictures:
            code = f'trace.plot("{name}")'
            parts += _shown(name, PICTURES[name].caption, code)
    return "\n\n".join(parts) + "\n"


def _shown(name: str, caption: str, code: str) -> list[str]:
    block = f"<!-- not run: the gallery's own pictures -->\n```python\n{code}\n```"
    return [f"## {name.replace('_', ' ')}", f"![{name}](gallery/{name}.png)", caption, block]


def index() -> str:
    """The page of all figures: each picture, what it shows, the command that draws it."""
    parts = [
        "# Figures",
        "Written by `python figures/make.py`. Each is also there as SVG; `python -m rewardshape.figures --runs DIR` "
        "draws those of training from your own runs.",
    ]
    for name, figure in THEORY.items():
        parts += [*_entry(name, figure.caption), f"`python -m rewardshape.figures {name}`"]
    for folder, source in SOURCES.items():
        for name in source.pictures:
            command = f"`python -m rewardshape.figures {name} --runs figures/runs/{folder}`"
            parts += [*_entry(name, PICTURES[name].caption), command]
    commands = "\n".join(source.command for source in SOURCES.values())
    parts += [
        "## The runs",
        "What these commands made is kept in `runs/`, without the checkpoints:",
        f"<!-- not run: it writes the runs that are kept here -->\n```bash\n{commands}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _entry(name: str, caption: str) -> list[str]:
    return [f"## {name}", f"![{name}]({name}.png)", caption]


if __name__ == "__main__":
    matplotlib.use("Agg")
    main()

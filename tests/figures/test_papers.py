"""Published figures, in kind: every one named is there, its page is up to date, and the command draws them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rewardshape.figures import PICTURES, THEORY, draw_figures
from rewardshape.figures.command import main
from rewardshape.figures.papers import PAPERS, table
from rewardshape.figures.theory_tables import squeezing

ROOT = Path(__file__).resolve().parents[2]


def test_every_figure_of_a_paper_is_one_of_ours():
    assert set(PAPERS) == {"alphapo", "simpo", "razin", "ren", "yuan", "rafailov", "gao", "dposhift"}
    for paper in PAPERS.values():
        assert set(paper.names) <= {*THEORY, *PICTURES}


def test_the_page_of_papers_is_up_to_date():
    assert (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").endswith(table()), (
        "run: python figures/make.py"
    )


def test_the_command_draws_the_figures_of_a_paper_and_names_the_rest(tmp_path, capsys):
    runs = ROOT / "figures" / "runs" / "polite"
    assert main(["--paper", "razin", "--runs", str(runs), "--output", str(tmp_path)]) == 0
    *files, last = capsys.readouterr().out.splitlines()
    assert {Path(file).stem for file in files} == {"displacement", "ches_vs_displacement"}
    assert last == "left out: tokens_gained (needs destinations (--destination-every))"


def test_a_sweep_with_samples_and_geometry_has_the_figures_of_every_paper(tmp_path):
    """Of the kept sweep all is drawn but what was not measured in it; each paper has at least two of its figures."""
    drawn = draw_figures(runs=ROOT / "figures" / "runs" / "embedded", output=tmp_path)
    names = {path.stem for path in drawn.files}
    lacking = ("--destination-every", "differ in", "of pairs against each other", "--what-if")
    for reason in drawn.left_out.values():
        assert any(said in reason for said in lacking), reason
    for name, paper in PAPERS.items():
        assert set(paper.names) <= names | drawn.left_out.keys()
        assert len(set(paper.names) & names) >= min(2, len(paper.names)), name


def test_an_unknown_paper_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--paper", "nobody"])
    assert ended.value.code == 2
    assert "alphapo" in capsys.readouterr().err


def test_squeezing_gives_the_mass_to_the_most_probable_token():
    """One step by hand: z − rate·(e_pushed − p), then softmax; the mode gains, every other token loses."""
    step = squeezing(steps=1, rate=0.5)
    z = np.log(step["before"].to_numpy())
    z = z - 0.5 * step["pushed"].to_numpy() + 0.5 * step["before"].to_numpy()
    np.testing.assert_allclose(step["after"], np.exp(z) / np.exp(z).sum(), rtol=1e-12)
    many = squeezing()
    change = (many["after"] - many["before"]).to_numpy()
    assert change.argmax() == many["before"].argmax()
    assert (change > 0).sum() <= 2
    assert many["after"].sum() == pytest.approx(1)

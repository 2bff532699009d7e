"""The page, the terminal, the JSON and the probe's table say one word of a run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from rewardshape import judge, judge_all, read_trace
from rewardshape.diagnose import main
from rewardshape.probe.show import ends, text_table
from rewardshape.report import write_report

COMMITTED = Path(__file__).parents[2] / "figures" / "runs"
PAIRS = 40
TOKENS = {"chosen": np.full(PAIRS, 10), "rejected": np.full(PAIRS, 12)}


def course(write_run, folder, chosen, rejected, *, level=(-20.0, -30.0), seed=0):
    """A run whose mean log-probs move by `chosen` and `rejected` nats per token, with pairs that differ."""
    rng = np.random.default_rng(7)
    along = np.linspace(0, 1, 11)[:, None]
    pace = rng.uniform(0.5, 1.5, PAIRS)
    sums = {
        "chosen": level[0] + rng.normal(0, 2, PAIRS) + 10 * chosen * along * pace,
        "rejected": level[1] + rng.normal(0, 2, PAIRS) + 12 * rejected * along * pace,
    }
    return write_run(folder, sums, num_tokens=TOKENS, run={"seed": seed})


def made(write_run, folder):
    """A sweep over seeds alone, a run that rose, and one that starts below chance and gets better."""
    for seed in (0, 1):
        course(write_run, folder / "seeds" / f"seed={seed}", -0.2 - 0.1 * seed, -0.5, seed=seed)
    course(write_run, folder / "rose", 0.2, -0.1)
    course(write_run, folder / "below-chance", -0.2, -0.4, level=(-30.0, -20.0))
    return [folder / "seeds", folder / "rose", folder / "below-chance"]


@pytest.fixture(scope="module")
def every(write_run, tmp_path_factory):
    """What is judged of each folder: the runs made here, and copies of the committed ones, for their pages."""
    folder = tmp_path_factory.mktemp("every")
    copies = [
        Path(shutil.copytree(path, folder / "committed" / path.name))
        for path in sorted(COMMITTED.iterdir())
        if path.is_dir()
    ]
    return {path: judge_all(path) for path in made(write_run, folder) + copies}


WORDS = {
    "seed=0": "displaced", "seed=1": "displaced", "rose": "not displaced", "below-chance": "displaced",
    "alpha=-0.5": "displaced", "alpha=0": "displaced", "alpha=0.25": "displaced", "alpha=1": "displaced",
    "causes": "displaced", "polite": "not displaced", "response-kinds": "undetermined",
}  # fmt: skip


def said_by_json(folder, tmp_path, capsys):
    capsys.readouterr()
    assert main([str(folder), "--json", "--output", str(tmp_path / "figures")]) == 0
    found = json.loads(capsys.readouterr().out)
    return {run["name"]: run for run in (found if isinstance(found, list) else [found])}


def test_every_place_says_one_word(every, tmp_path, capsys):
    seen = {}
    for folder, verdicts in every.items():
        printed = said_by_json(folder, tmp_path, capsys)
        assert printed.keys() == verdicts.keys()
        assert main([str(folder), "--output", str(tmp_path / "figures")]) == 0
        text = " ".join(capsys.readouterr().out.split())
        for name, verdict in verdicts.items():
            assert printed[name] | verdict.to_dict() == printed[name] == json.loads(json.dumps(printed[name]))
            assert f"{verdict.word.upper()}: {verdict.sentence}" in text
            seen[name] = str(verdict.word)
        for run in read_trace(folder).runs:  # a Run is judged as its folder is
            assert judge(run).to_dict() == verdicts[run.name].to_dict()
    assert seen == WORDS


def test_the_table_of_a_probe_has_word_interval_and_onset_of_the_verdict(every):
    for folder, verdicts in every.items():
        table = ends(read_trace(folder)).set_index("run")
        for name, verdict in verdicts.items():
            row = table.loc[name]
            assert row["word"] == verdict.word
            assert (row["chosen_change_low"], row["chosen_change_high"]) == verdict.interval
            assert row["onset"] == verdict.onset_step or (
                np.isnan(row["onset"]) and verdict.onset_step is None
            )
        text = text_table(table.reset_index(), "run")
        assert all(str(verdict.word) in text for verdict in verdicts.values())


def test_the_page_carries_the_verdict(every):
    for folder, verdicts in every.items():
        page = write_report(folder).read_text(encoding="utf-8")
        said = dict(re.findall(r'data-run="([^"]*)" data-verdict="([^"]*)"', page))
        assert said == {name: str(verdict.word) for name, verdict in verdicts.items()}


def test_a_path_with_several_runs_is_not_one_run(write_run, tmp_path):
    with pytest.raises(ValueError, match="judge takes one; use judge_all"):
        judge(made(write_run, tmp_path)[0])

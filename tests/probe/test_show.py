"""What a finished command prints: the numbers that were put there, the judgement's own words, and no lost trace."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rewardshape.analysis.comparison import settings_along
from rewardshape.analysis.what_if import read_what_if
from rewardshape.probe.settings import Settings
from rewardshape.probe.show import (
    along,
    comparisons,
    diverged,
    ends,
    fitted,
    present,
    show,
    text_table,
    what_if_lines,
    write_results,
)
from rewardshape.trace import Trace, read_trace
from rewardshape.verdict import judge_all

EMBEDDED = Path(__file__).parents[2] / "figures" / "runs" / "embedded"
PAIRS = 40
TOKENS = {"chosen": np.full(PAIRS, 10), "rejected": np.full(PAIRS, 10)}


@pytest.fixture
def sweep(write_run, tmp_path: Path, rng) -> Trace:
    """α = 0 falls by 0.5 nats per token in 10 steps, α = 1 rises by 0.1; both gain 0.6 in margin. The last diverged."""
    at, noise = np.linspace(0, 1, 11)[:, None], rng.normal(0, 0.02, PAIRS)
    ended = {"status": "diverged", "reason": "step 10: pairs.jsonl:3"}
    for alpha, move, told in ((0.0, -0.5, {"status": "done"}), (1.0, 0.1, ended)):
        sums = {
            "chosen": -15 + 10 * at * (move + noise - noise.mean()),
            "rejected": -15.0 + 10 * at * (move - 0.6 + np.zeros(PAIRS)),
        }
        write_run(
            tmp_path / "sweep" / f"alpha={alpha:g}",
            sums,
            num_tokens=TOKENS,
            objective={"name": "alphapo", "parameters": {"alpha": alpha, "beta": 2.5, "gamma": 0.25}},
            **told,
        )
    return read_trace(tmp_path / "sweep")


def test_word_interval_and_onset_are_those_of_the_one_judgement(sweep):
    table, verdicts = ends(sweep).set_index("run"), judge_all(sweep)
    np.testing.assert_allclose(table["chosen_change"], [-0.5, 0.1], atol=1e-6)
    for run, verdict in verdicts.items():
        assert table.loc[run, "word"] == str(verdict.word)
        assert (table.loc[run, "chosen_change_low"], table.loc[run, "chosen_change_high"]) == verdict.interval
    assert table.loc["alpha=0", "word"] == "displaced"
    assert 1 <= table.loc["alpha=0", "onset"] <= 2  # 0.05 a step, beyond an interval of ±0.007


def test_runs_are_set_against_the_one_without_shape_along_the_margin(sweep):
    [rows] = comparisons(sweep)  # no samples: none along the KL
    assert rows["axis"].unique().tolist() == ["logp_margin"]
    np.testing.assert_allclose(rows["logp_margin_gain"], rows["value"], atol=1e-9)
    np.testing.assert_allclose(rows["difference"], np.where(rows["alpha"] == 1, rows["value"], 0), atol=1e-6)


def test_the_table_has_signs_percents_and_a_dash_for_what_is_not_known():
    rows = pd.DataFrame(
        {"run": ["a", "b"], "word": ["displaced", "recovered"], "chosen_change": [-0.12345, 0.5],
         "chosen_change_low": [-0.2, np.nan], "chosen_change_high": [-0.1, np.nan], "share_fallen": [0.756, np.nan],
         "onset": [3.0, np.nan]}
    )  # fmt: skip
    head, first, second = text_table(rows, "run").splitlines()
    assert head.split() == [
        "run",
        "chosen",
        "[nats/token]",
        "verdict",
        "chosen",
        "fell",
        "fall",
        "began",
    ]
    assert first.split() == ["a", "−0.123", "[−0.200,", "−0.100]", "displaced", "76%", "step", "3"]
    assert second.split() == ["b", "+0.500", "recovered", "–", "–"]


def test_at_80_columns_nothing_wraps_or_is_lost_and_chosen_and_rejected_come_first(sweep, capsys):
    show(sweep, list(comparisons(sweep)), Settings())
    wide = capsys.readouterr().out
    show(sweep, list(comparisons(sweep)), Settings(), 80)
    narrow = capsys.readouterr().out
    paths = ("report: ", "trace and figures: ")  # which are copied, and stay whole
    lines = [line for line in narrow.splitlines() if not line.startswith(paths)]
    assert max(map(len, lines)) <= 80 < max(map(len, wide.splitlines()))
    assert set(wide.split()) == set(narrow.split())
    head, first = next(pair for pair in pairwise(lines) if pair[0].split()[:1] == ["run"])
    assert head.split()[:6] == ["run", "chosen", "[nats/token]", "rejected", "[nats/token]", "verdict"]
    assert first.split()[0] == "alpha=0"


def test_a_what_if_fits_80_columns_with_the_intervals_of_the_table_of_runs():
    tried = read_what_if(EMBEDDED / "what-if")
    lines = "\n".join(what_if_lines(tried, 80)).splitlines()
    assert max(map(len, lines)) <= 80
    assert set("\n".join(what_if_lines(tried)).split()) == set("\n".join(lines).split())
    shown = {tuple(line.split()[:2]) for line in lines}
    assert {("change", "against"), *zip(tried["intervention"], tried["against"], strict=True)} <= shown
    one = tried[tried["difference"].notna()].iloc[0]
    low, high = (f"{one[end]:+.3f}".replace("-", "−") for end in ("difference_low", "difference_high"))
    assert f"[{low}, {high}]" in "\n".join(lines)


def test_a_name_longer_than_the_terminal_still_has_every_number_once():
    table = pd.DataFrame({"run": ["r" * 90], "chosen": ["−0.1"], "rejected": ["−0.2"]})
    blocks = fitted(table, 80).split("\n\n")
    assert [block.split()[1] for block in blocks] == ["chosen", "rejected"]
    assert [block.split()[-1] for block in blocks] == ["−0.1", "−0.2"]


def test_one_table_with_units_in_its_head_and_no_column_without_a_number(sweep, capsys):
    show(sweep, list(comparisons(sweep)), Settings())
    said = capsys.readouterr().out
    [head] = [text for text in said.splitlines() if text.split()[:1] == ["run"]]  # one table of runs
    assert head.count("[nats/token]") == 2
    assert "at target" in head  # the share of the pairs that the loss lets go
    assert "nan" not in said
    assert "gold" not in said  # nothing was sampled
    [row] = [text for text in said.splitlines() if text.split()[:1] == ["alpha=1"]]
    [cells] = [text for text in said.splitlines() if text.split()[:3] == ["α", "=", "1"]]
    assert "+0.100 [" in row  # what it moved
    assert "where the margin has grown by (nats per token)" in said
    [values] = [text.split()[1:] for text in said.splitlines() if text.split()[:1] == ["setting"]]
    for (
        value
    ) in values:  # α = 0 stands as far below as the margin has grown, times 0.5/0.6; α = 1 above by 0.1/0.6
        assert f"{float(value):+.3f} [" in cells


def test_what_was_sampled_without_a_gold_reward_is_no_column_of_nan():
    rows = pd.DataFrame({"run": ["a"], "word": ["displaced"], "chosen_change": [-0.1], "gold": [np.nan]})
    assert "gold" not in text_table(rows, "run")


def test_json_is_one_object_with_a_record_for_each_run(sweep, capsys):
    show(sweep, [], Settings().replace(json=True))
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(sweep.folder)
    assert [run["run"] for run in said["runs"]] == ["alpha=0", "alpha=1"]
    assert said["runs"][0]["chosen_change"] == pytest.approx(-0.5, abs=1e-6)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_tables_that_cannot_be_printed_are_a_note_and_json_is_an_error(sweep, monkeypatch):
    """The run is done and its page is written; JSON is what was asked for."""
    said: list[str] = []
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left"):
            present(sweep, Settings.from_dict({"json": True}), said.append)
        assert not said
        present(sweep, Settings.from_dict({}), said.append)
        print("what follows goes nowhere", flush=True)
    assert said == ["note: the tables could not be printed (No space left on device); the page has them"]


def test_what_diverged_is_named(sweep):
    assert diverged(sweep) == ["alpha=1: diverged: step 10: pairs.jsonl:3"]


def test_what_cannot_be_made_is_a_line_and_the_rest_is_made(sweep, monkeypatch):
    def fails(*_: object) -> None:
        raise RuntimeError("no ink\nand more")

    monkeypatch.setattr("rewardshape.probe.show.draw_all", fails)
    monkeypatch.setattr(
        "rewardshape.probe.show.write_report", lambda trace: (trace.folder / "report.html").touch()
    )
    results = write_results(sweep)
    assert results.problems == ["the figures could not be made (RuntimeError: no ink); the trace is whole"]
    written = pd.read_csv(sweep.folder / "comparison.csv")
    np.testing.assert_allclose(written["chosen_change"], pd.concat(results.compared)["chosen_change"])
    assert (sweep.folder / "report.html").is_file()


def test_runs_that_came_no_further_than_their_start_are_not_compared_along_anything(sweep):
    [rows] = comparisons(sweep)
    settings = settings_along(rows)
    assert along(settings, sweep)
    assert along(settings.assign(value=0.0), sweep) == []


def test_a_run_carried_by_one_pair_is_named_and_not_set_beside_the_others(write_run, tmp_path, capsys):
    """Of α = 1 one pair's chosen response runs away; without it two settings are left."""
    at, pace = np.arange(11)[:, None], np.random.default_rng(3).uniform(0.8, 1.2, PAIRS)
    for alpha, wild in ((0.0, 0.0), (0.25, 0.0), (1.0, 20.0)):
        sums = {"chosen": -15 - 0.2 * at * pace, "rejected": -15 - 0.7 * at * pace}
        sums["chosen"][:, 0] -= wild * at[:, 0]
        stated = {"name": "alphapo", "parameters": {"alpha": alpha, "beta": 2.5, "gamma": 0.5}}
        write_run(tmp_path / f"alpha={alpha:g}", sums, num_tokens=TOKENS, objective=stated)
    trace = read_trace(tmp_path)
    show(trace, list(comparisons(trace)), Settings())
    said = capsys.readouterr().out
    assert "alpha=1: it is carried by single pairs (pair pairs.jsonl:1 owns" in said
    assert "and not set beside the others" in said
    compared = said[said.index("chosen above that of") :]
    assert "α = 0.25" in compared
    assert "α = 1" not in compared

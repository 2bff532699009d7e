"""What a run records beside its log-probs: where probability went, and which pairs sent it."""

from __future__ import annotations

import json
import shutil
from html import unescape

import numpy as np
import pytest

from rewardshape import read_trace
from rewardshape.analysis.influence import pair_influence, probe_pair_influence
from rewardshape.probe.__main__ import main
from rewardshape.probe.checkpoints import numbered_checkpoints, step_of
from rewardshape.probe.recorder import nearest_updates
from rewardshape.report import write_report
from rewardshape.trace import RunFolder

FLAGS = ["--steps", "6", "--checkpoint-every", "2", "--keep-checkpoints", "3", "--probe-every", "3"]
FLAGS += ["--destination-every", "2"]


@pytest.fixture(scope="module")
def whole(probe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "run"
    assert probe(folder, *FLAGS, "--influence-every", "3") == 0
    return folder


def test_each_is_measured_when_it_is_due_and_the_probe_set_with_it(whole):
    trace = read_trace(whole)
    assert trace.destination["step"].unique().tolist() == [0, 2, 4, 6]
    assert trace.influence["step"].unique().tolist() == [0, 3, 6]
    assert sorted(trace.responses.query("split == 'probe'")["step"].unique()) == [0, 2, 3, 4, 6]
    assert trace.destination.groupby("step").size().unique().tolist() == [24]  # 12 pairs, two responses


def test_at_step_0_nothing_moved_and_later_something_did(whole):
    moved = read_trace(whole).destination.groupby("step")["moved"].sum()
    assert moved[0] == 0
    assert (moved[1:] > 0.01).all()


def test_what_the_own_tokens_lost_agrees_with_their_log_probs(whole):
    """Σ_t (π_t(y) − π_0(y)) from the masses against the same from the recorded log-prob of every token."""
    trace = read_trace(whole)
    logps = trace.tokens.pivot_table(index=["pair_id", "response", "position"], columns="step", values="logp")
    change = (np.exp(logps[6]) - np.exp(logps[0])).groupby(["pair_id", "response"]).sum()
    found = trace.destination.query("step == 6").set_index(["pair_id", "response"])["own"]
    np.testing.assert_allclose(found.sort_index(), change.sort_index(), atol=2e-5)


def test_measuring_changes_no_log_prob(whole, probe, tmp_path):
    assert probe(tmp_path / "plain", *FLAGS[:-2]) == 0
    plain, measured = read_trace(tmp_path / "plain").responses, read_trace(whole).responses
    both = plain.merge(measured, on=["step", "split", "pair_id", "response"], suffixes=("", "_measured"))
    assert len(both) == len(plain)
    assert (both["logp_sum"] == both["logp_sum_measured"]).all()


def test_influence_is_of_every_pair_that_is_trained_on(whole):
    trace = read_trace(whole)
    table = pair_influence(trace)
    trained = trace.responses.query("split == 'train' and response == 'chosen'")
    assert set(table["pair_id"]) == set(trained["pair_id"])
    assert table["visits"].sum() == len(trained)
    assert (
        table["per_visit"] != 0
    ).all()  # at the first update of a warm-up the rate, and so the influence, is 0


def test_each_probe_pair_names_training_pairs_that_were_trained_on_near_by(whole):
    trace = read_trace(whole)
    table = trace.influence_pairs
    assert set(table["probe_pair_id"]) <= set(trace.responses.query("split == 'probe'")["pair_id"])
    assert (table["influence"] < 0).all()
    trained = trace.responses.query("split == 'train'").groupby("step")["pair_id"].agg(set)
    for step, rows in table.groupby("step"):
        first, last = nearest_updates(step, 3, 6)
        assert set(rows["pair_id"]) <= set.union(*trained.loc[first:last])
    summed = probe_pair_influence(trace)
    assert summed.groupby("probe_pair_id")["influence"].is_monotonic_increasing.all()


@pytest.mark.parametrize(("every", "last"), [(1, 4), (3, 6), (4, 10), (5, 23), (50, 150), (7, 3)])
def test_every_update_is_near_one_measurement_as_the_analysis_has_it(every, last):
    measured = sorted({*range(0, last + 1, every), last})
    near = {}
    for step in measured:
        first, end = nearest_updates(step, every, last)
        near |= dict.fromkeys(range(first, end + 1), step)
    assert sorted(near) == list(range(1, last + 1))
    for update, step in near.items():
        assert step == measured[np.abs(np.array(measured) - (update - 1)).argmin()]


def test_a_resumed_run_measures_against_the_same_start(whole, tmp_path):
    """The run's folder as it stood after its checkpoint of step 4, its record torn in step 5."""
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    for checkpoint in numbered_checkpoints(output / "checkpoints"):
        if step_of(checkpoint) > 4:
            shutil.rmtree(checkpoint)
    lines = (whole / "trace.jsonl").read_bytes().splitlines(keepends=True)
    (output / "trace.jsonl").write_bytes(b"".join(lines[:6]) + lines[6][:40])
    RunFolder(output).set_status("running")
    assert main(["--resume", "--output", str(output), "--quiet"]) == 0
    assert (output / "trace.jsonl").read_bytes() == (whole / "trace.jsonl").read_bytes()


def test_the_page_shows_the_texts_of_the_pairs_that_pushed_down_most(whole):
    """Every training pair on the page opens to its own prompt and responses, as the model reads them."""
    lines = RunFolder(whole).pushing.read_text(encoding="utf-8").splitlines()
    kept = {row["pair_id"]: row for row in map(json.loads, lines)}
    lowest = read_trace(whole).influence.query("step == 6").nsmallest(5, "influence")["pair_id"]
    assert set(lowest) <= set(kept)
    page = unescape(write_report(whole).read_text(encoding="utf-8"))
    most = pair_influence(read_trace(whole)).iloc[0]["pair_id"]
    for name in ("chosen", "rejected"):
        assert f"<b>{name}</b> {kept[most]['responses'][name]}" in page
    assert f"<summary><bdi>{most}</bdi></summary>" in page

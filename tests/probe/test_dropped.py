"""A run with --drop never trains on what it leaves out, records it, and goes on without it."""

from __future__ import annotations

import json
import shutil

import pytest

from rewardshape import read_trace
from rewardshape.probe.__main__ import main
from rewardshape.trace.folder import RunFolder


@pytest.fixture(scope="module")
def dropped(probe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dropped") / "run"
    assert probe(folder, "--drop", "similarity=0.5", "--steps", "20", "--batch-size", "16") == 0
    return folder


def trained(folder):
    responses = read_trace(folder).responses
    return responses[responses["split"] == "train"]["pair_id"]


def test_what_is_left_out_is_recorded_and_not_trained_on(dropped):
    recorded = json.loads(RunFolder(dropped).dropped.read_text(encoding="utf-8"))
    assert (recorded["criterion"], recorded["share"]) == ("similarity", 0.5)
    read = read_trace(dropped).settings["data"]["train_pairs"]
    assert len(recorded["pairs"]) == round(0.5 * read)
    assert not set(trained(dropped)) & set(recorded["pairs"])
    assert set(trained(dropped)) | set(recorded["pairs"]) > set(recorded["pairs"])
    assert trained(dropped).nunique() == read - len(recorded["pairs"])  # more than one epoch: all others


def test_the_others_keep_their_order(probe, dropped, tmp_path):
    """The run as it is, with the pairs left out struck from its batches: the two runs differ in nothing else."""
    assert probe(tmp_path / "whole", "--steps", "20", "--batch-size", "16") == 0
    gone = set(json.loads(RunFolder(dropped).dropped.read_text(encoding="utf-8"))["pairs"])
    left = [pair for pair in trained(tmp_path / "whole").tolist() if pair not in gone]
    assert trained(dropped).tolist()[: len(left)] == left


def test_a_likelihood_term_is_in_the_loss(probe, tmp_path):
    """The loss of step 1 is on the untouched model: with the term it is larger by λ times the mean NLL per token."""
    flags = ["--steps", "1"]
    assert probe(tmp_path / "plain", *flags) == 0
    assert probe(tmp_path / "nll", *flags, "--add-nll", "0.5") == 0
    plain, nll = (read_trace(tmp_path / name) for name in ("plain", "nll"))
    rows = plain.responses.query("split == 'train' and response == 'chosen'")
    extra = -(rows["logp_sum"] / rows["num_tokens"]).mean()
    losses = [trace.steps.query("step == 1")["loss"].item() for trace in (plain, nll)]
    assert losses[1] - losses[0] == pytest.approx(0.5 * extra, rel=1e-4)


def test_what_a_start_left_that_came_to_nothing_is_chosen_anew(dropped, tmp_path):
    """Without a manifest nobody knows of which pairs it was."""
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(dropped, folder.path)
    for lost in (folder.manifest, folder.trace):
        lost.unlink()
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    folder.command.write_text(folder.command.read_text().replace(str(dropped), str(folder.path)))
    folder.dropped.write_text('{"criterion": "similarity", "share": 0.5, "pairs": []}')
    assert main(["--resume", "--output", str(folder.path), "--quiet"]) == 0
    assert folder.dropped.read_bytes() == RunFolder(dropped).dropped.read_bytes()
    assert folder.trace.read_bytes() == RunFolder(dropped).trace.read_bytes()

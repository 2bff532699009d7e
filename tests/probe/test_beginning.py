"""What runs of several seeds begin with: each as if it were alone, in the embedded task with a model of its own."""

from __future__ import annotations

import json
import weakref

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape import read_trace
from rewardshape.data import embedded
from rewardshape.probe.__main__ import main
from rewardshape.probe.run import fresh_policy
from tests.probe.test_run import plain_logp


def test_a_seed_is_the_same_alone_and_in_a_sweep_and_has_a_probe_set_of_its_own(probe, tmp_path):
    few = ("--objective", "dpo", "--beta", "0.1", "--steps", "2")
    assert probe(tmp_path / "both", *few, "--seeds", "2") == 0
    assert probe(tmp_path / "alone", *few, "--seed", "1") == 0
    records = [
        (tmp_path / name / "trace.jsonl").read_bytes() for name in ("both/seed=0", "both/seed=1", "alone")
    ]
    assert records[0] != records[1] == records[2]
    zero, one = (
        read_trace(tmp_path / "both" / name).responses.query("split == 'probe'")
        for name in ("seed=0", "seed=1")
    )
    assert 0 < len(set(zero["pair_id"]) - set(one["pair_id"]))
    for rows in (zero.query("step == 0"), one.query("step == 0")):
        np.testing.assert_allclose(rows["logp_sum"], rows["ref_logp_sum"], atol=1e-5)
    # resuming what is settled compares data, weights and probe set of either seed, and trains nothing
    assert main(["--resume", "--output", str(tmp_path / "both"), "--quiet"]) == 0
    assert (tmp_path / "both" / "seed=1" / "trace.jsonl").read_bytes() == records[1]


def test_seeds_of_the_embedded_task_start_from_their_own_model_and_labels(tmp_path):
    small = ["--alpha", "0", "--steps", "1", "--probe-pairs", "8", "--sample-every", "1", "--samples", "4"]
    assert main([*small, "--best-of", "1", "--seeds", "2", "--output", str(tmp_path / "run"), "--quiet"]) == 0
    for seed in (0, 1):
        folder = tmp_path / "run" / f"seed={seed}"
        rows = {(pair["prompt"], pair["chosen"], pair["rejected"]) for pair in embedded.pairs(seed=seed)}
        probe_set = [json.loads(line) for line in (folder / "probe_set.jsonl").read_text().splitlines()]
        for pair in probe_set:
            texts = [pair["responses"][name].removesuffix("<end>") for name in ("chosen", "rejected")]
            assert (pair["prompt"], *texts) in rows
        model = AutoModelForCausalLM.from_pretrained(embedded.checkpoint_path(seed)).eval()
        tokenizer = AutoTokenizer.from_pretrained(embedded.checkpoint_path(seed))
        first = read_trace(folder).responses.query("split == 'probe' and step == 0").set_index("pair_id")
        for pair in probe_set:
            found = first.loc[pair["pair_id"]].set_index("response")["logp_sum"]
            ids = tokenizer(pair["prompt"])["input_ids"]
            response = tokenizer(pair["responses"]["chosen"])["input_ids"]
            assert found["chosen"] == pytest.approx(plain_logp(model, ids, response).item(), abs=1e-4)


def test_when_a_run_loads_its_weights_those_of_the_run_before_are_gone(probe, tmp_path, monkeypatch):
    """Trainer, callbacks and model hold one another: without a collection a sweep holds the model twice."""
    loaded, alive = [], []

    def noted(planned):
        alive.append(sum(policy() is not None for policy in loaded))
        policy = fresh_policy(planned)
        loaded.append(weakref.ref(policy))
        return policy

    monkeypatch.setattr("rewardshape.probe.run.fresh_policy", noted)
    assert probe(tmp_path / "sweep", "--alpha", "0", "0.25", "1", "--steps", "1") == 0
    assert alive == [0, 0, 0]
    assert [policy() for policy in loaded] == [None] * 3

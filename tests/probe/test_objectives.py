"""Every objective of the registry trains in the probe, or says in one line why it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from rewardshape.errors import InputError
from rewardshape.probe.command import parse
from rewardshape.probe.run import run
from rewardshape.theory import Responses, objective, objective_names

NOT_HERE = {
    "ld_dpo": "needs ref_token_logps",
    "wpo": "needs log_sum_sq_probs",
    "tdpo": "needs position_kl",
    "odpo": "needs label",
    "sampo": "depends on the other of its pair",
    "sum": "terms",
}


def words(checkpoint: str, pairs_file: str, name: str, output: object) -> list[str]:
    small = "--steps 2 --batch-size 4 --probe-pairs 4 --learning-rate 1e-3 --quiet".split()
    return [checkpoint, "--data", pairs_file, "--objective", name, "--output", str(output), *small]


@pytest.mark.parametrize("name", sorted(set(objective_names()) - set(NOT_HERE)))
def test_it_trains_and_its_recorded_loss_is_its_own(name, checkpoint, pairs_file, tmp_path):
    trace = run(parse(words(checkpoint, pairs_file, name, tmp_path / "run")))
    stated = trace.settings["objective"]
    goal = objective(stated["name"], **stated["parameters"])
    rows = trace.responses.query("split == 'train' and step == 2")
    sides = []
    for side in ("chosen", "rejected"):
        part = rows[rows["response"] == side]
        reference = part["ref_logp_sum"].to_numpy() if goal.needs_reference else None
        sides.append(Responses(part["logp_sum"].to_numpy(), part["num_tokens"].to_numpy(), reference))
    loss = trace.steps.set_index("step")["loss"][2]
    assert np.isfinite(loss)
    assert loss == pytest.approx(float(np.mean(goal.pair_loss(*sides))), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", sorted(NOT_HERE))
def test_what_the_probe_cannot_train_is_refused(name, checkpoint, pairs_file, tmp_path):
    with pytest.raises(InputError) as refusal:
        run(parse(words(checkpoint, pairs_file, name, tmp_path / "run")))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()

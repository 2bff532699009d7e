"""Samples are of prompts that are not trained on, each once, and no more than asked for."""

from __future__ import annotations

import pytest

from rewardshape.data import embedded
from rewardshape.probe.command import parse
from rewardshape.probe.grid import plan_runs
from rewardshape.probe.inputs import Inputs, prompts_to_sample
from rewardshape.probe.samples import gold_of, sampled


def test_prompts_of_ones_own_checkpoint_are_those_of_the_probe_set_each_once(checkpoint, pairs_file):
    grid = plan_runs(parse([checkpoint, "--data", pairs_file, "--probe-pairs", "10", "--sample-every", "2"]))
    [planned] = grid.runs
    inputs = Inputs(planned, checkpoint)
    prompts = [tuple(pair.prompt_ids) for pair in prompts_to_sample(planned, inputs)]
    assert len(set(prompts)) == len(prompts)
    assert set(prompts) == {tuple(pair.prompt_ids) for pair in inputs.probe}
    assert not set(prompts) & {tuple(pair.prompt_ids) for pair in inputs.train}
    assert sampled(planned)
    assert gold_of(grid) is None


@pytest.mark.parametrize("number", [3, 40])
def test_the_embedded_task_has_prompts_and_a_gold_of_its_own(number):
    grid = plan_runs(parse(["--alpha", "0", "--sample-every", "5", "--samples", str(number)]))
    [planned] = grid.runs
    inputs = Inputs(planned, str(embedded.checkpoint_path()))
    asked = prompts_to_sample(planned, inputs)
    assert [inputs.tokenizer.decode(pair.prompt_ids) for pair in asked] == embedded.prompts()[:number]
    assert gold_of(grid) is embedded.gold

"""What every objective has: sums, weights, and a refusal of what it cannot do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rewardshape.errors import InputError
from rewardshape.theory import Responses, objective


def test_methods_of_two_scores_refuse_objectives_that_need_more():
    with pytest.raises(InputError, match="call pair_loss"):
        objective("r_dpo").loss(-1.0, -2.0)


@pytest.mark.parametrize(
    ("name", "missing"), [("dpo", "ref_logp_sum"), ("ld_dpo", "token_logps"), ("wpo", "log_sum_sq_probs")]
)
def test_missing_inputs_are_named(name, missing):
    responses = Responses(np.array([-1.0]), np.array([1]), None if name == "dpo" else np.array([-1.0]))
    with pytest.raises(InputError, match=f"{name} needs {missing}, which the chosen responses lack"):
        objective(name).pair_loss(responses, responses)


@pytest.mark.parametrize("name", ["kto", "aot_unpaired", "dr_dpo"])
def test_an_objective_of_a_whole_batch_refuses_a_single_pair_of_numbers(name):
    with pytest.raises(InputError, match="looks at a whole batch"):
        objective(name).loss(-1.0, -2.0)


class TestSums:
    def test_loss_and_gradient_of_a_sum_are_the_sums(self, make_batch):
        batch = make_batch(seed=11)
        chosen, rejected = batch.responses()
        total = objective("dpo", beta=0.3) + 0.1 * objective("sft")
        truth = objective("dpo", beta=0.3).pair_loss(chosen, rejected) + 0.1 * objective("sft").pair_loss(
            chosen, rejected
        )
        torch.testing.assert_close(total.pair_loss(chosen, rejected), truth)
        grad = torch.autograd.grad(truth.sum(), batch.token_logps)[0][:, 0]
        w_w, w_l = total.pair_weights(chosen, rejected)  # in the first term's score, the summed log-ratio
        torch.testing.assert_close(torch.cat([-w_w, w_l]), grad)

    def test_sums_rebuild_and_flatten(self):
        total = 2 * (objective("simpo") + 0.5 * objective("sft")) + objective("orpo")
        assert [weight for weight, _ in total.terms] == [2.0, 1.0, 1.0]
        assert objective("sum", **json.loads(json.dumps(total.parameters))) == total

    def test_terms_on_one_score_keep_the_two_score_methods(self):
        total = objective("simpo", gamma=0.0) + 0.5 * objective("sft")
        simpo = objective("simpo", gamma=0.0)
        assert total.loss(-1.0, -2.0) == pytest.approx(simpo.loss(-1.0, -2.0) + 0.5)
        assert total.weights(-1.0, -2.0)[0] == pytest.approx(simpo.weights(-1.0, -2.0)[0] + 0.5)

    def test_rpo_is_dpo_plus_likelihood(self, make_batch):
        chosen, rejected = make_batch(seed=4).responses()
        torch.testing.assert_close(
            objective("rpo").pair_loss(chosen, rejected),
            (objective("dpo") + objective("sft")).pair_loss(chosen, rejected),
        )

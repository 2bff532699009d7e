"""One body for floats, arrays and tensors: the caller's kind comes back, block by block or whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewardshape.errors import InputError
from rewardshape.theory import Alpha, Responses, objective, objective_names
from rewardshape.theory.objectives.registry import REGISTRY

PER_PAIR = [
    (name, parameter)
    for name in objective_names()
    for parameter in REGISTRY[name].parameters
    if parameter in ("alpha", "beta", "gamma") and name not in ("aot_unpaired", "lipo")
]


def test_large_arrays_give_the_same_numbers_block_by_block(rng):
    s_w, s_l = -rng.exponential(1, (2, 50_001))
    made = objective("alphapo")
    blocked, whole = made.weights(s_w, s_l), made.weights(s_w[None], s_l[None])
    np.testing.assert_allclose(blocked, np.array(whole)[:, 0], rtol=1e-14)


def test_large_arrays_take_an_alpha_for_every_pair(rng):
    n = 40_000
    s_w, s_l = -rng.exponential(1, (2, n))
    alpha = rng.choice([-1.0, 0.0, 0.5], n)
    made = objective("alphapo", alpha=alpha, gamma=0.0)
    for one in (-1.0, 0.0, 0.5):
        here, single = alpha == one, objective("alphapo", alpha=one, gamma=0.0)
        np.testing.assert_allclose(
            made.weights(s_w, s_l)[0][here], single.weights(s_w[here], s_l[here])[0], rtol=1e-14
        )
    np.testing.assert_allclose(Alpha(alpha).reward(s_w)[alpha == 0], s_w[alpha == 0])


@pytest.mark.parametrize(("name", "parameter"), PER_PAIR)
def test_a_parameter_for_every_pair_is_the_number_of_each_pair_in_both_libraries(name, parameter, rng):
    others = {"divergence": "alpha"} if (name, parameter) == ("fdpo", "alpha") else {}
    values = np.array([0.9, 0.6, 0.4])
    made = objective(name, **others, **{parameter: values})
    sides = [_responses(rng, [6, 5, 4], 3.0), _responses(rng, [5, 6, 3], 1.0)]
    tensors = [Responses(*map(torch.tensor, side)) for side in sides]
    for method in ("pair_loss", "pair_margin", "pair_weights"):
        ours = np.array(getattr(made, method)(*sides))
        theirs = getattr(made, method)(*tensors)
        theirs = torch.stack(theirs) if method == "pair_weights" else theirs
        np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-12, err_msg=method)
        if name == "dr_dpo" and method != "pair_margin":
            continue  # the batch's one loss depends on every pair's number
        for pair, value in enumerate(values):
            alone = np.array(getattr(objective(name, **others, **{parameter: value}), method)(*sides))
            np.testing.assert_allclose(ours[..., pair], alone[..., pair], rtol=1e-12, err_msg=method)


def _responses(rng, lengths, label):
    num_tokens = np.array(lengths)
    logps, ref_logps = -rng.exponential(1, (2, 3, 6)) * (np.arange(6) < num_tokens[:, None])
    extra = [-rng.exponential(1, 3), rng.exponential(1, 3), label + rng.random(3), rng.random((3, 6))]
    return Responses(logps.sum(1), num_tokens, ref_logps.sum(1), logps, ref_logps, *extra)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("rpo", {"likelihood_weight": [1.0, 2.0]}, "likelihood_weight must be a single number, got an array"),
        ("lipo", {"beta": np.array([1.0, 2.0])}, "beta must be a single number"),
        ("aot_unpaired", {"beta": torch.tensor([1.0, 2.0])}, "beta must be a single number"),
        ("sampo", {"tokens": np.array(["drawn", "drawn"])}, "unknown tokens"),
        ("tr_dpo", {"every": 1.7}, "every must be a whole number, got 1.7"),
    ],
)
def test_what_is_one_number_for_all_pairs_is_no_array(name, parameters, message):
    with pytest.raises(InputError, match=message):
        objective(name, **parameters)


def test_alpha_array_broadcasts_to_a_table():
    alphas = np.array([-1.0, 0.0, 0.5])[:, None]
    rewards = Alpha(alphas).reward(np.array([-1.0, -2.0]))
    assert rewards.shape == (3, 2)
    for row, alpha in zip(rewards, alphas[:, 0], strict=True):
        np.testing.assert_array_equal(row, Alpha(alpha).reward(np.array([-1.0, -2.0])))
    assert torch.is_tensor(Alpha(alphas).reward(torch.tensor([-1.0, -2.0])))


def test_results_come_back_as_the_callers_kind():
    made = objective("alphapo")
    assert type(made.loss(-1.0, -2.0)) is float
    assert made.loss(np.float32(-1.0), np.float32(-2.0)).dtype == np.float32
    assert made.score(np.array([-4.0], dtype=np.float32), np.array([2])).dtype == np.float32
    assert made.loss(torch.tensor([-1.0]), -2.0).dtype == torch.float32
    assert made.score(torch.tensor([-4.0]), torch.tensor([2])).dtype == torch.float32
    frozen = np.array([-1.0])
    frozen.flags.writeable = False
    assert made.loss(frozen, frozen).shape == (1,)


@pytest.mark.parametrize("name", ["alphapo", "fdpo", "orpo", "discopop", "chipo", "kto", "lipo"])
def test_devices_without_float64_compute_in_float32(name, monkeypatch):
    """As on Apple's GPUs: the working precision is then float32, also in the constants of the formulas."""
    from rewardshape.theory import _arrays

    monkeypatch.setattr(_arrays, "NO_FLOAT64", ("cpu",))
    made = objective(name)
    s_w, s_l = torch.tensor([-1.0, -300.0, 0.0], requires_grad=True), torch.tensor([-1.5, -0.1, -2.0])
    exact_loss = made.loss(s_w.detach().double().numpy(), s_l.double().numpy())
    loss = made.loss(s_w, s_l)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.detach(), exact_loss.astype(np.float32), rtol=1e-4, atol=1e-30)
    assert not torch.isnan(torch.autograd.grad(loss.sum(), s_w)[0]).any()

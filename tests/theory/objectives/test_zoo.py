"""Every objective of the registry, against the formula of its paper written plainly, and against TRL."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardshape.theory import Responses, objective
from rewardshape.theory.objectives.zoo import ZOO

NAMES = [declared.name for declared in ZOO]


def odds(s):
    return s - torch.log1p(-torch.exp(s))


def lipo_by_hand(r_w, r_l):
    """Two responses with labels 1 and 0; ranks by score, discounts 1/log(1 + rank), as the paper writes them."""
    gap = abs(1 / math.log(2) - 1 / math.log(3))
    return (2**1 - 2**0) * gap * -F.logsigmoid(r_w - r_l)


def shorter(c, r, a, which):
    side = c if which == "w" else r
    ratios = side.token_logps - side.ref_token_logps
    return torch.stack(
        [
            ratios[i, : min(n_w, n_l)].sum()
            + a * ratios[i, min(n_w, n_l) : (n_w if which == "w" else n_l)].sum()
            for i, (n_w, n_l) in enumerate(zip(c.num_tokens.tolist(), r.num_tokens.tolist(), strict=True))
        ]
    )


def over_drawn(side, counts):
    ratios = side.token_logps - side.ref_token_logps
    rows = zip(ratios, side.token_draws, side.num_tokens.tolist(), counts.long().tolist(), strict=True)
    return torch.stack([row[:n][draws[:n].argsort()[:k]].sum() for row, draws, n, k in rows])


def by_rank(values, keys):
    """values[k] for the response whose key is the k-th smallest."""
    return values[torch.argsort(torch.argsort(keys))]


def plain(name, c, r, parameters):
    """The loss of each pair as the paper has it: chosen c, rejected r, log-ratios u, mean log-probs m."""
    g = parameters.get
    beta = g("beta")
    p_w, p_l, n_w, n_l = c.logp_sum, r.logp_sum, c.num_tokens.double(), r.num_tokens.double()
    u_w, u_l, m_w, m_l = p_w - c.ref_logp_sum, p_l - r.ref_logp_sum, p_w / n_w, p_l / n_l
    ls, sg = F.logsigmoid, torch.sigmoid
    if name == "alphapo":
        a = g("alpha")
        return -ls(beta * (1 - m_w.exp() ** -a) / a - beta * (1 - m_l.exp() ** -a) / a - g("gamma"))
    if name == "fdpo":
        a = g("alpha", 1.0)
        f = {
            "reverse_kl": lambda u: u,
            "forward_kl": lambda u: 1 - torch.exp(-u),
            "alpha": lambda u: (1 - torch.exp(-a * u)) / a,
            "jensen_shannon": lambda u: math.log(2) + ls(u),
        }[g("divergence")]
        return -ls(beta * (f(u_w) - f(u_l)))
    if name == "discopop":
        rho = beta * (u_w - u_l)
        m = sg(rho / g("tau"))
        return (1 - m) * -ls(rho) + m * torch.exp(-rho)
    if name == "exo":
        z, e = beta * (u_w - u_l), g("label_smoothing")
        return sg(z) * (ls(z) - math.log1p(-e)) + sg(-z) * (ls(-z) - math.log(e))
    if name == "aot":
        policy, ref = p_w - p_l, c.ref_logp_sum - r.ref_logp_sum
        z = beta * (policy.sort().values - ref.sort().values)
        return by_rank(-ls(z), policy)
    if name == "aot_unpaired":
        z = beta * (u_w.sort().values - u_l.sort().values)
        return 0.5 * (by_rank(-ls(z), u_w) + by_rank(-ls(z), u_l))
    if name == "kto":
        kl_w, kl_l = (u.detach().mean().clamp(min=0) for u in (u_w, u_l))
        up, down = g("desirable_weight"), g("undesirable_weight")
        return up * (1 - sg(beta * (u_w - kl_l))) + down * (1 - sg(beta * (kl_w - u_l)))
    if name == "wpo":
        aligned = [(x.logp_sum - x.log_sum_sq_probs) / x.num_tokens for x in (c, r)]
        weight = (
            torch.exp(aligned[0] + aligned[1])
            .detach()
            .clamp(max=math.inf if g("clip") == "none" else g("clip"))
        )
        return weight * -ls(beta * (u_w - u_l))
    if name == "alpha_dpo":
        gap = (u_w / n_w - u_l / n_l).detach()
        target = g("gamma") / beta + g("alpha") * (gap - gap.mean()) / gap.std()
        return -ls(beta * (m_w - m_l - target))
    if name == "beta_dpo":
        used = (beta * (1 + g("scaling") * ((u_w - u_l).detach().mean() - g("usual_gap")))).clamp(min=1e-3)
        return -ls(used * (u_w - u_l))
    if name == "dr_dpo":
        losses = -ls(beta * (u_w - u_l))
        t = g("temperature")
        return (-t * torch.log(torch.exp(-losses / t).mean())).expand(len(losses))
    if name == "tdpo":
        return -ls(beta * (u_w - u_l + g("kl_weight") * (c.position_kl.detach() - r.position_kl)))
    if name == "sampo":
        shorter_of = torch.minimum(n_w, n_l)
        if g("tokens") == "expected":
            return -ls(beta * (u_w / n_w - u_l / n_l) * shorter_of)
        return -ls(beta * (over_drawn(c, shorter_of) - over_drawn(r, shorter_of)))
    e = g("label_smoothing", 0.0)
    half = 1 / (2 * beta) if beta else 0.0
    table = {
        "simpo": lambda: -ls(beta * (m_w - m_l) - g("gamma")),
        "dpo": lambda: -ls(beta * (u_w - u_l)),
        "cdpo": lambda: -(1 - e) * ls(beta * (u_w - u_l)) - e * ls(-beta * (u_w - u_l)),
        "robust_dpo": lambda: (-(1 - e) * ls(beta * (u_w - u_l)) + e * ls(-beta * (u_w - u_l))) / (1 - 2 * e),
        "ipo": lambda: (u_w / n_w - u_l / n_l - half) ** 2,
        "slic": lambda: torch.relu(1 - beta * (u_w - u_l)),
        "gpo_exponential": lambda: torch.exp(-beta * (u_w - u_l)),
        "ln_dpo": lambda: -ls(beta * (u_w / n_w - u_l / n_l)),
        "chipo": lambda: -ls(beta * (u_w + u_w.exp() - u_l - u_l.exp())),
        "cpo": lambda: -ls(beta * (p_w - p_l)) - m_w,
        "orpo": lambda: -m_w - g("odds_weight") * ls(odds(m_w) - odds(m_l)),
        "dpop": lambda: -ls(beta * (u_w - u_l - g("penalty") * torch.relu(-u_w))),
        "ld_dpo": lambda: -ls(beta * (shorter(c, r, g("tail"), "w") - shorter(c, r, g("tail"), "l"))),
        "rpo": lambda: -ls(beta * (u_w - u_l)) - m_w,
        "r_dpo": lambda: -ls(beta * (u_w - u_l) + g("length_weight") * (n_w - n_l)),
        "sppo": lambda: (u_w - half) ** 2 + (u_l + half) ** 2,
        "nca": lambda: -ls(beta * u_w) - 0.5 * ls(-beta * u_w) - 0.5 * ls(-beta * u_l),
        "bco": lambda: -ls(beta * u_w) - ls(-beta * u_l),
        "apo_zero": lambda: 1 - sg(beta * u_w) + sg(beta * u_l),
        "apo_down": lambda: sg(beta * u_w) + 1 - sg(beta * (u_w - u_l)),
        "asft": lambda: -m_w - g("odds_weight") * (ls(odds(m_w)) + ls(-odds(m_l))),
        "sft": lambda: -m_w,
        "dpo_shift": lambda: -ls(beta * (u_w - g("rejected_factor") * u_l)),
        "simper": lambda: -m_w.exp() + m_l.exp(),
        "cal_dpo": lambda: -ls(u_w - u_l) + g("calibration_weight") * ((u_w - half) ** 2 + (u_l + half) ** 2),
        "odpo": lambda: -ls(beta * (u_w - u_l) - g("offset") * torch.log(c.label - r.label)),
        "pro": lambda: -ls((c.label - r.label) * (m_w - m_l)) - g("likelihood_weight") * p_w,
        "tpo": lambda: -ls(beta * (p_w - p_l)) - g("likelihood_weight") * m_w,
        "tpo_l": lambda: -ls(beta * (m_w - m_l) - g("gamma")) - g("likelihood_weight") * m_w,
        "poft": lambda: -ls(u_w / n_w),
        "tr_dpo": lambda: -ls(beta * (u_w - u_l)),
        "slic_hf": lambda: torch.relu(g("delta") - p_w + p_l) - g("likelihood_weight") * p_w,
        "rrhf": lambda: g("rank_weight") * torch.relu(m_l - m_w) - m_w,
        "squared_po": lambda: -ls(beta * (u_w / u_w.exp() - u_l / u_l.exp())),
        "mpo": lambda: (
            -g("preference_weight") * ls(beta * (u_w - u_l))
            - g("quality_weight") * (ls(beta * u_w) + ls(-beta * u_l))
            - g("likelihood_weight") * m_w
        ),
        "lipo": lambda: lipo_by_hand(beta * u_w, beta * u_l) / lipo_scale(),
    }
    return table[name]()


def lipo_scale():
    return 1 / math.log(2) - 1 / math.log(3)


CASES = [(name, {}) for name in NAMES] + [
    ("alphapo", {"alpha": -1.0, "gamma": 0.2}),
    ("alphapo", {"alpha": 1.0, "beta": 1.0, "gamma": 0.0}),
    ("fdpo", {"divergence": "forward_kl"}),
    ("fdpo", {"divergence": "alpha", "alpha": -0.3}),
    ("fdpo", {"divergence": "jensen_shannon", "beta": 0.5}),
    ("dpop", {"penalty": 2.0, "beta": 1.0}),
    ("exo", {"label_smoothing": 0.2, "beta": 1.0}),
    ("kto", {"desirable_weight": 1.3, "undesirable_weight": 0.7}),
    ("sampo", {"tokens": "expected"}),
]


def quiet(name, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return objective(name, **parameters)


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_loss_and_gradient_are_those_of_the_paper(name, parameters, make_batch):
    made, batch = quiet(name, **parameters), make_batch(seed=3, pairs=8)
    chosen, rejected = batch.responses()
    ours, truth = made.pair_loss(chosen, rejected), plain(name, chosen, rejected, made.parameters)
    torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-14)
    ours_grad, true_grad = (
        torch.autograd.grad(x.sum(), batch.token_logps, retain_graph=True)[0] for x in (ours, truth)
    )
    torch.testing.assert_close(ours_grad, true_grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_weights_are_the_derivatives_of_the_loss_in_the_scores(name, parameters, make_batch):
    made, batch = quiet(name, **parameters), make_batch(seed=5, pairs=8)
    chosen, rejected = batch.responses()
    truth = plain(name, chosen, rejected, made.parameters).sum()
    grad = torch.autograd.grad(truth, batch.token_logps)[0][:, 0]  # every response has a first token
    per_nat = 1.0 / batch.lengths.double() if made.scorer.per_token else torch.ones(len(grad))
    if parameters == {"tokens": "expected"}:  # whose score counts a token of the longer response in part
        lengths = batch.lengths.double()
        per_nat = torch.minimum(*lengths.chunk(2)).repeat(2) / lengths
    grad_w, grad_l = (grad / per_nat).chunk(2)
    w_w, w_l = made.pair_weights(*(Responses(*(x.detach() for x in side)) for side in (chosen, rejected)))
    torch.testing.assert_close(w_w, -grad_w, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(w_l, grad_l, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_numpy_and_torch_give_the_same_numbers(name, make_batch):
    made = quiet(name)
    chosen, rejected = make_batch(seed=1).responses()
    arrays = [Responses(*(x.detach().numpy() for x in side)) for side in (chosen, rejected)]
    np.testing.assert_allclose(made.pair_loss(*arrays), made.pair_loss(chosen, rejected).detach(), rtol=1e-13)
    np.testing.assert_allclose(
        made.pair_margin(*arrays), made.pair_margin(chosen, rejected).detach(), rtol=1e-12
    )
    for ours, theirs in zip(made.pair_weights(*arrays), made.pair_weights(chosen, rejected), strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_keeps_its_dtype_and_is_close(name, make_batch):
    made, batch = quiet(name), make_batch(seed=2, dtype=torch.float32)
    chosen, rejected = batch.responses()
    double = [Responses(*(x.detach().double() for x in side)) for side in (chosen, rejected)]
    loss = made.pair_loss(chosen, rejected)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, made.pair_loss(*double).float(), rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_extreme_log_probabilities_never_make_nan(name):
    """Sums of −5000 nats and a probability of exactly 1, together in one batch."""
    made = quiet(name)
    values = torch.tensor([-5000.0, 0.0, -1.0, -5000.0, -0.5, 0.0], dtype=torch.float64)
    tokens = values[:, None] * torch.tensor([1.0, 0.0])
    p_w, p_l = tokens.clone().requires_grad_(), tokens.flip(0).clone().requires_grad_()
    lengths, reference = torch.full((6,), 2), torch.full((6, 2), -1.5, dtype=torch.float64)
    kl, one = torch.full((6,), 3.0, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    draws, squares = torch.rand(6, 2), reference.sum(1)
    chosen = Responses(p_w.sum(1), lengths, reference.sum(1), p_w, reference, squares, kl, one, draws)
    rejected = Responses(p_l.sum(1), lengths, reference.sum(1), p_l, reference, squares, kl, 0 * one, draws)
    loss = made.pair_loss(chosen, rejected)
    results = [
        loss,
        *made.pair_weights(chosen, rejected),
        *torch.autograd.grad(loss.sum(), (p_w, p_l), retain_graph=True),
    ]
    assert not any(torch.isnan(result).any() for result in results)


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_parameters_rebuild_the_objective(name, parameters):
    made = quiet(name, **parameters)
    assert quiet(name, **json.loads(json.dumps(made.parameters))) == made


# TRL: (its loss type and options, our name and parameters)
TRL = [
    ("sigmoid", {}, "dpo", {}),
    ("sigmoid", {"divergence": "forward_kl"}, "fdpo", {"divergence": "forward_kl"}),
    ("sigmoid", {"divergence": "js_divergence"}, "fdpo", {"divergence": "jensen_shannon"}),
    ("hinge", {}, "slic", {}),
    ("ipo", {}, "ipo", {}),
    ("nca_pair", {}, "nca", {"beta": 0.1}),
    ("robust", {"label_smoothing": 0.1}, "robust_dpo", {}),
    ("bco_pair", {}, "bco", {"beta": 0.1}),
    ("sppo_hard", {}, "sppo", {"beta": 0.1}),
    ("aot", {}, "aot", {"beta": 0.1}),
    ("aot", {"label_smoothing": 0.2}, "aot", {"beta": 0.1, "label_smoothing": 0.2}),
    ("aot_unpaired", {}, "aot_unpaired", {"beta": 0.1}),
    ("apo_zero", {}, "apo_zero", {}),
    ("apo_down", {}, "apo_down", {}),
    ("discopop", {}, "discopop", {"beta": 0.1}),
    ("sigmoid_norm", {}, "ln_dpo", {"beta": 0.1}),
    ("sigmoid", {"ld_alpha": 0.5}, "ld_dpo", {}),
    ("sigmoid", {"wpo": True}, "wpo", {"beta": 0.1, "clip": "none"}),
]


@pytest.mark.parametrize("scale", [0.3, 1.0, 20.0])
@pytest.mark.parametrize(("loss_type", "options", "name", "parameters"), TRL)
def test_loss_and_gradient_equal_dpo_trainer(loss_type, options, name, parameters, scale, make_batch):
    batch = make_batch(seed=7, scale=scale)
    theirs = batch.dpo_trainer_loss(loss_type, **options)
    ours = quiet(name, **parameters).pair_loss(*batch.responses()).mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    grads = [torch.autograd.grad(x, batch.token_logps)[0] * batch.mask for x in (ours, theirs)]
    finite = torch.isfinite(grads[1])  # TRL's exponentials meet 0·∞ at the largest scale; ours do not
    assert torch.isfinite(grads[0]).all()
    assert finite.all() or scale == 20.0
    torch.testing.assert_close(grads[0][finite], grads[1][finite], rtol=1e-9, atol=1e-13)


def test_exo_equals_dpo_trainer_up_to_its_float32_logarithms_of_epsilon(make_batch):
    batch = make_batch(seed=7)
    theirs = batch.dpo_trainer_loss("exo_pair", label_smoothing=1e-3)
    ours = objective("exo").pair_loss(*batch.responses()).mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=0)
    grads = [torch.autograd.grad(x, batch.token_logps)[0] for x in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-12)


def test_sft_equals_dpo_trainer_where_lengths_are_equal(make_batch):
    batch = make_batch(seed=7, equal_lengths=True)
    ours = objective("sft").pair_loss(*batch.responses()).mean()
    torch.testing.assert_close(ours, batch.dpo_trainer_loss("sft"), rtol=1e-12, atol=0)


def test_alpha_divergence_equals_dpo_trainer_whose_coefficient_is_one_minus_alpha(make_batch):
    """TRL computes this one in float32 and knows no float64 at all, so the comparison is in float32."""
    batch = make_batch(seed=7, dtype=torch.float32)
    theirs = batch.dpo_trainer_loss("sigmoid", divergence="alpha_divergence", coefficient=0.7)
    ours = quiet("fdpo", divergence="alpha", alpha=0.3).pair_loss(*batch.responses()).mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("loss_type", "name", "parameters", "alpha"),
    [
        ("simpo", "simpo", {"gamma": 0.7}, 0.0),
        ("simpo", "alphapo", {"gamma": 0.7, "alpha": 0.25}, 0.25),
        ("simpo", "alphapo", {"gamma": 0.7, "alpha": -1.0}, -1.0),
        ("sigmoid", "cpo", {"likelihood_weight": 0.0}, 0.0),
        ("hinge", "slic", {"reference": False}, 0.0),
    ],
)
def test_loss_and_gradient_equal_cpo_trainer(loss_type, name, parameters, alpha, rng, cpo_trainer_losses):
    p_w, p_l = (torch.tensor(-rng.exponential(1.0, 40), requires_grad=True) for _ in range(2))
    theirs = cpo_trainer_losses(p_w, p_l, loss_type=loss_type, beta=2.0, gamma=0.7, alpha=alpha)
    one = torch.ones(
        40, dtype=torch.int64
    )  # TRL gets its means ready-made; one token makes mean and sum the same
    ours = quiet(name, beta=2.0, **parameters).pair_loss(Responses(p_w, one), Responses(p_l, one))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    grads = [torch.autograd.grad(x.sum(), (p_w, p_l)) for x in (ours, theirs)]
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-14)


def test_trl_is_nan_for_alpha_rewards_of_summed_log_probs_where_ours_is_zero(cpo_trainer_losses):
    """exp(−1000) underflows to 0, 0^(−α) is ∞, and ∞ − ∞ is NaN: also in every weight after one step."""
    p_w, p_l = (torch.tensor([x, -1.0], dtype=torch.float64, requires_grad=True) for x in (-1000.0, -1200.0))
    theirs = cpo_trainer_losses(p_w, p_l, loss_type="simpo", beta=2.5, alpha=0.25)
    ours = objective("alphapo", alpha=0.25, beta=2.5, gamma=0.0).loss(p_w, p_l)
    assert torch.isnan(theirs[0])
    assert ours.tolist() == [0.0, pytest.approx(math.log(2))]
    assert torch.isnan(torch.autograd.grad(theirs.sum(), p_w)[0]).any()
    assert torch.isfinite(torch.autograd.grad(ours.sum(), p_w)[0]).all()


def test_trl_rewards_are_one_percent_off_at_alpha_1e_6_where_ours_are_exact(cpo_trainer_losses):
    p_w, p_l = torch.tensor([-2.0]), torch.tensor([-3.0])
    theirs = cpo_trainer_losses(p_w, p_l, loss_type="simpo", beta=1.0, alpha=1e-6)
    ours = objective("alphapo", alpha=1e-6, beta=1.0, gamma=0.0).loss(p_w, p_l)
    truth = math.log1p(math.exp(-1.0000025))
    assert ours.item() == pytest.approx(truth, rel=1e-7)
    assert abs(theirs.item() / truth - 1) > 0.005


def test_trl_is_nan_for_discopop_below_minus_709_where_ours_is_the_logistic_loss(make_batch):
    batch = make_batch(seed=0, pairs=1)
    with torch.no_grad():
        batch.token_logps[0, 0] = -9000.0
    assert torch.isnan(batch.dpo_trainer_loss("discopop"))
    z = 0.1 * (batch.token_logps - batch.ref_token_logps).sum(1)
    ours = objective("discopop", beta=0.1).pair_loss(*batch.responses())
    assert ours.item() == pytest.approx((z[1] - z[0]).item(), rel=1e-12)


def test_trl_is_nan_for_forward_kl_of_low_ratios_where_ours_is_finite(make_batch):
    batch = make_batch(seed=0, pairs=1)
    with torch.no_grad():
        batch.token_logps[:, 0] = torch.tensor([-800.0, -900.0])
    theirs = batch.dpo_trainer_loss("sigmoid", divergence="forward_kl")
    ours = quiet("fdpo", divergence="forward_kl").pair_loss(*batch.responses())
    assert torch.isnan(theirs)
    assert ours.item() == 0.0


def test_tdpo_draws_the_rejected_sequential_kl_down_and_leaves_the_chosen_alone(make_batch):
    batch = make_batch(seed=3, pairs=5)
    chosen, rejected = batch.responses()
    made = objective("tdpo")
    ours, truth = made.pair_loss(chosen, rejected), plain("tdpo", chosen, rejected, made.parameters)
    grads = [torch.autograd.grad(x.sum(), batch.position_kl, retain_graph=True)[0] for x in (ours, truth)]
    torch.testing.assert_close(*grads)
    assert (grads[0][:5] == 0).all()
    assert (grads[0][5:] > 0).all()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    name=st.sampled_from([name for name in NAMES if name not in ("wpo", "ld_dpo")]),
    order=st.permutations(range(6)),
)
def test_shuffling_the_pairs_shuffles_the_losses(seed, name, order, make_batch):
    made = quiet(name)
    sides = [Responses(*(x.detach().numpy() for x in side)) for side in make_batch(seed=seed).responses()]
    shuffled = [Responses(*(column[list(order)] for column in side)) for side in sides]
    np.testing.assert_allclose(made.pair_loss(*shuffled), made.pair_loss(*sides)[list(order)], rtol=1e-12)

"""The alpha family against high-precision values, autograd, and its own limits.

The 446 points of alpha_family.csv are computed elsewhere to 25 digits; `mpmath` recomputes others here at 60.
"""

from __future__ import annotations

import csv
import math
import subprocess
import sys
import warnings
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardshape.errors import InputError
from rewardshape.theory import Alpha, Responses, objective

EPS = 2.0**-52
LARGEST, SMALLEST = mpmath.mpf(np.finfo(float).max), mpmath.mpf(np.finfo(float).tiny)


@pytest.fixture(scope="module")
def reference():
    """The reference points: columns of floats for the inputs, of mpmath numbers for the results."""
    with mpmath.workdps(40), open(Path(__file__).parent / "alpha_family.csv") as lines:
        rows = list(csv.DictReader(lines))
        assert len(rows) == 446
        inputs = ("alpha", "beta", "gamma", "s_w", "s_l")
        return {
            name: np.array([float(row[name]) for row in rows])
            if name in inputs
            else [mpmath.mpf(row[name]) for row in rows]
            for name in rows[0]
        }


def relative_errors(values, truths):
    """Relative errors against mpmath numbers; a value beyond float64 must be inf with the right sign, or 0."""
    errors = []
    with mpmath.workdps(60):
        for value, truth in zip(values, truths, strict=True):
            if abs(truth) > LARGEST:
                errors.append(0.0 if value == math.copysign(math.inf, truth) else math.inf)
            elif abs(truth) < SMALLEST:
                errors.append(0.0 if abs(value) <= 2 * SMALLEST else math.inf)
            else:
                errors.append(float(abs((mpmath.mpf(float(value)) - truth) / truth)))
    return np.array(errors)


def exact(alpha, beta, gamma, s_w, s_l):
    """Rewards, margin, loss and weights at 60 digits, from the definitions."""
    with mpmath.workdps(60):
        alpha, beta, gamma, s_w, s_l = map(mpmath.mpf, map(float, (alpha, beta, gamma, s_w, s_l)))
        phi = lambda s: s if alpha == 0 else -mpmath.expm1(-alpha * s) / alpha  # noqa: E731
        r_w, r_l = beta * phi(s_w), beta * phi(s_l)
        z = r_w - r_l - gamma
        clock = beta / (1 + mpmath.exp(z))
        loss = mpmath.log1p(mpmath.exp(-z))
        return r_w, r_l, z, loss, clock * mpmath.exp(-alpha * s_w), clock * mpmath.exp(-alpha * s_l)


@pytest.fixture
def at_reference(reference):
    """The objective with arrays for α, β, γ, the scores, and the conditioning 1 + |αs| of every point."""
    alpha, s_w, s_l = (reference[name] for name in ("alpha", "s_w", "s_l"))
    made = objective("alphapo", alpha=alpha, beta=reference["beta"], gamma=reference["gamma"])
    return made, s_w, s_l, 1 + np.maximum(np.abs(alpha * s_w), np.abs(alpha * s_l))


@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*beyond float64.*:RuntimeWarning")
class TestReference:
    def test_rewards_are_within_the_proved_bound(self, reference, at_reference):
        made, s_w, s_l, _ = at_reference
        for s, name in ((s_w, "reward_w"), (s_l, "reward_l")):
            bound = (
                (13 + 1 + np.maximum(0, -reference["alpha"] * s)) * EPS / 2
            )  # 1 more for the product with β
            assert np.all(relative_errors(made.reward(s), reference[name]) <= bound)

    def test_margins_are_within_the_proved_bound(self, reference, at_reference):
        made, s_w, s_l, _ = at_reference
        gamma, z = reference["gamma"], made.margin(s_w, s_l)
        top = np.abs(np.maximum(-reference["alpha"] * s_w, -reference["alpha"] * s_l))
        with mpmath.workdps(40):
            for value, truth, shift, steep in zip(z, reference["margin"], gamma, top, strict=True):
                if math.isfinite(value):
                    bound = ((14 + steep) * abs(truth + shift) + abs(truth)) * EPS / 2
                    assert abs(mpmath.mpf(float(value)) - truth) <= bound

    def test_losses_and_weights_are_as_good_as_their_margin(self, reference, at_reference):
        made, s_w, s_l, condition = at_reference
        z = np.nan_to_num(made.margin(s_w, s_l), posinf=1e308, neginf=-1e308)
        bound = 8 * EPS * condition * (1 + np.abs(z + reference["gamma"]) + reference["gamma"])
        w_w, w_l = made.weights(s_w, s_l)
        for values, name in ((made.loss(s_w, s_l), "loss"), (w_w, "weight_w"), (w_l, "weight_l")):
            assert np.all(relative_errors(values, reference[name]) <= bound), name

    def test_log_weights_agree_where_weights_underflow(self, reference, at_reference):
        made, s_w, s_l, _ = at_reference
        for values, name in zip(made.log_weights(s_w, s_l), ("log_weight_w", "log_weight_l"), strict=True):
            assert np.all(relative_errors(values, reference[name]) <= 1e-13), name

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_low_precision_is_within_eight_of_its_own_eps(self, reference, dtype):
        """The scores are first rounded to the dtype; the truth is taken at the rounded scores."""
        every = range(0, len(reference["alpha"]), 5)
        alpha, beta, gamma = (reference[name][::5] for name in ("alpha", "beta", "gamma"))
        s_w, s_l = (torch.tensor(reference[name][::5], dtype=dtype) for name in ("s_w", "s_l"))
        made = objective("alphapo", alpha=alpha, beta=beta, gamma=gamma)
        rewards, rewards_l = made.reward(s_w), made.reward(s_l)
        margins, losses = made.margin(s_w, s_l), made.loss(s_w, s_l)
        w_w, w_l = made.weights(s_w, s_l)
        info = torch.finfo(dtype)
        for i in range(len(every)):
            truths = exact(alpha[i], beta[i], gamma[i], s_w[i].item(), s_l[i].item())
            values = (rewards[i], rewards_l[i], margins[i], losses[i], w_w[i], w_l[i])
            condition = 1 + abs(alpha[i]) * max(abs(s_w[i].item()), abs(s_l[i].item()))
            cancelled = [0, 0, 4e-16 * abs(gamma[i]), 0, 0, 0]  # β·Δφ − γ may vanish to float64's last digit
            for value, truth, least in zip(values, truths, cancelled, strict=True):
                assert value.dtype == dtype
                if abs(truth) > info.max:
                    assert math.isinf(value.item())
                elif abs(truth) > info.tiny:
                    bound = 8 * info.eps * condition * abs(truth) + least
                    assert abs(mpmath.mpf(value.item()) - truth) <= bound


def test_literal_form_fails_where_ours_holds():
    """The form of the papers, in float32, is about 1 % off at α = 1e-6, and infinite at s = −120·4."""
    s = np.float32(-2.0)
    literal = (1 - np.exp(s) ** np.float32(-1e-6)) / np.float32(1e-6)
    assert abs(literal / -2 - 1) > 0.005
    assert Alpha(1e-6).reward(s) == pytest.approx(-2.000002, rel=1e-7)


@pytest.mark.parametrize("alpha", [-2.0, -0.25, 0.0, 1e-9, 0.25, 1.0])
def test_gradients_are_the_closed_form_weights(alpha, rng):
    made = objective("alphapo", alpha=alpha, beta=2.5, gamma=0.25)
    s_w, s_l = (torch.tensor(-rng.exponential(2, 64), requires_grad=True) for _ in range(2))
    grad_w, grad_l = torch.autograd.grad(made.loss(s_w, s_l).sum(), (s_w, s_l))
    w_w, w_l = made.weights(s_w.detach().numpy(), s_l.detach().numpy())
    np.testing.assert_allclose(-grad_w.numpy(), w_w, rtol=1e-13)
    np.testing.assert_allclose(grad_l.numpy(), w_l, rtol=1e-13)


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.25])
@pytest.mark.parametrize("method", ["loss", "margin"])
def test_first_and_second_derivatives_agree_with_finite_differences(alpha, method, rng):
    function = getattr(objective("alphapo", alpha=alpha), method)
    scores = tuple(torch.tensor(-rng.exponential(1, 6), requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(function, scores)
    assert torch.autograd.gradgradcheck(function, scores)


def test_reward_gradient_is_exact_where_expm1_backward_is_not():
    """torch's expm1 differentiates as expm1 + 1, which keeps nothing of e⁻⁴⁰."""
    s = torch.tensor([40.0], dtype=torch.float64, requires_grad=True)
    naive = torch.autograd.grad(-torch.expm1(-s).sum(), s)[0]
    ours = torch.autograd.grad(Alpha(1.0).reward(s).sum(), s)[0]
    assert naive.item() == 0.0
    assert ours.item() == pytest.approx(math.exp(-40), rel=1e-15)


def test_broadcast_gradients_are_summed_over_the_broadcast_axis():
    s_w = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    s_l = torch.tensor([[-1.5], [-3.0], [-0.5]], dtype=torch.float64, requires_grad=True)
    made = objective("alphapo", alpha=0.5)
    made.loss(s_w, s_l).sum().backward()
    w_w, w_l = made.weights(s_w.detach(), s_l.detach())
    assert torch.allclose(s_w.grad, -w_w.sum(0))
    assert torch.allclose(s_l.grad, w_l.sum(1, keepdim=True))


def test_underflowing_rejected_response_has_weight_zero_and_finite_gradients():
    made = objective("alphapo", alpha=1.0)
    s_w = torch.tensor([-1.0, -1.0], dtype=torch.float64, requires_grad=True)
    s_l = torch.tensor([-5000.0, -1.1], dtype=torch.float64, requires_grad=True)
    loss = made.loss(s_w, s_l)
    loss.sum().backward()
    assert loss[0] == 0
    assert s_w.grad[0] == 0
    assert s_l.grad[0] == 0
    assert torch.isfinite(s_w.grad).all()
    assert torch.isfinite(s_l.grad).all()
    # The same through a margin and a foreign loss: 0 · ∞ is 0 there too.
    margin = made.margin(s_w, s_l)
    grads = torch.autograd.grad(torch.nn.functional.softplus(-margin).sum(), (s_w, s_l))
    assert not any(torch.isnan(grad).any() for grad in grads)


def test_true_overflow_is_reported_and_does_not_spread():
    made = objective("alphapo", alpha=1.0)
    s_w, s_l = np.array([-2000.0, -1.0]), np.array([-1.0, -2.0])
    with pytest.warns(RuntimeWarning, match=r"the loss is beyond float64 in 1 of 2 .* index 0") as caught:
        loss = made.loss(s_w, s_l)
    assert caught[0].filename == __file__  # the line that asked, not one of ours
    assert loss[0] == np.inf
    assert loss[1] == made.loss(-1.0, -2.0)
    tensor = made.loss(torch.tensor(s_w), torch.tensor(s_l))
    assert torch.isinf(tensor).tolist() == [True, False]


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=150, deadline=None)
@given(alpha=finite, beta=st.floats(1e-300, 1e300), gamma=finite, s_w=finite, s_l=finite)
def test_never_nan_for_finite_input(alpha, beta, gamma, s_w, s_l):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = objective("alphapo", alpha=alpha, beta=beta, gamma=gamma)
        tensors = [torch.tensor(s, dtype=torch.float64, requires_grad=True) for s in (s_w, s_l)]
        loss = made.loss(*tensors)
        grads = torch.autograd.grad(loss, tensors)
        values = [
            made.reward(s_w),
            made.margin(s_w, s_l),
            made.loss(s_w, s_l),
            *made.weights(s_w, s_l),
            *made.log_weights(s_w, s_l),
        ]
    assert not np.isnan([*values, loss.item(), *(grad.item() for grad in grads)]).any()


nats = st.floats(-60, 0)


@settings(max_examples=60, deadline=None)
@given(alpha=st.floats(-3, 3), s_w=nats, s_l=nats)
def test_swapping_a_pair_negates_its_margin_and_swaps_its_slopes(alpha, s_w, s_l):
    made = objective("alphapo", alpha=alpha, beta=1.0, gamma=0.0)
    assert made.margin(s_w, s_l) == -made.margin(s_l, s_w)


@settings(max_examples=60, deadline=None)
@given(alpha=st.floats(-3, 3), s=nats, step=st.floats(1e-6, 5))
def test_reward_is_increasing(alpha, s, step):
    low, high = Alpha(alpha).reward(s - step), Alpha(alpha).reward(s)
    assert high >= low - 4 * EPS * abs(low)  # near its bound a bounded reward grows by less than an ulp
    assert Alpha(alpha).difference(s, s - step) > 0  # which the difference still sees


@settings(max_examples=60, deadline=None)
@given(s=nats, alpha=st.floats(-1e-9, 1e-9))
def test_alpha_to_zero_is_continuous_and_tends_to_the_score(s, alpha):
    assert Alpha(alpha).reward(s) == pytest.approx(s, rel=1e-7)


def test_alpha_zero_per_token_is_simpo():
    s = -np.linspace(0.01, 9, 50)
    ours = objective("alphapo", alpha=0.0, beta=2.0, gamma=1.0)
    np.testing.assert_array_equal(ours.loss(s, s[::-1]), objective("simpo", beta=2, gamma=1).loss(s, s[::-1]))


def test_dpo_without_a_reference_is_refused():
    responses = Responses(np.array([-1.0]), np.array([1]))
    with pytest.raises(InputError, match="ref_logp_sum"):
        objective("dpo").pair_loss(responses, responses)


def test_import_loads_no_heavy_library():
    heavy = ("torch", "scipy", "pandas", "matplotlib")
    code = f"import rewardshape.theory, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""A value that carries a given derivative, against finite differences of that value."""

from __future__ import annotations

import torch

from rewardshape.theory._torch import attach


def attached(x, y):
    """x²·y, with its derivatives attached by hand."""
    return attach(x**2 * y, (x, 2 * x * y), (y, x**2))


def test_first_and_second_derivatives_are_those_of_finite_differences():
    x = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1.5], [-0.7]], dtype=torch.float64, requires_grad=True)  # broadcast against x
    assert torch.autograd.gradcheck(attached, (x, y))
    assert torch.autograd.gradgradcheck(attached, (x, y))


def test_a_pair_that_is_switched_off_has_no_gradient_however_steep():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    steep = attach(x.detach(), (x, torch.tensor([torch.inf, 3.0])))
    [grad] = torch.autograd.grad((steep * torch.tensor([0.0, 1.0])).sum(), x)
    assert grad.tolist() == [0.0, 3.0]

"""The bytes that tensors take, against sums made by hand."""

from __future__ import annotations

import torch

from rewardshape.probe.books import Books, Moment, size_of


def test_bytes_come_and_go_and_views_are_not_counted_twice():
    model = torch.nn.Linear(100, 10, bias=False)
    with Books(model) as books:
        first = torch.zeros(1000)  # 4,000 bytes
        view = first[:500].view(50, 10)
        assert books.alive == 4000
        second = first.double()  # 8,000
        assert (books.alive, books.early) == (12_000, Moment(12_000))
        del first
        assert books.alive == 12_000  # the view holds it
        del view
        assert books.alive == 8000
        del second
    assert (books.alive, books.early, books.late) == (0, Moment(12_000), Moment())


def test_the_worst_moments_of_either_half_of_a_backward_pass():
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 64, bias=False) for _ in range(4)))
    weight, row = 4 * 64 * 64, 4 * 64
    with Books(model) as books:
        model(torch.ones(1, 64)).sum().backward()
        gradients = 4 * weight
        assert gradients <= books.alive <= gradients + 8 * row
    # A gradient is counted as one once it is the weight's own; the moment of the most is while the last is made.
    assert books.late.gradients in (3 * weight, 4 * weight)
    assert gradients <= books.late.alive <= gradients + 8 * row
    assert books.early.gradients == 2 * weight
    assert 2 * weight <= books.early.alive - weight <= 2 * weight + 8 * row


def test_the_size_of_a_quantised_tensor_is_that_of_its_parts():
    from torchao.optim.subclass_8bit import OptimState8bit

    state = OptimState8bit.zeros((4096,), block_size=256)
    parts = (state.codes, state.scale, state.qmap)
    assert size_of(state) == sum(part.numel() * part.element_size() for part in parts) < 2 * 4096
    assert size_of(torch.zeros(3, 5, dtype=torch.bfloat16)) == 30

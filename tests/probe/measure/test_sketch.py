"""Sketches of gradients: linear, of whatever they are made, and without bias, with the error that is stated."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewardshape.probe.measure.sketch import SIZE, Sketch

SHAPES = [(30, 20), (20,), (50, 12), (3, 4, 5)]


def some_weights(rng):
    return [torch.tensor(rng.normal(size=shape), dtype=torch.float64) for shape in SHAPES]


@pytest.mark.parametrize("formed", [0, 48], ids=["transformed", "formed"])
def test_terms_tokens_and_whole_gradients_have_one_sketch(rng, monkeypatch, formed):
    monkeypatch.setattr("rewardshape.probe.measure.sketch.FORMED", formed)
    weights = some_weights(rng)
    sketch = Sketch(weights)
    u, v = (torch.tensor(rng.normal(size=(2, 7, size))) for size in SHAPES[0])
    torch.testing.assert_close(sketch.of_terms(0, u, v), sketch.of_gradients(0, u.mT @ v))
    tokens = torch.tensor(rng.integers(0, 50, (2, 7)))
    v = torch.tensor(rng.normal(size=(2, 7, 12)))
    one_hot = torch.nn.functional.one_hot(tokens, 50).double()
    torch.testing.assert_close(sketch.of_tokens(2, tokens, v), sketch.of_gradients(2, one_hot.mT @ v))
    parts = [sketch.of_gradients(number, weight[None])[0] for number, weight in enumerate(weights)]
    torch.testing.assert_close(sketch.of_all(weights.__getitem__), sum(parts))


@pytest.mark.parametrize("rank", [1, 20])
def test_inner_products_are_right_in_the_mean_within_the_stated_error(rng, rank):
    """Also of gradients of one position, where a product of two short projections would be off by far more."""

    def drawn():
        return [
            torch.tensor(rng.normal(size=(size, rank)) @ rng.normal(size=(rank, 20))) for size in (30, 50)
        ]

    first, second = drawn(), drawn()
    second = [b + 0.5 * a for a, b in zip(first, second, strict=True)]
    exact = sum((a * b).sum() for a, b in zip(first, second, strict=True)).item()
    lengths = np.prod([np.sqrt(sum((a**2).sum() for a in of).item()) for of in (first, second)])
    errors = []
    for seed in range(100):
        sketch = Sketch(first, seed=seed)
        estimate = sketch.of_all(first.__getitem__) @ sketch.of_all(second.__getitem__)
        errors.append((estimate.item() - exact) / lengths)
    spread = np.std(errors)
    assert abs(np.mean(errors)) < 4 * spread / np.sqrt(len(errors))
    assert 0.5 / np.sqrt(SIZE) < spread < np.sqrt(11 / SIZE)


def test_a_large_matrix_is_sketched_piece_by_piece(rng, monkeypatch):
    weights = some_weights(rng)
    whole = Sketch(weights).of_all(weights.__getitem__)
    monkeypatch.setattr("rewardshape.probe.measure.sketch.AT_ONCE", 70)
    torch.testing.assert_close(Sketch(weights).of_all(weights.__getitem__), whole)

"""Log-probs without the logits, tile by tile, against the whole softmax of PyTorch."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rewardshape.probe.measure import projection
from rewardshape.probe.measure.projection import Head, NoLinearHead, Predictions, head_of, project
from tests.probe.measure.test_logprobs import ids, tiny_model

N, WIDTH, WORDS = 7, 5, 1300  # three tiles of the smallest width, of which the last is shorter


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((N, WIDTH), (WORDS, WIDTH), (WORDS,))
    )
    targets = torch.tensor([0, 511, 512, 1023, 1024, WORDS - 1, 7])  # on both sides of the edges of the tiles
    return {"hidden": hidden, "weight": weight, "bias": bias, "targets": targets}


@pytest.mark.parametrize("most_kept", [0, projection.MOST_KEPT])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_the_whole_softmax(
    tensors, softcap, with_bias, most_kept, monkeypatch
):
    """Whether the softmax waits for the backward pass or is made again; a second backward pass gives the same."""
    monkeypatch.setattr(projection, "CPU_TILE_ELEMENTS", 1)
    monkeypatch.setattr(projection, "MOST_KEPT", most_kept)
    hidden, weight, targets = tensors["hidden"], tensors["weight"], tensors["targets"]
    bias = tensors["bias"] if with_bias else None
    logits = torch.nn.functional.linear(hidden, weight, bias)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    whole = torch.log_softmax(logits, -1)

    found = project(hidden, weight, targets, bias=bias, softcap=softcap)
    truth = whole.gather(1, targets[:, None]).squeeze(1)
    torch.testing.assert_close(found.logps, truth, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.greedy_logps, whole.amax(-1), rtol=0, atol=1e-12)
    entropies = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(found.entropies, entropies, rtol=0, atol=1e-10)
    squares = whole.exp().square().sum(-1).log()
    torch.testing.assert_close(found.log_sum_sq_probs, squares, rtol=0, atol=1e-12)

    leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None]
    weights = torch.linspace(-1, 2, N, dtype=torch.float64)
    first, second, theirs = (
        torch.autograd.grad((logps * weights).sum(), leaves, retain_graph=True)
        for logps in (found.logps, found.logps, truth)
    )
    for mine, again, other in zip(first, second, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
        torch.testing.assert_close(again, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("most_kept", [0, projection.MOST_KEPT])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_divergence_from_a_reference_and_its_gradient_are_those_of_whole_softmaxes(
    tensors, softcap, with_bias, most_kept, monkeypatch
):
    monkeypatch.setattr(projection, "CPU_TILE_ELEMENTS", 1)
    monkeypatch.setattr(projection, "MOST_KEPT", most_kept)
    generator = torch.Generator().manual_seed(4)
    hidden, weight, targets = tensors["hidden"], tensors["weight"], tensors["targets"]
    bias = tensors["bias"] if with_bias else None
    theirs = hidden.detach() + torch.randn(N, WIDTH, generator=generator, dtype=torch.float64)
    head = Head(weight.detach() * 1.1, None if bias is None else bias.detach() - 1, 0.7, softcap)

    def logits(hidden, weight, bias):
        raw = torch.nn.functional.linear(hidden, weight, bias)
        return raw if softcap is None else softcap * torch.tanh(raw / softcap)

    whole = logits(hidden, weight, bias).log_softmax(-1)
    reference = logits(0.7 * theirs, head.weight, head.bias)
    truth = torch.nn.functional.kl_div(
        whole, reference.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    predictions = Predictions(head, theirs, reference.logsumexp(-1))
    found = project(hidden, weight, targets, bias=bias, softcap=softcap, reference=predictions)
    torch.testing.assert_close(found.kl, truth, rtol=0, atol=1e-11)

    leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None]
    u, k = torch.linspace(-1, 2, N, dtype=torch.float64), torch.linspace(3, -1, N, dtype=torch.float64)
    expected = torch.autograd.grad(
        (whole.gather(1, targets[:, None]).squeeze(1) * u + truth * k).sum(), leaves, retain_graph=True
    )
    ours = torch.autograd.grad((found.logps * u + found.kl * k).sum(), leaves)
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-11)


def test_logits_of_thousands_make_no_infinity():
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[9000.0], [0.0], [-9000.0]])
    found = project(hidden.expand(3, 1), weight, torch.arange(3))
    torch.testing.assert_close(found.logps, torch.tensor([0.0, -9000.0, -18000.0]))
    torch.testing.assert_close(found.entropies, torch.zeros(3))


@pytest.mark.parametrize("architecture", ["gemma2", "granite", "cohere", "phi"])
def test_the_head_of_a_model_gives_its_own_logits(architecture):
    """With a cap, a divisor, a factor, and a bias."""
    model = tiny_model(architecture, dtype=torch.float64)
    tokens = torch.tensor([ids(9, 1)])
    with torch.no_grad():
        hidden = model.model(tokens).last_hidden_state[0]
        torch.testing.assert_close(head_of(model).logits(hidden), model(tokens).logits[0])


def test_an_output_that_is_no_matrix_is_refused():
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("gpt2", vocab_size=9, n_embd=4, n_layer=1, n_head=1)
    )
    model.set_output_embeddings(torch.nn.Sequential(model.lm_head))
    with pytest.raises(NoLinearHead, match="its output projection is a Sequential, not a linear layer"):
        head_of(model)


@pytest.mark.parametrize(
    ("grad", "dtype", "held"),
    [(True, torch.float32, 4), (True, torch.bfloat16, 2), (False, torch.float32, 0)],
)
def test_a_forward_pass_keeps_the_softmax_only_for_a_backward_pass(grad, dtype, held):
    """What is alive afterwards: the whole softmax in the precision of the weights, or nothing of its size."""
    tokens, words = 64, 5000
    hidden = torch.randn(tokens, WIDTH, dtype=dtype, requires_grad=True)
    weight = torch.randn(words, WIDTH, dtype=dtype, requires_grad=True)
    with torch.set_grad_enabled(grad), torch.profiler.profile(profile_memory=True) as profile:
        found = project(hidden, weight, torch.zeros(tokens, dtype=torch.int64))
    alive = sum(event.self_cpu_memory_usage for event in profile.key_averages())
    assert alive == pytest.approx(tokens * words * held, abs=0.05 * tokens * words * 4)
    assert found.logps.requires_grad == grad


@pytest.fixture
def spare(monkeypatch) -> projection.Spare:
    """One that no other test has filled."""
    monkeypatch.setattr(projection, "SPARE", projection.Spare())
    return projection.SPARE


def gradients(logps: torch.Tensor, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(logps.sum(), [tensors["hidden"], tensors["weight"]], retain_graph=True))


def projected(tensors: dict[str, torch.Tensor], rows: int) -> torch.Tensor:
    return project(tensors["hidden"][:rows], tensors["weight"], tensors["targets"][:rows]).logps


def whole(tensors: dict[str, torch.Tensor], rows: int) -> torch.Tensor:
    logits = tensors["hidden"][:rows] @ tensors["weight"].T
    return torch.log_softmax(logits, -1).gather(1, tensors["targets"][:rows, None])


def test_two_steps_at_once_wait_each_in_its_own_room(tensors, spare):
    """What waits for its backward pass is not written over, by a step of another size either."""
    gradients(projected(tensors, N), tensors)  # leaves a block
    for end in (N, 4, N):
        first, second = projected(tensors, end), projected(tensors, 3)
        for logps, size in ((first, end), (second, 3)):
            torch.testing.assert_close(
                gradients(logps, tensors), gradients(whole(tensors, size), tensors), rtol=0, atol=1e-12
            )


def test_a_step_waits_in_the_room_of_the_one_before(tensors, spare):
    blocks = set()
    for end in (N, 4, N):
        gradients(projected(tensors, end), tensors)
        blocks.add((spare.block.data_ptr(), len(spare.block)))
    assert blocks == {(spare.block.data_ptr(), N * WORDS)}
    spare.forget()
    assert spare.block is None


def test_a_second_backward_pass_after_another_step_is_refused_not_wrong(tensors, spare):
    """Autograd sees that what it had saved was written over."""
    first = projected(tensors, N)
    gradients(first, tensors)
    projected(tensors, N)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradients(first, tensors)

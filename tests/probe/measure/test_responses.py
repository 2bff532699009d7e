"""Token-level objectives in the trainer: loss and gradient against whole logits and the authors' formulas."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from rewardshape.data import EncodedPair, embedded
from rewardshape.errors import InputError
from rewardshape.probe.command import parse
from rewardshape.probe.grid import plan_runs
from rewardshape.probe.inputs import Inputs
from rewardshape.probe.measure.logprobs import PlainReader, SharedPrefixReader
from rewardshape.probe.measure.probe_set import reference_logps
from rewardshape.probe.measure.responses import draws
from rewardshape.probe.measure.responses import scores as scores_of
from rewardshape.probe.order import TrainingOrder
from rewardshape.probe.policy import load_policy
from rewardshape.probe.training import PairTrainer, training_arguments
from rewardshape.theory import objective

READERS = {"plain": PlainReader(), "shared": SharedPrefixReader()}
NAMES = ("ld_dpo", "wpo", "tdpo", "sampo", "odpo")
BETA, LD, KL, OFFSET = 0.3, 0.4, 0.6, 0.8


@dataclasses.dataclass
class Side:
    logps: torch.Tensor
    ref: torch.Tensor
    log_probs: torch.Tensor
    ref_log_probs: torch.Tensor
    score: float
    draws: torch.Tensor


def predictions(model: Any, pair: EncodedPair, name: str) -> torch.Tensor:
    ids = pair.responses[name]
    logits = model(torch.tensor([pair.prompt_ids + ids]), use_cache=False).logits[0]
    return logits[len(pair.prompt_ids) - 1 : -1].log_softmax(-1)


def author_loss(name: str, chosen: Side, rejected: Side) -> torch.Tensor:
    n = min(len(chosen.logps), len(rejected.logps))
    u_w, u_l = chosen.logps - chosen.ref, rejected.logps - rejected.ref
    if name == "ld_dpo":  # TRL: shared + ld_alpha * tail
        return -F.logsigmoid(
            BETA * ((u_w[:n].sum() + LD * u_w[n:].sum()) - (u_l[:n].sum() + LD * u_l[n:].sum()))
        )
    if name == "sampo":
        s_w, s_l = (u[torch.argsort(side.draws)[:n]].sum() for u, side in ((u_w, chosen), (u_l, rejected)))
        return -F.logsigmoid(BETA * (s_w - s_l))
    z = u_w.sum() - u_l.sum()
    if name == "tdpo":  # TDPO2: KL of the reference from the policy, that of the chosen response detached
        kl_w, kl_l = (
            (s.ref_log_probs.exp() * (s.ref_log_probs - s.log_probs)).sum() for s in (chosen, rejected)
        )
        return -F.logsigmoid(BETA * (z - KL * (kl_l - kl_w.detach())))
    if name == "wpo":
        aligned = [
            ((s.logps - s.log_probs.exp().square().sum(-1).log()).mean()).detach() for s in (chosen, rejected)
        ]
        return torch.exp(aligned[0] + aligned[1]).clamp(max=1) * -F.logsigmoid(BETA * z)
    return -F.logsigmoid(BETA * z - OFFSET * np.log(chosen.score - rejected.score))


PARAMETERS = {
    "ld_dpo": [f"tail={LD}"],
    "tdpo": [f"kl_weight={KL}"],
    "odpo": [f"offset={OFFSET}"],
    "wpo": [],
    "sampo": [],
}


def prepared(
    name: str, reader: Any, pairs_file: str, checkpoint: str, folder: Any
) -> tuple[Any, Any, list[Any]]:
    """A trainer whose policy has moved away from its reference, the reference, and the items of a batch."""
    words = [checkpoint, "--data", pairs_file, "--objective", name, "--beta", str(BETA), "--steps", "1"]
    words += ["--batch-size", "4", "--micro-batch-size", "4"]
    words += [word for item in PARAMETERS[name] for word in ("--parameter", item)]
    grid = plan_runs(parse(words))
    [run] = grid.runs
    pairs = [
        dataclasses.replace(pair, scores=(2.0 + number / 7, 1.5))
        for number, pair in enumerate(Inputs(run, grid.model.checkpoint).train[:6])
    ]
    order = TrainingOrder(pairs, steps=1, batch_size=4, seed=0)
    policy = load_policy(grid.model.checkpoint, run.settings.model)
    trainer = PairTrainer(
        policy,
        training_arguments(run, folder),
        order,
        objective=run.objective,
        reader=reader,
        keep_checkpoints=1,
    )
    reference = AutoModelForCausalLM.from_pretrained(embedded.checkpoint_path()).eval()
    trainer.keep_reference(policy, order.pairs())
    trainer.reference = reference_logps(order.pairs(), reader, trainer.args.device, trainer.score)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return trainer, reference, [order[place] for place in range(4)]


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_are_those_of_the_authors_formula(name, reader, pairs_file, checkpoint, tmp_path):
    trainer, reference, items = prepared(name, reader, pairs_file, checkpoint, tmp_path)
    policy = trainer.model.eval()
    lengths = [[len(ids) for ids in item.pair.responses.values()] for item in items]
    assert any(a != b for a, b in lengths), "a batch that the lengths could not tell apart"

    drawn = draws(trainer.args.seed, [item.position for item in items], [item.pair for item in items])
    truth = []
    for place, item in enumerate(items):
        both = []
        for side, response in enumerate(("chosen", "rejected")):
            ids = torch.tensor(item.pair.responses[response])
            log_probs = predictions(policy, item.pair, response)
            with torch.no_grad():
                theirs = predictions(reference, item.pair, response)
            rows = (log_probs.gather(1, ids[:, None])[:, 0], theirs.gather(1, ids[:, None])[:, 0])
            row = drawn[response][place, : len(ids)]
            both.append(Side(*rows, log_probs, theirs, item.pair.scores[side], row))
        truth.append(author_loss(name, *both))
    expected = torch.stack(truth).mean()
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    wanted = torch.autograd.grad(expected, weights)

    loss = trainer.compute_loss(policy, trainer.data_collator(items))
    found = torch.autograd.grad(loss, weights)
    assert loss.item() == pytest.approx(expected.item(), rel=2e-5)
    scale = max(gradient.abs().max().item() for gradient in wanted)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-4 * scale)


def test_draws_are_a_matter_of_seed_and_place_alone():
    pairs = [EncodedPair(str(n), [1], {"chosen": [5] * n, "rejected": [6] * 3}) for n in (4, 2, 5)]
    whole = draws(7, [0, 1, 2], pairs)
    alone = draws(7, [1], pairs[1:2])
    torch.testing.assert_close(whole["chosen"][1, :2], alone["chosen"][0, :2])
    torch.testing.assert_close(whole["rejected"][1, :3], alone["rejected"][0, :3])
    assert not torch.equal(draws(8, [1], pairs[1:2])["chosen"], alone["chosen"])
    assert len({number for rows in whole.values() for number in rows[:, :2].flatten().tolist()}) == 12


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, "a:1 has no scores of its responses; name their columns"),
        ((1.0, 1.0), "a:1 has scores 1 and 1; the chosen response's must be the higher one"),
    ],
)
def test_pairs_whose_scores_say_nothing_are_named(scores, message):
    pair = EncodedPair("a:1", [1], {"chosen": [2], "rejected": [3]}, scores=scores)
    with pytest.raises(InputError, match=message):
        scores_of(objective("odpo"), [pair])

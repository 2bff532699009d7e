"""Random batches, TRL's own loss code fed with log-probabilities instead of a language model, integrated pairs.

`DPOTrainer._compute_loss` and `CPOTrainer.cpo_loss` run as installed; only the model, whose forward pass would
make the log-probabilities, is a table of them.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from rewardshape.theory import Responses


@pytest.fixture(scope="session")
def make_batch():
    return Batch


@pytest.fixture(scope="session")
def cpo_trainer_losses():
    return _cpo_trainer_losses


@pytest.fixture(scope="session")
def trajectory():
    """Where a pair goes, integrated: ``trajectory(alpha, gram, s_w, s_l, arrives)``."""
    return _follow


@pytest.fixture(scope="session")
def random_pairs():
    return _random_pairs


class Table(torch.nn.Module):
    """Answers every call with the same token log-probabilities, as TRL's fused LM head does."""

    def __init__(self, token_logps, log_sum_sq_probs=None):
        super().__init__()
        self.is_gradient_checkpointing = False
        zeros = torch.zeros_like(token_logps)
        self.outputs = SimpleNamespace(
            log_probs=token_logps,
            log_sum_sq_probs=zeros if log_sum_sq_probs is None else log_sum_sq_probs,
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros.bool(),
        )

    def forward(self, **inputs):
        return self.outputs


class Batch:
    """Random pairs with tokens: the same numbers for TRL and for us, in float64 unless told otherwise."""

    def __init__(self, seed=0, pairs=6, tokens=9, scale=1.0, dtype=torch.float64, equal_lengths=False):
        generator = torch.Generator().manual_seed(seed)
        shape = (2 * pairs, tokens)
        exponential = lambda: -torch.empty(shape, dtype=dtype).exponential_(generator=generator) * scale  # noqa: E731
        self.lengths = torch.randint(1, tokens + 1, (2 * pairs,), generator=generator)
        if equal_lengths:
            self.lengths[:] = tokens
        self.mask = (torch.arange(tokens) < self.lengths[:, None]).long()
        self.token_logps = (exponential() * self.mask).requires_grad_()
        self.ref_token_logps = exponential() * self.mask
        self.log_sum_sq_probs = exponential() * self.mask
        self.position_kl = (-exponential() * self.mask).sum(1).detach().requires_grad_()
        self.labels = torch.cat(
            [torch.rand(pairs, generator=generator) + 5, torch.rand(pairs, generator=generator)]
        )
        self.labels = self.labels.to(dtype)
        self.draws = torch.rand(self.token_logps.shape, generator=torch.Generator().manual_seed(seed)).to(
            dtype
        )
        self.draws[:, 0] = -1.0  # the first token is always among those that are drawn

    def responses(self):
        """(chosen, rejected) as our objectives take them, differentiable in `token_logps`."""
        columns = (
            self.token_logps.sum(1),
            self.lengths,
            self.ref_token_logps.sum(1),
            self.token_logps,
            self.ref_token_logps,
            self.log_sum_sq_probs.sum(1),
            self.position_kl,
            self.labels,
            self.draws,
        )
        halves = [column.chunk(2) for column in columns]
        return Responses(*(first for first, _ in halves)), Responses(*(second for _, second in halves))

    def dpo_trainer_loss(
        self,
        loss_type,
        *,
        beta=0.1,
        label_smoothing=0.0,
        divergence="reverse_kl",
        coefficient=0.5,
        ld_alpha=None,
        wpo=False,
        tau=0.05,
    ):
        """The mean loss of ``DPOTrainer(loss_type=…)`` on this batch."""
        from trl import DPOTrainer

        trainer = object.__new__(DPOTrainer)
        trainer.__dict__.update(
            model=Table(self.token_logps),
            ref_model=Table(self.ref_token_logps),
            accelerator=SimpleNamespace(device="cpu", gather=_same, gather_for_metrics=_same),
            args=SimpleNamespace(
                discopop_tau=tau, gradient_checkpointing=False, gradient_checkpointing_kwargs=None
            ),
            beta=beta,
            label_smoothing=label_smoothing,
            f_divergence_type=divergence,
            f_alpha_divergence_coef=coefficient,
            ld_alpha=ld_alpha,
            loss_types=[loss_type],
            loss_weights=[1.0],
            use_weighting=wpo,
            precompute_ref_logps=False,
            aux_loss_enabled=False,
            _metrics={"train": defaultdict(list)},
            _total_train_tokens=0,
            _tp_size=1,
        )
        prompt = torch.zeros(len(self.mask), 1, dtype=torch.long)
        mask = torch.cat([prompt, self.mask], 1)
        inputs = {"input_ids": mask.clone(), "attention_mask": torch.ones_like(mask), "completion_mask": mask}
        return trainer._compute_loss(Table(self.token_logps, self.log_sum_sq_probs), inputs, False)


def _cpo_trainer_losses(chosen, rejected, *, loss_type, beta, gamma=0.0, alpha=0.0, label_smoothing=0.0):
    """The losses of ``CPOTrainer.cpo_loss`` per pair."""
    from trl.experimental.cpo import CPOTrainer

    trainer = object.__new__(CPOTrainer)
    trainer.__dict__.update(
        accelerator=SimpleNamespace(device="cpu"),
        alpha=alpha,
        beta=beta,
        loss_type=loss_type,
        simpo_gamma=gamma,
        label_smoothing=label_smoothing,
    )
    return trainer.cpo_loss(chosen, rejected)[0]


def _same(value):
    return value


_LENGTH = 400.0  # nats of path after which a pair is taken to go on for ever


def _follow(alpha, gram, s_w, s_l, arrives):
    """An independent account of where a pair goes: its equations of motion, integrated along the length of the path.

    It shares nothing with the closed forms: neither their parametrisation nor their weights. The slopes of the alpha
    family are written out, divided by the larger of the two, so that nothing over- or underflows. Returns the point
    at which ``arrives(s_w, s_l)`` passes 0, or None where the pair never gets there.
    """
    a, b, c = gram
    if arrives(s_w, s_l) == 0:
        return s_w, s_l

    def direction(_, s):
        top = np.max(-alpha * s)
        w_w, w_l = np.exp(-alpha * s - top)
        v = np.array([w_w * a - w_l * b, w_w * b - w_l * c])
        return v / np.hypot(*v)

    def arrived(_, s):
        return arrives(*s)

    arrived.terminal = True
    done = solve_ivp(
        direction, (0, _LENGTH), [s_w, s_l], method="LSODA", rtol=1e-11, atol=1e-12, events=arrived
    )
    return tuple(done.y_events[0][0]) if done.status == 1 else None


def _random_pairs(seed, count):
    """α, Gram matrix and scores; half of the pairs with gradients of cosine up to 0.99999, most nearly level."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        a = rng.uniform(0.3, 3)
        c = a * np.exp(rng.uniform(-0.5, 0.5))
        cosine = 1 - 10 ** rng.uniform(-5, 0) if k % 2 else rng.uniform(-0.9, 0.95)
        alpha = float(rng.choice([-2, -1, -0.25, 0, 0.25, 1, 2]))
        s_w = -rng.uniform(0.2, 2.5)
        s_l = s_w + (rng.normal() * 0.05 if k % 3 else rng.uniform(-1, 1))
        yield alpha, (a, cosine * np.sqrt(a * c), c), s_w, s_l

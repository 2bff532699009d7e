"""Beside and inside real TRL trainers, on a real small model: our numbers there are ours here, TRL's stay TRL's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM

from rewardshape import objective, read_trace
from rewardshape.data import embedded
from rewardshape.errors import InputError
from rewardshape.integrations.trl import ProbeCallback, left_aligned, shaped
from tests.adapters import adapted
from tests.integrations.small_run import ARGUMENTS

trl = pytest.importorskip("trl", reason="TRL is an extra: pip install 'rewardshape[trl]'")

STEPS = 3
CHECKPOINT = str(embedded.checkpoint_path())


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    lines = embedded.pairs_path().read_text(encoding="utf-8").splitlines()[:30]
    scores = ({"chosen_score": 2.0 + number / 7, "rejected_score": 1.5} for number in range(len(lines)))
    return [json.loads(line) | score for line, score in zip(lines, scores, strict=True)]


@pytest.fixture(scope="module")
def probe_file(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("probe") / "probe.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[-6:]), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def train(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Train a TRL trainer for three steps; the trainer afterwards."""
    from datasets import Dataset

    def run(trainer_class: Any, config_class: Any, callbacks: list[Any] | None = None, **options: Any) -> Any:
        torch.manual_seed(0)
        data = options.pop("data", rows[:-6])
        model = options.pop("model", None)
        model = model or AutoModelForCausalLM.from_pretrained(options.pop("checkpoint", CHECKPOINT))
        arguments = config_class(
            output_dir=str(tmp_path_factory.mktemp("trl")),
            max_steps=options.pop("max_steps", STEPS),
            per_device_train_batch_size=4,
            save_strategy="no",
            **(ARGUMENTS | options),
        )
        trainer = trainer_class(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(data),
            processing_class=AutoTokenizer.from_pretrained(CHECKPOINT),
            callbacks=callbacks,
        )
        trainer.train()
        return trainer

    return run


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def with_callback(train, probe_file, tmp_path_factory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("callback") / "trace"
    callback = ProbeCallback(probe_file, objective("dpo", beta=0.1), folder=folder)
    return train(trl.DPOTrainer, trl.DPOConfig, [callback], beta=0.1), folder


def test_the_callbacks_numbers_are_those_of_the_weights(with_callback, rows, tokenizer, plain_logps):
    trainer, folder = with_callback
    responses = read_trace(folder).responses
    start = AutoModelForCausalLM.from_pretrained(CHECKPOINT)
    np.testing.assert_allclose(
        responses.query("step == 0")["logp_sum"], plain_logps(start, tokenizer, rows[-6:]), atol=1e-4
    )
    end = responses.query("step == @STEPS")
    np.testing.assert_allclose(end["logp_sum"], plain_logps(trainer.model, tokenizer, rows[-6:]), atol=1e-4)
    np.testing.assert_allclose(end["ref_logp_sum"], responses.query("step == 0")["logp_sum"], atol=1e-8)


def test_the_callback_changes_nothing_of_trl(with_callback, train):
    trainer, _ = with_callback
    alone = train(trl.DPOTrainer, trl.DPOConfig, beta=0.1)
    assert losses(alone) == losses(trainer)
    for (name, a), (_, b) in zip(
        alone.model.named_parameters(), trainer.model.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), name


def test_the_trace_holds_what_the_trainer_logged(with_callback):
    trainer, folder = with_callback
    assert read_trace(folder).settings["status"] == "done"
    steps = read_trace(folder).steps
    assert steps["step"].tolist() == list(range(STEPS + 1))
    assert steps["loss"].tolist()[1:] == pytest.approx(losses(trainer))


def test_the_callback_stops_the_run_when_displacement_passes_the_limit(train, probe_file, tmp_path):
    callback = ProbeCallback(probe_file, objective("dpo", beta=0.1), folder=tmp_path, stop_below=1e-6)
    # an objective that only lowers log-probs: DPO with chosen and rejected exchanged makes the chosen fall
    trainer = train(shaped(objective("dpo", beta=5.0)), trl.DPOConfig, [callback], max_steps=20)
    change = read_trace(tmp_path).responses.query("response == 'chosen'")
    fell = (change["logp_sum"] / change["num_tokens"]).groupby(change["step"]).mean()
    assert trainer.state.global_step < 20
    assert fell.iloc[-1] < fell.iloc[0]
    assert (fell.iloc[1:-1] >= fell.iloc[0] - 1e-6).all()


def test_a_folder_with_a_trace_is_kept(with_callback, train, probe_file):
    _, folder = with_callback
    before = (folder / "trace.jsonl").read_bytes()
    train(trl.DPOTrainer, trl.DPOConfig, [ProbeCallback(probe_file, folder=folder)], max_steps=1)
    assert (folder / "trace.jsonl").read_bytes() == before
    assert sorted(set(read_trace(folder.with_name("trace-2")).steps["step"])) == [0, 1]


def test_shaped_dpo_trains_as_trls_own_dpo(train, with_callback):
    trainer, _ = with_callback
    ours = train(shaped(objective("dpo", beta=0.1)), trl.DPOConfig)
    assert losses(ours) == pytest.approx(losses(trainer), abs=1e-6)
    for (name, a), (_, b) in zip(
        ours.model.named_parameters(), trainer.model.named_parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("chipo", {"beta": 0.1}),
        ("dpop", {"beta": 0.1, "penalty": 5.0}),
        ("fdpo", {"beta": 0.1, "divergence": "forward_kl"}),
        ("ipo", {"beta": 0.1}),
    ],
)
def test_objectives_with_a_reference_train_inside_trl(train, name, parameters):
    goal = objective(name, **parameters)
    trainer = train(shaped(goal), trl.DPOConfig, max_steps=2)
    # at step 1 policy and reference agree, so every score is 0 and the first loss is known exactly
    assert losses(trainer)[0] == pytest.approx(
        float(goal.loss(0.0, 0.0)) if goal.two_scores else math.log(2), abs=1e-4
    )
    assert all(math.isfinite(loss) for loss in losses(trainer))


def test_the_callback_works_in_cpo(train, rows, probe_file, tokenizer, plain_logps, tmp_path):
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    goal = objective("simpo", beta=2.0, gamma=1.0)
    callback = ProbeCallback(probe_file, goal, folder=tmp_path, every=2)
    trainer = train(
        CPOTrainer, CPOConfig, [callback], loss_type="simpo", cpo_alpha=0.0, beta=2.0, simpo_gamma=1.0
    )
    responses = read_trace(tmp_path).responses
    assert sorted(set(responses["step"])) == [0, 2, 3]
    np.testing.assert_allclose(
        responses.query("step == 3")["logp_sum"], plain_logps(trainer.model, tokenizer, rows[-6:]), atol=1e-4
    )


def test_left_aligned_moves_responses_to_the_start_of_their_rows():
    logps = torch.tensor([[0.0, 0.0, -1.0, -2.0], [0.0, -3.0, -4.0, -5.0]])
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    moved = left_aligned(logps, mask)
    assert moved[0, :2].tolist() == [-1.0, -2.0]
    assert moved[1, :3].tolist() == [-3.0, -4.0, -5.0]


@pytest.mark.parametrize(
    ("name", "parameters", "options"),
    [
        ("ld_dpo", {"beta": 0.2, "tail": 0.3}, {"beta": 0.2, "ld_alpha": 0.3}),
        ("wpo", {"beta": 0.2, "clip": "none"}, {"beta": 0.2, "use_weighting": True}),
    ],
)
def test_token_level_objectives_train_as_trls_own(train, name, parameters, options):
    theirs = train(trl.DPOTrainer, trl.DPOConfig, **options)
    ours = train(shaped(objective(name, **parameters)), trl.DPOConfig)
    assert losses(ours) == pytest.approx(losses(theirs), abs=2e-6)
    for (key, a), (_, b) in zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=5e-6, msg=key)


def whole_loss(trainer: Any, name: str, inputs: dict[str, Any], draws: torch.Tensor) -> torch.Tensor:
    """TDPO2, SamPO and ODPO on whole logits of transformers, as their authors write them (β 0.2, α 0.6 and 1)."""
    mask, targets = inputs["completion_mask"][:, 1:].bool(), inputs["input_ids"][:, 1:]
    batch = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    own = trainer.model(**batch).logits[:, :-1].log_softmax(-1)
    with torch.no_grad():
        theirs = trainer.ref_model(**batch).logits[:, :-1].log_softmax(-1)
    ratio = (own - theirs).gather(2, targets[..., None])[..., 0] * mask
    if name == "sampo":
        both = [
            [row[kept] for row, kept in zip(half, own_mask, strict=True)]
            for half, own_mask in zip(ratio.chunk(2), mask.chunk(2), strict=True)
        ]
        drawn = draws.chunk(2)
        z = []
        for i, (a, b) in enumerate(zip(*both, strict=True)):
            n = min(len(a), len(b))
            kept = [x[drawn[side][i, : len(x)].argsort()[:n]].sum() for side, x in enumerate((a, b))]
            z.append(kept[0] - kept[1])
        return -torch.nn.functional.logsigmoid(0.2 * torch.stack(z)).mean()
    z = ratio.sum(1)[: len(ratio) // 2] - ratio.sum(1)[len(ratio) // 2 :]
    if name == "odpo":
        label = inputs["label"].chunk(2)
        return -torch.nn.functional.logsigmoid(0.2 * z - torch.log(label[0] - label[1])).mean()
    kl_w, kl_l = ((theirs.exp() * (theirs - own)).sum(-1) * mask).sum(1).chunk(2)
    return -torch.nn.functional.logsigmoid(0.2 * (z - 0.6 * (kl_l - kl_w.detach()))).mean()


@pytest.mark.parametrize("name", ["tdpo", "sampo", "odpo"])
def test_objectives_that_trl_lacks_have_their_authors_loss_there(train, name):
    parameters = {"beta": 0.2} | ({"kl_weight": 0.6} if name == "tdpo" else {})
    trainer = train(shaped(objective(name, **parameters)), trl.DPOConfig)
    inputs = next(iter(trainer.get_train_dataloader()))
    assert ("label" in inputs) == (name == "odpo")
    trainer.model.eval()
    weights = list(trainer.model.parameters())
    torch.manual_seed(3)
    loss = trainer._compute_loss(trainer.model, dict(inputs), False)
    torch.manual_seed(3)
    expected = whole_loss(trainer, name, inputs, torch.rand(inputs["completion_mask"][:, 1:].shape))
    assert loss.item() == pytest.approx(expected.item(), rel=2e-5)
    found, wanted = (torch.autograd.grad(each, weights) for each in (loss, expected))
    scale = max(gradient.abs().max().item() for gradient in wanted)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-4 * scale)


def test_what_is_given_to_metrics_of_ones_own_has_logits(train, rows):
    """The fused head makes none; `compute_metrics` and `predict` read them."""
    trainer = train(shaped(objective("dpo", beta=0.1)), trl.DPOConfig, max_steps=1)
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss, logits, labels = trainer.prediction_step(trainer.model, inputs, False)
    assert logits.shape[:2] == labels.shape
    alone, *_ = trainer.prediction_step(trainer.model, inputs, True)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-6)


def test_scores_that_the_data_set_lacks_are_named(train, rows):
    without = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows]
    with pytest.raises(InputError, match="no column 'chosen_score'"):
        train(shaped(objective("odpo")), trl.DPOConfig, data=without)


@pytest.mark.parametrize(
    ("goal", "options", "message"),
    [
        (
            "tdpo",
            {"precompute_ref_log_probs": True},
            "precompute_ref_log_probs: keeps sums, and tdpo compares",
        ),
        ("ld_dpo", {"precompute_ref_log_probs": True}, "precompute_ref_log_probs: keeps sums, and ld_dpo"),
        (
            "dpo",
            {"ld_alpha": 0.5, "precompute_ref_log_probs": True},
            "ld_alpha: TRL would weigh the reference",
        ),
        ("dpo", {"ld_alpha": 0.5}, r'ld_alpha: .* shaped\(objective\("ld_dpo", tail=0.5\)\)'),
    ],
)
def test_arguments_by_which_policy_and_reference_would_differ_in_kind_are_refused(
    train, goal, options, message, monkeypatch
):
    computed: list[Any] = []
    monkeypatch.setattr(trl.DPOTrainer, "_precompute_ref_logps", lambda *_: computed.append(_))
    with pytest.raises(InputError, match=message):
        train(shaped(objective(goal, beta=0.1)), trl.DPOConfig, **options)
    assert not computed  # it is said before the reference reads the whole data set


def test_sums_that_are_made_beforehand_are_reference_enough_for_sums(train):
    trainer = train(
        shaped(objective("dpo", beta=0.1)), trl.DPOConfig, precompute_ref_log_probs=True, max_steps=1
    )
    assert losses(trainer) == pytest.approx(
        [math.log(2)], abs=1e-5
    )  # policy and reference are the same still


def test_samples_of_a_model_that_trl_patched_are_compared_with_the_model_as_it_was(
    train, probe_file, tmp_path
):
    train(trl.DPOTrainer, trl.DPOConfig, [ProbeCallback(probe_file, folder=tmp_path, sample_every=3)])
    kl = read_trace(tmp_path).samples.groupby("step")["kl_sum"].mean()
    assert kl[0] == pytest.approx(0, abs=1e-4)  # nats: the same model
    assert kl[3] > 0.01


def test_under_trls_bfloat16_the_callback_reads_the_fast_way(train, probe_file, tmp_path):
    folder = tmp_path / "trace"
    callback = ProbeCallback(probe_file, objective("dpo", beta=0.1), folder=folder)
    train(trl.DPOTrainer, trl.DPOConfig, [callback], bf16=True, max_steps=1)
    manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert manifest["model"]["log_probs"] == "shared prefix"
    assert np.isfinite(read_trace(folder).responses["logp_sum"]).all()


def test_shaped_dpo_balances_the_experts_of_a_mixture_as_trls_own(train, tmp_path):
    """Its loss is added to that of the pairs; without it experts starve."""
    torch.manual_seed(3)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MixtralConfig(vocab_size=512, num_key_value_heads=2, num_local_experts=4, **size)
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    ours, theirs, without = (
        losses(train(trainer, trl.DPOConfig, checkpoint=str(tmp_path), router_aux_loss_coef=coefficient))
        for trainer, coefficient in (
            (shaped(objective("dpo", beta=0.1)), 0.1),
            (trl.DPOTrainer, 0.1),
            (shaped(objective("dpo", beta=0.1)), 0.0),
        )
    )
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert ours[0] - without[0] > 0.1


def test_samples_of_an_adapter_that_is_trained_on_are_compared_with_it_as_it_was(train, probe_file, tmp_path):
    """TRL keeps a copy beside it; with adapters off the model would be another from the start."""
    model = adapted(CHECKPOINT, std=0.05)
    begun = {name: weight.clone() for name, weight in model.named_parameters() if "default" in name}
    callback = ProbeCallback(
        probe_file, objective("dpo", beta=0.1), folder=tmp_path / "trace", sample_every=1
    )
    trainer = train(trl.DPOTrainer, trl.DPOConfig, [callback], model=model)
    samples = read_trace(tmp_path / "trace").samples
    apart = (samples["logp_sum"] - samples["ref_logp_sum"]).abs().groupby(samples["step"]).max()
    assert apart[0] < 1e-3 < apart[STEPS]
    trained = dict(trainer.model.named_parameters())
    assert all(
        weight.requires_grad == ("default" in name) for name, weight in trained.items() if "lora" in name
    )
    for name, weight in begun.items():
        torch.testing.assert_close(trained[name.replace("default", "ref")], weight)
        assert not torch.equal(trained[name], weight)

"""The plan against what is measured: exact for what a tensor knows of itself, within 10 % for activations."""

from __future__ import annotations

import functools
import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, MixtralConfig

from rewardshape.data import EncodedPair
from rewardshape.probe.__main__ import main
from rewardshape.probe.grid import ModelFacts, PlannedRun, plan_run
from rewardshape.probe.measure import projection
from rewardshape.probe.measure.logprobs import SharedPrefixReader
from rewardshape.probe.plan import Memory, fits, memory
from rewardshape.probe.policy import DTYPES, made_ready
from rewardshape.probe.process import MAPPED
from rewardshape.probe.reference import FollowingReference, reference_tokens, untouched_model
from rewardshape.probe.samples import sampled
from rewardshape.probe.settings import Settings

CONFIG = LlamaConfig(
    vocab_size=4096,
    hidden_size=128,
    intermediate_size=344,
    num_hidden_layers=7,  # more than are gone through: the rest must follow
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    tie_word_embeddings=False,
)
MIXTURE = MixtralConfig(
    vocab_size=4096,
    hidden_size=128,
    intermediate_size=192,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_local_experts=4,
)
SETTINGS = {
    "float32": {"precision": "float32", "optimizer": "adamw_torch_fused"},
    "mixed": {"precision": "mixed", "optimizer": "adamw_torch"},
    "bfloat16": {"precision": "bfloat16", "optimizer": "adamw_torch_8bit"},
    "checkpointed": {"gradient_checkpointing": True, "optimizer": "adamw_torch_fused"},
    "LoRA": {"lora_rank": 8, "optimizer": "adamw_torch_fused"},
    "mixture": {"optimizer": "adamw_torch_fused"},  # of experts
}


def some_pairs(number: int) -> list[EncodedPair]:
    return [
        EncodedPair(f"a:{i}", [5 + i] * 60, {"chosen": [7] * 40, "rejected": [9] * (30 + i)})
        for i in range(number)
    ]


def run_of(name: str, config: Any = CONFIG, **changes: Any) -> PlannedRun:
    return plan_run(
        Settings().replace(batch_size=4, **SETTINGS[name], **changes), ModelFacts("random", config, 0)
    )


@functools.cache
def planned(name: str) -> Memory:
    config = MIXTURE if name == "mixture" else CONFIG
    return memory(config, run_of(name, config), some_pairs(4), some_pairs(3), "cpu")


def real_policy(name: str) -> torch.nn.Module:
    config, model = MIXTURE if name == "mixture" else CONFIG, run_of(name).settings.model
    return made_ready(AutoModelForCausalLM.from_config(config, dtype=DTYPES[model.precision]), model).train()


def bytes_of(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_gradients_and_optimizer_state_are_exact(name):
    from transformers import Trainer

    from rewardshape.probe.training import training_arguments

    model, plan = real_policy(name), planned(name)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert plan.parameters == sum(weight.numel() for weight in model.parameters())
    assert plan.weights == bytes_of(model.parameters())
    assert plan.gradients == bytes_of(trained)
    assert plan.kept == plan.gradients  # none of a small model's is mapped singly
    arguments = training_arguments(run_of(name), Path("unused"))
    kind, keywords = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    optimizer = kind(trained, **keywords)
    for weight in trained:
        weight.grad = torch.randn_like(weight)
    with torch.compiler.set_stance("force_eager"):
        optimizer.step()
    state = 0
    for weight in trained:
        for value in optimizer.state[weight].values():
            parts = [getattr(value, part) for part in ("codes", "scale", "qmap") if hasattr(value, part)]
            state += bytes_of(parts or [value])
    assert plan.optimizer == state


def test_a_large_gradient_is_none_that_the_c_library_keeps():
    wide = CONFIG.__class__(**{**CONFIG.to_dict(), "vocab_size": 2**20, "tie_word_embeddings": True})
    plan = memory(wide, run_of("float32", wide), some_pairs(4), some_pairs(3), "cpu")
    assert plan.gradients - plan.kept == 4 * 2**20 * wide.hidden_size >= MAPPED


@pytest.mark.parametrize("name", ["float32", "mixed", "bfloat16", "LoRA"])
def test_activations_kept_for_the_backward_pass_within_ten_percent(name):
    model, reader = real_policy(name), SharedPrefixReader()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}
    alive = []  # or a freed address would be taken for the same tensor

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, name == "mixed")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        reader.logps(model, reader.collate(some_pairs(4)))
    assert planned(name).saved == pytest.approx(sum(kept.values()), rel=0.10)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_peak_of_a_real_step_within_ten_percent(name, tmp_path):
    model, reader = real_policy(name), SharedPrefixReader()
    batch = reader.collate(some_pairs(4))
    reader.logps(model, batch).token_logps.sum().backward()  # makes what is made once: masks, caches
    model.zero_grad()
    projection.SPARE.forget()  # so that the profiler sees it taken
    gc.collect()  # what tests before left in cycles would be freed meanwhile, and counted
    autocast = torch.autocast("cpu", torch.bfloat16, name == "mixed")
    with torch.profiler.profile(profile_memory=True) as profiler, autocast:
        reader.logps(model, batch).token_logps.sum().backward()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    changes = [
        event["args"]["Bytes"]
        for event in sorted(
            (event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"]
        )
    ]
    alive = peak = 0
    for change in changes:
        alive += change
        peak = max(peak, alive)
    plan = planned(name)
    assert plan.activations + plan.gradients_then == pytest.approx(peak, rel=0.10)


@pytest.mark.parametrize(
    ("name", "many", "pairs"),
    [
        ("float32", 20, 1),  # gradients are more than what they are made from: the most at the end
        ("float32", 10, 8),
        ("checkpointed", 10, 8),
        ("LoRA", 10, 8),
    ],
)
def test_layers_that_are_not_gone_through_follow_from_those_that_are(name, many, pairs, monkeypatch):
    sizes = {"vocab_size": 20_000, "intermediate_size": 1024, "num_hidden_layers": many}
    deep = CONFIG.__class__(**{**CONFIG.to_dict(), **sizes})
    arguments = (deep, run_of(name, deep), some_pairs(pairs), some_pairs(1), "cpu")
    found = memory(*arguments)
    monkeypatch.setattr("rewardshape.probe.plan.DEPTHS", (1, many))
    whole = memory(*arguments)
    assert found.activations + found.gradients_then == pytest.approx(
        whole.activations + whole.gradients_then, rel=0.02
    )


@pytest.mark.parametrize(
    ("changes", "copies"), [({}, 0), ({"sample_every": 5}, 1), ({"objective": "tr_dpo"}, 1)]
)
def test_whole_copies_of_the_untouched_model_are_exact(changes, copies):
    run = run_of("float32", **changes)
    policy = real_policy("float32")
    kept = []
    if sampled(run):
        with untouched_model(policy, adapters=False)(policy) as copy:
            kept.append(copy)
    if run.objective.name == "tr_dpo":
        kept.append(FollowingReference(policy, run.objective).model)
    assert len(kept) == copies
    bytes_kept = sum(
        weight.numel() * weight.element_size() for model in kept for weight in model.parameters()
    )
    assert memory(CONFIG, run, some_pairs(4), some_pairs(3), "cpu").reference == bytes_kept


def test_the_projection_kept_for_whole_predictions_is_exact():
    policy, reader = real_policy("float32"), SharedPrefixReader()
    kept = reference_tokens(
        some_pairs(2),
        reader,
        torch.device("cpu"),
        lambda batch: reader.logps(policy, batch),
        policy,
        predictions=True,
    )
    found = memory(CONFIG, run_of("float32", objective="tdpo"), some_pairs(4), some_pairs(3), "cpu")
    assert kept.head is not None
    assert found.reference == kept.head.weight.numel() * 4


def test_the_published_7b_configuration_needs_what_is_known_of_it():
    config = AutoConfig.for_model(
        "mistral",
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    run = run_of("bfloat16", config, gradient_checkpointing=True)
    pair = EncodedPair("a:1", [5] * 1024, {"chosen": [7] * 1024, "rejected": [9] * 1024})
    plan = memory(config, run, [pair], [pair], "cuda")
    assert plan.parameters == 7_241_732_096  # Mistral 7B's model card
    assert plan.weights == 2 * plan.parameters
    assert plan.kept == 0
    assert plan.optimizer == pytest.approx(2 * plan.parameters, rel=0.02)  # two bytes of state a weight
    assert fits(plan, 80e9)
    assert not fits(plan, 40e9)


def test_dry_run_prints_the_plan_and_leaves_nothing(checkpoint, pairs_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "rewardshape.probe.plan.device_memory", lambda: ("this machine (cpu)", 64_000_000_000)
    )
    monkeypatch.setattr("rewardshape.probe.plan.process_memory", lambda: 0)
    # Nothing is loaded: a folder without weights will do.
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in Path(checkpoint).iterdir():
        if file.suffix == ".json":
            (bare / file.name).write_bytes(file.read_bytes())
    words = [str(bare), "--data", pairs_file, "--alpha", "0.25", "--batch-size", "2", "--probe-pairs", "4"]
    assert main([*words, "--dry-run", "--steps", str(10**12)]) == 0  # whose length costs nothing
    said = capsys.readouterr().out
    assert "parameters" in said
    assert "1,000,000,000,000 steps of 2 pairs on 1 process, " in said
    assert "as asked fits" in said
    assert "bfloat16, LoRA 16, checkpointed" not in said  # four times over: no other plan is called for
    assert "24 GB" in said
    monkeypatch.setattr("rewardshape.probe.plan.SURELY", 0.0)
    assert main([*words, "--dry-run"]) == 0
    assert "bfloat16, LoRA 16, checkpointed" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare"]

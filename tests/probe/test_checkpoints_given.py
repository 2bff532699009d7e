"""What may be given as CHECKPOINT: adapters, GGUF, any attention; what cannot be measured ends in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rewardshape import read_trace
from rewardshape.errors import InputError
from rewardshape.probe.__main__ import main
from rewardshape.probe.command import parse
from rewardshape.probe.policy import load_config, load_policy, load_tokenizer, parts_of
from rewardshape.probe.run import run
from rewardshape.probe.settings import ModelSettings
from rewardshape.trace import read_probe_set
from tests.probe.measure.test_logprobs import SMALL

TEXT = torch.arange(3, 40)[None]


@pytest.fixture(scope="module")
def base(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes much, saved by peft."""
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear")
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=TEXT, use_cache=False).logits


@pytest.fixture(scope="module")
def expected(base: Path, adapter: Path) -> torch.Tensor:
    """By peft alone."""
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)))


# --- adapters ---


def test_an_adapter_is_merged_into_the_base_that_it_names(adapter, base, expected):
    model = load_policy(str(adapter), ModelSettings())
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)
    assert (
        logits(AutoModelForCausalLM.from_pretrained(base)) - expected
    ).abs().max() > 1  # it does change much
    assert all(weight.requires_grad for weight in model.parameters())
    assert load_config(str(adapter), ModelSettings()).vocab_size == model.config.vocab_size
    assert load_tokenizer(str(adapter), ModelSettings())("so")["input_ids"]


@pytest.mark.parametrize("rank", [None, 4])
def test_base_and_adapter_in_one_folder_are_both_loaded(adapter, base, expected, tmp_path, rank):
    shutil.copytree(base, tmp_path / "both")
    for file in adapter.glob("adapter_*"):
        shutil.copy(file, tmp_path / "both")
    torch.manual_seed(0)
    model = load_policy(str(tmp_path / "both"), ModelSettings(lora_rank=rank))
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)


def test_a_configuration_beside_an_adapter_makes_no_base_of_it(adapter, base, expected, tmp_path):
    """As OpenRLHF saves, and torchtune where it saves adapters alone."""
    shutil.copytree(adapter, tmp_path / "global_step2_hf")
    shutil.copy(base / "config.json", tmp_path / "global_step2_hf")
    model = load_policy(str(tmp_path / "global_step2_hf"), ModelSettings())
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)


def test_an_adapter_beside_weights_that_have_it_is_not_applied_twice(adapter, base, expected, tmp_path):
    """As torchtune saves: merged weights, their adapter beside them, also under a name of its own."""
    folder = tmp_path / "epoch_0"
    merged = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), str(adapter)
    ).merge_and_unload()
    merged.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    shutil.copy(adapter / "adapter_model.safetensors", folder)
    torch.save({}, folder / "adapter_model.pt")
    unnamed = json.loads((adapter / "adapter_config.json").read_text()) | {"base_model_name_or_path": None}
    (folder / "adapter_config.json").write_text(json.dumps(unnamed))
    torch.testing.assert_close(logits(load_policy(str(folder), ModelSettings())), expected, atol=1e-4, rtol=0)


def test_our_own_lora_checkpoint_is_a_checkpoint(checkpoint, pairs_file, tmp_path):
    flags = ["--steps", "2", "--batch-size", "8", "--probe-pairs", "6", "--learning-rate", "1e-2", "--quiet"]
    flags += [
        "--objective",
        "dpo",
        "--beta",
        "0.1",
        "--checkpoint-every",
        "2",
        "--seed",
        "3",
        "--data",
        pairs_file,
    ]
    run(parse([checkpoint, "--lora-rank", "4", *flags, "--output", str(tmp_path / "a")]))
    saved = tmp_path / "a" / "checkpoints" / "checkpoint-2"
    run(parse([str(saved), *flags, "--output", str(tmp_path / "b")]))
    ends, starts = (
        read_trace(tmp_path / name)
        .responses.query("split == 'probe' and step == @step")["logp_sum"]
        .to_numpy()
        for name, step in (("a", 2), ("b", 0))
    )
    np.testing.assert_allclose(starts, ends, atol=2e-3)
    start = (
        read_trace(tmp_path / "a").responses.query("split == 'probe' and step == 0")["logp_sum"].to_numpy()
    )
    assert np.abs(starts - start).max() > 0.1


def test_an_adapter_whose_base_is_gone_names_it(adapter, tmp_path):
    lost = tmp_path / "lost"
    shutil.copytree(adapter, lost)
    settings = json.loads((lost / "adapter_config.json").read_text())
    (lost / "adapter_config.json").write_text(
        json.dumps(settings | {"base_model_name_or_path": "/nowhere/model"})
    )
    with pytest.raises(InputError, match=r"a LoRA adapter of /nowhere/model, which is not there; .* merge"):
        load_policy(str(lost), ModelSettings())
    (lost / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="names no base model"):
        load_policy(str(lost), ModelSettings())


def test_a_base_beside_the_adapter_is_found_wherever_the_folder_goes(adapter, base, expected, tmp_path):
    shutil.copytree(adapter, tmp_path / "moved")
    shutil.copytree(base, tmp_path / "model")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "moved" / "adapter_config.json").write_text(
        json.dumps(settings | {"base_model_name_or_path": "../model"})
    )
    assert parts_of(str(tmp_path / "moved")).base.endswith("moved/../model")
    torch.testing.assert_close(
        logits(load_policy(str(tmp_path / "moved"), ModelSettings())), expected, atol=1e-4, rtol=0
    )


def test_a_pickled_adapter_is_refused(adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "pickled")
    (tmp_path / "pickled" / "adapter_model.safetensors").rename(tmp_path / "pickled" / "adapter_model.bin")
    with pytest.raises(InputError, match="pickled adapter can run code"):
        load_policy(str(tmp_path / "pickled"), ModelSettings())


# --- GGUF ---


def write_gguf(file: Path, model, tokenizer) -> None:
    """A Llama model as llama.cpp has it: its own names, and rows of queries and keys in its own order."""
    import gguf

    config = model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    pieces = [tokenizer.convert_ids_to_tokens(index) for index in range(config.vocab_size)]
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(index) for index in range(config.vocab_size)])
    writer.add_token_types(
        [3 if index < 3 else 6 if index < 259 else 1 for index in range(config.vocab_size)]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def in_their_order(weight: torch.Tensor, count: int) -> torch.Tensor:
        return weight.view(count, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)

    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    state = model.state_dict()
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    writer.add_tensor("output.weight", state["lm_head.weight"].numpy())
    for layer in range(config.num_hidden_layers):
        for ours, theirs in names.items():
            weight = state[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                weight = in_their_order(weight, heads if theirs == "attn_q" else kv_heads)
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_read_into_ordinary_weights(inputs, tmp_path):
    pytest.importorskip("gguf")
    source = inputs / "checkpoints" / "stories260K"
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    file = tmp_path / "model.gguf"
    write_gguf(file, model, AutoTokenizer.from_pretrained(source))
    for given in (file, tmp_path):
        read = load_policy(str(given), ModelSettings())
        torch.testing.assert_close(logits(read), logits(model), atol=1e-4, rtol=0)
    assert load_config(str(file), ModelSettings()).hidden_size == model.config.hidden_size
    assert load_tokenizer(str(file), ModelSettings())("once")["input_ids"]
    read.save_pretrained(tmp_path / "saved")
    again = load_policy(str(tmp_path / "saved"), ModelSettings())  # from safetensors
    torch.testing.assert_close(logits(again), logits(model), atol=1e-4, rtol=0)


def test_a_gguf_file_is_trained_and_saved_as_safetensors(inputs, tmp_path):
    pytest.importorskip("gguf")
    source = inputs / "checkpoints" / "stories260K"
    write_gguf(
        tmp_path / "model.gguf",
        AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
        AutoTokenizer.from_pretrained(source),
    )
    rows = [
        {"prompt": f"once upon {n} times", "chosen": " there was", "rejected": " was not"} for n in range(12)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [
        "--data",
        str(tmp_path / "a.jsonl"),
        "--probe-pairs",
        "4",
        "--steps",
        "2",
        "--quiet",
        "--batch-size",
        "4",
    ]
    trace = run(
        parse([str(tmp_path / "model.gguf"), *flags, "--output", str(tmp_path / "out"), "--alpha", "0.25"])
    )
    saved = tmp_path / "out" / "checkpoints" / "checkpoint-2"
    tokenizer = load_tokenizer(str(tmp_path / "model.gguf"), ModelSettings())
    final, ended = (
        load_policy(str(saved), ModelSettings()),
        trace.responses.query("split == 'probe' and step == 2"),
    )
    for row in ended.itertuples():
        given = rows[int(row.pair_id.rpartition(":")[2]) - 1]
        prompt = tokenizer(given["prompt"])["input_ids"]
        text = [*tokenizer(given["prompt"] + given[row.response])["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logps = final.eval()(input_ids=torch.tensor([text])).logits[0].log_softmax(-1)
        found = sum(logps[place - 1, text[place]].item() for place in range(len(prompt), len(text)))
        assert found == pytest.approx(row.logp_sum, abs=1e-3)


# --- attention is left to transformers ---


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "gptj", "mamba", "bloom"])
def test_classes_without_sdpa_load_by_default(name, tmp_path):
    extra = {"n_head": 4, "n_layer": 2, "n_embd": 32, "rotary_dim": 4, "num_local_experts": 4, "head_dim": 8}
    config = AutoConfig.for_model(name, **SMALL | extra | {"num_experts_per_tok": 2, "state_size": 8})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / name)
    assert torch.isfinite(logits(load_policy(str(tmp_path / name), ModelSettings()))).all()


def test_the_preset_of_gemma_2_runs_by_its_command(checkpoint, pairs_file, tmp_path):
    """The whole command on a tiny model of that class, whose softcapped attention no other implementation has."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    torch.manual_seed(0)
    config = AutoConfig.for_model("gemma2", **SMALL | {"vocab_size": len(tokenizer), "head_dim": 8})
    model = AutoModelForCausalLM.from_config(config)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "gemma")
    sizes = ["--steps", "1", "--batch-size", "4", "--probe-pairs", "4", "--quiet"]
    preset = ["--preset", "alphapo/gemma-2-9b-instruct"]
    flags = ["--data", pairs_file, "--output", str(tmp_path / "out"), *preset, *sizes]
    assert main([str(tmp_path / "gemma"), *flags]) == 0
    trace = read_trace(tmp_path / "out")
    assert trace.settings["objective"]["parameters"] == {"alpha": 0.1, "beta": 10.0, "gamma": 5.0}
    assert trace.settings["run"]["learning_rate"] == 8e-7
    pair = read_probe_set(tmp_path / "out")[0]
    row = trace.responses.query("step == 0 and pair_id == @pair['pair_id'] and response == 'chosen'").iloc[0]
    prompt = tokenizer(pair["prompt"])["input_ids"]
    ids = torch.tensor([[*tokenizer(pair["prompt"] + pair["responses"]["chosen"])["input_ids"]]])
    with torch.no_grad():
        logps = model.eval()(ids).logits[0].log_softmax(-1)
    expected = sum(logps[place - 1, ids[0, place]].item() for place in range(len(prompt), ids.shape[1]))
    assert row["logp_sum"] == pytest.approx(expected, abs=1e-3)


# --- what cannot be measured ---


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("t5", "t5 is an encoder and a decoder; give a causal language model"),
        ("bart", "bart is an encoder and a decoder"),
        ("vit", "vit is no causal language model that transformers knows"),
        ("bert", "BertLMHeadModel: its predictions change with later tokens"),
    ],
)
def test_other_models_are_one_line(name, problem, checkpoint, pairs_file, tmp_path, capsys):
    vocabulary = json.loads((Path(checkpoint) / "config.json").read_text())["vocab_size"]
    folder = tmp_path / name
    config = AutoConfig.for_model(name, **{**SMALL, "vocab_size": vocabulary, "num_key_value_heads": 4})
    config.save_pretrained(folder)
    if name == "bert":
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    assert main([str(folder), "--data", pairs_file, "--steps", "1", "--output", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    assert problem in lines[-1]
    assert not any("Traceback" in line for line in lines)


def test_more_token_ids_than_embeddings_are_one_line_before_anything_is_loaded(checkpoint, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    rows = [{"prompt": f"Is it {n}?", "chosen": " yes <new>", "rejected": " no"} for n in range(8)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--data", str(tmp_path / "a.jsonl"), "--probe-pairs", "2", "--dry-run"]
    assert main([str(folder), *flags]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "a.jsonl:1: token '<new>' has the id" in line
    assert "tokens were added and the model not resized" in line

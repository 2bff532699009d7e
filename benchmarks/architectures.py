"""Which architectures read a prompt once for all its responses, which read each response alone, which are refused.

    python benchmarks/architectures.py --output docs/architectures.md

Every causal language model class of transformers is built with random weights, tiny, with a window of attention that
the longer texts exceed where the class knows one. The reader that `choose_reader` takes is compared, token by token,
with a plain forward pass over each text alone: no padding, no batch, log-softmax in float64. The table holds the
largest difference on any token. A class whose tiny model cannot be made from the settings below is listed as not built.
"""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from rewardshape.data import EncodedPair
from rewardshape.errors import InputError
from rewardshape.probe.measure.logprobs import Reader, choose_reader
from rewardshape.probe.policy import hold_still, leave_nothing_to_chance

VOCABULARY, WINDOW, SECONDS = 97, 24, 120
RIGHT = 1e-3  # nats on any token
LARGEST = 20_000_000  # parameters: a model that stays larger did not listen to the settings
SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "moe_intermediate_size"), 48
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size"), WINDOW),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 256),
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts_per_tok": 2,
    "use_sliding_window": True,
    "max_window_layers": 2,
    "initializer_range": 0.4,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ALL_HEADS = {"num_key_value_heads": 4}
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "qk_head_dim": 16,
    "v_head_dim": 8, "first_k_dense_replace": 1, "n_shared_experts": 1, "topk_group": 1, **ALL_HEADS,
}  # fmt: skip
SPECIAL: dict[str, dict[str, Any]] = {
    "phi": ALL_HEADS,
    "persimmon": ALL_HEADS,
    "qwen2_moe": {"shared_expert_intermediate_size": 48, "decoder_sparse_step": 1},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "head_dim": 16, "num_heads": 4, "n_groups": 1, "chunk_size": 8},
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3_text": {"query_pre_attn_scalar": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW},
    "phi3": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "deepseek_v2": {**LATENT, "n_group": 1},
    "deepseek_v3": {**LATENT, "n_group": 2},
    "xlm": {"emb_dim": 32, "is_encoder": False, "causal": True},
    "opt": {"word_embed_proj_dim": 32},
    "jamba": {"mamba_d_state": 8, "mamba_dt_rank": 4, "expert_layer_period": 2, "attn_layer_period": 2,
              "attn_layer_offset": 1, "use_mamba_kernels": False},
    # It scans in float32 whatever its weights are, so doubles cannot tell from error the rounding that these large
    # random weights amplify (to 0.26 nats at 0.4).
    "zamba2": {"initializer_range": 0.1},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": WINDOW},
    "bert": {}, "roberta": {},
}  # fmt: skip


LEFT_OUT: list[set[str]] = [
    set(),
    {"head_dim"},
    {"attention_chunk_size"},
    {"sliding_window", "use_sliding_window"},
    {"head_dim", "num_key_value_heads"},
    {"num_layers", "n_layers"},
    {"head_dim", "num_heads", "n_heads", "attention_chunk_size"},
    {"num_hidden_layers", "decoder_layers"},
]


def ids(number: int, seed: int) -> list[int]:
    return torch.randint(3, VOCABULARY, (number,), generator=torch.Generator().manual_seed(seed)).tolist()


# The first are short: a check that looked at them only would miss every window.
PAIRS = [
    EncodedPair("short", ids(5, 1), {"chosen": ids(3, 2), "rejected": ids(4, 3)}),
    EncodedPair("middle", ids(12, 4), {"chosen": ids(9, 5), "rejected": ids(2, 6)}),
    EncodedPair("long prompt", ids(60, 7), {"chosen": ids(8, 8), "rejected": ids(13, 9)}),
    EncodedPair("long answer", ids(7, 10), {"chosen": ids(70, 11), "rejected": ids(30, 12)}),
]


def tiny(model_type: str) -> Any:
    """A random model of this type with a few thousand parameters; raises where the settings do not make one.

    What one class wants another refuses, so the settings are also tried without some of them.
    """
    problems = []
    for left_out in LEFT_OUT:
        settings = {name: value for name, value in SMALL.items() if name not in left_out}
        try:
            model = built(model_type, settings | SPECIAL.get(model_type, {}))
            alone(model, ids(3, 1), ids(40, 2))
            return model
        except (InputError, TimeoutError):
            raise
        except Exception as problem:
            problems.append(problem)
    raise problems[0]


def built(model_type: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(7)
    config = AutoConfig.for_model(model_type, **settings)
    if getattr(config, "is_encoder_decoder", False):
        raise InputError("an encoder and a decoder")
    leave_nothing_to_chance(config)
    config.get_text_config()._experts_implementation = "eager"
    with torch.device("meta"):
        size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size:,} parameters")
    model = AutoModelForCausalLM.from_config(config)
    hold_still(model)
    return model.train()


def alone(model: Any, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Log-probabilities of a response, its text read alone."""
    text = torch.tensor([[*prompt, *response]])
    logits = model(input_ids=text, use_cache=False).logits[0, len(prompt) - 1 : -1].double()
    return logits.log_softmax(-1).gather(-1, torch.tensor(response)[:, None]).squeeze(-1)


def tried(model_type: str) -> tuple[str, str]:
    """The result for one architecture, and what there is to say of it."""
    try:
        model = tiny(model_type)
    except InputError as refusal:
        return "refused", str(refusal)
    except Exception as problem:
        return "not built", f"{type(problem).__name__}: {problem}"
    try:
        reader, note = choose_reader(model, PAIRS)
    except InputError as refusal:
        return "refused", str(refusal)
    said = f"; {note}" if note else ""
    if (off := difference(model, reader)) < RIGHT:
        return reader.name, f"{off:.1e} nats{said}"
    if (exact := difference(model.double(), reader)) < RIGHT:  # depth that amplifies rounding is no error
        return reader.name, f"{off:.1e} nats of rounding, {exact:.1e} in float64{said}"
    return "WRONG", f"{off:.1e} nats{said}"


def difference(model: Any, reader: Reader) -> float:
    """The largest difference on any token between this reader and each text alone, nats."""
    with torch.no_grad():
        texts = [(pair.prompt_ids, ids) for pair in PAIRS for ids in pair.responses.values()]
        expected = torch.cat([alone(model, *text) for text in texts])
        found = reader.logps(model, reader.collate(PAIRS)).token_logps
    return (found - expected).abs().max().item()


def limited(model_type: str) -> tuple[str, str]:
    def ring(*_: Any) -> None:
        raise TimeoutError(f"not done after {SECONDS} seconds of processor time")

    signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return tried(model_type)
    except TimeoutError as problem:
        return "not built", str(problem)
    except Exception as problem:
        return "failed", f"{type(problem).__name__}: {problem}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def page(results: dict[str, tuple[str, str]]) -> str:
    """The table as the documentation has it."""
    said = {
        "shared prefix": "each prompt is read once for all its responses",
        "plain": "each response is read alone: right, and slower",
        "refused": "refused in one line",
        "not built": "no tiny model of it could be made here; says nothing about the architecture",
        "failed": "an error that is not one line",
        "WRONG": "off by 0.001 nats or more on a token",
    }
    lines = [
        "# Architectures",
        "",
        f"Made by `python benchmarks/architectures.py` with transformers {transformers.__version__} and torch "
        f"{torch.__version__.partition('+')[0]}, on the CPU, float32: tiny",
        "random models of every causal language model class, with windows of attention shorter than the longer",
        "texts. The number is the largest difference on any token, in nats, between what a run records and a plain",
        "forward pass over each text alone.",
        "Random weights tell whether masks, positions and heads are right; of trained weights they say nothing.",
        "",
    ]
    for kind, meaning in said.items():
        found = {name: note for name, (result, note) in results.items() if result == kind}
        if not found:
            continue
        lines += [
            f"## {kind[0].upper()}{kind[1:]}: {len(found)}",
            "",
            f"{meaning[0].upper()}{meaning[1:]}.",
            "",
        ]
        if kind == "not built":
            lines += [", ".join(found) + ".", ""]
            continue
        lines += ["| architecture | |", "|---|---|"]
        lines += [
            f"| {name} | {' '.join(note.replace('|', '/').split())[:200]} |" for name, note in found.items()
        ] + [""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="architectures, as transformers names them; default: all")
    parser.add_argument("--output", type=Path, help="write the page here")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    results = {}
    for name in given.names or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        results[name] = limited(name)
        print(f"{name:28s} {results[name][0]:14s} {results[name][1][:140]}", file=sys.stderr, flush=True)
    print(dict(Counter(result for result, _ in results.values())))
    if given.output:
        given.output.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()

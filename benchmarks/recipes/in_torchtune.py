"""DPO with adapters in torchtune, measured afterwards: python benchmarks/recipes/in_torchtune.py FOLDER

Saved once, at the end: on a CPU torchtune 0.6.1 adds the adapter to the weights in use when it saves them, and what
follows is another training. So only its first update can be held against ours.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import ground
import torch
import yaml
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM


class Words:
    """The small model's tokenizer, as torchtune wants one: prompts are masked, an answer ends with its end token."""

    def __init__(self, path: str, max_seq_len: int) -> None:
        self.tokenizer = Tokenizer.from_file(path)
        self.max_seq_len, self.pad_id = max_seq_len, 1

    def tokenize_messages(self, messages: list[Any], **_: Any) -> tuple[list[int], list[bool]]:
        ids: list[int] = []
        masked: list[bool] = []
        for message in messages:
            found = self.tokenizer.encode(message.text_content).ids
            found += [2] if message.role == "assistant" else []
            ids += found
            masked += [message.masked] * len(found)
        return ids, masked


def untied(place: Path) -> None:
    """torchtune's Llama 2 has an output layer of its own."""
    model = AutoModelForCausalLM.from_pretrained(place)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    model.save_pretrained(place)


def settings(home: Path, model: Path) -> dict[str, Any]:
    """torchtune's own configuration for DPO with adapters, for a model of this size and a CPU."""
    return {
        "output_dir": str(home / "dpo"),
        "model": {
            "_component_": "torchtune.models.llama2.lora_llama2",
            "lora_attn_modules": ["q_proj", "v_proj", "output_proj"],
            "apply_lora_to_mlp": True,
            "vocab_size": 138,
            "num_layers": 4,
            "num_heads": 4,
            "num_kv_heads": 4,
            "embed_dim": 96,
            "intermediate_dim": 256,
            "max_seq_len": 256,
            "norm_eps": 1e-6,
            "lora_rank": 8,
            "lora_alpha": 16,
        },
        "tokenizer": {
            "_component_": "in_torchtune.Words",
            "path": str(model / "tokenizer.json"),
            "max_seq_len": 256,
        },
        "checkpointer": {
            "_component_": "torchtune.training.FullModelHFCheckpointer",
            "checkpoint_dir": str(model),
            "checkpoint_files": ["model.safetensors"],
            "output_dir": str(home / "dpo"),
            "model_type": "LLAMA2",
        },
        "resume_from_checkpoint": False,
        "save_adapter_weights_only": False,
        "dataset": {
            "_component_": "torchtune.datasets.preference_dataset",
            "source": "json",
            "data_files": str(home / "train.jsonl"),
        },
        "seed": 0,
        "shuffle": False,
        "batch_size": ground.PAIRS,
        "optimizer": {"_component_": "torch.optim.AdamW", "lr": 5 * ground.LEARNING_RATE},
        "lr_scheduler": {
            "_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
            "num_warmup_steps": 0,
        },
        "loss": {"_component_": "torchtune.rlhf.loss.DPOLoss", "beta": 0.1},
        "epochs": 1,
        "max_steps_per_epoch": None,
        "gradient_accumulation_steps": 1,
        "compile": False,
        "metric_logger": {
            "_component_": "torchtune.training.metric_logging.DiskLogger",
            "log_dir": str(home / "dpo" / "logs"),
        },
        "log_every_n_steps": 1,
        "log_peak_memory_stats": False,
        "device": "cpu",
        "dtype": "fp32",
        "enable_activation_checkpointing": False,
        "enable_activation_offloading": False,
    }


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of torchtune's log, in the words of the others."""
    entries = []
    for line in next(folder.glob("log_*.txt")).read_text().splitlines():
        values = dict(re.findall(r"(\S+):(-?[\d.e-]+)", line))
        entry = {"step": int(re.findall(r"^Step (\d+)", line)[0])}
        entries.append(
            {**entry, **{f"logps/{side}": values[f"log_probs/{side}"] for side in ("chosen", "rejected")}}
        )
    return entries


def main() -> None:
    home = ground.folder()
    model, pairs = ground.checkpoint(home), ground.pairs(home)
    untied(model)
    with (home / "train.jsonl").open("w") as file:
        for row in ground.rows(pairs) * ground.STEPS:
            asked = {"role": "user", "content": row["prompt"]}
            sides = {
                side: [asked, {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")
            }
            file.write(json.dumps(sides) + "\n")
    (home / "dpo.yaml").write_text(yaml.safe_dump(settings(home, model)))
    beside = Path(sys.executable)
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run(
        [beside.with_name("tune"), "run", "lora_dpo_single_device", "--config", "dpo.yaml"],
        cwd=home,
        env=here,
        check=True,
    )
    row = [model, home / "dpo" / "epoch_0"]
    words = ["--at", 0, ground.STEPS, "--data", pairs, "--objective", "dpo", "--output", home / "row"]
    subprocess.run([beside, "-m", "rewardshape.measure", *map(str, [*row, *words])], check=True)
    ground.compared("torchtune", home / "row", logged(home / "dpo" / "logs"))


if __name__ == "__main__":
    main()

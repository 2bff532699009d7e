"""verl's sharded checkpoints, merged by verl and measured: python benchmarks/recipes/in_verl.py FOLDER

verl's own trainers need GPUs. Here two processes train with FSDP2 on a CPU, verl's checkpoint manager saves as its
trainers do, `verl.model_merger` merges, and the row must say what a Recorder said while the two trained, but for
verl's rounding: it merges to bfloat16.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ground
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape import Recorder, objective


def trained(home: Path) -> None:
    """On each of the two processes: the likelihood of chosen responses, saved every second step."""
    from omegaconf import OmegaConf
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("fsdp",))
    tokenizer = AutoTokenizer.from_pretrained(home / "model")
    model = AutoModelForCausalLM.from_pretrained(home / "model")
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=ground.LEARNING_RATE)
    parts = ["model", "optimizer", "extra"]
    manager = FSDPCheckpointManager(
        model=model,
        optimizer=optimizer,
        lr_scheduler=None,
        processing_class=tokenizer,
        checkpoint_config=OmegaConf.create({"save": parts, "load": parts}),
    )
    rows = ground.rows(home / "pairs.jsonl")
    with Recorder(
        model, tokenizer, home / "pairs.jsonl", objective("dpo", beta=0.1), home / "loop"
    ) as recorder:
        recorder.measure(0)
        for step in range(1, ground.STEPS + 1):
            row = rows[2 * step + dist.get_rank()]
            ids = tokenizer(row["prompt"] + row["chosen"], return_tensors="pt")["input_ids"]
            model(ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 2 == 0:
                recorder.measure(step)
                manager.save_checkpoint(str(home / f"global_step_{step}" / "actor"), global_step=step)
    dist.destroy_process_group()


def main() -> None:
    home = ground.folder()
    model, pairs = ground.checkpoint(home), ground.pairs(home)
    python = [sys.executable, "-m"]
    words = ["torch.distributed.run", "--nproc-per-node", "2", __file__, str(home)]
    subprocess.run([*python, *words], check=True)
    row = [model]
    for step in range(2, ground.STEPS + 1, 2):
        actor = home / f"global_step_{step}" / "actor"
        row.append(actor / "huggingface")
        words = ["verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(actor)]
        subprocess.run([*python, *words, "--target_dir", str(row[-1])], check=True)
    words = ["--data", str(pairs), "--output", str(home / "row")]
    subprocess.run([*python, "rewardshape.measure", *map(str, row), *words], check=True)
    ground.alike("verl", home / "loop", home / "row", within=0.5)


if __name__ == "__main__":
    trained(Path(sys.argv[1])) if "LOCAL_RANK" in os.environ else main()

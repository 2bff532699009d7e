"""A loop over a model that FSDP2 shards, with a Recorder in it:

    torchrun --nproc-per-node 2 fsdp2_loop.py MODEL PAIRS FOLDER

Nothing but torch shards here; on a machine without an accelerator the processes meet over gloo.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape import Recorder, objective

checkpoint, pairs, folder = sys.argv[1:4]
on_gpu = torch.cuda.is_available()
dist.init_process_group("nccl" if on_gpu else "gloo")
rank, world = dist.get_rank(), dist.get_world_size()
device = f"cuda:{rank % torch.cuda.device_count()}" if on_gpu else "cpu"
if on_gpu:
    torch.cuda.set_device(device)
mesh = init_device_mesh("cuda" if on_gpu else "cpu", (world,))

tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForCausalLM.from_pretrained(checkpoint).to(device)
for layer in model.get_decoder().layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
rows = [json.loads(line) for line in Path(pairs).read_text(encoding="utf-8").splitlines()]


def logp_mean(prompt, response):
    before = tokenizer(prompt)["input_ids"]
    ids = torch.tensor([tokenizer(prompt + response)["input_ids"] + [tokenizer.eos_token_id]], device=device)
    logps = model(ids).logits[0, :-1].log_softmax(-1)
    return logps.gather(-1, ids[0, 1:, None])[len(before) - 1 :].mean()


with Recorder(model, tokenizer, rows[:16], objective("simpo", beta=2.0, gamma=1.0), folder) as recorder:
    recorder.measure(0)  # on every process: each measures its share of the pairs
    for step in range(1, 4):
        row = rows[16 + step * world + rank]
        margin = logp_mean(row["prompt"], row["chosen"]) - logp_mean(row["prompt"], row["rejected"])
        loss = -torch.nn.functional.logsigmoid(2.0 * margin - 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told = recorder.measure(step)
        if rank == 0:
            print(f"step {step}: chosen {told['probe_chosen_change']:+.4f} nats per token")
dist.destroy_process_group()

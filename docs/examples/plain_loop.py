"""DPO in a loop of one's own, in plain PyTorch, with a Recorder in it: python plain_loop.py MODEL PAIRS FOLDER [STEPS]

Stopped and started again, it goes on from its last checkpoint, and so does the record.
"""

import json
import os
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardshape import Recorder, objective

checkpoint, pairs, folder = sys.argv[1:4]
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 4
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForCausalLM.from_pretrained(checkpoint)
reference = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
rows = [json.loads(line) for line in Path(pairs).read_text(encoding="utf-8").splitlines()]


def logp(model, prompt, response):
    before = tokenizer(prompt)["input_ids"]
    ids = torch.tensor([tokenizer(prompt + response)["input_ids"] + [tokenizer.eos_token_id]])
    logps = model(ids).logits[0, :-1].log_softmax(-1)
    return logps.gather(-1, ids[0, 1:, None])[len(before) - 1 :].sum()


def dpo_loss(row, beta=0.1):
    gap = logp(model, row["prompt"], row["chosen"]) - logp(model, row["prompt"], row["rejected"])
    with torch.no_grad():
        start = logp(reference, row["prompt"], row["chosen"]) - logp(
            reference, row["prompt"], row["rejected"]
        )
    return -torch.nn.functional.logsigmoid(beta * (gap - start))


saved = Path(folder) / "loop.pt"
done = 0
if saved.exists():
    state = torch.load(saved, weights_only=True)
    done = state["step"]
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])

with Recorder(
    model, tokenizer, rows[:16], objective("dpo", beta=0.1), Path(folder) / "rewardshape"
) as recorder:
    if not done:
        recorder.measure(0)
    for step in range(done + 1, steps + 1):
        batch = rows[16 + 4 * step : 20 + 4 * step]
        loss = torch.stack([dpo_loss(row) for row in batch]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told = recorder.measure(step, metrics={"loss": loss.item()})
        print(
            f"step {step}: loss {loss.item():.4f}, chosen {told['probe_chosen_change']:+.4f} nats per token"
        )
        state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, saved.with_suffix(".new"))
        os.replace(saved.with_suffix(".new"), saved)  # whole or not at all

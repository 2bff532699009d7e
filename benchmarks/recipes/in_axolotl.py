"""DPO in Axolotl with a plugin that adds a ProbeCallback: python benchmarks/recipes/in_axolotl.py FOLDER"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import ground
import yaml

PLUGIN = """\
from axolotl.integrations.base import BasePlugin
from rewardshape import ProbeCallback

class Watch(BasePlugin):
    def add_callbacks_post_trainer(self, cfg, trainer):
        ProbeCallback("pairs.jsonl", every=1).attach(trainer)
        return []
"""

home = ground.folder()
model, pairs = ground.checkpoint(home), ground.pairs(home)
(home / "watch.py").write_text(PLUGIN)
with (home / "train.jsonl").open("w") as file:
    for row in ground.rows(pairs):
        chat = {
            "messages": [{"role": "user", "content": row["prompt"]}],
            "chosen": {"role": "assistant", "content": row["chosen"]},
            "rejected": {"role": "assistant", "content": row["rejected"]},
        }
        file.write(json.dumps(chat) + "\n")
settings = {
    "base_model": str(model),
    "plugins": ["watch.Watch"],
    "rl": "dpo",
    "dpo_beta": 0.1,
    "datasets": [
        {"path": "train.jsonl", "ds_type": "json", "split": "train", "type": "chat_template.default"}
    ],
    "chat_template": "tokenizer_default",
    "sequence_len": 256,
    "output_dir": "dpo",
    "max_steps": ground.STEPS,
    "micro_batch_size": ground.PAIRS,
    "gradient_accumulation_steps": 1,
    "learning_rate": ground.LEARNING_RATE,
    "optimizer": "adamw_torch",
    "lr_scheduler": "constant",
    "logging_steps": 1,
    "bf16": False,
    "tf32": False,
    "attn_implementation": "sdpa",
}
(home / "dpo.yaml").write_text(yaml.safe_dump(settings))
command = [Path(sys.executable).with_name("axolotl"), "train", "dpo.yaml", "--launcher", "python"]
subprocess.run(command, cwd=home, check=True, env={**os.environ, "PYTHONPATH": str(home)})
state = max((home / "dpo").glob("checkpoint-*/trainer_state.json"))
ground.compared("axolotl", home / "dpo" / "rewardshape", json.loads(state.read_text())["log_history"])

"""DPO in LLaMA-Factory with a ProbeCallback: python benchmarks/recipes/in_llamafactory.py FOLDER"""

from __future__ import annotations

import json

import ground
from llamafactory.train.tuner import run_exp

from rewardshape import ProbeCallback, objective

home = ground.folder()
model, pairs = ground.checkpoint(home), ground.pairs(home)
table = {
    "pairs": {
        "file_name": pairs.name,
        "ranking": True,
        "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    }
}
(home / "dataset_info.json").write_text(json.dumps(table))
output = home / "dpo"
run_exp(
    {
        "stage": "dpo",
        "do_train": True,
        "model_name_or_path": str(model),
        "finetuning_type": "full",
        "pref_beta": 0.1,
        "pref_loss": "sigmoid",
        "dataset": "pairs",
        "dataset_dir": str(home),
        "cutoff_len": 256,
        "output_dir": str(output),
        "per_device_train_batch_size": ground.PAIRS,
        "learning_rate": ground.LEARNING_RATE,
        "max_steps": ground.STEPS,
        "logging_steps": 1,
        "report_to": "none",
    },
    callbacks=[ProbeCallback(pairs, objective("dpo", beta=0.1))],
)
state = json.loads((output / "trainer_state.json").read_text())
ground.compared("llamafactory", output / "rewardshape", state["log_history"])

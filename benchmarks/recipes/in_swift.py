"""DPO in ms-swift with a ProbeCallback: python benchmarks/recipes/in_swift.py FOLDER"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ground

PLUGIN = """\
from rewardshape import ProbeCallback
from swift.callbacks import callbacks_map

callbacks_map["rewardshape"] = lambda args, trainer: ProbeCallback("probe.jsonl", every=1)
"""

home = ground.folder()
model, pairs = ground.checkpoint(home), ground.pairs(home)
pairs.rename(home / "probe.jsonl")
(home / "watch.py").write_text(PLUGIN)
with (home / "train.jsonl").open("w") as file:
    for row in ground.rows(home / "probe.jsonl"):
        chat = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["chosen"]}]
        file.write(json.dumps({"messages": chat, "rejected_response": row["rejected"]}) + "\n")
command = (
    f"rlhf --rlhf_type dpo --model {model} --model_type llama --template dummy "
    f"--tuner_type full --torch_dtype float32 --dataset train.jsonl --split_dataset_ratio 0 --output_dir dpo "
    f"--add_version false --beta 0.1 --max_steps {ground.STEPS} --per_device_train_batch_size {ground.PAIRS} "
    f"--gradient_accumulation_steps 1 --learning_rate {ground.LEARNING_RATE} --logging_steps 1 --report_to none "
    "--dataset_num_proc 1 --load_from_cache_file false --check_model false "
    "--external_plugins watch.py --callbacks rewardshape"
)
swift = Path(sys.executable).with_name("swift")
subprocess.run([swift, *command.split()], cwd=home, check=True)
logged = [json.loads(line) for line in (home / "dpo" / "logging.jsonl").read_text().splitlines()]
for entry in logged:
    if "global_step/max_steps" in entry:
        entry["step"] = entry["global_step/max_steps"].split("/")[0]
ground.compared("ms-swift", home / "dpo" / "rewardshape", logged)

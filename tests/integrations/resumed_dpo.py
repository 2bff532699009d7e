"""DPO with TRL and the callback, which goes on from its newest checkpoint: resumed_dpo.py MODEL PAIRS FOLDER [wait]

With a fourth word it waits before its last step, to be killed.
"""

import sys
import time

from datasets import load_dataset
from small_run import ARGUMENTS
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import DPOConfig, DPOTrainer

from rewardshape import ProbeCallback


class Waits(TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == args.max_steps - 1:
            time.sleep(600)


checkpoint, pairs, folder, *wait = sys.argv[1:]
rows = load_dataset("json", data_files=pairs, split="train")
arguments = DPOConfig(
    output_dir=folder,
    max_steps=8,
    save_steps=2,
    per_device_train_batch_size=2,
    **ARGUMENTS,
)
trainer = DPOTrainer(
    AutoModelForCausalLM.from_pretrained(checkpoint),
    args=arguments,
    train_dataset=rows.select(range(8, 40)),
    processing_class=AutoTokenizer.from_pretrained(checkpoint),
    callbacks=[ProbeCallback(rows.select(range(6))), *[Waits() for _ in wait]],
)
trainer.train(resume_from_checkpoint=get_last_checkpoint(folder))

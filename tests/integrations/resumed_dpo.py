"""DPO with TRL and the callback, which goes on from its newest checkpoint: resumed_dpo.py MODEL PAIRS FOLDER"""

import sys

from datasets import load_dataset
from small_run import ARGUMENTS
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_utils import get_last_checkpoint
from trl import DPOConfig, DPOTrainer

from rewardshape import ProbeCallback

checkpoint, pairs, folder = sys.argv[1:]
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
    callbacks=[ProbeCallback(rows.select(range(6)))],
)
trainer.train(resume_from_checkpoint=get_last_checkpoint(folder))

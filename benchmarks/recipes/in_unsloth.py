"""DPO in Unsloth with a ProbeCallback: python benchmarks/recipes/in_unsloth.py FOLDER"""

from __future__ import annotations

from unsloth import FastLanguageModel  # before transformers and trl, which it changes # isort: skip

import ground
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from rewardshape import ProbeCallback

home = ground.folder()
checkpoint, pairs = ground.checkpoint(home), ground.pairs(home)
model, tokenizer = FastLanguageModel.from_pretrained(
    str(checkpoint), max_seq_length=256, load_in_4bit=False, full_finetuning=True
)
chats = [
    {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }
    for row in ground.rows(pairs)
]
trainer = DPOTrainer(
    model,
    args=DPOConfig(
        output_dir=str(home / "dpo"),
        beta=0.1,
        max_steps=ground.STEPS,
        per_device_train_batch_size=ground.PAIRS,
        learning_rate=ground.LEARNING_RATE,
        logging_steps=1,
        report_to=[],
    ),
    train_dataset=Dataset.from_list(chats),
    processing_class=tokenizer,
)
ProbeCallback(pairs).attach(trainer)
trainer.train()
ground.compared("unsloth", home / "dpo" / "rewardshape", trainer.state.log_history)
